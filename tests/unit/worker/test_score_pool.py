"""PoolRanker with a real small model: every method, samples, broken images, first batches, and labelled parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wiring import BROKEN, LABEL_MAP, PROJECT, SHAPE, XML, data_uri, disc, look_at, put_task, task_of

from ml_backend.annotations import masks
from ml_backend.annotations.boxes import Box, boxes_from_text, boxes_to_text, covered_pixels
from ml_backend.annotations.config_edits import with_points_control, with_query_control
from ml_backend.annotations.label_map import IGNORE_INDEX, parse_label_config
from ml_backend.errors import ConfigurationError, LeaseLost
from ml_backend.learning.checkpoints import Version
from ml_backend.projects.services import Services
from ml_backend.store import Task
from ml_backend.worker.score_pool import PoolRanker
from strategies import available

MISSING = "/data/upload/missing.png"
QUERIED = parse_label_config(with_query_control(XML))
WINDOWS = {"window": 16, "stride": 8, "iterations": 3, "cost_width": 4}
QUICK: dict[str, dict[str, Any]] = {
    "cereals": WINDOWS,
    "vaal": {"epochs": 1, "image_size": 16, "width": 4, "latent": 4},
    "suggestive_annotation": {"candidates": 4, "picks": 2},
}

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.studio(range(1, 9)),
    pytest.mark.settings(batch_size=3),
]


MakeRanker = Callable[..., PoolRanker]


@pytest.fixture
def make_ranker(services: Services, model: Version) -> MakeRanker:
    def make(
        label_map: Any = LABEL_MAP, *, version: Version | None = model, settings: Any = None, **options: Any
    ) -> PoolRanker:
        look = look_at(services, label_map=label_map, settings=settings, **options)
        return PoolRanker(look, version)

    return make


def in_order(priorities: Any) -> list[int]:
    return sorted(priorities, key=lambda task: -priorities[task])


def labelled(folder: Path, number: int, *boxes: Box, effort: float | None = None) -> Task:
    """A disc with its true mask, in these boxes only when some are given; effort at its upper left pixel."""
    mask = disc(number)[1]
    if boxes:
        mask = np.where(covered_pixels(boxes, SHAPE), mask, IGNORE_INDEX).astype(np.uint8)
    file, points = folder / f"{number}.png", ""
    file.write_bytes(masks.png_bytes(mask))
    if effort is not None:
        points = str(folder / f"{number}.npy")
        np.save(points, np.array([[0, 0, effort]], np.float32))
    fields = {"boxes": boxes_to_text(boxes) if boxes else "", "effort_file": points, "effort": effort}
    return task_of(number, image=data_uri(number), status="labelled", mask_file=str(file), **fields)


# -- every method ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", available())
def test_every_method_ranks_the_whole_pool_and_does_it_again_alike(
    name: str, make_ranker: MakeRanker, tasks: list[Task], tmp_path: Path
) -> None:
    known = [labelled(tmp_path, 11), labelled(tmp_path, 12, effort=3.0)]
    settings = {"strategy": name, "strategy_options": QUICK.get(name, {}), "members": 3, "committee": "mc_dropout"}
    orders = [
        in_order(make_ranker(settings=settings).rank(pool, round_number=1).priorities)
        for pool in ([*tasks, *known], [*known, *tasks[::-1]])
    ]
    assert orders[0] == orders[1]
    assert sorted(orders[0]) == [task.task_id for task in tasks]


def test_a_method_is_told_about_its_progress_and_keeps_annotators_supplied(
    make_ranker: MakeRanker, tasks: list[Task], tmp_path: Path
) -> None:
    stages: list[tuple[str, int, int]] = []
    beats: list[int] = []
    settings = {"strategy": "vaal", "strategy_options": QUICK["vaal"]}
    options = {"stages": stages, "meanwhile": lambda _: beats.append(1)}
    make_ranker(settings=settings, **options).rank([*tasks, labelled(tmp_path, 11)], round_number=1)
    assert {name for name, *_ in stages} == {"preparing", "ranking"}
    assert len(beats) == sum(name == "preparing" for name, *_ in stages)


# -- parts of images -------------------------------------------------------------------------------------------------
def test_regions_are_asked_for_where_the_project_can_show_them(make_ranker: MakeRanker, tasks: list[Task]) -> None:
    settings = {"strategy": "cereals", "strategy_options": WINDOWS, "query_images": 2}
    ranking = make_ranker(QUERIED, settings=settings).rank(tasks, round_number=1)
    asked = [box for query in ranking.queries.values() for box in query.boxes]
    assert 0 < sum(box.area for box in asked) <= 2 * SHAPE[0] * SHAPE[1]
    assert set(ranking.queries) == set(in_order(ranking.priorities)[: len(ranking.queries)])
    plain = make_ranker(settings=settings).rank(tasks, round_number=1)
    assert plain.queries == {}
    assert plain.priorities.keys() == ranking.priorities.keys()


def test_an_image_labelled_in_part_is_asked_for_its_other_parts_only(
    make_ranker: MakeRanker, tasks: list[Task], tmp_path: Path
) -> None:
    done = Box(0, 0, 16, 32)
    settings = {"strategy": "cereals", "strategy_options": WINDOWS, "query_images": 20}
    known = labelled(tmp_path, 11, done)
    ranking = make_ranker(QUERIED, settings=settings).rank([*tasks, known], round_number=1)
    assert 11 in ranking.queries
    assert all(box.left >= 16 for box in ranking.queries[11].boxes)
    whole = labelled(tmp_path, 11, Box(0, 0, SHAPE[1], SHAPE[0]))
    assert 11 not in make_ranker(QUERIED, settings=settings).rank([*tasks, whole], round_number=1).priorities


def test_the_cost_that_was_learned_is_what_regions_are_expected_to_take(
    make_ranker: MakeRanker, tasks: list[Task], tmp_path: Path
) -> None:
    settings = {"strategy": "cereals", "strategy_options": WINDOWS, "query_images": 2}
    without = make_ranker(QUERIED, settings=settings).rank([*tasks, labelled(tmp_path, 11)], round_number=1)
    assert all(query.cost is None for query in without.queries.values())
    known = [*tasks, labelled(tmp_path, 11, effort=50.0), labelled(tmp_path, 12, effort=30.0)]
    learned = make_ranker(QUERIED, settings=settings).rank(known, round_number=1)
    assert all(query.cost is not None and query.cost > 0 for query in learned.queries.values())


# -- samples and failures --------------------------------------------------------------------------------------------
def test_the_pool_is_scored_whole_when_it_is_small(make_ranker: MakeRanker, tasks: list[Task]) -> None:
    stages: list[tuple[str, int, int]] = []
    ranking = make_ranker(stages=stages).rank(tasks, round_number=1)
    assert ranking.scored == 8
    assert ranking.priorities.keys() == {task.task_id for task in tasks}
    assert ("ranking", 8, 8) in stages


def test_images_that_cannot_be_had_are_noted_and_left_out(
    make_ranker: MakeRanker, tasks: list[Task], services: Services
) -> None:
    pool = [*tasks, put_task(services, 21, image=BROKEN), put_task(services, 22, image=MISSING)]
    ranking = make_ranker().rank(pool, round_number=1)
    assert ranking.priorities.keys() == {task.task_id for task in tasks}
    errors = {task.task_id: task.error for task in services.store.tasks(PROJECT) if task.error}
    assert errors.keys() == {21, 22}
    assert "cannot be fetched: not found" in errors[22]
    assert BROKEN in errors[21]


def test_a_label_whose_mask_is_lost_fails_nothing_else(
    make_ranker: MakeRanker, tasks: list[Task], tmp_path: Path
) -> None:
    known = labelled(tmp_path, 11)
    Path(known.mask_file).unlink()
    ranking = make_ranker(settings={"strategy": "coreset"}).rank([*tasks, known], round_number=1)
    assert ranking.priorities.keys() == {task.task_id for task in tasks}


def test_a_label_whose_image_is_lost_is_counted_no_longer(
    make_ranker: MakeRanker, tasks: list[Task], tmp_path: Path, services: Services
) -> None:
    known = replace(labelled(tmp_path, 11), image="/data/upload/lost.png")
    services.store.put_tasks([known])
    ranking = make_ranker(settings={"strategy": "coreset"}).rank([*tasks, known], round_number=1)
    assert ranking.priorities.keys() == {task.task_id for task in tasks}
    left_out = services.store.task(PROJECT, 11)
    assert left_out is not None
    assert left_out.status == "unavailable"
    assert "lost.png cannot be fetched" in left_out.error


def test_an_image_that_is_back_loses_its_error(make_ranker: MakeRanker, tasks: list[Task], services: Services) -> None:
    services.store.set_task_error(PROJECT, 1, "could not be fetched")
    make_ranker().rank(services.store.tasks(PROJECT), round_number=1)
    assert services.store.tasks(PROJECT)[0].error == ""


def test_a_sample_is_scored_and_the_rest_comes_behind(make_ranker: MakeRanker, tasks: list[Task]) -> None:
    ranking = make_ranker(settings={"pool_sample": 3}).rank(tasks, round_number=1)
    assert (ranking.scored, len(ranking.priorities)) == (3, 8)
    values = sorted(ranking.priorities.values(), reverse=True)
    assert values[2] >= 0.5 > values[3]


def test_time_limits_the_scoring_of_a_large_pool(
    make_ranker: MakeRanker, services: Services, model: Version, tasks: list[Task]
) -> None:
    # a window of 1 makes ten images the least; training that took no time leaves no time for more
    hasty = replace(model, record=replace(model.record, measures={"seconds": 0.0}))
    pool = [replace(task, task_id=task.task_id + 100 * copy) for copy in range(3) for task in tasks]
    services.store.put_tasks(pool)
    ranking = make_ranker(version=hasty, settings={"queue_window": 1}).rank(pool, round_number=1)
    assert 10 <= ranking.scored < 24
    assert len(ranking.priorities) == 24


def test_a_large_pool_is_gone_through_once(make_ranker: MakeRanker, model: Version, tasks: list[Task]) -> None:
    joined = 0

    class Failed(set[int]):
        def __ror__(self, other: Any) -> set[int]:  # what a union with it costs grows with the pool
            nonlocal joined
            joined += 1
            return set(other) | set(self)

    for version in (None, model):
        ranker = make_ranker(version=version)
        ranker._images.failed = Failed()
        assert len(ranker.rank(tasks, round_number=0).priorities) == 8
    assert joined == 2


def test_an_unknown_strategy_is_a_configuration_error(make_ranker: MakeRanker, tasks: list[Task]) -> None:
    with pytest.raises(ConfigurationError, match="clairvoyance"):
        make_ranker(settings={"strategy": "clairvoyance"}).rank(tasks, round_number=1)


def test_a_lost_lease_ends_the_ranking(make_ranker: MakeRanker, tasks: list[Task]) -> None:
    def check() -> None:
        raise LeaseLost("gone")

    with pytest.raises(LeaseLost):
        make_ranker(check=check).rank(tasks, round_number=1)


# -- before the first labels -----------------------------------------------------------------------------------------
def test_the_first_batch_is_diverse(make_ranker: MakeRanker, services: Services) -> None:
    """Twelve copies of one image beside three others: by chance the first four would hold copies."""
    copies = [task_of(number, image=data_uri(1)) for number in range(1, 13)]
    others = [task_of(number, image=data_uri(number)) for number in (21, 22, 23)]
    services.store.put_tasks([*copies, *others])
    ranking = make_ranker(version=None).rank([*copies, *others], round_number=0)
    first = in_order(ranking.priorities)[:4]
    assert {21, 22, 23} < set(first)
    assert len(ranking.priorities) == 15


def test_without_an_encoder_that_saw_images_the_order_is_left_to_chance(
    make_ranker: MakeRanker, tasks: list[Task]
) -> None:
    orders = [
        make_ranker(version=None, settings={"encoder_weights": "none", "seed": seed}).rank(tasks, round_number=0)
        for seed in (0, 0, 5)
    ]
    assert [one.scored for one in orders] == [0, 0, 0]
    assert in_order(orders[0].priorities) == in_order(orders[1].priorities) != in_order(orders[2].priorities)


@pytest.mark.parametrize("count", [0, 1])
def test_a_pool_of_one_or_none(count: int, make_ranker: MakeRanker, model: Version, tasks: list[Task]) -> None:
    for version in (None, model):
        ranking = make_ranker(version=version).rank(tasks[:count], round_number=0)
        assert len(ranking.priorities) == count


# -- points ----------------------------------------------------------------------------------------------------------
POINTED = parse_label_config(with_points_control(XML))
POINTS = {"strategy": "points", "strategy_options": {"count": 5}}


@pytest.mark.parametrize("name", ["points", "random_points"])
def test_points_are_asked_for_where_the_project_can_show_them(
    name: str, make_ranker: MakeRanker, tasks: list[Task]
) -> None:
    settings = {**POINTS, "strategy": name}
    ranking = make_ranker(POINTED, settings=settings).rank(tasks, round_number=1)
    assert set(ranking.queries) == {task.task_id for task in tasks}
    assert all(query.asks_for_points and len(query.boxes) == 5 for query in ranking.queries.values())
    plain = make_ranker(settings=settings).rank(tasks, round_number=1)
    assert plain.queries == {}
    assert plain.priorities.keys() == ranking.priorities.keys()


def test_a_pixel_that_was_answered_is_not_asked_again(
    make_ranker: MakeRanker, tasks: list[Task], tmp_path: Path
) -> None:
    first = make_ranker(POINTED, settings=POINTS).rank(tasks, round_number=1)
    chosen = tasks[0]
    answered = labelled(tmp_path, 11, *first.queries[chosen.task_id].boxes)
    answered = replace(answered, image=chosen.image)
    for round_number in (1, 2, 3):
        ranking = make_ranker(POINTED, settings=POINTS).rank([*tasks[1:], answered], round_number=round_number)
        assert set(ranking.queries[11].boxes).isdisjoint(boxes_from_text(answered.boxes))
        assert all(box.is_point for box in ranking.queries[11].boxes)


@pytest.mark.parametrize("name", ["points", "random_points"])
def test_before_there_is_a_network_the_first_points_are_asked_for(
    name: str, services: Services, tasks: list[Task]
) -> None:
    settings = {**POINTS, "strategy": name, "encoder_weights": "none"}
    ranker = PoolRanker(look_at(services, label_map=POINTED, settings=settings), None)
    ranking = ranker.rank(tasks, round_number=0)
    assert set(ranking.queries) == {task.task_id for task in tasks}
    assert all(len(set(query.boxes)) == 5 and query.asks_for_points for query in ranking.queries.values())
    without = PoolRanker(look_at(services, settings=settings), None).rank(tasks, round_number=0)
    assert without.queries == {}
