"""Sync: what becomes of each annotation, what is read again and what is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from memory_studio import MemoryStudio
from wiring import LABEL_MAP, PROJECT, SHAPE, XML, disc, look_at, nothing, region

from ml_backend.annotations import masks
from ml_backend.annotations.label_map import IGNORE_INDEX, LabelMap, parse_label_config
from ml_backend.errors import LabelConfigError, LeaseLost
from ml_backend.projects.audit import AuditSet
from ml_backend.projects.services import Services
from ml_backend.store import Task
from ml_backend.system.files import Folder
from ml_backend.worker.read_task import TaskReader
from ml_backend.worker.sync import Sync, Synced
from ml_backend.worker.tidy_up import remove_unused_masks

UNPAINTED_IGNORED = parse_label_config(XML, unpainted="ignore")

pytestmark = pytest.mark.settings(audit_share=0.3)


MakeSync = Callable[..., Sync]
Read = Callable[..., Task]


@pytest.fixture
def read(tmp_path: Path, services: Services) -> Read:
    """Read one of the host's tasks, whose images are all of one size; keyword arguments are the project's settings."""

    def go(task: dict[str, Any], *, label_map: LabelMap = LABEL_MAP, **settings: Any) -> Task:
        look = look_at(services, label_map=label_map, settings=settings)
        reader = TaskReader(
            look.store,
            look.settings,
            label_map,
            files=services.files,
            folder="masks",
            size_of=lambda _: SHAPE,
            config_change=None,
        )
        return reader.read(PROJECT, task)

    return go


@pytest.fixture
def make_sync(tmp_path: Path, services: Services) -> MakeSync:
    def make(*, check: Callable[[], None] = nothing, **settings: Any) -> Sync:
        return Sync(look_at(services, settings=settings, check=check))

    return make


@pytest.fixture
def sync(services: Services, make_sync: MakeSync) -> Callable[..., Synced]:
    """Sync the project as a look at it does."""

    def run(**settings: Any) -> Synced:
        if services.store.project(PROJECT) is None:
            services.store.wake(PROJECT)
        project = services.store.project(PROJECT)
        assert project is not None
        return make_sync(**settings).run()

    return run


def item(*annotations: dict[str, Any], data: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    data = {"image": "/data/upload/0.png"} if data is None else data
    return {"id": 1, "data": data, "updated_at": "2026-01-01T00:00:00Z", "annotations": list(annotations), **fields}


def annotation(result: list[dict[str, Any]] | None = None, **fields: Any) -> dict[str, Any]:
    return {"id": 11, "result": [region(disc(0)[1])] if result is None else result, "created_at": "1", **fields}


def mask_of(services: Services, task: Task) -> Any:
    return masks.mask_from_png(services.files.read(task.mask_file))


# -- what is held out ------------------------------------------------------------------------------------------------
def test_the_audit_share_is_kept_and_never_changes_its_mind() -> None:
    names = [f"/data/upload/{number}.png" for number in range(4000)]
    held = {name for name in names if AuditSet(0.2, 0).has(name)}
    assert 0.17 < len(held) / len(names) < 0.23
    assert held <= {name for name in names if AuditSet(0.3, 0).has(name)}  # a larger share takes none back
    assert held != {name for name in names if AuditSet(0.2, 1).has(name)}
    assert not any(AuditSet(0.0, 0).has(name) for name in names)
    assert all(AuditSet(1.0, 0).has(name) for name in names)


def test_tasks_of_one_group_are_held_out_together(read: Read) -> None:
    data = [{"image": f"/data/upload/{number}.png", "patient": 7} for number in range(12)]
    tasks = [read(item(annotation(), data=one), audit_group="patient") for one in data]
    assert {task.group_key for task in tasks} == {"7"}
    assert len({task.held_out for task in tasks}) == 1


def test_without_a_group_the_image_decides(read: Read) -> None:
    for settings in ({}, {"audit_group": "patient"}):
        task = read(item(annotation()), **settings)
        assert task.group_key == "/data/upload/0.png"
        assert task.held_out == AuditSet(0.3, 0).has("/data/upload/0.png")


# -- one task --------------------------------------------------------------------------------------------------------
def test_a_submitted_mask_is_read_and_kept(read: Read, services: Services) -> None:
    task = read(item(annotation(lead_time=4.5)))
    assert (task.status, task.error, task.annotation_id) == ("labelled", "", 11)
    assert (task.lead_time, task.regions, task.vertices, task.agreement) == (4.5, 1, 0, None)
    assert np.array_equal(mask_of(services, task), disc(0)[1])
    again = read(item(annotation(id=12)))
    assert (again.label_digest, again.mask_file) == (task.label_digest, task.mask_file)
    other = read(item(annotation([region(disc(1)[1])])))
    assert other.label_digest != task.label_digest
    assert other.mask_file != task.mask_file


def test_tasks_without_a_submitted_annotation(read: Read) -> None:
    skip = annotation([], was_cancelled=True)
    assert read(item()).status == "unlabelled"
    assert read(item(skip)).status == "skipped"
    assert read(item(annotation(), skip)).status == "labelled"


@pytest.mark.parametrize("data", [{}, {"image": ""}, {"image": None}, {"image": 5}, {"picture": "/x.png"}])
def test_a_task_without_an_image_is_broken_and_says_so(read: Read, data: dict[str, Any]) -> None:
    task = read(item(annotation(), data=data))
    assert (task.status, task.error) == ("broken", "The task's data has no image under 'image'.")


def test_an_empty_annotation_says_that_all_is_background(read: Read, services: Services) -> None:
    task = read(item(annotation([])))
    assert (task.status, task.regions) == ("labelled", 0)
    assert mask_of(services, task).shape == SHAPE
    assert not mask_of(services, task).any()


def test_an_empty_annotation_says_nothing_where_unpainted_pixels_are_ignored(read: Read) -> None:
    task = read(item(annotation([])), label_map=UNPAINTED_IGNORED, unpainted="ignore")
    assert (task.status, task.annotation_id) == ("broken", 11)
    assert "labels nothing: it has no region, and unpainted pixels are ignored" in task.error


def test_unpainted_pixels_are_ignored_by_setting(read: Read, services: Services) -> None:
    task = read(item(annotation()), label_map=UNPAINTED_IGNORED, unpainted="ignore")
    assert task.status == "labelled"
    assert np.array_equal(mask_of(services, task), np.where(disc(0)[1], 0, IGNORE_INDEX))


def test_a_bad_region_is_left_out_and_said(read: Read, services: Services) -> None:
    bad = region(disc(0)[1], "cell") | {"id": "r2"}
    bad["value"] = {"format": "rle", "rle": [1, 2, 3], "brushlabels": ["cell"]}
    task = read(item(annotation([bad, region(disc(0)[1])])))
    assert (task.status, task.regions) == ("labelled", 1)
    assert "region 'r2' of 'tag'" in task.error
    # Nobody knows where the bad one lies: what is not painted may be background, and may be of it.
    assert np.array_equal(mask_of(services, task), np.where(disc(0)[1], 1, IGNORE_INDEX))


def test_an_annotation_of_bad_regions_only_is_broken(read: Read) -> None:
    unknown = region(disc(0)[1], "vessel")
    task = read(item(annotation([unknown])))
    assert task.status == "broken"
    assert "Annotation 11 labels nothing: region 'r1' of 'tag': its label 'vessel'" in task.error


def test_pixels_of_another_size_are_not_used_and_said(read: Read) -> None:
    other = region(np.ones((8, 8), np.uint8))
    task = read(item(annotation([other])))
    assert (task.status, task.annotation_id) == ("broken", 11)
    assert "drawn on an image of 8 x 8 pixels, this one is 40 x 32" in task.error
    task = read(item(annotation([region(disc(0)[1]), other])))
    assert (task.status, task.regions) == ("labelled", 1)
    assert "8 x 8 pixels, this one is 40 x 32" in task.error


# -- what the annotator changed --------------------------------------------------------------------------------------
def started_from(version: str) -> dict[str, Any]:
    predictions = [{"id": 90, "model_version": "nextmask-9.9"}, {"id": 91, "model_version": version}]
    return item(annotation(parent_prediction=91), predictions=predictions)


def test_the_agreement_with_what_was_shown(services: Services, read: Read) -> None:
    truth = disc(0)[1]
    services.store.put_published(PROJECT, "nextmask-1.1", [(1, 0.5, masks.png_bytes(truth))])
    services.store.put_published(PROJECT, "nextmask-1.2", [(1, 0.5, masks.png_bytes(np.zeros_like(truth)))])
    services.store.put_published(PROJECT, "nextmask-1.3", [(1, 0.5, None)])
    services.store.put_published(PROJECT, "nextmask-1.4", [(1, 0.5, masks.png_bytes(np.zeros((5, 5), np.uint8)))])
    tasks = {version: read(started_from(version)) for version in (f"nextmask-1.{number}" for number in range(1, 6))}
    assert {task.shown_version for task in tasks.values()} == tasks.keys()
    assert tasks["nextmask-1.1"].agreement == 1.0
    assert tasks["nextmask-1.2"].agreement == pytest.approx((1 - truth.mean()) / 2)  # background IoU, and none for cell
    # without a mask, of another size, and never published by us
    assert [tasks[f"nextmask-1.{number}"].agreement for number in (3, 4, 5)] == [None, None, None]


POLYGONS = parse_label_config(XML.replace("BrushLabels", "PolygonLabels"))
BITMASKS = parse_label_config(XML.replace("BrushLabels", "BitmaskLabels"))


def predicted_mask() -> Any:
    """Two classes that touch, a hole, and a speck that is too small to be shown."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[4:28, 4:22], mask[6:30, 22:38], mask[12:18, 8:14], mask[1, 1] = 1, 2, 0, 2
    mask[4:9, 4:9] = np.tril(np.ones((5, 5), np.uint8))
    return mask


