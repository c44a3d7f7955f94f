"""What a look costs in a large project: CPU seconds and memory of nextmask, for a real Label Studio.

    python benchmarks/scale.py [--tasks 1000 5000 20000 50000 200000] [--before CHECKOUT] [--out benchmarks/results]

Makes projects with a few small images that are named over and over, each task with a reference of its own. All tasks
but the first hundred are written into Label Studio's database, and into nextmask's state as a sync would leave them: at
ten tasks a second through both APIs there would be nothing to measure for hours. `--first-sync N` reads N tasks through
Label Studio instead, and tells the CPU seconds of both.

Measured, in a process of its own for each size and checkout, is the worker's `reconcile`:

    idle      nothing changed (median of three looks)
    label     one label was submitted (median of three)
    rank      another ranking was asked for: 200 tasks are scored and a queue of 200 is published
    queue     the dashboard's page of the queue, the second time that it is asked for

The scorer is as cheap as one can be: a network that hardly trained, images of 64 pixels, the strategy `entropy`, and
`pool_sample` of 200. Label Studio's own time is not counted. Memory is the peak of the process, torch included.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ml_backend.annotations.brush import encode
from ml_backend.demo.label_studio import LabelStudioHost, find_label_studio, free_port
from ml_backend.label_studio import LabelStudio
from ml_backend.projects.services import Services, open_services
from ml_backend.settings import load_settings
from ml_backend.store import Task

ROOT = Path(__file__).resolve().parents[1]
TOKEN = "0123456789abcdef0123456789abcdef01234567"
SIDE, FIRST, WINDOW = 64, 100, 200
XML = """<View><Image name="image" value="$image"/>
<BrushLabels name="tag" toName="image"><Label value="cell"/><Label value="nucleus"/></BrushLabels></View>"""
PROJECT = {
    **{"queue_window": WINDOW, "pool_sample": WINDOW, "strategy": "entropy", "encoder_weights": "none"},
    **{"input_size": SIDE, "batch_size": 8, "iterations": 2, "train_encoder": True, "audit_share": 0.125},
}
LONG_AGO = datetime.now(timezone.utc) - timedelta(hours=2)
TABLE = ("tasks", "code", "idle", "label", "rank", "queue", "memory_mb")


def main() -> None:
    """Prints a row for each size and checkout, and writes them with the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, nargs="+", default=[1000, 5000, 20000, 50000, 200000])
    parser.add_argument("--before", type=Path, help="checkout of earlier code, measured beside this one")
    parser.add_argument("--most-before", type=int, default=50000, metavar="N", help="largest project of earlier code")
    parser.add_argument("--first-sync", type=int, default=0, metavar="N", help="also read N tasks for the first time")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measured(**json.loads(options.measure))))
        return
    codes = {"now": ROOT, **({"before": options.before.resolve()} if options.before else {})}
    options.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="nextmask-scale-") as folder, label_studio(Path(folder)) as host:
        for size in options.tasks:
            for code, checkout in codes.items():
                if code == "now" or size <= options.most_before:
                    rows.append({"tasks": size, "code": code, **in_process(host, checkout, tasks=size)})
                    print(rows[-1], flush=True)
                    write(options.out / "scale.csv", rows)
        if options.first_sync:
            print(in_process(host, ROOT, tasks=options.first_sync, is_first=True), flush=True)
    for line in ratios(rows):
        print(line)


def write(file: Path, rows: list[dict[str, Any]]) -> None:
    """Writes what was measured so far."""
    with file.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, TABLE, lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: (row["tasks"], row["code"])))


