"""ISIC 2017, part 1: skin lesions (Codella et al., "Skin lesion analysis toward melanoma detection", ISBI 2018).

    <folder>/ISIC-2017_Training_Data/ISIC_0000000.jpg
    <folder>/ISIC-2017_Training_Part1_GroundTruth/ISIC_0000000_segmentation.png      0, or 255 in the lesion

and the same with Validation and Test_v2. The superpixels beside the images are not used.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ml_backend.datasets.dataset import Dataset, Progress, checked
from ml_backend.datasets.pairs import pair, present

LAYOUT = "ISIC-2017_Training_Data/*.jpg and ISIC-2017_Training_Part1_GroundTruth/*_segmentation.png (ISIC 2017)"
_PARTS = {"train": "Training", "val": "Validation", "test": "Test_v2"}
_VALUES = {0: 0, 255: 1}


def recognised(folder: Path) -> bool:
    """Whether a folder has this layout."""
    return any(_images(folder, part).is_dir() for part in _PARTS.values())


def open_isic2017(folder: Path, progress: Progress | None = None) -> Dataset:
    """Open and check an ISIC 2017 folder.

    Raises:
        ConfigurationError: there is no image, a mask is missing, or a mask does not fit its image or holds other values
            than 0 and 255.
    """
    splits = {
        split: pair(_images(folder, part).glob("ISIC_*.jpg"), partial(_mask, folder, part))
        for split, part in _PARTS.items()
    }
    there = present(splits, folder, "ISIC-2017_<Training, Validation or Test_v2>_Data/ISIC_*.jpg")
    palette = ((0, 0, 0), (230, 25, 75))
    return checked(Dataset("isic2017", ("background", "lesion"), palette, None, there, values=_VALUES), progress)


def _images(folder: Path, part: str) -> Path:
    return folder / f"ISIC-2017_{part}_Data"


def _mask(folder: Path, part: str, image: Path) -> Path:
    return folder / f"ISIC-2017_{part}_Part1_GroundTruth" / f"{image.stem}_segmentation.png"
