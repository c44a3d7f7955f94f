"""Points against whole images, live: what the same clicks bring in a real Label Studio.

    python benchmarks/points_live.py DATASET --out results.csv [--clicks 2000 4000 8000] [--seeds 0]

DATASET holds images/<split>, masks/<split> and dataset.json. Every training image becomes a task of two projects for
each seed: one with a control of points and the strategy `auto`, which asks for points or for whole masks, and one of
whole images in random order. The simulated annotator labels what Label Studio serves until a round's clicks
are spent, then a version is trained and measured on the whole test split at the original size. No image is set aside
to measure with, so every click teaches. Rows are appended as they come, and a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from methods_live import running_services, settle, test_miou
from training import add, rows_of

from ml_backend.annotations.label_map import LabelMap, parse_label_config
from ml_backend.datasets import Dataset, label_config, open_dataset
from ml_backend.demo.annotator import SimulatedAnnotator
from ml_backend.label_studio.predictions import model_number
from ml_backend.projects.connection import Connection
from ml_backend.projects.services import Services

FIELDS = ["dataset", "seed", "way", "round", "clicks", "points", "masks", "test_miou", "seconds"]
WAYS = {"auto": True, "random": False}
"""Strategy -> whether its project has a control of points."""
MOST_AT_ONCE = 100


def main() -> None:
    options = parse_arguments()
    dataset = open_dataset(options.dataset)
    options.folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as running:
        services, _ = running_services(running, options)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        for seed in options.seeds:
            for strategy in WAYS:
                run(services, dataset, strategy, seed, options)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=Path(".nextmask/points-live"))
    parser.add_argument("--label-studio", type=Path)
    parser.add_argument("--clicks", type=int, nargs="+", default=[2000, 4000, 8000], help="all until each round")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--input-size", type=int, default=192)
    parser.add_argument("--iterations", type=int, default=300)
    return parser.parse_args()


def run(services: Services, dataset: Dataset, strategy: str, seed: int, options: argparse.Namespace) -> None:
    wanted = (dataset.name, strategy, str(seed))
    done = [row for row in rows_of(options.out) if (row["dataset"], row["way"], row["seed"]) == wanted]
    if len(done) >= len(options.clicks):
        return
    project, label_map = project_of(services, dataset, strategy, seed, options)
    annotator = SimulatedAnnotator(services.client, project, dataset.truth("train"), label_map)
    settle(services, project)
    for number, clicks in enumerate(options.clicks[len(done) :], len(done)):
        begin = time.monotonic()
        label(services, annotator, project, clicks)
        services.store.wake(project, train=True)
        settle(services, project)
        row = measured(services, dataset, project)
        row |= {"dataset": dataset.name, "seed": seed, "way": strategy, "round": number}
        row["seconds"] = round(time.monotonic() - begin)
        add(options.out, [row], FIELDS)
        print(row, flush=True)


def project_of(
    services: Services, dataset: Dataset, strategy: str, seed: int, options: argparse.Namespace
) -> tuple[int, LabelMap]:
    title = f"{dataset.name} {strategy} {seed}"
    known = {str(row["title"]): int(row["id"]) for row in services.client.projects()}
    xml = label_config(dataset, "BitmaskLabels")
    if title not in known:
        known[title] = int(services.client.create_project(title=title, label_config=xml)["id"])
        services.client.upload_images(known[title], [sample.image for sample in dataset.splits["train"]])
    wanted: dict[str, Any] = {
        "strategy": strategy,
        "unpainted": dataset.unpainted,
        "input_size": options.input_size,
        "iterations": options.iterations,
        "train_after": 100_000,
        "queue_window": 400,
        "audit_share": 0.0,
        "seed": seed,
    }
    connection = Connection(services.settings, services.store, services.client, known[title])
    connection.connect(wanted, add_query_control=WAYS[strategy])
    xml = str(services.client.project(known[title])["label_config"])
    return known[title], parse_label_config(xml, unpainted=dataset.unpainted)


def label(services: Services, annotator: SimulatedAnnotator, project: int, clicks: int) -> None:
    """Label what is served until all labels of the project took this many clicks."""
    while (spent := effort(services, project)) < clicks:
        tasks = services.store.tasks(project, status="labelled")
        each = spent / len(tasks) if tasks else clicks
        submissions = annotator.annotate(max(1, min(MOST_AT_ONCE, int((clicks - spent) / each))))
        if not submissions:
            raise SystemExit(f"project {project}: nothing more is asked after {spent} clicks")
        settle(services, project)


def effort(services: Services, project: int) -> int:
    return round(sum(task.effort or 0 for task in services.store.tasks(project, status="labelled")))


def measured(services: Services, dataset: Dataset, project: int) -> dict[str, Any]:
    known = services.store.project(project)
    assert known
    version = services.checkpoints(project).get(model_number(known.published_version))
    labelled = services.store.tasks(project, status="labelled")
    return {
        "clicks": effort(services, project),
        "points": round(sum(task.effort or 0 for task in labelled if task.boxes)),
        "masks": sum(not task.boxes for task in labelled),
        "test_miou": test_miou(services, dataset, project, version),
    }


if __name__ == "__main__":
    main()
