"""What answers to points took, beside masks, and how many of the guesses that the network made at them were right."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ml_backend.label_studio.predictions import model_number
from ml_backend.store import Label


@dataclass(frozen=True)
class Effort:
    """What a kind of answer takes.

    Attributes:
        labels: that it is known of.
        clicks: mean of one answer; None where effort is not counted in clicks, or of none it is known.
        seconds: median over the labels, of one answer, since a tab that stays open over lunch says nothing; None where
            Label Studio tells none.
    """

    labels: int
    clicks: float | None
    seconds: float | None

    @property
    def words(self) -> str:
        """Both in words; empty where neither is known."""
        clicks = "" if self.clicks is None else f"{self.clicks:.1f} clicks"
        seconds = "" if self.seconds is None else f"{self.seconds:.1f} s"
        return " and ".join(filter(None, (clicks, seconds)))


@dataclass(frozen=True)
class Guesses:
    """Guesses at points that were answered.

    Attributes:
        answered: how many. right: those of them that the answer repeats.
    """

    answered: int
    right: int

    @property
    def share(self) -> float:
        """Right of answered."""
        return self.right / self.answered

    @property
    def words(self) -> str:
        """Both numbers and the share."""
        return f"{self.right} of {self.answered} ({100 * self.share:.0f} %)"


@dataclass(frozen=True)
class PointsReport:
    """The labels of points of a project.

    Attributes:
        answers: how many points were answered.
        point: what an answer takes. mask: what the mask of a whole image takes.
        guesses: of all versions; None where no answered point had one.
        version: number of the newest version with guesses that were answered; 0: none. its_guesses: those.
    """

    answers: int
    point: Effort
    mask: Effort
    guesses: Guesses | None
    version: int
    its_guesses: Guesses | None

    @property
    def sentences(self) -> tuple[str, ...]:
        """The report in words."""
        took = f", {self.point.words} each" if self.point.words else ""
        beside = f"; a whole mask takes {self.mask.words}" if self.mask.words else ""
        told = f"Points: {_count(self.answers, 'answer')} in {_count(self.point.labels, 'label')}{took}{beside}."
        if self.guesses is None or self.its_guesses is None:
            return (told,)
        newest = "" if self.guesses == self.its_guesses else f"; of version {self.version}, {self.its_guesses.words}"
        return (told, f"Guesses at points that the answers found right: {self.guesses.words}{newest}.")


def points_report(labels: Sequence[Label], measure: str) -> PointsReport | None:
    """Report on the labels of points; None where there are none.

    Args:
        labels: all of a project.
        measure: clicks or seconds, what their effort is counted in.
    """
    of_points = [label for label in labels if label.points and not label.whole]
    if not of_points:
        return None
    masks = [label for label in labels if label.whole]
    guessed = [label for label in of_points if label.guesses]
    newest = max((model_number(label.shown_version) for label in guessed), default=0)
    return PointsReport(
        answers=sum(label.points for label in of_points),
        point=_effort([(label, label.points) for label in of_points], measure),
        mask=_effort([(label, 1) for label in masks], measure),
        guesses=_guesses(guessed),
        version=newest,
        its_guesses=_guesses([label for label in guessed if model_number(label.shown_version) == newest]),
    )


def _effort(answers: Sequence[tuple[Label, int]], measure: str) -> Effort:
    counted = [(label.effort, number) for label, number in answers if label.effort is not None]
    seconds = [label.lead_time / number for label, number in answers if label.lead_time is not None]
    is_known = bool(counted) and measure == "clicks"
    return Effort(
        labels=len(answers),
        clicks=sum(effort for effort, _ in counted) / sum(number for _, number in counted) if is_known else None,
        seconds=statistics.median(seconds) if seconds else None,
    )


def _guesses(labels: Sequence[Label]) -> Guesses | None:
    answered = sum(label.guesses for label in labels)
    return Guesses(answered, sum(label.right_guesses for label in labels)) if answered else None


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
