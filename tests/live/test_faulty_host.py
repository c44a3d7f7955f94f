"""Label Studio answers wrongly, late, half or not at all: nothing is lost, nothing is done twice, and it is said."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

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
from processes import wait_for
from steps import label
from studio_client import StudioClient
from support import Nextmask, Studio
from wiring import project_of

from ml_backend.datasets import Dataset

pytestmark = pytest.mark.live

TIMEOUT = 2.0
"""Seconds that nextmask waits for an answer here."""


@dataclass(frozen=True)
class Faulty:
    """A nextmask that reaches Label Studio through a proxy, and its project; labels are submitted past the proxy.

    Attributes:
        submitted: the tasks that were labelled so far.
    """

    nextmask: Nextmask
    proxy: FaultyProxy
    project: int
    label_studio: StudioClient
    images: Dataset
    submitted: list[int] = field(default_factory=list)

    def submit(self, count: int) -> None:
        """Label so many more tasks."""
        waiting = [task for task in self.label_studio.task_ids(self.project) if task not in self.submitted]
        label(self.label_studio, self.project, self.images, waiting[:count])
        self.submitted.extend(waiting[:count])

    def wait_until_healthy(self) -> None:
        wait_until_healthy(self.nextmask, self.project)

    def wait_for_labels(self) -> None:
        known = partial(labelled, self.nextmask, self.project)
        wait_for(lambda: known() == set(self.submitted), seconds=300, name="all labels")

    def wait_for_training(self) -> None:
        trained = partial(trained_on, self.nextmask, self.project)
        wait_for(lambda: set(self.submitted) <= trained(), seconds=300, name="a training on all labels")

    def state(self) -> str:
        return project_of(self.nextmask.services, self.project).state

    def assert_whole(self) -> None:
        """Healthy in the end, and nothing is lost."""
        self.wait_until_healthy()
        assert_whole(self.nextmask, self.label_studio, self.project, self.submitted)


@pytest.fixture(scope="module")
def installed(
    studio: Studio,
    label_studio: StudioClient,
    make_module_project: Callable[..., int],
    shapes: Dataset,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Faulty]:
    environment = {"reconcile_seconds": 1.0, "request_timeout": TIMEOUT}
    with FaultyProxy(studio.url) as proxy:
        behind = replace(studio, url=proxy.url)
        nextmask = Nextmask(behind, tmp_path_factory.mktemp("nextmask"), FAST, environment=environment)
        nextmask.start()
        project = make_module_project(images=40, dataset=shapes)
        nextmask.connect(project, queue_window=8)
        wait_until_healthy(nextmask, project)
        yield Faulty(nextmask, proxy, project, label_studio, shapes)
        nextmask.stop()
        nextmask.close()


@pytest.fixture
def faulty(installed: Faulty) -> Iterator[Faulty]:
    """Nothing is wrong with the proxy at first; what a test did to it is taken back."""
    yield installed
    installed.proxy.clear()


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
def test_a_fault_is_said_and_healed_by_itself(name: str, faulty: Faulty) -> None:
    fault, words = FAULTS[name]
    nextmask, project = faulty.nextmask, faulty.project
    faulty.wait_until_healthy()
    faulty.proxy.fault(fault, path="/api/")
    faulty.submit(1)

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

    faulty.proxy.clear()
    faulty.assert_whole()


def test_an_import_whose_answer_was_lost_is_found_before_it_is_sent_again(faulty: Faulty) -> None:
    lost = faulty.proxy.fault(lose_answer, method="POST", path="import/predictions", times=3)
    faulty.submit(4)
    faulty.wait_for_labels()
    faulty.nextmask.services.store.wake(faulty.project, train=True)
    faulty.wait_for_training()
    wait_until_seen(lost)
    faulty.assert_whole()


def test_an_import_that_was_sent_twice_leaves_one_prediction_per_task(faulty: Faulty) -> None:
    """By something on the way; the host itself takes both."""
    twice = faulty.proxy.fault(doubled_on_the_way, method="POST", path="import/predictions", times=1)
    faulty.nextmask.services.store.wake(faulty.project, ranking_key="")
    wait_until_seen(twice)
    label_studio, project = faulty.label_studio, faulty.project
    wait_for(lambda: doubled(label_studio, project) == [], name="one prediction of each version per task")
    faulty.assert_whole()
    parted = {name: count for name, count in label_studio.model_versions(project).items() if "duplicate" in name}
    assert sum(parted.values()) == 8, "they are renamed, not deleted: an editor may have one open"


def test_a_host_that_fails_now_and_then_loses_nothing(faulty: Faulty) -> None:
    now_and_then: dict[str, Fault] = {
        "500": answer(500),
        "503": answer(503),
        "hung up": not_answered,
        "answer lost": lose_answer,
        "cut": cut,
        "half": truncated,
        "sign-on page": login_page,
    }
    proxy = faulty.proxy
    before = len(proxy.calls)
    rules = {name: proxy.fault(fault, path="/api/", share=0.03) for name, fault in now_and_then.items()}
    for _ in range(3):
        faulty.submit(4)
        faulty.wait_for_labels()
        faulty.nextmask.services.store.wake(faulty.project, train=True)
        faulty.wait_for_training()
    for rule in rules.values():
        wait_until_seen(rule, seconds=300)
    calls, met = len(proxy.calls) - before, {name: rule.seen for name, rule in rules.items()}
    print(f"\n{sum(met.values())} of {calls} calls failed: {met}")
    proxy.clear()
    faulty.assert_whole()


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


def test_a_host_that_comes_back_as_another_release(faulty: Faulty) -> None:
    """Where it can be read, work goes on; where it cannot, that is said, and no label is lost until it can again."""
    nextmask, proxy, project = faulty.nextmask, faulty.proxy, faulty.project
    client = StudioClient(proxy.url, nextmask.settings.label_studio_api_key.get_secret_value())

    def restarted_as(number: str, change: Callable[[object], object]) -> None:
        proxy.clear()
        down = proxy.fault(not_answered)
        wait_until_seen(down)
        wait_for(lambda: faulty.state() == "failed", name="the host's end being noticed")
        proxy.clear()
        proxy.fault(of_release(number), path="/api/version")
        proxy.fault(changed(change), path="/api/")
        assert client.release() == number

    def trained() -> bool:
        return trained_on(nextmask, project) == set(faulty.submitted)

    restarted_as("1.99.0", next_release)
    faulty.wait_until_healthy()
    faulty.submit(4)
    wait_for(trained, seconds=300, name="a training on all labels")
    faulty.assert_whole()

    restarted_as("2.0.0", in_pages)
    faulty.submit(4)
    wait_for(lambda: "another shape" in nextmask.status(project).errors.get("project", ""), name="what is wrong")
    assert "Is its release one that nextmask was tested with" in nextmask.status(project).errors["project"]
    assert_serves(nextmask, project)

    restarted_as("1.99.1", next_release)
    wait_for(trained, seconds=300, name="a training on all labels")
    faulty.assert_whole()
