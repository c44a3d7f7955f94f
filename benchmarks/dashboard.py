"""Times of the dashboard's pages in a large project, against reading all its tasks.

    python benchmarks/dashboard.py --tasks 50000 --labels 3000 --versions 30

The state is made up: what is measured is how pages depend on its size.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from fastapi.testclient import TestClient

from ml_backend.learning.checkpoints import VersionRecord
from ml_backend.projects.services import Services, open_services
from ml_backend.server.app import create_app
from ml_backend.settings import load_settings
from ml_backend.store import Decision, Task

PROJECT = 1
CLASSES = ("background", "cell", "nucleus")
PATHS = (
    "/",
    *(f"/projects/{PROJECT}{path}" for path in ("", "/live", "/versions", "/tasks", "/tasks?page=100", "/events")),
)


def fill(services: Services, tasks: int, labels: int, versions: int) -> None:
    """Makes a project: some tasks are labelled, every third of the others is passed over, 200 are in the queue."""
    version = f"nextmask-{versions}.1"
    rest = range(labels + 1, tasks + 1)
    passed = {task for task in rest if task % 3 == 0}
    done = {"status": "labelled", "lead_time": 30.0, "agreement": 0.8, "label_digest": "d" * 64}
    services.store.put_tasks(
        Task(PROJECT, number, f"/{number}.png", annotation_id=number, **done) for number in range(1, labels + 1)
    )
    services.store.put_tasks(
        Task(PROJECT, number, f"/{number}.png", status="passed" if number in passed else "unlabelled")
        for number in rest
    )
    services.store.put_decisions(
        PROJECT, (Decision(number, False, 0.2, 0.5, 1.0) for number in passed), state=("stream", "")
    )
    services.store.put_published(PROJECT, version, ((number, 0.1, b"x" * 2000) for number in list(rest)[:200]))
    for number in range(1, versions + 1):
        measures = {name: dict.fromkeys(CLASSES, number / (number + 3)) for name in ("iou", "dice")}
        record = VersionRecord(
            classes=CLASSES,
            label_map_digest="l",
            data_digest="d",
            parent=number - 1 or None,
            labels={str(task): "d" * 64 for task in range(1, labels * number // versions + 1)},
            held_out=("1",),
            measures={**measures, "miou": number / (number + 3), "mean_dice": number / (number + 2)},
        )
        services.checkpoints(PROJECT).create(record, {"weight": torch.zeros(1)})
    services.checkpoints(PROJECT).publish(versions)
    services.store.wake(PROJECT, title="Large", state="waiting", published_version=version, reconciled_at=time.time())
    for number in range(2000):
        services.store.add_event(PROJECT, "trained", f"Number {number}.")


def timed(what: Callable[[], object], repeats: int) -> float:
    """Returns the median of seconds."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        what()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def main() -> None:
    """Prints a row per page."""
    parser = argparse.ArgumentParser(description="Time the dashboard's pages in a large project.")
    parser.add_argument("--tasks", type=int, default=50_000)
    parser.add_argument("--labels", type=int, default=3_000)
    parser.add_argument("--versions", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=9)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        services = open_services(load_settings(model_dir=Path(folder), label_studio_api_key="0" * 40))
        fill(services, given.tasks, given.labels, given.versions)
        print("| page | ms | kB |\n|---|--:|--:|")
        with TestClient(create_app(services.settings), base_url="http://localhost") as client:
            for path in PATHS:
                size = len(client.get(path).raise_for_status().content)
                seconds = timed(lambda path=path: client.get(path), given.repeats)
                print(f"| `{path}` | {1000 * seconds:.0f} | {size / 1000:.0f} |", flush=True)
        seconds = timed(lambda: services.store.tasks(PROJECT), 1)
        print(f"| (reading all tasks) | {1000 * seconds:.0f} | |")
        services.store.close()


if __name__ == "__main__":
    main()
