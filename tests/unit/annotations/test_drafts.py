"""Which regions an editor holds that asks for a suggestion."""

from __future__ import annotations

from typing import Any

import pytest

from ml_backend.annotations.drafts import Held, held

VERSION = "nextmask-2.1"


def rows(*names: str, **fields: Any) -> dict[str, Any]:
    return {"result": [{"id": name} for name in names], **fields}


def draft(*names: str, user: str = "a@b.co", at: int = 1) -> dict[str, Any]:
    return rows(*names, user=user, updated_at=f"2026-01-01T00:00:0{at}Z")


def ids(task: dict[str, Any], *prompts: str) -> list[str]:
    return [region["id"] for region in held(task, prompts, VERSION).result]


def test_before_a_draft_it_is_the_prediction_that_is_shown() -> None:
    old, shown = rows("old", model_version="nextmask-1.1"), rows("shown", model_version=VERSION)
    assert ids({"predictions": [old, shown]}) == ["shown"]
    assert ids({"predictions": [old]}) == ["old"]
    assert ids({}) == []


def test_a_single_annotation_comes_before_predictions_and_several_tell_nothing() -> None:
    predictions = [rows("shown", model_version=VERSION)]
    mine, skipped = rows("mine"), rows("skipped", was_cancelled=True)
    assert ids({"predictions": predictions, "annotations": [skipped, mine]}) == ["mine"]
    assert ids({"predictions": predictions, "annotations": [mine, mine]}) == []
    assert ids({"predictions": predictions, "annotations": [skipped]}) == ["shown"]


def test_the_newest_draft_of_one_person_counts_and_its_time_is_known() -> None:
    task = {"drafts": [draft("new", at=2), draft("old", at=1)], "annotations": [rows("submitted")]}
    assert held(task, (), VERSION) == Held(({"id": "new"},), "2026-01-01T00:00:02Z")


def test_of_two_people_only_the_one_is_believed_whose_draft_has_a_prompt() -> None:
    task = {"drafts": [draft("one", "click", user="one"), draft("two", user="two", at=2)]}
    assert ids(task, "click") == ["one", "click"]
    assert ids(task, "other") == []


@pytest.mark.parametrize("rows_", [None, 3, "text", [None, 3], [{"result": None}], [{}]])
@pytest.mark.parametrize("name", ["drafts", "annotations", "predictions"])
def test_damaged_rows_tell_nothing(name: str, rows_: object) -> None:
    assert ids({name: rows_}) == []
