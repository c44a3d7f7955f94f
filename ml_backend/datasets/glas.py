"""GlaS: glands in colon histology, MICCAI 2015 (Sirinukunwattana et al., Medical Image Analysis 35, 2017).

    <folder>/train_1.bmp, train_1_anno.bmp, testA_1.bmp, testA_1_anno.bmp, testB_1.bmp, testB_1_anno.bmp

or the same in the subfolder that the archive has. The masks hold the numbers of the glands: all of them are class 1.
"""

from __future__ import annotations

import re
from pathlib import Path

from ml_backend.datasets.dataset import Dataset, Progress, checked
from ml_backend.datasets.pairs import pair, present

LAYOUT = "train_1.bmp and train_1_anno.bmp, testA_1.bmp, testB_1.bmp and so on (GlaS)"
_ARCHIVE = "Warwick QU Dataset (Released 2016_07_08)"
_IMAGE = re.compile(r"(train|testA|testB)_\d+\.bmp")
_VALUES = {0: 0} | dict.fromkeys(range(1, 256), 1)


def recognised(folder: Path) -> bool:
    """Whether a folder has this layout."""
    return _root(folder) is not None


def open_glas(folder: Path, progress: Progress | None = None) -> Dataset:
    """Open and check a GlaS folder; its split "test" is testA and testB together.

    Raises:
        ConfigurationError: there is no image, a mask is missing, or a mask does not fit its image.
    """
    root = _root(folder) or folder
    splits = {split: pair(_images(root, split), _mask) for split in ("train", "testA", "testB")}
    splits["test"] = splits["testA"] + splits["testB"]
    there = present(splits, root, "<split>_<number>.bmp")
    palette = ((0, 0, 0), (230, 25, 75))
    dataset = Dataset("glas", ("background", "gland"), palette, None, there, values=_VALUES, instances=True)
    return checked(dataset, progress)


def _root(folder: Path) -> Path | None:
    return next((root for root in (folder, folder / _ARCHIVE) if _images(root)), None)


def _images(folder: Path, split: str = "") -> list[Path]:
    """Return the images of a split, of all splits when none is named."""
    return [path for path in folder.glob(f"{split or '*'}_*.bmp") if _IMAGE.fullmatch(path.name)]


def _mask(image: Path) -> Path:
    return image.with_name(f"{image.stem}_anno.bmp")
