"""Cityscapes (Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", CVPR 2016).

    <folder>/leftImg8bit/<split>/<city>/<city>_<sequence>_<frame>_leftImg8bit.png
    <folder>/gtFine/<split>/<city>/<city>_<sequence>_<frame>_gtFine_labelIds.png

The masks hold 34 label ids, of which 19 are evaluated; every other id becomes unlabelled. Masks whose names end in
`_gtFine_labelTrainIds.png` hold the 19 indices themselves; they are used where there are no label ids. The split "test"
is left out: its masks are placeholders.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ml_backend.annotations.label_map import IGNORE_INDEX
from ml_backend.datasets.dataset import Colour, Dataset, Progress, checked
from ml_backend.datasets.pairs import pair, present

LAYOUT = "leftImg8bit/<split>/<city>/*_leftImg8bit.png and gtFine/<split>/<city>/*_gtFine_labelIds.png (Cityscapes)"
LABEL_IDS = 34
_CLASSES: tuple[tuple[int, str, Colour], ...] = (  # label id, name, colour; the position is the train id
    (7, "road", (128, 64, 128)),
    (8, "sidewalk", (244, 35, 232)),
    (11, "building", (70, 70, 70)),
    (12, "wall", (102, 102, 156)),
    (13, "fence", (190, 153, 153)),
    (17, "pole", (153, 153, 153)),
    (19, "traffic light", (250, 170, 30)),
    (20, "traffic sign", (220, 220, 0)),
    (21, "vegetation", (107, 142, 35)),
    (22, "terrain", (152, 251, 152)),
    (23, "sky", (70, 130, 180)),
    (24, "person", (220, 20, 60)),
    (25, "rider", (255, 0, 0)),
    (26, "car", (0, 0, 142)),
    (27, "truck", (0, 0, 70)),
    (28, "bus", (0, 60, 100)),
    (31, "train", (0, 80, 100)),
    (32, "motorcycle", (0, 0, 230)),
    (33, "bicycle", (119, 11, 32)),
)
CLASSES = tuple(name for _, name, _ in _CLASSES)
PALETTE = tuple(colour for _, _, colour in _CLASSES)
TRAIN_IDS = dict.fromkeys(range(LABEL_IDS), IGNORE_INDEX) | {
    label: train for train, (label, _, _) in enumerate(_CLASSES)
}

_SPLITS = ("train", "val")
_IMAGE_END, _LABEL_END, _TRAIN_END = "_leftImg8bit.png", "_gtFine_labelIds.png", "_gtFine_labelTrainIds.png"


def recognised(folder: Path) -> bool:
    """Whether a folder has this layout."""
    return all((folder / part).is_dir() for part in ("leftImg8bit", "gtFine"))


def open_cityscapes(folder: Path, progress: Progress | None = None) -> Dataset:
    """Open and check a Cityscapes folder.

    Raises:
        ConfigurationError: there is no image, a mask is missing, or a mask does not fit its image or the label ids.
    """
    images = {split: list((folder / "leftImg8bit" / split).glob(f"*/*{_IMAGE_END}")) for split in _SPLITS}
    first = next((files[0] for files in images.values() if files), None)
    trains = first is not None and not _mask(first, _LABEL_END).is_file() and _mask(first, _TRAIN_END).is_file()
    mask_of = partial(_mask, end=_TRAIN_END if trains else _LABEL_END)
    splits = {split: pair(files, mask_of) for split, files in images.items()}
    there = present(splits, folder / "leftImg8bit", f"<split>/<city>/*{_IMAGE_END}")
    if trains:
        return checked(Dataset("cityscapes", CLASSES, PALETTE, IGNORE_INDEX, there), progress)
    return checked(Dataset("cityscapes", CLASSES, PALETTE, None, there, values=TRAIN_IDS), progress)


def _mask(image: Path, end: str) -> Path:
    split, city = image.parts[-3:-1]
    return image.parents[3] / "gtFine" / split / city / (image.name.removesuffix(_IMAGE_END) + end)
