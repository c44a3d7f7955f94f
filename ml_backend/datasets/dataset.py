"""A checked data set: images, true masks, classes and splits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from ml_backend.annotations.label_map import BACKGROUND
from ml_backend.datasets.truth import Mask, Truth, read_mask, values_of
from ml_backend.errors import ConfigurationError

Colour = tuple[int, int, int]
Progress = Callable[[int, int], None]
_EXIF_ORIENTATION, _SIDEWAYS = 0x0112, frozenset({5, 6, 7, 8})


@dataclass(frozen=True)
class Sample:
    """An image file and its mask file; their sizes agree."""

    image: Path
    mask: Path


@dataclass(frozen=True)
class Dataset:
    """A checked data set.

    Attributes:
        name: shown as the project's title.
        classes: index -> name.
        palette: index -> (red, green, blue), 0 to 255; None when the data set names no colours.
        ignore_index: value of unlabelled pixels in the mask files; None when every pixel is labelled, or when `values`
            names it.
        splits: split name -> samples, sorted by file name. A sample may be in two splits: GlaS has testA and testB,
            and test, which is both.
        remark: what was assumed, in words for the user; "" when nothing was.
        values: value in the mask files -> index of its class, or `IGNORE_INDEX`; None when the files hold the indices.
        instances: whether the values in the mask files are the numbers of objects, 0 where there is none.
    """

    name: str
    classes: tuple[str, ...]
    palette: tuple[Colour, ...] | None
    ignore_index: int | None
    splits: Mapping[str, tuple[Sample, ...]]
    remark: str = ""
    values: Mapping[int, int] | None = None
    instances: bool = False

    @property
    def unpainted(self) -> Literal["background", "ignore"]:
        """Meaning of pixels that no region covers: "background" is class 0, "ignore" is unlabelled."""
        return "background" if self.classes[0].casefold() == BACKGROUND else "ignore"

    def samples(self, split: str) -> tuple[Sample, ...]:
        """Return the samples of a split, sorted by file name; at least one.

        Raises:
            ConfigurationError: there is no such split, or it is empty.
        """
        there = [name for name, samples in self.splits.items() if samples]
        if split not in there:
            raise ConfigurationError(f"data set {self.name!r} has no split {split!r}: use {', '.join(there)}")
        return self.splits[split]

    def all_samples(self) -> tuple[Sample, ...]:
        """Return every sample once."""
        return tuple(dict.fromkeys(sample for samples in self.splits.values() for sample in samples))

    def truth(self, *splits: str) -> Truth:
        """Return the true masks of some splits, of all of them when none is named.

        Raises:
            ConfigurationError: there is no such split, or two of them share a file name.
        """
        samples = dict.fromkeys(sample for split in splits or self.splits for sample in self.samples(split))
        masks = {sample.image.name: sample.mask for sample in samples}
        if len(masks) != len(samples):
            raise ConfigurationError(
                f"data set {self.name!r} uses one file name in two splits: take one split at a time"
            )
        return Truth(masks, self.classes, self.ignore_index, self.values)

    def read_mask(self, sample: Sample) -> Mask:
        """Return the true mask (H, W) of a sample: class indices, unlabelled pixels as `IGNORE_INDEX`.

        Raises:
            ConfigurationError: the file cannot be read, or holds a value that means no class.
        """
        return self._encoding.indices(sample.mask)

    def read_instances(self, sample: Sample) -> npt.NDArray[np.int32] | None:
        """Return the true objects (H, W) of a sample: their numbers from 1, 0 where there is none.

        None when the data set's masks do not tell objects of one class apart.

        Raises:
            ConfigurationError: the file cannot be read.
        """
        return read_mask(sample.mask).astype(np.int32) if self.instances else None

    def check(self, sample: Sample) -> None:
        """Check the files of a sample.

        Raises:
            ConfigurationError: a file cannot be read, the sizes differ, or a value in the mask means no class.
        """
        self._encoding.check(checked_values(sample), sample.mask)

    @cached_property
    def _encoding(self) -> Truth:
        return Truth({}, self.classes, self.ignore_index, self.values)


def checked(dataset: Dataset, progress: Progress | None = None) -> Dataset:
    """Return the data set if every sample passes its check.

    Args:
        dataset: its samples are read, each once.
        progress: called after each sample with (samples checked, samples in total).

    Raises:
        ConfigurationError: see `Dataset.check`.
    """
    samples = dataset.all_samples()
    for number, sample in enumerate(samples, start=1):
        dataset.check(sample)
        if progress is not None:
            progress(number, len(samples))
    return dataset


def checked_values(sample: Sample) -> list[int]:
    """Return the values in a mask, ascending; check that it has its image's size.

    Raises:
        ConfigurationError: a file cannot be read, or the sizes differ.
    """
    mask = read_mask(sample.mask)
    (height, width), (image_height, image_width) = mask.shape, _upright_size(sample.image)
    if (height, width) != (image_height, image_width):
        raise ConfigurationError(
            f"mask {sample.mask} is {width}x{height} pixels, its image {sample.image.name} is "
            f"{image_width}x{image_height}: both must have one size"
        )
    return values_of(mask)


def _upright_size(path: Path) -> tuple[int, int]:
    """Return (height, width) of an image as shown, from the file's header."""
    try:
        with Image.open(path) as file:
            width, height = file.size
            sideways = file.getexif().get(_EXIF_ORIENTATION) in _SIDEWAYS
    except (OSError, Image.DecompressionBombError) as error:
        raise ConfigurationError(f"{path} cannot be read ({error}): replace or remove the file") from error
    return (width, height) if sideways else (height, width)