def ratios(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Says how what is measured grows with the project, and against the earlier code."""
    smallest = min((row for row in rows if row["code"] == "now"), key=lambda row: row["tasks"])
    for row in rows:
        other = next((one for one in rows if one["tasks"] == row["tasks"] and one["code"] == "before"), None)
        if row["code"] == "now":
            for what in TABLE[2:-1]:
                against = f", {row[what] / other[what]:.3f} of before" if other else ""
                grown = f"{row[what] / smallest[what]:.2f} of {smallest['tasks']} tasks"
                yield f"{row['tasks']} tasks, {what}: {row[what]} s, {grown}{against}"


@contextmanager
def label_studio(folder: Path) -> Iterator[LabelStudioHost]:
    """Runs a Label Studio of its own."""
    account = {"username": "scale@nextmask.local", "password": "scale-password", "token": TOKEN}
    host = LabelStudioHost(find_label_studio(), folder / "label-studio", free_port(), folder, **account)
    with host.running(timeout=600):
        yield host


def in_process(host: LabelStudioHost, checkout: Path, **what: Any) -> dict[str, Any]:
    """Measures code in a process of its own."""
    asked = json.dumps({"url": host.url, "database": str(database_of(host)), "pid": host.pid, **what})
    command = [sys.executable, str(Path(__file__).resolve()), "--measure", asked]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, cwd=checkout, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(run.stdout.splitlines()[-1]))


def database_of(host: LabelStudioHost) -> Path:
    """Returns the SQLite file of a Label Studio."""
    return next(host.folder.glob("*.sqlite3"))


# -- one size, in a process of its own -------------------------------------------------------------------------------
def measured(url: str, database: str, pid: int, tasks: int, *, is_first: bool = False) -> dict[str, Any]:
    """Makes a project and measures looks at it, or the first sync alone."""
    from ml_backend.worker.look import Look
    from ml_backend.worker.reconcile import reconcile
    from ml_backend.worker.sync import sync

    with tempfile.TemporaryDirectory(prefix="nextmask-scale-") as folder:
        services = open_services(
            load_settings(
                label_studio_url=url,
                label_studio_api_key=TOKEN,
                model_dir=folder,
                device="cpu",
                train_after=8,
                **PROJECT,
            )
        )
        client, store = services.client, services.store
        project = int(client.create_project(title=f"{tasks} tasks", label_config=XML)["id"])
        store.wake(project)

        def look() -> None:
            reconcile(services, project, lambda: None, trial=False)

        first = upload(client, project, Path(folder))
        if is_first:
            for _ in multiply(Path(database), first, tasks):
                pass
            before = cpu_of(pid)
            seconds = cpu(lambda: sync(Look(services, project)))
            return {"first_sync_tasks": tasks, "nextmask": seconds, "label_studio": round(cpu_of(pid) - before, 2)}
        look()
        for task in queue(services, project)[:8]:
            client.submit_annotation(task, [region()], 5.0)
        look()  # trains and ranks
        services = replace(services, settings=services.settings.for_project({"train_after": 10**6}))
        copies = multiply(Path(database), first, tasks)
        while some := list(islice(copies, 1000)):
            store.put_tasks(Task(project, number, image, group_key=image, updated_at=at) for number, image, at in some)
        look()  # ranks what is new
        idle = statistics.median(cpu(look) for _ in range(3))
        labels = []
        for task in queue(services, project)[:3]:
            client.submit_annotation(task, [region()], 5.0)
            labels.append(cpu(look))
        store.update_project(project, ranking_key="")
        rank = cpu(look)
        page = queue_page(services, project)
        problem = store.project(project)
        if problem is not None and problem.error:
            raise SystemExit(problem.error)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {"idle": idle, "label": statistics.median(labels), "rank": rank, "queue": page, "memory_mb": peak}


def cpu(work: Callable[[], object]) -> float:
    """Returns the CPU seconds of this process."""
    started = time.process_time()
    work()
    return round(time.process_time() - started, 3)


def cpu_of(group: int) -> float:
    """Returns the CPU seconds of a group of processes, of Linux."""
    seconds = 0.0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if int(fields[2]) == group:
            seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return seconds


def queue_page(services: Services, project: int) -> float:
    """Returns the CPU seconds of the dashboard's page of the queue, warm."""
    from fastapi.testclient import TestClient

    from ml_backend.server.app import create_app

    with TestClient(create_app(services.settings)) as browser:
        browser.get(f"/projects/{project}/queue").raise_for_status()
        return cpu(lambda: browser.get(f"/projects/{project}/queue").raise_for_status())


# -- the project in Label Studio -------------------------------------------------------------------------------------
def upload(client: LabelStudio, project: int, folder: Path) -> list[int]:
    """Uploads the first images, and returns their tasks."""
    random, paths = np.random.default_rng(0), []
    for number in range(FIRST):
        pixels = random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        paths.append(folder / f"{number}.png")
        paths[-1].write_bytes(buffer.getvalue())
    return client.upload_images(project, paths)


def region() -> dict[str, Any]:
    """Returns a region that covers half of an image."""
    painted = np.zeros((SIDE, SIDE), np.uint8)
    painted[: SIDE // 2] = 255
    size = {"original_width": SIDE, "original_height": SIDE, "image_rotation": 0}
    value = {"format": "rle", "rle": list(encode(painted)), "brushlabels": ["cell"]}
    return {"id": "r", "from_name": "tag", "to_name": "image", "type": "brushlabels", **size, "value": value}


def queue(services: Services, project: int) -> list[int]:
    """Returns the best tasks of the ranking."""
    return [task.task_id for task, _ in services.store.ranked(project, limit=WINDOW)]


def multiply(database: Path, first: list[int], size: int) -> Iterator[tuple[int, str, str]]:
    """Writes tasks into Label Studio's database, until there are `size`; yields id, image and time of the new ones."""
    with closing(sqlite3.connect(database, timeout=60)) as connection:
        connection.row_factory = sqlite3.Row
        marks = ", ".join("?" * len(first))
        query = f"SELECT * FROM task WHERE id IN ({marks}) ORDER BY id"
        originals = [dict(row) for row in connection.execute(query, first)]
        highest = int(connection.execute("SELECT max(id) FROM task").fetchone()[0])
        copies = partial(copied, originals, highest, size - len(originals))
        names = ", ".join(f'"{name}"' for name in originals[0])
        places = ", ".join(f":{name}" for name in originals[0])
        with connection:
            connection.executemany(f"INSERT INTO task ({names}) VALUES ({places})", copies())
    for row in copies():
        yield row["id"], json.loads(row["data"])["image"], f"{row['updated_at'].replace(' ', 'T')}Z"


def copied(originals: list[dict[str, Any]], highest: int, count: int) -> Iterator[dict[str, Any]]:
    """Yields rows of tasks without annotations: the images of others under references of their own."""
    for number in range(count):
        original = originals[number % len(originals)]
        nothing = dict.fromkeys((name for name in original if name.startswith(("total_", "cancelled_"))), 0)
        image = f"{json.loads(original['data'])['image']}?copy={number}"
        at = (LONG_AGO + timedelta(milliseconds=number)).strftime("%Y-%m-%d %H:%M:%S.%f")
        own = {"id": highest + 1 + number, "inner_id": FIRST + 1 + number, "data": json.dumps({"image": image})}
        yield {**original, **nothing, **own, "is_labeled": 0, "updated_at": at, "created_at": at}


if __name__ == "__main__":
    main()
