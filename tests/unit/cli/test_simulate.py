"""`nextmask simulate`: what it refuses before any training, what it shows, and that stopping it loses nothing."""

from __future__ import annotations

import csv
import fcntl
import io
import os
import signal
import subprocess
import sys
from dataclasses import fields
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tiny_datasets
from command_line import Command, Ended
from rich.console import Console
from simulated_rows import row, simulated
from typer.testing import CliRunner
from wiring import Clock

from ml_backend.cli.app import app
from ml_backend.cli.simulation_options import Simulate
from ml_backend.cli.simulation_progress import Display, summary
from ml_backend.datasets import open_dataset
from ml_backend.simulation import results
from ml_backend.simulation.options import Options
from ml_backend.simulation.plan import Contender, Plan
from ml_backend.simulation.processes import Run
from ml_backend.simulation.report.analysis import analyse
from ml_backend.simulation.report.findings import UNKNOWN
from ml_backend.simulation.results import RESULTS
from ml_backend.system.progress import step

QUICK = ("--preset", "quick", "--device", "cpu")
SHORT = (*QUICK, "--iterations", "4", "--passes", "0", "--members", "2", "--rounds", "1", "--input-size", "32")
STRATEGIES = ("full", "random", "entropy", 'cereals:{"iterations": 5}')


def arguments(*given: object) -> list[str]:
    return [str(one) for one in given]


def strategies(*names: str) -> list[str]:
    return [part for name in names for part in ("--strategy", name)]


@pytest.fixture
def simulate(nextmask: Command) -> Command:
    """Run the command."""
    return partial(nextmask, "simulate")


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    return tiny_datasets.own(
        tmp_path / "cells", splits={"train": 10, "test": 3}, classes=("background", "cell", "nucleus")
    )


@pytest.fixture
def streets(tmp_path: Path) -> Path:
    return tiny_datasets.camvid(tmp_path / "streets")


# -- help ------------------------------------------------------------------------------------------------------------
def test_the_help_has_its_options_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    shown = CliRunner().invoke(app, ["simulate", "--help"]).output
    titles = ("What is labelled", "How every network is trained", "How networks are measured", "Running")
    places = [shown.index(title) for title in titles]
    assert places == sorted(places)
    assert "without DATASET, only that" in " ".join(shown.replace("│", " ").split())


