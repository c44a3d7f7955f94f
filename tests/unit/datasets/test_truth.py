"""Finding the true mask of an image by the name that Label Studio gave it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ml_backend.annotations.label_map import IGNORE_INDEX, parse_label_config
from ml_backend.datasets import Truth
from ml_backend.errors import ConfigurationError

XML = """<View><Image name="image" value="$image"/><BrushLabels name="mask" toName="image">
<Label value="tree"/><Label value="Car" predicted_values="automobile"/></BrushLabels></View>"""
MASK = Path("masks/frame_07.png")


def truth(*names: str) -> Truth:
    return Truth({name: Path(f"masks/{name}") for name in names}, ("background", "tree"))


@pytest.mark.parametrize(
    "reference",
    [
        "/data/upload/12/3f2a1b9c-frame_07.jpg",
        "/data/upload/12/frame_07.jpg",
        "/data/local-files/?d=camvid/images/train/frame_07.jpg",
        "/data/local-files/?d=camvid%2Fimages%2Ftrain%2Fframe_07.jpg",
        "https://example.org/pictures/frame_07.PNG?size=large",
        "http://localhost:8080/data/upload/1/00000000-frame_07.jpg",
        "frame_07",
    ],
)
@pytest.mark.parametrize("name", ["frame_07.jpg", "frame_07"])
def test_the_name_is_found_in_any_reference(reference: str, name: str) -> None:
    assert Truth({name: MASK}, ("a", "b")).find(reference) == MASK


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("my photo (1).jpg", "/data/upload/1/0a1b2c3d-my_photo_1.jpg"),
        ("v1.2 final.png", "/data/upload/1/0a1b2c3d-v1.2_final.png"),
        ("deadbeef-1.png", "/data/upload/1/0a1b2c3d-deadbeef-1.png"),
        ("deadbeef-1.png", "/data/local-files/?d=deadbeef-1.png"),
        ("Bäume.png", "/data/upload/1/0a1b2c3d-B%C3%A4ume.png"),
    ],
)
def test_names_that_an_upload_changes(name: str, stored: str) -> None:
    assert truth(name).find(stored) == Path("masks") / name


def test_an_unknown_image() -> None:
    with pytest.raises(ConfigurationError, match=r"no true mask belongs to image '/data/upload/1/x\.png'"):
        truth("frame_07.jpg").find("/data/upload/1/x.png")


def test_two_masks_for_one_image() -> None:
    with pytest.raises(ConfigurationError, match="both belong to image"):
        truth("a b.png", "a_b.png").find("/data/upload/1/0a1b2c3d-a_b.png")


def test_values_become_the_indices_of_the_project(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    Image.fromarray(np.array([[0, 1, 2, 11]], dtype=np.uint8)).save(path)
    label_map = parse_label_config(XML)
    read = Truth({}, ("automobile", "Background", "TREE"), ignore_index=11).read(path, label_map)
    assert label_map.classes == ("background", "tree", "Car")
    assert read.tolist() == [[2, 0, 1, IGNORE_INDEX]]


def test_a_class_that_the_project_lacks(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    Image.fromarray(np.array([[0, 1]], dtype=np.uint8)).save(path)
    with pytest.raises(ConfigurationError, match=r"class 'house' of mask .* is no label of the project"):
        Truth({}, ("tree", "house")).read(path, parse_label_config(XML))
    with pytest.raises(ConfigurationError, match="holds the value 1, but the classes are 0 to 0"):
        Truth({}, ("tree",)).read(path, parse_label_config(XML))
