"""What earlier releases keep in MODEL_DIR, opened by this one: nothing is lost, and nothing is done a second time.

The installations in tests/saved_state were recorded with the releases that their folders are named after. Whatever
moves or is renamed in the code, the names of files, tables, columns, keys, settings and versions have to stay.
"""

from __future__ import annotations

import hashlib
import html
import io
import json
import logging
import re
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from saved_installation import CELLS, PARTS, RECORDED, SECRET, RecordedStudio, Rows, read_json, rows_of
from wiring import Json, disc, make_services, make_settings, nothing

from ml_backend.projects.audit import audit_set
from ml_backend.projects.connection import Connection
from ml_backend.projects.services import Services
from ml_backend.projects.serving import roll_back
from ml_backend.projects.status import project_status
from ml_backend.server.app import create_app
from ml_backend.settings import RENAMED, RETIRED, environment_name
from ml_backend.store import file_name
from ml_backend.store.backup import restore
from ml_backend.worker.worker import Worker

RELEASES = sorted(folder.name for folder in RECORDED.iterdir() if folder.is_dir())
PROJECTS = [CELLS, PARTS]
WAKING = {"wakes", "wakes_handled", "dirty_since", "reconciled_at", "stage_since"}
"""Columns of a project that every look changes."""
OF_THIS_LOOK = ("host_clock_", "images_retried_", "schema")
"""Beginnings of the keys whose values belong to a machine, a moment or a release."""
OF_THIS_START = re.compile(r"clock_[0-9a-f-]{36}")
"""A key that each start of a machine has of its own."""

pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass(frozen=True)
class Installation:
    """A recorded MODEL_DIR in its place of now, what it told when it was recorded, and its Label Studio."""

    folder: Path
    expected: Json
    studios: dict[int, RecordedStudio]
    open: Callable[[int], Services]

    def recorded(self, project: int) -> Json:
        shown: Json = self.expected["projects"][str(project)]
        return shown

    @contextmanager
    def server(self, **settings: str) -> Iterator[TestClient]:
        """Its server, without a Label Studio that answers: images come from the recorded cache."""
        app = create_app(make_settings(self.folder, **settings))
        with TestClient(app, raise_server_exceptions=False) as client:
            yield client


def unpack(release: Path, folder: Path) -> None:
    """Put a MODEL_DIR where a test may have it. Its paths are those of where it was recorded."""
    with tarfile.open(release / "model_dir.tar.gz") as members:
        members.extractall(folder, filter="data")


def content(folder: Path, row: Json, column: str = "mask_file") -> bytes:
    """Return the content of a file that a row names, by its path or by its key."""
    return (folder / file_name(row[column], row["project_id"])).read_bytes()


def unpack_backup(release: Path, folder: Path) -> None:
    restore(make_settings(folder), release / "backup.tar.gz", progress=nothing)


