"""Whole simulations of tiny networks: stopped anywhere they go on to the same rows; failures stay where they are."""

from __future__ import annotations

import functools
import os
import queue
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import children, is_running, wait_for
from simulated_data import material, plan, with_mask, without_rest, without_seconds, write_dataset
from simulated_rows import row

from ml_backend.datasets import Dataset, sample_dataset
from ml_backend.errors import ConfigurationError, TrainingError
from ml_backend.simulation import processes as running
from ml_backend.simulation import results
from ml_backend.simulation.checks import read
from ml_backend.simulation.choices import Choices
from ml_backend.simulation.choosing import initial_choice
from ml_backend.simulation.experiment import Experiment
from ml_backend.simulation.labels import Labels
from ml_backend.simulation.material import Material
from ml_backend.simulation.plan import Amount, Contender, Plan
from ml_backend.simulation.presets import plan_of
from ml_backend.simulation.processes import RESULTS, Run, missing, run
from ml_backend.simulation.results import Row
from ml_backend.simulation.training.trainer import Trained, Trainer
from strategies.base import Ranking, Round
from strategies.points import Points

pytestmark = pytest.mark.usefixtures("one_thread")

CERTAIN = 'ceal:{"threshold": 1.0, "decay": 0}'
VAAL = 'vaal:{"epochs": 1, "latent": 4, "warm_epochs": 1, "width": 4}'
CEREALS = 'cereals:{"iterations": 3, "stride": 8, "window": 16}'


@pytest.fixture(scope="module")
def data() -> Material:
    return material(8, 2)


def rows_of(
    made: Plan, data: Material, folder: Path, strategy: str, *, seed: int = 0, done: int = 0, most: int = 99
) -> list[Row]:
    """Make rows that are missing, as a worker does, and stop after `most` of them as a killed one."""
    torch.manual_seed(int(time.time()))  # nothing may depend on it
    rows: list[Row] = []
    generator = Experiment(made, data, folder, "code").rows(Contender.parse(strategy), seed, done)
    for one in generator:
        rows.append(one)
        if len(rows) == most:
            break
    generator.close()  # type: ignore[attr-defined]
    return rows


# -- a run -------------------------------------------------------------------------------------------------------------
def test_a_run(data: Material, tmp_path: Path) -> None:
    """Two images, and two more in each of two rounds."""
    made = plan("entropy")
    rows = rows_of(made, data, tmp_path, "entropy")
    assert [(one.round, one.images) for one in rows] == [(0, 2), (1, 4), (2, 6)]
    choices = Choices(tmp_path, Contender("entropy"), 0).read()
    asked = [pick.number for choice in choices for pick in choice.picks]
    assert [len(choice.picks) for choice in choices] == [2, 2, 2]
    assert len(set(asked)) == 6
    for number, one in enumerate(rows):
        labelled = asked[: 2 * number + 2]
        assert one.pixels == sum(data.pool[image].area for image in labelled)
        assert one.clicks == sum(data.pool[image].outlines.clicks for image in labelled)
        assert (one.dataset, one.strategy, one.seed, one.commit) == ("shapes", "entropy", 0, "code")
        assert one.settings == made.settings_text()
        assert 0 <= one.miou <= one.dice <= 1
    assert rows[0].seconds_select == 0 < rows[1].seconds_select


def test_full_is_one_row_of_all_labels(data: Material, tmp_path: Path) -> None:
    rows = rows_of(plan("full"), data, tmp_path, "full")
    assert [(one.strategy, one.round, one.images) for one in rows] == [("full", 0, 8)]
    assert rows[0].clicks == sum(one.outlines.clicks for one in data.pool.values())
    assert rows_of(plan("full"), data, tmp_path, "full", done=1) == []


