"""Records what an installation of this release keeps in MODEL_DIR, into tests/saved_state/RELEASE.

    python tests/record_saved_state.py 0.1

Works on two projects of a Label Studio in memory as the worker does: tiny images, the smallest network, real
trainings, rankings and committees. It takes a minute or two. MODEL_DIR is /srv/nextmask meanwhile, which must not be
there; it is removed at the end. Run it when a release is made, with that release's code, and never again for it.
"""

from __future__ import annotations

import argparse
import gzip
import html
import io
import json
import os
import re
import shutil
import socket
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from saved_installation import CELLS, MODEL_DIR, PARTS, RECORDED, SECRET, RecordedStudio
from wiring import Json, disc, make_services, make_settings, nothing, region

from ml_backend.projects.connection import Connection
from ml_backend.projects.services import Services
from ml_backend.projects.status import project_status
from ml_backend.server.app import create_app
from ml_backend.store.backup import backup
from ml_backend.worker.worker import Worker

ENVIRONMENT = {
    "NEXTMASK_ARCHITECTURE": "drn",
    "NEXTMASK_ENCODER": "drn22",
    "NEXTMASK_ENCODER_WEIGHTS": "none",
    "NEXTMASK_NETWORK_OPTIONS": '{"width": 0.02}',
    "NEXTMASK_INPUT_SIZE": "40",
    "NEXTMASK_ITERATIONS": "150",
    "NEXTMASK_BATCH_SIZE": "4",
    "NEXTMASK_LEARNING_RATE": "0.01",
    "NEXTMASK_TRAIN_AFTER": "4",
    "NEXTMASK_QUEUE_WINDOW": "4",
    "NEXTMASK_AUDIT_SHARE": "0.34",
    "NEXTMASK_RETIRE_HOURS": "1000000",  # nothing is pruned, however old the recording is
}
"""Settings of the installation: the smallest network, and rounds of four labels."""
OF_CELLS: Json = {
    "strategy": "suggestive_annotation",
    "strategy_options": {"candidates": 4, "picks": 2},
    "members": 2,
    "NEXTMASK_MINIMUM_AREA": 9,
}
OF_PARTS: Json = {
    "strategy": "cereals",
    "strategy_options": {"window": 16, "stride": 8, "iterations": 3, "cost_width": 4},
    "query_images": 2,
}
THEIRS = {"id": 900, "url": "http://10.0.0.9:9090", "title": "theirs", "extra_params": {"threshold": 0.5}}
"""Another model that the project has in Label Studio."""
SHOWN_STATUS = ("title", "state", "strategy", "version", "labels", "trained_labels", "held_out_miou", "agreement")
SHOWN_STATUS += ("pool", "queue", "skipped", "stream", "effort", "errors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", help="name of the folder, such as 0.1")
    target = RECORDED / parser.parse_args().release
    if MODEL_DIR.exists() or target.exists():
        raise SystemExit(f"{MODEL_DIR} and {target} must not be there.")
    os.environ.update(ENVIRONMENT)
    socket.gethostname = lambda: "nextmask"  # the worker writes its machine's name into the database
    try:
        expected, studios = record()
        target.mkdir(parents=True)
        backup(make_settings(MODEL_DIR), target / "backup.tar.gz", progress=nothing)
        archive(MODEL_DIR, target / "model_dir.tar.gz")
    finally:
        shutil.rmtree(MODEL_DIR, ignore_errors=True)
    write_json(target / "label_studio.json", [studio.as_json() for studio in studios])
    write_json(target / "expected.json", expected)


def record() -> tuple[Json, list[RecordedStudio]]:
    """Let an installation work; return what it shows of itself, and the Label Studio of each project."""
    cells = RecordedStudio(id=CELLS, fields={"title": "Cells", "sampling": "Sequential sampling"})
    parts = RecordedStudio(id=PARTS, fields={"title": "Parts of cells", "sampling": "Sequential sampling"})
    label_whole_images(cells)
    label_parts(parts)
    studios, projects = [cells, parts], {}
    for studio in studios:
        services = make_services(MODEL_DIR, studio)
        with TestClient(create_app(services.settings)) as client:
            projects[str(studio.id)] = shown(services, client, studio)
        services.store.close()
    return {"environment": ENVIRONMENT, "projects": projects}, studios


