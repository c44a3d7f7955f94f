"""The file of contrasts: read whole or refused, and put beside results before the rows that it is about."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from simulated_rows import row

from ml_backend.errors import ConfigurationError
from ml_backend.simulation import results
from ml_backend.simulation.contrasts import CONTRASTS, Contrast, keep, read
from ml_backend.simulation.results import RESULTS

TEXT = """
# auto against random
[[contrast]]
dataset = "glas"
strategy = "auto"
against = "random"
measure = "effort"
seeds = "100-102"
rounds = 4
"""
ONE = Contrast("glas", "auto", "random", "effort", (100, 101, 102), 4)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "named.toml"
    found.write_text(TEXT)
    return found


def test_a_file_is_read(file: Path) -> None:
    assert read(file) == (ONE,)
    file.write_text(TEXT + TEXT.replace('"auto"', '"margin"').replace('"effort"', '"area"').replace("100-102", "2"))
    assert read(file)[1] == dataclasses.replace(ONE, strategy="margin", measure="area", seeds=(0, 1))
    assert read(file.with_name("nowhere.toml")) == ()
    file.write_text(TEXT + "point_clicks = 3\nopening_clicks = 5\n")
    assert read(file) == (dataclasses.replace(ONE, point_clicks=3, opening_clicks=5),)
    file.write_text(TEXT.replace('"random"', '"full"').replace('"effort"', '"whole"'))
    assert read(file) == (dataclasses.replace(ONE, against="full", measure="whole"),)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("effort", "speed"), "measure of contrast 1 of .* is 'speed': use effort, area, product, whole"),
        (('"100-102"', "10"), "seeds of contrast 1 of .* is 10: give a text"),
        (("100-102", "102-100"), "The seeds of contrast 1 of .*'102-100' are no seeds: give how many"),
        (("100-102", "0"), "'0' are no seeds"),
        (("= 4", "= -1"), "rounds of contrast 1 of .* is -1"),
        (("= 4", "= true"), "rounds of contrast 1 of .* is True"),
        (('"auto"', '"random"'), "Contrast 1 of .* compares 'random' with itself"),
        (('"auto"', '""'), "strategy of contrast 1 of .* is ''"),
        (("rounds", "round"), "Contrast 1 of .* needs dataset, strategy, against, measure, seeds and rounds"),
        (("[[contrast]]", ""), "names no contrasts: begin each with a line"),
        (("[[contrast]]", "[contrast]"), "names no contrasts"),
        (("= 4", "= "), "cannot be read"),
        (("= 4", "= 4\npoint_clicks = -3"), "point_clicks of contrast 1 of .* is -3: give clicks, from 0"),
        (("= 4", "= 4\nmending = true"), "needs .*perhaps point_clicks and opening_clicks, and nothing else"),
        (('"effort"', '"whole"'), "compares by 'whole' against 'random': \"whole\" is against 'full'"),
        (('"random"', '"full"'), "compares by 'effort' against 'full'"),
    ],
)
def test_what_is_no_contrast_is_refused_by_name(file: Path, change: tuple[str, str], message: str) -> None:
    file.write_text(TEXT.replace(*change))
    with pytest.raises(ConfigurationError, match=message):
        read(file)


def test_it_is_put_beside_the_results_before_the_run(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    keep(file, out)
    assert (out / CONTRASTS).read_text() == TEXT
    results.append(out / RESULTS, row("auto", 100, 0, 0.5))
    keep(file, out)  # the run is stopped and goes on
    with pytest.raises(ConfigurationError, match="is no file"):
        keep(tmp_path / "nowhere.toml", out)


def test_other_contrasts_do_not_take_its_place(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    keep(file, out)
    file.write_text(TEXT.replace("effort", "area"))
    with pytest.raises(ConfigurationError, match="has other contrasts than"):
        keep(file, out)
    assert (out / CONTRASTS).read_text() == TEXT


def test_it_cannot_be_named_after_the_run(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for strategy, seed, dataset in (("auto", 99, "glas"), ("margin", 100, "glas"), ("auto", 100, "camvid")):
        results.append(out / RESULTS, row(strategy, seed, 0, 0.5, dataset=dataset))
    keep(file, out)  # other rows are nothing to it
    (out / CONTRASTS).unlink()
    results.append(out / RESULTS, row("random", 102, 0, 0.5))
    with pytest.raises(ConfigurationError, match=r"has rows of runs that .* names: what is compared is named before"):
        keep(file, out)
    assert not (out / CONTRASTS).exists()
