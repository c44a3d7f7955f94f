"""Pictures of what was chosen first: which picks are drawn, and what is bright, dimmed, outlined and framed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_datasets
from numpy.typing import NDArray
from PIL import Image

from ml_backend.annotations.boxes import Box
from ml_backend.datasets import Dataset, open_dataset
from ml_backend.simulation.first_choices import SIDE, draw_first_choices, first_picks, picture
from ml_backend.simulation.plan import Contender, Plan
from ml_backend.simulation.processes import work_folder
from ml_backend.simulation.report.names import file_name
from ml_backend.simulation.report.pictures import first_choices

CEAL = Contender.parse('ceal:{"threshold": 0.1}')
PLAN = Plan(strategies=(Contender("full"), Contender("random"), Contender("cereals"), CEAL), seeds=(0, 1, 2))
COLOURS = ((0, 0, 0), (255, 0, 0), (0, 0, 255))


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return open_dataset(tiny_datasets.own(tmp_path / "cells", splits={"train": 12, "test": 2}, side=40))


def chosen(out: Path, dataset: Dataset, label: str, seed: int, *rounds: Sequence[Any]) -> None:
    """Write choices as a run does: the initial set, then round by round."""
    folder = work_folder(out, dataset, PLAN)
    folder.mkdir(parents=True, exist_ok=True)
    name = "".join(one if one.isalnum() or one in "_-." else "_" for one in label)
    values = [{"picks": list(picks), "pseudo_labels": []} for picks in rounds]
    (folder / f"{name}-{seed}.json").write_text(json.dumps(values))


def read(path: Path) -> NDArray[np.uint8]:
    return np.asarray(Image.open(path))


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


# -- one picture -----------------------------------------------------------------------------------------------------
def grey(height: int = 20, width: int = 30, value: int = 100) -> NDArray[np.uint8]:
    return np.full((height, width, 3), value, np.uint8)


def test_a_whole_image_is_bright_and_outlined_in_the_colours_of_its_classes() -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[5:10, 5:15], mask[12:18, 20:28], mask[0:3, 0:3] = 1, 2, 255
    drawn = picture(grey(), mask, size=(20, 30), colours=COLOURS, background=0)
    red, blue = (np.argwhere((drawn == COLOURS[index]).all(axis=2)) for index in (1, 2))
    assert (red.min(axis=0).tolist(), red.max(axis=0).tolist(), len(red)) == ([5, 5], [9, 14], 2 * (5 + 10) - 4)
    assert (blue.min(axis=0).tolist(), blue.max(axis=0).tolist()) == ([12, 20], [17, 27])
    rest = np.ones((20, 30), bool)
    rest[tuple(red.T)] = rest[tuple(blue.T)] = False
    assert (drawn[rest] == 100).all()  # neither the background nor what is unlabelled is outlined


def test_a_first_class_that_is_no_background_is_outlined() -> None:
    drawn = picture(grey(), np.zeros((20, 30), np.uint8), size=(20, 30), colours=((9, 9, 9),), background=None)
    assert (drawn[0] == 9).all()
    assert (drawn[1:-1, 1:-1] == 100).all()


def test_windows_are_bright_and_framed_and_the_rest_is_dimmed() -> None:
    boxes = [Box(20, 20, 20, 20), Box(60, 60, 40, 20)]  # of an original twice as large
    drawn = picture(grey(50, 50), np.zeros((50, 50), np.uint8), boxes, size=(100, 100), colours=COLOURS, background=0)
    assert drawn[0, 0].tolist() == [35, 35, 35]
    for top, left, bottom, right in ((10, 10, 19, 19), (30, 30, 39, 49)):
        frame = np.concatenate([drawn[top, left : right + 1], drawn[bottom, left : right + 1]])
        sides = np.concatenate([drawn[top : bottom + 1, left], drawn[top : bottom + 1, right]])
        assert (frame == 255).all()
        assert (sides == 255).all()
        assert (drawn[top + 1 : bottom, left + 1 : right] == 100).all()
    assert int((drawn == 35).all(axis=2).sum()) == 2500 - 100 - 200


@pytest.mark.parametrize("box", [Box(0, 0, 1, 1), Box(999, 999, 1, 1), Box(0, 0, 1000, 1000)])
def test_windows_at_the_border_and_of_one_pixel_stay_inside(box: Box) -> None:
    drawn = picture(grey(10, 10), np.zeros((10, 10), np.uint8), [box], size=(1000, 1000), colours=COLOURS, background=0)
    assert drawn.shape == (10, 10, 3)
    assert (drawn == 255).all(axis=2).sum() in (1, 36)


def test_points_are_dots_on_a_bright_image() -> None:
    points = [(0, 99), (50, 41)]  # of an original twice as large
    drawn = picture(
        grey(50, 50), np.zeros((50, 50), np.uint8), (), points, size=(100, 100), colours=COLOURS, background=0
    )
    for row, column in ((0, 49), (25, 20)):
        assert (drawn[row, column] == 255).all()
    white = (drawn == 255).all(axis=2)
    assert (drawn[~white] == 100).all()
    assert 10 < white.sum() < 50


def test_the_given_image_is_left_alone() -> None:
    pixels = grey()
    picture(pixels, np.ones((20, 30), np.uint8), size=(20, 30), colours=COLOURS)
    assert (pixels == 100).all()


# -- which picks -----------------------------------------------------------------------------------------------------
def test_the_picks_are_those_of_round_1_and_of_the_smallest_seed_that_has_them(
    tmp_path: Path, dataset: Dataset
) -> None:
    chosen(tmp_path, dataset, "random", 0, [[0, []]])
    chosen(tmp_path, dataset, "random", 1, [[0, []]], [[3, []], [1, []]], [[5, []]])
    chosen(tmp_path, dataset, "random", 2, [[0, []]], [[7, []]])
    folder = work_folder(tmp_path, dataset, PLAN)
    assert [pick.number for pick in first_picks(PLAN, Contender("random"), folder)] == [3, 1]
    assert first_picks(PLAN, Contender("cereals"), folder) == ()
    assert first_picks(PLAN, Contender("full"), folder) == ()
    only_last = dataclasses.replace(PLAN, seeds=(2,))
    assert [pick.number for pick in first_picks(only_last, Contender("random"), folder)] == [7]


def test_pictures_lie_where_the_report_looks_for_them(tmp_path: Path, dataset: Dataset) -> None:
    chosen(tmp_path, dataset, "random", 0, [[11, []]], [[number, []] for number in range(10)])
    chosen(tmp_path, dataset, "cereals", 0, [[11, []]], [[4, [[0, 0, 16, 16], [20, 20, 16, 16]]]])
    chosen(tmp_path, dataset, CEAL.label, 0, [[11, []]], [[2, []], [6, []]])
    assert draw_first_choices(PLAN, dataset, tmp_path) == 8 + 1 + 2
    labels = [one.label for one in PLAN.strategies]
    found = first_choices(tmp_path / "pictures", dataset.name, labels)
    assert [(label, len(pictures)) for label, pictures in found] == [("random", 8), ("cereals", 1), (CEAL.label, 2)]
    own = tmp_path / "pictures" / "cells" / "random"
    assert names(own) == [f"{number:02d}.png" for number in range(1, 9)]
    drawn, image = read(own / "04.png"), read(dataset.samples("train")[3].image)
    assert drawn.shape == image.shape
    same = (drawn == image).all(axis=2).mean()
    assert 0.5 < same < 1  # the image of pick 3, with outlines
    assert (read(own / "05.png") == image).all(axis=2).mean() < 0.5
    windows = read(tmp_path / "pictures" / "cells" / "cereals" / "01.png")
    assert (windows[0, :16] == 255).all()


def test_what_an_earlier_call_drew_beyond_is_removed(tmp_path: Path, dataset: Dataset) -> None:
    chosen(tmp_path, dataset, "random", 1, [[11, []]], [[1, []], [2, []], [3, []]])
    assert draw_first_choices(PLAN, dataset, tmp_path) == 3
    chosen(tmp_path, dataset, "random", 0, [[11, []]], [[4, []]])
    assert draw_first_choices(PLAN, dataset, tmp_path) == 1
    assert names(tmp_path / "pictures" / "cells" / "random") == ["01.png"]


def test_nothing_was_chosen_yet(tmp_path: Path, dataset: Dataset) -> None:
    assert draw_first_choices(PLAN, dataset, tmp_path) == 0
    assert not (tmp_path / "pictures").exists()


def test_large_images_are_shrunk_and_names_may_hold_anything(tmp_path: Path) -> None:
    folder = tiny_datasets.own(tmp_path / "large", splits={"train": 3, "test": 1}, side=700)
    description = json.loads((folder / "dataset.json").read_text()) | {"name": "../a b"}
    (folder / "dataset.json").write_text(json.dumps(description))
    dataset = open_dataset(folder)
    out = tmp_path / "out"
    chosen(out, dataset, "cereals", 0, [[0, []]], [[1, [[350, 350, 350, 350]]]])
    assert work_folder(out, dataset, PLAN).parent == out / "work"
    assert draw_first_choices(PLAN, dataset, out) == 1
    drawn = read(out / "pictures" / file_name("../a b") / "cereals" / "01.png")
    assert drawn.shape == (SIDE, SIDE, 3)
    assert (drawn[160, 160:] == 255).all()
    assert np.median(drawn[:160, :160]) < 0.5 * np.median(drawn[165:315, 165:315])
