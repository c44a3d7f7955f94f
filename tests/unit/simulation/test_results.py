"""The file of rows: what is written is read, also after a line was cut off anywhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from simulated_data import plan
from simulated_rows import row

from ml_backend.errors import ConfigurationError
from ml_backend.simulation.results import COLUMNS, Row, append, read

SETTINGS = plan().settings_text()


def example(number: int, **changes: object) -> Row:
    """A row as a simulation writes it: settings are JSON, with commas and quotation marks."""
    made = row('ceal:{"threshold": 0.5}', 0, number, 0.5, settings=SETTINGS, commit="0123456789+")
    return replace(made, **changes)  # type: ignore[arg-type]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "results.csv"
    rows = [example(0), example(1, object_f1=0.25, object_dice=0.5), example(2, dataset='a "b", c', commit="")]
    for one in rows:
        append(file, one)
    assert read(file) == rows
    assert file.read_text().count("dataset,") == 1


def test_numbers_keep_six_digits(tmp_path: Path) -> None:
    append(tmp_path / "x", example(0, miou=1 / 3, clicks=12345678, pixels=123456789012))
    (found,) = read(tmp_path / "x")
    assert (found.miou, found.clicks, found.pixels) == (0.333333, 12345678, 123456789012)
    assert isinstance(found.pixels, int)


def test_a_row_is_on_the_disk_at_once(tmp_path: Path) -> None:
    for number in range(3):
        append(tmp_path / "x", example(number))
        assert len(read(tmp_path / "x")) == number + 1


def test_without_a_file_there_are_no_rows(tmp_path: Path) -> None:
    assert read(tmp_path / "x") == []
    (tmp_path / "x").write_bytes(b"")
    assert read(tmp_path / "x") == []
    append(tmp_path / "x", example(0))
    assert read(tmp_path / "x") == [example(0)]


def test_a_last_line_that_was_cut_off_is_left_out_and_replaced(tmp_path: Path) -> None:
    """Anywhere: inside the settings, too, where a quotation mark is open."""
    for number in range(2):
        append(tmp_path / "x", example(number))
    before = (tmp_path / "x").stat().st_size
    append(tmp_path / "x", example(2))
    whole = (tmp_path / "x").read_bytes()
    for length in range(before, len(whole)):
        cut = tmp_path / "cut"
        cut.write_bytes(whole[:length])
        assert read(cut) == [example(0), example(1)], whole[before:length]
        append(cut, example(2))
        append(cut, example(3))
        assert read(cut) == [example(number) for number in range(4)], whole[before:length]


def test_a_header_that_was_cut_off_is_written_anew(tmp_path: Path) -> None:
    append(tmp_path / "x", example(0))
    header = (tmp_path / "x").read_bytes().split(b"\n")[0]
    for length in (1, 10, len(header)):
        (tmp_path / "x").write_bytes(header[:length])
        assert read(tmp_path / "x") == []
        append(tmp_path / "x", example(0))
        assert read(tmp_path / "x") == [example(0)]


@pytest.mark.parametrize("text", ["a,b\n", "dataset\n", "some text", "dataset,strategy,seed,miou\nx,y,0,0.5\n"])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "notes.csv").write_text(text)
    with pytest.raises(ConfigurationError, match=r"notes\.csv is no results file.*expected 'dataset.*another --out"):
        read(tmp_path / "notes.csv")


@pytest.mark.parametrize(("column", "value"), [("seed", "one"), ("miou", "high"), ("round", "1.5"), ("pixels", "")])
def test_a_wrong_value_is_named(tmp_path: Path, column: str, value: str) -> None:
    append(tmp_path / "x", example(0))
    append(tmp_path / "x", row("random", 0, 1, 0.5, settings="{}"))
    lines = (tmp_path / "x").read_text().splitlines()
    values = lines[-1].split(",")
    values[COLUMNS.index(column)] = value
    (tmp_path / "x").write_text("\n".join([*lines[:-1], ",".join(values)]) + "\n")
    with pytest.raises(ConfigurationError, match=rf"line 3: .*{value!r}.*Mend or remove the line"):
        read(tmp_path / "x")


def test_of_two_rows_with_one_key_the_later_counts(tmp_path: Path) -> None:
    for one in (example(0, miou=0.1), example(1), example(0, miou=0.9)):
        append(tmp_path / "x", one)
    assert read(tmp_path / "x") == [example(1), example(0, miou=0.9)]


@pytest.mark.parametrize("change", [{"dataset": "y"}, {"strategy": "y"}, {"seed": 9}, {"round": 9}])
def test_a_key_is_what_tells_rows_apart(change: dict[str, object]) -> None:
    assert replace(example(0), **change).key != example(0).key  # type: ignore[arg-type]
    assert replace(example(0), miou=0.9, settings="", commit="").key == example(0).key


# -- files of releases that counted no points --------------------------------------------------------------------------
def test_a_file_of_an_earlier_release_is_read_and_goes_on(tmp_path: Path) -> None:
    """What it does not count is not known; its columns stay as they are."""
    file = tmp_path / "x"
    append(file, example(0))
    lines = [line.split(",") for line in file.read_text().splitlines()]
    earlier = len(COLUMNS) - 6
    header = lines[0][:earlier]
    file.write_text(",".join(header) + "\n" + ",".join(lines[1][:-6]) + "\n")
    assert read(file) == [example(0)]
    append(file, example(1, points=30, opened=3, drawn=40, mended=20, rest=5, rest_mended=7))
    assert read(file) == [example(0), example(1)]
    assert file.read_text().splitlines()[0] == ",".join(header)


def test_what_other_prices_need_is_written(tmp_path: Path) -> None:
    rows = [example(0, points=30, opened=3, drawn=40, mended=20, rest=5, rest_mended=0), example(1, points=0)]
    for one in rows:
        append(tmp_path / "x", one)
    assert read(tmp_path / "x") == rows
