"""Images on their way to a network or a strategy: shrunk, grouped by size, padded, in batches.

What is computed for an image does not depend on the other images of its batch: it is shrunk, padded with its own
mirrored pixels, and batched only with images of the same padded size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from ml_backend.errors import ImageError, MaskError
from ml_backend.learning.networks import fit_size, moved, pad_to, resize_image
from strategies import Batch

Size = tuple[int, int]

_WAITING_BATCHES = 4
"""Batches of shrunk images that may wait for others of their size; beyond, the largest group goes as it is."""
_STRIDE = 32
"""Images without a network are grouped by their sides, rounded up to multiples of this."""


@dataclass(frozen=True, eq=False)
class Item:
    """An image of a project, with what is labelled of it.

    Attributes:
        id: the task's id.
        image: (H,W,3) uint8 RGB.
        labelled: (H,W) bool, True where a person has labelled; None: nowhere.
        cost: (H,W) floating, the effort of labelling each pixel, finite and >= 0 in a unit of the caller's; or None.
    """

    id: int
    image: npt.NDArray[np.uint8]
    labelled: npt.NDArray[np.bool_] | None = None
    cost: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True, eq=False)
class Shrunk:
    """An item as a network will see it.

    Attributes:
        pixels: (3,h,w) uint8.
        size: height and width of the original image.
        labelled: (h,w) bool; or None.
        cost: (h,w) float32, with the total of the item's; or None.
    """

    id: int
    pixels: Tensor
    size: Size
    labelled: Tensor | None
    cost: Tensor | None

    @property
    def height(self) -> int:
        """Rows of the pixels."""
        return self.pixels.shape[1]

    @property
    def width(self) -> int:
        """Columns of the pixels."""
        return self.pixels.shape[2]


@dataclass(frozen=True, eq=False)
class Stack:
    """Items of the same padded size (P,Q), of which the largest is (H,W), on a device.

    Attributes:
        images: (B,3,P,Q) float in [0, 1].
        valid: (B,P,Q) bool, False on padding.
    """

    items: Sequence[Shrunk]
    images: Tensor
    valid: Tensor

    @property
    def height(self) -> int:
        """Rows of the largest item."""
        return max(item.height for item in self.items)

    @property
    def width(self) -> int:
        """Columns of the largest item."""
        return max(item.width for item in self.items)

    def batch(self, probabilities: Tensor | None = None, features: Tensor | None = None) -> Batch:
        """Return the items as a batch of the size of the largest: probabilities (M,B,C,H,W), features (B,D)."""
        device, height, width = self.images.device, self.height, self.width
        labelled = [item.labelled for item in self.items]
        cost = [item.cost for item in self.items]
        return Batch(
            ids=tuple(item.id for item in self.items),
            images=self.images[..., :height, :width],
            probabilities=probabilities,
            features=features,
            valid=self.valid[..., :height, :width],
            labelled=_filled(labelled, (height, width), torch.bool).to(device),
            cost=None if cost[0] is None else _filled(cost, (height, width), torch.float32).to(device),
            size=torch.tensor([item.size for item in self.items], device=device),
        )


def image_batches(
    items: Iterable[Item | Shrunk], *, input_size: int, batch_size: int, device: torch.device
) -> Iterator[Batch]:
    """Batch images without a network's predictions, for methods that train networks of their own.

    Args:
        items: read lazily.
        input_size: longest side of an image in its batch, in pixels.
        batch_size: most images per batch.
        device: where the batches are.

    Yields:
        Batches without probabilities and features; images come in another order than they were given in.

    Raises:
        ImageError: an array is not an image.
        MaskError: `labelled` or `cost` do not fit their image.
    """
    shrunk = (item if isinstance(item, Shrunk) else shrink(item, input_size) for item in items)
    for group in grouped(shrunk, _padded_size, lambda _: batch_size):
        yield stack(group, _padded_size(*group[0].pixels.shape[1:]), device).batch()


def shrink(item: Item, input_size: int) -> Shrunk:
    """Shrink an item so that its longest side is at most `input_size` pixels.

    Raises:
        ImageError, MaskError: as in `image_batches`.
    """
    image = item.image
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ImageError(f"Image {item.id} must be (height, width, 3) uint8, not {image.shape} {image.dtype}.")
    _check_maps(item)
    size = (image.shape[0], image.shape[1])
    smaller = fit_size(*size, input_size)
    return Shrunk(
        id=item.id,
        pixels=resize_image(image, input_size),
        size=size,
        labelled=None if item.labelled is None else resize_mask(item.labelled, smaller),
        cost=None if item.cost is None else resize_cost(item.cost, smaller),
    )


def resize_mask(mask: npt.NDArray[np.bool_], size: Size) -> Tensor:
    """Shrink a mask (H,W) bool to the nearest pixel: (h,w) bool."""
    pixels = torch.from_numpy(mask.astype(np.uint8))
    smaller: Tensor = functional.interpolate(pixels[None, None], size=size, mode="nearest-exact")
    return smaller[0, 0].bool()


def resize_cost(cost: npt.NDArray[np.floating], size: Size) -> Tensor:
    """Shrink a map of costs (H,W) to (h,w) float32 by the areas that pixels share, and keep its total.

    >>> resize_cost(np.ones((4, 6), np.float32), (2, 2))
    tensor([[6., 6.],
            [6., 6.]])
    """
    total = cost.sum(dtype=np.float64)
    smaller = cv2.resize(np.asarray(cost, np.float32), size[::-1], interpolation=cv2.INTER_AREA).reshape(size)
    shrunk_total = smaller.sum(dtype=np.float64)
    return torch.from_numpy((smaller * (total / shrunk_total if shrunk_total else 0.0)).astype(np.float32))


def grouped(
    items: Iterable[Shrunk], padded_size: Callable[[int, int], Size], most: Callable[[Size], int]
) -> Iterator[list[Shrunk]]:
    """Sort items into groups of the same padded size; either all items of a group have costs, or none.

    Items are read lazily; a few batches of them wait for others of their size.

    Args:
        padded_size: of an image's size.
        most: items in a group, by padded size.
    """
    waiting: dict[tuple[Size, bool], list[Shrunk]] = {}
    for item in items:
        key = (padded_size(item.height, item.width), item.cost is None)
        waiting.setdefault(key, []).append(item)
        if len(waiting[key]) >= most(key[0]):
            yield waiting.pop(key)
        elif sum(map(len, waiting.values())) >= _WAITING_BATCHES * most(key[0]):
            yield waiting.pop(max(waiting, key=lambda size: len(waiting[size])))
    yield from waiting.values()


def stack(items: Sequence[Shrunk], padded: Size, device: torch.device) -> Stack:
    """Pad items to `padded`, height and width, and bring them onto a device."""
    pixels = torch.stack([pad_to(item.pixels, *padded) for item in items])  # (B,3,P,Q)
    valid = _filled([torch.ones(item.pixels.shape[1:], dtype=torch.bool) for item in items], padded, torch.bool)
    return Stack(items, moved(pixels, device).float() / 255, moved(valid, device))


def _check_maps(item: Item) -> None:
    """Check what is given for every pixel of an item."""
    height, width = item.image.shape[:2]
    for name, pixels in (("labelled", item.labelled), ("cost", item.cost)):
        if pixels is not None and pixels.shape != (height, width):
            raise MaskError(f"Image {item.id} is {(height, width)}, but its {name} pixels are {pixels.shape}.")
    if item.labelled is not None and item.labelled.dtype != np.bool_:
        raise MaskError(f"Image {item.id}: labelled must be bool, not {item.labelled.dtype}.")
    if item.cost is not None and not (np.isfinite(item.cost).all() and (item.cost >= 0).all()):
        raise MaskError(f"Image {item.id}: a cost is negative or not finite.")


def _filled(maps: Sequence[Tensor | None], size: Size, dtype: torch.dtype) -> Tensor:
    """Put maps (h,w) into the upper left corners of (B,H,W) zeros."""
    filled = torch.zeros((len(maps), *size), dtype=dtype)
    for target, pixels in zip(filled, maps, strict=True):
        if pixels is not None:
            target[: pixels.shape[0], : pixels.shape[1]] = pixels
    return filled


def _padded_size(height: int, width: int) -> Size:
    return -(-height // _STRIDE) * _STRIDE, -(-width // _STRIDE) * _STRIDE
