"""Smart tools over HTTP, with real networks: what is suggested, what is remembered, what is refused in words."""

from __future__ import annotations

import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from sam_weights import small_folder
from wiring import PROJECT, SHAPE, XML, data_uri, disc, give_project, project_of, region

from ml_backend.annotations.config_edits import with_smart_tools
from ml_backend.annotations.label_map import LabelMap, parse_label_config
from ml_backend.annotations.masks import read_result
from ml_backend.projects.services import Services
from ml_backend.server import look_ahead
from ml_backend.server.app import create_app
from ml_backend.server.look_ahead import LookAhead, preparing
from ml_backend.server.smart_tools import SmartTools, Suggestion
from ml_backend.store import Task

Json = dict[str, Any]
SMART = with_smart_tools(XML, parse_label_config(XML))
LABELS: LabelMap = parse_label_config(SMART)
INDEX = 1  # of the image


@pytest.fixture
def client(services: Services) -> TestClient:
    """A server of a project that the trained model serves; it is not started, so that nothing is prepared."""
    give_project(services)
    services.store.update_project(PROJECT, label_config=SMART)
    return TestClient(create_app(services.settings))


def click(row: int, column: int, name: str, *, label: str = "cell", is_positive: bool = True) -> Json:
    value = {"x": (column + 0.5) / SHAPE[1] * 100, "y": (row + 0.5) / SHAPE[0] * 100, "width": 0.6}
    return {
        "id": name,
        "from_name": "smart-click",
        "to_name": "image",
        "type": "keypointlabels",
        "original_width": SHAPE[1],
        "original_height": SHAPE[0],
        "is_positive": is_positive,
        "value": {**value, "keypointlabels": [label], "labels": [label]},
    }


def ask(client: TestClient, *prompts: Json, task: Json | None = None, **context: Any) -> Json:
    body = {
        "tasks": [{"id": 7, "data": {"image": data_uri(INDEX)}, **(task or {})}],
        "project": f"{PROJECT}.1",
        "label_config": SMART,
        "params": {"context": {"result": list(prompts), **context}},
    }
    answer = client.post("/predict", json=body)
    assert answer.status_code == 200, answer.text
    (row,) = answer.json()["results"]
    assert isinstance(row["model_version"], str)
    return dict(row)


def seen(regions: list[Json], label: int = 1) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = read_result(regions, LABELS, size=SHAPE).mask == label
    return found


def accepted(held: list[Json], suggestion: list[Json]) -> list[Json]:
    return [*({one["id"]: one for one in held} | {one["id"]: one for one in suggestion}).values()]


TRUTH = disc(INDEX)[1] == 1
INSIDE = tuple(int(np.round(axis.mean())) for axis in np.nonzero(TRUTH))
OUTSIDE = (0, 0)


# -- suggestions -----------------------------------------------------------------------------------------------------
def test_a_click_is_answered_with_one_region_of_its_class_that_covers_it(client: TestClient) -> None:
    row = ask(client, click(*INSIDE, "a"))
    (suggested,) = row["result"]
    assert (suggested["from_name"], suggested["type"], suggested["id"]) == ("tag", "brushlabels", "smart-a")
    assert suggested["value"]["brushlabels"] == ["cell"]
    assert seen([suggested])[INSIDE]
    assert "error" not in row


def test_clicks_combine_and_alt_shrinks(client: TestClient) -> None:
    first = ask(client, click(*INSIDE, "a"))["result"]
    row, column = np.argwhere(seen(first))[0]
    both = ask(client, click(*INSIDE, "a"), click(row, column, "b", is_positive=False))["result"]
    assert seen(both)[INSIDE]
    assert not seen(both)[row, column]
    assert both[0]["id"] == "smart-a", "it takes the place of the first one, accepted or not"


def test_a_class_that_no_network_knows_can_be_clicked_and_so_can_any_before_the_first_training(
    client: TestClient, services: Services
) -> None:
    """Nucleus has no example in the training of these tests, but the network has a channel for it."""
    xml = SMART.replace('<Label value="nucleus"', '<Label value="strange"')
    body = {"label_config": xml, "tasks": [{"id": 7, "data": {"image": data_uri(INDEX)}}], "project": f"{PROJECT}.1"}
    prompts = [click(*INSIDE, "a", label="strange")]
    answer = client.post("/predict", json={**body, "params": {"context": {"result": prompts}}}).json()
    (suggested,) = answer["results"][0]["result"]
    assert suggested["value"]["brushlabels"] == ["strange"]
    services.store.update_project(PROJECT, published_version="")
    (suggested,) = ask(client, click(*INSIDE, "b"))["result"]
    assert seen([suggested])[INSIDE]


