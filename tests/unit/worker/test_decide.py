"""Arrivals: what arrives is decided about once, visibly, and a person can take it back; with scores that are given."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from arrivals import arrive, marked, passed
from memory_studio import MemoryStudio
from wiring import PROJECT, Clock, kill_at_every_check, look_at, nothing, task_of

from ml_backend.errors import ConfigurationError, LabelStudioUnavailable
from ml_backend.label_studio.predictions import MARKER, RETURNED
from ml_backend.projects.candidates import Candidate
from ml_backend.projects.passed_over import return_to_pool, stream_counts
from ml_backend.projects.services import Services
from ml_backend.store import Task
from ml_backend.worker import decide as stream_module
from ml_backend.worker.decide import CHUNK, Arrivals
from ml_backend.worker.score_pool import Observer
from strategies import Observation
from strategies.stream import StreamSelection

RATE = 0.3
QUICK = {"input_size": 32, "iterations": 6, "batch_size": 4, "train_after": 99, "queue_window": 4}

pytestmark = [
    pytest.mark.usefixtures("one_thread", "known_project"),
    pytest.mark.studio(6, connected=True),
    pytest.mark.settings(**QUICK),
]


def score(task: int) -> float:
    return math.sin(task * 12.9898) * 0.5 + 0.5


class Measure:
    """An observer that gives `score`, counts what it is asked, and answers in batches in no order."""

    def __init__(self, *, most: int = 10**6, least: int = 10**6, seconds: float = 0.0, batch: int = 3) -> None:
        self.bounds, self.batch = (most, least, seconds), batch
        self.asked: list[int] = []

    def __call__(self) -> Observer:
        return Observer(self.observe, lambda count: (min(count, self.bounds[0]), *self.bounds[1:]))

    def observe(self, arrivals: Sequence[Candidate]) -> Iterator[Observation]:
        ids = [one.task.task_id for one in arrivals]
        self.asked += ids
        ids.sort(key=lambda task: (task * 7) % 11)
        for start in range(0, len(ids), self.batch):
            part = ids[start : start + self.batch]
            information = torch.tensor([score(task) for task in part])
            yield Observation(ids=tuple(part), information=information, size=torch.tensor([[8, 8]] * len(part)))


@pytest.fixture
def look(services: Services, studio: MemoryStudio) -> Callable[..., set[int]]:
    """Run the stream once; the host's tasks are read before."""

    def run(
        measure: Measure | None, *, check: Callable[[], None] = nothing, most: int | None = None, **settings: Any
    ) -> set[int]:
        passed = services.store.passed_over(PROJECT)
        known = services.store.tasks(PROJECT)
        services.store.delete_tasks(PROJECT, {task.task_id for task in known} - studio.items.keys())
        here = {task.task_id for task in known}
        services.store.put_tasks(
            task_of(task, status="passed" if task in passed else "unlabelled") for task in studio.items.keys() - here
        )
        return Arrivals(look_at(services, settings={"stream_rate": RATE, **settings}, check=check)).run(
            measure, most=most
        )

    return run


def as_the_library_decides(tasks: Sequence[int], rate: float = RATE) -> dict[int, bool]:
    selection, size = StreamSelection(rate=rate), torch.tensor([[8, 8]])
    made = [Observation(ids=(task,), information=torch.tensor([score(task)]), size=size) for task in sorted(tasks)]
    return {int(one.ids[0]): selection.decide(one).keep for one in made}


Look = Callable[..., set[int]]


def test_what_was_there_belongs_to_the_pool_and_what_comes_is_decided_about(
    services: Services, studio: MemoryStudio, look: Look
) -> None:
    measure = Measure()
    assert look(measure) == set()
    assert (measure.asked, services.store.decisions(PROJECT)) == ([], {})
    new = arrive(studio, 20)
    assert look(measure) == set()
    expected = as_the_library_decides(new)
    assert set(expected.values()) == {True, False}
    assert {task: one.keep for task, one in services.store.decisions(PROJECT).items()} == expected
    assert passed(services) == marked(studio) == [task for task, kept in expected.items() if not kept]
    rows = [row for row in studio.predictions if row["model_version"] == MARKER]
    assert all((row["result"], row["score"]) == ([], 1.0) for row in rows)
    assert len(studio.imports) == 1, "one request for all"


