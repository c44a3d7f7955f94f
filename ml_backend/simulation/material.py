"""A data set in memory: images and masks at the network's size, and the outlines of the masks.

Everything is decoded once. The images are kept at the network's size, the original masks as compressed PNG, so that
thousands of large images fit; outlines are of the original masks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ml_backend.annotations.masks import mask_from_png, png_bytes
from ml_backend.annotations.mending import Mask
from ml_backend.datasets import Dataset
from ml_backend.datasets import Sample as Files
from ml_backend.errors import ConfigurationError, NextmaskError
from ml_backend.images.decoding import load_image
from ml_backend.learning.networks import fit_size, resize_image
from ml_backend.learning.prediction.batches import Shrunk
from ml_backend.simulation.polygons import Polygons, polygons

_READERS = 4


@dataclass(frozen=True, eq=False)
class Picture:
    """An image with its true mask.

    Attributes:
        number: its id in rankings, unique in the simulation.
        name: file name, for people.
        pixels: (3,h,w) uint8 RGB, at the network's size.
        mask: (h,w) uint8 of class indices, 255 = unlabelled, at the network's size.
        size: height and width of the original.
        original: PNG of the original mask (H,W).
        outlines: of the original mask; empty for test images, whose clicks are not counted.
        instances: (H,W) int32, the objects of the original, 0 = none; None where the data set does not tell them apart.
    """

    number: int
    name: str
    pixels: Tensor
    mask: Tensor
    size: tuple[int, int]
    original: bytes
    outlines: Polygons
    instances: NDArray[np.int32] | None = None

    @property
    def area(self) -> int:
        """Pixels of the original."""
        return self.size[0] * self.size[1]

    def shrunk(self, labelled: Tensor | None = None, cost: Tensor | None = None) -> Shrunk:
        """Return the image as a network is given it, with what is labelled (h,w) bool and its cost (h,w)."""
        return Shrunk(self.number, self.pixels, self.size, labelled, cost)

    def truth(self) -> Mask:
        """Decode the original mask (H,W) uint8."""
        return mask_from_png(self.original)


@dataclass(frozen=True, eq=False)
class Material:
    """The data that all runs of a simulation share.

    Attributes:
        dataset: its name.
        classes: index -> name.
        background: the class that nobody draws, or None.
        pool: number -> picture that can be labelled.
        test: pictures that measure; their numbers are not in the pool.
    """

    dataset: str
    classes: tuple[str, ...]
    background: int | None
    pool: Mapping[int, Picture]
    test: Sequence[Picture]


def background_of(dataset: Dataset) -> int | None:
    """Return the class that nobody draws, or None."""
    return 0 if dataset.unpainted == "background" else None


def load(
    dataset: Dataset,
    files: Sequence[Files],
    *,
    input_size: int,
    device: torch.device,
    outlined: bool,
    first: int = 0,
    progress: Callable[[], None] = lambda: None,
) -> list[Picture]:
    """Decode images and masks, in order.

    Args:
        input_size: longest side that the network sees, in pixels.
        device: where images and masks of the network's size live.
        outlined: whether pictures get outlines, on which clicks are counted.
        first: number of the first picture.
        progress: called after each image.

    Raises:
        ConfigurationError: a file cannot be read; masks were checked when the data set was opened.
    """
    read = partial(_read, dataset, input_size=input_size, device=device, outlined=outlined)
    pictures = []
    with ThreadPoolExecutor(_READERS) as pool:
        for picture in pool.map(read, range(first, first + len(files)), files):
            pictures.append(picture)
            progress()
    return pictures


def _read(
    dataset: Dataset, number: int, files: Files, *, input_size: int, device: torch.device, outlined: bool
) -> Picture:
    try:
        image, mask = load_image(files.image), dataset.read_mask(files)
        instances = dataset.read_instances(files)
    except (NextmaskError, OSError) as error:
        raise ConfigurationError(f"{files.image.name} cannot be used: {error}") from error
    size = (mask.shape[0], mask.shape[1])
    outlines = polygons(mask, background=background_of(dataset)) if outlined else polygons(np.zeros((0, 0), np.uint8))
    smaller = functional.interpolate(
        torch.from_numpy(mask)[None, None], size=fit_size(*size, input_size), mode="nearest-exact"
    )[0, 0]
    return Picture(
        number=number,
        name=files.image.name,
        pixels=resize_image(image, input_size).to(device),
        mask=smaller.to(device),
        size=size,
        original=png_bytes(mask),
        outlines=outlines,
        instances=instances,
    )