# -- refused options -------------------------------------------------------------------------------------------------
REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "start too large": (("--start", "10"), r"--start 10 labels 10 of 10 training images of 'cells' at once.* smaller"),
    "start of everything": (("--start", "100%"), r"--start 100% labels 10 of 10"),
    "start is no amount": (("--start", "some"), r"--start 'some' is no amount of images: give a whole number from 1"),
    "step of half an image": (("--step", "0.5"), r"--step '0.5' is no amount of clicks: give a whole number from 1"),
    "step of nothing": (("--step", "0%"), r"--step '0%' is no amount"),
    "step too large": (
        ("--unit", "images", "--step", "20"),
        r"--step 20 \(images\) is more than the 9 images that are left",
    ),
    "unknown unit": (("--unit", "hours"), r"--unit 'hours' is unknown: use images, pixels, clicks\."),
    "unknown preset": (("--preset", "fast"), r"--preset 'fast' is unknown: use quick, cereals, "),
    "unknown strategy": (
        ("--strategy", "guess"),
        r"--strategy 'guess': unknown strategy 'guess'; available: .*entropy, ",
    ),
    "unknown option": (
        ("--strategy", 'entropy:{"beta": 1}'),
        r"--strategy 'entropy:.*': unknown option 'beta' of strategy 'entropy'; valid: ",
    ),
    "option out of range": (("--strategy", 'cereals:{"window": 0}'), r"--strategy 'cereals:.*': .*window"),
    "unknown preset of ceal": (
        ("--strategy", 'ceal:{"preset": "x"}'),
        r"--strategy .* unknown preset 'x'; valid: melanoma",
    ),
    "options that are no JSON": (("--strategy", "entropy:beta"), r"--strategy 'entropy:beta': expected NAME or NAME:"),
    "committee without dropout": (
        ("--strategy", "bald", "--dropout", "0"),
        r"bald compares the members of a committee, .* Give --dropout 0\.1",
    ),
    "dropout out of range": (("--dropout", "1"), r"DROPOUT = 1\.0 must be at least 0 and less than 1"),
    "unknown class": (
        ("--object-class", "gland"),
        r"--object-class 'gland' is no class of 'cells': use background, cell, nucleus\.",
    ),
    "network options no JSON": (("--network-options", "width=1"), r"--network-options 'width=1' is no JSON object"),
    "network options a list": (("--network-options", "[1]"), r"--network-options '\[1\]' is no JSON object"),
    "unknown network option": (
        ("--network-options", '{"depth": 9}'),
        r"depth.*[Vv]alid.*decoder_segmentation_channels",
    ),
    "unknown architecture": (("--architecture", "unett"), r"ARCHITECTURE = 'unett' is unknown\. Valid: .*unet"),
    "unknown encoder": (("--encoder", "resnet"), r"ENCODER = 'resnet' is unknown\. Did you mean "),
    "weights of another encoder": (("--encoder", "resnet18"), r"ENCODER_WEIGHTS"),
    "frozen without weights": (("--encoder-weights", "none"), r"--freeze-encoder .* Use pretrained weights, or"),
    "learning rate": (("--learning-rate", "-1"), r"learning_rate of a simulation must be positive, not -1\.0"),
    "measure on": (("--measure-on", "train"), r"--measure-on 'train' is unknown: use test, validation"),
    "measure at": (("--measure-at", "half"), r"--measure-at 'half' is unknown: use original, network"),
    "unknown device": (("--device", "tpu"), r"tpu"),
    "no seeds": (("--seeds", "0"), r"--seeds '0' are no seeds: give how many, such as 10, or the first and the last"),
    "contrasts of nothing": (("--contrasts", "no.toml"), r"--contrasts no\.toml is no file"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_option_is_refused_before_anything_is_trained(simulate: Command, cells: Path, name: str) -> None:
    given, message = REFUSED[name]
    ended = simulate(cells, "--out", "out", *QUICK, *given)
    assert ended.code == 2
    assert match(message, ended.message)
    assert not Path("out", "work").exists()


def test_without_matplotlib_it_says_so_before_anything_is_trained(
    simulate: Command, cells: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    ended = simulate(cells, "--out", "out", *SHORT)
    assert ended.code == 2
    assert match(
        r"curves are drawn by matplotlib, .* pip install 'nextmask\[simulation\]'.* --no-report", ended.message
    )
    assert not Path("out").exists()
    assert simulate(cells, "--out", "out", *SHORT, *strategies("random"), "--no-report").code == 0
    assert results.read(Path("out", RESULTS))
    assert simulate("--out", "out").code == 2


def match(pattern: str, text: str) -> bool:
    import re

    assert re.search(pattern, text), text
    return True


def test_ceal_for_melanoma_needs_a_background(simulate: Command, streets: Path) -> None:
    ended = simulate(streets, "--out", "out", *QUICK, *strategies('ceal:{"preset": "melanoma"}'))
    assert ended.code == 2
    assert match(r"looks for objects on a background, but the first class of 'streets' is 'sky'\. Leave", ended.message)


@pytest.mark.parametrize("given", [("--passes", "-1"), ("--rounds", "-1"), ("--jobs", "0"), ("--input-size", "8")])
def test_numbers_out_of_range_are_wrong_usage(simulate: Command, cells: Path, given: tuple[str, str]) -> None:
    ended = simulate(cells, "--out", "out", *given)
    assert ended.code == 2
    assert given[0] in ended.err
    assert not Path("out").exists()


@pytest.mark.timeout(120)
def test_a_step_that_no_image_fits_into(simulate: Command, cells: Path) -> None:
    ended = simulate(cells, "--out", "out", *SHORT, "--unit", "pixels", "--step", "2303")
    assert ended.code == 2
    assert match(
        r"--step 2303 is 2,303 pixels a round, less than the 2,304 of the smallest image\. Give --step 2304 or more, "
        r"what an image of 'cells' takes, or --unit images\.",
        ended.message,
    )
    assert not Path("out", RESULTS).exists()


# -- refused data ----------------------------------------------------------------------------------------------------
def test_data_that_are_no_folder(simulate: Command) -> None:
    ended = simulate("nowhere", "--out", "out", *QUICK)
    assert ended.code == 2
    assert match("nowhere is not a folder: give the folder that holds the data set", ended.message)


def test_a_missing_mask(simulate: Command, cells: Path) -> None:
    (cells / "masks/train/003.png").unlink()
    ended = simulate(cells, "--out", "out", *QUICK)
    assert ended.code == 2
    assert match(r"003\.png has no mask", ended.message)


def test_a_mask_of_another_size(simulate: Command, cells: Path) -> None:
    tiny_datasets.write(cells / "masks/test/011.png", np.zeros((48, 47), np.uint8))
    ended = simulate(cells, "--out", "out", *QUICK)
    assert ended.code == 2
    assert match(r"011\.png is 47x48 pixels, its image 011\.png is 48x48: both must have one size", ended.message)


def test_a_value_that_is_no_class(simulate: Command, cells: Path) -> None:
    tiny_datasets.write(cells / "masks/train/000.png", np.full((48, 48), 3, np.uint8))
    ended = simulate(cells, "--out", "out", *QUICK)
    assert ended.code == 2
    assert match(r"000\.png holds the value 3, but the classes are 0 to 2", ended.message)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (
            {"train": 8},
            r"'x' has no images in a split 'test', only in train: add test or val, .*--measure-on validation",
        ),
        ({"test": 8}, r"'x' has no images in a split 'train', only in test: put the images that can be labelled there"),
    ],
)
def test_a_missing_or_empty_split(simulate: Command, tmp_path: Path, splits: dict[str, int], message: str) -> None:
    folder = tiny_datasets.own(tmp_path / "x", splits=splits)
    for name in ("train", "test"):
        (folder / "images" / name).mkdir(exist_ok=True)
    ended = simulate(folder, "--out", "out", *QUICK)
    assert ended.code == 2
    assert match(message, ended.message)


