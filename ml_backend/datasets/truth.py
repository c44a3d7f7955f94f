"""The true mask of an image, looked up by the image's file name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import numpy.typing as npt
from PIL import Image

from ml_backend.annotations.label_map import IGNORE_INDEX, LabelMap
from ml_backend.errors import ConfigurationError

Mask = npt.NDArray[np.uint8]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp"})
_INDEX_MODES = frozenset({"L", "P", "1"})
_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")  # Label Studio puts it before the name of an uploaded file
_DROPPED_BY_UPLOAD = re.compile(r"[^-\w.]")


@dataclass(frozen=True)
class Truth:
    """True masks of many images.

    Attributes:
        masks: image file name, or its stem -> mask file.
        classes: index -> name.
        ignore_index: value of unlabelled pixels in the files; None when every pixel is labelled, or when `values`
            names it.
        values: value in the files -> index of its class, or `IGNORE_INDEX`; None when the files hold the indices.
    """

    masks: Mapping[str, Path]
    classes: tuple[str, ...]
    ignore_index: int | None = IGNORE_INDEX
    values: Mapping[int, int] | None = None

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        index: dict[str, list[Path]] = {}
        for name, path in self.masks.items():
            index.setdefault(_uploaded_stem(name), []).append(path)
        return index

    def find(self, reference: str) -> Path:
        """Return the mask file of an image as a task refers to it: an upload, a local file, or an address.

        Raises:
            ConfigurationError: no mask has that name, or several have it.
        """
        stem = _uploaded_stem(_file_name(reference))
        masks = self._by_name.get(stem) or self._by_name.get(_UPLOAD_PREFIX.sub("", stem)) or []
        if len(masks) != 1:
            what = f"masks {masks[0]} and {masks[1]} both belong" if masks else "no true mask belongs"
            raise ConfigurationError(f"{what} to image {reference!r}: give one mask of the same file name")
        return masks[0]

    def read(self, path: Path, label_map: LabelMap) -> Mask:
        """Return a mask (H, W) in the project's class indices, unlabelled pixels as `IGNORE_INDEX`.

        Raises:
            ConfigurationError: the file cannot be read, or holds a value or a class unknown to the project.
        """
        table = np.full(256, IGNORE_INDEX, dtype=np.uint8)
        mask = self.indices(path)
        for index in values_of(mask):
            if index != IGNORE_INDEX:
                table[index] = self._project_index(self.classes[index], path, label_map)
        return table[mask]

    def indices(self, path: Path) -> Mask:
        """Return a mask (H, W) in class indices of `classes`, unlabelled pixels as `IGNORE_INDEX`.

        Raises:
            ConfigurationError: the file cannot be read, or holds a value that means no class.
        """
        mask = read_mask(path)
        self.check(values_of(mask), path)
        table = np.full(256, IGNORE_INDEX, dtype=np.uint8)
        table[list(self._meanings)] = list(self._meanings.values())
        return table[mask]

    def check(self, values: Iterable[int], path: Path) -> None:
        """Check the values that a mask file holds.

        Raises:
            ConfigurationError: a value means neither a class nor unlabelled.
        """
        wrong = [value for value in values if value not in self._meanings]
        if not wrong:
            return
        held = f"the value {wrong[0]}" if len(wrong) == 1 else f"the values {wrong[:8]}"
        if self.values is None:
            raise ConfigurationError(
                f"mask {path} holds {held}, but the classes are 0 to {len(self.classes) - 1} and "
                f"unlabelled is {self.ignore_index}: correct the mask or add the classes to dataset.json"
            )
        raise ConfigurationError(
            f"mask {path} holds {held}, but masks of this layout hold {_ranges(self.values)}: "
            "replace the file by the data set's own"
        )

    @cached_property
    def _meanings(self) -> Mapping[int, int]:
        """Value in the files -> class index or `IGNORE_INDEX`."""
        if self.values is not None:
            return self.values
        unlabelled = {} if self.ignore_index is None else {self.ignore_index: IGNORE_INDEX}
        return unlabelled | {index: index for index in range(len(self.classes))}

    @staticmethod
    def _project_index(name: str, path: Path, label_map: LabelMap) -> int:
        index = label_map.index_of(name)
        if index is None:
            raise ConfigurationError(
                f"class {name!r} of mask {path} is no label of the project, which has "
                f"{', '.join(label_map.classes)}: rename the class in dataset.json or add the label"
            )
        return index


def read_mask(path: Path) -> Mask:
    """Read the values (H, W) of a mask file: 8-bit grey or palette, class indices.

    Raises:
        ConfigurationError: the file cannot be read or holds colours instead of class indices.
    """
    try:
        with Image.open(path) as file:
            mode = file.mode
            mask: Mask = np.array(file, dtype=np.uint8)  # a palette image gives its indices
    except (OSError, Image.DecompressionBombError) as error:
        raise ConfigurationError(f"mask {path} cannot be read ({error}): replace or remove the file") from error
    if mode not in _INDEX_MODES:
        raise ConfigurationError(f"mask {path} holds {mode} pixels: save it as an 8-bit grey PNG of class indices")
    return mask


def values_of(mask: Mask) -> list[int]:
    """Return the values that occur in a mask, in ascending order."""
    present: list[int] = np.flatnonzero(np.bincount(mask.ravel(), minlength=256)).tolist()  # np.unique would sort
    return present


def _file_name(reference: str) -> str:
    """Return the file name that an image reference ends with."""
    address = urlsplit(reference)
    local = parse_qs(address.query).get("d") if address.path.endswith("/data/local-files/") else None
    return PurePosixPath(local[0] if local else unquote(address.path)).name


def _uploaded_stem(name: str) -> str:
    """Return the stem of a file name as Label Studio stores it: blanks as _, unusual characters dropped."""
    stored = _DROPPED_BY_UPLOAD.sub("", name.strip().replace(" ", "_"))
    path = PurePosixPath(stored)
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else stored


def _ranges(values: Iterable[int]) -> str:
    """Return "0 to 3, 7" for 0, 1, 2, 3, 7."""
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
