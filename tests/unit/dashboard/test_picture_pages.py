"""The queue and the comparison as pages, with real versions and a real ranking, and pictures as files."""

from __future__ import annotations

import asyncio
import base64
import html
import io
import re
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dashboard_data import VERSION, fill, mask_of, rank
from fastapi.testclient import TestClient
from PIL import Image
from processes import wait_for
from shapes import make_shapes
from wiring import PROJECT, XML, make_services, open_installation, png, task_of

from ml_backend.annotations import masks
from ml_backend.annotations.boxes import Box, Query
from ml_backend.annotations.config_edits import with_points_control
from ml_backend.dashboard.pictures import hex_colour
from ml_backend.dashboard.pictures.comparisons import compared_image, confusion
from ml_backend.dashboard.pictures.drawing import heat_colours
from ml_backend.dashboard.queue import PAGE, Scores, reason
from ml_backend.dashboard.static import FOLDER
from ml_backend.images.cache import ImageCache
from ml_backend.learning.measuring import compare
from ml_backend.learning.measuring.words import comparison_text, difference_text, measure_text, told_apart
from ml_backend.projects.audit import AuditCounts, AuditSet, KeptAudit, keep_audit
from ml_backend.projects.audit_points import audit_points
from ml_backend.projects.queued_points import points_to_text
from ml_backend.projects.services import Services
from ml_backend.server.app import create_app
from ml_backend.store import QueueEntry
from strategies import Point
from strategies.catalogue import available, described