def test_all_strategies_of_a_seed_start_alike(data: Material, tmp_path: Path) -> None:
    made = plan("entropy", "random", CEREALS, unit="pixels", step=Amount(2 * 1920), rounds=0)
    first = {}
    for seed in (0, 1):
        for strategy in made.strategies:
            (one,) = without_seconds(rows_of(made, data, tmp_path, strategy.label, seed=seed))
            first[strategy.label, seed] = replace(one, strategy="any")
    assert len({first[label, 0] for label, _ in first}) == 1
    assert len({first[label, 1] for label, _ in first}) == 1
    assert first["random", 0] != first["random", 1]
    picks = {seed: Choices(tmp_path, Contender("random"), seed).read() for seed in (0, 1)}
    assert picks == {0: [], 1: []}  # nothing was asked for


def test_the_initial_images_follow_from_the_seed() -> None:
    first, again = (
        [initial_choice(pool, 3, seed).picks for seed in range(4)] for pool in (range(10), [*range(10)][::-1])
    )
    assert first == again
    assert all(len({pick.number for pick in picks}) == 3 for picks in first)
    assert len(set(first)) > 1


@pytest.mark.parametrize("unit", ["pixels", "clicks"])
def test_budgets_are_kept(data: Material, tmp_path: Path, unit: Any) -> None:
    """Each round adds the step, or more by less than its last label."""
    step = {"pixels": 3000, "clicks": 25}[unit]
    rows = rows_of(plan("random", unit=unit, step=Amount(step)), data, tmp_path, "random")
    spent = [getattr(one, unit) for one in rows]
    most = max(one.area if unit == "pixels" else one.outlines.clicks for one in data.pool.values())
    for before, after in pairwise(spent):
        assert step <= after - before < step + most


def test_windows_are_counted_in_pixels(data: Material, tmp_path: Path) -> None:
    made = plan(CEREALS, unit="pixels", step=Amount(4 * 256))
    rows = rows_of(made, data, tmp_path, CEREALS)
    assert [after.pixels - before.pixels for before, after in pairwise(rows)] == [1024, 1024]
    assert rows[2].images > rows[0].images
    assert rows[2].clicks > rows[0].clicks


def test_a_pool_that_is_used_up_ends_a_run(data: Material, tmp_path: Path) -> None:
    made = plan(step=Amount(5), rounds=5)
    rows = rows_of(made, data, tmp_path, "random")
    assert [one.images for one in rows] == [2, 7, 8]
    for _ in range(2):
        assert rows_of(made, data, tmp_path, "random", done=3) == []
    assert without_seconds(rows_of(made, data, tmp_path, "random", done=2)) == without_seconds(rows[2:])


