"""Pictures of what each strategy chose first: the images of round 1, what was labelled of them, and the true masks.

They are drawn from the files of choices, so at any time, also while other runs are under way.
"""

from __future__ import annotations

import colorsys
import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ml_backend.annotations.boxes import Box
from ml_backend.annotations.label_map import IGNORE_INDEX
from ml_backend.annotations.mending import Mask
from ml_backend.datasets import Dataset, Sample
from ml_backend.images.decoding import load_image
from ml_backend.learning.networks import fit_size
from ml_backend.simulation.checks import splits
from ml_backend.simulation.choices import Choices
from ml_backend.simulation.labels import Pick, Pixel, places_of
from ml_backend.simulation.material import background_of
from ml_backend.simulation.plan import Contender, Plan
from ml_backend.simulation.processes import work_folder
from ml_backend.simulation.report.names import file_name
from ml_backend.simulation.results import FULL

SIDE = 320
"""Longer side of a picture in pixels; smaller images keep their size."""
_MOST = 8
"""Number of pictures of a strategy."""
_DIMMED = 0.35
"""Brightness of what was not labelled."""
_WINDOW = (255, 255, 255)
_DOT = 2
_FIRST_ROUND = 1

Colour = tuple[int, int, int]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class _Shrunk:
    """An image (h,w,3) RGB and its mask (h,w) as they are drawn, and the size (H,W) of the original."""

    pixels: Pixels
    mask: Mask
    size: tuple[int, int]


def draw_first_choices(plan: Plan, dataset: Dataset, folder: Path) -> int:
    """Draw what the strategies of a plan chose in round 1, with the smallest seed that has got so far.

    Args:
        folder: of the results. Pictures are `pictures/<dataset>/<strategy>/<nn>.png` in it, with names as
            `report.names.file_name` gives them, in the order of the ranking; earlier pictures are replaced.

    Returns:
        The number of pictures.

    Raises:
        ConfigurationError: an image or a mask cannot be read any more.
        OSError: a picture cannot be written.
    """
    pool, _ = splits(plan, dataset)
    colours, background = _colours(dataset), background_of(dataset)
    shrunk = functools.cache(lambda number: _shrunk(dataset, pool[number]))
    drawn = 0
    for contender in plan.strategies:
        picks = first_picks(plan, contender, work_folder(folder, dataset, plan))
        if picks:
            own = folder / "pictures" / file_name(dataset.name) / file_name(contender.label)
            drawn += _save(own, _drawn(picks, shrunk, colours, background))
    return drawn


def first_picks(plan: Plan, contender: Contender, folder: Path) -> tuple[Pick, ...]:
    """Return the first picks of round 1, with the smallest seed that has any; none before round 1 is chosen.

    Args:
        folder: see `processes.work_folder`.
    """
    if contender.name == FULL:
        return ()
    for seed in sorted(plan.seeds):
        choices = Choices(folder, contender, seed).read()
        if len(choices) > _FIRST_ROUND:
            return choices[_FIRST_ROUND].picks[:_MOST]
    return ()


def picture(
    pixels: Pixels,
    mask: Mask,
    boxes: Sequence[Box] = (),
    points: Sequence[Pixel] = (),
    *,
    size: tuple[int, int],
    colours: Sequence[Colour],
    background: int | None = None,
) -> Pixels:
    """Draw an image with outlines of its true mask; what was not labelled is dimmed, windows are framed.

    Args:
        pixels: (h,w,3) uint8 RGB.
        mask: (h,w) uint8 class indices; 255 is not outlined.
        boxes: labelled parts, in pixels of the original; neither these nor points: all of the image.
        points: labelled pixels of the original, shown as dots.
        size: (H,W) of the original.
        colours: class index -> RGB.
        background: a class that is not outlined, or None.

    Returns:
        (h,w,3) uint8 RGB.
    """
    corners = [box.corners_in_picture(size, (pixels.shape[0], pixels.shape[1])) for box in boxes]
    shown = pixels if not boxes else _dimmed(pixels, corners)
    shown = np.ascontiguousarray(shown).copy()
    for value in np.unique(mask):
        if value not in (IGNORE_INDEX, background):
            contours, _ = cv2.findContours((mask == value).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(shown, contours, -1, colours[value], 1)
    for left, top, right, bottom in corners:
        cv2.rectangle(shown, (left, top), (right, bottom), _WINDOW, 1)
    rows, columns = places_of(points, size, (pixels.shape[0], pixels.shape[1]))
    for place in zip(columns.tolist(), rows.tolist(), strict=True):
        cv2.circle(shown, place, _DOT, _WINDOW, -1)
    return shown


def _dimmed(pixels: Pixels, corners: Iterable[tuple[int, int, int, int]]) -> Pixels:
    labelled = np.zeros(pixels.shape[:2], np.bool_)
    for left, top, right, bottom in corners:
        labelled[top : bottom + 1, left : right + 1] = True
    dark = (pixels * _DIMMED).astype(np.uint8)
    return np.where(labelled[..., None], pixels, dark)


def _drawn(
    picks: Iterable[Pick], shrunk: Callable[[int], _Shrunk], colours: Sequence[Colour], background: int | None
) -> list[Pixels]:
    drawn = []
    for pick in picks:
        image = shrunk(pick.number)
        drawn.append(
            picture(
                image.pixels,
                image.mask,
                pick.boxes,
                pick.points,
                size=image.size,
                colours=colours,
                background=background,
            )
        )
    return drawn


def _shrunk(dataset: Dataset, sample: Sample) -> _Shrunk:
    image, mask = load_image(sample.image), dataset.read_mask(sample)
    height, width = fit_size(mask.shape[0], mask.shape[1], SIDE)
    return _Shrunk(
        np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8),
        np.asarray(cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8),
        (mask.shape[0], mask.shape[1]),
    )


def _save(folder: Path, pictures: Sequence[Pixels]) -> int:
    """Write pictures, remove others of an earlier call, and return their number."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{number:02d}.png" for number in range(1, len(pictures) + 1)]
    for name, pixels in zip(names, pictures, strict=True):
        Image.fromarray(pixels).save(folder / name)
    for file in folder.glob("*.png"):
        if file.name not in names:
            file.unlink()
    return len(names)


def _colours(dataset: Dataset) -> tuple[Colour, ...]:
    """Return the classes' colours, with hues around the circle where the data set names none."""
    if dataset.palette is not None:
        return dataset.palette
    count = len(dataset.classes)
    return tuple(_hue(index / count) for index in range(count))


def _hue(share: float) -> Colour:
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(share, 0.85, 1.0))
    return red, green, blue