def test_before_the_first_model_everything_belongs_to_the_pool(
    services: Services, studio: MemoryStudio, look: Look
) -> None:
    look(None)
    first = arrive(studio, 3)
    look(None)
    look(measure := Measure())
    second = arrive(studio, 2)
    look(measure)
    assert services.store.decisions(PROJECT).keys() == set(second)
    assert not set(first) & set(measure.asked)


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_decisions_depend_on_the_order_of_ids_alone(
    services: Services, studio: MemoryStudio, look: Look, batch: int
) -> None:
    look(Measure())
    new = arrive(studio, 2 * CHUNK + 5)
    look(Measure(batch=batch))
    kept = {task: one.keep for task, one in services.store.decisions(PROJECT).items()}
    assert kept == as_the_library_decides(new)


def test_a_task_is_scored_once_and_the_selection_goes_on_where_it_was(
    services: Services, studio: MemoryStudio, look: Look
) -> None:
    look(measure := Measure())
    new = []
    for count in (7, 1, 12):
        new += arrive(studio, count)
        look(measure)
        look(measure)
    assert measure.asked == new
    kept = {task: one.keep for task, one in services.store.decisions(PROJECT).items()}
    assert kept == as_the_library_decides(new)
    assert len(marked(studio)) == len(set(marked(studio)))
    (counts,) = [stream_counts(services.store, PROJECT)]
    assert counts is not None
    assert counts.kept == sum(kept.values())
    assert counts.passed == len(passed(services))
    assert counts.threshold == pytest.approx(services.store.decisions(PROJECT)[new[-1]].threshold)


def test_more_than_there_is_time_for_waits_for_the_next_look(
    services: Services, studio: MemoryStudio, look: Look
) -> None:
    look(Measure())
    new = list(range(1001, 6001))
    studio.items |= {task: {**studio.items[1], "id": task} for task in new}
    measure = Measure(least=4 * CHUNK)
    waiting = look(measure)
    assert measure.asked == new[: 4 * CHUNK], "the oldest first"
    assert waiting == set(new[4 * CHUNK :])
    assert look(Measure(), most=CHUNK) == set(new[5 * CHUNK :])
    assert look(rest := Measure(batch=8)) == set()
    assert rest.asked == new[5 * CHUNK :]
    kept = {task: one.keep for task, one in services.store.decisions(PROJECT).items()}
    assert kept == as_the_library_decides(new)
    assert len(marked(studio)) == 5000 - sum(kept.values())
    assert max(len(rows) for rows in studio.imports) > 1000, "few requests"


def test_a_sample_of_the_pool_bounds_a_look(services: Services, studio: MemoryStudio, look: Look) -> None:
    look(Measure())
    new = arrive(studio, 10)
    assert look(Measure(most=3, least=3)) == set(new[3:])


