"""Our own layout: folders of images and true masks.

    <folder>/dataset.json                 name, classes, palette, ignore_index
    <folder>/images/<split>/<stem>.jpg    PNG, JPEG, TIFF, WebP or BMP
    <folder>/masks/<split>/<stem>.png     8-bit class indices

Everything is checked when a data set is opened, so that a wrong mask is reported before Label Studio or a
training run has been started.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ml_backend.annotations.label_map import IGNORE_INDEX
from ml_backend.datasets.dataset import Dataset, Progress, Sample, checked, checked_values
from ml_backend.datasets.truth import IMAGE_SUFFIXES, Truth
from ml_backend.errors import ConfigurationError

_Channel = Annotated[int, Field(ge=0, le=255)]

SAMPLE_FOLDER = Path(__file__).parent / "data" / "icbm152"
LAYOUT = "images/ and masks/, each with one subfolder per split or none, and a dataset.json"
WHOLE = "train"  # the name of the only split when the folders have no subfolders


class _Description(BaseModel):
    """The contents of dataset.json."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(min_length=1)
    classes: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=2, max_length=255)
    ignore_index: int | None = Field(default=IGNORE_INDEX, ge=0, le=255)
    palette: tuple[tuple[_Channel, _Channel, _Channel], ...] | None = None


def sample_dataset() -> Dataset:
    """Return the data set that ships with nextmask: slices of a brain template, grey and white matter."""
    return open_own(SAMPLE_FOLDER)


def recognised(folder: Path) -> bool:
    """Whether a folder has this layout."""
    return all((folder / part).is_dir() for part in ("images", "masks"))


def open_own(folder: Path, progress: Progress | None = None) -> Dataset:
    """Open and check a data set folder that holds `images` and `masks`.

    Args:
        folder: the data set.
        progress: called after each sample with (samples checked, samples in total).

    Raises:
        ConfigurationError: a mask is missing, or does not fit its image or the classes.
    """
    return open_folders(folder / "images", folder / "masks", progress)


def open_folders(images: Path, masks: Path, progress: Progress | None = None) -> Dataset:
    """Open and check images and masks that lie in folders of their own, paired by file name without suffix.

    Both hold either files (one split, named "train") or one subfolder per split. A dataset.json beside or
    above the folders names the classes; without it they are taken from the values in the masks.

    Args:
        images: folder of images.
        masks: folder of masks.
        progress: as for `open_own`.

    Raises:
        ConfigurationError: as `open_own`.
    """
    for option, folder in (("--images", images), ("--masks", masks)):
        if not folder.is_dir():
            raise ConfigurationError(f"{option} {folder} is not a folder: give the folder that holds the files")
    splits = _pair_splits(images, masks)
    description = _read_description(images, masks)
    if description is not None:
        return checked(_described(description, splits), progress)
    return _inferred(_name_of(images), splits, _all_values(splits, progress))


def open_truth(masks: Path) -> Truth:
    """Opens a folder of masks alone, or with a subfolder per split, with a dataset.json beside or above it.

    Raises:
        ConfigurationError: no mask is there, two masks have the same name, or dataset.json is missing or wrong.
    """
    folders = [masks, *sorted(path for path in masks.glob("*") if path.is_dir())]
    files: dict[str, Path] = {}
    for path in (path for folder in folders for path in _image_files(folder)):
        if path.stem in files:
            raise ConfigurationError(
                f"masks {files[path.stem]} and {path} have the same name: give the folder of one split"
            )
        files[path.stem] = path
    if not files:
        raise ConfigurationError(f"no mask in {masks} or its subfolders: give the folder that holds the mask files")
    description = _read_description(masks)
    if description is None:
        raise ConfigurationError(
            f"no dataset.json beside {masks}: write one with the names of the classes, in the order of the mask values"
        )
    return Truth(files, description.classes, description.ignore_index)


