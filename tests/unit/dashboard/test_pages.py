"""Pages of the dashboard, as the server sends them."""

from __future__ import annotations

import hashlib
import html
import json
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from wiring import PROJECT, give_project, make_services, task_of

from ml_backend.dashboard.pictures.subjects import labels_of
from ml_backend.dashboard.rendering import NOTHING
from ml_backend.dashboard.static import FOLDER
from ml_backend.learning.measuring.words import measure_text, measured_text, recorded
from ml_backend.projects.services import Services
from ml_backend.projects.signs_of_life import give_sign, worker_name
from ml_backend.projects.unchanged import keep_annotator_names
from ml_backend.server.app import create_app
from ml_backend.store import Decision, Store

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7*7 }}"


def page(client: TestClient, path: str, status: int = 200) -> str:
    answer = client.get(path)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return answer.text


# -- projects --------------------------------------------------------------------------------------------------------
def test_without_a_project_the_first_page_says_how_to_connect_one(client: TestClient) -> None:
    assert "nextmask connect PROJECT" in page(client, "/")


def test_projects_are_listed_the_failed_ones_first(client: TestClient, services: Services) -> None:
    give_project(services, title="Cells")
    services.store.put_tasks([task_of(task, status="labelled" if task < 4 else "unlabelled") for task in range(1, 9)])
    services.store.put_published(PROJECT, "nextmask-1.1", [(5, 0.1, None), (6, 0.2, None), (1, 0.3, None)])
    services.store.wake(99, title="Broken", state="failed", error="No disk.")
    text = page(client, "/")
    assert text.index("Broken") < text.index("Cells")
    assert "No disk." in text
    assert text.count('<span class="state idle">') == 1  # the worker has not looked at it yet
    row = text[text.index(">Cells<") :]
    numbers = re.findall(r'class="number">([^<]*)<', row)
    record = services.checkpoints(PROJECT).get(1).record
    assert numbers[:4] == ["3", "5", "2", measured_text(recorded(record, "miou"))]
    assert numbers[3].endswith(") on 2 images")
    assert f"/projects/{PROJECT}" in text


def test_disconnected_projects_are_not_shown(client: TestClient, services: Services) -> None:
    services.store.wake(7, title="Gone")
    services.store.update_project(7, managed=False)
    assert "Gone" not in page(client, "/")
    assert "nextmask connect 7" in page(client, "/projects/7", 404)


def test_workers_are_shown_with_what_they_work_on(client: TestClient, services: Services) -> None:
    assert "<h2>Workers</h2>" not in page(client, "/")
    services.store.wake(PROJECT, title="Cells")
    give_sign(services.store)
    services.store.set_value("worker_seen_at elsewhere:7", "1000")
    assert services.store.acquire(f"{worker_name()}:ab", lease_seconds=60, interval=60)
    text = page(client, "/")
    own, other = text.index(worker_name()), text.index("elsewhere:7")
    assert own < text.index(f'href="/projects/{PROJECT}"', own) < other
    assert "stuck, or killed" not in text[own:other]
    assert "stuck, or killed" in text[other:]
    assert "nothing now" in text[other:]


def test_titles_and_errors_are_text(client: TestClient, services: Services) -> None:
    services.store.wake(PROJECT, title=HOSTILE, state="failed", error=HOSTILE)
    for path in ("/", f"/projects/{PROJECT}"):
        text = page(client, path)
        assert "<img src=x" not in text
        assert "<script>" not in text
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
        assert "{{ 7*7 }}" in text


@pytest.mark.parametrize("path", ["/projects/0", "/projects/x", "/projects/-1", "/projects/99999999999999999999"])
def test_addresses_of_nothing_are_pages_too(client: TestClient, path: str) -> None:
    assert "no such page" in page(client, path, 404)