# -- dying -----------------------------------------------------------------------------------------------------------
def test_wherever_it_dies_nothing_is_decided_or_shown_twice(
    services: Services, studio: MemoryStudio, look: Look
) -> None:
    look(Measure())
    new = arrive(studio, 3 * CHUNK)
    deaths = kill_at_every_check(lambda check: look(Measure(), check=check))
    assert deaths >= 4
    kept = {task: one.keep for task, one in services.store.decisions(PROJECT).items()}
    assert kept == as_the_library_decides(new)
    assert passed(services) == marked(studio) == [task for task in new if not kept[task]]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_around_the_import_is_made_up_for(
    services: Services, studio: MemoryStudio, look: Look, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    look(Measure())
    arrive(studio, 12)
    real = studio.import_predictions

    def dies(project: int, rows: Any) -> int:
        if when == "after":
            real(project, rows)
        raise LabelStudioUnavailable("it went away")

    with monkeypatch.context() as patch:
        patch.setattr(studio, "import_predictions", dies)
        with pytest.raises(LabelStudioUnavailable):
            look(Measure())
    assert passed(services)
    assert not any(one.marked for one in services.store.decisions(PROJECT).values())
    look(measure := Measure())
    assert measure.asked == []
    assert marked(studio) == passed(services)
    assert not any(one.returned for one in services.store.decisions(PROJECT).values())


def test_markers_that_the_host_drops_without_a_word_are_tried_again(
    services: Services, studio: MemoryStudio, look: Look
) -> None:
    look(Measure())
    arrive(studio, 12)
    studio.refuses = lambda row: row["task"] % 2 == 0
    look(Measure())
    assert marked(studio) == [task for task in passed(services) if task % 2]
    studio.refuses = lambda row: False
    look(Measure())
    assert marked(studio) == passed(services)


def test_a_task_that_is_deleted_meanwhile_keeps_no_other_from_being_shown(
    services: Services, studio: MemoryStudio, look: Look
) -> None:
    look(Measure())
    new = arrive(studio, 12)
    gone = next(task for task, kept in as_the_library_decides(new).items() if not kept)

    class Deletes(Measure):
        def observe(self, arrivals: Sequence[Candidate]) -> Iterator[Observation]:
            yield from super().observe(arrivals)
            del studio.items[gone]

    look(Deletes())
    assert gone not in marked(studio)
    assert marked(studio) == [task for task in passed(services) if task != gone]
    look(Measure())
    assert gone not in services.store.decisions(PROJECT)
    assert marked(studio) == passed(services)


# -- taking it back --------------------------------------------------------------------------------------------------
def test_deleting_the_marker_returns_a_task_to_the_pool_for_good(
    services: Services, studio: MemoryStudio, look: Look
) -> None:
    look(Measure())
    arrive(studio, 12)
    look(Measure())
    first, second, *rest = passed(services)
    studio.predictions = [row for row in studio.predictions if row["task"] not in (first, second)]
    look(measure := Measure())
    assert passed(services) == marked(studio) == rest
    for task in (first, second):
        assert services.store.decisions(PROJECT)[task].returned
        found = services.store.task(PROJECT, task)
        assert found is not None
        assert found.status == "unlabelled"
    imports = len(studio.imports)
    look(measure)
    assert (measure.asked, len(studio.imports), marked(studio)) == ([], imports, rest)
    counts = stream_counts(services.store, PROJECT)
    assert counts is not None
    assert (counts.passed, counts.returned) == (len(rest), 2)


def test_keep_returns_tasks_at_once(services: Services, studio: MemoryStudio, look: Look) -> None:
    look(Measure())
    arrive(studio, 12)
    look(Measure())
    first, second, *rest = passed(services)
    return_to_pool(services.store, services.client, PROJECT, [second, first, second])
    assert passed(services) == marked(studio) == rest
    look(Measure())
    assert passed(services) == marked(studio) == rest


def test_keep_refuses_what_is_not_passed_over_and_does_nothing(
    services: Services, studio: MemoryStudio, look: Look
) -> None:
    look(Measure())
    arrive(studio, 12)
    look(Measure())
    before = passed(services)
    with pytest.raises(ConfigurationError, match=rf"Not passed over in project {PROJECT}: task 1, 999\."):
        return_to_pool(services.store, services.client, PROJECT, [999, before[0], 1])
    assert passed(services) == marked(studio) == before


def test_a_marker_that_keep_could_not_take_off_is_taken_off_by_the_next_look(
    services: Services, studio: MemoryStudio, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    look(Measure())
    arrive(studio, 12)
    look(Measure())
    first, *rest = passed(services)

    def away(*_: Any) -> int:
        raise LabelStudioUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(studio, "rename_predictions", away)
        with pytest.raises(LabelStudioUnavailable):
            return_to_pool(services.store, services.client, PROJECT, [first])
    assert first in marked(studio)
    look(Measure())
    assert passed(services) == marked(studio) == rest


def test_switching_off_returns_all_and_keeps_what_was_decided(
    services: Services, studio: MemoryStudio, look: Look
) -> None:
    look(Measure())
    arrive(studio, 12)
    look(Measure())
    before = services.store.decisions(PROJECT)
    studio.predictions.append({"id": 99, "task": 1, "result": [], "score": 0.5, "model_version": "theirs"})
    look(Measure(), stream_rate=0)
    assert (passed(services), marked(studio)) == ([], [])
    assert studio.model_versions(PROJECT) == {"theirs": 1, RETURNED: sum(not one.keep for one in before.values())}
    after = services.store.decisions(PROJECT)
    assert after.keys() == before.keys()
    assert all(one.returned != one.keep for one in after.values())
    calls = len(studio.imports)
    look(Measure(), stream_rate=0)
    assert len(studio.imports) == calls

    look(measure := Measure())  # on again: what came meanwhile belongs to the pool
    assert measure.asked == []
    new = arrive(studio, 8)
    look(measure)
    assert measure.asked == new
    kept = {task: one.keep for task, one in services.store.decisions(PROJECT).items() if task in new}
    assert kept == as_the_library_decides(new)


def test_a_switch_off_that_dies_is_finished(
    services: Services, studio: MemoryStudio, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    look(Measure())
    arrive(studio, 12)
    look(Measure())

    def away(*_: Any) -> int:
        raise LabelStudioUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(studio, "rename_predictions", away)
        with pytest.raises(LabelStudioUnavailable):
            look(Measure(), stream_rate=0)
    look(Measure(), stream_rate=0)
    assert (passed(services), marked(studio)) == ([], [])


def test_many_markers_are_taken_off_over_several_looks(
    services: Services, studio: MemoryStudio, look: Look, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "RENAMED_PER_LOOK", 3)
    look(Measure())
    arrive(studio, 12)
    look(Measure())
    count = len(marked(studio))
    for left in (count - 3, count - 6):
        look(Measure(), stream_rate=0)
        assert (passed(services), len(marked(studio))) == ([], left)
    while marked(studio):
        look(Measure(), stream_rate=0)
    assert services.store.value(f"stream_{PROJECT}") == ""
    clock.go_on(hours=26.1)
    look(Measure(), stream_rate=0)
    assert studio.model_versions(PROJECT) == {}


def test_markers_taken_off_are_deleted_when_no_editor_can_have_them_open(
    services: Services, studio: MemoryStudio, look: Look, clock: Clock
) -> None:
    look(Measure())
    arrive(studio, 12)
    look(Measure())
    return_to_pool(services.store, services.client, PROJECT, passed(services)[:2])
    rest = passed(services)
    clock.go_on(hours=25.9)
    look(Measure())
    assert studio.model_versions(PROJECT) == {MARKER: len(rest), RETURNED: 2}
    clock.go_on(hours=0.2)
    look(Measure())
    assert studio.model_versions(PROJECT) == {MARKER: len(rest)}
    assert passed(services) == marked(studio) == rest


@pytest.mark.parametrize("change", [{"stream_rate": 0.6}, {"strategy": "margin"}])
def test_another_rate_or_strategy_starts_the_selection_over_but_decides_nothing_again(
    services: Services, studio: MemoryStudio, look: Look, change: dict[str, Any]
) -> None:
    look(Measure())
    old = arrive(studio, 12)
    look(Measure())
    before = services.store.decisions(PROJECT)
    new = arrive(studio, 12)
    look(measure := Measure(), **change)
    assert measure.asked == new
    after = services.store.decisions(PROJECT)
    assert {task: after[task] for task in old} == before
    assert {task: after[task].keep for task in new} == as_the_library_decides(new, change.get("stream_rate", RATE))


def test_follow_ups_of_labelled_images_and_broken_images_are_no_arrivals(
    services: Services, studio: MemoryStudio, look: Look
) -> None:
    look(Measure())
    part = Task(PROJECT, 2, "scan.png", status="labelled", boxes="[[0, 0, 4, 4]]", mask_file="mask.png")
    follow_up, broken, new = arrive(studio, 3)
    services.store.put_tasks([part, task_of(follow_up, image="scan.png"), task_of(broken, error="cannot be fetched")])
    look(measure := Measure())
    assert measure.asked == [new]
    services.store.set_task_error(PROJECT, broken, "")
    look(measure)
    assert measure.asked == [new, broken]


def test_what_was_ranked_before_it_could_be_decided_about_asks_for_a_new_ranking(
    services: Services, studio: MemoryStudio, look: Look
) -> None:
    look(Measure())
    new = arrive(studio, 8)
    look(lambda: None)  # the strategy has still to learn
    assert services.store.decisions(PROJECT) == {}
    services.store.put_ranking(PROJECT, dict.fromkeys(new, 0.5), ranking_key="a key")
    look(Measure())
    project = services.store.project(PROJECT)
    assert project is not None
    assert project.ranking_key == ""


def test_a_passed_over_task_that_is_labelled_in_part_may_be_ranked(
    services: Services, studio: MemoryStudio, look: Look
) -> None:
    look(Measure())
    arrive(studio, 8)
    look(Measure())
    task = services.store.task(PROJECT, passed(services)[0])
    assert task is not None
    services.store.put_tasks([replace(task, status="labelled", boxes="[[0, 0, 8, 8]]")])
    services.store.put_ranking(PROJECT, {task.task_id: 0.5}, ranking_key="a key")
    look(Measure())
    project = services.store.project(PROJECT)
    assert project is not None
    assert project.ranking_key == "a key"  # or every look would rank anew


def test_a_project_that_never_streamed_asks_nothing(
    services: Services, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(MemoryStudio, "model_versions")
    assert look(Measure(), stream_rate=0) == set()
    assert stream_counts(services.store, PROJECT) is None