@pytest.mark.timeout(120)
def test_data_in_which_nothing_is_labelled(simulate: Command, cells: Path) -> None:
    for mask in (cells / "masks/test").iterdir():
        tiny_datasets.write(mask, np.full((48, 48), 255, np.uint8))
    ended = simulate(cells, "--out", "out", *SHORT)
    assert ended.code == 2
    assert match(r"images of 'cells' that measure, none has a labelled pixel: all masks are 255", ended.message)
    assert not Path("out", RESULTS).exists()


# -- contrasts -------------------------------------------------------------------------------------------------------
@pytest.mark.timeout(300)
def test_what_is_compared_is_named_before_it_runs_and_tested_when_all_is_there(simulate: Command, cells: Path) -> None:
    named = Path("named.toml")
    named.write_text(
        '[[contrast]]\ndataset = "cells"\nstrategy = "entropy"\nagainst = "random"\nmeasure = "area"\nseeds = "3-4"\n'
        "rounds = 1\n"
    )
    given = (cells, "--out", "out", *SHORT, *strategies("random", "entropy"), "--contrasts", named, "--no-report")
    first = simulate(*given, "--seeds", "3-3")
    assert first.code == 0, first.err
    assert {one.seed for one in results.read(Path("out", RESULTS))} == {3}
    assert "entropy against random is not decided yet: 1 of 2 seeds are finished" in first.out
    second = simulate(*given, "--seeds", "3-4")
    assert second.code == 0, second.err
    assert "entropy against random, mean mIoU over the logarithm of clicks: " in second.out
    ended = simulate(*given[:2], "other", *given[3:], "--seeds", "3-3")
    assert ended.code == 0
    Path("other/contrasts.toml").unlink()
    ended = simulate(*given[:2], "other", *given[3:], "--seeds", "3-4")
    assert ended.code == 2
    assert match("other has rows of runs that named.toml names: what is compared is named before", ended.message)


# -- the folder of results -------------------------------------------------------------------------------------------
def test_a_folder_that_cannot_be_written(simulate: Command, cells: Path) -> None:
    Path("file").touch()
    ended = simulate(cells, "--out", "file/out", *QUICK)
    assert ended.code == 2
    assert match(r"--out file/out cannot be written to \(Not a directory\): give a folder that can", ended.message)


def test_rows_of_other_settings(simulate: Command, cells: Path) -> None:
    first = simulate(cells, "--out", "out", *SHORT, *strategies("full"), "--seeds", "1", "--no-report")
    assert first.code == 0, first.err
    assert [one.strategy for one in results.read(Path("out", RESULTS))] == ["full"]
    ended = simulate(cells, "--out", "out", *SHORT, *strategies("full"), "--iterations", "9", "--unit", "images")
    assert ended.code == 2
    assert match(
        r"rows of 'cells' with other settings \(iterations: 4 there, 9 now, unit: clicks there, images now\)\. Give "
        "another --out",
        ended.message,
    )
    assert len(results.read(Path("out", RESULTS))) == 1


