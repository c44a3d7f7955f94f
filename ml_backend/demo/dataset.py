"""Folders of images and true masks.

    <folder>/dataset.json                 name, classes, palette, ignore_index
    <folder>/images/<split>/<stem>.jpg    PNG, JPEG, TIFF, WebP or BMP
    <folder>/masks/<split>/<stem>.png     8-bit class indices

Everything is checked when a data set is opened, so that a wrong mask is reported before Label Studio or a
training run has been started.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal
from xml.etree import ElementTree

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ml_backend.demo.truth import IMAGE_SUFFIXES, Truth, read_mask, values_of
from ml_backend.errors import ConfigurationError
from ml_backend.label_config import BACKGROUND, IGNORE_INDEX, with_palette

Colour = tuple[int, int, int]
Progress = Callable[[int, int], None]
_Channel = Annotated[int, Field(ge=0, le=255)]

SAMPLE_FOLDER = Path(__file__).parent / "data" / "icbm152"
WHOLE = "train"  # the name of the only split when the folders have no subfolders
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
        ignore_index: value of unlabelled pixels in the mask files, or None when there are none.
        splits: split name -> samples, sorted by file name.
        remark: what had to be assumed, in words for the user; empty when dataset.json said everything.
    """

    name: str
    classes: tuple[str, ...]
    palette: tuple[Colour, ...] | None
    ignore_index: int | None
    splits: Mapping[str, tuple[Sample, ...]]
    remark: str = ""

    @property
    def unpainted(self) -> Literal["background", "ignore"]:
        """What a pixel that no region covers means: class 0 is the background, or nothing is known of it."""
        return "background" if self.classes[0].casefold() == BACKGROUND else "ignore"

    def truth(self, *splits: str) -> Truth:
        """Returns the true masks of some splits, of all of them when none is named.

        Raises:
            ConfigurationError: there is no such split, or two of them share a file name.
        """
        samples = [sample for split in splits or self.splits for sample in self._samples_of(split)]
        masks = {sample.image.name: sample.mask for sample in samples}
        if len(masks) != len(samples):
            raise ConfigurationError(
                f"data set {self.name!r} uses one file name in two splits: take one split at a time"
            )
        return Truth(masks, self.classes, self.ignore_index)

    def _samples_of(self, split: str) -> tuple[Sample, ...]:
        if split not in self.splits:
            raise ConfigurationError(f"data set {self.name!r} has no split {split!r}: use {', '.join(self.splits)}")
        return self.splits[split]


class _Description(BaseModel):
    """The contents of dataset.json."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(min_length=1)
    classes: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=2, max_length=255)
    ignore_index: int | None = Field(default=IGNORE_INDEX, ge=0, le=255)
    palette: tuple[tuple[_Channel, _Channel, _Channel], ...] | None = None


def sample_dataset() -> Dataset:
    """Returns the data set that ships with nextmask: slices of a brain template, grey and white matter."""
    return open_dataset(SAMPLE_FOLDER)


def open_dataset(folder: Path, progress: Progress | None = None) -> Dataset:
    """Opens and checks a data set folder that holds `images` and `masks`.

    Args:
        folder: the data set.
        progress: called after each sample with how many are checked, and of how many.

    Raises:
        ConfigurationError: a folder or mask is missing, or a mask does not fit its image or the classes.
    """
    for part in ("images", "masks"):
        if not (folder / part).is_dir():
            raise ConfigurationError(f"{folder} has no folder {part!r}: give a data set folder with images/ and masks/")
    return open_folders(folder / "images", folder / "masks", progress)


def open_folders(images: Path, masks: Path, progress: Progress | None = None) -> Dataset:
    """Opens and checks images and masks that lie in folders of their own, paired by file name without suffix.

    Both hold either files (one split, named "train") or one subfolder per split. A dataset.json beside or
    above the folders names the classes; without it they are taken from the values in the masks.

    Args:
        images: folder of images.
        masks: folder of masks.
        progress: as for `open_dataset`.

    Raises:
        ConfigurationError: as `open_dataset`.
    """
    for option, folder in (("--images", images), ("--masks", masks)):
        if not folder.is_dir():
            raise ConfigurationError(f"{option} {folder} is not a folder: give the folder that holds the files")
    splits = _pair_splits(images, masks)
    description = _read_description(images, masks)
    dataset = None if description is None else _described(description, splits)
    samples = [sample for samples in splits.values() for sample in samples]
    found: set[int] = set()
    for number, sample in enumerate(samples, start=1):
        values = _checked_values(sample)
        if dataset is not None:
            _check_classes(values, sample, dataset)
        found.update(values)
        if progress is not None:
            progress(number, len(samples))
    return dataset or _inferred(_name_of(images), splits, found)


def open_truth(masks: Path) -> Truth:
    """Opens a folder of masks alone, or of one subfolder per split, with a dataset.json beside or above it.

    Raises:
        ConfigurationError: no mask is there, two masks have one name, or dataset.json is missing or wrong.
    """
    folders = [masks, *sorted(path for path in masks.glob("*") if path.is_dir())]
    found: dict[str, Path] = {}
    for path in (path for folder in folders for path in _image_files(folder)):
        if path.stem in found:
            raise ConfigurationError(f"masks {found[path.stem]} and {path} have one name: give the folder of one split")
        found[path.stem] = path
    if not found:
        raise ConfigurationError(f"no mask in {masks} or its subfolders: give the folder that holds the mask files")
    description = _read_description(masks)
    if description is None:
        raise ConfigurationError(
            f"no dataset.json beside {masks}: write one with the names of the classes, in the order of the mask values"
        )
    return Truth(found, description.classes, description.ignore_index)


def label_config(dataset: Dataset, control: str = "BrushLabels") -> str:
    """Returns the labelling configuration (XML) of a project for this data set.

    Args:
        dataset: gives labels and colours; a first class "background" is left out: unpainted pixels are it.
        control: the tag of the region control, for example "BrushLabels", "BitmaskLabels", "PolygonLabels".
    """
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name="image", value="$image", zoom="true", zoomControl="true")
    labels = ElementTree.SubElement(view, control, name="mask", toName="image")
    for index, name in enumerate(dataset.classes):
        if index > 0 or dataset.unpainted == "ignore":
            label = ElementTree.SubElement(labels, "Label", value=name)
            if dataset.palette is not None:
                label.set("background", "#" + bytes(dataset.palette[index]).hex())
    ElementTree.indent(view)
    return with_palette(ElementTree.tostring(view, encoding="unicode"))


def _pair_splits(images: Path, masks: Path) -> dict[str, tuple[Sample, ...]]:
    """Returns split -> samples; a split without images is left out."""
    if _image_files(images):
        return {WHOLE: _pair(images, masks)}
    folders = [folder for folder in sorted(images.iterdir()) if folder.is_dir() and _image_files(folder)]
    if not folders:
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        raise ConfigurationError(f"no image in {images} or its subfolders: put files ending in {suffixes} there")
    return {folder.name: _pair(folder, masks / folder.name) for folder in folders}


def _image_files(folder: Path) -> list[Path]:
    """Returns the image files of a folder, sorted by name; none when it does not exist."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())


