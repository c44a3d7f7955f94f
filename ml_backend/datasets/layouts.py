"""Which layout a data set folder has."""

from __future__ import annotations

from pathlib import Path

from ml_backend.datasets import bdd100k, cityscapes, folders, glas, isic2017
from ml_backend.datasets.dataset import Dataset, Progress
from ml_backend.errors import ConfigurationError

_SHOWN = 8
_LAYOUTS = (
    (folders.recognised, folders.open_own, folders.LAYOUT),
    (cityscapes.recognised, cityscapes.open_cityscapes, cityscapes.LAYOUT),
    (bdd100k.recognised, bdd100k.open_bdd100k, bdd100k.LAYOUT),
    (glas.recognised, glas.open_glas, glas.LAYOUT),
    (isic2017.recognised, isic2017.open_isic2017, isic2017.LAYOUT),
)


def open_dataset(folder: Path, progress: Progress | None = None) -> Dataset:
    """Open and check a data set folder in our own layout or in that of a public data set.

    Args:
        folder: read only; nothing is written there.
        progress: called after each sample with (samples checked, samples in total).

    Raises:
        ConfigurationError: the layout is unknown, a mask is missing, or a mask does not fit its image or the classes.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"{folder} is not a folder: give the folder that holds the data set")
    for recognised, opened, _ in _LAYOUTS:
        if recognised(folder):
            return opened(folder, progress)
    raise ConfigurationError(
        f"{folder} has no known layout: it holds {_contents(folder)}. Give a folder that holds "
        + "; or ".join(layout for *_, layout in _LAYOUTS)
    )


def _contents(folder: Path) -> str:
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more or "nothing"