def test_a_box_is_answered_inside_of_it(client: TestClient) -> None:
    value = {"x": 0, "y": 0, "width": 50, "height": 100, "rectanglelabels": ["cell"]}
    box = {"id": "b", "from_name": "smart-box", "to_name": "image", "type": "rectanglelabels", "value": value}
    half = SHAPE[1] // 2
    assert not seen(ask(client, box)["result"])[:, half:].any()


# -- what is drawn already -------------------------------------------------------------------------------------------
def drawn(mask: NDArray[np.bool_], name: str = "class-1-0") -> Json:
    return {**region(mask.astype(np.uint8)), "id": name}


def test_the_predicted_mask_that_is_shown_is_mended_in_its_place(client: TestClient) -> None:
    speck = np.zeros(SHAPE, bool)
    speck[:4, :4] = not TRUTH[:4, :4].any()
    held = [drawn(TRUTH | speck)]
    task = {"predictions": [{"result": held, "model_version": "nextmask-1.1"}]}
    (suggested,) = ask(client, click(*OUTSIDE, "a", is_positive=False), task=task)["result"]
    assert suggested["id"] == "class-1-0"
    after = seen(accepted(held, [suggested]))
    assert not after[OUTSIDE]
    assert after[INSIDE]


def test_a_negative_click_leaves_the_other_parts_of_what_is_drawn(client: TestClient) -> None:
    """Also those of the part that it cuts in two: neither end has a click."""
    bar, other = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    bar[4:10, 2:38] = True
    other[20:28, 4:14] = True
    held = [drawn(bar | other)]
    task = {"predictions": [{"result": held, "model_version": "nextmask-1.1"}]}
    (suggested,) = ask(client, click(7, 20, "a", is_positive=False), task=task)["result"]
    after = seen(accepted(held, [suggested]))
    assert after[other].all()
    assert not after[7, 20]
    assert after[7, 4] or after[7, 35]


def test_what_a_person_drew_before_the_first_training_shrinks_and_stays(client: TestClient, services: Services) -> None:
    services.store.update_project(PROJECT, published_version="")
    square = np.zeros(SHAPE, bool)
    square[4:28, 4:36] = True
    held = [drawn(square, "mine")]
    task = {"drafts": [{"result": held, "user": "one", "updated_at": "2026-01-01T00:00:05Z"}]}
    (suggested,) = ask(client, click(5, 5, "a", is_positive=False), task=task)["result"]
    assert suggested["id"] == "mine"
    after = seen(accepted(held, [suggested]))
    assert not after[5, 5]
    assert after[20, 30]
    assert after.sum() > square.sum() / 2


def test_what_was_accepted_counts_before_a_draft_has_it_and_earlier_clicks_stay(client: TestClient) -> None:
    """With auto-accept each request has the newest click alone, and the draft is five seconds behind."""
    held: list[Json] = []
    first = ask(client, click(*INSIDE, "a"))["result"]
    held = accepted(held, first)
    row, column = np.argwhere(seen(held))[-1]
    second = ask(client, click(row, column, "b", is_positive=False))["result"]
    assert [one["id"] for one in second] == ["smart-a"], "it shrinks what was accepted, which no draft has yet"
    held = accepted(held, second)
    assert seen(held)[INSIDE], "the first click is remembered"
    assert not seen(held)[row, column]


def test_a_draft_says_what_was_refused(client: TestClient) -> None:
    ask(client, click(*INSIDE, "a"))
    task = {"drafts": [{"result": [], "user": "one", "updated_at": "2026-01-01T00:00:05Z"}]}
    assert ask(client, click(*OUTSIDE, "b", is_positive=False), task=task)["result"] == [], "nothing is there to shrink"


def test_regions_of_two_people_are_never_put_in_each_others_place(client: TestClient) -> None:
    def draft(user: str, mask: NDArray[np.bool_]) -> Json:
        return {"result": [drawn(mask)], "user": user, "updated_at": f"2026-01-01T00:00:0{len(user)}Z"}

    task = {"drafts": [draft("one", TRUTH), draft("three", ~TRUTH)]}
    found = ask(client, click(*INSIDE, "a"), task=task)["result"]
    assert [one["id"] for one in found] == ["smart-a"]


def test_many_people_ask_at_once(client: TestClient, services: Services) -> None:
    smart_tools, project = SmartTools(services), project_of(services)
    task = {"id": 7, "data": {"image": data_uri(INDEX)}}
    contexts = [{"result": [click(*INSIDE, f"p{number}")]} for number in range(16)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda context: smart_tools.answer(project, task, context), contexts))
    assert all(answer.problem == "" for answer in answers)
    assert all(seen(answer.regions)[INSIDE] or not answer.regions for answer in answers)


