"""Points that measure: drawn evenly, the same each time, and an estimate of what whole masks would say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_training import disc_item
from torch import Tensor, nn
from wiring import SHAPE, XML, disc, make_settings, png

from ml_backend.annotations.boxes import Box, Query, boxes_to_text, covered_pixels
from ml_backend.annotations.config_edits import with_points_control
from ml_backend.annotations.label_map import IGNORE_INDEX, LabelMap, parse_label_config
from ml_backend.annotations.masks import confusion, mask_from_png, png_bytes
from ml_backend.errors import MaskError
from ml_backend.learning.measuring import Counts, estimates
from ml_backend.learning.measuring.counts import Pixels, pixels_of
from ml_backend.learning.training.data import Samples
from ml_backend.learning.training.measures import count
from ml_backend.projects.audit_points import AuditLabel, asks_points_of_audit_images, audit_label, audit_points
from ml_backend.projects.parts import MergedLabel
from ml_backend.store import Task


def test_they_are_asked_where_the_others_are(tmp_path: Path) -> None:
    """A strategy that chooses between points and masks decides for its audit images, too."""
    plain, with_points = parse_label_config(XML), parse_label_config(with_points_control(XML))
    points, masks = Query((Box.point(3, 4),)), Query(())

    def asks(strategy: str, *queries: Query, label_map: LabelMap = with_points, number: int = 30) -> bool:
        own = make_settings(tmp_path, strategy=strategy, audit_points=number)
        return asks_points_of_audit_images(own, label_map, queries)

    assert asks("points")
    assert asks("random_points", points)
    assert asks("auto", masks, points)
    assert not asks("auto", masks)
    assert not asks("auto")
    assert not asks("margin")
    assert not asks("points", points, number=0)
    assert not asks("points", points, label_map=plain)


# -- the draw --------------------------------------------------------------------------------------------------------
@settings(deadline=None)
@given(st.integers(1, 700), st.integers(1, 700), st.integers(1, 60), st.text(max_size=5))
def test_they_are_distinct_inside_and_the_same_every_time(height: int, width: int, number: int, image: str) -> None:
    points = audit_points(image, (height, width), count=number, seed=3)
    assert len({(point.top, point.left) for point in points}) == len(points) == min(number, height * width)
    assert all(0 <= point.top < height and 0 <= point.left < width and point.is_point for point in points)
    assert points == audit_points(image, (height, width), count=number, seed=3)


def test_every_pixel_is_as_likely_also_of_an_image_larger_than_the_grid() -> None:
    size, number, draws = (3, 300), 9, 4000
    seen = np.zeros(size)
    for seed in range(draws):
        for point in audit_points("a", size, count=number, seed=seed):
            seen[point.slices] += 1
    share = number / (size[0] * size[1])
    assert np.abs(seen / draws - share).max() < 5 * np.sqrt(share * (1 - share) / draws)


def test_other_images_and_another_seed_have_other_points() -> None:
    one = audit_points("a", (90, 90), count=9, seed=0)
    assert one != audit_points("b", (90, 90), count=9, seed=0)
    assert one != audit_points("a", (90, 90), count=9, seed=1)


# -- the measure -----------------------------------------------------------------------------------------------------
POPULATION = 60


def predicted(index: int) -> np.ndarray:
    """A disc that is drawn too far to the side, by another amount in each image."""
    return np.roll(disc(index)[1], index % 7, axis=1)


def by_masks() -> Pixels:
    return np.stack([pixels_of(confusion(disc(at)[1], predicted(at), 2)) for at in range(POPULATION)])


def by_points(index: int, number: int, seed: int) -> Pixels:
    asked = covered_pixels(audit_points(str(index), SHAPE, count=number, seed=seed), SHAPE)
    each = round(SHAPE[0] * SHAPE[1] / number)
    return each * pixels_of(confusion(disc(index)[1][asked], predicted(index)[asked], 2))


def measured(pixels: Pixels) -> tuple[float, float, float]:
    names = tuple(map(str, range(len(pixels))))
    found = estimates(Counts(("background", "cell"), names, names, pixels))
    assert found is not None
    assert found.miou.low is not None
    assert found.miou.high is not None
    return found.miou.value, found.miou.low, found.miou.high


def test_what_is_counted_over_points_is_on_average_what_is_counted_over_masks() -> None:
    whole, draws = by_masks(), 400
    for index in range(3):
        counted = np.stack([by_points(index, 30, seed) for seed in range(draws)])
        error = counted.std(axis=0) / np.sqrt(draws)
        assert (np.abs(counted.mean(axis=0) - whole[index] * 30 * 43 / 1280) <= 4 * error + 1e-9).all()


@pytest.mark.parametrize(("number", "images"), [(10, 12), (30, 8), (30, 20)])
def test_the_measure_is_unbiased_and_its_interval_holds_the_truth(number: int, images: int) -> None:
    truth = measured(by_masks())[0]
    random, found = np.random.default_rng(number + images), []
    for _ in range(250):
        chosen = random.integers(POPULATION, size=images).tolist()
        found.append(measured(np.stack([by_points(at, number, int(random.integers(1 << 30))) for at in chosen])))
    assert np.mean([value for value, _, _ in found]) == pytest.approx(truth, abs=0.01)
    assert np.mean([low <= truth <= high for _, low, high in found]) >= 0.9


class _Bright(nn.Module):
    """Takes what is bright for the disc."""

    def forward(self, images: Tensor) -> Tensor:
        bright = images.mean(dim=1, keepdim=True) - 0.4
        return torch.cat([-bright, bright], dim=1)


def test_a_point_counts_for_as_many_pixels_as_it_stands_for(tmp_path: Path) -> None:
    whole = disc_item(tmp_path, 0, held_out=True, shape=SHAPE)
    truth = mask_from_png(whole.mask.read_bytes())
    asked = audit_points("a", SHAPE, count=10, seed=0)[:-1]  # the last was not answered
    mask = np.where(covered_pixels(asked, SHAPE), truth, IGNORE_INDEX).astype(np.uint8)
    (tmp_path / "points.png").write_bytes(png_bytes(mask))
    of_points = replace(whole, id="9", mask=tmp_path / "points.png", points=10)
    samples = Samples([whole, of_points], classes=2, input_size=64)
    counts = count(_Bright(), samples, ("ground", "disc"), device=torch.device("cpu"), report=lambda done: None)
    assert counts.pixels[0][:, 0].sum() == SHAPE[0] * SHAPE[1]
    assert counts.pixels[1][:, 0].sum() == 9 * SHAPE[0] * SHAPE[1] // 10
    inside = int((mask == 1).sum())
    assert counts.pixels[1][1, 0] == inside * SHAPE[0] * SHAPE[1] // 10


# -- which of a label's pixels measure -------------------------------------------------------------------------------
def part(tmp_path: Path, mask: np.ndarray, boxes: tuple[Box, ...]) -> MergedLabel:
    file = tmp_path / "label.png"
    file.write_bytes(png_bytes(mask))
    task = Task(7, 1, "a.png", status="labelled", mask_file=str(file), boxes=boxes_to_text(boxes), held_out=True)
    return MergedLabel((task,), file)


def test_labels_of_whole_images_and_of_rectangles_measure_as_they_are(tmp_path: Path) -> None:
    own, mask = make_settings(tmp_path), disc(0)[1]
    whole = MergedLabel((Task(7, 1, "a.png", held_out=True),), tmp_path / "whole.png")
    assert audit_label(whole, (), tmp_path, own) == AuditLabel(whole.mask)  # type: ignore[arg-type]
    for boxes in ((Box(0, 0, 9, 9),), (Box(0, 0, 9, 9), Box.point(20, 20))):
        label = part(tmp_path, mask, boxes)
        assert audit_label(label, (), tmp_path, own) == AuditLabel(tmp_path / "label.png")


def test_what_was_asked_decides_and_where_that_is_lost_the_draw(tmp_path: Path) -> None:
    own, mask = make_settings(tmp_path, audit_points=5), disc(0)[1]
    label = part(tmp_path, mask, (Box.point(1, 1),))
    asked = (Box.point(1, 1), Box.point(2, 2), Box.point(31, 39), Box.point(500, 1))  # of a larger image, once
    for query, expected in ((Query(asked), asked[:3]), (None, audit_points("a.png", SHAPE, count=5, seed=own.seed))):
        found = audit_label(label, [query] if query else (), tmp_path, own)
        assert isinstance(found, AuditLabel)
        kept = mask_from_png(found.mask.read_bytes())
        assert found.points == len(expected)
        assert np.array_equal(kept != IGNORE_INDEX, covered_pixels(expected, SHAPE))
        assert found.mask != label.mask


def test_a_mask_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    own = make_settings(tmp_path)
    label = part(tmp_path, disc(0)[1], (Box.point(1, 1),))
    (tmp_path / "label.png").write_bytes(png(disc(0)[0])[:40])
    assert isinstance(audit_label(label, (), tmp_path, own), MaskError)
    problem = MaskError("it does not merge")
    assert audit_label(MergedLabel(label.tasks, problem), (), tmp_path, own) is problem
