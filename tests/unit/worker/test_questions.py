"""Points or masks: what a project's annotators needed decides, and both kinds are asked for in one queue."""

from __future__ import annotations

from typing import Any

import pytest
from memory_studio import MemoryStudio
from wiring import LABEL_MAP, PROJECT, XML, data_uri, give_project, look_at, nothing, renderer_of, task_of

from ml_backend.annotations.boxes import Box, Query, boxes_to_text
from ml_backend.annotations.config_edits import with_points_control
from ml_backend.annotations.label_map import parse_label_config
from ml_backend.learning.ranking import PoolRanking
from ml_backend.projects.questions import prices_of, reason_of
from ml_backend.projects.services import Services
from ml_backend.projects.status import project_status
from ml_backend.settings import Settings
from ml_backend.store import Task
from ml_backend.worker.follow_up import pending
from ml_backend.worker.publish import PriorityQueue, _to_publish
from ml_backend.worker.rank import rank
from ml_backend.worker.score_pool import PoolRanker
from ml_backend.worker.sync import Sync

POINTS_XML = with_points_control(XML)
LABELS = parse_label_config(POINTS_XML)
POINT, OTHER = Box.point(3, 4), Box.point(9, 9)

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.studio(12, xml=POINTS_XML),
    pytest.mark.settings(audit_share=0.0, batch_size=3),
]


@pytest.fixture(autouse=True)
def _served(services: Services) -> None:
    give_project(services)
    services.store.update_project(PROJECT, label_config=POINTS_XML)


def answered(number: int, effort: float | None, *boxes: Box, **fields: Any) -> Task:
    text = boxes_to_text(boxes) if boxes else ""
    own = {"status": "labelled", "annotation_id": number, "effort": effort, "boxes": text, **fields}
    return task_of(number, image=data_uri(number), **own)


def ranked(services: Services, known: list[Task], **options: Any) -> PoolRanking:
    """Rank the tasks of the project beside labels that are known."""
    scorer = PoolRanker(look_at(services, label_map=LABELS, settings=options), services.checkpoints(PROJECT).get(1))
    return scorer.rank([*services.store.tasks(PROJECT), *known], round_number=1)


# -- what answering takes ---------------------------------------------------------------------------------------------
def test_the_latest_labels_of_each_kind_say_what_it_takes() -> None:
    masks = [answered(number, 1000.0) for number in range(1, 6)] + [answered(30 + at, 40.0) for at in range(20)]
    points = [answered(60 + at, 7.0 + at, POINT, OTHER) for at in range(3)]
    others = [
        answered(70, 500.0, Box(0, 0, 8, 8)),  # a region
        answered(71, 500.0, Box(0, 0, 8, 8), POINT),
        answered(72, None),
        answered(73, 500.0, status="broken"),
        answered(74, 90.0, POINT, OTHER, held_out=True),  # of an audit image, which asks for more points
        answered(75, 900.0, held_out=True),  # and for masks drawn from nothing
    ]
    prices = prices_of([*others, *points, *masks][::-1], Settings(cost_measure="seconds"))
    assert (prices.points, prices.mask, prices.unit) == (8.0, 40.0, "seconds")


def test_without_labels_nothing_is_known_of_what_they_take() -> None:
    prices = prices_of([answered(72, None), task_of(1)], Settings())
    assert (prices.points, prices.mask, prices.unit) == (None, None, "clicks")


# -- what is asked for ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("mask", "word"), [(900.0, "Points: 10"), (12.0, "Masks: 10")])
def test_what_masks_took_decides(mask: float, word: str, services: Services) -> None:
    Sync(look_at(services)).run()
    known = [answered(100 + at, mask) for at in range(3)] + [answered(110 + at, 10.0, POINT) for at in range(3)]
    ranking = ranked(services, known)
    assert ranking.reason.startswith(word)
    by_points = [task for task, query in ranking.queries.items() if query.asks_for_points]
    whole = [task for task, query in ranking.queries.items() if not query.boxes]
    assert sorted(by_points + whole) == sorted(ranking.priorities), "each image is asked one of the two"
    assert min(len(by_points), len(whole)) <= 2
    assert (len(by_points) > len(whole)) == (mask > 100)


def test_a_control_that_is_not_there_is_not_asked_of(services: Services) -> None:
    Sync(look_at(services)).run()
    scorer = PoolRanker(look_at(services, label_map=LABEL_MAP), services.checkpoints(PROJECT).get(1))
    ranking = scorer.rank(services.store.tasks(PROJECT), round_number=1)
    assert (ranking.queries, ranking.reason) == ({}, "")
    assert len(ranking.priorities) == 12


def test_the_reason_is_told_where_people_look(services: Services) -> None:
    look = look_at(services, label_map=LABELS)
    Sync(look).run()
    rank(look)
    reason = reason_of(services.store, PROJECT)
    assert reason == "Points: what a mask takes here is not known yet, and one is asked for to find out."
    assert project_status(services.settings, services.store, PROJECT).question == reason
    assert reason in services.store.events(PROJECT, limit=1)[0].text


def test_before_there_is_a_network_one_mask_is_asked_for_among_the_points(services: Services) -> None:
    Sync(look_at(services)).run()
    ranking = PoolRanker(look_at(services, label_map=LABELS), None).rank(services.store.tasks(PROJECT), round_number=0)
    order = sorted(ranking.priorities, key=lambda task: -ranking.priorities[task])
    assert [at for at, task in enumerate(order) if not ranking.queries[task].boxes] == [1]
    assert all(ranking.queries[task].asks_for_points for task in order if task != order[1])


# -- both kinds in one queue ------------------------------------------------------------------------------------------
def test_masks_and_points_are_published_side_by_side(services: Services, studio: MemoryStudio) -> None:
    Sync(look_at(services)).run()
    entries = {task.task_id: 1 - task.task_id / 100 for task in services.store.tasks(PROJECT)}
    queries = {1: Query((POINT,)), 2: Query(())}
    services.store.put_ranking(PROJECT, entries, queries, ranking_version="nextmask-1.1", ranking_key="key")
    shown = _to_publish(look_at(services, label_map=LABELS))
    assert [task.task_id for task, _ in shown] == [1, 2], "the others were not asked for now"
    renderer = renderer_of(services, services.checkpoints(PROJECT).get(1), LABELS)
    queue = PriorityQueue(services.client, services.store, PROJECT, check=nothing)
    queue.publish("nextmask-1.1", lambda _: shown, renderer.render, window=10, refill=0.5, progress=nothing)
    kinds = {row["task"]: {region["type"] for region in row["result"]} for row in studio.predictions}
    assert kinds == {1: {"keypointlabels"}, 2: {"brushlabels"}}
    assert set(services.store.published_queries(PROJECT)) == {(1, "nextmask-1.1")}


def test_a_mask_is_asked_for_in_a_task_of_its_own_after_points_were_answered() -> None:
    by_points, whole = answered(1, 2.0, POINT, mask_file="1.png"), Query(())
    assert [query.task.task_id for query in pending([by_points], {1: whole}, ())] == [1]
    copy = task_of(2, image=data_uri(1))
    assert pending([by_points, copy], {2: whole}, ()) == [], "it has its task"
    labelled = task_of(2, image=data_uri(1), status="labelled", mask_file="2.png")
    assert pending([by_points, labelled], {1: whole}, ()) == [], "and its mask"