# -- bad input -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([click(*INSIDE, "a", label="nose")], "its label 'nose' is no class of BrushLabels 'tag'"),
        ([click(500, 500, "a")], "it lies outside of the image"),
        ([{**click(1, 1, "a"), "value": {"x": None, "y": [], "keypointlabels": ["cell"]}}], "its x is None"),
        ([click(*INSIDE, "a", label="background")], "'background' cannot be suggested"),
    ],
)
def test_what_cannot_be_answered_says_why(client: TestClient, prompts: list[Json], message: str) -> None:
    row = ask(client, *prompts)
    assert row["result"] == []
    assert message in row["error"]


def test_good_prompts_are_answered_beside_bad_ones(client: TestClient) -> None:
    row = ask(client, click(500, 500, "far"), click(*INSIDE, "a"))
    assert seen(row["result"])[INSIDE]
    assert "click 'far'" in row["error"]


@pytest.mark.parametrize("task", [{"data": {}}, {"data": None}, {"data": {"image": "/data/upload/gone.png"}}])
def test_an_image_that_cannot_be_had_is_told(client: TestClient, task: Json) -> None:
    row = ask(client, click(*INSIDE, "a"), task=task)
    assert row["result"] == []
    assert row["error"]


def test_hundreds_of_prompts_and_contradictions_at_one_pixel_are_answered(client: TestClient) -> None:
    random = np.random.default_rng(0)
    places = [(int(row), int(column)) for row, column in random.integers(0, SHAPE, (300, 2))]
    many = [click(*place, f"p{at}", is_positive=bool(TRUTH[place])) for at, place in enumerate(places)]
    started = time.monotonic()
    row = ask(client, *many)
    assert time.monotonic() - started < 60
    after = seen(row["result"])
    assert all(after[place] == TRUTH[place] for place in places)
    contradicted = [click(*INSIDE, "a"), click(*INSIDE, "b", is_positive=False), click(*INSIDE, "c")]
    assert seen(ask(client, *contradicted, task={"id": 8})["result"])[INSIDE], "the last one counts"


@pytest.mark.parametrize("context", [None, {}, [], "text", {"result": None}, {"result": "text"}, {"result": {}}])
def test_a_context_without_prompts_is_a_prediction_as_ever(client: TestClient, context: object) -> None:
    body: Json = {"tasks": [{"id": 7, "data": {"image": data_uri(INDEX)}}], "project": f"{PROJECT}.1"}
    plain, asked = (
        client.post("/predict", json={**body, **more}).json()["results"]
        for more in ({}, {"params": {"context": context}})
    )
    assert plain == asked
    assert plain[0]["result"]


def test_when_the_last_prompt_is_deleted_the_suggestion_goes(client: TestClient) -> None:
    assert ask(client)["result"] == []


@pytest.mark.parametrize("event", ["capabilities", "prewarm", "release", "of the future", 7])
def test_events_are_answered_with_no_suggestion(client: TestClient, event: object) -> None:
    body: Json = {"tasks": [{"id": 7, "data": {"image": data_uri(INDEX)}}], "project": f"{PROJECT}.1"}
    answer = client.post("/predict", json={**body, "params": {"context": {"event": event}}})
    assert answer.status_code == 200
    assert answer.json()["results"][0]["result"] == []


def test_an_event_with_prompts_is_answered_as_prompts_are(client: TestClient) -> None:
    assert seen(ask(client, click(*INSIDE, "a"), event="prompt")["result"])[INSIDE]


def test_an_unknown_project_gets_an_empty_answer(client: TestClient) -> None:
    body = {"tasks": [{"id": 1, "data": {}}], "project": "999.1", "params": {"context": {"result": [click(1, 1, "a")]}}}
    (row,) = client.post("/predict", json=body).json()["results"]
    assert row["result"] == []


# -- SAM 2 -----------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def sam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_folder(tmp_path_factory.mktemp("sam"))


def with_sam(services: Services, path: Path) -> Services:
    """Services of a project that the trained model serves, where NEXTMASK_SAM names a path."""
    give_project(services)
    services.store.update_project(PROJECT, label_config=SMART)
    return replace(services, settings=services.settings.model_copy(update={"sam": str(path)}))


def answered(smart_tools: SmartTools, services: Services, *prompts: Json, **task: Any) -> Suggestion:
    row = {"id": 7, "data": {"image": data_uri(INDEX)}, **task}
    return smart_tools.answer(project_of(services), row, {"result": list(prompts)})


