"""Data set folders: what is accepted, and that every fault is named before any time is spent."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from ml_backend.annotations.label_map import IGNORE_INDEX, parse_label_config
from ml_backend.datasets import (
    SAMPLE_FOLDER,
    Dataset,
    label_config,
    open_dataset,
    open_folders,
    open_truth,
    read_mask,
    sample_dataset,
)
from ml_backend.errors import ConfigurationError

DESCRIPTION = {"name": "cells", "classes": ["background", "cell"], "palette": [[0, 0, 0], [1, 2, 255]]}


def save(path: Path, values: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two splits, two classes, 3x2 pixels."""
    for split, stem in (("train", "a"), ("train", "b"), ("test", "c")):
        save(tmp_path / "images" / split / f"{stem}.png", np.zeros((2, 3, 3)))
        save(tmp_path / "masks" / split / f"{stem}.png", [[0, 1, 1], [0, 0, 255]])
    (tmp_path / "dataset.json").write_text(json.dumps(DESCRIPTION))
    return tmp_path


def describe(folder: Path, **changes: object) -> None:
    (folder / "dataset.json").write_text(json.dumps(DESCRIPTION | changes))


def test_sample_data_are_complete_small_and_carry_their_notice() -> None:
    dataset = sample_dataset()
    assert {split: len(samples) for split, samples in dataset.splits.items()} == {"train": 40, "test": 8}
    assert dataset.classes == ("background", "grey matter", "white matter")
    assert dataset.unpainted == "background"
    for samples in dataset.splits.values():
        for sample in samples:
            mask = read_mask(sample.mask)
            assert min(mask.shape) > 150
            assert np.bincount(mask.ravel(), minlength=3).min() > 0, f"{sample.mask} lacks a class"
    assert "Louis Collins, McConnell Brain Imaging Centre" in (SAMPLE_FOLDER / "NOTICE").read_text()
    assert sum(path.stat().st_size for path in SAMPLE_FOLDER.rglob("*") if path.is_file()) < 2_000_000


def test_splits_are_paired_by_stem(folder: Path) -> None:
    dataset = open_dataset(folder)
    assert [(s.image.name, s.mask.parent.name, s.mask.name) for s in dataset.splits["train"]] == [
        ("a.png", "train", "a.png"),
        ("b.png", "train", "b.png"),
    ]
    assert (dataset.name, dataset.classes, dataset.ignore_index) == ("cells", ("background", "cell"), 255)
    assert dataset.palette == ((0, 0, 0), (1, 2, 255))
    assert not dataset.remark


def test_folders_of_one_split(folder: Path) -> None:
    dataset = open_folders(folder / "images" / "train", folder / "masks" / "train")
    assert list(dataset.splits) == ["train"]
    assert dataset.classes == ("background", "cell")


def test_without_description_classes_come_from_the_values(folder: Path) -> None:
    (folder / "dataset.json").unlink()
    save(folder / "masks" / "train" / "a.png", [[0, 3, 1], [0, 0, 255]])
    dataset = open_dataset(folder)
    assert dataset.classes == ("class_0", "class_1", "class_2", "class_3")
    assert dataset.unpainted == "ignore"
    assert "4 classes" in dataset.remark


def test_two_valued_masks_need_a_description(folder: Path) -> None:
    (folder / "dataset.json").unlink()
    for mask in (folder / "masks").rglob("*.png"):
        save(mask, [[0, 255, 0], [0, 0, 0]])
    with pytest.raises(ConfigurationError, match=r"\[0, 255\].*uses 0 and 1"):
        open_dataset(folder)


def test_a_palette_image_is_read_as_indices(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1, 7]], dtype=np.uint8))
    image.putpalette([10, 20, 30] * 256)
    image.save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png").tolist() == [[0, 1, 7]]


def test_a_sideways_photo_fits_its_upright_mask(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((3, 2, 3), dtype=np.uint8)).save(folder / "images/train/a.jpg", exif=exif)
    (folder / "images/train/a.png").unlink()
    assert len(open_dataset(folder).splits["train"]) == 2


def missing_mask(folder: Path) -> str:
    (folder / "masks/train/b.png").unlink()
    return r"image .*train/b\.png has no mask: add .*masks/train/b\.png"


def wrong_size(folder: Path) -> str:
    save(folder / "masks/train/b.png", [[0, 1], [0, 1], [1, 1]])
    return r"masks/train/b\.png is 2x3 pixels, its image b\.png is 3x2"


def value_outside_classes(folder: Path) -> str:
    save(folder / "masks/test/c.png", [[0, 2, 9], [0, 0, 255]])
    return r"masks/test/c\.png holds the values \[2, 9\], but the classes are 0 to 1"


def colours_as_mask(folder: Path) -> str:
    save(folder / "masks/test/c.png", np.zeros((2, 3, 3)))
    return r"c\.png holds RGB pixels: save it as an 8-bit grey PNG"


def broken_image(folder: Path) -> str:
    (folder / "images/test/c.png").write_bytes(b"not an image")
    return r"images/test/c\.png cannot be read"


def broken_mask(folder: Path) -> str:
    path = folder / "masks/test/c.png"
    path.write_bytes(path.read_bytes()[:45])
    return r"c\.png cannot be read"