def test_two_simulations_do_not_write_to_one_folder(simulate: Command, cells: Path) -> None:
    Path("out").mkdir()
    with Path("out/.lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        ended = simulate(cells, "--out", "out", *SHORT)
    assert ended.code == 2
    assert match("Another simulation is writing to out. Wait until it ends, or give another --out", ended.message)
    assert not Path("out", RESULTS).exists()


def test_another_file_in_the_place_of_results(simulate: Command, cells: Path) -> None:
    Path("out").mkdir()
    Path("out", RESULTS).write_text("image,score\n1,2\n")
    ended = simulate(cells, "--out", "out", *QUICK)
    assert ended.code == 2
    assert match("no results file of a simulation.* Give another --out", ended.message)


# -- the report alone ------------------------------------------------------------------------------------------------
def test_without_data_the_report_is_written(simulate: Command) -> None:
    for one in simulated({"random": 0.0, "entropy": 0.6}, seeds=range(3)):
        results.append(Path("out", RESULTS), one)
    ended = simulate("--out", "out")
    assert ended.code == 0, ended.err
    assert "Report: out/report.html" in ended.out
    assert "entropy" in Path("out/report.html").read_text()
    table = [line for line in ended.out.splitlines() if line.startswith("│")]
    assert [line.split("│")[1].strip() for line in table] == ["entropy", "random"]


def test_the_report_counts_other_clicks_without_another_training(simulate: Command) -> None:
    """30 points and masks of 20 clicks, 12 where they are mended, in three openings."""
    counts = {"points": 30, "opened": 3, "drawn": 20, "mended": 12}
    for seed in range(2):
        results.append(Path("out", RESULTS), row("random", seed, 0, 0.5, clicks=50.0, **counts))
        results.append(Path("out", RESULTS), row("full", seed, 0, 0.5, clicks=50.0, **counts))
    for given, clicks in (
        ((), 50),
        (("--point-clicks", "3", "--opening-clicks", "5"), 125),
        (("--mending",), 42),
        (("--mending", "--point-clicks", "3"), 102),
    ):
        ended = simulate("--out", "out", *given)
        assert ended.code == 0, ended.err
        with Path("out/summary.csv").open() as file:
            (line,) = csv.DictReader(file)
        assert float(line["effort_clicks"]) == pytest.approx(clicks)
    assert [one.clicks for one in results.read(Path("out", RESULTS))] == [50.0] * 4, "the rows stay as they are"


def test_rows_that_count_too_little_are_not_charged_anew(simulate: Command) -> None:
    results.append(Path("out", RESULTS), row("random", 0, 0, 0.5))
    ended = simulate("--out", "out", "--mending")
    assert ended.code == 2
    assert match("cannot be charged anew. Leave out --point-clicks, --opening-clicks and --mending", ended.message)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((), r"There are no results in --out out to report: give DATASET, the folder of a data set, or 'sample'\."),
        (("--no-report",), r"--no-report without DATASET leaves nothing to do: give the folder of a data set"),
    ],
)
def test_nothing_to_do(simulate: Command, given: tuple[str, ...], message: str) -> None:
    ended = simulate("--out", "out", *given)
    assert ended.code == 2
    assert match(message, ended.message)


# -- what is shown ---------------------------------------------------------------------------------------------------
def test_rows_come_as_lines_with_the_time_that_is_left(cells: Path) -> None:
    clock, shown_on = Clock(), io.StringIO()
    clock.now = 0.0
    plan = Plan(strategies=(Contender("full"), Contender("random")), seeds=(0,), rounds=2)
    with step(Console(file=shown_on), "simulation", clock=clock) as shown:
        display = Display(shown, clock)
        display.expect(plan, open_dataset(cells), [Run(Contender("full"), 0, 0), Run(Contender("random"), 0, 2)], 4)
        display.reading("reading images and masks", 1, 2)
        clock.now = 100.0
        display.reading("reading images and masks", 2, 2)
        for _ in range(2):  # processes
            display.budget("A round adds 8 clicks: about 1 image.")
        clock.now = 130.0
        display.row(row("full", 0, 0, 0.9, clicks=12345.0))
        clock.now = 190.0
        display.row(row("random", 0, 2, 0.8))
    assert shown_on.getvalue().splitlines() == [
        "simulation …",
        "cells: 10 images can be labelled, 3 measure. 2 networks are to be trained in 2 runs, 2 at a time.",
        "'full' is training on all labels, once with each seed: strategies are measured by it.",
        "simulation: reading images and masks …",
        "simulation: reading images and masks: 2 of 2, 1:40 min so far",
        "simulation: training networks …",
        "A round adds 8 clicks: about 1 image.",
        "full, seed 0, round 0: 10 images, 12,345 clicks, mIoU 0.900 (1 of 2, 30 s, about 30 s left)",
        "random, seed 0, round 2: 30 images, 300 clicks, mIoU 0.800 (2 of 2, 1:30 min, done)",
        "simulation: done in 3:10 min",
    ]


