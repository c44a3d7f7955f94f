"""What may be asked for: unlabelled tasks, and images of which a part is labelled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ml_backend.annotations import masks
from ml_backend.annotations.boxes import Box, boxes_to_text
from ml_backend.errors import MaskError
from ml_backend.projects.candidates import candidates
from ml_backend.projects.parts import merged_mask
from ml_backend.store import Task
from ml_backend.system.files import Folder

LEFT = boxes_to_text([Box(0, 0, 2, 4)])


def task(number: int, image: str = "a.png", **fields: Any) -> Task:
    return Task(1, number, image, **fields)


def part(number: int, image: str = "a.png", boxes: str = LEFT, **fields: Any) -> Task:
    return task(number, image, **{"status": "labelled", "boxes": boxes, "mask_file": "mask.png"} | fields)


def ids(tasks: list[Task], *, in_parts: bool) -> list[tuple[int, int]]:
    """(task, how many parts are known of it) of each candidate."""
    return [(one.task.task_id, len(one.parts)) for one in candidates(tasks, in_parts=in_parts)]


@pytest.mark.parametrize("in_parts", [False, True])
def test_unlabelled_tasks_are_asked_for_whatever_the_method(in_parts: bool) -> None:
    tasks = [
        task(3, "c"),
        task(1, "a"),
        task(2, "b", status="labelled", mask_file="m.png"),
        task(4, "d", status="skipped"),
    ]
    assert ids(tasks, in_parts=in_parts) == [(1, 0), (3, 0)]


def test_an_image_labelled_in_part_may_be_asked_for_again_where_parts_can_be() -> None:
    tasks = [part(1), part(2, updated_at="2")]
    assert ids(tasks, in_parts=True) == [(2, 2)]
    assert ids(tasks, in_parts=False) == []


def test_a_follow_up_that_waits_stands_for_its_image() -> None:
    assert ids([part(1), task(7)], in_parts=True) == [(7, 1)]
    assert ids([part(1), task(7)], in_parts=False) == [(7, 1)]


@pytest.mark.parametrize("status", ["skipped", "broken"])
def test_an_image_that_somebody_put_aside_is_not_asked_for_again(status: str) -> None:
    assert ids([part(1), task(7, status=status)], in_parts=True) == []


def test_an_image_that_is_labelled_whole_is_done() -> None:
    assert ids([part(1), task(2, status="labelled", mask_file="m.png")], in_parts=True) == []


def test_the_boxes_of_all_parts_have_been_asked_for() -> None:
    other = boxes_to_text([Box(2, 0, 1, 1), Box(3, 3, 1, 1)])
    (found,) = candidates([part(1), part(2, boxes=other, updated_at="2")], in_parts=True)
    assert found.asked == (Box(0, 0, 2, 4), Box(2, 0, 1, 1), Box(3, 3, 1, 1))


# -- merging ---------------------------------------------------------------------------------------------------------
def written(folder: Path, name: str, values: list[list[int]]) -> str:
    file = folder / name
    file.write_bytes(masks.png_bytes(np.array(values, dtype=np.uint8)))
    return str(file)


def test_the_newest_part_is_on_top_and_the_rest_is_not_labelled(tmp_path: Path) -> None:
    older = part(5, mask_file=written(tmp_path, "older.png", [[1, 1, 255], [1, 1, 255]]), updated_at="2026-01-01")
    newer = part(2, mask_file=written(tmp_path, "newer.png", [[255, 0, 255], [255, 2, 255]]), updated_at="2026-01-02")
    (found,) = candidates([newer, older], in_parts=True)
    assert merged_mask(Folder(tmp_path), found.parts).tolist() == [[1, 0, 255], [1, 2, 255]]


def test_masks_of_different_sizes_are_an_error(tmp_path: Path) -> None:
    files = [written(tmp_path, "a.png", [[1]]), written(tmp_path, "b.png", [[1, 1]])]
    with pytest.raises(MaskError, match="different sizes"):
        merged_mask(Folder(tmp_path), [part(1, mask_file=files[0]), part(2, mask_file=files[1])])