def two_images_of_one_stem(folder: Path) -> str:
    save(folder / "images/train/a.bmp", np.zeros((2, 3, 3)))
    return r"a\.bmp and a\.png differ only in suffix"


def no_images(folder: Path) -> str:
    for path in (folder / "images").rglob("*.png"):
        path.unlink()
    return r"no image in .*images or its subfolders"


def no_masks_folder(folder: Path) -> str:
    (folder / "masks").rename(folder / "labels")
    return r"no known layout: it holds dataset\.json, images/, labels/\. Give a folder that holds images/ and masks/"


def not_json(folder: Path) -> str:
    (folder / "dataset.json").write_text("{")
    return r"dataset\.json is not valid JSON"


def one_class(folder: Path) -> str:
    describe(folder, classes=["cell"])
    return r"dataset\.json: classes: .*at least 2"


def same_class_twice(folder: Path) -> str:
    describe(folder, classes=["cell", "Cell"])
    return r"\['cell', 'Cell'\] are not all different"


def short_palette(folder: Path) -> str:
    describe(folder, palette=[[0, 0, 0]])
    return r"1 palette colours for 2 classes"


def impossible_colour(folder: Path) -> str:
    describe(folder, palette=[[0, 0, 0], [0, 0, 256]])
    return r"dataset\.json: palette\.1\.2: .*256"


def ignored_class(folder: Path) -> str:
    describe(folder, ignore_index=1)
    return r"ignore_index 1 is also class 'cell'"


def ignored_value_not_declared(folder: Path) -> str:
    describe(folder, ignore_index=None)
    return r"holds the value 255, but the classes are 0 to 1 and unlabelled is None"


@pytest.mark.parametrize(
    "spoil",
    [
        *(missing_mask, wrong_size, value_outside_classes, colours_as_mask, broken_image, broken_mask),
        *(two_images_of_one_stem, no_images, no_masks_folder, not_json, one_class, same_class_twice),
        *(short_palette, impossible_colour, ignored_class, ignored_value_not_declared),
    ],
)
def test_faults_are_named(folder: Path, spoil: Callable[[Path], str]) -> None:
    message = spoil(folder)
    with pytest.raises(ConfigurationError, match=message):
        open_dataset(folder)


def test_a_file_instead_of_a_folder(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"--masks .* is not a folder"):
        open_folders(folder / "images", folder / "dataset.json")


def test_label_config_leaves_the_background_unpainted(folder: Path) -> None:
    dataset = open_dataset(folder)
    xml = label_config(dataset)
    image = ElementTree.fromstring(xml).find("Image")
    assert image is not None
    assert (image.get("name"), image.get("value"), image.get("zoom")) == ("image", "$image", "true")
    assert [(e.get("value"), e.get("background")) for e in ElementTree.fromstring(xml).iter("Label")] == [
        ("cell", "#0102ff")
    ]
    assert parse_label_config(xml, unpainted=dataset.unpainted).classes == dataset.classes


@pytest.mark.parametrize("control", ["BrushLabels", "BitmaskLabels", "PolygonLabels"])
def test_label_config_without_background_paints_every_class(control: str) -> None:
    dataset = Dataset("street", ("sky", 'tree & "bush"', "car"), None, 255, {})
    xml = label_config(dataset, control)
    label_map = parse_label_config(xml, unpainted=dataset.unpainted)
    assert label_map.classes == dataset.classes
    assert label_map.unpainted_index == IGNORE_INDEX
    assert [c.tag for c in label_map.controls] == [control]
    colours = [e.get("background") for e in ElementTree.fromstring(xml).iter("Label")]
    assert len(set(colours)) == 3
    assert None not in colours


def test_truth_of_some_splits(folder: Path) -> None:
    dataset = open_dataset(folder)
    assert dataset.truth("test").masks == {"c.png": folder / "masks/test/c.png"}
    assert len(dataset.truth().masks) == 3
    with pytest.raises(ConfigurationError, match="no split 'val': use test, train"):
        dataset.truth("val")


def test_truth_with_one_name_in_two_splits(folder: Path) -> None:
    save(folder / "images/test/a.png", np.zeros((2, 3, 3)))
    save(folder / "masks/test/a.png", [[0, 1, 1], [0, 0, 255]])
    with pytest.raises(ConfigurationError, match="one file name in two splits"):
        open_dataset(folder).truth()


def test_truth_from_masks_alone(folder: Path) -> None:
    truth = open_truth(folder / "masks")
    assert set(truth.masks) == {"a", "b", "c"}
    assert truth.classes == ("background", "cell")
    assert set(open_truth(folder / "masks" / "test").masks) == {"c"}


def test_truth_from_masks_alone_needs_names_that_are_clear(folder: Path) -> None:
    save(folder / "masks/test/a.png", [[0]])
    with pytest.raises(ConfigurationError, match="have the same name: give the folder of one split"):
        open_truth(folder / "masks")
    with pytest.raises(ConfigurationError, match="no mask in"):
        open_truth(folder / "images" / "nowhere")
    (folder / "dataset.json").unlink()
    with pytest.raises(ConfigurationError, match=r"no dataset\.json beside"):
        open_truth(folder / "masks" / "test")