def _pair(images: Path, masks: Path) -> tuple[Sample, ...]:
    """Returns the samples of one split."""
    mask_files = _by_stem(masks)
    samples = []
    for stem, image in _by_stem(images).items():
        if stem not in mask_files:
            raise ConfigurationError(f"image {image} has no mask: add {masks / stem}.png or remove the image")
        samples.append(Sample(image, mask_files[stem]))
    return tuple(samples)


def _by_stem(folder: Path) -> dict[str, Path]:
    """Returns stem -> file."""
    files: dict[str, Path] = {}
    for path in _image_files(folder):
        if path.stem in files:
            raise ConfigurationError(f"{files[path.stem]} and {path.name} differ only in suffix: rename one of them")
        files[path.stem] = path
    return files


def _checked_values(sample: Sample) -> list[int]:
    """Returns the values in a mask that has its image's size."""
    mask = read_mask(sample.mask)
    (height, width), (image_height, image_width) = mask.shape, _upright_size(sample.image)
    if (height, width) != (image_height, image_width):
        raise ConfigurationError(
            f"mask {sample.mask} is {width}x{height} pixels, its image {sample.image.name} is "
            f"{image_width}x{image_height}: both must have one size"
        )
    return values_of(mask)


def _upright_size(path: Path) -> tuple[int, int]:
    """Returns (height, width) of an image as shown, from the file's header."""
    try:
        with Image.open(path) as file:
            width, height = file.size
            sideways = file.getexif().get(_EXIF_ORIENTATION) in _SIDEWAYS
    except (OSError, Image.DecompressionBombError) as error:
        raise ConfigurationError(f"{path} cannot be read ({error}): replace or remove the file") from error
    return (width, height) if sideways else (height, width)


def _read_description(*folders: Path) -> _Description | None:
    """Returns the nearest dataset.json beside the folders, or one level above."""
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
            f"dataset.json: {len(palette)} palette colours for {len(classes)} classes: give each one"
        )
    if ignore is not None and ignore < len(classes):
        raise ConfigurationError(
            f"dataset.json: ignore_index {ignore} is also class {classes[ignore]!r}: use a value above "
            f"{len(classes) - 1}, such as 255"
        )
    return Dataset(description.name, classes, palette, ignore, splits)


def _inferred(name: str, splits: Mapping[str, tuple[Sample, ...]], values: set[int]) -> Dataset:
    """Takes the classes from the values that occur in the masks: class_0 to the highest one."""
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


def _check_classes(values: list[int], sample: Sample, dataset: Dataset) -> None:
    wrong = [value for value in values if value >= len(dataset.classes) and value != dataset.ignore_index]
    if wrong:
        raise ConfigurationError(
            f"mask {sample.mask} holds the values {wrong[:8]}, but the classes are 0 to {len(dataset.classes) - 1} and "
            f"unlabelled is {dataset.ignore_index}: correct the mask or add the classes to dataset.json"
        )


def _name_of(images: Path) -> str:
    """Returns the name of the folder that holds the images, or of its parent when it is just called images."""
    folder = images.resolve()
    return folder.parent.name if folder.name == "images" else folder.name
