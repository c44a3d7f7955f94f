"""Follow-up tasks: when they are made, that none is made twice, and CEREALS through several rounds."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import pytest
from memory_studio import MemoryStudio
from wiring import PROJECT, SHAPE, XML, disc, kill_at_every_check, nothing, region, serve_model

from ml_backend.annotations.boxes import Box, Query, boxes_from_text, boxes_to_text
from ml_backend.annotations.config_edits import with_query_control
from ml_backend.annotations.label_map import parse_label_config
from ml_backend.annotations.query_regions import overlap, read_rectangles
from ml_backend.errors import LabelStudioError, LeaseLost, TaskRefused
from ml_backend.projects.services import Services
from ml_backend.store import Task
from ml_backend.worker.follow_up import DATA_KEY, FollowUps, pending
from ml_backend.worker.reconcile import reconcile

PARTS_XML = with_query_control(XML)
PARTS = parse_label_config(PARTS_XML)
BOX, OTHER = Box(0, 0, 16, 16), Box(20, 8, 16, 16)
VERSION = "nextmask-1.1"
QUICK = {"input_size": 32, "iterations": 2, "batch_size": 4, "train_after": 1000, "queue_window": 6}
CEREALS = {"strategy": "cereals", "strategy_options": {"window": 16, "stride": 8, "iterations": 2}, "query_images": 2}

pytestmark = [
    pytest.mark.usefixtures("one_thread", "known_project"),
    pytest.mark.studio(xml=PARTS_XML, connected=True),
    pytest.mark.settings(audit_share=0.0, **QUICK, **CEREALS),
]


@pytest.fixture
def known_project(services: Services) -> None:
    """A project whose configuration was read before."""
    services.store.wake(PROJECT, label_config=PARTS_XML)


def part(task_id: int, image: str = "a", *boxes: Box, **fields: Any) -> Task:
    """A task that labels boxes of an image."""
    kept = {"status": "labelled", "boxes": boxes_to_text(boxes or (BOX,)), "mask_file": "m.png"}
    return Task(PROJECT, task_id, image, **{**kept, **fields})


def waiting(task_id: int, image: str = "a", **fields: Any) -> Task:
    return Task(PROJECT, task_id, image, **fields)


# -- which queries wait for a task -----------------------------------------------------------------------------------
ASKED = {1: Query((OTHER,), 1.0)}


def found(*tasks: Task, asked: dict[int, Query] | None = None, published: set[int] | None = None) -> list[Any]:
    return [
        (one.task.task_id, one.first, one.waiting.task_id if one.waiting else None)
        for one in pending(tasks, ASKED if asked is None else asked, published or set())
    ]


def test_a_labelled_part_of_which_more_is_asked_for() -> None:
    assert found(part(1)) == [(1, 1, None)]
    assert found(part(1), waiting(2, "b")) == [(1, 1, None)]
    assert found(part(1), part(2, "a", Box(0, 20, 4, 4))) == [(1, 1, None)]


def test_the_first_task_of_the_image_is_named() -> None:
    assert found(part(4), part(7), asked={7: Query((OTHER,))}) == [(7, 4, None)]


def test_queries_that_wait_for_nothing() -> None:
    assert found(waiting(1)) == []  # it is open, and shows them itself
    assert found(part(1), asked={}) == []
    assert found(part(1), asked={3: Query((OTHER,))}) == []  # the task is gone
    assert found(part(1, "a", Box(35, 20, 3, 3))) == []  # answered: boxes overlap
    assert found(part(1), part(2, "a", OTHER)) == []  # answered by another task of the image
    assert found(part(1), published={1}) == []  # came back with boxes of the annotator's own
    assert found(part(1), part(2, boxes="")) == []  # all of the image is labelled
    assert found(part(1, boxes="")) == []
    assert found(part(1), waiting(2, status="skipped")) == []
    assert found(part(1), waiting(2, status="broken")) == []


def test_an_unlabelled_task_of_the_image_is_used() -> None:
    assert found(part(1), waiting(2)) == [(1, 1, 2)]
    assert found(part(1), waiting(2), asked={**ASKED, 2: Query((OTHER,))}) == []  # it has a query of its own


def test_one_follow_up_per_image() -> None:
    assert len(found(part(1), part(2), asked={1: Query((OTHER,)), 2: Query((OTHER,))})) == 1


# -- making them -----------------------------------------------------------------------------------------------------
def known(services: Services, studio: MemoryStudio, count: int) -> dict[int, Query]:
    """Tasks that label a part each, with a ranking that asks for more of all of them."""
    tasks = []
    for index in range(count):
        number = studio.add_task(index, patient=index)
        tasks.append(part(number, studio.items[number]["data"]["image"], BOX, group_key=str(index)))
    services.store.put_tasks(tasks)
    queries = {one.task_id: Query((OTHER,), float(one.task_id)) for one in tasks}
    entries = {one.task_id: 1 - one.task_id / 100 for one in tasks}
    services.store.put_ranking(PROJECT, entries, queries, ranking_version=VERSION, ranking_number=1)
    return queries


def follow_ups(services: Services, check: Any = nothing) -> FollowUps:
    return FollowUps(services.client, services.store, PROJECT, check=check)


def test_a_follow_up_takes_the_place_of_its_task(services: Services, studio: MemoryStudio) -> None:
    known(services, studio, 2)
    assert follow_ups(services).make(VERSION, window=10) == 2
    assert studio.items[3]["data"] == {**studio.items[1]["data"], DATA_KEY: 1}
    assert studio.items[3]["annotations"] == []
    assert services.store.ranked_queries(PROJECT) == {3: Query((OTHER,), 1.0), 4: Query((OTHER,), 2.0)}
    assert services.store.priorities(PROJECT, [1, 2, 3, 4]) == {3: 0.99, 4: 0.98}
    assert [one.task_id for one, _ in services.store.ranked(PROJECT)] == [3, 4]
    new, old = services.store.task(PROJECT, 3), services.store.task(PROJECT, 1)
    assert new is not None
    assert old is not None
    assert (new.image, new.group_key, new.status) == (old.image, old.group_key, "unlabelled")
    assert follow_ups(services).make(VERSION, window=10) == 0


def test_only_the_best_within_the_window(services: Services, studio: MemoryStudio) -> None:
    queries = known(services, studio, 4)
    first = studio.add_task(30)
    services.store.put_tasks([waiting(first, "open")])
    entries = {number: 1 - number / 100 for number in queries} | {first: 0.995}
    services.store.put_ranking(PROJECT, entries, {**queries, first: Query((BOX,))}, ranking_version=VERSION)
    assert follow_ups(services).make(VERSION, window=3) == 2
    assert [one.task_id for one, _ in services.store.ranked(PROJECT)] == [first, 6, 7]
    assert follow_ups(services).make(VERSION, window=3) == 0
    services.store.put_tasks([waiting(first, "open", status="skipped")])  # one leaves the queue, another one follows
    assert follow_ups(services).make(VERSION, window=3) == 1


def test_killed_after_the_host_made_them_no_other_is_made(services: Services, studio: MemoryStudio) -> None:
    known(services, studio, 2)
    checks = iter([nothing, None])

    def dies_at_the_second_check() -> None:
        if next(checks) is None:
            raise LeaseLost("killed")

    with pytest.raises(LeaseLost):
        follow_ups(services, dies_at_the_second_check).make(VERSION, window=10)
    assert len(studio.items) == 4
    # the next sync finds them
    services.store.put_tasks([waiting(number, studio.items[number]["data"]["image"]) for number in (3, 4)])
    assert follow_ups(services).make(VERSION, window=10) == 0
    assert len(studio.items) == 4
    assert services.store.ranked_queries(PROJECT) == {3: Query((OTHER,), 1.0), 4: Query((OTHER,), 2.0)}


def test_a_place_that_the_task_had_already_is_given_up(services: Services, studio: MemoryStudio) -> None:
    queries = known(services, studio, 1)
    services.store.put_tasks([waiting(9, studio.items[1]["data"]["image"])])
    services.store.put_ranking(PROJECT, {1: 0.9, 9: 0.1}, queries, ranking_version=VERSION)
    assert follow_ups(services).make(VERSION, window=10) == 0
    assert services.store.priorities(PROJECT, [1, 9]) == {9: 0.9}


def test_a_task_that_the_host_no_longer_has_is_left_alone(services: Services, studio: MemoryStudio) -> None:
    known(services, studio, 2)
    del studio.items[1]
    assert follow_ups(services).make(VERSION, window=10) == 1
    assert set(services.store.ranked_queries(PROJECT)) == {1, 3}


def test_an_answer_that_does_not_fit_moves_nothing(
    services: Services, studio: MemoryStudio, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    known(services, studio, 2)
    monkeypatch.setattr(studio, "import_tasks", lambda *_: [7])
    with caplog.at_level(logging.WARNING):
        assert follow_ups(services).make(VERSION, window=10) == 0
    assert "made 1 of 2" in caplog.text
    assert set(services.store.ranked_queries(PROJECT)) == {1, 2}


# -- the whole way ---------------------------------------------------------------------------------------------------
@pytest.fixture
def served(services: Services, studio: MemoryStudio, known_project: None) -> Services:
    """Four images and a model: CEREALS asks for regions from the start."""
    for index in range(4):
        studio.add_task(index)
    serve_model(services)
    return services


def answer(studio: MemoryStudio, number: int) -> None:
    """Label a task inside the rectangles that it came with, which are returned."""
    version = studio.fields["model_version"]
    (row,) = [row for row in studio.predictions if (row["task"], row["model_version"]) == (number, version)]
    rectangles = [one for one in row["result"] if one["from_name"] == "query"]
    index = int(Path(studio.items[number]["data"]["image"]).stem)
    result = [region(disc(index)[1]), *rectangles]
    studio.annotate(number, result, parent_prediction=row["id"], lead_time=3.0)


def boxes_by_image(services: Services) -> dict[str, list[Box]]:
    boxes: dict[str, list[Box]] = {}
    for task in services.store.tasks(PROJECT, status="labelled"):
        boxes.setdefault(task.image, []).extend(boxes_from_text(task.boxes))
    return boxes


def test_cereals_asks_again_for_other_parts_until_all_is_labelled(served: Services, studio: MemoryStudio) -> None:
    for _ in range(12):
        reconcile(served, PROJECT, nothing)
        queue = studio.queue()
        if not queue:
            break
        asked = served.store.ranked_queries(PROJECT)
        assert set(queue) == set(asked)
        for number in queue:
            answer(studio, number)
    assert not studio.queue()
    reconcile(served, PROJECT, nothing)
    known = boxes_by_image(served)
    assert len(known) == 4
    for boxes in known.values():
        for at, box in enumerate(boxes):
            assert not overlap([box], boxes[:at])
    pixels = sum(box.area for boxes in known.values() for box in boxes)
    assert pixels > 0.5 * 4 * SHAPE[0] * SHAPE[1]  # what is left is smaller than a window
    version = studio.fields["model_version"]
    reconcile(served, PROJECT, nothing)
    assert studio.fields["model_version"] == version  # and no ranking follows the other for ever
    assert len(studio.items) > 4
    assert {task.status for task in served.store.tasks(PROJECT)} == {"labelled"}


def test_no_ranking_while_a_follow_up_is_open(served: Services, studio: MemoryStudio) -> None:
    reconcile(served, PROJECT, nothing)
    for number in studio.queue():
        answer(studio, number)
    reconcile(served, PROJECT, nothing)
    second = studio.fields["model_version"]
    assert second == "nextmask-1.2"
    open_ones = studio.queue()
    follow_up = next(number for number in open_ones if DATA_KEY in studio.items[number]["data"])
    (row,) = [one for one in studio.predictions if (one["task"], one["model_version"]) == (follow_up, second)]
    assert read_rectangles(row["result"], PARTS, SHAPE).boxes
    for _ in range(3):
        reconcile(served, PROJECT, nothing)
    assert (studio.fields["model_version"], studio.queue()) == (second, open_ones)
    answer(studio, follow_up)
    reconcile(served, PROJECT, nothing)
    assert (studio.fields["model_version"] == second) == (len(open_ones) > 1)


def test_wherever_it_is_killed_every_image_gets_one_follow_up(served: Services, studio: MemoryStudio) -> None:
    reconcile(served, PROJECT, nothing)
    for number in studio.queue():
        answer(studio, number)
    deaths = kill_at_every_check(lambda check: reconcile(served, PROJECT, check))
    assert deaths > 5
    images = [item["data"]["image"] for item in studio.items.values() if DATA_KEY in item["data"]]
    assert images
    assert len(images) == len(set(images))
    assert set(studio.queue()) == set(served.store.ranked_queries(PROJECT))


def test_a_host_that_refuses_the_tasks_stops_nothing_else(
    served: Services, studio: MemoryStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconcile(served, PROJECT, nothing)
    for number in studio.queue():
        answer(studio, number)
    studio.add_task(20)

    def refuse(*_: Any) -> Any:
        raise LabelStudioError("no tasks today", status=400)

    with monkeypatch.context() as patch:
        patch.setattr(studio, "import_tasks", refuse)
        with pytest.raises(TaskRefused, match="no tasks today"):
            reconcile(served, PROJECT, nothing)
        version = studio.fields["model_version"]
        with pytest.raises(TaskRefused, match="no tasks today"):
            reconcile(served, PROJECT, nothing)
        assert studio.fields["model_version"] == version
    reconcile(served, PROJECT, nothing)
    assert any(DATA_KEY in studio.items[number]["data"] for number in studio.queue())


def test_without_the_control_whole_images_are_asked_for(served: Services, studio: MemoryStudio) -> None:
    studio.xml = XML
    reconcile(served, PROJECT, nothing)
    assert len(studio.queue()) == 4
    assert served.store.ranked_queries(PROJECT) == {}


def test_a_task_whose_rectangles_are_refused_starts_no_ranking_after_the_other(
    served: Services, studio: MemoryStudio
) -> None:
    refused = 1
    served.store.set_value(f"images_retried_{PROJECT}", str(time.time()))
    studio.refuses = lambda row: row["task"] == refused and bool(row["result"])
    for _ in range(12):  # until nothing is asked for but what is refused
        reconcile(served, PROJECT, nothing)
        for number in set(studio.queue()) - {refused}:
            answer(studio, number)
    reconcile(served, PROJECT, nothing)
    assert studio.queue() == [refused]
    version = studio.fields["model_version"]
    reconcile(served, PROJECT, nothing)
    assert studio.fields["model_version"] == version
