"""Images of every kind in one real project: a training on some of them, and CEREALS with rectangles over the others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from steps import label_map_of, predictions
from support import Nextmask

from ml_backend.annotations.masks import Mask, read_result, write_result
from ml_backend.annotations.query_regions import is_query, read_rectangles
from ml_backend.label_studio import LabelStudio

pytestmark = pytest.mark.live

Size = tuple[int, int]
OPTIONS = {"window": 512, "stride": 256, "cost_width": 4, "iterations": 10}
LARGE = (8_000, 10_000)
SIDEWAYS = (48, 64)  # height and width of the pixels in the file; it is shown as 64 x 48
CONFIG = """<View>
  <Image name="image" value="$image"/>
  <BrushLabels name="mask" toName="image"><Label value="bright" background="#ffe119"/></BrushLabels>
</View>"""


def _picture(seed: int) -> Image.Image:
    """A bright block on a dark noisy ground."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 90, (*SIDEWAYS, 3))
    pixels[8:30, 10:40] += 150
    return Image.fromarray(pixels.astype(np.uint8))


def _files(folder: Path, seed: int) -> dict[str, tuple[Path, Size]]:
    """Name -> file, and its height and width as the editor shows it."""
    colours, (height, width) = _picture(seed), SIDEWAYS
    grey, sideways = colours.convert("L"), Image.Exif()
    sideways[0x0112] = 6
    alpha = Image.linear_gradient("L").resize(colours.size)
    made: dict[str, tuple[Image.Image, str, dict[str, Any], Size]] = {
        "deep": (Image.fromarray(np.asarray(grey).astype(np.uint16) * 16), ".png", {}, SIDEWAYS),
        "grey": (grey, ".png", {}, SIDEWAYS),
        "turned": (colours, ".jpg", {"exif": sideways}, (width, height)),
        "palette": (colours.convert("P"), ".png", {}, SIDEWAYS),
        "alpha": (Image.merge("RGBA", [*colours.split(), alpha]), ".png", {}, SIDEWAYS),
        "grey-alpha": (Image.merge("LA", [grey, alpha]), ".png", {}, SIDEWAYS),
        "bit": (colours.convert("1"), ".png", {}, SIDEWAYS),
    }
    found = {}
    for name, (image, suffix, options, size) in made.items():
        path = folder / f"{name}-{seed}{suffix}"
        image.save(path, **options)
        found[name] = (path, size)
    return found


def _large(folder: Path) -> Path:
    path = folder / "large.png"
    pixels = cv2.resize(np.asarray(_picture(9)), LARGE[::-1], interpolation=cv2.INTER_NEAREST)
    assert cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return path


def _truth(size: Size) -> Mask:
    mask = np.zeros(size, np.uint8)
    mask[: size[0] // 2] = 1
    return mask


def test_images_of_every_kind_are_learned_from_and_asked_for(
    serving: Nextmask, label_studio: LabelStudio, make_project: Callable[..., int], tmp_path: Path
) -> None:
    project = make_project(images=0, xml=CONFIG)
    known, pool = _files(tmp_path, 1), _files(tmp_path, 2)
    Image.fromarray(np.full((1, 1, 3), 200, np.uint8)).save(tmp_path / "dot.png")
    pool |= {"dot": (tmp_path / "dot.png", (1, 1)), "large": (_large(tmp_path), LARGE)}
    first = label_studio.upload_images(project, [path for path, _ in known.values()])
    rest = label_studio.upload_images(project, [path for path, _ in pool.values()])
    settings = {"strategy": "cereals", "strategy_options": OPTIONS, "train_after": len(first), "query_images": 50}
    serving.connection(project).connect({**serving.project_settings, **settings}, add_query_control=True)
    label_map = label_map_of(label_studio, project)
    for task, (_, size) in zip(first, known.values(), strict=True):
        regions = write_result(_truth(size), label_map, minimum_area=0)
        label_studio.submit_annotation(task, regions, 3.0)

    status = serving.wait_for_version(project, 1)
    assert status.errors == {}
    assert (status.labels, status.trained_labels) == (len(first), len(first))
    rows = {row["task"]: row for row in predictions(label_studio, project, status.version)}
    assert set(rows) == set(rest)
    for task, (name, (_, size)) in zip(rest, pool.items(), strict=True):
        result = rows[task]["result"]
        stated = {(region["original_height"], region["original_width"]) for region in result}
        assert stated == {size}, name
        assert [one for one in result if is_query(one, label_map)]
        found = read_rectangles(result, label_map, size)
        assert found.problems == ()
        assert len(found.boxes) == (1 if name != "large" else len(found.boxes)) <= 100, name
        reading = read_result([one for one in result if not is_query(one, label_map)], label_map, size=size)
        assert reading.problems == ()
        assert reading.mask.shape == size