@pytest.mark.parametrize("label_map", [LABEL_MAP, POLYGONS, BITMASKS], ids=["brush", "polygon", "bitmask"])
@pytest.mark.parametrize("tolerance", [0.0, 1.0, 4.0])
def test_a_mask_that_was_kept_agrees_in_full(
    label_map: LabelMap, tolerance: float, services: Services, read: Read
) -> None:
    shown = masks.write_result(predicted_mask(), label_map, minimum_area=16, tolerance=tolerance)
    services.store.put_published(PROJECT, "nextmask-1.1", [(1, 0.5, masks.png_bytes(predicted_mask()))])
    predictions = [{"id": 91, "model_version": "nextmask-1.1", "result": shown}]

    def agreement(result: list[dict[str, Any]]) -> float | None:
        submitted = annotation(result, parent_prediction=91)
        settings = {"minimum_area": 16, "polygon_tolerance": tolerance}
        return read(item(submitted, predictions=predictions), label_map=label_map, **settings).agreement

    assert agreement(shown) == 1.0
    kept = [{**one, "id": f"other-{number}", "origin": "prediction"} for number, one in enumerate(shown)]
    assert agreement(kept[::-1]) == 1.0
    less = agreement(kept[:1])
    assert less is not None
    assert less < 0.9
    changed = agreement([{**kept[0], "origin": "prediction-changed", "value": region(disc(3)[1])["value"]}, *kept[1:]])
    assert changed is None or changed < 1