def label_whole_images(studio: RecordedStudio) -> None:
    """Three versions, the last one kept back; committees; every kind of task; then a stream."""
    studio.backends.append(dict(THEIRS))
    services = connected(studio, OF_CELLS)
    skipped, unreadable = [studio.add_task(index) for index in range(20)][:2]
    studio.add_missing_image()
    work(services, studio)
    studio.annotate(skipped, [], was_cancelled=True)
    damaged = region(disc(unreadable - 1)[1])
    studio.annotate(unreadable, [damaged | {"value": damaged["value"] | {"rle": [1, 2, 3]}}])
    for count in (6, 4):
        label_next(studio, count)
        work(services, studio)
    set_params(studio, {**OF_CELLS, "train_from": "scratch", "iterations": 1})  # the third version knows nothing
    label_next(studio, 4)
    work(services, studio)
    set_params(studio, {**OF_CELLS, "stream_rate": 0.5})
    work(services, studio)
    for index in range(20, 26):
        studio.add_task(index)
    work(services, studio)
    label_next(studio, 1)
    work(services, studio)
    services.store.close()


def label_parts(studio: RecordedStudio) -> None:
    """One version; then regions are asked for, and some of them are labelled."""
    services = connected(studio, OF_PARTS, add_query_control=True)
    for index in range(30, 40):
        studio.add_task(index)
    work(services, studio)
    for count in (4, 2):
        label_next(studio, count)
        work(services, studio)
    services.store.close()


def connected(studio: RecordedStudio, params: Json, **options: bool) -> Services:
    services = make_services(MODEL_DIR, studio)
    services.store.set_default("webhook_secret", SECRET)
    connection = Connection(services.settings, services.store, services.client, studio.id)
    connection.connect(params, **options)
    return services


def work(services: Services, studio: RecordedStudio) -> None:
    """Look until a look changes nothing."""
    worker = Worker(services)
    for _ in range(2):
        worker.run_once(only=studio.id)
    print(f"project {studio.id}: {studio.fields['model_version']}, queue {studio.queue()}")


def set_params(studio: RecordedStudio, params: Json) -> None:
    (own,) = (row for row in studio.backends if row["title"] == "nextmask")
    own["extra_params"] = params


def label_next(studio: RecordedStudio, count: int) -> None:
    """Submit the true masks of the tasks that are served next, with the rectangles that they were shown with."""
    queue = studio.queue()
    more = [task for task, item in studio.items.items() if not item["annotations"] and task not in queue]
    for task in [*queue, *more][:count]:
        shown = [row for row in studio.predictions if row["task"] == task]
        started_from = {"parent_prediction": shown[-1]["id"]} if task in queue else {}
        rectangles = [row for row in shown[-1]["result"] if row["from_name"] == "query"] if started_from else []
        index = int(Path(studio.items[task]["data"]["image"]).stem)
        studio.annotate(task, [region(disc(index)[1]), *rectangles], lead_time=10.0 + task, **started_from)


# -- what is shown ----------------------------------------------------------------------------------------------------
def shown(services: Services, client: TestClient, studio: RecordedStudio) -> Json:
    """Return what commands and pages tell of a project; open some pictures, which are kept."""
    project, queue = studio.id, studio.queue()
    status = project_status(services.settings, services.store, project).as_json()
    checkpoints = services.checkpoints(project)
    serving = checkpoints.current()
    assert serving is not None
    for task, kind in ((queue[0], "image"), (queue[0], "mask"), (queue[0], "uncertainty"), (queue[0], "regions")):
        answer = client.get(f"/projects/{project}/tasks/{task}/{kind}")
        assert answer.headers["Cache-Control"] != "no-store", kind
    curve = re.findall(r"data-curve='([^']*)'", client.get(f"/projects/{project}").text)[0]
    return {
        "status": {name: status[name] for name in SHOWN_STATUS},
        "queue": queue,
        "serving": serving.number,
        "classes": list(serving.record.classes),
        "versions": [[record.number, record.accepted, len(record.labels)] for record in checkpoints.history()],
        "committee": len(checkpoints.committees.load(serving.number) or []),
        "curve": json.loads(html.unescape(curve)),
    }


# -- files ------------------------------------------------------------------------------------------------------------
def archive(folder: Path, file: Path) -> None:
    """Pack a folder as it is, without who owned it."""

    def anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as members:
        members.add(folder, arcname=".", filter=anonymous)
    file.write_bytes(gzip.compress(packed.getvalue(), mtime=0))


def write_json(file: Path, content: Sequence[Any] | Json) -> None:
    file.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
