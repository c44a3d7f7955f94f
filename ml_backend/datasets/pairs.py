"""What the official layouts share: each image's mask lies in a place that the image's own path names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ml_backend.datasets.dataset import Sample
from ml_backend.errors import ConfigurationError


def pair(images: Iterable[Path], mask_of: Callable[[Path], Path]) -> tuple[Sample, ...]:
    """Return the samples of a split, sorted by file name.

    Args:
        images: image files.
        mask_of: gives the place where an image's mask must lie.

    Raises:
        ConfigurationError: a mask is missing.
    """
    samples = []
    for image in sorted(images, key=lambda path: path.name):
        mask = mask_of(image)
        if not mask.is_file():
            raise ConfigurationError(f"image {image} has no mask: add {mask} or remove the image")
        samples.append(Sample(image, mask))
    return tuple(samples)


def present(splits: Mapping[str, tuple[Sample, ...]], folder: Path, pattern: str) -> dict[str, tuple[Sample, ...]]:
    """Return the splits that have samples: people download some of them.

    Raises:
        ConfigurationError: none has.
    """
    there = {name: samples for name, samples in splits.items() if samples}
    if not there:
        raise ConfigurationError(
            f"no image in {folder}, which needs {pattern} for the splits {', '.join(splits)}: unpack the images there"
        )
    return there
