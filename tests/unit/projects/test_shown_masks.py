"""MaskRenderer with a real small model: masks, broken images, class names that changed, and time limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wiring import BROKEN, LABEL_MAP, PROJECT, XML, overlap_with_truth, put_task, renderer_of

from ml_backend.annotations import masks
from ml_backend.annotations.label_map import LabelMap, parse_label_config
from ml_backend.errors import CheckpointError, ImageError, LeaseLost
from ml_backend.learning.checkpoints import Version
from ml_backend.projects.services import Services
from ml_backend.projects.shown_masks import MaskRenderer, Shown
from ml_backend.store import Task

MISSING = "/data/upload/missing.png"

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.studio(range(1, 9)),
    pytest.mark.settings(batch_size=3),
]


MakeRenderer = Callable[..., MaskRenderer]


@pytest.fixture
def make_renderer(services: Services, model: Version) -> MakeRenderer:
    def make(label_map: LabelMap = LABEL_MAP, *, without_model: bool = False, **options: Any) -> MaskRenderer:
        return renderer_of(services, None if without_model else model, label_map, **options)

    return make


def settings_of(services: Services, **changes: Any) -> Services:
    return replace(services, settings=services.settings.for_project(changes))


def test_a_lost_lease_ends_the_rendering(make_renderer: MakeRenderer, tasks: list[Task]) -> None:
    def check() -> None:
        raise LeaseLost("gone")

    with pytest.raises(LeaseLost):
        list(make_renderer(check=check).render(tasks))


# -- masks -----------------------------------------------------------------------------------------------------------
def shown_mask(shown: object) -> Any:
    assert isinstance(shown, Shown)
    return masks.mask_from_png(shown.png)


def test_masks_are_predicted_in_order(make_renderer: MakeRenderer, tasks: list[Task]) -> None:
    shown = list(make_renderer().show([task.image for task in tasks]))
    for task, one in zip(tasks, shown, strict=True):
        assert overlap_with_truth(shown_mask(one), int(Path(task.image).stem)) > 0.5  # its own disc, not another's
        assert isinstance(one, Shown)
        assert one.regions[0]["value"]["brushlabels"] == ["cell"]
        read = masks.read_result(one.regions, LABEL_MAP)
        assert (read.mask == shown_mask(one)).mean() > 0.95  # specks are left out


def test_broken_images_are_answered_in_their_place(make_renderer: MakeRenderer, tasks: list[Task]) -> None:
    good = tasks[0].image
    shown = list(make_renderer().show([BROKEN, good, MISSING, good, BROKEN]))
    assert [type(one) for one in shown] == [ImageError, Shown, ImageError, Shown, ImageError]
    only_bad = list(make_renderer().show([BROKEN, MISSING, MISSING, BROKEN]))
    assert all(isinstance(one, ImageError) for one in only_bad)
    assert list(make_renderer().show([])) == []


def test_without_a_model_there_is_no_mask(make_renderer: MakeRenderer, tasks: list[Task]) -> None:
    renderer = make_renderer(without_model=True)
    assert list(renderer.show([BROKEN, tasks[0].image])) == [None, None]
    rendered = list(renderer.render(tasks))
    assert [one.task for one in rendered] == tasks
    assert all(one.regions == () and one.png is None for one in rendered)


def test_rendering_notes_broken_images_and_leaves_them_out(
    make_renderer: MakeRenderer, tasks: list[Task], services: Services
) -> None:
    pool = [tasks[0], put_task(services, 21, image=MISSING), tasks[1]]
    rendered = list(make_renderer().render(pool))
    assert [one.task.task_id for one in rendered] == [1, 2]
    assert all(one.regions and one.png for one in rendered)
    found = services.store.task(PROJECT, 21)
    assert found is not None
    assert "cannot be fetched" in found.error


def test_what_is_late_is_answered_at_once(make_renderer: MakeRenderer, tasks: list[Task]) -> None:
    references = [task.image for task in tasks]
    shown = list(make_renderer().show(references, is_late=lambda: True))
    assert [isinstance(one, Shown) for one in shown] == [True] * 3 + [False] * 5  # one batch was on its way
    assert all("No time was left to predict" in str(one) for one in shown[3:])
    unhurried = list(make_renderer().show(references, is_late=lambda: False))
    assert all(isinstance(one, Shown) for one in unhurried)


def test_specks_are_left_out_of_what_is_shown(services: Services, model: Version, tasks: list[Task]) -> None:
    picky = settings_of(services, minimum_area=10_000)
    (shown,) = renderer_of(picky, model).show([tasks[0].image])
    assert isinstance(shown, Shown)
    assert shown.regions == []


# -- label configurations that changed since the training ------------------------------------------------------------
def predicted(services: Services, model: Version, label_map: LabelMap, references: Sequence[str]) -> list[Any]:
    renderer = renderer_of(services, model, label_map)
    return [shown_mask(one) for one in renderer.show(references)]


def test_classes_are_translated_by_name(services: Services, model: Version, tasks: list[Task]) -> None:
    references = [task.image for task in tasks[:3]]
    before = predicted(services, model, LABEL_MAP, references)
    moved = parse_label_config(XML.replace('<Label value="cell"/>', '<Label value="vessel"/><Label value="CELL"/>'))
    for old, new in zip(before, predicted(services, model, moved, references), strict=True):
        assert np.array_equal(new, np.array([0, 2, 3])[old])
        assert (new == 2).any()


def test_a_class_that_went_is_unpainted(services: Services, model: Version, tasks: list[Task]) -> None:
    without = parse_label_config(XML.replace('<Label value="cell"/>', ""))
    (before,) = predicted(services, model, LABEL_MAP, [tasks[0].image])
    (mask,) = predicted(services, model, without, [tasks[0].image])
    assert np.array_equal(mask, np.array([0, 0, 1])[before])


def test_background_is_ignored_where_unpainted_pixels_are(
    services: Services, model: Version, tasks: list[Task]
) -> None:
    ignoring = parse_label_config(XML, unpainted="ignore")
    (before,) = predicted(services, model, LABEL_MAP, [tasks[0].image])
    (mask,) = predicted(services, model, ignoring, [tasks[0].image])
    assert np.array_equal(mask, np.array([255, 0, 1])[before])


def test_a_damaged_model_is_an_error_that_says_what_to_do(
    services: Services, make_renderer: MakeRenderer, model: Version, tasks: list[Task]
) -> None:
    model.weights.write_bytes(b"x" * model.size)
    with pytest.raises(CheckpointError, match=r"train again|Good versions"):
        list(make_renderer().show([tasks[0].image]))
