"""What a project on a CPU settles on, by trials after ten and twenty labels, and what that gives: test mIoU and time.

    python benchmarks/choice.py FOLDER… [--seeds 0] [--out benchmarks/results/choice.csv]

FOLDER is a data set (docs/datasets.md) or `sample`. Labels come in as in training.py: ten, twenty, then forty, and a
version is trained each time. After the first two a trial trains the other way on the same labels, and what measures
better on the held-out ones goes on. Where that is an encoder that learns, the frozen one is trained beside it. The
number of steps is fixed to what two quiet cores take in the time of a training, so that a busy machine changes no mIoU;
seconds are those of the processor. The rows of training.py for the same seeds stand beside these in the table.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from training import add, data_of, job_of, queue, rows_of, test_miou

from ml_backend.learning.checkpoints import Checkpoints, Version
from ml_backend.learning.training import process

FIELDS = ("dataset", "seed", "labels", "chain", "trial", "learns", "accepted", "steps", "training_s", "queue_s")
FIELDS = (*FIELDS, "measured", "parent", "miou")
LABELS, POOL = (10, 20, 40), 300
STEPS = {False: {10: 150, 20: 240, 40: 480}, True: {10: 150, 20: 150, 40: 150}}
"""By whether the encoder learns: steps in two minutes of two quiet cores, where a step takes 0.2 and 0.75 s."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", metavar="FOLDER")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/choice.csv"))
    parser.add_argument("--before", type=Path, default=Path("benchmarks/results/training.csv"))
    options = parser.parse_args()
    for seed in options.seeds:
        for folder in options.datasets:
            known = {(row["dataset"], row["seed"]) for row in rows_of(options.out)}
            if (Path(folder).name, str(seed)) not in known:
                for row in play(folder, seed):
                    print(json.dumps(row), flush=True)
                    add(options.out, [row], FIELDS)
    report(rows_of(options.out), rows_of(options.before))


@dataclass
class Chain:
    """The versions of a project, one after another.

    Attributes:
        serving: number of the version that serves.
        learns: whether the encoder learns.
    """

    folder: Path
    dataset: Any
    labels: Sequence[Any]
    pool: Sequence[Any]
    row: dict[str, Any]
    serving: int | None = None
    learns: bool = False
    seconds: dict[str, float] = field(default_factory=dict)

    def train(self, count: int, *, trial: bool = False, queue_too: bool = False) -> dict[str, Any]:
        """Train a version on some labels, or try the other way; publish it where it is accepted."""
        learns = self.learns is not trial
        job = job_of(self.dataset.classes, self.labels[:count], self.checkpoints, self.serving, self.row["seed"])
        job = dataclasses.replace(job, trial=trial, train_encoder=learns, iterations=STEPS[learns][count])
        if trial and not learns:
            job = dataclasses.replace(job, train_from="scratch")
        began = resource.getrusage(resource.RUSAGE_CHILDREN)
        number = process.run(job, progress=lambda _: None, heartbeat=lambda: None)
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        version = self.checkpoints.get(number)
        if version.record.accepted:
            self.serving, self.learns = number, learns
            self.checkpoints.publish(number)
        return {
            **self.row,
            "labels": len(self.labels[:count]),
            "trial": trial,
            "learns": learns,
            "accepted": version.record.accepted,
            "steps": version.record.measures["iterations"],
            "training_s": round(ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime, 1),
            "measured": version.record.measures["miou"],
            "parent": version.record.measures["parent_miou"],
            **self.tested(version, count, queue_too=queue_too),
        }

    def tested(self, version: Version, count: int, *, queue_too: bool) -> dict[str, Any]:
        """Measure a version on the test images; rank and predict with it, if its seconds are wanted."""
        from ml_backend.learning.networks import MapFolder
        from ml_backend.learning.prediction.predictors import load_predictor

        began, seconds = time.process_time(), ""
        if queue_too:
            _, _, predictor = queue(self.checkpoints, version.number, self.pool, self.labels[:count], self.folder)
            seconds = str(round(time.process_time() - began, 1))
        else:
            maps = MapFolder(self.folder / "maps", 2_500_000_000)
            predictor = load_predictor(self.checkpoints, version, "cpu", maps)
        return {"queue_s": seconds, "miou": round(test_miou(predictor, self.dataset), 4)}

    @property
    def checkpoints(self) -> Checkpoints:
        return Checkpoints(self.folder / "model")


def play(folder: str, seed: int) -> Iterator[dict[str, Any]]:
    """Play a project; yield a row for each version."""
    dataset, labels, pool = data_of(folder, seed)
    row = {"dataset": Path(folder).name, "seed": seed, "chain": "choice"}
    with tempfile.TemporaryDirectory() as name:
        chain = Chain(Path(name), dataset, labels, pool, row)
        for count in LABELS:
            yield chain.train(count, queue_too=count == LABELS[-1])
            if count < LABELS[-1]:
                yield chain.train(count, trial=True)
        if chain.learns:
            frozen = dataclasses.replace(chain, row=row | {"chain": "frozen"}, serving=1, learns=False)
            for count in LABELS[1:]:
                yield frozen.train(count, queue_too=count == LABELS[-1])


# -- what the rows say -------------------------------------------------------------------------------------------------
def report(rows: Sequence[dict[str, str]], before: Sequence[dict[str, str]]) -> None:
    """Print a line for each version: its test mIoU, beside that of the default of before with the same labels."""
    earlier = {(row["dataset"], row["seed"], row["labels"]): row["miou"] for row in before if row["code"] == "before"}
    print("| data | seed | labels | | encoder | training, s | queue, s | held-out mIoU | test mIoU | before |")
    print("|---|--:|--:|---|---|--:|--:|--:|--:|--:|")
    for row in rows:
        what = "trial, " + ("chosen" if row["accepted"] == "True" else "kept back") if row["trial"] == "True" else ""
        what = what or ("without the choice" if row["chain"] == "frozen" else "")
        old = earlier.get((row["dataset"], row["seed"], row["labels"]))
        test = f"{float(row['miou']):.3f}" if row["miou"] else ""  # not tested: a row of training.csv has it
        encoder, held_out = "learns" if row["learns"] == "True" else "frozen", f"{float(row['measured']):.3f}"
        print(
            f"| {row['dataset']} | {row['seed']} | {row['labels']} | {what} "
            f"| {encoder} | {float(row['training_s']):.0f} | {row['queue_s']} "
            f"| {held_out} | {test} | {'' if old is None else f'{float(old):.3f}'} |"
        )
    chosen = [row for row in rows if row["chain"] == "choice" and row["labels"] == str(LABELS[-1])]
    gains = [
        float(r["miou"]) - float(earlier[r["dataset"], r["seed"], r["labels"]])
        for r in chosen
        if (r["dataset"], r["seed"], r["labels"]) in earlier
    ]
    if gains:
        print(f"\nwith the choice against before, {LABELS[-1]} labels: {np.round(gains, 3).tolist()}")


if __name__ == "__main__":
    main()
