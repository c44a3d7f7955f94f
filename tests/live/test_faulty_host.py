"""Label Studio answers wrongly, late, half or not at all: nothing is lost, nothing is done twice, and it is said."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import requests
from faulty_proxy import (
    Fault,
    FaultyProxy,
    answer,
    changed,
    cut,
    login_page,
    lose_answer,
    not_answered,
    slow,
    truncated,
    wait_until_seen,
)
from faulty_proxy import doubled as doubled_on_the_way
from invariants import assert_serves, assert_whole, doubled, labelled, trained_on, wait_until_healthy
from live_fixtures import FAST
from steps import label
from studio_client import StudioClient
from support import Nextmask, Studio, wait_for

from ml_backend.datasets import Dataset

pytestmark = pytest.mark.live

TIMEOUT = 2.0
"""Seconds that nextmask waits for an answer here."""


@pytest.fixture(scope="module")
def proxy(studio: Studio) -> Iterator[FaultyProxy]:
    with FaultyProxy(studio.url) as running:
        yield running


@pytest.fixture(scope="module")
def nextmask(studio: Studio, proxy: FaultyProxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nextmask]:
    """A nextmask that reaches Label Studio through the proxy; labels are submitted past it."""
    environment = {"reconcile_seconds": 1.0, "request_timeout": TIMEOUT}
    behind = replace(studio, url=proxy.url)
    found = Nextmask(behind, tmp_path_factory.mktemp("nextmask"), FAST, environment=environment)
    found.start()
    yield found
    found.stop()
    found.close()


@pytest.fixture(scope="module")
def project(nextmask: Nextmask, make_module_project: Callable[..., int], shapes: Dataset) -> int:
    made = make_module_project(images=40, dataset=shapes)
    nextmask.connect(made, queue_window=8)
    wait_until_healthy(nextmask, made)
    return made


@pytest.fixture(scope="module")
def submitted() -> list[int]:
    """Tasks that were labelled so far."""
    return []


@pytest.fixture
def submit(project: int, label_studio: StudioClient, shapes: Dataset, submitted: list[int]) -> Callable[[int], None]:
    def some(count: int) -> None:
        waiting = [task for task in label_studio.task_ids(project) if task not in submitted]
        label(label_studio, project, shapes, waiting[:count])
        submitted.extend(waiting[:count])

    return some


@pytest.fixture(autouse=True)
def _mended(proxy: FaultyProxy) -> Iterator[None]:
    yield
    proxy.clear()


def listed(body: object) -> object:
    """Another shape: a list around everything."""
    return [body]


def renamed(body: object) -> object:
    """Another shape: objects whose keys have other names."""
    return {f"new_{key}": value for key, value in body.items()} if isinstance(body, dict) else {"rows": body}


FAULTS: dict[str, tuple[Fault, str]] = {
    "500": (answer(500, b'{"detail": "server error"}', Content_Type="application/json"), "answered .* with 500"),
    "502": (answer(502, b"<html>Bad Gateway</html>", Content_Type="text/html"), "answered .* with 502: Bad Gateway"),
    "429": (answer(429, b"", Retry_After="2"), "with 429"),
    "404 for everything": (answer(404, b"<html>nginx</html>", Content_Type="text/html"), "answered .* with 404"),
    "sign-on page": (login_page, "text/html instead of JSON"),
    "hung up": (not_answered, "did not answer"),
    "cut in the middle": (cut, "did not answer: the connection ended before"),
    "half the JSON": (truncated, "instead of JSON|cut off"),
    "too slow": (slow(3 * TIMEOUT), "no answer within 2 s"),
    "lists for objects": (changed(listed), "another shape"),
    "other names": (changed(renamed), "another shape"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_said_and_healed_by_itself(
    name: str,
    nextmask: Nextmask,
    proxy: FaultyProxy,
    project: int,
    label_studio: StudioClient,
    submit: Callable[[int], None],
    submitted: list[int],
) -> None:
    fault, words = FAULTS[name]
    wait_until_healthy(nextmask, project)
    proxy.fault(fault, path="/api/")
    submit(1)

    def failed() -> bool:
        known = nextmask.services.store.project(project)
        return known is not None and known.state == "failed" and known.managed

    wait_for(failed, name="the fault being noticed")
    said = nextmask.status(project).errors["project"]
    assert re.search(words, said), said
    begun = time.monotonic()
    assert requests.get(f"{nextmask.url}/health", timeout=5).ok
    assert time.monotonic() - begun < 1, "health waits for Label Studio"
    predicted = nextmask.post(
        "/predict", {"project": project, "tasks": [{"id": 1, "data": {"image": "/data/none.png"}}]}
    )
    assert predicted.ok, "one answer per task, whatever happens"
    assert len(predicted.json()["results"]) == 1

    proxy.clear()
    wait_until_healthy(nextmask, project)
    assert_whole(nextmask, label_studio, project, submitted)


def test_an_import_whose_answer_was_lost_is_found_before_it_is_sent_again(
    nextmask: Nextmask,
    proxy: FaultyProxy,
    project: int,
    label_studio: StudioClient,
    submit: Callable[[int], None],
    submitted: list[int],
) -> None:
    lost = proxy.fault(lose_answer, method="POST", path="import/predictions", times=3)
    submit(4)
    wait_for(lambda: labelled(nextmask, project) == set(submitted), seconds=300, name="all labels")
    nextmask.services.store.wake(project, train=True)
    wait_for(lambda: set(submitted) <= trained_on(nextmask, project), seconds=300, name="a training on all labels")
    wait_until_seen(lost)
    wait_until_healthy(nextmask, project)
    assert_whole(nextmask, label_studio, project, submitted)


def test_an_import_that_was_sent_twice_leaves_one_prediction_per_task(
    nextmask: Nextmask, proxy: FaultyProxy, project: int, label_studio: StudioClient, submitted: list[int]
) -> None:
    """By something on the way; the host itself takes both."""
    twice = proxy.fault(doubled_on_the_way, method="POST", path="import/predictions", times=1)
    nextmask.services.store.wake(project, ranking_key="")
    wait_until_seen(twice)
    wait_for(lambda: doubled(label_studio, project) == [], name="one prediction of each version per task")
    wait_until_healthy(nextmask, project)
    assert_whole(nextmask, label_studio, project, submitted)
    parted = {name: count for name, count in label_studio.model_versions(project).items() if "duplicate" in name}
    assert sum(parted.values()) == 8, "they are renamed, not deleted: an editor may have one open"


def test_a_host_that_fails_now_and_then_loses_nothing(
    nextmask: Nextmask,
    proxy: FaultyProxy,
    project: int,
    label_studio: StudioClient,
    submit: Callable[[int], None],
    submitted: list[int],
) -> None:
    now_and_then: dict[str, Fault] = {
        "500": answer(500),
        "503": answer(503),
        "hung up": not_answered,
        "answer lost": lose_answer,
        "cut": cut,
        "half": truncated,
        "sign-on page": login_page,
    }
    before = len(proxy.calls)
    rules = {name: proxy.fault(fault, path="/api/", share=0.03) for name, fault in now_and_then.items()}
    for _ in range(3):
        submit(4)
        wait_for(lambda: labelled(nextmask, project) == set(submitted), seconds=300, name="all labels")
        nextmask.services.store.wake(project, train=True)
        wait_for(lambda: set(submitted) <= trained_on(nextmask, project), seconds=300, name="a training on all labels")
    for rule in rules.values():
        wait_until_seen(rule, seconds=300)
    calls, met = len(proxy.calls) - before, {name: rule.seen for name, rule in rules.items()}
    print(f"\n{sum(met.values())} of {calls} calls failed: {met}")
    proxy.clear()
    wait_until_healthy(nextmask, project)
    assert_whole(nextmask, label_studio, project, submitted)


# -- another release --------------------------------------------------------------------------------------------------
_NOT_NEEDED = {
    "avg_lead_time",
    "comment_count",
    "created_username",
    "draft_exists",
    "file_upload",
    "inner_id",
    "overlap",
}
"""Fields that this release has, and nextmask has no use for."""


def next_release(body: object) -> object:
    """Another release that can be read: fields that are new, fields that are gone, times as Python writes them."""
    if isinstance(body, list):
        return [next_release(one) for one in body]
    if isinstance(body, dict):
        kept = {key: next_release(value) for key, value in body.items() if key not in _NOT_NEEDED}
        return {"$schema": "2", **kept, "extensions": {"unknown": [None]}} if "id" in kept else kept
    if isinstance(body, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", body):
        return body.replace("Z", "+00:00")
    return body


def of_release(number: str) -> Fault:
    return changed(lambda body: body | {"release": number})


def in_pages(body: object) -> object:
    """Lists of rows in pages, as Django REST framework has them."""
    return {"count": len(body), "next": None, "results": body} if isinstance(body, list) else body


def test_a_host_that_comes_back_as_another_release(
    nextmask: Nextmask,
    proxy: FaultyProxy,
    project: int,
    label_studio: StudioClient,
    submit: Callable[[int], None],
    submitted: list[int],
) -> None:
    """Where it can be read, work goes on; where it cannot, that is said, and no label is lost until it can again."""
    client = StudioClient(proxy.url, nextmask.settings.label_studio_api_key.get_secret_value())

    def restarted_as(number: str, change: Callable[[object], object]) -> None:
        proxy.clear()
        down = proxy.fault(not_answered)
        wait_until_seen(down)
        wait_for(lambda: state(nextmask, project) == "failed", name="the host's end being noticed")
        proxy.clear()
        proxy.fault(of_release(number), path="/api/version")
        proxy.fault(changed(change), path="/api/")
        assert client.release() == number

    def trained() -> bool:
        return trained_on(nextmask, project) == set(submitted)

    restarted_as("1.99.0", next_release)
    wait_until_healthy(nextmask, project)
    submit(4)
    wait_for(trained, seconds=300, name="a training on all labels")
    wait_until_healthy(nextmask, project)
    assert_whole(nextmask, label_studio, project, submitted)

    restarted_as("2.0.0", in_pages)
    submit(4)
    wait_for(lambda: "another shape" in nextmask.status(project).errors.get("project", ""), name="what is wrong")
    assert "Is its release one that nextmask was tested with" in nextmask.status(project).errors["project"]
    assert_serves(nextmask, project)

    restarted_as("1.99.1", next_release)
    wait_for(trained, seconds=300, name="a training on all labels")
    wait_until_healthy(nextmask, project)
    assert_whole(nextmask, label_studio, project, submitted)


def state(nextmask: Nextmask, project: int) -> str:
    known = nextmask.services.store.project(project)
    return known.state if known else ""