def _pair_splits(images: Path, masks: Path) -> dict[str, tuple[Sample, ...]]:
    """Return split -> samples; a split without images is left out."""
    if _image_files(images):
        return {WHOLE: _pair(images, masks)}
    folders = [folder for folder in sorted(images.iterdir()) if folder.is_dir() and _image_files(folder)]
    if not folders:
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        raise ConfigurationError(f"no image in {images} or its subfolders: put files ending in {suffixes} there")
    return {folder.name: _pair(folder, masks / folder.name) for folder in folders}


def _image_files(folder: Path) -> list[Path]:
    """Return the image files of a folder, sorted by name; none when it does not exist."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())


def _pair(images: Path, masks: Path) -> tuple[Sample, ...]:
    """Return the samples of a split."""
    mask_files = _by_stem(masks)
    samples = []
    for stem, image in _by_stem(images).items():
        if stem not in mask_files:
            raise ConfigurationError(f"image {image} has no mask: add {masks / stem}.png or remove the image")
        samples.append(Sample(image, mask_files[stem]))
    return tuple(samples)


def _by_stem(folder: Path) -> dict[str, Path]:
    """Return stem -> file."""
    files: dict[str, Path] = {}
    for path in _image_files(folder):
        if path.stem in files:
            raise ConfigurationError(f"{files[path.stem]} and {path.name} differ only in suffix: rename one of them")
        files[path.stem] = path
    return files


def _read_description(*folders: Path) -> _Description | None:
    """Return the nearest dataset.json beside the folders, or one level above."""
    beside = [folder.absolute().parent for folder in folders]
    places = [place / "dataset.json" for place in (*beside, *(folder.parent for folder in beside))]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        return None
    try:
        return _Description.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(f"{path}: {where}: {first['msg']}, got {first['input']!r}") from error
    except ValueError as error:
        raise ConfigurationError(f"{path} is not valid JSON: {error}") from error


def _described(description: _Description, splits: Mapping[str, tuple[Sample, ...]]) -> Dataset:
    classes, ignore = description.classes, description.ignore_index
    palette = description.palette
    if len({name.casefold() for name in classes}) != len(classes):
        raise ConfigurationError(f"dataset.json: classes {list(classes)} are not all different: rename or merge them")
    if palette is not None and len(palette) != len(classes):
        raise ConfigurationError(
            f"dataset.json: {len(palette)} palette colours for {len(classes)} classes: give each class a colour"
        )
    if ignore is not None and ignore < len(classes):
        raise ConfigurationError(
            f"dataset.json: ignore_index {ignore} is also class {classes[ignore]!r}: use a value above "
            f"{len(classes) - 1}, such as 255"
        )
    return Dataset(description.name, classes, palette, ignore, splits)


def _all_values(splits: Mapping[str, tuple[Sample, ...]], progress: Progress | None) -> set[int]:
    """Return the values that occur in the masks; checks sizes on the way."""
    samples = [sample for samples in splits.values() for sample in samples]
    values: set[int] = set()
    for number, sample in enumerate(samples, start=1):
        values.update(checked_values(sample))
        if progress is not None:
            progress(number, len(samples))
    return values


def _inferred(name: str, splits: Mapping[str, tuple[Sample, ...]], values: set[int]) -> Dataset:
    """Take the classes from the values that occur in the masks: class_0 to the highest."""
    indices = values - {IGNORE_INDEX}
    if not indices or max(indices) < 1:
        raise ConfigurationError(
            f"the masks of {name!r} hold only the values {sorted(values)}: at least two classes, numbered from 0, "
            "are needed; 255 means unlabelled, so a two-class mask uses 0 and 1. Or describe them in a dataset.json"
        )
    classes = tuple(f"class_{index}" for index in range(max(indices) + 1))
    remark = (
        f"No dataset.json: took {len(classes)} classes, {classes[0]} to {classes[-1]}, from the values in the masks; "
        "255 means unlabelled."
    )
    return Dataset(name, classes, None, IGNORE_INDEX, splits, remark)


def _name_of(images: Path) -> str:
    """Return the name of the folder that holds the images, or of its parent when it is just called images."""
    folder = images.resolve()
    return folder.parent.name if folder.name == "images" else folder.name
