"""Suggestions: what a smart tool answers with, as regions that mend those that are drawn already.

A region of the same id takes the place of the one that is drawn when a person accepts it, so a suggestion can shrink a
mask; a region of another id is added, and painted over all others. What no prompt touches stays as it is drawn.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ml_backend.annotations import masks, shapes
from ml_backend.annotations.label_map import Control, LabelMap
from ml_backend.annotations.prompts import DrawnPrompt
from ml_backend.annotations.regions import Region, sort_out
from ml_backend.annotations.sizes import check_size
from ml_backend.errors import MaskError

Pixels = NDArray[np.bool_]

_WRITABLE: Final = ("BrushLabels", "BitmaskLabels", "PolygonLabels")


class Drawn:
    """What is drawn of an image while a smart tool is used.

    Args:
        result: of a draft, an annotation or a prediction; what cannot be read in it is left out.
        size: (height, width) of the image in pixels.
    """

    def __init__(self, result: Sequence[object], label_map: LabelMap, size: tuple[int, int]) -> None:
        self._label_map, self._size = label_map, size
        self._regions = [
            (region, pixels)
            for region in sort_out(result, label_map).drawn
            if not region.problem and not region.is_point and (pixels := _pixels(region, size)) is not None
        ]
        self.ids = frozenset(str(entry.get("id")) for entry in result if isinstance(entry, Mapping))

    def seen(self, index: int) -> Pixels:
        """Return the pixels (H,W) of a class as they are seen and read: later regions lie over earlier ones."""
        found = np.zeros(self._size, bool)
        for region, pixels in self._regions:
            found = found | pixels if region.index == index else found & ~pixels
        return found

    def mendable(self, index: int) -> list[tuple[int, Region, Control, Pixels]]:
        """Return the regions of a class that can be written anew, each with its place in the order and its control."""
        controls = {control.name: control for control in self._label_map.controls if control.tag in _WRITABLE}
        return [
            (place, region, controls[str(region.entry.get("from_name"))], pixels)
            for place, (region, pixels) in enumerate(self._regions)
            if region.index == index and str(region.entry.get("from_name")) in controls and region.entry.get("id")
        ]

    def over(self, place: int, index: int) -> Pixels:
        """Return the pixels (H,W) that regions of other classes cover which are painted after one."""
        later = self._regions[place + 1 :]
        return _union([pixels for region, pixels in later if region.index != index], self._size)


def mended(mask: Pixels, drawn: Pixels, prompts: Sequence[DrawnPrompt]) -> Pixels:
    """Return what is drawn, changed towards a mask wherever a connected change touches a prompt.

    Args:
        mask: (H,W) that agrees with all prompts. drawn: (H,W).
        prompts: those that are new.
    """
    touched = np.zeros(mask.shape, bool)
    for prompt in prompts:
        touched[prompt.box.slices] = True
    changed = masks.touched(mask & ~drawn, touched) | masks.touched(drawn & ~mask, touched)
    return drawn ^ changed


def write_suggestion(
    wanted: Pixels,
    index: int,
    drawn: Drawn,
    label_map: LabelMap,
    prompts: Sequence[DrawnPrompt],
    *,
    minimum_area: int,
    tolerance: float,
) -> list[dict[str, Any]]:
    """Return the regions that make the drawn pixels of a class those that are wanted; none where they are already.

    Pixels that are added belong to the region that they touch, unless a later one of another class would hide them.
    What is left of a region that is to vanish altogether stays drawn: a suggestion cannot delete.

    Args:
        wanted: (H,W).
        prompts: those that are new; a part with a positive one is kept however small it is.
        minimum_area: other parts that are smaller are left out, in pixels.
        tolerance: how far simplified polygons may be off, in pixels, unless that contradicts a prompt.
    """
    writer = _Writer(index, label_map, prompts, minimum_area, tolerance)
    before = drawn.seen(index)
    added, removed = wanted & ~before, before & ~wanted
    regions = list[dict[str, Any]]()
    for place, region, control, pixels in drawn.mendable(index):
        joined = masks.touched(added & ~drawn.over(place, index), _grown(pixels))
        after = (pixels & ~removed) | joined
        added = added & ~joined
        if not np.array_equal(after, pixels):
            regions += writer.regions(after, control, str(region.entry["id"]))
    own = label_map.writer_of(index)
    if own is not None and added.any() and prompts:
        regions += writer.regions(added, own, _free_name(f"smart-{prompts[0].id}", drawn.ids))
    return regions


def _free_name(name: str, taken: Collection[str]) -> str:
    while name in taken:
        name += "-more"
    return name


class _Writer:
    def __init__(
        self, index: int, label_map: LabelMap, prompts: Sequence[DrawnPrompt], minimum_area: int, tolerance: float
    ) -> None:
        self._index, self._label_map, self._prompts = index, label_map, prompts
        self._minimum_area, self._tolerance = minimum_area, tolerance

    def regions(self, pixels: Pixels, control: Control, name: str) -> list[dict[str, Any]]:
        """Return regions of these pixels; the first, which is the largest, has that id."""
        pixels = self._without_specks(pixels)
        found = self._written(pixels, control, self._tolerance)
        if control.tag == "PolygonLabels" and self._is_contradicted(found, pixels):
            found = self._written(pixels, control, 0.0)
        found.sort(key=lambda region: -int(_shape(region, pixels).sum()))
        return [{"id": name if not number else f"{name}-{number}", **one} for number, one in enumerate(found)]

    def _written(self, pixels: Pixels, control: Control, tolerance: float) -> list[dict[str, Any]]:
        return list(
            masks.write_class(pixels, self._index, control, self._label_map, minimum_area=1, tolerance=tolerance)
        )

    def _without_specks(self, pixels: Pixels) -> Pixels:
        _, parts, statistics, _ = cv2.connectedComponentsWithStats(pixels.astype(np.uint8), connectivity=8)
        kept = statistics[:, cv2.CC_STAT_AREA] >= self._minimum_area
        for prompt in self._prompts:
            if prompt.is_positive and prompt.box.is_point:
                kept[parts[prompt.box.slices]] = True
        kept[0] = False
        large: Pixels = kept[parts]
        return large

    def _is_contradicted(self, regions: Sequence[Mapping[str, Any]], pixels: Pixels) -> bool:
        """Whether simplified outlines say another thing at a click than their pixels do."""
        shape = _union([_shape(region, pixels) for region in regions], pixels.shape)
        clicks = (prompt.box.slices for prompt in self._prompts if prompt.box.is_point)
        return any(bool((shape[place] != pixels[place]).any()) for place in clicks)


def _pixels(region: Region, size: tuple[int, int]) -> Pixels | None:
    canvas = np.zeros(size, np.uint8)
    try:
        check_size(region.entry, size)
        shapes.paint(canvas, region.value, 1)
    except MaskError:
        return None
    return canvas > 0


def _shape(region: Mapping[str, Any], like: Pixels) -> Pixels:
    canvas = np.zeros(like.shape, np.uint8)
    with suppress(MaskError):
        shapes.paint(canvas, region["value"], 1)
    return canvas > 0


def _union(parts: Sequence[Pixels], size: tuple[int, ...]) -> Pixels:
    found = np.zeros(size, bool)
    for part in parts:
        found |= part
    return found


def _grown(pixels: Pixels) -> Pixels:
    """Return pixels and their eight neighbours."""
    return cv2.dilate(pixels.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