def test_sam_2_answers_clicks_of_all_classes_and_prepares_images(services: Services, sam: Path) -> None:
    services = with_sam(services, sam)
    smart_tools = SmartTools(services)
    for label, index in (("cell", 1), ("nucleus", 2)):
        found = answered(smart_tools, services, click(*INSIDE, "a", label=label), id=index)
        assert found.problem == ""
        assert seen(found.regions, index)[INSIDE]
        assert {one["value"]["brushlabels"][0] for one in found.regions} == {label}
    serving = smart_tools._refiners.of(project_of(services), services.settings, LABELS)
    assert (serving.classes, serving.problem) == ((), "")
    assert serving.refiner.nbytes > 0  # type: ignore[attr-defined]
    smart_tools.release()
    assert serving.refiner.nbytes == 0  # type: ignore[attr-defined]
    services.store.put_tasks([Task(PROJECT, at, data_uri(at)) for at in range(1, 4)])
    services.store.put_ranking(PROJECT, {at: 1 - at / 100 for at in range(1, 4)})
    smart_tools.used_at = 0.0
    assert look_of(services, smart_tools).look() == 3
    assert serving.refiner.nbytes > 0  # type: ignore[attr-defined]


def test_what_keeps_sam_2_from_answering_is_told_and_mended_while_the_network_answers(
    services: Services, sam: Path, tmp_path: Path
) -> None:
    path = tmp_path / "downloaded"
    services = with_sam(services, path)
    smart_tools = SmartTools(services)
    found = answered(smart_tools, services, click(*INSIDE, "a"))
    assert f"NEXTMASK_SAM = '{path}' is not there. Set it to a checkpoint of SAM 2" in found.problem
    assert found.problem.endswith("Until then the project's own network answers clicks.")
    assert seen(found.regions)[INSIDE]
    shutil.copytree(sam, path)
    assert answered(smart_tools, services, click(*INSIDE, "b")).problem == ""


def test_a_click_over_http_is_answered_while_sam_2_cannot_be_read(services: Services, tmp_path: Path) -> None:
    damaged = tmp_path / "sam2.1_hiera_tiny.pt"
    damaged.write_bytes(b"<html>")
    client = TestClient(create_app(with_sam(services, damaged).settings))
    row = ask(client, click(*INSIDE, "a"))
    assert "is no checkpoint of PyTorch. Download it again" in row["error"]
    assert seen(row["result"])[INSIDE]


# -- the next images are prepared ------------------------------------------------------------------------------------
@pytest.fixture
def queued(services: Services) -> Services:
    give_project(services)
    services.store.update_project(PROJECT, label_config=SMART)
    services.store.put_tasks([Task(PROJECT, at, data_uri(at)) for at in range(1, 13)])
    services.store.put_ranking(PROJECT, {at: 1 - at / 100 for at in range(1, 13)})
    return services


def look_of(services: Services, smart_tools: SmartTools) -> LookAhead:
    return LookAhead(services, smart_tools, threading.Event())


def test_the_next_images_are_prepared_once_for_each_version(queued: Services) -> None:
    look = look_of(queued, SmartTools(queued))
    assert look.look() == look_ahead.IMAGES
    assert look.look() == 0
    queued.store.update_project(PROJECT, published_version="")
    assert look.look() == look_ahead.IMAGES, "before the first training, maps are those of the encoder alone"


def test_projects_without_smart_tools_and_images_that_are_gone_cost_nothing(queued: Services) -> None:
    queued.store.put_tasks([Task(PROJECT, 1, "/data/upload/gone.png")])
    look = look_of(queued, SmartTools(queued))
    assert look.look() == look_ahead.IMAGES - 1
    assert look.look() == 0
    queued.store.update_project(PROJECT, label_config=XML)
    assert look_of(queued, SmartTools(queued)).look() == 0


def test_nothing_is_prepared_right_after_a_click_or_where_memory_is_short(
    queued: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    smart_tools = SmartTools(queued)
    smart_tools.used_at = time.monotonic()
    assert look_of(queued, smart_tools).look() == 0
    smart_tools.used_at = 0.0
    with monkeypatch.context() as patch:
        patch.setattr(look_ahead, "available_bytes", lambda: 10**6)
        assert look_of(queued, smart_tools).look() == 0
    assert look_of(queued, smart_tools).look() == look_ahead.IMAGES


def test_the_thread_ends_with_the_server(queued: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look_ahead, "PAUSE_SECONDS", 0.01)
    others = set(threading.enumerate())  # a server of another test may still have one
    with preparing(queued, SmartTools(queued)):
        (thread,) = [one for one in set(threading.enumerate()) - others if one.name == "look-ahead"]
    thread.join(20)
    assert not thread.is_alive()
