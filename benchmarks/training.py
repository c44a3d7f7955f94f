"""How long annotators wait for a new version and a new queue with default settings, before and after, in one run.

    python benchmarks/training.py FOLDER… [--before CHECKOUT] [--seeds 3] [--out benchmarks/results/training.csv]

FOLDER is a data set (docs/datasets.md) or `sample`; CHECKOUT is the code of an earlier release, whose defaults are
measured in turn with those of this code. A round goes as in production: ten labels come in, a version is trained in a
process of its own, all other images are ranked by the default strategy, the masks of the best 200 are predicted; then
forty labels (or all that there are) are there, and the same again. A fifth of the labels is held out; the network is
measured on the test images at their original size. Rows that are in the file already are not measured again.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import inspect
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

FIELDS = ("dataset", "code", "seed", "labels", "pool", "steps", "training_s", "ranking_s", "masks_s", "miou", "load")
POOL, WINDOW, LABELS, HELD_OUT = 300, 200, (10, 40), 5
T_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}
"""Student's t by degrees of freedom."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", metavar="FOLDER")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/training.csv"))
    parser.add_argument("--round", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.round is not None:
        for row in play(options.datasets[0], options.round):
            print(json.dumps(row))
        return
    codes = {"before": options.before, "now": Path(__file__).resolve().parents[1]}
    for seed in range(options.seeds):
        for dataset in options.datasets:
            for code, checkout in codes.items():
                if checkout is not None and not known(options.out, Path(dataset).name, code, seed):
                    add(options.out, measured(dataset, code, checkout, seed))
    report(rows_of(options.out))


# -- one round, in a process with the code that is measured ------------------------------------------------------------
def measured(dataset: str, code: str, checkout: Path, seed: int) -> list[dict[str, Any]]:
    """Play a round with the code of a checkout."""
    command = [sys.executable, str(Path(__file__).resolve()), dataset, "--round", json.dumps(seed)]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(checkout.resolve())},
    )
    return [json.loads(line) | {"code": code} for line in done.stdout.splitlines() if line.startswith("{")]


def play(folder: str, seed: int) -> Iterator[dict[str, Any]]:
    """Play a round; yield a row for each training."""
    from ml_backend.learning.checkpoints import Checkpoints

    dataset, labels, pool = data_of(folder, seed)
    with tempfile.TemporaryDirectory() as name:
        checkpoints = Checkpoints(Path(name) / "model")
        parent = None
        for count in LABELS:
            load = os.getloadavg()[0]
            began = time.monotonic()
            parent = trained(dataset.classes, labels[:count], checkpoints, parent, seed)
            training = time.monotonic() - began
            checkpoints.publish(parent)
            ranking, masks, predictor = queue(checkpoints, parent, pool, labels[:count], Path(name))
            yield {
                "dataset": Path(folder).name,
                "seed": seed,
                "labels": len(labels[:count]),
                "pool": len(pool),
                "steps": checkpoints.get(parent).record.measures["iterations"],
                "training_s": round(training, 1),
                "ranking_s": round(ranking, 1),
                "masks_s": round(masks, 1),
                "miou": round(test_miou(predictor, dataset), 4),
                "load": round(load, 1),
            }


def data_of(folder: str, seed: int) -> tuple[Any, list[Any], list[Any]]:
    """Return a data set, the images that are labelled in this order, and a pool of others."""
    import numpy as np

    from ml_backend.datasets import open_dataset, sample_dataset

    dataset = sample_dataset() if folder == "sample" else open_dataset(Path(folder))
    order = np.random.default_rng(seed).permutation(len(dataset.splits["train"])).tolist()
    labels = [dataset.splits["train"][index] for index in order[: LABELS[-1]]]
    others = [sample for sample in dataset.all_samples() if sample not in labels]
    return dataset, labels, others[:POOL]


def trained(classes: tuple[str, ...], labels: Sequence[Any], checkpoints: Any, parent: int | None, seed: int) -> int:
    """Train a version with default settings, in a process of its own; return its number."""
    from ml_backend.learning.training import process as training_process

    job = job_of(classes, labels, checkpoints, parent, seed)
    limit = {"timeout": 7200} if "timeout" in inspect.signature(training_process.run).parameters else {}
    return training_process.run(job, progress=lambda _: None, heartbeat=lambda: None, **limit)


def job_of(classes: tuple[str, ...], labels: Sequence[Any], checkpoints: Any, parent: int | None, seed: int) -> Any:
    """Return the job of a version with default settings."""
    from ml_backend.learning.training import Item, Job

    items = tuple(
        Item(str(number), sample.image, sample.mask, number % HELD_OUT == HELD_OUT - 1, "digest")
        for number, sample in enumerate(labels)
    )
    own = {"maps_folder": checkpoints.folder.parent / "maps", "maps_bytes": 2_500_000_000}
    fields = {field.name for field in dataclasses.fields(Job)}
    return Job(
        items=items,
        classes=classes,
        label_map_digest="",
        data_digest=str(len(items)),
        folder=checkpoints.folder,
        parent=parent,
        device="cpu",
        seed=seed,
        **{name: value for name, value in own.items() if name in fields},
    )


