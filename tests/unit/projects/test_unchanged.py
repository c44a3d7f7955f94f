"""When labels that were submitted unchanged are told of, and what is said."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner
from wiring import PROJECT, give_project, task_of

from ml_backend.cli.app import app
from ml_backend.projects.services import Services
from ml_backend.projects.status import project_status
from ml_backend.projects.unchanged import Annotator, keep_annotator_names


def put_labels(services: Services, unchanged: int, changed: int, without: int = 0) -> None:
    """Labels over a mask of user 7, then those of user 8, who was shown none."""
    shown: list[Any] = [True] * unchanged + [False] * changed + [None] * without
    services.store.put_tasks(
        task_of(at, status="labelled", annotation_id=at, annotator=8 if one is None else 7, unchanged=one)
        for at, one in enumerate(shown, start=1)
    )


def warned(services: Services) -> bool:
    status = project_status(services.settings, services.store, PROJECT)
    assert status.advice is not None
    found = [sentence for sentence in status.advice.sentences if "unchanged" in sentence]
    assert found == ([status.unchanged.warning] if status.unchanged.warning else [])
    return bool(found)


@pytest.mark.parametrize(
    ("unchanged", "changed", "without", "expected"),
    [
        (9, 0, 50, False),  # nine labels over a mask say little
        (10, 0, 0, True),
        (5, 5, 0, False),  # as large as the setting is not above it
        (6, 4, 0, True),
        (6, 4, 90, True),  # who drew from nothing could change nothing
        (0, 40, 0, False),
    ],
)
def test_a_share_above_the_setting_is_told(
    unchanged: int, changed: int, without: int, expected: bool, services: Services
) -> None:
    give_project(services)
    put_labels(services, unchanged, changed, without)
    assert warned(services) == expected


@pytest.mark.parametrize(("share", "expected"), [(0.0, True), (0.59, True), (0.6, False), (1.0, False)])
def test_the_setting_is_of_the_project(share: float, expected: bool, services: Services) -> None:
    give_project(services, extra_params=json.dumps({"unchanged_share": share}))
    put_labels(services, 6, 4)
    assert warned(services) == expected


def test_one_sentence_says_what_follows_and_what_to_do(services: Services) -> None:
    give_project(services)
    put_labels(services, 8, 4)
    sentence = project_status(services.settings, services.store, PROJECT).unchanged.warning
    assert sentence.startswith("8 of 12 labels")
    assert sentence.count(". ") == 0
    for part in ("NEXTMASK_UNCHANGED_SHARE (0.5)", "may be right", "lean on the model", "check", "docs/annotating.md"):
        assert part in sentence
    assert "wrong" not in sentence


def test_status_tells_of_each_annotator(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    give_project(services)
    put_labels(services, 8, 4, without=3)
    keep_annotator_names(services.store, {7: "Ada", 8: ""})
    status = project_status(services.settings, services.store, PROJECT)
    assert status.unchanged.annotators == [Annotator(7, "Ada", 12, 12, 8, 8 / 12), Annotator(8, "", 3, 0, 0, None)]
    shown = json.loads(json.dumps(status.as_json()))["unchanged"]
    assert (shown["shown"], shown["unchanged"], shown["share"]) == (12, 8, 8 / 12)
    assert shown["annotators"][0] == {
        "id": 7,
        "name": "Ada",
        "labels": 12,
        "shown": 12,
        "unchanged": 8,
        "share": 8 / 12,
        "guesses": 0,
        "right": None,
    }
    monkeypatch.setenv("MODEL_DIR", str(services.settings.model_dir))
    monkeypatch.setenv("COLUMNS", "300")
    told = CliRunner().invoke(app, ["status"]).output
    assert "8 of 12" in told
    assert status.unchanged.warning in told.replace("\n", "")
