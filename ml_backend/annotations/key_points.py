"""Key points <-> answers: the class of single pixels.

Points are regions of the points control, which annotators move, relabel, add and delete. Coordinates are percent of the
image; a point is an answer about the pixel that it lies in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ml_backend.annotations.boxes import Box
from ml_backend.annotations.fields import number_in
from ml_backend.annotations.label_map import LabelMap
from ml_backend.annotations.regions import Region, is_point, sort_out
from ml_backend.annotations.sizes import check_size
from ml_backend.errors import MaskError, MaskWithoutArea, first_few

_LARGEST = 1e7
"""Largest coordinate, in percent: nobody can move a point farther outside."""
_ROUNDING = 1e-6
"""Fraction of a pixel by which a coordinate may be off after the editor rounded its percentage."""
_DIAMETER: Final = 0.8
"""Of points that are written, in percent of the image's width."""
_POINT, _AUDIT_POINT = "point-", "audit-"
"""What the ids of points begin with that are written: of those that were drawn to measure with, too."""
_CONTRADICTION = (
    "another point says another class of its pixel, and the later one counts, which is this one: delete the one that is"
    " wrong"
)
_UNTOUCHED = "prediction"
"""The `origin` of regions that are as they were predicted."""


@dataclass(frozen=True, order=True)
class Answer:
    """The class of a pixel, as a person says it.

    Attributes:
        row, column: of the pixel in the image.
        index: its class.
    """

    row: int
    column: int
    index: int

    @property
    def box(self) -> Box:
        """The pixel as what is labelled of the image."""
        return Box.point(self.row, self.column)


@dataclass(frozen=True)
class Guess:
    """A pixel whose class is asked for, and the class that is predicted there.

    Attributes:
        row, column: of the pixel in the image.
        index: the predicted class; None where it is not to be shown, or nothing predicts one.
        score: how sure that is, in [0, 1]; None: not said.
    """

    row: int
    column: int
    index: int | None = None
    score: float | None = None


class Answers:
    """The answers of a result, while its regions are gone through in their order.

    Of several at one pixel the last counts, which is the newest, as of all regions. Only a guess that nobody touched is
    as old as the prediction, wherever it stands, and gives way to what a person said.

    Args:
        size: (height, width) of the image in pixels.

    Attributes:
        problems: which points contradict others that a person answered.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self._size = size
        self.problems: list[str] = []
        self._index: dict[tuple[int, int], int] = {}
        self._touched = set[tuple[int, int]]()

    def add(self, region: Region) -> Answer | None:
        """Take a point that can be used; return its answer, or None where another one counts at its pixel.

        Raises:
            MaskError: it does not say where in the image it is.
        """
        place = pixel_of(region, self._size)
        touched = region.entry.get("origin") != _UNTOUCHED
        if region.index is None or (place in self._touched and not touched):
            return None
        if place in self._touched and self._index[place] != region.index:
            self.problems.append(region.described(_CONTRADICTION))
        self._index[place] = region.index
        if touched:
            self._touched.add(place)
        return Answer(*place, region.index)

    def taken(self) -> tuple[Answer, ...]:
        """Return the answers, one for each pixel, in the order in which their pixels came first."""
        return tuple(Answer(row, column, index) for (row, column), index in self._index.items())


def pixel_of(region: Region, size: tuple[int, int]) -> tuple[int, int]:
    """Return (row, column) of the pixel that a point lies in. One on the right or lower border is in the last pixel.

    Args:
        size: (height, width) of the image in pixels.

    Raises:
        MaskWithoutArea: its coordinates are no numbers, or outside of the image.
        MaskError: it was placed in an image that lies on its side.
    """
    check_size(region.entry, size)
    try:
        x, y = (number_in(region.value, key, -_LARGEST, _LARGEST) for key in ("x", "y"))
    except MaskError as error:  # it says nothing about any pixel
        raise MaskWithoutArea(str(error)) from error
    height, width = size
    column, row = x / 100 * width, y / 100 * height
    if not (-_ROUNDING <= column <= width + _ROUNDING and -_ROUNDING <= row <= height + _ROUNDING):
        raise MaskWithoutArea(f"it lies outside of the image, at {x:g} % of its width and {y:g} % of its height")
    return min(max(int(row), 0), height - 1), min(max(int(column), 0), width - 1)


def read_points(
    result: Sequence[object], label_map: LabelMap, size: tuple[int, int]
) -> tuple[tuple[Answer, ...], tuple[str, ...]]:
    """Return the answers that the points of a result give, and why other points cannot be used.

    Args:
        result: of an annotation or a prediction.
        size: (height, width) of the image in pixels.
    """
    answers, problems = Answers(size), list[str]()
    for region in sort_out(result, label_map).drawn:
        if not region.is_point:
            continue
        problem = region.problem
        if not problem:
            try:
                answers.add(region)
            except MaskError as error:
                problem = str(error)
        if problem:
            problems.append(region.described(problem))
    return answers.taken(), tuple(first_few([*problems, *answers.problems]))


def has_points(result: Sequence[object], label_map: LabelMap) -> bool:
    """Whether a result has points of the points control, usable or not."""
    return any(is_point(region, label_map) for region in result)


def was_predicted(result: Sequence[object], label_map: LabelMap) -> bool:
    """Whether an annotation has points that were shown to its annotator, moved and relabelled or not."""
    shown = ("prediction", "prediction-changed")
    points = (region for region in result if isinstance(region, Mapping) and is_point(region, label_map))
    return any(point.get("origin") in shown for point in points)


def is_audit_point(region: object) -> bool:
    """Whether a region is a point that was drawn to measure with, and shown without a class."""
    if not isinstance(region, Mapping) or not str(region.get("type")).startswith("keypoint"):
        return False
    return str(region.get("id")).startswith(_AUDIT_POINT)


def write_points(
    guesses: Iterable[Guess], label_map: LabelMap, size: tuple[int, int], *, for_audit: bool = False
) -> list[dict[str, Any]]:
    """Return points as regions of a prediction, each at the centre of its pixel; `read_points` returns the same pixels.

    A class that the points control has no label for is not written: Label Studio would refuse all of the prediction.

    Args:
        guesses: inside the image.
        label_map: of a configuration with a points control; otherwise nothing is written.
        size: (height, width) of the image in pixels.
        for_audit: they were drawn to measure with: `is_audit_point` tells, even where nothing else is left of them.
    """
    control, (height, width) = label_map.points_control, size
    if control is None:
        return []
    regions = []
    for number, guess in enumerate(guesses):
        label = None if guess.index is None else label_map.spelling(control, guess.index)
        value = {
            "x": (guess.column + 0.5) / width * 100,
            "y": (guess.row + 0.5) / height * 100,
            "width": _DIAMETER,
            **({} if label is None else {"keypointlabels": [label]}),
        }
        region = {
            "id": f"{_AUDIT_POINT if for_audit else _POINT}{number}",
            "from_name": control.name,
            "to_name": control.to_name,
            "type": "keypointlabels",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": value,
        }
        regions.append(region if guess.score is None or label is None else {**region, "score": guess.score})
    return regions
