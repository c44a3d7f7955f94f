"""Folders as the public data sets are published: recognised, mapped to classes, every fault named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torchvision
from PIL import Image

from ml_backend.annotations.label_map import IGNORE_INDEX, parse_label_config
from ml_backend.datasets import Dataset, Sample, cityscapes, open_dataset
from ml_backend.errors import ConfigurationError

LABELS = torchvision.datasets.Cityscapes.classes  # a witness: the table of the data set's authors, in another library


def save(path: Path, values: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, dtype=np.uint8)).save(path)
    return path


def photo(path: Path, height: int = 2, width: int = 3) -> Path:
    return save(path, np.zeros((height, width, 3)))


def make_cityscapes(folder: Path, end: str = "labelIds", mask: object = ((7, 33, 0), (26, 23, 4))) -> None:
    for split, city in (("train", "ulm"), ("train", "aachen"), ("val", "lindau"), ("test", "bonn")):
        stem = f"{city}_000000_000019"
        photo(folder / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png")
        value = np.zeros((2, 3)) if split == "test" else mask
        save(folder / "gtFine" / split / city / f"{stem}_gtFine_{end}.png", value)
        save(folder / "gtFine" / split / city / f"{stem}_gtFine_color.png", np.zeros((2, 3, 3)))


def make_bdd100k(folder: Path) -> None:
    for split in ("train", "val", "test"):
        photo(folder / "images/10k" / split / f"{split}-0.jpg")
        if split != "test":
            save(folder / "labels/sem_seg/masks" / split / f"{split}-0.png", [[0, 18, 255], [1, 2, 3]])


def make_bdd100k_2018(folder: Path) -> None:
    for split in ("train", "val"):
        photo(folder / "bdd100k/seg/images" / split / f"{split}-0.jpg")
        save(folder / "bdd100k/seg/labels" / split / f"{split}-0_train_id.png", [[0, 18, 255], [1, 2, 3]])


def make_glas(folder: Path) -> None:
    for name in ("train_1", "train_2", "testA_1", "testB_1"):
        photo(folder / f"{name}.bmp")
        save(folder / f"{name}_anno.bmp", [[0, 1, 1], [0, 5, 255]])
    (folder / "Grade.csv").write_text("name,patient ID\n")


def make_isic2017(folder: Path) -> None:
    for part, stem in (("Training", "ISIC_0000000"), ("Validation", "ISIC_0001769"), ("Test_v2", "ISIC_0012086")):
        photo(folder / f"ISIC-2017_{part}_Data" / f"{stem}.jpg")
        photo(folder / f"ISIC-2017_{part}_Data" / f"{stem}_superpixels.png")
        save(folder / f"ISIC-2017_{part}_Part1_GroundTruth" / f"{stem}_segmentation.png", [[0, 255, 0], [0, 0, 255]])


Make = Callable[[Path], None]
LAYOUTS: dict[str, Make] = {
    "cityscapes": make_cityscapes,
    "bdd100k": make_bdd100k,
    "bdd100k of 2018": make_bdd100k_2018,
    "glas": make_glas,
    "isic2017": make_isic2017,
}


def stems(dataset: Dataset) -> dict[str, list[str]]:
    return {split: [sample.image.stem for sample in samples] for split, samples in dataset.splits.items()}


def only(dataset: Dataset, split: str) -> Sample:
    (sample,) = dataset.samples(split)
    return sample


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("make", LAYOUTS.values(), ids=LAYOUTS)
def test_a_layout_is_recognised_checked_and_left_alone(tmp_path: Path, make: Make) -> None:
    make(tmp_path)
    before = contents(tmp_path)
    seen: list[tuple[int, int]] = []
    dataset = open_dataset(tmp_path, lambda done, total: seen.append((done, total)))
    files = {sample.image for samples in dataset.splits.values() for sample in samples}
    assert len(dataset.all_samples()) == len(files) > 0
    assert seen == [(done, len(files)) for done in range(1, len(files) + 1)]
    assert dataset.palette is not None
    assert len(dataset.palette) == len(dataset.classes) == len(set(dataset.classes))
    for sample in dataset.all_samples():
        mask = dataset.read_mask(sample)
        assert (mask.dtype, mask.shape) == (np.uint8, (2, 3))
        assert set(np.unique(mask)) <= {*range(len(dataset.classes)), IGNORE_INDEX}
    assert len(dataset.truth().masks) == len(files)
    assert contents(tmp_path) == before


# -- Cityscapes ------------------------------------------------------------------------------------------------------
def test_the_table_of_cityscapes_is_that_of_its_authors() -> None:
    ours = {label.id: cityscapes.TRAIN_IDS[label.id] for label in LABELS if label.id >= 0}
    assert ours == {label.id: label.train_id for label in LABELS if label.id >= 0}
    assert len(cityscapes.TRAIN_IDS) == 34
    evaluated = sorted((label for label in LABELS if 0 <= label.train_id < 255), key=lambda label: label.train_id)
    assert tuple(label.name for label in evaluated) == cityscapes.CLASSES
    assert tuple(label.color for label in evaluated) == cityscapes.PALETTE
    assert len(cityscapes.CLASSES) == 19


def test_every_label_id_of_cityscapes(tmp_path: Path) -> None:
    stem = "ulm_000000_000019"
    photo(tmp_path / "leftImg8bit/val/ulm" / f"{stem}_leftImg8bit.png", 2, 17)
    save(tmp_path / "gtFine/val/ulm" / f"{stem}_gtFine_labelIds.png", np.arange(34).reshape(2, 17))
    dataset = open_dataset(tmp_path)
    expected = [label.train_id for label in sorted(LABELS, key=lambda label: label.id) if label.id >= 0]
    assert dataset.read_mask(only(dataset, "val")).ravel().tolist() == expected
    assert dataset.unpainted == "ignore"


def test_cityscapes_splits(tmp_path: Path) -> None:
    make_cityscapes(tmp_path)
    dataset = open_dataset(tmp_path)
    assert stems(dataset) == {
        "train": ["aachen_000000_000019_leftImg8bit", "ulm_000000_000019_leftImg8bit"],
        "val": ["lindau_000000_000019_leftImg8bit"],
    }
    with pytest.raises(ConfigurationError, match="'cityscapes' has no split 'test': use train, val"):
        dataset.samples("test")
    assert dataset.read_instances(only(dataset, "val")) is None


def test_cityscapes_with_train_ids(tmp_path: Path) -> None:
    make_cityscapes(tmp_path, "labelTrainIds", [[0, 18, 255], [13, 10, 255]])
    dataset = open_dataset(tmp_path)
    assert dataset.read_mask(only(dataset, "val")).tolist() == [[0, 18, 255], [13, 10, 255]]


def test_label_ids_come_before_train_ids(tmp_path: Path) -> None:
    make_cityscapes(tmp_path, "labelTrainIds", [[0, 18, 255], [13, 10, 255]])
    make_cityscapes(tmp_path)
    dataset = open_dataset(tmp_path)
    assert dataset.read_mask(only(dataset, "val")).tolist() == [[0, 18, 255], [13, 10, 255]]
    assert only(dataset, "val").mask.name.endswith("labelIds.png")


def test_true_masks_of_a_project_are_mapped(tmp_path: Path) -> None:
    make_cityscapes(tmp_path)
    label_map = parse_label_config(
        '<View><Image name="image" value="$image"/><BrushLabels name="mask" toName="image">'
        + "".join(f'<Label value="{name}"/>' for name in reversed(cityscapes.CLASSES))
        + "</BrushLabels></View>",
        unpainted="ignore",
    )
    truth = open_dataset(tmp_path).truth("val")
    mask = truth.read(truth.find("/data/upload/1/lindau_000000_000019_leftImg8bit.png"), label_map)
    assert mask.tolist() == [[18, 0, 255], [5, 8, 255]]


# -- BDD100K ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("make", [make_bdd100k, make_bdd100k_2018])
@pytest.mark.parametrize("inside", [".", "bdd100k"])
def test_bdd100k(tmp_path: Path, make: Make, inside: str) -> None:
    make(tmp_path)
    folder = tmp_path / inside if make is make_bdd100k_2018 or inside == "." else nested(tmp_path, inside)
    dataset = open_dataset(folder)
    assert (dataset.name, dataset.classes, dataset.palette) == ("bdd100k", cityscapes.CLASSES, cityscapes.PALETTE)
    assert stems(dataset) == {"train": ["train-0"], "val": ["val-0"]}
    assert dataset.read_mask(only(dataset, "val")).tolist() == [[0, 18, 255], [1, 2, 3]]


def nested(folder: Path, name: str) -> Path:
    """Moves all that a folder holds into a subfolder of it; returns the folder."""
    inside = folder / name
    held = list(folder.iterdir())
    inside.mkdir()
    for path in held:
        path.rename(inside / path.name)
    return folder


# -- GlaS ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("archive", [False, True])
def test_glas(tmp_path: Path, archive: bool) -> None:
    make_glas(tmp_path)
    if archive:
        nested(tmp_path, "Warwick QU Dataset (Released 2016_07_08)")
    dataset = open_dataset(tmp_path)
    assert stems(dataset) == {
        "train": ["train_1", "train_2"],
        "testA": ["testA_1"],
        "testB": ["testB_1"],
        "test": ["testA_1", "testB_1"],
    }
    sample = only(dataset, "testA")
    assert dataset.read_mask(sample).tolist() == [[0, 1, 1], [0, 1, 1]]
    instances = dataset.read_instances(sample)
    assert instances is not None
    assert (instances.dtype, instances.tolist()) == (np.int32, [[0, 1, 1], [0, 5, 255]])
    assert dataset.unpainted == "background"
    assert set(dataset.truth("test").masks) == {"testA_1.bmp", "testB_1.bmp"}


# -- ISIC 2017 -------------------------------------------------------------------------------------------------------
def test_isic2017(tmp_path: Path) -> None:
    make_isic2017(tmp_path)
    dataset = open_dataset(tmp_path)
    assert stems(dataset) == {"train": ["ISIC_0000000"], "val": ["ISIC_0001769"], "test": ["ISIC_0012086"]}
    assert dataset.read_mask(only(dataset, "train")).tolist() == [[0, 1, 0], [0, 0, 1]]
    assert dataset.unpainted == "background"


def test_a_part_of_a_data_set_is_enough(tmp_path: Path) -> None:
    make_isic2017(tmp_path)
    (tmp_path / "ISIC-2017_Validation_Data/ISIC_0001769.jpg").unlink()
    dataset = open_dataset(tmp_path)
    assert list(dataset.splits) == ["train", "test"]
    with pytest.raises(ConfigurationError, match="'isic2017' has no split 'val': use train, test"):
        dataset.samples("val")


def test_an_empty_split_is_no_split() -> None:
    sample = Sample(Path("a.png"), Path("b.png"))
    with pytest.raises(ConfigurationError, match="has no split 'val': use train"):
        Dataset("x", ("a", "b"), None, None, {"train": (sample,), "val": ()}).samples("val")


# -- faults ----------------------------------------------------------------------------------------------------------
MASKS = {
    "cityscapes": "gtFine/val/lindau/lindau_000000_000019_gtFine_labelIds.png",
    "bdd100k": "labels/sem_seg/masks/val/val-0.png",
    "bdd100k of 2018": "bdd100k/seg/labels/val/val-0_train_id.png",
    "glas": "testB_1_anno.bmp",
    "isic2017": "ISIC-2017_Test_v2_Part1_GroundTruth/ISIC_0012086_segmentation.png",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_missing_mask(tmp_path: Path, layout: str) -> None:
    LAYOUTS[layout](tmp_path)
    (tmp_path / MASKS[layout]).unlink()
    with pytest.raises(ConfigurationError, match=r"has no mask: add .*/" + MASKS[layout].replace(".", r"\.")):
        open_dataset(tmp_path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_mask_of_the_wrong_size(tmp_path: Path, layout: str) -> None:
    LAYOUTS[layout](tmp_path)
    save(tmp_path / MASKS[layout], np.zeros((3, 2)))
    with pytest.raises(ConfigurationError, match=r"is 2x3 pixels, its image .* is 3x2: both must have one size"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("layout", "value", "message"),
    [
        ("cityscapes", 34, r"holds the value 34, but masks of this layout hold 0 to 33: replace the file"),
        ("bdd100k", 19, r"holds the value 19, but the classes are 0 to 18 and unlabelled is 255"),
        ("bdd100k of 2018", 200, r"holds the value 200, but the classes are 0 to 18 and unlabelled is 255"),
        ("isic2017", 1, r"holds the value 1, but masks of this layout hold 0, 255: replace the file"),
    ],
)
def test_a_wrong_value(tmp_path: Path, layout: str, value: int, message: str) -> None:
    LAYOUTS[layout](tmp_path)
    path = save(tmp_path / MASKS[layout], np.full((2, 3), value))
    with pytest.raises(ConfigurationError, match=f"{path.name.replace('.', chr(92) + '.')} {message}"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_colours_in_place_of_values(tmp_path: Path, layout: str) -> None:
    LAYOUTS[layout](tmp_path)
    photo(tmp_path / MASKS[layout])
    with pytest.raises(ConfigurationError, match="holds RGB pixels"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (
            ("leftImg8bit/train", "gtFine/train"),
            r"no image in .*leftImg8bit, which needs <split>/<city>/\*_leftImg8bit",
        ),
        (("images/10k/val", "labels/sem_seg/masks/val"), r"no image in .*images/10k, .* for the splits train, val"),
        (("ISIC-2017_Training_Data",), r"no image in .*, which needs ISIC-2017_<Training, Validation or Test_v2>_Data"),
    ],
)
def test_folders_without_images(tmp_path: Path, folders: tuple[str, ...], message: str) -> None:
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(ConfigurationError, match=message):
        open_dataset(tmp_path)


def test_an_unknown_layout_names_what_is_there_and_what_is_known(tmp_path: Path) -> None:
    (tmp_path / "JPEGImages").mkdir()
    for number in range(9):
        (tmp_path / f"note{number}.txt").touch()
    with pytest.raises(ConfigurationError, match=r"it holds JPEGImages/, note0\.txt, .* and 2 more\.") as raised:
        open_dataset(tmp_path)
    for known in ("images/ and masks/", "(Cityscapes)", "(BDD100K)", "(GlaS)", "(ISIC 2017)"):
        assert known in str(raised.value)


def test_an_empty_folder_and_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="it holds nothing"):
        open_dataset(tmp_path)
    with pytest.raises(ConfigurationError, match="is not a folder: give the folder that holds the data set"):
        open_dataset(tmp_path / "nowhere")
