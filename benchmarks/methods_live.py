"""All methods, live: a real Label Studio, a real nextmask, a simulated annotator.

    python benchmarks/methods_live.py DATASET --out results.csv [--strategies entropy random] [--rounds 5] [--step 20]

DATASET holds images/<split>, masks/<split> and dataset.json. Every training image becomes a task of a project per
strategy, all strategies of the library by default. They start from the same images; from then on `nextmask annotate`
labels what Label Studio serves: whole images, or the regions that `cereals` asks for. After each training the published
version is measured on the whole test split, at the original size. Rows are appended as they come, and a run that was
stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import requests

from ml_backend.annotations.config_edits import with_query_control
from ml_backend.annotations.label_map import LabelMap, parse_label_config
from ml_backend.annotations.masks import write_result
from ml_backend.datasets import Dataset, label_config, open_dataset
from ml_backend.demo.label_studio import LabelStudioHost, find_label_studio, free_port
from ml_backend.images.decoding import load_image
from ml_backend.label_studio.predictions import model_number
from ml_backend.learning.checkpoints import Version
from ml_backend.learning.prediction.predictors import load_predictor
from ml_backend.projects.connection import Connection
from ml_backend.projects.services import Services, open_services
from ml_backend.settings import load_settings
from strategies import catalogue

TOKEN = "0123456789abcdef0123456789abcdef01234567"
FIELDS = [
    "dataset",
    "strategy",
    "round",
    "labelled",
    "clicks",
    "version",
    "held_out_miou",
    "test_miou",
    "agreement",
    "pseudo_labels",
    "seconds_train",
    "seconds_ranking",
    "seconds_round",
]
OPTIONS: dict[str, dict[str, Any]] = {"cereals": {"window": 64, "stride": 32}}
"""Where the defaults are made for images that are several times as large."""
MASKS = [entry.name for entry in catalogue.ENTRIES if entry.without_points is not None or not entry.asks_for_points]
"""Those that ask for masks or regions; benchmarks/points_live.py is for points."""


def main() -> None:
    options = parse_arguments()
    dataset = open_dataset(options.dataset)
    options.folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as running:
        services, environment = running_services(running, options)
        for strategy in options.strategies:
            run_strategy(services, dataset, strategy, options, environment)


def running_services(running: ExitStack, options: argparse.Namespace) -> tuple[Services, dict[str, str]]:
    """Start a Label Studio and a nextmask in `options.folder`; return nextmask's services and environment."""
    folder = options.folder.resolve()
    host = LabelStudioHost(
        find_label_studio(options.label_studio),
        folder / "label-studio",
        free_port(),
        folder,
        username="bench@nextmask.local",
        password="bench-password",
        token=TOKEN,
    )
    running.enter_context(host.running())
    settings = load_settings(
        label_studio_url=host.url, label_studio_api_key=TOKEN, model_dir=folder / "nextmask", port=free_port()
    )
    log = running.enter_context((folder / "nextmask.log").open("ab"))
    environment = {**os.environ, **settings.environment()}
    command = [sys.executable, "-m", "ml_backend", "serve"]
    server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    running.callback(server.wait)
    running.callback(server.terminate)
    wait_until_up(settings.effective_backend_url)
    return open_services(settings), environment


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=Path(".nextmask/methods-live"))
    parser.add_argument("--label-studio", type=Path)
    parser.add_argument("--strategies", nargs="+", default=MASKS, choices=catalogue.available())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--step", type=int, default=20)
    parser.add_argument("--input-size", type=int, default=192)
    parser.add_argument("--iterations", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def wait_until_up(url: str) -> None:
    for _ in range(240):
        try:
            if requests.get(f"{url}/health", timeout=2).ok:
                return
        except requests.ConnectionError:
            time.sleep(0.5)
    raise SystemExit("nextmask did not start")


def run_strategy(
    services: Services, dataset: Dataset, strategy: str, options: argparse.Namespace, environment: dict[str, str]
) -> None:
    done = rows_of(options.out, dataset.name, strategy)
    if len(done) >= options.rounds:
        return
    project, label_map = project_of(services, dataset, strategy, options)
    settle(services, project)
    if not done:
        begin = time.monotonic()
        submit_first(services, dataset, project, label_map, options)
        settle(services, project)
        write_row(options.out, measured(services, dataset, project, strategy, 0, None, begin))
    for number in range(max(len(done), 1), options.rounds):
        begin = time.monotonic()
        agreement = annotate(options, project, environment)
        settle(services, project)
        write_row(options.out, measured(services, dataset, project, strategy, number, agreement, begin))


def project_of(
    services: Services, dataset: Dataset, strategy: str, options: argparse.Namespace
) -> tuple[int, LabelMap]:
    title = f"{dataset.name} {strategy}"
    known = {str(row["title"]): int(row["id"]) for row in services.client.projects()}
    xml = label_config(dataset, "BitmaskLabels")
    if catalogue.entry(strategy).asks_for_regions:
        xml = with_query_control(xml, query_control=services.settings.query_control)
    if title not in known:
        known[title] = int(services.client.create_project(title=title, label_config=xml)["id"])
        services.client.upload_images(known[title], [sample.image for sample in dataset.splits["train"]])
    wanted: dict[str, Any] = {
        "strategy": strategy,
        "strategy_options": OPTIONS.get(strategy, {}),
        "unpainted": dataset.unpainted,
        "input_size": options.input_size,
        "iterations": options.iterations,
        "train_after": options.step,
        "seed": options.seed,
    }
    Connection(services.settings, services.store, services.client, known[title]).connect(wanted)
    return known[title], parse_label_config(xml, unpainted=dataset.unpainted)


def submit_first(
    services: Services, dataset: Dataset, project: int, label_map: LabelMap, options: argparse.Namespace
) -> None:
    """Label the same images for every strategy."""
    stems = sorted(sample.image.stem for sample in dataset.splits["train"])
    chosen = random.Random(options.seed).sample(stems, options.step)
    truth = dataset.truth("train")
    tasks = services.store.tasks(project)
    by_mask = {truth.find(task.image).stem: task.task_id for task in tasks}
    for stem in chosen:
        path = truth.find(f"{stem}.jpg")
        regions = write_result(truth.read(path, label_map), label_map, minimum_area=0)
        services.client.submit_annotation(by_mask[path.stem], regions, 60.0)


def annotate(options: argparse.Namespace, project: int, environment: dict[str, str]) -> float | None:
    masks = options.dataset / "masks" / "train"
    command = [sys.executable, "-m", "ml_backend", "annotate", str(project), "--masks", str(masks), "--json"]
    command += ["--count", str(options.step)]
    answer = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
    report = json.loads(answer.stdout)
    assert report["submitted"] == options.step, report
    return report["agreement"]


def settle(services: Services, project: int) -> None:
    while True:
        known = services.store.project(project)
        if known and known.lease_owner is None and known.wakes == known.wakes_handled and known.reconciled_at:
            if known.state == "failed":
                raise SystemExit(f"project {project}: {known.error}")
            return
        time.sleep(0.5)


def measured(
    services: Services,
    dataset: Dataset,
    project: int,
    strategy: str,
    number: int,
    agreement: float | None,
    begin: float,
) -> dict[str, Any]:
    known = services.store.project(project)
    assert known
    seconds = time.monotonic() - begin
    version = services.checkpoints(project).get(model_number(known.published_version))
    labelled = services.store.tasks(project, status="labelled")
    return {
        "dataset": dataset.name,
        "strategy": strategy,
        "round": number,
        "labelled": len(labelled),
        "clicks": round(sum(task.effort or 0 for task in labelled)),
        "version": known.published_version,
        "held_out_miou": version.record.measures.get("miou"),
        "test_miou": test_miou(services, dataset, project, version),
        "agreement": agreement,
        "pseudo_labels": len(version.record.pseudo_labels),
        "seconds_ranking": round(known.ranking_seconds or 0, 1),
        "seconds_train": version.record.measures.get("seconds"),
        "seconds_round": round(seconds, 1),
    }


def test_miou(services: Services, dataset: Dataset, project: int, version: Version) -> float:
    """Mean IoU over the whole test split from one confusion matrix; classes that occur nowhere are left out."""
    predictor = load_predictor(services.checkpoints(project), version, services.settings.device)
    classes = len(dataset.classes)
    matrix = np.zeros((classes, classes), dtype=np.int64)
    label_map = parse_label_config(label_config(dataset), unpainted=dataset.unpainted)
    truth = dataset.truth("test")
    samples = dataset.splits["test"]
    for start in range(0, len(samples), 8):
        chunk = samples[start : start + 8]
        predictions = predictor.predict([load_image(sample.image) for sample in chunk])
        for sample, prediction in zip(chunk, predictions, strict=True):
            true = truth.read(sample.mask, label_map)
            known = true != 255
            pairs = true[known].astype(np.int64) * classes + prediction.mask[known]
            matrix += np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)
    hit = np.diag(matrix)
    union = matrix.sum(0) + matrix.sum(1) - hit
    return float(np.mean(hit[union > 0] / union[union > 0]))


def rows_of(path: Path, dataset: str, strategy: str) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if (row["dataset"], row["strategy"]) == (dataset, strategy)]


def write_row(path: Path, row: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        if new:
            writer.writeheader()
        writer.writerow(row)
    print(row, flush=True)


if __name__ == "__main__":
    main()