def test_an_annotation_from_scratch_agrees_with_nothing(services: Services, read: Read) -> None:
    services.store.put_published(PROJECT, "nextmask-1.1", [(1, 0.5, masks.png_bytes(disc(0)[1]))])
    task = read(item(annotation(parent_prediction=None)))
    assert (task.shown_version, task.agreement) == ("", None)


# -- a whole project -------------------------------------------------------------------------------------------------
def test_only_what_changed_is_read_again(services: Services, studio: MemoryStudio, sync: Callable[..., Synced]) -> None:
    ids = [studio.add_task(index) for index in range(4)]
    studio.label(ids[0])
    assert sync().changed == 4
    assert services.store.count_tasks(PROJECT) == {"labelled": 1, "unlabelled": 3}
    assert sync().changed == 0  # the window overlaps, and what was read is known
    studio.label(ids[1])
    studio.annotate(ids[2], [], was_cancelled=True)
    assert sync().changed == 2
    assert services.store.count_tasks(PROJECT) == {"labelled": 2, "skipped": 1, "unlabelled": 1}


def test_an_annotation_that_is_replaced_or_deleted(
    services: Services, studio: MemoryStudio, sync: Callable[..., Synced]
) -> None:
    task_id = studio.add_task(0)
    studio.label(task_id)
    sync()
    before = services.store.tasks(PROJECT)[0]
    studio.annotate(task_id, [region(disc(1)[1])])
    sync()
    after = services.store.tasks(PROJECT)[0]
    assert after.label_digest != before.label_digest
    studio.items[task_id] |= {"annotations": [], "updated_at": "2026-02-01T00:00:00.000000Z"}
    sync()
    assert services.store.tasks(PROJECT)[0].status == "unlabelled"


