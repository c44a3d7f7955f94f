"""What answers to points took, and how many guesses were right, in numbers and in words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from wiring import PROJECT, task_of

from ml_backend.projects.points_report import Effort, Guesses, points_report
from ml_backend.projects.services import Services
from ml_backend.projects.status import project_status
from ml_backend.store import Label

POINTS = Label(1, 12.0, None, whole=False, effort=10.0, points=10)
MASK = Label(9, 60.0, 0.5, effort=40.0)


def test_it_says_what_points_and_masks_take() -> None:
    slow = replace(POINTS, task_id=2, lead_time=3600.0, effort=4.0, points=4)
    unknown = replace(POINTS, task_id=3, lead_time=None, effort=None, points=1)
    quick = replace(POINTS, task_id=4, lead_time=20.0, effort=10.0)
    report = points_report([POINTS, slow, unknown, quick, MASK, replace(MASK, lead_time=80.0, effort=60.0)], "clicks")
    assert report is not None
    assert report.answers == 25
    assert report.point == Effort(4, 1.0, 2.0), "the median of 1.2, 900 and 2 s"
    assert report.mask == Effort(2, 50.0, 70.0)
    assert report.sentences == (
        "Points: 25 answers in 4 labels, 1.0 clicks and 2.0 s each; a whole mask takes 50.0 clicks and 70.0 s.",
    )


def test_effort_in_seconds_is_no_number_of_clicks() -> None:
    report = points_report([POINTS], "seconds")
    assert report is not None
    assert report.sentences == ("Points: 10 answers in 1 label, 1.2 s each.",)
    assert report.mask == Effort(0, None, None)


def test_it_says_what_share_of_the_guesses_was_right_of_the_newest_version_too() -> None:
    first = replace(POINTS, shown_version="nextmask-1.4", guesses=10, right_guesses=4)
    second = replace(POINTS, shown_version="nextmask-2.5", guesses=8, right_guesses=7)
    without = replace(POINTS, shown_version="nextmask-3.6")
    report = points_report([first, second, without], "clicks")
    assert report is not None
    assert (report.guesses, report.version, report.its_guesses) == (Guesses(18, 11), 2, Guesses(8, 7))
    assert report.sentences[1] == (
        "Guesses at points that the answers found right: 11 of 18 (61 %); of version 2, 7 of 8 (88 %)."
    )
    alone = points_report([first], "clicks")
    assert alone is not None
    assert alone.sentences[1] == "Guesses at points that the answers found right: 4 of 10 (40 %)."


def test_without_labels_of_points_there_is_none() -> None:
    key_points = replace(MASK, points=3)  # beside the mask of a whole image
    assert points_report([MASK, key_points], "clicks") is None
    assert points_report([], "clicks") is None


def test_status_tells(services: Services) -> None:
    services.store.wake(PROJECT)
    answers: dict[str, Any] = {
        "status": "labelled",
        "boxes": "[[3, 4], [5, 6]]",
        "lead_time": 5.0,
        "effort": 2.0,
        "points": 2,
    }
    guesses: dict[str, Any] = {"shown_version": "nextmask-1.1", "guesses": 2, "right_guesses": 1}
    services.store.put_tasks([task_of(1, **answers, **guesses)])
    status = project_status(services.settings, services.store, PROJECT)
    assert status.points is not None
    assert status.points.sentences == (
        "Points: 2 answers in 1 label, 1.0 clicks and 2.5 s each.",
        "Guesses at points that the answers found right: 1 of 2 (50 %).",
    )
    assert status.as_json()["points"]["guesses"] == {"answered": 2, "right": 1}
