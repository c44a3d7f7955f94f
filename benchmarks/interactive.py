"""How many clicks a mask takes, and how long a click: the refiner against what needs no network.

    pip install scikit-image
    python benchmarks/interactive.py noc DATASET… [--objects 12] [--methods refiner untrained grab_cut random_walker]
    python benchmarks/interactive.py latency [--clicks 20]
    python benchmarks/interactive.py report [--picture docs/images/clicks.svg]

DATASET is a folder (docs/datasets.md) or `sample`. Objects are connected components of a class above 200 pixels, drawn
evenly from those of the test images; a network for a CPU learned from 40 labels of training images (30 of the sample
data) in 200 steps. The annotator clicks where the largest part of the error is thickest, at most 20 times. Every method
gets the same first click. GrabCut and the random walker see the image at 256 pixels a side, beyond which they take a
second a click; the network sees 384. NoC@80, @85, @90 are the clicks until IoU reaches that; an object that never does
counts 20. The refiner was tuned on validation images of CamVid, and on training images of the others that the network
had not learned from. Intervals are of the bootstrap over images. Rows that are in the file already are not measured
again; the comparison is of the objects that all methods clicked on.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from clicked import Object, Pixels, objects, opened, trained, untrained
from clicking import Answer, grab_cut, network_alone, played, random_walker
from unlabelled import add, rows_of

from ml_backend.datasets import Dataset
from ml_backend.learning.refinement import FeatureRefiner

METHODS = ("refiner", "untrained", "grab_cut", "random_walker")
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
        answer = answering(method, dataset, seed, networks) if rest else None
        for item in rest:
            assert answer is not None
            began = time.process_time()
            found = played(item, answer[0])
            row = {
                "dataset": dataset.name,
                "object": item.name,
                "image": item.key,
                "class": dataset.classes[item.klass],
                "area": int(item.truth.sum()),
                "outline": item.outline_clicks,
                "method": method,
                "alone": answer[1](item),
                "seconds": round((time.process_time() - began) / max(1, len(found) - 1), 3),
                "ious": " ".join(f"{value:.3f}" for value in found[1:]),
            }
            print(row, flush=True)
            add(out, row)


def answering(
    method: str, dataset: Dataset, seed: int, networks: Path
) -> tuple[Answer, Callable[[Object], float | str]]:
    """Return what answers clicks, and what says how good the network's mask is without any."""
    if method not in ("refiner", "untrained"):
        return (grab_cut if method == "grab_cut" else random_walker), lambda _: ""
    is_trained = method == "refiner"
    labels = LABELS.get(dataset.name, 40)
    predictor = trained(dataset, labels, STEPS, seed, networks) if is_trained else untrained(len(dataset.classes), seed)
    refiner = FeatureRefiner(predictor, is_trained=is_trained)

    def answer(item: Object, prompts: Sequence[Any]) -> Pixels:
        return refiner.refine(item.image, item.key, item.klass, prompts)

    return answer, (lambda item: round(network_alone(item, predictor), 3)) if is_trained else (lambda _: "")


if __name__ == "__main__":
    main()
