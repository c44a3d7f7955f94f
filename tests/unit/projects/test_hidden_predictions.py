"""Predictions of others: which they are, and what is said of them."""

from __future__ import annotations

import pytest
from memory_studio import MemoryStudio
from wiring import PROJECT, look_at

from ml_backend.label_studio.predictions import DUPLICATE, MARKER, NO_VERSION, RETURNED
from ml_backend.projects.hidden_predictions import (
    hidden_predictions,
    hidden_text,
    keep_hidden_predictions,
    of_others,
)
from ml_backend.projects.services import Services
from ml_backend.projects.status import project_state
from ml_backend.worker.rank import rank
from ml_backend.worker.sync import sync


def test_what_is_of_others() -> None:
    own = dict.fromkeys(("nextmask-7.2", f"nextmask-7.2{DUPLICATE}", MARKER, RETURNED, NO_VERSION), 3)
    title = {"nextmask": 0, "My model": 0}  # the project's model version, which Label Studio lists as well
    assert of_others({**own, **title, "sam": 2, "undefined": 1}) == {"sam": 2, "undefined": 1}
    assert of_others({"null": 0}) == {"null": 0}


def test_what_is_said() -> None:
    text = hidden_text({"b": 2, "a": 2, "c": 30, "null": 0}, 7)
    assert ": 30 of 'c', 2 of 'a', 2 of 'b', some without a version. Label Studio shows one version" in text
    assert text.endswith("They stay as they are; to see them again: nextmask disconnect 7")
    many = hidden_text({f"v{number}": 9 - number for number in range(8)}, 7)
    assert "5 of 'v4' and 3 more versions." in many
    assert len(hidden_text({"x" * 10_000: 1}, 7)) < 500


def test_only_versions_that_are_new_are_told(services: Services) -> None:
    store = services.store
    assert "4 of 'sam'" in keep_hidden_predictions(store, PROJECT, {"sam": 4, "nextmask-1.1": 9})
    assert keep_hidden_predictions(store, PROJECT, {"sam": 5}) == ""
    assert hidden_predictions(store, PROJECT) == {"sam": 5}
    assert "1 of 'sam-2'" in keep_hidden_predictions(store, PROJECT, {"sam": 5, "sam-2": 1})
    assert keep_hidden_predictions(store, PROJECT, {}) == ""
    assert hidden_predictions(store, PROJECT) == {}


@pytest.mark.studio(4, connected=True)
@pytest.mark.usefixtures("served_project")
def test_those_that_come_later_are_told_with_the_next_ranking(services: Services, studio: MemoryStudio) -> None:
    studio.import_predictions(PROJECT, [{"task": 1, "result": [], "score": 0.5, "model_version": "sam"}])
    look = look_at(services)
    sync(look)
    rank(look)
    (event,) = [event for event in services.store.events(PROJECT) if event.kind == "predictions_hidden"]
    assert (event.level, "1 of 'sam'" in event.text) == ("warning", True)
    assert event.text in project_state(services.settings, services.store, PROJECT).hints