@pytest.fixture(params=RELEASES)
def release(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = RECORDED / str(request.param)
    for name, value in read_json(folder / "expected.json")["environment"].items():
        if field := as_named_now(name):
            monkeypatch.setenv(environment_name(field), value)
    return folder


def as_named_now(name: str) -> str:
    """Return the setting that a variable of an earlier release sets now; empty where it is gone: as people are told."""
    field = name.removeprefix("NEXTMASK_").lower()
    return "" if field in RETIRED else RENAMED.get(field, field)


@pytest.fixture
def put() -> Callable[[Path, Path], None]:
    return unpack


@pytest.fixture
def installation(release: Path, put: Callable[[Path, Path], None], tmp_path: Path) -> Iterator[Installation]:
    put(release, folder := tmp_path / "model_dir")
    studios = [RecordedStudio.from_json(kept) for kept in read_json(release / "label_studio.json")]
    by_id, opened = {studio.id: studio for studio in studios}, list[Services]()

    def open_services(project: int) -> Services:
        opened.append(make_services(folder, by_id[project]))
        return opened[-1]

    yield Installation(folder, read_json(release / "expected.json"), by_id, open_services)
    for services in opened:
        services.store.close()


def look(services: Services, project: int) -> None:
    """Let the worker look at a project once."""
    assert Worker(services).run_once(only=project)


def files_of(folder: Path) -> dict[str, str]:
    """Digests of all files of an installation's projects."""
    files = [path for path in sorted((folder / "projects").rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def at_rest(rows: Rows) -> Rows:
    """Leave out what every look changes, and the number of the tables' form, which belongs to a release."""
    projects = [{name: value for name, value in row.items() if name not in WAKING} for row in rows["projects"]]
    meta = [{**row, "value": ""} if row["key"].startswith(OF_THIS_LOOK) else row for row in rows["meta"]]
    own = {"projects": projects, "meta": [row for row in meta if not OF_THIS_START.fullmatch(row["key"])]}
    return {**rows, **own, "alembic_version": []}


def recorded_part(rows: Rows, before: Rows) -> Rows:
    """Return what there is of the tables and columns of before: a later release may have more."""
    columns = {name: known[0].keys() for name, known in before.items() if known}
    return {name: [{column: row[column] for column in known} for row in rows[name]] for name, known in columns.items()}


def pixels(png: bytes | None) -> npt.NDArray[np.uint8]:
    assert png is not None
    return np.asarray(Image.open(io.BytesIO(png)))


def labels(rows: Rows, project: int) -> list[dict[str, Any]]:
    return [row for row in rows["tasks"] if row["project_id"] == project and row["status"] == "labelled"]


# -- nothing is done a second time -----------------------------------------------------------------------------------
@pytest.mark.parametrize("put", [unpack, unpack_backup], ids=["folder", "backup"])
@pytest.mark.parametrize("project", PROJECTS)
def test_a_look_reads_and_trains_nothing_anew_and_soon_there_is_nothing_to_do(
    project: int, installation: Installation, put: Callable[[Path, Path], None]
) -> None:
    studio = installation.studios[project]
    before, files = rows_of(installation.folder), files_of(installation.folder)
    services = installation.open(project)
    look(services, project)
    after = rows_of(installation.folder)
    assert read_from(recorded_part(after, before), project) == read_from(before, project)
    assert learned(files_of(installation.folder)) == learned(files)
    if put is unpack:  # a backup is without the cache, and audit images leave the order: it is made anew
        assert set(studio.fetched) <= {"/data/upload/gone.png"}  # which failed, and is asked for again now and then

    look(services, project)  # what the new order made of tasks is read
    after = rows_of(installation.folder)
    files, host, imports = files_of(installation.folder), json.dumps(studio.as_json()), len(studio.imports)
    look(services, project)
    now = rows_of(installation.folder)
    assert recorded_part(at_rest(now), at_rest(after)) == {name: kept for name, kept in at_rest(after).items() if kept}
    assert files_of(installation.folder) == files
    assert (json.dumps(studio.as_json()), len(studio.imports)) == (host, imports)


def read_from(rows: Rows, project: int) -> list[dict[str, Any]]:
    """What was read of annotations, but for what decides whether labels measure, what is new, and what only counts."""
    own = [
        row for row in rows["tasks"] if row["project_id"] == project and row["status"] not in ("unlabelled", "passed")
    ]
    left_out = {"held_out", "audit", "annotator", "unchanged", "changed", "draw", "turn"}
    return [{name: value for name, value in by_keys(row).items() if name not in left_out} for row in own]


def by_keys(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a task with its files named as they are now."""
    named = {name: row[name] for name in ("mask_file", "effort_file") if row.get(name)}
    return row | {name: file_name(path, row["project_id"]) or path for name, path in named.items()}


def learned(files: dict[str, str]) -> dict[str, str]:
    """Masks and versions: a strategy that learns goes on when the pool is ranked, and the database has the pointer."""
    return {name: digest for name, digest in files.items() if "/strategy/" not in name and "/current" not in name}


def test_after_the_upgrade_labels_made_over_a_mask_train_and_audit_images_open_empty(
    installation: Installation,
) -> None:
    studio, before = installation.studios[CELLS], labels(rows_of(installation.folder), CELLS)
    shown = {row["task_id"] for row in before if not row["shown_version"].startswith(("nextmask-0.", "other"))}
    shown &= {row["task_id"] for row in before if row["shown_version"]}
    moved = [row["task_id"] for row in before if row["held_out"] and row["task_id"] in shown]
    assert moved
    services = installation.open(CELLS)
    look(services, CELLS)
    rows = rows_of(installation.folder)
    now = {row["task_id"]: row for row in labels(rows, CELLS)}
    assert now.keys() == {row["task_id"] for row in before}
    assert {task for task, row in now.items() if row["masked"]} == shown
    assert not any(now[task]["held_out"] for task in shown)
    (event,) = (row for row in rows["events"] if row["project_id"] == CELLS and row["kind"] == "audit_changed")
    measuring = sum(row["held_out"] for row in now.values())
    assert re.match(rf"{len(moved)} labels? that measured trains? from now on", event["text"])
    assert f"{measuring} label" in event["text"]
    audit = audit_set(services.settings, services.store, CELLS)
    published = {row["task"]: row["result"] for rows in studio.imports for row in rows}
    empty = {task for task, result in published.items() if not result}
    assert empty == {task for task in published if audit.has(studio.items[task]["data"]["image"])}
    assert empty


def test_a_training_that_was_done_already_is_not_done_again(installation: Installation) -> None:
    """A worker may have died right after a training: the request for it is still there, and so is the version."""
    studio, services = installation.studios[CELLS], installation.open(CELLS)
    newest = services.checkpoints(CELLS).history()[-1]
    for row in labels(rows_of(installation.folder), CELLS):
        if str(row["task_id"]) not in newest.labels:  # what was labelled since is deleted, too
            studio.items[row["task_id"]] |= {"annotations": [], "updated_at": "2026-01-01T00:59:59.000000Z"}
    services.store.update_project(CELLS, train_requested_at=time.time())
    look(services, CELLS)  # the first training after the upgrade: other labels measure
    newest = services.checkpoints(CELLS).history()[-1]
    asked_at = datetime.fromisoformat(newest.created_at).timestamp() - 10
    services.store.update_project(CELLS, train_requested_at=asked_at)
    look(services, CELLS)
    (row,) = (row for row in rows_of(installation.folder)["projects"] if row["id"] == CELLS)
    assert row["train_requested_at"] is None
    assert services.store.count_tasks(CELLS)["labelled"] == len(newest.labels)
    assert services.checkpoints(CELLS).history()[-1] == newest


@pytest.mark.parametrize("project", PROJECTS)
def test_labels_that_are_read_again_mean_the_same(project: int, installation: Installation) -> None:
    before = rows_of(installation.folder)
    masks = {row["task_id"]: pixels(content(installation.folder, row)) for row in labels(before, project)}
    known = [row for row in before["tasks"] if row["project_id"] == project]
    # Labels of whole images and of parts, an annotation that is damaged, a skipped one: fewer labels than train.
    again = {*[row["task_id"] for row in labels(before, project)][-2:]}
    again |= {row["task_id"] for row in known if row["status"] in ("broken", "skipped")}
    for task in again:
        installation.studios[project].items[task]["updated_at"] = "2026-01-01T00:59:59.000000Z"
    look(services := installation.open(project), project)
    now = {row["task_id"]: row for row in rows_of(installation.folder)["tasks"] if row["project_id"] == project}
    for row in known:
        found = dict(now[row["task_id"]])
        if row["task_id"] in again:
            assert found.pop("updated_at") == "2026-01-01T00:59:59.000000Z"
            row.pop("updated_at")
        if row["status"] == "labelled":
            assert (pixels((installation.folder / found["mask_file"]).read_bytes()) == masks[row["task_id"]]).all()
            # Another release of Pillow may write other bytes, and other labels measure.
            for changed in ("mask_file", "label_digest", "held_out"):
                found.pop(changed)
                row.pop(changed)
        elif row["status"] == "passed":  # an audit image returns to the pool
            found["status"] = row["status"]
        assert {name: found[name] for name in row} == by_keys(row)
    model, _, ranking = installation.recorded(project)["status"]["version"].partition(".")
    assert project_status(services.settings, services.store, project).version == f"{model}.{int(ranking) + 1}"


# -- nothing is lost -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("put", [unpack, unpack_backup], ids=["folder", "backup"])
@pytest.mark.parametrize("project", PROJECTS)
def test_labels_are_the_masks_that_were_drawn(project: int, installation: Installation) -> None:
    found = labels(rows_of(installation.folder), project)
    assert len(found) == installation.recorded(project)["status"]["labels"]
    for row in found:
        drawn = disc(int(Path(row["image"]).stem))[1]
        mask = content(installation.folder, row)
        assert hashlib.sha256(mask).hexdigest() == row["label_digest"]
        asked = np.zeros(drawn.shape, bool)
        for left, top, width, height in json.loads(row["boxes"] or f"[[0, 0, {drawn.shape[1]}, {drawn.shape[0]}]]"):
            asked[top : top + height, left : left + width] = True
        assert (pixels(mask) == np.where(asked, drawn, 255)).all()
        points = np.load(io.BytesIO(content(installation.folder, row, "effort_file")))
        assert points[:, 2].sum() == pytest.approx(row["effort"], abs=1e-3)


@pytest.mark.parametrize("project", PROJECTS)
def test_commands_and_pages_tell_what_they_told(project: int, installation: Installation) -> None:
    recorded, services = installation.recorded(project), installation.open(project)
    status = project_status(services.settings, services.store, project).as_json()
    assert {name: status[name] for name in recorded["status"]} == recorded["status"]
    with installation.server() as client:
        for page in ("", "/queue", "/versions", "/versions/1/serve", "/tasks", "/events", "/compare", "/live"):
            assert client.get(f"/projects/{project}{page}").status_code == 200, page
        text = client.get(f"/projects/{project}").text
        curve = json.loads(html.unescape(re.findall(r"data-curve='([^']*)'", text)[0]))
        names = recorded["curve"]["points"][0].keys()
        assert (
            curve | {"points": [{name: point[name] for name in names} for point in curve["points"]]}
            == recorded["curve"]
        )
        assert {end for point in curve["points"] for ends in point["intervals"].values() for end in ends} == {None}
        first = client.get("/").text
        numbers = re.findall(r'class="number">([^<]*)<', first[first.index(f">{recorded['status']['title']}<") :])
        assert numbers[:3] == [str(recorded["status"][name]) for name in ("labels", "pool", "queue")]
        assert numbers[3].startswith(f"{recorded['status']['held_out_miou']:.2f} (no interval) on ")
        events = [row["text"] for row in rows_of(installation.folder)["events"] if row["project_id"] == project]
        shown = html.unescape(client.get(f"/projects/{project}/events").text)
        assert all(text in shown for text in events)
        trained = [line for line in client.get("/metrics").text.splitlines() if f'project="{project}"' in line]
        assert any(re.search(rf"trained.* {len(recorded['versions'])}(\.0)?$", line) for line in trained)


@pytest.mark.parametrize("project", PROJECTS)
def test_pictures_that_were_drawn_are_not_drawn_again(project: int, installation: Installation) -> None:
    kept, task = installation.folder / "pictures", installation.recorded(project)["queue"][0]
    names = {path.name for path in kept.iterdir()}
    with installation.server() as client:
        for kind in ("image", "mask", "uncertainty", "regions"):
            answer = client.get(f"/projects/{project}/tasks/{task}/{kind}")
            assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "private, max-age=300")
    assert {path.name for path in kept.iterdir()} == names


@pytest.mark.parametrize("project", PROJECTS)
def test_the_version_that_serves_predicts_the_masks_that_it_predicted(project: int, installation: Installation) -> None:
    recorded, studio = installation.recorded(project), installation.studios[project]
    version, queue = recorded["status"]["version"], recorded["queue"]
    services = installation.open(project)
    serving = services.checkpoints(project).current()
    assert serving is not None
    assert (serving.number, list(serving.record.classes)) == (recorded["serving"], recorded["classes"])
    before = [services.store.published_mask(project, version, task) for task in queue]
    services.store.put_published(project, version, [(task, 0.0, None) for task in queue])
    tasks = [{"id": task, "data": studio.items[task]["data"], "project": project} for task in queue]
    with installation.server(audit_share="0") as client:  # audit images would be predicted empty
        assert client.post("/setup", json={"project": f"{project}.1"}).json() == {"model_version": version}
        answer = client.post("/predict", json={"tasks": tasks, "project": f"{project}.1"}).json()
    assert answer["model_version"] == version
    rows = {row["task"]: row for row in studio.predictions if row["model_version"] == version}
    for task, was, prediction in zip(queue, before, answer["results"], strict=True):
        mask = pixels(services.store.published_mask(project, version, task))
        assert (mask != pixels(was)).mean() <= 0.01  # another processor rounds otherwise
        assert 0 < (mask == 1).mean() < 0.5
        assert prediction["score"] == rows[task]["score"]
        shown, published = prediction["result"], rows[task]["result"]
        assert [(row["from_name"], row["type"]) for row in shown] == [
            (row["from_name"], row["type"]) for row in published
        ]
        rectangles = [[row["value"] for row in result if row["from_name"] == "query"] for result in (shown, published)]
        assert rectangles[0] == rectangles[1]


def test_versions_and_committees_load(installation: Installation) -> None:
    for project in PROJECTS:
        recorded, checkpoints = installation.recorded(project), installation.open(project).checkpoints(project)
        history = [[record.number, record.accepted, len(record.labels)] for record in checkpoints.history()]
        assert history == recorded["versions"]
        assert checkpoints.damaged() == {}
        names = [set(checkpoints.load_state(version)) for version in checkpoints.versions()]
        members = checkpoints.committees.load(recorded["serving"]) or []
        assert len(members) == recorded["committee"]
        assert all(set(one) == names[0] for one in [*names, *members])


def test_the_number_of_a_version_that_was_removed_is_not_given_again(installation: Installation) -> None:
    checkpoints = installation.open(CELLS).checkpoints(CELLS)
    *_, before, last = checkpoints.versions()
    shutil.rmtree(last.weights.parent)
    assert checkpoints.create(before.record, checkpoints.load_state(before)).number == last.number + 1


# -- work goes on ----------------------------------------------------------------------------------------------------
def test_back_to_an_earlier_version_and_its_committee(installation: Installation) -> None:
    """What was trained is used, and what is written is written under the names of before."""
    studio, services = installation.studios[CELLS], installation.open(CELLS)
    keys = {row["key"] for row in at_rest(rows_of(installation.folder))["meta"]}
    version, ranking = installation.recorded(CELLS)["status"]["version"].removeprefix("nextmask-").split(".")
    files = files_of(installation.folder)
    assert f"projects/{CELLS}/model/current" in files
    models = {name: digest for name, digest in files.items() if name != f"projects/{CELLS}/model/current"}
    assert roll_back(services.settings, services.store, CELLS).number == int(version) - 1
    look(services, CELLS)
    assert studio.fields["model_version"] == f"nextmask-{int(version) - 1}.{int(ranking) + 1}"
    assert studio.queue()
    audit = audit_set(services.settings, services.store, CELLS)
    for published in studio.imports[0]:
        assert bool(published["result"]) != audit.has(studio.items[published["task"]]["data"]["image"])
    assert files_of(installation.folder) == models, "the pointer is in the database now, and all else as it was"
    assert {row["key"] for row in at_rest(rows_of(installation.folder))["meta"]} == {
        *keys,
        f"serving_{CELLS}",  # the version that serves, which was a file
        f"interactive_{CELLS}",  # whether smart tools may ask nextmask
        f"audit_{CELLS}",
        f"stream_returned_{CELLS}",  # audit images that were passed over
        # what makes looks cheap: what was done already, and up to which change
        *(f"{what}_{CELLS}" for what in ("annotators_named", "count_changes", "drawn_by", "masks_tidied")),
    }


def test_a_new_order_is_made_with_what_the_strategy_learned(
    installation: Installation, caplog: pytest.LogCaptureFixture
) -> None:
    studio, services = installation.studios[PARTS], installation.open(PARTS)
    names = set(files_of(installation.folder)) - {f"projects/{PARTS}/model/current"}
    number, ranking = installation.recorded(PARTS)["status"]["version"].removeprefix("nextmask-").split(".")
    with installation.server() as client:
        assert client.post(f"/projects/{PARTS}/rank", follow_redirects=False).status_code == 303
    look(services, PARTS)
    assert studio.fields["model_version"] == f"nextmask-{number}.{int(ranking) + 1}"
    assert all(query.cost for query in services.store.ranked_queries(PARTS).values())
    assert set(files_of(installation.folder)) == names  # no second file of what is learned
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []  # it was readable


def test_label_studio_still_gets_in(installation: Installation) -> None:
    body = {"action": "ANNOTATION_CREATED", "project": {"id": CELLS}}
    with installation.server(basic_auth_user="nextmask", basic_auth_pass="not-a-password") as client:
        right = client.post("/webhook", json=body, headers={"X-Nextmask-Secret": SECRET})
        wrong = client.post("/webhook", json=body, headers={"X-Nextmask-Secret": "another"})
    assert (right.status_code, wrong.status_code) == (201, 401)


@pytest.mark.parametrize("project", PROJECTS)
def test_settings_that_are_invalid_now_leave_those_that_were_good(project: int, installation: Installation) -> None:
    services = installation.open(project)
    services.store.update_project(project, extra_params='{"strategy": 3}')
    status = project_status(services.settings, services.store, project)
    assert status.strategy == installation.recorded(project)["status"]["strategy"]
    assert "strategy" in status.errors["settings"].lower()


@pytest.mark.parametrize("project", PROJECTS)
def test_disconnecting_puts_back_what_was_there(project: int, installation: Installation) -> None:
    studio, services = installation.studios[project], installation.open(project)
    (undo,) = (json.loads(row["undo"]) for row in rows_of(installation.folder)["projects"] if row["id"] == project)
    Connection(services.settings, services.store, services.client, project).disconnect()
    assert studio.fields["sampling"] == undo["sampling"] == "Sequential sampling"
    assert studio.xml == undo["label_config"]
    assert "query" not in studio.xml
    assert [row["title"] for row in studio.backends] == (["theirs"] if project == CELLS else [])
    assert studio.hooks == []
    assert studio.tabs == []
