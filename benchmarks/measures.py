"""How far the measure that is shown lies from the truth: simulated annotators, the rule of today and the one before it.

    python benchmarks/measures.py DATASET… --out benchmarks/results/measures.csv [--seeds 12]
    python benchmarks/measures.py --report benchmarks/results/measures.csv

All images of a data set are split anew for every seed: a pool that is labelled in rounds of ten, and test images, whose
true masks nobody but this script sees. A network is trained on the labels of each round, by the preset `quick` of
`nextmask simulate`; from the second round on the annotator is shown the newest network's mask and submits it

    accepts   as it is,
    half      with a random half of its wrong components corrected,
    all       with all of them corrected: the true mask,

and what measures is chosen by one of two rules:

    picks     (before) the strategy ranks all images, and a hash of the image keeps a fifth of what it picked for
              measuring; the annotator was shown a mask of those, too,
    audit     (today) an eighth of the pool is drawn at random, never ranked, put between what the strategy picks, and
              drawn without a mask.

Contrasts, written down before the first run; twelve seeds from 0 were a pilot, the committed rows are of those after:

    1. With `accepts`, the measure of `picks` in the last round is too high by more than 0.02, and the interval over the
       seeds of the error of `audit` includes 0.
    2. With `all`, the error of `audit` in the last round includes 0; that of `picks` is told whatever it is: what the
       strategy picks may be harder or easier than other images.
    3. Over all rounds, at least nine in ten of the intervals that are shown with `audit` hold the true value.

A row is a version: what is shown of it (mIoU over the labels that measure, with its interval), and the truth (mIoU
over the test images); the same for what ten more labels brought.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from ml_backend.annotations import masks
from ml_backend.annotations.label_map import IGNORE_INDEX
from ml_backend.datasets import Dataset, open_dataset
from ml_backend.learning.measuring.counts import Counts, pixels_of
from ml_backend.learning.measuring.uncertainty import differences, estimates
from ml_backend.projects.audit import place_of
from ml_backend.simulation.choosing import Budgeted, Chooser
from ml_backend.simulation.labels import Labels, Pick
from ml_backend.simulation.material import Material, Picture, background_of, load
from ml_backend.simulation.plan import Contender, Plan
from ml_backend.simulation.presets import PRESETS
from ml_backend.simulation.report.statistics import mean_interval
from ml_backend.simulation.training.trainer import Trained, Trainer
from ml_backend.worker.audit_places import interleaved, places

ROUNDS = (10, 20, 30, 40)
"""Labels at each training."""
MOST_IMAGES = 90
"""Images of the pool, and of the test images, at most."""
ANNOTATORS = ("accepts", "half", "all")
RULES = ("picks", "audit")
STRATEGY = "auto"
AUDIT_SHARE, BEFORE_SHARE = 0.125, 0.2

Mask = NDArray[np.uint8]


@dataclass(frozen=True)
class Row:
    """A version: what is shown, and what is true. Gains are against the version before; None in the first round."""

    dataset: str
    rule: str
    annotator: str
    seed: int
    labels: int
    held_out: int
    shown: float | None
    low: float | None
    high: float | None
    true: float
    shown_gain: float | None
    gain_low: float | None
    gain_high: float | None
    true_gain: float | None


class Project:
    """A project that is labelled in rounds, by one rule, of one seed."""

    def __init__(self, material: Material, rule: str, seed: int, folder: Path) -> None:
        self._material, self._rule, self._seed, self._folder = material, rule, seed, folder
        plan = dataclasses.replace(PRESETS["quick"], strategies=(Contender(STRATEGY),), seeds=(seed,))
        self._plan: Plan = dataclasses.replace(plan, device="cpu")
        self._trainer = Trainer(self._plan, material, folder)
        order = np.random.default_rng([seed, 1]).permutation(sorted(material.pool)).tolist()
        self._order = [int(number) for number in order]
        self._audit = self._order[: round(AUDIT_SHARE * len(self._order))] if rule == "audit" else []

    def rows(self) -> Iterator[Row]:
        """Label the first ten, which are the same for all annotators, and go on with each of them."""
        first = self._next_numbers({}, None)
        truth = {number: self._truth(number) for number in first}
        trained = self._train(truth)
        for annotator in ANNOTATORS:
            labels, newest, before = dict(truth), trained, None
            for _ in ROUNDS:
                yield self._row(annotator, labels, newest, before)
                if len(labels) == ROUNDS[-1]:
                    break
                numbers = self._next_numbers(labels, newest)
                shown = self._trainer.masks(newest, tuple(numbers))
                for number in numbers:
                    labels[number] = self._answer(annotator, number, shown[number].numpy())
                newest, before = self._train(labels), newest

    # -- who labels what -----------------------------------------------------------------------------------------
    def _next_numbers(self, labels: Mapping[int, Mask], trained: Trained | None) -> list[int]:
        """Return the next ten images: ranked ones, and audit images at the places that production gives them."""
        count = next(total for total in ROUNDS if total > len(labels)) - len(labels)
        waiting = [number for number in self._audit if number not in labels]
        ranked = self._picked(labels, trained, count)
        if not waiting:
            return ranked
        order = list(labels)
        measured = [place for place, number in enumerate(order) if number in self._audit]
        since = len(order) - 1 - measured[-1] if measured else len(order)
        mixed, rest, _ = interleaved(ranked, waiting, places(AUDIT_SHARE, len(measured), since))
        return (mixed + rest)[:count]

    def _picked(self, labels: Mapping[int, Mask], trained: Trained | None, count: int) -> list[int]:
        open_numbers = [number for number in self._order if number not in self._audit]
        if trained is None:
            return open_numbers[:count]
        known = Labels(self._material.pool, self._material.background)
        known.add([Pick(number) for number in labels if number not in self._audit])
        chooser = Chooser(
            Contender(STRATEGY).make(),
            {number: self._material.pool[number] for number in open_numbers},
            self._plan.recipe,
            budget=Budgeted(count, "images"),
            seed=self._seed,
            file=self._folder / "strategy.pt",
        )
        return [pick.number for pick in chooser.choose(known, trained.predictor, None, len(labels)).picks]

    def _answer(self, annotator: str, number: int, shown: Mask) -> Mask:
        truth = self._truth(number)
        if number in self._audit or annotator == "all":
            return truth
        if annotator == "accepts":
            return np.where(truth == IGNORE_INDEX, IGNORE_INDEX, shown).astype(np.uint8)
        wrong, count = ndimage.label((shown != truth) & (truth != IGNORE_INDEX))
        random = np.random.default_rng([self._seed, number])
        mended = np.isin(wrong, 1 + np.flatnonzero(random.random(count) < 0.5))
        return np.where(mended | (truth == IGNORE_INDEX), truth, shown).astype(np.uint8)

    def _truth(self, number: int) -> Mask:
        truth: Mask = self._material.pool[number].mask.numpy()
        return truth

    # -- training and measuring ----------------------------------------------------------------------------------
    def _measures(self, number: int) -> bool:
        return number in self._audit if self._rule == "audit" else place_of(f"{number}", self._seed) < BEFORE_SHARE

    def _train(self, labels: Mapping[int, Mask]) -> Trained:
        drawn = {number: torch.from_numpy(mask) for number, mask in labels.items() if not self._measures(number)}
        return self._trainer.train(Labels(self._material.pool, self._material.background), self._seed, drawn)

    def _row(self, annotator: str, labels: Mapping[int, Mask], newest: Trained, before: Trained | None) -> Row:
        held_out = [number for number in labels if self._measures(number)]
        own = self._confusions(newest, held_out, labels)
        estimate = shown_measure(own)
        gain: tuple[float | None, ...] = (None, None, None, None)
        if before is not None:
            gain = (*shown_gain(own, self._confusions(before, held_out, labels)), _gain(newest, before))
        shown = (self._material.dataset, self._rule, annotator, self._seed, len(labels), len(held_out), *estimate)
        return Row(*shown, newest.measured.miou, *gain)

    def _confusions(self, trained: Trained, numbers: Sequence[int], labels: Mapping[int, Mask]) -> NDArray[np.int64]:
        """Return (N,C,C), rows are the labels, columns the predictions."""
        predicted, classes = self._trainer.masks(trained, tuple(numbers)), len(self._material.classes)
        counts = np.zeros((len(numbers), classes, classes), np.int64)
        for position, number in enumerate(numbers):
            known = labels[number] != IGNORE_INDEX
            counts[position] = masks.confusion(labels[number][known], predicted[number].numpy()[known], classes)
        return counts


def shown_measure(confusions: NDArray[np.int64]) -> tuple[float | None, float | None, float | None]:
    """Return mIoU of confusions (N,C,C) with the ends of its interval, as production shows them."""
    found = estimates(_counts(confusions)) if len(confusions) else None
    return (None, None, None) if found is None else (found.miou.value, found.miou.low, found.miou.high)


def shown_gain(newest: NDArray[np.int64], before: NDArray[np.int64]) -> tuple[float | None, float | None, float | None]:
    """Return how much more mIoU the newest version has on the same labels, with the ends of the interval."""
    found = differences(_counts(before), _counts(newest)) if len(newest) else None
    return (None, None, None) if found is None else (found.miou.value, found.miou.low, found.miou.high)


def _counts(confusions: NDArray[np.int64]) -> Counts:
    names = tuple(str(position) for position in range(len(confusions)))
    classes = tuple(str(index) for index in range(confusions.shape[1]))
    return Counts(classes, names, names, np.stack([pixels_of(own) for own in confusions]))


def _gain(newest: Trained, before: Trained) -> float:
    return newest.measured.miou - before.measured.miou


# -- the data ------------------------------------------------------------------------------------------------
def read(dataset: Dataset) -> list[Picture]:
    """Decode all images of a data set, at the size of the preset, numbered in order."""
    return load(
        dataset,
        dataset.all_samples(),
        input_size=PRESETS["quick"].recipe.input_size,
        device=torch.device("cpu"),
        outlined=True,
    )


def split(dataset: Dataset, pictures: Sequence[Picture], seed: int) -> Material:
    """Draw the pool and the test images of a seed, both at random from all images."""
    order = np.random.default_rng([seed, 0]).permutation(len(pictures)).tolist()
    half = min(MOST_IMAGES, len(order) // 2)
    pool = {pictures[number].number: pictures[number] for number in order[:half]}
    test = [pictures[number] for number in order[half : 2 * half]]
    return Material(dataset.name, dataset.classes, background_of(dataset), pool, test)


# -- rows ----------------------------------------------------------------------------------------------------
def read_rows(file: Path) -> list[Row]:
    """Return the rows of a file; none where there is no file."""
    if not file.exists():
        return []
    texts = {"dataset", "rule", "annotator"}
    whole = {"seed", "labels", "held_out"}
    with file.open(newline="") as lines:
        return [
            Row(**{name: _value(text, name in texts, name in whole) for name, text in row.items()})
            for row in csv.DictReader(lines)
        ]


def _value(text: str, is_text: bool, is_whole: bool) -> Any:
    if is_text:
        return text
    if is_whole:
        return int(text)
    return float(text) if text else None


def add_rows(file: Path, rows: Sequence[Row]) -> None:
    """Append rows; those of one project come together, so that a run that was stopped goes on behind the last."""
    is_new = not file.exists()
    with file.open("a", newline="") as lines:
        writer = csv.DictWriter(lines, [field.name for field in dataclasses.fields(Row)], lineterminator="\n")
        if is_new:
            writer.writeheader()
        for row in rows:
            values = dataclasses.asdict(row)
            writer.writerow(
                {name: round(value, 5) if isinstance(value, float) else value for name, value in values.items()}
            )


# -- the report ----------------------------------------------------------------------------------------------
def report(rows: Sequence[Row]) -> str:
    """Return the tables of docs/measures.md."""
    parts = []
    for dataset in dict.fromkeys(row.dataset for row in rows):
        own = [row for row in rows if row.dataset == dataset]
        seeds = len({row.seed for row in own})
        parts.append(f"### {dataset}, {seeds} seeds\n\n{_errors(own)}\n\n{_gains(own)}")
    return "\n\n".join(parts)


def _errors(rows: Sequence[Row]) -> str:
    lines = [
        "| rule | annotator | shown, last round | true | shown - true | typical error | intervals that hold |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for rule in RULES:
        for annotator in ANNOTATORS:
            own = [row for row in rows if (row.rule, row.annotator) == (rule, annotator) and row.shown is not None]
            last = [row for row in own if row.labels == ROUNDS[-1]]
            error = mean_interval([_shown(row) - row.true for row in last])
            typical = np.sqrt(np.mean([(_shown(row) - row.true) ** 2 for row in own]))
            held = [row.low <= row.true <= row.high for row in own if row.low is not None and row.high is not None]
            shown, true = np.mean([_shown(row) for row in last]), np.mean([row.true for row in last])
            lines.append(
                f"| {rule} | {annotator} | {shown:.3f} | {true:.3f} "
                f"| {error.mean:+.3f} ({error.low:+.3f} to {error.high:+.3f}) "
                f"| {typical:.3f} | {sum(held)} of {len(held)} |"
            )
    return "\n".join(lines)


def _gains(rows: Sequence[Row]) -> str:
    lines = [
        "| rule | annotator | shown gain - true gain | typical error | told from none | of those, wrong sign |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for rule in RULES:
        for annotator in ANNOTATORS:
            own = [row for row in rows if (row.rule, row.annotator) == (rule, annotator) and row.shown_gain is not None]
            errors = [(row.shown_gain or 0.0) - (row.true_gain or 0.0) for row in own]
            error = mean_interval(errors)
            told = [row for row in own if row.gain_low is not None and (row.gain_low > 0 or (row.gain_high or 0) < 0)]
            wrong = [row for row in told if ((row.shown_gain or 0) > 0) != ((row.true_gain or 0) > 0)]
            lines.append(
                f"| {rule} | {annotator} | {error.mean:+.3f} ({error.low:+.3f} to {error.high:+.3f}) "
                f"| {np.sqrt(np.mean(np.square(errors))):.3f} | {len(told)} of {len(own)} | {len(wrong)} |"
            )
    return "\n".join(lines)


def _shown(row: Row) -> float:
    if row.shown is None:
        raise ValueError(f"nothing was measured: {row}")
    return row.shown


def main() -> None:
    """Run what is missing, or print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="*", type=Path)
    parser.add_argument("--out", type=Path, default=Path("measures.csv"))
    parser.add_argument("--seeds", type=int, default=12, help="how many")
    parser.add_argument("--first", type=int, default=12, help="the first of them; those before were the pilot's")
    parser.add_argument("--report", type=Path)
    arguments = parser.parse_args()
    if arguments.report:
        print(report(read_rows(arguments.report)))
        return
    for folder in arguments.datasets:
        dataset = open_dataset(folder)
        pictures = read(dataset)
        for seed in range(arguments.first, arguments.first + arguments.seeds):
            for rule in RULES:
                if any(
                    (row.dataset, row.rule, row.seed) == (dataset.name, rule, seed) for row in read_rows(arguments.out)
                ):
                    continue
                with tempfile.TemporaryDirectory() as scratch:
                    rows = list(Project(split(dataset, pictures, seed), rule, seed, Path(scratch)).rows())
                add_rows(arguments.out, rows)
                print(f"{dataset.name} seed {seed} {rule}: {len(rows)} versions", flush=True)


if __name__ == "__main__":
    main()