def queue(
    checkpoints: Any, number: int, pool: Sequence[Any], labels: Sequence[Any], folder: Path
) -> tuple[float, float, Any]:
    """Rank a pool and predict the best masks; return the seconds of both, images included, and the predictor."""
    from ml_backend.images.decoding import load_image
    from ml_backend.learning.prediction.batches import Item
    from ml_backend.learning.prediction.predictors import load_predictor
    from ml_backend.learning.ranking import Pools, make_strategy, observed, rank_pool
    from strategies import Budget

    began = time.monotonic()
    predictor = load_predictor(checkpoints, checkpoints.get(number), "cpu", *kept_maps(folder))
    strategy = make_strategy("auto", {})

    def batches(samples: Sequence[Any], first: int) -> Any:
        items = (Item(first + position, load_image(sample.image)) for position, sample in enumerate(samples))
        return lambda: predictor.batches(items, features="features" in strategy.needs, batch_size=8)

    nothing: Any = lambda: iter(())  # noqa: E731 (a pool without images)
    pools = Pools(observed(batches(pool, 0)), observed(batches(labels, len(pool))), nothing, nothing)
    budget = Budget(images=10 if strategy.plans_one_round else WINDOW)
    ranked = rank_pool(strategy, pools, budget=budget, seed=0, round_number=1, progress=lambda _: None)
    ranking = time.monotonic() - began
    best = [pool[int(number)] for number in ranked.ranking.ids[:WINDOW]]
    for start in range(0, len(best), 8):
        predictor.predict([load_image(sample.image) for sample in best[start : start + 8]])
    return ranking, time.monotonic() - began - ranking, predictor


def kept_maps(folder: Path) -> list[Any]:
    """Return what keeps maps of encoders, where the code has that."""
    try:
        from ml_backend.learning.networks import MapFolder
    except ImportError:
        return []
    return [MapFolder(folder / "maps", 2_500_000_000)]


def test_miou(predictor: Any, dataset: Any) -> float:
    import numpy as np

    from ml_backend.annotations.masks import confusion, mask_from_png
    from ml_backend.images.decoding import load_image

    counts = np.zeros((len(dataset.classes),) * 2, np.int64)
    for sample in dataset.splits["test"]:
        truth = mask_from_png(sample.mask.read_bytes())
        known = truth != 255
        predicted = predictor.predict([load_image(sample.image)])[0].mask
        counts += confusion(truth[known], predicted[known], len(dataset.classes))
    hit, present = counts.diagonal(), counts.sum(1) > 0
    return float((hit / np.maximum(counts.sum(0) + counts.sum(1) - hit, 1))[present].mean())


# -- rows, and what they say -------------------------------------------------------------------------------------------
def rows_of(file: Path) -> list[dict[str, str]]:
    if not file.exists():
        return []
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def known(file: Path, dataset: str, code: str, seed: int) -> bool:
    return any((row["dataset"], row["code"], row["seed"]) == (dataset, code, str(seed)) for row in rows_of(file))


def add(file: Path, rows: Sequence[Mapping[str, Any]], fields: Sequence[str] = FIELDS) -> None:
    is_new = not file.exists()
    with file.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, fields, lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerows(rows)


def report(rows: Sequence[Mapping[str, str]]) -> None:
    """Print a table: means over the seeds, with the 95 % intervals of test mIoU."""
    print("| data | labels | code | seeds | steps | training, s | queue, s | both, s | before / now | test mIoU |")
    print("|---|--:|---|--:|--:|--:|--:|--:|--:|--:|")
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        for labels in dict.fromkeys(row["labels"] for row in rows if row["dataset"] == dataset):
            both: dict[str, float] = {}
            for code in ("before", "now"):
                own = [r for r in rows if (r["dataset"], r["labels"], r["code"]) == (dataset, labels, code)]
                if not own:
                    continue
                training = mean(own, "training_s")
                ranking = mean(own, "ranking_s") + mean(own, "masks_s")
                both[code] = training + ranking
                ratio = f"{both['before'] / both['now']:.1f}" if len(both) == 2 else ""
                print(
                    f"| {dataset} | {labels} | {code} | {len(own)} | {mean(own, 'steps'):.0f} | {training:.0f} "
                    f"| {ranking:.0f} | {both[code]:.0f} | {ratio} | {interval([float(r['miou']) for r in own])} |"
                )


def mean(rows: Sequence[Mapping[str, str]], name: str) -> float:
    return statistics.fmean(float(row[name]) for row in rows)


def interval(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.3f}"
    half = T_95[len(values) - 1] * statistics.stdev(values) / math.sqrt(len(values))
    middle = statistics.fmean(values)
    return f"{middle:.3f} ({middle - half:.3f} to {middle + half:.3f})"


if __name__ == "__main__":
    main()