def test_pseudo_labels_train_the_next_network_only(
    data: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that is not asked for is certain enough: of eight images four are labelled, then six."""
    trained: list[int] = []
    train = Trainer.train

    def counted(self: Trainer, labels: Labels, seed: int, pseudo_labels: dict[int, Any] | None = None) -> Trained:
        trained.append(len(pseudo_labels or {}))
        return train(self, labels, seed, pseudo_labels)

    monkeypatch.setattr(Trainer, "train", counted)
    rows = rows_of(plan(CERTAIN), data, tmp_path / "ceal", CERTAIN)
    assert trained == [0, 4, 2]
    assert [one.images for one in rows] == [2, 4, 6]
    plain = rows_of(plan("entropy"), data, tmp_path / "entropy", "entropy")
    assert rows[0].miou == plain[0].miou
    assert rows[1].clicks == plain[1].clicks  # the same labels
    assert rows[1].miou != plain[1].miou


# -- going on ----------------------------------------------------------------------------------------------------------
RUNS = {
    "random": {},
    "entropy": {"unit": "clicks", "step": Amount(20)},
    "suggestive_annotation": {},
    CERTAIN: {},
    VAAL: {},
    CEREALS: {"unit": "pixels", "step": Amount(4 * 256)},
}


Whole = Callable[[str], tuple[list[Row], Path]]


@pytest.fixture(scope="module")
def uninterrupted(data: Material, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Give the rows of a run that is never stopped, and a copy of the folder that it leaves."""
    folder = tmp_path_factory.mktemp("uninterrupted")

    @functools.cache
    def made(strategy: str) -> tuple[Row, ...]:
        return tuple(rows_of(plan(strategy, **RUNS[strategy]), data, folder / str(len(strategy)), strategy))

    def give(strategy: str) -> tuple[list[Row], Path]:
        rows = list(made(strategy))
        copy = tmp_path_factory.mktemp("copy") / "work"
        shutil.copytree(folder / str(len(strategy)), copy)
        return rows, copy

    return give


@pytest.mark.parametrize("strategy", RUNS)
def test_a_run_that_is_stopped_goes_on_to_the_same_rows(
    data: Material, tmp_path: Path, uninterrupted: Whole, strategy: str
) -> None:
    made = plan(strategy, **RUNS[strategy])
    whole, folder = uninterrupted(strategy)
    parts: list[Row] = []
    while len(parts) < 3:
        parts += rows_of(made, data, tmp_path / "parts", strategy, done=len(parts), most=1)
    assert without_seconds(parts) == without_seconds(whole)
    assert len({one.miou for one in whole}) > 1  # what is compared differs from row to row
    label = made.strategies[0]
    assert Choices(tmp_path / "parts", label, 0).read() == Choices(folder, label, 0).read()


@pytest.mark.parametrize(("strategy", "lost"), [(CERTAIN, 1), (CERTAIN, 2), ("random", 3)])
def test_rows_that_were_lost_are_made_again(data: Material, uninterrupted: Whole, strategy: str, lost: int) -> None:
    """A worker is ahead of the rows that are written when both are killed."""
    whole, folder = uninterrupted(strategy)
    again = rows_of(plan(strategy), data, folder, strategy, done=3 - lost)
    assert without_seconds(again) == without_seconds(whole[-lost:])


@pytest.mark.parametrize("done", [1, 2])
@pytest.mark.parametrize("strategy", [CERTAIN, VAAL])
def test_a_run_that_is_killed_before_its_choice_is_written_down_goes_on(
    data: Material, tmp_path: Path, uninterrupted: Whole, monkeypatch: pytest.MonkeyPatch, strategy: str, done: int
) -> None:
    """What the strategy has learned and predicted is there already; what it has chosen is not."""
    made = plan(strategy)
    whole, _ = uninterrupted(strategy)
    write = Choices.write

    def killed(file: Choices, choices: list[Any]) -> None:
        if len(choices) > done:
            raise KeyboardInterrupt
        write(file, choices)

    monkeypatch.setattr(Choices, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        rows_of(made, data, tmp_path / "parts", strategy)
    monkeypatch.setattr(Choices, "write", write)
    again = rows_of(made, data, tmp_path / "parts", strategy, done=done)
    assert without_seconds(again) == without_seconds(whole[done:])


def test_more_rounds_go_on(data: Material, tmp_path: Path, uninterrupted: Whole) -> None:
    whole, _ = uninterrupted("random")
    rows = rows_of(plan(rounds=1), data, tmp_path / "parts", "random")
    rows += rows_of(plan(rounds=2), data, tmp_path / "parts", "random", done=2)
    assert without_seconds(map(without_rest, rows)) == without_seconds(map(without_rest, whole))
    assert [one.rest is None for one in rows] == [True, False, False], "each was the last of its plan"


def test_the_truth_of_what_is_not_labelled_changes_no_row(data: Material, tmp_path: Path) -> None:
    made = plan("entropy")
    whole = rows_of(made, data, tmp_path / "a", "entropy")
    asked = {pick.number for choice in Choices(tmp_path / "a", Contender("entropy"), 0).read() for pick in choice.picks}
    noise = np.random.default_rng(0).integers(0, 3, (40, 48)).astype(np.uint8)
    pool = {number: one if number in asked else with_mask(one, noise) for number, one in data.pool.items()}
    other = rows_of(made, replace(data, pool=pool), tmp_path / "b", "entropy")
    assert len(asked) == 6
    assert without_seconds(map(without_rest, other)) == without_seconds(map(without_rest, whole))
    assert other[-1].rest_mended != whole[-1].rest_mended, "what is left to mend is counted on the truth"


# -- what is missing ---------------------------------------------------------------------------------------------------
def test_runs_go_seed_by_seed() -> None:
    made = plan("full", "random", "entropy", seeds=(0, 1))
    assert [(one.contender.label, one.seed, one.done) for one in missing(made, "shapes", [])] == [
        (name, seed, 0) for seed in (0, 1) for name in ("full", "random", "entropy")
    ]


def test_runs_that_are_there_are_not_made_again() -> None:
    made = plan("full", "random", "entropy", seeds=(0, 1))
    text = {"dataset": "shapes", "settings": made.settings_text()}
    rows = [row("full", 0, 0, 0.5, **text), *(row("random", 0, number, 0.5, **text) for number in range(3))]
    rows += [row("entropy", 0, 0, 0.5, **text), row("full", 1, 0, 0.5, dataset="other")]
    assert missing(made, "shapes", rows) == [
        Run(Contender("entropy"), 0, 1),
        Run(Contender("full"), 1, 0),
        Run(Contender("random"), 1, 0),
        Run(Contender("entropy"), 1, 0),
    ]
    assert missing(replace(made, seeds=(0,), strategies=made.strategies[:2]), "shapes", rows) == []
    more = replace(made, seeds=(0,), strategies=made.strategies[:2], rounds=3)
    assert missing(more, "shapes", rows) == [Run(Contender("random"), 0, 3)]


def test_a_strategy_that_is_named_twice_runs_once() -> None:
    """Two runs of one name would write the same files at the same time."""
    made = plan('ceal:{"decay":0}', 'ceal:{"decay": 0}', "ceal")
    assert [one.contender.label for one in missing(made, "shapes", [])] == ['ceal:{"decay": 0}', "ceal"]


def test_rows_of_other_settings_are_refused() -> None:
    there = plan("random", iterations=7)
    rows = [row("random", 0, 0, 0.5, dataset="shapes", settings=there.settings_text())]
    with pytest.raises(ConfigurationError, match=r"'shapes' with other settings.*iterations.*another --out"):
        missing(plan("random"), "shapes", rows)
    assert len(missing(plan("random"), "another data set", rows)) == 1
    assert len(missing(there, "shapes", rows)) == 1


def test_commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a repository of its own: clean, changed, of others' files, and none."""

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.com"]
        done = subprocess.run(["git", *identity, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    file = tmp_path / "repository" / "package" / "part" / "running.py"
    file.parent.mkdir(parents=True)
    file.write_text("")
    monkeypatch.setattr(running, "__file__", str(file))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert running.commit() == ""
    git("init", "--quiet")
    (tmp_path / "notes").write_text("")
    git("add", "notes")
    git("commit", "--quiet", "-m", "of others")
    assert running.commit() == ""  # installed inside another project
    git("add", ".")
    git("commit", "--quiet", "-m", "all")
    assert running.commit() == git("rev-parse", "--short=10", "HEAD")
    assert len(running.commit()) == 10
    file.write_text("changed")
    assert running.commit() == git("rev-parse", "--short=10", "HEAD") + "+"


# -- processes ---------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_dataset(tmp_path_factory.mktemp("data"), {"train": 6, "test": 2})


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@dataclass
class Audience:
    """Keeps what it is told."""

    rows: list[Row] = field(default_factory=list)
    read: list[tuple[str, int, int]] = field(default_factory=list)
    budgets: list[str] = field(default_factory=list)

    def row(self, row: Row) -> None:
        self.rows.append(row)

    def reading(self, what: str, done: int, total: int) -> None:
        self.read.append((what, done, total))

    def budget(self, text: str) -> None:
        self.budgets.append(text)


@pytest.mark.usefixtures("quiet")
def test_a_run_that_fails_does_not_stop_the_others(
    opened: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bald of networks without dropout: `check` refuses it, a plan that was not checked fails at its first choice."""
    made = plan("bald", "random", dropout=0.0, rounds=1)
    monkeypatch.setattr(running, "commit", lambda: "0123456789+")
    told = Audience()
    with pytest.raises(
        TrainingError, match=r"1 of 2 runs failed; the first: bald, seed 0: ConfigurationError: .*DROPOUT"
    ):
        run(made, opened, tmp_path, jobs=1, audience=told)
    rows = results.read(tmp_path / RESULTS)
    assert [(one.strategy, one.round) for one in rows] == [("bald", 0), ("random", 0), ("random", 1)]
    assert without_seconds([replace(one, miou=0, dice=0) for one in told.rows]) == without_seconds(
        [replace(one, miou=0, dice=0) for one in rows]
    )
    assert told.read[-1] == ("reading images and masks", 8, 8)
    assert [*told.budgets] == ["A round adds 2 images."]
    assert {one.commit for one in rows} == {"0123456789+"}


class Gone:
    """A process that has ended."""

    exitcode = -9


def test_the_death_of_a_worker_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that it sent before are written."""
    monkeypatch.setattr(running, "WAIT_SECONDS", 0.01)
    found: queue.Queue[Any] = queue.Queue()
    found.put(("row", row("random", 0, 0, 0.5)))
    with pytest.raises(TrainingError, match=r"exit code -9.*memory.*--jobs.*Run the same command again"):
        running.collect([Gone()], found, tmp_path / "x", Audience())
    assert len(results.read(tmp_path / "x")) == 1


def test_what_a_worker_cannot_use_is_refused(tmp_path: Path) -> None:
    found: queue.Queue[Any] = queue.Queue()
    found.put(("refused", "--step 3 is too small"))
    with pytest.raises(ConfigurationError, match="--step 3 is too small"):
        running.collect([Gone()], found, tmp_path / "x", Audience())
    assert not (tmp_path / "x").exists()


def test_with_all_rows_there_is_nothing_to_run(opened: Dataset, tmp_path: Path) -> None:
    made = plan("full")
    results.append(tmp_path / RESULTS, row("full", 0, 0, 0.5, dataset="shapes", settings=made.settings_text()))
    before = (tmp_path / RESULTS).read_bytes()
    run(made, opened, tmp_path, jobs=1, audience=Audience())
    assert (tmp_path / RESULTS).read_bytes() == before


# -- the command, killed -----------------------------------------------------------------------------------------------
COMMAND = [
    "simulate sample --strategy random --strategy entropy --seeds 1 --rounds 2 --start 3 --step 3 --unit images",
    "--architecture fcn8s --freeze-encoder --input-size 32 --iterations 8 --passes 1 --batch-size 2",
    "--learning-rate 0.03 --measure-at network --device cpu --no-report --out",
]
STRATEGIES = ("full", "random", "entropy")
"""What it runs: all labels are trained on as well."""
COMMAND_RECIPE = {
    "architecture": "fcn8s",
    "train_encoder": False,
    "input_size": 32,
    "iterations": 8,
    "passes": 1,
    "batch_size": 2,
    "learning_rate": 0.03,
}


def simulate(out: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(running.__file__).parents[2])}
    words = " ".join(COMMAND).split()
    return subprocess.Popen(
        [sys.executable, "-m", "ml_backend", *words, str(out)], env=environment, stdout=-3, stderr=-3
    )


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_command_goes_on_after_it_was_killed(tmp_path: Path) -> None:
    """Its workers end with it, and the rows are those of a command that was never stopped."""
    file = tmp_path / "killed" / RESULTS
    process = simulate(file.parent)
    wait_for(lambda: len(results.read(file)) >= 2 or process.poll() is not None)
    workers = children(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert workers
    wait_for(lambda: not any(map(is_running, workers)), seconds=10)
    before = results.read(file)
    assert 2 <= len(before) < 7
    again = simulate(file.parent)
    values = {"strategies": tuple(map(Contender, STRATEGIES)), "seeds": (0,), "rounds": 2, "unit": "images"}
    values |= {"start": Amount(3), "step": Amount(3), "measure_at": "network", "device": "cpu"}
    made = plan_of(None, values, COMMAND_RECIPE)
    whole = [
        one
        for strategy in STRATEGIES
        for one in rows_of(made, read(made, sample_dataset(), Audience().reading), tmp_path / "whole", strategy)
    ]
    assert again.wait() == 0
    rows = results.read(file)
    assert rows[: len(before)] == before
    results_of = {one.key: one for one in without_seconds(rows)}
    for one in without_seconds(whole):  # written with six digits
        found = results_of.pop(one.key)
        assert found == replace(one, commit=found.commit, miou=found.miou, dice=found.dice)
        assert (found.miou, found.dice) == pytest.approx((one.miou, one.dice), rel=1e-5)
    assert not results_of
    assert len({one.miou for one in whole}) > 3  # what is compared differs from row to row


# -- points ------------------------------------------------------------------------------------------------------------
POINTS = 'points:{"count": 3, "apart": 2}'
RANDOM_POINTS = 'random_points:{"count": 3}'


@pytest.mark.parametrize("text", [POINTS, RANDOM_POINTS])
def test_points_are_asked_of_the_first_images_and_then_of_all(text: str, data: Material, tmp_path: Path) -> None:
    """Three points on two images; then six clicks a round, of which a point takes one."""
    made = plan(text, unit="clicks", step=Amount(6), rounds=4)
    rows = rows_of(made, data, tmp_path, text)
    assert [one.clicks for one in rows] == [6, 12, 18, 24, 30]
    assert [one.pixels for one in rows] == [6, 12, 18, 24, 30]
    choices = Choices(tmp_path, Contender.parse(text), 0).read()
    first = {pick.number for pick in initial_choice(data.pool, 2, 0).picks}
    assert {pick.number for pick in choices[0].picks} == first, "as all strategies of this seed"
    asked = [(pick.number, *point) for choice in choices for pick in choice.picks for point in pick.points]
    assert len(asked) == len(set(asked)) == 30
    assert len({number for number, *_ in asked}) > 2


def test_points_stopped_anywhere_go_on_to_the_same_rows(data: Material, tmp_path: Path) -> None:
    made = plan(POINTS, unit="clicks", step=Amount(6))
    whole = rows_of(made, data, tmp_path / "whole", POINTS)
    for most in (1, 2):
        folder = tmp_path / str(most)
        begun = rows_of(made, data, folder, POINTS, most=most)
        rest = rows_of(made, data, folder, POINTS, done=most)
        assert without_seconds([*begun, *rest]) == without_seconds(whole)


def test_points_do_not_change_what_others_start_with(data: Material, tmp_path: Path) -> None:
    """The network of the first masks is shared, that of the first points is not."""
    alone = rows_of(plan("random"), data, tmp_path / "alone", "random")
    rows_of(plan(POINTS), data, tmp_path / "after", POINTS)
    assert without_seconds(rows_of(plan("random"), data, tmp_path / "after", "random")) == without_seconds(alone)


def test_points_end_when_nothing_is_left_to_ask(tmp_path: Path) -> None:
    """In images of 32 pixels, points 20 apart: a few of each, and then no more."""
    few = material(3, 1)
    text = 'points:{"count": 5, "apart": 20}'
    rows = rows_of(plan(text, unit="clicks", step=Amount(100), rounds=9), few, tmp_path, text)
    assert 1 < len(rows) < 10
    assert rows[-1].images == 3


# -- masks after points, and what other prices need --------------------------------------------------------------------
class Switching(Points):
    """Asks for points at first, and from its first ranking on for the masks of the same images, but for one."""

    def _ranking(self, round: Round) -> Ranking:
        points = super()._ranking(round)
        if not round.known:
            return points
        known = sorted(round.known)
        order = [*known, *(image for image in points.ids if image not in round.known)]
        one = order[len(known)]
        return Ranking(
            ids=tuple(order),
            priority=points.priority,
            points={one: points.points[one]},
            regions=dict.fromkeys(known, ()),
        )


def test_masks_follow_points_of_the_same_images(
    data: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two images get three points each, then their masks, and a third one points; all of it is charged."""
    monkeypatch.setattr(Contender, "make", lambda _: Switching(count=3, apart=2))
    made = plan(POINTS, unit="images", step=Amount(3), rounds=1)
    first, second = rows_of(made, data, tmp_path, POINTS)
    choices = Choices(tmp_path, Contender.parse(POINTS), 0).read()
    drawn = [pick.number for pick in choices[1].picks if pick.is_whole]
    assert sorted(drawn) == sorted(pick.number for pick in choices[0].picks)
    assert (first.points, first.opened, first.drawn, first.clicks) == (6, 2, 0, 6)
    clicks = sum(data.pool[number].outlines.clicks for number in drawn)
    assert (second.points, second.opened, second.drawn, second.clicks) == (9, 5, clicks, 9 + clicks)
    assert second.images == 3
    assert second.pixels == sum(data.pool[number].area for number in drawn) + 3
    assert second.mended is not None
    assert 0 <= second.mended <= clicks
    assert dict(choices[1].mending).keys() == set(drawn)


def test_masks_of_later_rounds_are_mended_from_what_the_network_predicts(data: Material, tmp_path: Path) -> None:
    first, second, third = rows_of(plan("random"), data, tmp_path, "random")
    assert first.mended == first.drawn == first.clicks, "nothing is predicted yet"
    assert second.drawn is not None
    assert second.mended is not None
    assert second.mended <= second.drawn
    assert [first.rest, second.rest, third.rest] == [None, None, len(data.pool) - 6]
    assert third.rest_mended is not None
    drawn = sum(one.outlines.clicks for one in data.pool.values()) - int(third.clicks)
    assert 0 < third.rest_mended <= drawn
    (full,) = rows_of(plan("full"), data, tmp_path, "full")
    assert (full.drawn, full.mended, full.rest, full.rest_mended) == (full.clicks, full.clicks, 0, 0)


def test_each_round_may_add_more_than_the_one_before(data: Material, tmp_path: Path) -> None:
    rows = rows_of(plan("random", step=Amount(1), growth=2.0), data, tmp_path, "random")
    assert [one.images for one in rows] == [2, 3, 5]
    assert '"growth":2.0' in rows[0].settings
    assert "growth" not in plan("random").settings_text()


def test_opening_an_image_is_charged_for_every_strategy(data: Material, tmp_path: Path) -> None:
    made = plan(RANDOM_POINTS, unit="clicks", step=Amount(30), rounds=1, point_clicks=2, opening_clicks=5)
    rows = rows_of(made, data, tmp_path, RANDOM_POINTS)
    assert [one.clicks for one in rows] == [2 * (3 * 2 + 5), 2 * 11 + 3 * 11], "an image takes eleven"
    plain, dear = (
        rows_of(replace(plan("random"), opening_clicks=opening), data, tmp_path / str(opening), "random")
        for opening in (0, 5)
    )
    assert [one.clicks - other.clicks for one, other in zip(dear, plain, strict=True)] == [10, 20, 30]


@pytest.mark.parametrize(("worth", "is_points"), [(1, True), (100_000, False)])
def test_auto_begins_with_points_and_goes_on_with_what_teaches_more(
    worth: int, is_points: bool, data: Material, tmp_path: Path
) -> None:
    """Of what a mask teaches three points teach 95 %, or next to nothing."""
    text = f'auto:{{"points": 3, "worth": {worth}}}'
    rows = rows_of(plan(text, unit="clicks", step=Amount(12), rounds=2), data, tmp_path, text)
    first, *later = Choices(tmp_path, Contender.parse(text), 0).read()
    assert [len(pick.points) for pick in first.picks] == [3, 0], "one mask, to know what it takes"
    kinds = [pick.is_whole for choice in later for pick in choice.picks]
    assert len(kinds) >= 2
    assert sum(kinds) <= 1 if is_points else all(kinds)  # one mask may be asked for to see what it takes now
    assert rows[-1].drawn > rows[0].drawn or is_points
