"""BDD100K semantic segmentation (Yu et al., "BDD100K: A Diverse Driving Dataset", CVPR 2020), 19 classes of Cityscapes.

    <folder>/images/10k/<split>/<name>.jpg              <folder>/labels/sem_seg/masks/<split>/<name>.png
    <folder>/seg/images/<split>/<name>.jpg              <folder>/seg/labels/<split>/<name>_train_id.png

The second line is the release of 2018. Either may lie in a subfolder `bdd100k`, as the archives have it. The masks hold
0 to 18, and 255 where there is no label; the split "test" has none and is left out.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ml_backend.annotations.label_map import IGNORE_INDEX
from ml_backend.datasets.cityscapes import CLASSES, PALETTE
from ml_backend.datasets.dataset import Dataset, Progress, checked
from ml_backend.datasets.pairs import pair, present
from ml_backend.errors import ConfigurationError

LAYOUT = (
    "images/10k/<split>/*.jpg and labels/sem_seg/masks/<split>/*.png, or seg/images/<split>/*.jpg and "
    "seg/labels/<split>/*_train_id.png (BDD100K)"
)
_SPLITS = ("train", "val")
_RELEASES = (  # images, masks, end of a mask's name
    (Path("images/10k"), Path("labels/sem_seg/masks"), ".png"),
    (Path("seg/images"), Path("seg/labels"), "_train_id.png"),
)


def recognised(folder: Path) -> bool:
    """Whether a folder has this layout."""
    return _find(folder) is not None


def open_bdd100k(folder: Path, progress: Progress | None = None) -> Dataset:
    """Open and check a BDD100K folder.

    Raises:
        ConfigurationError: there is no such folder or no image, or a mask is missing or does not fit its image or the
            classes.
    """
    parts = _find(folder)
    if parts is None:
        raise ConfigurationError(f"{folder} does not hold {LAYOUT}: unpack images and masks there")
    images, masks, end = parts
    splits = {split: pair((images / split).glob("*.jpg"), partial(_mask, masks / split, end)) for split in _SPLITS}
    return checked(
        Dataset("bdd100k", CLASSES, PALETTE, IGNORE_INDEX, present(splits, images, "<split>/*.jpg")), progress
    )


def _find(folder: Path) -> tuple[Path, Path, str] | None:
    """Return the folders of images and masks, and the end of a mask's name."""
    for root in (folder, folder / "bdd100k"):
        for images, masks, end in _RELEASES:
            if (root / images).is_dir() and (root / masks).is_dir():
                return root / images, root / masks, end
    return None


def _mask(masks: Path, end: str, image: Path) -> Path:
    return masks / (image.stem + end)