def test_tasks_that_went_and_tasks_that_a_scan_missed(
    services: Services, studio: MemoryStudio, sync: Callable[..., Synced]
) -> None:
    ids = [studio.add_task(index) for index in range(3)]
    sync()
    del studio.items[ids[0]]
    sync()
    assert [task.task_id for task in services.store.tasks(PROJECT)] == ids[1:]
    services.store.delete_tasks(PROJECT, [ids[1]])
    sync()
    assert [task.task_id for task in services.store.tasks(PROJECT)] == ids[1:]


def test_a_label_config_of_another_meaning_reads_everything_again(
    services: Services, studio: MemoryStudio, sync: Callable[..., Synced]
) -> None:
    task_id = studio.add_task(0)
    studio.label(task_id)
    sync()
    assert np.array_equal(np.unique(mask_of(services, services.store.tasks(PROJECT)[0])), [0, 1])
    studio.xml = XML.replace('<Label value="cell"/>', '<Label value="vessel"/><Label value="cell"/>')
    synced = sync()
    assert (synced.changed, synced.label_map.classes) == (1, ("background", "vessel", "cell", "nucleus"))
    assert np.array_equal(np.unique(mask_of(services, services.store.tasks(PROJECT)[0])), [0, 2])
    studio.xml = XML.replace("<View>", '<View style="padding: 2px">')  # nothing about labels
    sync()
    assert sync().changed == 0


def test_another_audit_share_is_applied_to_all(
    services: Services, studio: MemoryStudio, sync: Callable[..., Synced]
) -> None:
    for index in range(5):
        studio.label(studio.add_task(index))
    sync(audit_share=0.0)
    assert not any(task.held_out for task in services.store.tasks(PROJECT))
    sync(audit_share=0.9)
    assert any(task.held_out for task in services.store.tasks(PROJECT))


def test_a_config_without_masks_is_an_error_that_says_what_is_wanted(
    studio: MemoryStudio, sync: Callable[..., Synced]
) -> None:
    studio.xml = '<View><Text name="t" value="$t"/><Choices name="c" toName="t"><Choice value="x"/></Choices></View>'
    with pytest.raises(LabelConfigError, match="BrushLabels"):
        sync()


def test_a_sync_that_is_stopped_is_done_by_the_next_one(
    services: Services, studio: MemoryStudio, sync: Callable[..., Synced]
) -> None:
    for index in range(120):
        studio.add_task(index)
    calls = []

    def check() -> None:
        calls.append(1)
        if len(calls) == 2:
            raise LeaseLost("gone")

    with pytest.raises(LeaseLost):
        sync(check=check)
    assert len(services.store.tasks(PROJECT)) == 50  # one batch
    project = services.store.project(PROJECT)
    assert project is not None
    assert project.cursor is None
    sync()
    assert len(services.store.tasks(PROJECT)) == 120


def test_masks_that_no_task_uses_are_removed(
    services: Services, studio: MemoryStudio, sync: Callable[..., Synced]
) -> None:
    task_id = studio.add_task(0)
    studio.label(task_id)
    sync()
    studio.annotate(task_id, [region(disc(1)[1])])
    sync()
    folder = services.project_folder(PROJECT) / "masks"
    assert len(list(folder.iterdir())) == 4  # of each annotation the mask and the effort
    tasks, used = services.store.tasks(PROJECT), services.store.label_files(PROJECT)
    (folder / "tmp1234.part").write_bytes(b"what a killed process was writing")
    masks_here = Folder(folder)
    assert remove_unused_masks(masks_here, lambda: used) == 3
    assert {f"projects/{PROJECT}/masks/{path.name}" for path in folder.iterdir()} == {
        tasks[0].mask_file,
        tasks[0].effort_file,
    }
    assert remove_unused_masks(masks_here, lambda: used) == 0
    assert remove_unused_masks(masks_here.below("not there"), lambda: used) == 0


def test_a_mask_that_is_written_while_masks_are_removed_stays(tmp_path: Path) -> None:
    """What tasks refer to is asked for after the files were listed."""
    (tmp_path / "left.png").touch()

    def used() -> set[str]:
        (tmp_path / "new.png").touch()
        return set()

    assert remove_unused_masks(Folder(tmp_path), used) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["new.png"]
