"""Labels of points: read from Label Studio, kept, merged with other labels of an image, and never asked again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from memory_studio import MemoryStudio
from wiring import (
    BROKEN,
    PROJECT,
    SHAPE,
    XML,
    Json,
    disc,
    give_project,
    mask_of,
    nothing,
    region,
    renderer_of,
    stored,
    synced,
)

from ml_backend.annotations import masks
from ml_backend.annotations.boxes import Box, Query, boxes_from_text
from ml_backend.annotations.config_edits import with_points_control, with_query_control
from ml_backend.annotations.effort import read_points as read_effort
from ml_backend.annotations.key_points import Answer, Guess, read_points, write_points
from ml_backend.annotations.label_map import IGNORE_INDEX, parse_label_config
from ml_backend.annotations.query_regions import write_rectangles
from ml_backend.projects.candidates import candidates
from ml_backend.projects.parts import merged_mask, parts_of
from ml_backend.projects.points_report import Guesses
from ml_backend.projects.services import Services
from ml_backend.projects.shown_masks import MaskRenderer, Shown
from ml_backend.projects.status import project_status
from ml_backend.server.model import NextmaskModel
from ml_backend.store import Task
from ml_backend.worker.follow_up import follow_up, pending
from ml_backend.worker.look import Look
from ml_backend.worker.publish import PriorityQueue

POINTS_XML = with_query_control(with_points_control(XML))
LABELS = parse_label_config(POINTS_XML)
CELL, NUCLEUS = 1, 2
VERSION = "nextmask-1.1"

pytestmark = [pytest.mark.studio(4, xml=POINTS_XML), pytest.mark.settings(audit_share=0.0)]


@pytest.fixture(autouse=True)
def _served(services: Services) -> None:
    give_project(services)
    services.store.update_project(PROJECT, label_config=POINTS_XML)


def labelled(services: Services, one: Task) -> dict[tuple[int, int], int]:
    """The pixels of a task that have a class."""
    mask = mask_of(services, one)
    places = zip(*(axis.tolist() for axis in np.nonzero(mask != IGNORE_INDEX)), strict=True)
    return {(row, column): int(mask[row, column]) for row, column in places}


def points(*guesses: tuple[int, int, int], origin: str = "prediction") -> list[Json]:
    """Points as an annotator submits them: (row, column, class)."""
    written = write_points([Guess(*guess) for guess in guesses], LABELS, SHAPE)
    return [{**each, "origin": origin, "id": f"{origin}-{each['id']}"} for each in written]


def predicted(services: Services, studio: MemoryStudio, *guesses: tuple[int, int, int], task_id: int = 1) -> int:
    """The task was published with points; returns the id of its prediction."""
    row = {"task": task_id, "result": points(*guesses), "score": 0.5, "model_version": VERSION}
    studio.import_predictions(PROJECT, [row])
    boxes = tuple(Box.point(row, column) for row, column, _ in guesses)
    services.store.put_queries(PROJECT, VERSION, {task_id: Query(boxes)})
    services.store.put_published(PROJECT, VERSION, [(task_id, 0.5, None)])
    return int(studio.predictions[-1]["id"])


# -- answers ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("unpainted", ["background", "ignore"])
def test_answers_label_their_pixels_and_nothing_else(services: Services, studio: MemoryStudio, unpainted: str) -> None:
    asked = predicted(services, studio, (3, 4, CELL), (5, 6, CELL))
    result = [*points((3, 4, CELL)), *points((5, 6, NUCLEUS), origin="prediction-changed")]
    studio.annotate(1, result, parent_prediction=asked, lead_time=6.0)
    synced(services, unpainted=unpainted)
    found, label_map = stored(services), parse_label_config(POINTS_XML, unpainted=unpainted)  # type: ignore[arg-type]
    assert (found.status, found.error, found.lead_time, found.regions) == ("labelled", "", 6.0, 0)
    assert labelled(services, found) == {(3, 4): label_map.index_of("cell"), (5, 6): label_map.index_of("nucleus")}
    assert boxes_from_text(found.boxes) == (Box.point(3, 4), Box.point(5, 6))
    assert all(box.is_point for box in boxes_from_text(found.boxes))
    assert found.agreement is None, "how a mask compares with a few doubtful pixels says nothing about it"


def test_answers_that_nobody_asked_for_label_only_their_pixels_too(services: Services, studio: MemoryStudio) -> None:
    studio.annotate(1, points((3, 4, CELL), origin="manual"))
    synced(services)
    assert labelled(services, stored(services)) == {(3, 4): CELL}
    assert boxes_from_text(stored(services).boxes) == (Box.point(3, 4),)


def test_an_answer_is_a_click(services: Services, studio: MemoryStudio) -> None:
    asked = predicted(services, studio, (3, 4, CELL), (5, 6, CELL))
    studio.annotate(1, points((3, 4, CELL), (5, 6, CELL)), parent_prediction=asked, lead_time=6.0)
    synced(services)
    assert stored(services).effort == 2
    assert read_effort(services.files.read(stored(services).effort_file)).tolist() == [[4.5, 3.5, 1.0], [6.5, 5.5, 1.0]]
    services.store.update_project(PROJECT, labels_digest="")
    synced(services, cost_measure="seconds")
    assert stored(services).effort == 6


def test_guesses_that_were_right_are_counted_where_they_were_answered(services: Services, studio: MemoryStudio) -> None:
    """Of six one was changed, one moved and one deleted; one was repeated by hand, and one painted over."""
    guessed = [(3, 4, CELL), (5, 6, CELL), (7, 8, NUCLEUS), (9, 10, CELL), (11, 12, CELL), (20, 30, CELL)]
    asked = predicted(services, studio, *guessed)
    painted = np.zeros(SHAPE, np.uint8)
    painted[20:22, 30:32] = 1
    kept, changed, moved, _deleted, repeated, covered = points(*guessed)
    changed = {**points((5, 6, NUCLEUS))[0], "id": changed["id"], "origin": "prediction-changed"}
    moved = {**points((8, 8, NUCLEUS))[0], "id": moved["id"], "origin": "prediction-changed"}
    repeated = {**repeated, "origin": "prediction-changed"}
    stroke = region(painted, "nucleus")
    studio.annotate(1, [kept, changed, moved, repeated, covered, stroke], parent_prediction=asked)
    studio.annotate(2, points((3, 4, CELL), origin="manual"))
    synced(services)
    assert (stored(services).guesses, stored(services).right_guesses) == (4, 2)
    assert stored(services).points == 4, "that under the stroke is answered by the stroke"
    assert (stored(services, 2).points, stored(services, 2).guesses) == (1, 0)


def test_guesses_are_known_by_what_is_kept_where_they_were_hidden_or_the_prediction_is_gone(
    services: Services, studio: MemoryStudio
) -> None:
    guessed = np.full(SHAPE, IGNORE_INDEX, np.uint8)
    guessed[3, 4], guessed[5, 6] = CELL, NUCLEUS
    asked = predicted(services, studio, (3, 4, CELL), (5, 6, CELL))
    for point in studio.predictions[-1]["result"]:
        del point["value"]["keypointlabels"]
    services.store.put_published(PROJECT, VERSION, [(1, 0.5, masks.png_bytes(guessed))])
    studio.annotate(1, points((3, 4, CELL), (5, 6, CELL), origin="prediction-changed"), parent_prediction=asked)
    synced(services)
    assert (stored(services).guesses, stored(services).right_guesses) == (2, 1)
    studio.predictions.clear()
    services.store.update_project(PROJECT, labels_digest="")
    synced(services)
    assert (stored(services).guesses, stored(services).right_guesses) == (2, 1)


def test_right_guesses_are_no_labels_that_were_submitted_unchanged(services: Services, studio: MemoryStudio) -> None:
    for task_id in range(1, 5):
        asked = predicted(services, studio, *[(row, 4, CELL) for row in range(1, 31, 3)], task_id=task_id)
        answers = points(*[(row, 4, CELL) for row in range(1, 31, 3)])
        studio.annotate(task_id, answers, parent_prediction=asked, completed_by=1)
    synced(services)
    status = project_status(services.settings, services.store, PROJECT)
    assert (status.unchanged.shown, status.unchanged.unchanged, status.unchanged.warning) == (0, 0, "")
    assert status.points is not None
    assert status.points.guesses == Guesses(40, 40)


def test_points_that_cannot_be_used_are_told_and_the_others_count(services: Services, studio: MemoryStudio) -> None:
    asked = predicted(services, studio, (3, 4, CELL), (5, 6, CELL))
    good, strange = points((3, 4, CELL), (5, 6, CELL))
    strange["value"] = {**strange["value"], "keypointlabels": ["nose"]}
    studio.annotate(1, [good, strange], parent_prediction=asked)
    studio.annotate(2, [strange], parent_prediction=predicted(services, studio, (1, 1, CELL), task_id=2))
    synced(services)
    assert labelled(services, stored(services)) == {(3, 4): CELL}
    assert "its label 'nose' is no class of BrushLabels 'tag'" in stored(services).error
    assert (stored(services, 2).status, stored(services, 2).mask_file) == ("broken", "")
    assert "its label 'nose' is no class" in stored(services, 2).error


def test_everything_that_can_be_wrong_with_points_at_once_and_no_answer_is_lost(
    services: Services, studio: MemoryStudio
) -> None:
    """Another task of the same look is read as always."""
    guessed = [(row, 4, CELL) for row in (3, 5, 7, 9, 11, 13, 15, 17)]
    asked = predicted(services, studio, *guessed)
    kept, relabelled, moved, _deleted, outside, unknown, unanswered, twofold = points(*guessed)

    def changed(point: Json, **value: Any) -> Json:
        return {**point, "origin": "prediction-changed", "value": {**point["value"], **value}}

    relabelled = changed(relabelled, keypointlabels=["nucleus"])
    moved = changed(moved, x=100.0, y=100.0)
    outside = changed(outside, x=120.0)
    unknown = changed(unknown, keypointlabels=["nose"])
    unanswered["value"].pop("keypointlabels")
    twofold = changed(twofold, keypointlabels=["cell", "nucleus"])
    added = {**points((20, 20, CELL), origin="manual")[0], "id": "added"}
    again = {**points((20, 20, NUCLEUS), origin="manual")[0], "id": "again"}
    nonsense = [None, "text", {"type": "keypointlabels", "from_name": "points", "value": {"x": "left"}}]
    result = [kept, relabelled, moved, outside, unknown, unanswered, twofold, added, again, *nonsense]
    studio.annotate(1, result, parent_prediction=asked, lead_time=30.0)  # type: ignore[arg-type]
    studio.label(2)
    synced(services)
    found = stored(services)
    assert found.status == "labelled"
    assert labelled(services, found) == {(3, 4): CELL, (5, 4): NUCLEUS, (31, 39): CELL, (20, 20): NUCLEUS}
    for said in ("it lies outside of the image, at 120 %", "its label 'nose' is no class", "it was not answered"):
        assert said in found.error
    assert (found.points, found.guesses, found.right_guesses) == (4, 2, 1)
    assert (stored(services, 2).status, stored(services, 2).error) == ("labelled", "")
    assert np.array_equal(mask_of(services, stored(services, 2)), disc(1)[1])


def test_a_task_of_points_that_comes_back_empty_is_no_image_of_background(
    services: Services, studio: MemoryStudio
) -> None:
    studio.annotate(1, [], parent_prediction=predicted(services, studio, (3, 4, CELL)))
    predicted(services, studio, (3, 4, CELL), task_id=2)
    studio.annotate(2, [])  # nothing says what was shown, but points were asked for
    studio.annotate(3, [])  # here nobody asked for any
    synced(services)
    for task_id in (1, 2):
        assert stored(services, task_id).status == "broken"
        assert "labels nothing: it was to say the class of points, and has none" in stored(services, task_id).error
    assert (stored(services, 3).status, stored(services, 3).boxes) == ("labelled", "")


# -- beside masks and regions ----------------------------------------------------------------------------------------
def test_a_mask_drawn_where_points_were_asked_labels_what_it_covers(services: Services, studio: MemoryStudio) -> None:
    truth = np.zeros(SHAPE, np.uint8)
    truth[20:24, 30:34] = 1
    asked = predicted(services, studio, (3, 4, CELL), (21, 31, NUCLEUS))
    studio.annotate(1, [*points((3, 4, CELL), (21, 31, NUCLEUS)), region(truth)], parent_prediction=asked)
    synced(services)
    found = labelled(services, stored(services))
    assert len(found) == 1 + 16
    assert found[3, 4] == CELL
    assert found[21, 31] == CELL, "the mask is newer than the guess"
    assert stored(services).boxes


def test_a_mask_drawn_where_none_were_asked_is_the_whole_image(services: Services, studio: MemoryStudio) -> None:
    truth = disc(0)[1]
    studio.annotate(1, [region(truth), *points((0, 0, NUCLEUS), origin="manual")])
    predicted(services, studio, (3, 4, CELL), task_id=2)
    studio.annotate(2, [region(disc(1)[1])])  # imported, say: its annotator saw no points
    synced(services)
    expected = truth.copy()
    expected[0, 0] = NUCLEUS
    assert stored(services).boxes == ""
    assert np.array_equal(mask_of(services, stored(services)), expected)
    assert np.array_equal(mask_of(services, stored(services, 2)), disc(1)[1])


def test_points_count_outside_of_rectangles_too(services: Services, studio: MemoryStudio) -> None:
    box, truth = Box(0, 0, 16, 16), disc(0)[1]
    studio.annotate(1, [region(truth), *write_rectangles([box], LABELS, SHAPE), *points((30, 30, NUCLEUS))])
    synced(services)
    expected = np.full(SHAPE, IGNORE_INDEX, np.uint8)
    expected[box.slices] = truth[box.slices]
    expected[30, 30] = NUCLEUS
    assert np.array_equal(mask_of(services, stored(services)), expected)
    assert boxes_from_text(stored(services).boxes) == (box, Box.point(30, 30))


def test_answers_of_several_annotators_are_voted_on_where_they_answered(
    services: Services, studio: MemoryStudio
) -> None:
    asked = predicted(services, studio, (3, 4, CELL), (5, 6, CELL))
    for annotator, answers in enumerate([[(3, 4, CELL)], [(3, 4, NUCLEUS), (5, 6, NUCLEUS)], [(3, 4, CELL)]]):
        studio.annotate(1, points(*answers), parent_prediction=asked, completed_by=annotator)
    synced(services, several_annotations="majority")
    assert labelled(services, stored(services)) == {(3, 4): CELL, (5, 6): NUCLEUS}
    assert set(boxes_from_text(stored(services).boxes)) == {Box.point(3, 4), Box.point(5, 6)}


def test_points_correct_the_older_annotations_of_their_task(services: Services, studio: MemoryStudio) -> None:
    truth = disc(0)[1]
    studio.label(1, completed_by=1)
    studio.annotate(1, points((0, 0, NUCLEUS), (1, 1, CELL), origin="manual"), completed_by=2)
    studio.annotate(1, points((1, 1, NUCLEUS), origin="manual"), completed_by=3)
    studio.annotate(2, points((3, 4, CELL), origin="manual"), completed_by=1)
    studio.annotate(2, [{**region(truth), "to_name": "picture"}], completed_by=2)
    studio.annotate(2, points((5, 6, CELL), origin="manual"), completed_by=3)
    studio.annotate(3, points((0, 0, NUCLEUS), origin="manual"), completed_by=1)
    studio.label(3, completed_by=2)
    synced(services)
    corrected = truth.copy()
    corrected[0, 0] = corrected[1, 1] = NUCLEUS
    assert np.array_equal(mask_of(services, stored(services, 1)), corrected)
    assert (stored(services, 1).boxes, stored(services, 1).regions, stored(services, 1).annotation_id) == ("", 1, 3)
    assert labelled(services, stored(services, 2)) == {(3, 4): CELL, (5, 6): CELL}, "what cannot be read hides nothing"
    alone = mask_of(services, stored(services, 3))
    assert np.array_equal(alone, disc(2)[1]), "a newer mask of the whole image stands alone"


# -- questions that follow -------------------------------------------------------------------------------------------
def test_what_was_answered_is_known_to_the_next_round(services: Services, studio: MemoryStudio) -> None:
    (copy,) = studio.import_tasks(PROJECT, [{"data": studio.items[1]["data"]}])
    asked = predicted(services, studio, (3, 4, CELL), (5, 6, CELL))
    studio.annotate(1, points((3, 4, CELL), (5, 6, CELL)), parent_prediction=asked)
    studio.annotate(copy, points((5, 6, NUCLEUS), (7, 8, NUCLEUS), origin="manual"))
    synced(services)
    tasks = [one for one in services.store.tasks(PROJECT) if one.image == stored(services).image]
    (candidate,) = candidates(tasks, in_parts=True)
    assert {(box.top, box.left) for box in candidate.asked} == {(3, 4), (5, 6), (7, 8)}
    known = merged_mask(services.files, candidate.parts) != IGNORE_INDEX
    assert set(zip(*(axis.tolist() for axis in known.nonzero()), strict=True)) == {(3, 4), (5, 6), (7, 8)}
    assert merged_mask(services.files, parts_of(tasks))[5, 6] == NUCLEUS, "the newest answer counts"


def test_a_question_is_open_until_one_of_its_pixels_is_labelled(services: Services, studio: MemoryStudio) -> None:
    studio.annotate(1, points((3, 4, CELL), origin="manual"))
    synced(services)
    tasks = services.store.tasks(PROJECT)

    def waits(*boxes: Box) -> bool:
        return bool(pending(tasks, {1: Query(boxes)}, ()))

    assert waits(Box.point(9, 9), Box.point(20, 20))
    assert not waits(Box.point(9, 9), Box.point(3, 4))
    assert waits(Box(0, 0, 16, 16)), "a region with an answered point in it is not labelled"


# -- what is shown ---------------------------------------------------------------------------------------------------
ASKED = Query((Box.point(3, 4), Box.point(31, 39)), 2.0)


def ranked(services: Services, queries: dict[int, Query]) -> None:
    entries = {one.task_id: 1 - one.task_id / 100 for one in services.store.tasks(PROJECT)}
    services.store.put_ranking(PROJECT, entries, queries, ranking_version=VERSION, ranking_key="key")


def published(services: Services, studio: MemoryStudio, renderer: MaskRenderer) -> dict[int, list[Json]]:
    queue = PriorityQueue(services.client, services.store, PROJECT, check=nothing)
    options = {"window": 10, "refill": 0.5, "progress": nothing}
    queue.publish(VERSION, lambda _: services.store.ranked(PROJECT), renderer.render, **options)
    return {row["task"]: row["result"] for row in studio.predictions}


def test_a_task_that_asks_for_points_shows_them_alone_as_the_network_guesses(
    services: Services, studio: MemoryStudio
) -> None:
    synced(services)
    ranked(services, {1: ASKED})
    renderer = renderer_of(services, services.checkpoints(PROJECT).get(1), LABELS)
    (whole,) = renderer.show([stored(services).image])
    assert isinstance(whole, Shown)
    assert whole.png is not None
    predicted_mask = masks.mask_from_png(whole.png)
    rows = published(services, studio, renderer)
    answers, problems = read_points(rows[1], LABELS, SHAPE)
    assert problems == ()
    assert answers == tuple(Answer(*at, int(predicted_mask[at])) for at in ((3, 4), (31, 39)))
    assert {region["type"] for region in rows[1]} == {"keypointlabels"}
    assert {region["type"] for region in rows[2]} == {"brushlabels"}
    kept = services.store.published_mask(PROJECT, VERSION, 1)
    assert kept is not None
    assert (masks.mask_from_png(kept) != IGNORE_INDEX).sum() == 2
    assert services.store.published_queries(PROJECT) == {(1, VERSION): ASKED}
    # answered as it was shown
    result = [{**region, "origin": "prediction"} for region in rows[1]]
    parent = next(row["id"] for row in studio.predictions if row["task"] == 1)
    studio.annotate(1, result, parent_prediction=parent)
    synced(services)
    assert labelled(services, stored(services)) == {(answer.row, answer.column): answer.index for answer in answers}
    assert (stored(services).effort, stored(services).masked, stored(services).shown_version) == (2, True, VERSION)
    assert stored(services).unchanged is None, "guesses that were right are no mask that nobody looked at"


def test_before_there_is_a_network_points_are_asked_without_a_guess(services: Services, studio: MemoryStudio) -> None:
    studio.add_task(9)
    studio.items[5]["data"]["image"] = BROKEN
    synced(services)
    ranked(services, {1: ASKED, 5: ASKED})
    rows = published(services, studio, renderer_of(services, None, LABELS))
    assert [region["value"].get("keypointlabels") for region in rows[1]] == [None, None]
    assert read_points(rows[1], LABELS, SHAPE)[0] == ()
    assert rows[2] == []
    assert 5 not in rows
    assert stored(services, 5).error


def test_without_a_points_control_none_are_shown(services: Services) -> None:
    synced(services)
    ranked(services, {1: ASKED, 2: Query((Box(0, 0, 16, 16),))})
    version = services.checkpoints(PROJECT).get(1)
    assert set(renderer_of(services, version, LABELS).queries) == {1, 2}
    assert set(renderer_of(services, version, parse_label_config(with_query_control(XML))).queries) == {2}
    assert set(renderer_of(services, version, parse_label_config(with_points_control(XML))).queries) == {1}


def test_a_prediction_on_demand_shows_the_same_points(services: Services, studio: MemoryStudio) -> None:
    synced(services)
    ranked(services, {1: ASKED})
    model = NextmaskModel(services, str(PROJECT), POINTS_XML)
    (answer,) = model.predict([{**studio.items[1], "project": PROJECT}])
    (rendered,) = renderer_of(services, services.checkpoints(PROJECT).get(1), LABELS).render([stored(services)])
    assert answer["result"] == list(rendered.regions)
    assert services.store.published_queries(PROJECT) == {(1, VERSION): ASKED}


def test_masks_that_follow_show_what_was_drawn_and_no_holes_of_answers(
    services: Services, studio: MemoryStudio
) -> None:
    drawn = np.zeros(SHAPE, np.uint8)
    drawn[20:28, 20:28] = 1
    asked = predicted(services, studio, (3, 4, NUCLEUS))
    studio.annotate(1, [*points((3, 4, NUCLEUS)), region(drawn, "nucleus")], parent_prediction=asked)
    (copy,) = studio.import_tasks(PROJECT, [{"data": studio.items[1]["data"]}])
    synced(services)
    renderer = renderer_of(services, services.checkpoints(PROJECT).get(1), LABELS)
    (rendered,) = renderer.render([stored(services, copy)])
    assert rendered.png is not None
    mask = masks.mask_from_png(rendered.png)
    assert (mask[20:28, 20:28] == NUCLEUS).all()
    assert mask[3, 4] == mask[3, 5]


def test_a_question_that_is_open_gets_a_task_of_its_own(services: Services, studio: MemoryStudio) -> None:
    studio.annotate(1, points((9, 9, CELL), origin="manual"))
    synced(services)
    ranked(services, {1: ASKED})
    follow_up(Look(services, PROJECT, LABELS))
    (made,) = [item for item in studio.items.values() if item["data"].get("nextmask_follow_up") == 1]
    renderer = renderer_of(services, services.checkpoints(PROJECT).get(1), LABELS)
    assert renderer.queries == {made["id"]: ASKED}