def test_an_unexpected_error_is_a_page_without_its_text(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("secret thing")

    monkeypatch.setattr(Store, "projects", fail)
    text = page(client, "/", 500)
    assert "Internal error (RuntimeError)" in text
    assert "secret thing" not in text
    assert "Traceback" not in text


def test_the_guide_for_annotators_is_served_with_its_pictures(client: TestClient) -> None:
    assert 'href="/annotating"' in page(client, "/")
    text = page(client, "/annotating")
    assert "Select the region before you change it" in text
    pictures = re.findall(r'<img src="(/static/guide/[^"]+)"', text)
    assert len(pictures) == 2
    assert all(client.get(picture).headers["content-type"] == "image/png" for picture in pictures)
    assert re.findall(r'href="(?!/|#)', text) == []


# -- static files ----------------------------------------------------------------------------------------------------
def test_static_files_are_what_npm_has_and_bring_their_licences() -> None:
    vendor = FOLDER / "vendor"
    rows = json.loads((vendor / "vendor.json").read_text())
    for row in rows:
        assert hashlib.sha256((vendor / row["file"]).read_bytes()).hexdigest() == row["sha256"], row["file"]
        assert (vendor / f"{row['file']}.LICENSE.txt").stat().st_size > 200
    known = {row["file"] for row in rows}
    assert {path.name for path in vendor.iterdir()} == known | {f"{name}.LICENSE.txt" for name in known} | {
        "vendor.json"
    }


def test_pages_name_only_files_of_this_server_and_browsers_may_keep_them(client: TestClient) -> None:
    references = re.findall(r'(?:src|href)="([^"]+)"', page(client, "/"))
    static = [reference for reference in references if "/static/" in reference]
    assert len(static) >= 5
    assert all(reference.startswith(("/", "#")) for reference in references)
    for reference in static:
        answer = client.get(reference)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["Cache-Control"]
    assert client.get("/static/dashboard.css").headers["Cache-Control"] == "no-cache"


def test_static_files_are_compressed(client: TestClient) -> None:
    assert client.get("/static/vendor/pico.min.css").headers["Content-Encoding"] == "gzip"


@pytest.mark.parametrize("path", ["/static/../app.py", "/static/%2e%2e/%2e%2e/app.py", "/static//etc/passwd"])
def test_nothing_outside_of_the_folder_is_served(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_pages_hold_no_script_and_no_style_of_their_own(client: TestClient, services: Services) -> None:
    give_project(services)
    for path in ("/", f"/projects/{PROJECT}", "/projects/7"):
        text = client.get(path).text
        assert re.findall(r"<script(?![^>]* src=)", text) == []
        assert re.findall(r"<style|\sstyle=|\son[a-z]+=", text) == []


# -- a project -------------------------------------------------------------------------------------------------------
@pytest.fixture
def project(services: Services) -> Services:
    """A trained project with labels, a task that was skipped, one that failed, and one that was passed over."""
    give_project(services, title="Cells", state="waiting", reconciled_at=1.0)
    labels = [
        task_of(task, status="labelled", annotation_id=100 - task, lead_time=60.0 * task, agreement=task / 10)
        for task in range(1, 7)
    ]
    others = [
        task_of(11, status="skipped"),
        task_of(12, status="broken", error="no image"),
        task_of(13, status="passed"),
        *(task_of(task) for task in (14, 15)),
    ]
    services.store.put_tasks([*labels, *others])
    services.store.put_decisions(PROJECT, [Decision(13, False, 0.25, 0.5, 1.0)], state=("stream", "{}"))
    return services


def test_the_overview_counts_and_measures(client: TestClient, project: Services) -> None:
    text = page(client, f"/projects/{PROJECT}")
    facts = dict(re.findall(r"<dt>(?:<abbr[^>]*>)?([^<]*)(?:</abbr>)?</dt><dd[^>]*>([^<]*)</dd>", text))
    record = project.checkpoints(PROJECT).get(1).record
    assert facts["Labels"] == "6"
    assert facts["To label"] == "2"
    assert facts["Held-out mIoU"] == measured_text(recorded(record, "miou"))
    assert facts["Pre-annotation IoU"] == "0.350"
    assert facts["Minutes per label (median)"] == "3.50"
    assert facts["Labelling time (hours)"] == "0.35"
    assert "no image" in text


def test_the_curve_is_in_the_page_as_data_and_as_a_table(client: TestClient, project: Services) -> None:
    text = page(client, f"/projects/{PROJECT}")
    curve = json.loads(html.unescape(re.findall(r"data-curve='([^']*)'", text)[0]))
    record = project.checkpoints(PROJECT).get(1).record
    (point,) = curve["points"]
    assert curve["classes"] == list(record.classes)
    colours = json.loads(html.unescape(re.findall(r"data-colours='([^']*)'", text)[0]))
    legend = labels_of(project.store.projects()[0], project.settings).legend
    assert colours == dict(legend)
    assert colours.keys() < {*record.classes}  # all but the background
    assert (point["version"], point["labels"], point["hours"]) == (1, 6, 21 / 60)
    assert point["miou"] == record.measures["miou"]
    assert point["classIou"] == [record.measures["iou"][name] for name in record.classes]
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", text[text.index("Learning curve as a table") :])
    assert point["intervals"]["miou"] == record.measures["intervals"]["miou"]
    miou, dice = (recorded(record, name) for name in ("miou", "mean_dice"))
    assert (point["texts"]["miou"], point["texts"]["dice"]) == (measured_text(miou), measured_text(dice))
    assert cells[:4] == ["6", "0.35", measured_text(miou), measure_text(dice)]
    effort = json.loads(html.unescape(re.findall(r"data-series='([^']*)'", text)[0]))
    assert effort["values"] == [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]  # in the order in which they were made


def test_a_training_is_shown_while_it_runs(client: TestClient, project: Services) -> None:
    store = project.store
    lease = store.acquire("worker", lease_seconds=60, interval=1, only=PROJECT)
    assert lease is not None
    began = time.time()
    store.update_project(PROJECT, state="training", stage="training", stage_done=30, stage_total=120, stage_since=began)
    store.update_project(PROJECT, stage_note="loss 0.412, held-out mIoU 0.625", stage_ends=began + 5400)
    for path in (f"/projects/{PROJECT}", f"/projects/{PROJECT}/live?version=nextmask-1.1"):
        text = page(client, path)
        assert '<progress value="0.2500" max="1"' in text
        assert re.search(r"30 of 120 steps · \d+ s · loss 0.412, held-out mIoU 0.625 · about 1 h( \d+ min)? left", text)
        if "live" not in path:
            assert re.search(r"<button[^>]* disabled>Training …</button>", text)
            assert re.search(r"<button[^>]*>Rank now</button>", text)
        assert 'hx-trigger="every 2s"' in text
        assert "is served now" not in text
    assert "nextmask-1.1 is served now" in page(client, f"/projects/{PROJECT}/live?version=nextmask-0.9")
    store.release(lease, handled=True)
    assert "<progress" not in page(client, f"/projects/{PROJECT}/live")
    assert "Train now</button>" in page(client, f"/projects/{PROJECT}")


@pytest.mark.parametrize("what", ["train", "rank"])
def test_what_runs_already_says_so_when_it_is_asked_for(client: TestClient, project: Services, what: str) -> None:
    assert project.store.acquire("worker", lease_seconds=60, interval=1, only=PROJECT)
    project.store.update_project(PROJECT, state=f"{what}ing", stage=f"{what}ing", ranking_key="key")
    answer = client.post(f"/projects/{PROJECT}/{what}", follow_redirects=False)
    assert answer.headers["location"] == f"/projects/{PROJECT}?asked={what}-later"
    assert "runs already" in page(client, answer.headers["location"])
    row = project.store.project(PROJECT)
    assert row is not None
    assert row.ranking_key == "key"  # the ranking that runs would write its own over it
    assert (row.train_requested_at is not None) == (what == "train")


def test_work_that_no_worker_takes_is_said(client: TestClient, project: Services) -> None:
    project.store.wake(PROJECT)
    assert "no worker picks it up" not in page(client, f"/projects/{PROJECT}")
    project.store.update_project(PROJECT, dirty_since=time.time() - 100)
    assert "no worker picks it up" in page(client, f"/projects/{PROJECT}")
    assert project.store.acquire("worker", lease_seconds=60, interval=1, only=PROJECT)
    assert "no worker picks it up" not in page(client, f"/projects/{PROJECT}")


@pytest.mark.parametrize("what", ["train", "rank"])
def test_buttons_ask_the_worker(client: TestClient, project: Services, what: str) -> None:
    project.store.update_project(PROJECT, ranking_key="key")
    before = project.store.project(PROJECT)
    answer = client.post(f"/projects/{PROJECT}/{what}", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/projects/{PROJECT}?asked={what}")
    after = project.store.project(PROJECT)
    assert before is not None
    assert after is not None
    assert after.wakes == before.wakes + 1
    assert (after.train_requested_at is not None, after.ranking_key) == (
        (True, "key") if what == "train" else (False, "")
    )
    assert "requested" in page(client, f"/projects/{PROJECT}?asked={what}")
    assert client.post(f"/projects/7/{what}").status_code == 404
    foreign = client.post(f"/projects/{PROJECT}/{what}", headers={"Origin": "https://evil.example"})
    assert foreign.status_code == 403
    unchanged = project.store.project(PROJECT)
    assert unchanged is not None
    assert unchanged.wakes == after.wakes


# -- versions --------------------------------------------------------------------------------------------------------
def test_versions_with_their_measures_and_the_way_back(client: TestClient, project: Services) -> None:
    checkpoints = project.checkpoints(PROJECT)
    first = checkpoints.get(1)
    worse = replace(first.record, accepted=False, reason="worse by more than 0.02", parent=1)
    checkpoints.create(worse, checkpoints.load_state(first))
    checkpoints.create(replace(first.record, reason="better", parent=1), checkpoints.load_state(first))
    checkpoints.publish(3)
    project.store.update_project(PROJECT, decided_model=3)
    damaged = checkpoints.create(first.record, checkpoints.load_state(first))
    damaged.weights.write_bytes(b"short")
    text = page(client, f"/projects/{PROJECT}/versions")
    assert re.search(r"3</a> <span class=\"badge\">served", text)
    assert "worse by more than 0.02" in text
    assert re.search(r"damaged</span> <small>weights.safetensors has 5 bytes", text)
    assert all(measure_text(recorded(first.record, name)) in text for name in ("miou", "mean_dice"))
    assert f"/projects/{PROJECT}/versions/3/serve" not in text

    assert f'/projects/{PROJECT}/compare"' in text

    assert "kept back: worse by more than 0.02" in page(client, f"/projects/{PROJECT}/versions/2/serve")
    assert checkpoints.current() == checkpoints.get(3)  # to ask changes nothing
    answer = client.post(f"/projects/{PROJECT}/versions/1/serve", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/projects/{PROJECT}/versions?back=1")
    assert checkpoints.current() == first
    assert "Version 1 serves again" in page(client, answer.headers["location"])
    (event,) = project.store.events(PROJECT)
    assert event.kind == "rolled_back"
    row = project.store.project(PROJECT)
    assert row is not None
    assert row.decided_model == 3  # the worker does not publish it again


def test_versions_that_were_removed_from_disk_keep_their_row_and_cannot_be_served(
    client: TestClient, project: Services
) -> None:
    checkpoints = project.checkpoints(PROJECT)
    first = checkpoints.get(1)
    for _ in range(3):
        checkpoints.create(replace(first.record, parent=1, reason="better"), checkpoints.load_state(first))
    checkpoints.publish(4)
    (removed,) = set(checkpoints.remove_old(2)) - {1}
    text = page(client, f"/projects/{PROJECT}/versions")
    assert re.findall(r'<th scope="row"><a [^>]*>(\d)', text) == ["4", "3", "2", "1"]
    assert text.count(">weights removed<") == 4 - len(_numbers(project))
    assert f"/versions/{removed}/serve" not in text
    page(client, f"/projects/{PROJECT}/versions/{removed}/serve", 404)


def _numbers(services: Services) -> list[int]:
    return [version.number for version in services.checkpoints(PROJECT).versions()]


def test_a_version_that_is_not_there_or_damaged_is_not_served(client: TestClient, project: Services) -> None:
    checkpoints = project.checkpoints(PROJECT)
    first = checkpoints.get(1)
    damaged = checkpoints.create(first.record, checkpoints.load_state(first))
    content = bytearray(damaged.weights.read_bytes())
    content[-1] ^= 1
    damaged.weights.write_bytes(content)
    assert client.post(f"/projects/{PROJECT}/versions/9/serve").status_code == 404
    answer = client.post(f"/projects/{PROJECT}/versions/2/serve")
    assert answer.status_code == 503
    assert "Good versions here" in answer.text
    assert checkpoints.current() == first
    assert client.get(f"/projects/{PROJECT}/versions/1/serve", headers={"Sec-Fetch-Site": "cross-site"}).is_success
    foreign = client.post(f"/projects/{PROJECT}/versions/1/serve", headers={"Sec-Fetch-Site": "cross-site"})
    assert foreign.status_code == 403


# -- tasks and events ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("reason", "tasks"), [("all", [11, 12, 13]), ("skipped", [11]), ("failed", [12]), ("passed", [13])]
)
def test_tasks_that_are_left_out_are_listed_with_the_reason(
    client: TestClient, project: Services, reason: str, tasks: list[int]
) -> None:
    text = page(client, f"/projects/{PROJECT}/tasks?reason={reason}")
    assert [int(task) for task in re.findall(r"/data\?task=(\d+)", text)] == tasks
    assert f'href="{project.settings.label_studio_url}/projects/{PROJECT}/data?task={tasks[0]}"' in text
    reasons = {11: "Skipped by an annotator", 12: "no image", 13: "information 0.25, below the threshold of 0.5"}
    assert all(reasons[task] in text for task in tasks)


def test_tasks_come_in_pages(client: TestClient, project: Services) -> None:
    project.store.put_tasks([task_of(task, status="skipped") for task in range(1001, 1121)])
    seen: list[str] = []
    address = f"/projects/{PROJECT}/tasks?reason=skipped"
    for number in (1, 2, 3):
        text = page(client, address)
        assert f"Page {number} of 3" in text
        seen += re.findall(r"\?task=(\d+)", text)
        following = re.findall(r'href="([^"]*)" rel="next"', text)
        address = html.unescape(following[0]) if following else ""
    assert address == ""
    assert seen == ["11", *map(str, range(1001, 1121))]
    assert "Page 3 of 3" in page(client, f"/projects/{PROJECT}/tasks?reason=skipped&page=4")  # the nearest there is


def test_labels_submitted_unchanged_are_counted_by_annotator_and_listed(client: TestClient, project: Services) -> None:
    labels = [
        task_of(2000 + at, status="labelled", annotation_id=2000 + at, annotator=7 + at % 2, unchanged=at % 4 > 0)
        for at in range(120)
    ]
    project.store.put_tasks(labels)
    keep_annotator_names(project.store, {7: "<i>Ada</i>", 8: ""})
    text = page(client, f"/projects/{PROJECT}")
    assert "90 of 120 labels" in text
    assert "(75 %)" in text
    rows = re.findall(
        r"<tr><th[^>]*>(.*?)</th>(.*?)</tr>", text[text.index("<tbody>", text.index("Labels by annotator")) :]
    )
    cells = {re.sub(r"<[^>]*>", "", name): re.findall(r">([^<]*)</td>", row) for name, row in rows}
    assert cells == {
        "&lt;i&gt;Ada&lt;/i&gt;": ["60", "60", "30", "50 %"],
        "user 8": ["60", "60", "60", "100 %"],
        "unknown": ["6", "0", "0", NOTHING],
    }
    assert "NEXTMASK_UNCHANGED_SHARE (0.5)" in text
    listed = {"": 90, "?annotator=7": 30, "?annotator=8": 60, "?annotator=99": 0}
    for search, count in listed.items():
        seen, address = [], f"/projects/{PROJECT}/unchanged{search}"
        while address:
            part = page(client, address)
            seen += [int(task) for task in re.findall(r"/data\?task=(\d+)", part)]
            following = re.findall(r'href="([^"]*)" rel="next"', part)
            address = html.unescape(following[0]) if following else ""
        assert seen == sorted(set(seen), reverse=True)
        assert len(seen) == count
        assert (count == 0) == ("No such labels." in part)
    assert client.get(f"/projects/{PROJECT}/unchanged?annotator=0").status_code == 404


def test_guesses_at_points_are_counted_by_annotator(client: TestClient, project: Services) -> None:
    answers = {"status": "labelled", "boxes": "[[3, 4]]", "points": 10, "guesses": 10, "shown_version": "nextmask-1.1"}
    project.store.put_tasks(
        [task_of(2000 + at, **answers, annotator=7 + at % 2, right_guesses=6 + at % 2) for at in range(4)]
    )
    text = page(client, f"/projects/{PROJECT}")
    assert "Points: 40 answers in 4 labels" in text
    assert "Guesses at points that the answers found right: 26 of 40 (65 %)." in text
    assert "Labels submitted unchanged" not in text
    rows = re.findall(
        r"<tr><th[^>]*>(.*?)</th>(.*?)</tr>", text[text.index("<tbody>", text.index("Labels by annotator")) :]
    )
    cells = {name: re.findall(r">([^<]*)</td>", row)[-2:] for name, row in rows}
    assert cells == {"user 7": ["20", "60 %"], "user 8": ["20", "70 %"], "unknown": ["0", NOTHING]}


def test_where_no_mask_was_shown_nothing_is_said_of_unchanged_labels(client: TestClient, project: Services) -> None:
    assert "unchanged" not in page(client, f"/projects/{PROJECT}").lower()
    assert "No such labels." in page(client, f"/projects/{PROJECT}/unchanged")


def test_links_lead_to_the_address_that_people_use(tmp_path: Path) -> None:
    services = make_services(tmp_path, label_studio_public_url="https://labels.example/studio/")
    services.store.wake(PROJECT)
    services.store.put_tasks([task_of(3, status="skipped")])
    with TestClient(create_app(services.settings)) as client:
        text = page(client, f"/projects/{PROJECT}/tasks")
        assert f'href="https://labels.example/studio/projects/{PROJECT}/data?task=3"' in text
    services.store.close()


def test_events_come_in_pages_and_by_level(client: TestClient, project: Services) -> None:
    for number in range(60):
        project.store.add_event(PROJECT, "trained", f"Number {number}.", level="error" if number % 20 == 0 else "info")
    project.store.add_event(99, "trained", "Of another project.")
    first = page(client, f"/projects/{PROJECT}/events")
    assert re.findall(r"Number (\d+)\.", first) == [str(number) for number in range(59, 9, -1)]
    older = html.unescape(re.findall(r'href="([^"]*)" rel="next"', first)[0])
    second = page(client, older)
    assert re.findall(r"Number (\d+)\.", second) == [str(number) for number in range(9, -1, -1)]
    assert 'rel="next"' not in second
    errors = page(client, f"/projects/{PROJECT}/events?level=error")
    assert re.findall(r"Number (\d+)\.", errors) == ["40", "20", "0"]
    assert "another project" not in first
    assert "Number 59." in page(client, f"/projects/{PROJECT}")


def test_a_project_that_was_just_connected_has_all_pages(client: TestClient, services: Services) -> None:
    services.store.wake(PROJECT)
    for path, words in {
        "": "There is no version yet",
        "/versions": "no version yet",
        "/tasks": "No such tasks",
    }.items():
        assert words in page(client, f"/projects/{PROJECT}{path}")
    assert "No events yet" in page(client, f"/projects/{PROJECT}/events")


def test_no_page_asks_label_studio(client: TestClient, project: Services) -> None:
    """Its address here answers nobody: a page that asked would be an error, or take long."""
    for path in ("", "/live", "/versions", "/versions/1/serve", "/tasks", "/events"):
        page(client, f"/projects/{PROJECT}{path}")


def test_a_large_project_opens_without_reading_its_tasks(
    client: TestClient, project: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("all tasks were read")

    monkeypatch.setattr(Store, "tasks", refuse)
    monkeypatch.setattr(Store, "decisions", refuse)
    for path in ("/", *(f"/projects/{PROJECT}{path}" for path in ("", "/live", "/versions", "/tasks", "/events"))):
        page(client, path)
