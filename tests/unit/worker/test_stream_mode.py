"""Stream mode as a whole: arrivals, the queue, markers and tabs, as reconcile, connect and disconnect leave them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from arrivals import arrive, marked, passed
from memory_studio import MemoryStudio
from wiring import PROJECT, Clock, nothing, serve_model

from ml_backend.errors import ConfigurationError, TrainingError
from ml_backend.label_studio.predictions import MARKER
from ml_backend.learning.training import process as training_process
from ml_backend.projects.connection import Connection
from ml_backend.projects.passed_over import stream_counts
from ml_backend.projects.services import Services
from ml_backend.projects.status import project_status
from ml_backend.projects.tabs import PASSED_TAB_TITLE, TAB_TITLE, passed_over_tab, queue_tab
from ml_backend.worker import top_up
from ml_backend.worker.decide import CHUNK
from ml_backend.worker.reconcile import reconcile

RATE = 0.3
QUICK = {"input_size": 32, "iterations": 6, "batch_size": 4, "train_after": 99, "queue_window": 4}
pytestmark = [
    pytest.mark.usefixtures("one_thread", "known_project"),
    pytest.mark.studio(6, connected=True),
    pytest.mark.settings(**QUICK),
]


# -- the whole loop --------------------------------------------------------------------------------------------------
@pytest.fixture
def streaming(services: Services, studio: MemoryStudio, known_project: None) -> None:
    """A project that a model serves, with stream mode on."""
    serve_model(services)
    studio.backends[0]["extra_params"] = {"stream_rate": RATE}
    studio.tabs = [{"id": 50, "data": queue_tab()}]
    reconcile(services, PROJECT, nothing)


@pytest.mark.usefixtures("streaming")
def test_arrivals_are_decided_about_and_the_queue_holds_the_kept_ones(services: Services, studio: MemoryStudio) -> None:
    assert services.store.decisions(PROJECT) == {}
    new = arrive(studio, 10)
    reconcile(services, PROJECT, nothing)
    decisions = services.store.decisions(PROJECT)
    assert list(decisions) == new
    kept = [task for task in new if decisions[task].keep]
    assert 0 < len(kept) <= 3
    assert passed(services) == marked(studio) == [task for task in new if task not in kept]
    ranked = {task.task_id for task, _ in services.store.ranked(PROJECT)}
    assert ranked == {1, 2, 3, 4, 5, 6, *kept}
    assert not set(studio.queue()) & set(passed(services))
    assert studio.fields["model_version"] == "nextmask-1.2"
    queue, passed_tab = studio.tabs
    assert passed_tab["data"] == passed_over_tab()
    assert queue["data"]["filters"]["items"][-1]["operator"] == "not_contains"
    status = project_status(services.settings, services.store, PROJECT)
    assert (status.pool, status.stream) == (6 + len(kept), stream_counts(services.store, PROJECT))
    assert json.loads(json.dumps(status.as_json()))["stream"]["passed"] == len(marked(studio))

    before = (list(studio.predictions), len(studio.imports), services.store.decisions(PROJECT))
    reconcile(services, PROJECT, nothing)
    assert (list(studio.predictions), len(studio.imports), services.store.decisions(PROJECT)) == before


@pytest.mark.usefixtures("streaming")
def test_a_label_by_a_person_wins(services: Services, studio: MemoryStudio) -> None:
    arrive(studio, 10)
    reconcile(services, PROJECT, nothing)
    first, second, *rest = passed(services)
    studio.label(first)
    studio.annotate(second, [], was_cancelled=True)
    reconcile(services, PROJECT, nothing)
    labelled, skipped = (services.store.tasks(PROJECT, status=status) for status in ("labelled", "skipped"))
    assert ([task.task_id for task in labelled], [task.task_id for task in skipped]) == ([first], [second])
    assert passed(services) == rest

    studio.items[first]["annotations"].clear()  # and is passed over again when it is gone
    studio.items[first]["updated_at"] = studio.now()
    reconcile(services, PROJECT, nothing)
    assert passed(services) == [first, *rest]
    assert len(marked(studio)) == len(set(marked(studio)))


@pytest.mark.usefixtures("streaming")
def test_deleted_markers_return_tasks_to_the_ranking(services: Services, studio: MemoryStudio) -> None:
    arrive(studio, 10)
    reconcile(services, PROJECT, nothing)
    back, *rest = passed(services)
    studio.predictions = [row for row in studio.predictions if row["task"] != back]
    reconcile(services, PROJECT, nothing)
    assert back in {task.task_id for task, _ in services.store.ranked(PROJECT)}
    assert passed(services) == marked(studio) == rest


@pytest.mark.usefixtures("streaming")
def test_markers_are_never_pruned(services: Services, studio: MemoryStudio, clock: Clock) -> None:
    arrive(studio, 10)
    reconcile(services, PROJECT, nothing)
    before = marked(studio)
    clock.go_on(hours=100)
    reconcile(services, PROJECT, nothing)
    assert set(studio.model_versions(PROJECT)) == {MARKER, "nextmask-1.2"}
    assert marked(studio) == before


@pytest.mark.usefixtures("streaming")
def test_what_waits_for_its_decision_is_not_ranked_and_the_next_look_comes_at_once(
    services: Services, studio: MemoryStudio
) -> None:
    studio.backends[0]["extra_params"] = {"stream_rate": RATE, "pool_sample": CHUNK}
    new = arrive(studio, CHUNK + 4)
    # Without a look under way, one is due anyway.
    assert services.store.acquire("worker", lease_seconds=60, interval=60)
    before = services.store.project(PROJECT)
    reconcile(services, PROJECT, nothing)
    after = services.store.project(PROJECT)
    assert before is not None
    assert after is not None
    assert after.wakes == before.wakes + 1
    assert list(services.store.decisions(PROJECT)) == new[:CHUNK]
    assert not {task.task_id for task, _ in services.store.ranked(PROJECT)} & set(new[CHUNK:])
    reconcile(services, PROJECT, nothing)
    assert list(services.store.decisions(PROJECT)) == new


@pytest.mark.usefixtures("streaming")
def test_a_method_that_has_still_to_learn_leaves_arrivals_to_the_pool_for_a_while(
    services: Services, studio: MemoryStudio
) -> None:
    options = {"epochs": 1, "image_size": 16, "width": 4, "latent": 4}
    params = {"stream_rate": RATE, "strategy": "vaal", "strategy_options": options}
    studio.backends[0]["extra_params"] = params
    studio.label(1)
    new = arrive(studio, 8)
    reconcile(services, PROJECT, nothing)  # learns while it ranks
    assert services.store.decisions(PROJECT) == {}
    assert {task.task_id for task, _ in services.store.ranked(PROJECT)} >= set(new)
    reconcile(services, PROJECT, nothing)
    assert list(services.store.decisions(PROJECT)) == new
    assert not {task.task_id for task, _ in services.store.ranked(PROJECT)} & set(passed(services))
    assert not set(studio.queue()) & set(passed(services)), "served by the version that came before"


@pytest.mark.usefixtures("streaming")
@pytest.mark.parametrize("strategy", ["bald", "coreset", "cereals", "suggestive_annotation", "random"])
def test_other_methods_observe_arrivals_too(services: Services, studio: MemoryStudio, strategy: str) -> None:
    params = {"stream_rate": RATE, "strategy": strategy, "committee": "mc_dropout", "members": 3}
    studio.backends[0]["extra_params"] = params
    studio.label(1)
    new = arrive(studio, 8)
    reconcile(services, PROJECT, nothing)
    assert list(services.store.decisions(PROJECT)) == new


@pytest.mark.usefixtures("streaming")
def test_arrivals_are_decided_about_while_a_training_runs(
    services: Services, studio: MemoryStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def training(_job: object, *, heartbeat: Callable[[], None], **_: Any) -> int:
        arrive(studio, 10)
        heartbeat()
        seen.extend(marked(studio))
        raise TrainingError("the end of this test")

    monkeypatch.setattr(training_process, "run", training)
    monkeypatch.setattr(top_up, "TOP_UP_SECONDS", 0.0)
    studio.label(1)
    services.store.wake(PROJECT, train=True)
    with pytest.raises(TrainingError, match="the end"):
        reconcile(services, PROJECT, nothing)
    assert seen == passed(services)
    assert len(seen) >= 7


@pytest.mark.usefixtures("streaming")
def test_a_broken_image_is_decided_about_when_it_is_mended(services: Services, studio: MemoryStudio) -> None:
    good, broken = arrive(studio, 2)
    reference = studio.items[broken]["data"]["image"]
    content = studio.files.pop(reference)
    reconcile(services, PROJECT, nothing)
    assert list(services.store.decisions(PROJECT)) == [good]
    studio.files[reference] = content
    services.store.set_value(f"images_retried_{PROJECT}", "0")
    reconcile(services, PROJECT, nothing)
    assert list(services.store.decisions(PROJECT)) == [good, broken]


# -- connect ---------------------------------------------------------------------------------------------------------
def test_connect_adds_the_tab_and_disconnect_removes_it(services: Services, studio: MemoryStudio) -> None:
    studio.backends[0]["state"] = "CO"
    connection = Connection(services.settings, services.store, services.client, PROJECT)
    assert not any("Passed" in change for change in connection.connect())
    changes = connection.connect({"stream_rate": 0.25})
    assert f"added the tab {PASSED_TAB_TITLE!r}" in changes
    assert f"left passed-over tasks out of the tab {TAB_TITLE!r}" in changes
    assert connection.connect() == []
    titles = [tab["data"]["title"] for tab in studio.tabs]
    assert sorted(titles) == ["Default", "Passed over", "Priority queue"]
    connection.disconnect()
    assert studio.tabs == []


@pytest.mark.parametrize("change", [{"stream_rate": 1.1}, {"stream_rate": -0.1}])
def test_settings_out_of_range_are_refused(services: Services, change: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=f"NEXTMASK_{next(iter(change)).upper()}"):
        services.settings.for_project(change)