def test_the_table_says_what_is_not_known() -> None:
    (analysis,) = analyse([row("random", 0, 0, 0.5), row("[b]", 0, 0, 0.5)], 0.95, "clicks")
    table = summary(analysis)
    assert "no training on all labels yet" in str(table.title)
    assert [list(column.cells) for column in table.columns][2:6] == [[UNKNOWN, UNKNOWN]] * 4


# -- the whole -------------------------------------------------------------------------------------------------------
def command(*given: object) -> list[str]:
    return [sys.executable, "-m", "ml_backend", "simulate", *arguments(*given)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1", "COLUMNS": "80"}


def called(*given: object) -> Ended:
    ended = subprocess.run(command(*given), capture_output=True, text=True, env=environment(), timeout=300, check=False)
    return Ended(ended.returncode, ended.stdout, ended.stderr)


@pytest.mark.timeout(600)
def test_the_sample_data_from_the_first_row_to_the_report() -> None:
    given = ("sample", "--out", "out", *SHORT, *strategies(*STRATEGIES), "--seeds", "2", "--jobs", "1")
    first = called(*given)
    assert first.code == 0, first.err
    rows = results.read(Path("out", RESULTS))
    labels = [Contender.parse(name).label for name in STRATEGIES]
    expected = {(label, seed, number) for label in labels for seed in (0, 1) for number in (0, 1)}
    expected -= {("full", 0, 1), ("full", 1, 1)}
    assert {(one.strategy, one.seed, one.round) for one in rows} == expected
    assert [one.seed for one in rows] == sorted(one.seed for one in rows)
    assert len([line for line in first.err.splitlines() if " mIoU " in line]) == len(expected)
    assert "(14 of 14, " in first.err
    assert "Report: out/report.html" in first.out.splitlines()[-1]
    page = Path("out/report.html").read_text()
    assert page.count('src="data:image/png') >= 3  # one picture of each strategy at least
    for axis in ("clicks", "images", "pixels"):
        assert Path(f"out/curves-icbm152-{axis}.svg").stat().st_size > 1000
    assert sum(1 for _ in Path("out/pictures/icbm152").glob("*/01.png")) == 3

    written = Path("out", RESULTS).read_bytes()
    second = called(*given)
    assert second.code == 0, second.err
    assert "nothing to run" in second.out
    assert "mIoU" not in second.err
    assert Path("out", RESULTS).read_bytes() == written


@pytest.mark.timeout(600)
def test_ctrl_c_ends_it_and_the_same_command_goes_on(cells: Path) -> None:
    given = (cells, "--out", "out", *SHORT, *strategies("random", "entropy"), "--seeds", "2", "--no-report")
    process = subprocess.Popen(
        command(*given),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
        # A test run in the background ignores Ctrl-C, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "mIoU" in line:
            break
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the workers get it, too
    _, rest = process.communicate(timeout=20)
    assert process.returncode == 130, "".join(lines) + rest
    assert "the same command goes on" in rest  # not always at the end: multiprocessing warns when its tracker is late
    assert "Traceback" not in rest
    before = results.read(Path("out", RESULTS))
    assert 1 <= len(before) < 10

    second = called(*given)
    assert second.code == 0, second.err
    rows = results.read(Path("out", RESULTS))
    assert rows[: len(before)] == before
    assert len(rows) == 10  # two of them the reference, which nobody has to ask for
    assert second.err.count("mIoU") == 10 - len(before)


def test_every_option_of_a_plan_can_be_given() -> None:
    assert {field.name for field in fields(Options)} <= {field.name for field in fields(Simulate)}
