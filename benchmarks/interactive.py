"""How many clicks a mask takes, and how long a click: the refiner against what needs no network.

    pip install scikit-image
    python benchmarks/interactive.py noc DATASET… [--objects 12] [--methods refiner untrained mending …]
    python benchmarks/interactive.py latency [--clicks 20]
    python benchmarks/interactive.py report [--picture docs/images/clicks.svg]

DATASET is a folder (docs/datasets.md) or `sample`. Objects are connected components of a class above 200 pixels, drawn
evenly from those of the test images; a network for a CPU learned from 40 labels of training images (30 of the sample
data) in 200 steps. The annotator clicks where the largest part of the error is thickest, at most 20 times. Every method
gets the same first click. GrabCut and the random walker see the image at 256 pixels a side, beyond which they take a
second a click; the network sees 384. NoC@80, @85, @90 are the clicks until IoU reaches that; an object that never does
counts 20. The refiner was tuned on validation images of CamVid, and on training images of the others that the network
had not learned from. Intervals are of the bootstrap over images. Rows that are in the file already are not measured
again; the comparison is of the objects that all methods clicked on. The method `mending` begins with what the network
predicts of an object, and each click mends the mask before it, as for people who accept each suggestion.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from clicked import Object, Pixels, objects, opened, trained, untrained
from clicking import Answer, grab_cut, network_alone, played, predicted, random_walker
from unlabelled import add, rows_of

from ml_backend.annotations.boxes import Box
from ml_backend.annotations.prompts import DrawnPrompt
from ml_backend.annotations.suggestions import mended
from ml_backend.datasets import Dataset
from ml_backend.learning.refinement.features import FeatureRefiner
from ml_backend.learning.refinement.prompts import Prompt

METHODS = ("refiner", "untrained", "mending", "grab_cut", "random_walker")
LEVELS = (0.8, 0.85, 0.9)
STEPS, LABELS = 200, {"icbm152": 30}
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = parser.add_subparsers(dest="mode", required=True)
    noc = modes.add_parser("noc")
    noc.add_argument("datasets", nargs="+")
    noc.add_argument("--objects", type=int, default=12)
    noc.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    noc.add_argument("--networks", type=Path, default=Path("networks"), help="keeps networks between runs")
    noc.add_argument("--seed", type=int, default=0)
    noc.add_argument("--out", type=Path, default=RESULTS / "clicks.csv")
    latency = modes.add_parser("latency")
    latency.add_argument("--clicks", type=int, default=20)
    latency.add_argument("--out", type=Path, default=RESULTS / "clicks_latency.csv")
    report = modes.add_parser("report")
    report.add_argument("--clicks", type=Path, default=RESULTS / "clicks.csv")
    report.add_argument("--latency", type=Path, default=RESULTS / "clicks_latency.csv")
    report.add_argument("--picture", type=Path)
    options = parser.parse_args()
    if options.mode == "noc":
        for name in options.datasets:
            play_all(opened(name), options.objects, options.methods, options.seed, options.networks, options.out)
    elif options.mode == "latency":
        if "OMP_WAIT_POLICY" not in os.environ:  # the server's threads wait so; torch reads it when it is imported
            sys.exit(
                subprocess.run([sys.executable, *sys.argv], env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}).returncode
            )
        import clicks_latency

        clicks_latency.measure(options.clicks, options.out)
    else:
        import clicks_report

        clicks_report.report(rows_of(options.clicks), rows_of(options.latency), options.picture)


def play_all(dataset: Dataset, count: int, methods: Sequence[str], seed: int, networks: Path, out: Path) -> None:
    """Click on objects of the test images with each method; add a row for each."""
    done = {(row["dataset"], row["object"], row["method"]) for row in rows_of(out)}
    chosen = objects(dataset, dataset.splits["test"], count, seed)
    for method in methods:
        rest = [item for item in chosen if (dataset.name, item.name, method) not in done]
        way = way_of(method, dataset, seed, networks) if rest else None
        for item in rest:
            assert way is not None
            began = time.process_time()
            found = played(item, way.answer, way.start(item))
            row = {
                "dataset": dataset.name,
                "object": item.name,
                "image": item.key,
                "class": dataset.classes[item.klass],
                "area": int(item.truth.sum()),
                "outline": item.outline_clicks,
                "method": method,
                "alone": way.alone(item),
                "seconds": round((time.process_time() - began) / max(1, len(found) - 1), 3),
                "ious": " ".join(f"{value:.3f}" for value in found[1:]),
            }
            print(row, flush=True)
            add(out, row)


@dataclass(frozen=True)
class Way:
    """How clicks are answered.

    Attributes:
        answer: makes a mask of the clicks, and of the mask before the last one.
        start: the mask before the first click; None: an empty one.
        alone: how good the network's mask is without any click; empty without a network.
    """

    answer: Answer
    start: Callable[[Object], Pixels | None] = lambda _: None
    alone: Callable[[Object], float | str] = lambda _: ""


def way_of(method: str, dataset: Dataset, seed: int, networks: Path) -> Way:
    """Return how a method answers clicks."""
    if method in ("grab_cut", "random_walker"):
        return Way(grab_cut if method == "grab_cut" else random_walker)
    is_trained = method != "untrained"
    labels = LABELS.get(dataset.name, 40)
    predictor = trained(dataset, labels, STEPS, seed, networks) if is_trained else untrained(len(dataset.classes), seed)
    refiner = FeatureRefiner(predictor, is_trained=is_trained)

    def anew(item: Object, prompts: Sequence[Prompt], _: Pixels) -> Pixels:
        return refiner.refine(item.image, item.key, item.klass, prompts)

    def mending(item: Object, prompts: Sequence[Prompt], mask: Pixels) -> Pixels:
        last = prompts[-1]
        wanted = refiner.refine(item.image, item.key, item.klass, prompts, mask)
        return mended(wanted, mask, [DrawnPrompt("", last.klass, last.is_positive, Box.point(*last.centre))])

    def alone(item: Object) -> float | str:
        return round(network_alone(item, predictor), 3) if is_trained else ""

    if method == "mending":
        return Way(mending, lambda item: predicted(item, predictor), alone)
    return Way(anew, alone=alone)


if __name__ == "__main__":
    main()