pytestmark = pytest.mark.usefixtures("one_thread")

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7*7 }}"
QUEUE = f"/projects/{PROJECT}/queue"
COMPARE = f"/projects/{PROJECT}/compare"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of an installation with a project as `dashboard_data` fills it."""
    folder = tmp_path_factory.mktemp("filled")
    services = make_services(folder / "state", strategy="entropy")
    fill(services, make_shapes(folder / "shapes", 24), regions=True)
    services.store.close()
    return folder / "state"


@pytest.fixture
def services(tmp_path: Path, filled: Path) -> Iterator[Services]:
    shutil.copytree(filled, tmp_path / "state")
    address = "https://labels.example"
    with open_installation(tmp_path / "state", strategy="entropy", label_studio_public_url=address) as services:
        yield services


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[tuple[Services, TestClient]]:
    """A project of which nothing is known yet."""
    services = make_services(tmp_path / "empty")
    services.store.wake(PROJECT, title="Empty", label_config=XML)
    with TestClient(create_app(services.settings), raise_server_exceptions=False) as opened:
        yield services, opened
    services.store.close()


def page(client: TestClient, path: str, status: int = 200) -> str:
    answer = client.get(path)
    assert answer.status_code == status, answer.text
    assert "Traceback" not in answer.text
    return answer.text


def shown_tasks(text: str) -> list[int]:
    return [int(task) for task in re.findall(r'id="task-(\d+)"', text)]


def picture(client: TestClient, path: str) -> np.ndarray:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] in ("image/png", "image/webp"), answer.text
    return np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGBA"))


# -- the queue ---------------------------------------------------------------------------------------------------------
def test_queue_shows_tasks_in_the_order_in_which_they_are_served(client: TestClient, services: Services) -> None:
    text = page(client, QUEUE)
    order = [task.task_id for task, _ in services.store.ranked(PROJECT)]
    assert shown_tasks(text) == order[:PAGE]
    assert len(order) == 15
    assert text.count("in Label Studio&#39;s queue") + text.count("in Label Studio's queue") == 4  # those published
    assert text.count("not published yet") == PAGE - 4
    assert f'href="https://labels.example/projects/{PROJECT}/data?task={order[0]}"' in text
    assert "Page 1 of 2 · 15 images" in text
    rest = page(client, f"{QUEUE}?page=2")
    assert shown_tasks(rest) == order[PAGE:]
    assert f'start="{PAGE + 1}"' in rest
    assert shown_tasks(page(client, f"{QUEUE}?page=77")) == order[PAGE:]  # tasks were labelled since the link was made


def test_an_audit_image_has_a_badge_a_sentence_and_no_predicted_mask(client: TestClient, services: Services) -> None:
    (first, _), (second, _), *_ = services.store.ranked(PROJECT)
    services.store.put_tasks([replace(first, group_key="drawn")])
    counts = AuditCounts(images=1, waiting=1, skipped=0, labels=0, training=9, groups=24, measuring=1)
    kept = KeptAudit(AuditSet(0.125, 0, drawn=frozenset(["drawn"])), counts)
    keep_audit(services.settings, services.store, PROJECT, kept)
    text = page(client, QUEUE)
    audit, other = (text[text.index(f'id="task-{task.task_id}"') :].partition("</li>")[0] for task in (first, second))
    assert "audit image · opens without a mask" in audit
    assert "It opens without a mask, as it should" in audit
    assert (audit.count("/mask?"), audit.count("/uncertainty?"), "Predicted classes" in audit) == (0, 0, False)
    assert (other.count("/mask?"), other.count("/uncertainty?"), "audit image" in other) == (1, 1, False)

    text = page(client, f"/projects/{PROJECT}/tasks/{first.task_id}")
    assert "audit image · opens without a mask" in text
    assert not re.findall(r"/(?:mask|uncertainty)\?", text)
    assert f"/tasks/{first.task_id}/image?large=1" in text
    assert "1 wait, 0 labels measure" in page(client, f"/projects/{PROJECT}")

    labelled = replace(first, status="labelled", held_out=True, mask_file=str(services.settings.model_dir / "a.png"))
    services.store.put_tasks([labelled])  # then there is nothing to be swayed by
    assert re.findall(r"/(?:mask|truth)\?", page(client, f"/projects/{PROJECT}/tasks/{first.task_id}"))


def test_queue_says_why_a_task_has_its_place(client: TestClient, services: Services) -> None:
    text = page(client, QUEUE)
    entries = services.store.queue_page(PROJECT, VERSION, offset=0, limit=15)
    values = [entry.information for entry in entries]
    assert "most uncertain class probabilities" in text
    assert None not in values
    first = values[0]
    assert first == max(value for value in values if value is not None)
    shown = f"{first:#.3g}".rstrip(".")
    assert f"their mean uncertainty is {shown}, the highest of 15 images." in text
    assert "higher than in 13 of 15 images." in text
    assert "Label 2 regions · about 37 clicks" in " ".join(text.split())
    shares = [int(share) for share in re.findall(r"(?:background|disc|square) (?:&lt; )?(\d+) %", text)]
    assert len(shares) >= 4  # of published tasks: nothing had to be predicted for the page


def test_queue_says_how_many_points_are_asked_for(client: TestClient, services: Services) -> None:
    (first, _), (second, _), *_ = services.store.ranked(PROJECT)
    asked = {
        first.task_id: Query((Box.point(3, 4), Box.point(5, 6))),
        second.task_id: Query((Box.point(3, 4),)),
    }
    services.store.put_ranking(PROJECT, {first.task_id: 0.9, second.task_id: 0.8}, asked, ranking_version=VERSION)
    text = " ".join(page(client, QUEUE).split())
    assert "Say the class of 2 points" in text
    assert "Say the class of 1 point ·" in text
    assert picture(client, f"/projects/{PROJECT}/tasks/{first.task_id}/regions")[..., 3].any()


def test_points_are_shown_with_guess_margin_and_promise_in_the_colours_of_their_classes(
    client: TestClient, services: Services
) -> None:
    (first, _), *_ = services.store.ranked(PROJECT)
    classes = services.checkpoints(PROJECT).get(2).record.classes
    drawn = [
        Point(row=10, column=10, score=0.5, guess=1, margin=0.25),
        Point(row=30, column=40, score=0.125, guess=0, margin=0.75),
        Point(row=38, column=12, score=0.0625),
    ]
    boxes = tuple(Box.point(point.row, point.column) for point in drawn)
    texts = {first.task_id: points_to_text(drawn, classes)}
    services.store.put_ranking(
        PROJECT, {first.task_id: 0.9}, {first.task_id: Query(boxes)}, points=texts, ranking_version=VERSION
    )
    at = f"/projects/{PROJECT}/tasks/{first.task_id}"
    for path in (QUEUE, at):
        text = page(client, path)
        table = text[text.index("asked-points") : text.index("</table>", text.index("asked-points"))]
        rows = re.findall(r"<tr><th[^>]*>(.*?)</th><td[^>]*>(.*?)</td><td[^>]*>(.*?)</td></tr>", table)
        cells = [(re.sub(r"<[^>]*>", "", name).strip(), *rest) for name, *rest in rows]
        nothing = "\N{EN DASH}"
        assert cells == [(classes[1], "0.25", "0.5"), (classes[0], "0.75", "0.125"), ("none yet", nothing, "0.0625")]
        assert "Points to answer in task" in text
        assert "Say the class of 3 points" in text
    colours = dict(re.findall(r'fill="(#\w{6})"/></svg> (\w+)', page(client, at)))
    names = {name: colour for colour, name in colours.items()}
    shown = picture(client, f"{at}/regions?large=1")
    for point in drawn[:2]:
        red, green, blue = (int(names[classes[point.guess or 0]][place : place + 2], 16) for place in (1, 3, 5))
        assert shown[point.row, point.column].tolist() == [red, green, blue, 255]
    assert shown[drawn[2].row, drawn[2].column, 3] == 0, "a ring: there is no guess"
    assert (shown[33:44, 7:18, 3] > 0).any()


def test_where_points_are_shown_the_predicted_mask_is_that_of_the_version(
    client: TestClient, services: Services
) -> None:
    """Not the guesses alone, which are what is published."""
    (first, _), *_ = services.store.ranked(PROJECT)
    at = f"/projects/{PROJECT}/tasks/{first.task_id}/mask"
    before = picture(client, f"{at}?v=1")
    guesses = np.full(before.shape[:2], 255, np.uint8)
    guesses[5, 5] = 1
    services.store.put_published(PROJECT, VERSION, [(first.task_id, 0.1, masks.png_bytes(guesses))])
    assert (picture(client, f"{at}?v=2")[..., 3] > 0).sum() <= 1
    services.store.put_queries(PROJECT, VERSION, {first.task_id: Query((Box.point(5, 5),))})
    predicted = picture(client, f"{at}?v=3")
    assert (predicted[..., 3] > 0).sum() > 1
    assert "Predicted classes" in page(client, QUEUE)


def test_an_audit_image_that_asks_for_points_says_so_and_shows_them(client: TestClient, services: Services) -> None:
    (first, _), *_ = services.store.ranked(PROJECT)
    config = with_points_control(services.store.project(PROJECT).label_config)  # type: ignore[union-attr]
    services.store.update_project(PROJECT, label_config=config, extra_params='{"strategy": "points"}')
    services.store.put_tasks([replace(first, group_key="drawn")])
    counts = AuditCounts(images=1, waiting=1, skipped=0, labels=0, training=9, groups=24, measuring=1)
    kept = KeptAudit(AuditSet(0.125, 0, drawn=frozenset(["drawn"])), counts)
    keep_audit(services.settings, services.store, PROJECT, kept)
    asked = audit_points(first.image, (128, 128), count=30, seed=0)
    services.store.put_queries(PROJECT, VERSION, {first.task_id: Query(asked)})
    card = page(client, QUEUE)
    card = card[card.index(f'id="task-{first.task_id}"') :].partition("</li>")[0]
    assert "audit image · opens without guesses" in card
    assert "Its points are drawn all over it, and open without a guess" in card
    assert "Say the class of 30 points" in card
    assert "asked-points" not in card
    assert (picture(client, f"/projects/{PROJECT}/tasks/{first.task_id}/regions")[..., 3] > 0).sum() > 300


def test_reasons_of_tasks_that_no_strategy_looked_at() -> None:
    entry, scores = QueueEntry(task_of(1), 1, 0.4, None, "", None, False), Scores(0, {}, None)
    assert "no model yet" in reason(entry, scores, described("entropy").words, 0)
    assert "no time" in reason(entry, scores, described("entropy").words, 3)


def test_every_strategy_says_in_its_own_words_why_an_image_has_its_place() -> None:
    entry = QueueEntry(task_of(1), 1, 0.4, 0.0, "", None, False)
    for below, words in ((0, "the lowest of 400 images"), (1, "higher than in 1 of 400 images")):
        said = {name: reason(entry, Scores(400, {1: below}, None), described(name).words, 3) for name in available()}
        assert len(set(said.values())) == len(said)
        measured = {name: sentence for name, sentence in said.items() if described(name).words.value}
        assert all(words in sentence for sentence in measured.values())
        assert not any("%" in sentence or "{" in sentence for sentence in said.values())
    assert Scores(1, {1: 0}, None).compared(1) == "the only image that was scored"


def test_auto_says_whose_turn_it_was_and_how_much_there_is_to_draw() -> None:
    words, scores = described("auto").words, Scores(24, {1: 17}, 400.0)
    entry = QueueEntry(task_of(1), 1, 0.4, 0.1234, "", None, False, turn="disc", outlines=240.0)
    assert reason(entry, scores, words, 3) == (
        "It was the turn of disc: images that are uncertain there, and cheap, are drawn sooner. Its uncertainty is "
        "0.123, higher than in 17 of 24 images. Its predicted outlines are 0.6 times as long as those of an average "
        "image."
    )
    assert reason(replace(entry, turn=""), scores, words, 3).startswith("It was no class's turn: cheap")


def test_a_ranking_by_auto_keeps_whose_turn_it_was_and_the_page_tells_it(filled: Path, tmp_path: Path) -> None:
    shutil.copytree(filled, tmp_path / "state")
    with open_installation(tmp_path / "state", strategy="auto") as services:
        rank(services, 4)
        entries = services.store.queue_page(PROJECT, VERSION, offset=0, limit=15)
        turns = [entry.turn for entry in entries]
        assert set(turns) <= {"", "background", "disc", "square"}
        assert 6 <= sum(map(bool, turns)) <= 8  # every second pick is a class's
        assert all(entry.outlines is not None for entry in entries)
        with TestClient(create_app(services.settings)) as client:
            text = page(client, QUEUE)
    clicks = entries[0].outlines or 0
    assert f"about {clicks / 10:.0f} clicks" in " ".join(text.split())
    assert f"It was the turn of {next(filter(None, turns))}: " in text
    assert "as long as those of an average image" in text


def test_cards_name_the_files(client: TestClient, services: Services) -> None:
    first = services.store.ranked(PROJECT)[0][0]
    services.store.put_tasks([replace(first, image="/data/upload/7/0a1b2c3d-slice%2012.png")])
    text = page(client, QUEUE)
    assert '<span class="file">slice 12.png</span>' in text
    assert f"task {first.task_id} ·" in text


def test_a_picture_opens_large_on_a_page_of_its_own(client: TestClient, services: Services) -> None:
    order = [task.task_id for task, _ in services.store.ranked(PROJECT)]
    assert f'href="/projects/{PROJECT}/tasks/{order[1]}"' in page(client, QUEUE)
    text = page(client, f"/projects/{PROJECT}/tasks/{order[1]}?layer=uncertainty")
    assert "Place 2 of the queue" in text
    assert re.search(r'id="layer-uncertainty"[^>]* checked', text)
    assert f'/tasks/{order[0]}?layer=uncertainty" rel="prev"' in text
    assert f'/tasks/{order[2]}?layer=uncertainty" rel="next"' in text
    labelled = page(client, f"/projects/{PROJECT}/tasks/1?a=1&b=2&layer=difference")
    assert "of the queue" not in labelled
    assert re.search(r'id="layer-difference"[^>]* checked', labelled)
    assert "/truth?large=1" in labelled
    page(client, f"/projects/{PROJECT}/tasks/999", 404)
    page(client, f"/projects/{PROJECT}/tasks/1?layer=x", 404)


def test_large_pictures_are_as_large_as_their_image_up_to_a_bound(tmp_path: Path) -> None:
    services = make_services(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 255, (1000, 2000, 3), np.uint8)
    content = base64.b64encode(png(pixels)).decode()
    services.store.wake(PROJECT, label_config=XML)
    services.store.put_tasks([task_of(1, image=f"data:image/png;base64,{content}")])
    with TestClient(create_app(services.settings)) as client:
        for address, width in (("image", 480), ("image?large=1", 1600)):
            shown = picture(client, f"/projects/{PROJECT}/tasks/1/{address}")
            assert shown.shape[:2] == (width // 2, width)
    services.store.close()


def test_layers_are_chosen_without_a_script_and_kept_on_the_next_page(client: TestClient) -> None:
    text = page(client, f"{QUEUE}?layer=uncertainty&strength=100")
    assert re.search(r'id="layer-uncertainty"[^>]* checked', text)
    assert re.search(r'id="strength-100"[^>]* checked', text)
    assert not re.search(r'id="layer-mask"[^>]* checked', text)
    form = text[text.index("<form") : text.index("</form>")]
    assert 'name="page" value="2"' in form
    assert client.get(f"{QUEUE}?layer=x").status_code == 404
    for tag in re.findall(r"<img class=\"(?:base|layer|regions)[^>]*>", text):
        assert 'width="480" height="360" loading="lazy"' in tag


def test_the_legend_has_the_colours_of_the_heat_map() -> None:
    colours = heat_colours()
    stops = ", ".join(hex_colour(colours[round(stop * 255 / 8)]) for stop in range(9))
    assert f"linear-gradient(to right, {stops})" in (FOLDER / "pictures.css").read_text()


def test_empty_queues_say_why(empty: tuple[Services, TestClient]) -> None:
    services, client = empty
    assert "No tasks yet" in page(client, QUEUE)
    services.store.put_tasks([task_of(1), task_of(2, status="labelled"), task_of(3, status="skipped")])
    text = page(client, QUEUE)
    assert "Nothing is ranked yet" in text
    assert "the first is trained once 10 images are labelled (1 so far)" in text
    services.store.put_tasks([task_of(1, status="labelled")])
    text = page(client, QUEUE)
    assert "Nothing is left to label" in text
    assert "Labelled: 2; skipped: 1." in text


def test_before_the_first_model_the_queue_explains_itself(empty: tuple[Services, TestClient]) -> None:
    services, client = empty
    services.store.put_tasks([task_of(1), task_of(2)])
    services.store.put_ranking(PROJECT, {1: 0.9, 2: 0.4}, ranking_version="nextmask-0.1")
    text = page(client, QUEUE)
    assert shown_tasks(text) == [1, 2]
    assert "There is no model yet" in text
    assert "This order is being published." in text
    answer = client.get(f"/projects/{PROJECT}/tasks/1/mask")
    assert answer.status_code == 200
    assert "No model yet" in answer.text


def test_pages_of_fifty_thousand_tasks_are_cut_by_the_database(
    empty: tuple[Services, TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    services, client = empty
    count = 50_000
    services.store.put_tasks(task_of(task) for task in range(1, count + 1))
    values = {task: 1 - task / (count + 1) for task in range(1, count + 1)}
    services.store.put_ranking(PROJECT, values, None, values, ranking_version="nextmask-3.1")
    monkeypatch.setattr(type(services.store), "tasks", None)  # nobody reads them all
    monkeypatch.setattr(type(services.store), "ranked", None)
    started = time.perf_counter()
    last = page(client, f"{QUEUE}?page={-(-count // PAGE)}")
    seconds = time.perf_counter() - started
    assert shown_tasks(last) == list(range(count - count % PAGE + 1, count + 1))
    middle = page(client, f"{QUEUE}?page=2001")
    assert shown_tasks(middle) == list(range(2000 * PAGE + 1, 2001 * PAGE + 1))
    assert "higher than in 25\N{NARROW NO-BREAK SPACE}999 of 50\N{NARROW NO-BREAK SPACE}000 images" in middle
    assert seconds < 20  # a tenth of that where nothing else runs; a page that reads all rows takes minutes


def test_hostile_titles_labels_and_reasons_are_text(client: TestClient, services: Services) -> None:
    xml = XML.replace('"cell"', '"&lt;script&gt;alert(1)&lt;/script&gt;" background="&quot;&gt;&lt;script&gt;"')
    services.store.update_project(PROJECT, title=HOSTILE, error=HOSTILE, label_config=xml)
    services.store.set_task_error(PROJECT, services.store.ranked(PROJECT)[0][0].task_id, HOSTILE)
    for path in (QUEUE, COMPARE):
        text = page(client, path)
        assert "<img src=x" not in text
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
        assert re.findall(r"<script(?![^>]* src=)", text) == []
        assert re.findall(r"<style|\sstyle=|\son[a-z]+=", re.sub(r"&#?\w+;[^<]*", "", text)) == []


# -- pictures as files -------------------------------------------------------------------------------------------------
def test_pictures_are_kept_by_browsers_until_they_change(client: TestClient, services: Services) -> None:
    task = services.store.ranked(PROJECT)[0][0].task_id
    for kind in ("image", "mask", "uncertainty", "regions", "prediction?version=1", "difference?a=1&b=2"):
        path = f"/projects/{PROJECT}/tasks/{task}/{kind}"
        first = client.get(path)
        assert first.status_code == 200
        assert first.headers["Cache-Control"].startswith("private, max-age=")
        again = client.get(path, headers={"If-None-Match": first.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")
        other = client.get(path, headers={"If-None-Match": '"something else"'})
        assert other.content == first.content
    tags = {kind: client.get(f"/projects/{PROJECT}/tasks/{task}/{kind}").headers["ETag"] for kind in ("mask", "image")}
    project = services.store.project(PROJECT)
    assert project
    recoloured = re.sub(r'background="#\w+"', 'background="#123456"', project.label_config)
    services.store.update_project(PROJECT, label_config=recoloured)
    changed = client.get(f"/projects/{PROJECT}/tasks/{task}/mask", headers={"If-None-Match": tags["mask"]})
    assert changed.status_code == 200
    same = client.get(f"/projects/{PROJECT}/tasks/{task}/image", headers={"If-None-Match": tags["image"]})
    assert same.status_code == 304


def test_pictures_of_the_queue_are_what_they_say(client: TestClient, services: Services) -> None:
    task = services.store.ranked(PROJECT)[0][0].task_id
    at = f"/projects/{PROJECT}/tasks/{task}"
    png = services.store.published_mask(PROJECT, VERSION, task)
    assert png
    expected = masks.mask_from_png(png)
    assert ((picture(client, f"{at}/mask")[..., 3] > 0) == (expected > 0)).all()
    services.store.put_ranking(PROJECT, {task: 0.9}, {task: Query((Box(8, 8, 16, 16),))}, ranking_version=VERSION)
    frames = picture(client, f"{at}/regions")
    assert frames[8, 16].tolist() == [255] * 4
    assert frames[16, 16, 3] == 0


@pytest.mark.parametrize(
    "path",
    [
        f"/projects/{PROJECT}/tasks/99999/image",
        "/projects/7/tasks/1/image",
        f"/projects/{PROJECT}/tasks/0/image",
        f"/projects/{PROJECT}/tasks/99999999999999999999/image",
        f"/projects/{PROJECT}/tasks/..%2f..%2fetc%2fpasswd/image",
        f"/projects/{PROJECT}/tasks/1/prediction",
        f"/projects/{PROJECT}/tasks/1/prediction?version=../1",
        f"/projects/{PROJECT}/tasks/1/secret",
    ],
)
def test_addresses_of_no_picture_are_not_found(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_a_broken_image_is_a_picture_of_the_reason_and_text_on_the_page(client: TestClient, services: Services) -> None:
    first = services.store.ranked(PROJECT)[0][0]
    broken = "data:image/png;base64,iVBORw0KGgo="
    services.store.put_tasks([replace(first, image=broken)])
    answer = client.get(f"/projects/{PROJECT}/tasks/{first.task_id}/image")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/svg+xml"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "default-src &#39;none&#39;" in answer.headers["Content-Security-Policy"].replace("'", "&#39;")
    assert "cannot be decoded" in " ".join(re.findall(r"<tspan[^>]*>([^<]*)", answer.text))
    assert "cannot be decoded" in page(client, QUEUE)


def test_whatever_goes_wrong_is_a_picture_of_it(
    client: TestClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret thing")

    monkeypatch.setattr(ImageCache, "load", fail)
    task = services.store.ranked(PROJECT)[0][0].task_id
    answer = client.get(f"/projects/{PROJECT}/tasks/{task}/uncertainty")
    assert answer.status_code == 200
    assert "Internal error (RuntimeError)" in answer.text
    assert "secret" not in answer.text


def test_pages_and_health_are_answered_while_many_pictures_are_made(client: TestClient, services: Services) -> None:
    tasks = [task.task_id for task, _ in services.store.ranked(PROJECT)]
    with ThreadPoolExecutor(12) as pool:
        paths = [f"/projects/{PROJECT}/tasks/{task}/uncertainty" for task in tasks]
        waiting = [pool.submit(client.get, path) for path in paths]
        assert client.get("/health").status_code == 200
        assert client.get("/").status_code == 200
        assert {answer.result().headers["content-type"] for answer in waiting} == {"image/png"}


# -- the comparison ----------------------------------------------------------------------------------------------------
def test_versions_are_compared_on_common_labels_in_the_words_of_gate_and_advice(
    client: TestClient, services: Services
) -> None:
    text = page(client, COMPARE)  # the version that serves, with its parent
    first, second = (services.checkpoints(PROJECT).get(number).record for number in (1, 2))
    common = compare(first, second)
    assert common is not None
    assert common.difference.miou.images == 3  # of which version 1 measured two itself, and all when 2 was trained
    said = comparison_text(2, 1, common.difference.miou)
    assert said.endswith(second.reason)
    assert f"<strong>{said}.</strong>" in html.unescape(text)
    assert f"{said}. " in html.unescape(page(client, f"/projects/{PROJECT}"))
    assert second.reason in html.unescape(page(client, f"/projects/{PROJECT}/versions/2"))
    for name in ("disc", "square"):
        numbers = re.search(rf'<th scope="row">{name}</th>(.*?)</tr>', text, re.S)
        assert numbers
        cells = re.findall(r'class="number([^"]*)">([^<>]+)</td>', numbers[1])
        old, new, change = (found.iou[name] for found in (common.first, common.second, common.difference))
        assert [cell for _, cell in cells[:3]] == [measure_text(old), measure_text(new), difference_text(change)]
        assert cells[2][0].split() == ["change", *filter(None, [told_apart(change)])]
    assert client.get(f"{COMPARE}?a=1&b=77").status_code == 404
    assert "same version" in page(client, f"{COMPARE}?a=2&b=2")


def test_versions_without_a_common_label_are_not_compared(client: TestClient, services: Services) -> None:
    checkpoints = services.checkpoints(PROJECT)
    latest = checkpoints.get(2)
    earlier = replace(latest.record, counts={}, parent_counts={}, measures={**latest.record.measures, "intervals": {}})
    checkpoints.create(earlier, checkpoints.load_state(latest))
    text = page(client, f"{COMPARE}?a=1&b=3")
    assert "no label is known that both were measured on (version 1: 2 held-out labels, version 3: 3)" in text
    assert f"{latest.record.measures['miou']:.2f} (no interval)" in text
    assert "points (" not in text[text.index("Measures from training") :]
    other = replace(earlier, classes=("background", "disc", "triangle"))
    checkpoints.create(other, checkpoints.load_state(latest))
    assert "they know different classes" in page(client, f"{COMPARE}?a=1&b=4")


def test_both_versions_are_measured_on_the_labels_of_today(client: TestClient, services: Services) -> None:
    path = f"{COMPARE}?a=1&b=2"
    assert "Measure both on these labels" in page(client, path)
    answer = client.post(path, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, path)
    wait_for(lambda: "Both versions on the same 3 labels" in page(client, path), name="the comparison")
    text = page(client, path)
    after = text[text.index("Measures on the same labels") :]
    counts = [np.zeros((3, 3), np.int64), np.zeros((3, 3), np.int64)]
    differences = {}
    for task in (7, 8, 9):
        truth = np.asarray(Image.open(mask_of(services, task)))
        row = services.store.task(PROJECT, task)
        assert row
        image = services.images.load(row.image)
        predicted = [
            services.predictors.get(services.checkpoints(PROJECT), number, "cpu").predict([image])[0].mask
            for number in (1, 2)
        ]
        for total, mask in zip(counts, predicted, strict=True):
            np.add.at(total, (truth, mask), 1)
        differences[task] = float((predicted[0] != predicted[1]).mean())
    iou = [total.diagonal() / (total.sum(axis=0) + total.sum(axis=1) - total.diagonal()) for total in counts]
    cells = re.findall(r">([\d.]+) \([^<]*\)</td>", after[after.index("All classes") :])
    shown = [float(cell) for cell in cells[:2]]
    assert shown == pytest.approx([float(total.mean()) for total in iou], abs=0.007)
    assert re.search(r"<strong>Version 2 .*version 1.* of mIoU on the same 3 images\.</strong>", after)
    listed = [int(task) for task in re.findall(r"<h3>Task (\d+)", text)]
    assert listed == sorted(differences, key=lambda task: (-round(differences[task], 6), task))
    worse = [int(task) for task in re.findall(r"<h3>Task (\d+)", page(client, f"{path}&order=worse"))]
    better = [int(task) for task in re.findall(r"<h3>Task (\d+)", page(client, f"{path}&order=better"))]
    assert worse == better[::-1]
    refreshed = client.get(path, headers={"HX-Request": "true"})
    assert refreshed.headers["HX-Refresh"] == "true"


def test_results_outlive_the_process_and_a_new_label_asks_for_a_new_one(services: Services) -> None:
    path = f"{COMPARE}?a=1&b=2"
    with TestClient(create_app(services.settings)) as first:
        first.post(path)
        wait_for(lambda: "Both versions on the same 3" in page(first, path), name="the comparison")
    with TestClient(create_app(services.settings)) as second:
        assert "Both versions on the same 3" in page(second, path)
        labelled = services.store.task(PROJECT, 7)
        assert labelled
        services.store.put_tasks([replace(labelled, label_digest="changed")])
        assert "Measure both on these labels" in page(second, path)


def test_labels_that_cannot_be_measured_are_told_and_do_not_stop_the_others(
    client: TestClient, services: Services
) -> None:
    labelled = services.store.task(PROJECT, 8)
    assert labelled
    services.store.put_tasks([replace(labelled, mask_file="/nowhere.png", label_digest="gone")])
    path = f"{COMPARE}?a=1&b=2"
    client.post(path)
    wait_for(lambda: "Both versions on the same 2 labels" in page(client, path), name="the comparison")
    assert "1 image could not be measured" in page(client, path)


def test_where_nothing_is_held_out_the_page_says_what_that_means(client: TestClient, services: Services) -> None:
    tasks = services.store.tasks(PROJECT, status="labelled")
    services.store.put_tasks([replace(task, held_out=False) for task in tasks])
    text = page(client, COMPARE)
    assert "None is held out: a version looks better than it is" in text
    services.store.put_tasks([replace(task, held_out=task.task_id < 4) for task in tasks])
    assert "Version 2 was trained on 3 of them." in page(client, COMPARE)


def test_without_two_versions_there_is_nothing_to_compare(empty: tuple[Services, TestClient]) -> None:
    _, client = empty
    assert "No versions yet" in page(client, COMPARE)
    assert client.post(f"{COMPARE}?a=1&b=2").status_code == 404


def test_another_site_cannot_start_a_comparison(client: TestClient) -> None:
    answer = client.post(f"{COMPARE}?a=1&b=2", headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403


def test_pixels_are_counted_by_truth_and_prediction() -> None:
    truth = np.array([[0, 0, 1, 255]], np.uint8)
    predicted = np.array([[0, 1, 255, 1]], np.uint8)
    assert confusion(truth, predicted, 2).tolist() == [[1, 1, 0], [0, 0, 1], [0, 0, 0]]
    image = compared_image(5, truth, predicted, truth, classes=2)
    assert image.second == 1.0
    assert image.first == pytest.approx(1 / 2 / 2)  # class 0: 1 of 2; class 1: 0, of what is known in both
    assert image.differs == pytest.approx(2 / 3)


def test_nothing_is_drawn_for_a_visitor_who_has_left(services: Services) -> None:
    application, address = create_app(services.settings), f"/projects/{PROJECT}/tasks/1/image"
    scope = {"type": "http", "http_version": "1.1", "method": "GET", "scheme": "http", "path": address}
    scope |= {"raw_path": address.encode(), "query_string": b"", "headers": [(b"host", b"testserver")]}

    def status(message: str) -> int:
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": message}

        async def send(answer: Any) -> None:
            sent.append(answer)

        asyncio.run(application(dict(scope), receive, send))
        return int(sent[0]["status"])

    assert status("http.disconnect") == 499
    assert not [*(services.settings.model_dir / "pictures").rglob("*.*")]
    assert status("http.request") == 200
