"""The true mask of an image, found by the image's file name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import numpy.typing as npt
from PIL import Image

from ml_backend.errors import ConfigurationError
from ml_backend.label_config import IGNORE_INDEX, LabelMap

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
        classes: what the mask values mean, index -> name.
        ignore_index: value of unlabelled pixels in the files, or None when there are none.
    """

    masks: Mapping[str, Path]
    classes: tuple[str, ...]
    ignore_index: int | None = IGNORE_INDEX

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        index: dict[str, list[Path]] = {}
        for name, path in self.masks.items():
            index.setdefault(_uploaded_stem(name), []).append(path)
        return index

    def find(self, reference: str) -> Path:
        """Returns the mask file of an image as a task refers to it: an upload, a local file, or an address.

        Raises:
            ConfigurationError: no mask, or more than one, has that name.
        """
        stem = _uploaded_stem(_file_name(reference))
        found = self._by_name.get(stem) or self._by_name.get(_UPLOAD_PREFIX.sub("", stem)) or []
        if len(found) != 1:
            what = f"masks {found[0]} and {found[1]} both belong" if found else "no true mask belongs"
            raise ConfigurationError(f"{what} to image {reference!r}: give one mask of the same file name")
        return found[0]

    def read(self, path: Path, label_map: LabelMap) -> Mask:
        """Returns a mask (H, W) in the project's class indices, unlabelled pixels as `IGNORE_INDEX`.

        Raises:
            ConfigurationError: the file cannot be read, or holds a value or a class unknown to the project.
        """
        table = np.full(256, IGNORE_INDEX, dtype=np.uint8)
        mask = read_mask(path)
        for value in values_of(mask):
            if value != self.ignore_index:
                table[value] = self._project_index(value, path, label_map)
        return table[mask]

    def _project_index(self, value: int, path: Path, label_map: LabelMap) -> int:
        if value >= len(self.classes):
            raise ConfigurationError(
                f"mask {path} holds the value {value}, but the classes are 0 to {len(self.classes) - 1} and "
                f"unlabelled is {self.ignore_index}: correct the mask or dataset.json"
            )
        index = label_map.index_of(self.classes[value])
        if index is None:
            raise ConfigurationError(
                f"class {self.classes[value]!r} of mask {path} is no label of the project, which has "
                f"{', '.join(label_map.classes)}: rename the class in dataset.json or add the label"
            )
        return index


def read_mask(path: Path) -> Mask:
    """Reads the values (H, W) of a mask file: 8-bit grey or palette, class indices.

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
    """Returns the values that occur in a mask, in ascending order."""
    present: list[int] = np.flatnonzero(np.bincount(mask.ravel(), minlength=256)).tolist()  # np.unique would sort
    return present


def _file_name(reference: str) -> str:
    """Returns the file name that an image reference ends with."""
    address = urlsplit(reference)
    local = parse_qs(address.query).get("d") if address.path.endswith("/data/local-files/") else None
    return PurePosixPath(local[0] if local else unquote(address.path)).name


def _uploaded_stem(name: str) -> str:
    """Returns the stem of a file name as Label Studio stores it: blanks as _, unusual characters dropped."""
    stored = _DROPPED_BY_UPLOAD.sub("", name.strip().replace(" ", "_"))
    path = PurePosixPath(stored)
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else stored
