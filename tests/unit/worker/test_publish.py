"""PriorityQueue, for a Label Studio in memory: its window is whole, never twice, refilled and pruned in time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from memory_studio import MemoryStudio
from wiring import PROJECT, Clock, nothing, region, task_of

from ml_backend.errors import LabelStudioError, LabelStudioNotFound, LeaseLost
from ml_backend.label_studio.predictions import score_of
from ml_backend.projects.shown_masks import Rendered
from ml_backend.store import Store, Task
from ml_backend.worker import publish as priority_queue
from ml_backend.worker.publish import PriorityQueue, Published

VERSION = "nextmask-1.1"
REGION = region(np.ones((4, 4), np.uint8))

pytestmark = pytest.mark.studio(12)


@pytest.fixture
def store(database_url: str, tmp_path: Path, studio: MemoryStudio) -> Iterator[Store]:
    opened = Store(database_url or f"sqlite:///{tmp_path / 'state.sqlite3'}")
    opened.wake(PROJECT)
    opened.put_tasks([task_of(one) for one in studio.items])
    yield opened
    opened.close()


def render(tasks: Sequence[Task]) -> Iterator[Rendered]:
    for task in tasks:
        yield Rendered(task, (REGION,), b"png of %d" % task.task_id)


Publish = Callable[..., Published]


@pytest.fixture
def publish(studio: MemoryStudio, store: Store) -> Publish:
    """Publish the unlabelled tasks; task 12 ranks first, task 1 last."""

    def run(version: str = VERSION, *, window: int = 5, refill: float = 0.5, **options: Any) -> Published:
        open_tasks = [one for one in studio.items if not studio.items[one]["annotations"]]
        ranked = [(task_of(one), one / 12) for one in sorted(open_tasks, reverse=True)]
        queue = PriorityQueue(studio, store, PROJECT, check=options.pop("check", nothing))  # type: ignore[arg-type]
        usual: dict[str, Any] = {"render": render, "progress": nothing}
        return queue.publish(version, lambda _: ranked, **usual | {"window": window, "refill": refill} | options)

    return run


def published(store: Store) -> str:
    project = store.project(PROJECT)
    assert project is not None
    return project.published_version


def per_task(studio: MemoryStudio) -> list[int]:
    return sorted(row["task"] for row in studio.predictions)


@pytest.mark.parametrize(("priority", "score"), [(1.0, 0.0), (0.0, 1.0), (0.75, 0.25), (1.1, 0.0), (-0.1, 1.0)])
def test_the_highest_priority_has_the_lowest_score(priority: float, score: float) -> None:
    assert score_of(priority) == score


# -- the window ------------------------------------------------------------------------------------------------------
def test_the_window_is_published_best_first(studio: MemoryStudio, store: Store, publish: Publish) -> None:
    shown: list[tuple[int, int]] = []
    assert publish(progress=lambda done, total: shown.append((done, total))) == Published(created=5, in_queue=5)
    assert studio.queue() == [12, 11, 10, 9, 8]
    assert studio.fields["model_version"] == VERSION == published(store)
    assert store.published_mask(PROJECT, VERSION, 12) == b"png of 12"
    assert store.queue_length(PROJECT, VERSION) == 5
    assert shown[-1] == (5, 5)


def test_publishing_again_imports_nothing(studio: MemoryStudio, publish: Publish) -> None:
    publish()
    assert publish() == Published(created=0, in_queue=5)
    assert per_task(studio) == [8, 9, 10, 11, 12]


def test_a_window_larger_than_the_pool_takes_all(studio: MemoryStudio, publish: Publish) -> None:
    assert publish(window=200) == Published(12, 12)
    assert publish(window=200) == Published(0, 12)


def test_it_is_refilled_before_it_runs_dry_and_not_sooner(studio: MemoryStudio, publish: Publish) -> None:
    publish(window=6, refill=0.5)
    for task in (12, 11, 10):
        studio.label(task)
    assert publish(window=6, refill=0.5) == Published(0, 3)  # half is left
    studio.label(9)
    assert publish(window=6, refill=0.5) == Published(4, 6)
    assert studio.queue() == [8, 7, 6, 5, 4, 3]
    assert len(per_task(studio)) == len(set(per_task(studio)))


def test_the_last_tasks_are_refilled_to_the_end(studio: MemoryStudio, publish: Publish) -> None:
    for task in range(5, 13):
        studio.label(task)
    publish(window=6, refill=0.5)
    assert studio.queue() == [4, 3, 2, 1]
    for task in (4, 3, 2, 1):
        studio.label(task)
    assert publish(window=6, refill=0.5) == Published(0, 0)
    assert studio.fields["model_version"] == VERSION


def test_a_new_version_starts_with_a_full_window(studio: MemoryStudio, store: Store, publish: Publish) -> None:
    publish()
    studio.label(12)
    assert publish("nextmask-2.2") == Published(5, 5)
    assert studio.queue() == [11, 10, 9, 8, 7]
    assert studio.fields["model_version"] == "nextmask-2.2"
    assert store.retired_versions(PROJECT, before=time.time() + 1) == [VERSION]


def test_tasks_predicted_on_demand_are_not_imported_again(studio: MemoryStudio, publish: Publish) -> None:
    # somebody opened task 11 while it was without a prediction: the host stored the answer of /predict
    studio.predictions.append({"id": 1, "task": 11, "result": [], "score": 0.1, "model_version": VERSION})
    assert publish() == Published(created=4, in_queue=5)
    assert per_task(studio) == [8, 9, 10, 11, 12]


def test_a_task_without_an_image_leaves_its_place_to_others(studio: MemoryStudio, publish: Publish) -> None:
    def without_11(tasks: Sequence[Task]) -> Iterator[Rendered]:
        yield from (one for one in render(tasks) if one.task.task_id != 11)

    assert publish(render=without_11) == Published(4, 4)
    assert studio.queue() == [12, 10, 9, 8]


# -- killed on the way -----------------------------------------------------------------------------------------------
def killed_at(studio: MemoryStudio, name: str, monkeypatch: pytest.MonkeyPatch, *, calls: int = 1) -> None:
    """Die in a call to the host, before it does anything."""
    real, left = getattr(studio, name), [calls]

    def call(*arguments: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(studio, name, call)


def test_killed_between_import_and_switch(
    studio: MemoryStudio, store: Store, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        killed_at(studio, "update_project", patch)
        with pytest.raises(KeyboardInterrupt):
            publish()
    assert (studio.fields["model_version"], published(store)) == (None, "")
    assert publish() == Published(created=0, in_queue=5)
    assert studio.fields["model_version"] == VERSION == published(store)
    assert per_task(studio) == [8, 9, 10, 11, 12]


def test_killed_between_the_switch_and_its_note(
    studio: MemoryStudio, store: Store, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        killed_at(store, "mark_published", patch)  # type: ignore[arg-type]
        with pytest.raises(KeyboardInterrupt):
            publish()
    assert (studio.fields["model_version"], published(store)) == (VERSION, "")
    assert publish() == Published(created=0, in_queue=5)
    assert published(store) == VERSION


def test_killed_between_two_requests(
    studio: MemoryStudio, store: Store, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(priority_queue, "REQUEST_BYTES", 1)  # a request for each row
    with monkeypatch.context() as patch:
        killed_at(studio, "import_predictions", patch, calls=3)
        with pytest.raises(KeyboardInterrupt):
            publish()
    assert per_task(studio) == [11, 12]
    assert publish() == Published(created=3, in_queue=5)
    assert per_task(studio) == [8, 9, 10, 11, 12]


def test_whoever_lost_the_lease_writes_nothing(studio: MemoryStudio, publish: Publish) -> None:
    def check() -> None:
        raise LeaseLost("gone")

    with pytest.raises(LeaseLost):
        publish(check=check)
    assert studio.imports == []


# -- what the host refuses -------------------------------------------------------------------------------------------
def test_refused_masks_are_queued_without_one_and_reported(
    studio: MemoryStudio, store: Store, publish: Publish
) -> None:
    studio.refuses = lambda row: row["task"] in {11, 9} and bool(row["result"])
    assert publish() == Published(created=5, in_queue=5)
    assert studio.queue() == [12, 11, 10, 9, 8]
    assert [bool(row["result"]) for row in sorted(studio.predictions, key=lambda row: -row["task"])] == [
        *(True, False, True, False, True)
    ]
    errors = {task.task_id for task in store.tasks(PROJECT) if "refused the predicted mask" in task.error}
    assert errors == {11, 9}


def test_a_host_that_refuses_everything_is_not_switched(studio: MemoryStudio, store: Store, publish: Publish) -> None:
    studio.refuses = lambda row: True
    assert publish() == Published(created=0, in_queue=0)
    assert (studio.fields["model_version"], published(store)) == (None, "")


def test_a_task_that_went_meanwhile_takes_no_other_with_it(studio: MemoryStudio, publish: Publish) -> None:
    def deleting(tasks: Sequence[Task]) -> Iterator[Rendered]:
        yield from render(tasks)
        del studio.items[10]

    assert publish(render=deleting).created == 4
    assert studio.queue() == [12, 11, 9, 8]


def test_other_refusals_are_raised(studio: MemoryStudio, publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> int:
        raise LabelStudioError("too large", status=413)

    monkeypatch.setattr(studio, "import_predictions", fail)
    with pytest.raises(LabelStudioError, match="too large"):
        publish()


# -- requests --------------------------------------------------------------------------------------------------------
def test_requests_are_bounded_by_bytes(studio: MemoryStudio, publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    row = len(str({"task": 12, "result": [REGION], "score": 0.12345, "model_version": VERSION}))
    monkeypatch.setattr(priority_queue, "REQUEST_BYTES", 3 * row)
    publish(window=8)
    assert [len(rows) for rows in studio.imports] in ([3, 3, 2], [2, 2, 2, 2])
    assert studio.queue() == [12, 11, 10, 9, 8, 7, 6, 5]


def test_a_row_larger_than_a_request_goes_alone(
    studio: MemoryStudio, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(priority_queue, "REQUEST_BYTES", 10)
    assert publish(window=3) == Published(3, 3)
    assert [len(rows) for rows in studio.imports] == [1, 1, 1]


def test_one_request_is_enough_for_small_masks(studio: MemoryStudio, publish: Publish) -> None:
    publish(window=12)
    assert [len(rows) for rows in studio.imports] == [12]


# -- pruning ---------------------------------------------------------------------------------------------------------
HOURS = 3600.0


@pytest.fixture
def prune(studio: MemoryStudio, store: Store) -> Callable[[], list[str]]:
    queue = PriorityQueue(studio, store, PROJECT, check=nothing)  # type: ignore[arg-type]
    return lambda: queue.prune(retire_seconds=26 * HOURS)


def test_old_versions_are_pruned_only_when_no_editor_can_show_them(
    studio: MemoryStudio,
    store: Store,
    publish: Publish,
    prune: Callable[[], list[str]],
    clock: Clock,
) -> None:
    publish()
    publish("nextmask-2.2")
    clock.go_on(hours=25.9)
    publish("nextmask-3.3")
    assert prune() == []
    clock.go_on(hours=0.2)
    assert prune() == [VERSION]
    assert set(studio.model_versions(PROJECT)) == {"nextmask-2.2", "nextmask-3.3"}
    assert store.published_mask(PROJECT, VERSION, 12) is None
    assert store.published_mask(PROJECT, "nextmask-2.2", 12) is not None
    clock.go_on(hours=1000)
    assert prune() == ["nextmask-2.2"]
    assert prune() == []  # never the one that is served
    assert studio.fields["model_version"] == "nextmask-3.3"


def test_a_version_that_came_back_is_not_pruned(
    studio: MemoryStudio, publish: Publish, prune: Callable[[], list[str]], clock: Clock
) -> None:
    publish()
    publish("nextmask-2.2")
    publish()
    clock.go_on(hours=100)
    assert prune() == ["nextmask-2.2"]


def test_a_second_prediction_of_a_version_is_renamed_and_goes_with_its_version(
    studio: MemoryStudio, publish: Publish, prune: Callable[[], list[str]], clock: Clock
) -> None:
    publish()
    first = [row["id"] for row in studio.predictions]
    late = [dict(row) for row in studio.imports[0][:2]]  # an import that nobody waited for any more
    assert studio.import_predictions(PROJECT, late) == 2
    assert publish().created == 0
    assert [row["id"] for row in studio.predictions if row["model_version"] == VERSION] == first
    assert studio.model_versions(PROJECT) == {VERSION: 5, f"{VERSION}-duplicate": 2}
    publish("nextmask-2.2")
    clock.go_on(hours=100)
    assert prune() == [VERSION]
    assert studio.model_versions(PROJECT) == {"nextmask-2.2": 5}


def test_pruning_what_is_gone_already_is_no_error(
    studio: MemoryStudio,
    store: Store,
    publish: Publish,
    prune: Callable[[], list[str]],
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish()
    publish("nextmask-2.2")

    def gone(*_: Any) -> int:
        raise LabelStudioNotFound("no such version", status=404)

    clock.go_on(hours=100)
    monkeypatch.setattr(studio, "delete_model_version", gone)
    assert prune() == [VERSION]
    assert store.versions(PROJECT) == ["nextmask-2.2"]
