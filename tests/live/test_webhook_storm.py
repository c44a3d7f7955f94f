"""Webhooks lost, doubled, reordered, late, replayed, and thousands at once: the state is that of Label Studio."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from faulty_proxy import Call, FaultyProxy, doubled, swallowed
from invariants import assert_whole, labelled, trained_on, wait_until_healthy
from processes import wait_for
from steps import label
from studio_client import StudioClient
from support import Nextmask

from ml_backend.datasets import Dataset
from ml_backend.demo.label_studio import free_port

pytestmark = pytest.mark.live

EVENTS = 3000


@pytest.fixture
def proxy() -> Iterator[FaultyProxy]:
    """Stands between Label Studio and nextmask, which listens on the port behind it."""
    with FaultyProxy(f"http://127.0.0.1:{free_port()}") as running:
        yield running


def test_webhooks_are_hints_whatever_becomes_of_them(
    proxy: FaultyProxy,
    make_nextmask: Callable[..., Nextmask],
    label_studio: StudioClient,
    make_project: Callable[..., int],
    shapes: Dataset,
) -> None:
    port = int(proxy.target.rpartition(":")[2])
    nextmask = make_nextmask(port=port, backend_url=proxy.url, reconcile_seconds=5.0, log_level="DEBUG")
    project = make_project(images=24, dataset=shapes)
    tasks, done = label_studio.task_ids(project), list[int]()
    nextmask.connect(project, queue_window=8)
    wait_until_healthy(nextmask, project)

    def submit(count: int) -> list[int]:
        some = tasks[len(done) : len(done) + count]
        done.extend(some)
        return label(label_studio, project, shapes, some)

    # Every other one is lost, the others come twice.
    proxy.fault(swallowed, path="/webhook", share=0.5)
    proxy.fault(doubled, path="/webhook")
    made = submit(3)
    label_studio.delete_annotation(made[0])  # before there are enough for a training, which must not see this one
    submit(1)
    wait_for(lambda: labelled(nextmask, project) == set(done[1:]), name="three labels, although webhooks were lost")
    submit(1)
    del done[0]
    tasks.append(tasks.pop(0))  # its turn comes again at the end
    wait_for(lambda: trained_on(nextmask, project) == set(done), name="a version")
    wait_until_healthy(nextmask, project)
    assert_whole(nextmask, label_studio, project, done)
    versions = len(nextmask.services.checkpoints(project).versions())
    assert versions == 1

    # They come late, in any order, some of them again and again: thousands within seconds.
    proxy.clear()
    recorded = [call for call in proxy.calls if call.path.endswith("/webhook") and call.method == "POST"]
    assert {action(call) for call in recorded} >= {"ANNOTATION_CREATED", "ANNOTATIONS_DELETED"}
    chosen = random.Random(0)
    storm = [chosen.choice(recorded) for _ in range(EVENTS)]
    looks, begun = looks_at(nextmask), time.monotonic()
    with ThreadPoolExecutor(64) as pool:
        answers = Counter(pool.map(lambda call: proxy.forward(call).status, storm))
        slowest = max(health_seconds(nextmask) for _ in range(5))
    seconds = time.monotonic() - begun
    print(f"\n{EVENTS} events in {seconds:.1f} s: {dict(answers)}; /health took {slowest:.2f} s at most")
    assert answers == {201: EVENTS}
    assert slowest < 5
    wait_until_healthy(nextmask, project)
    assert looks_at(nextmask) - looks < 3 * seconds, "each event made a look of its own"
    assert_whole(nextmask, label_studio, project, done)
    assert len(nextmask.services.checkpoints(project).versions()) == versions, "old news made a training"

    # And what is really new is seen among them.
    submit(4)
    wait_for(lambda: trained_on(nextmask, project) == set(done), name="the next version")
    wait_until_healthy(nextmask, project)
    assert_whole(nextmask, label_studio, project, done)


def action(call: Call) -> str:
    return str(json.loads(call.body)["action"])


def health_seconds(nextmask: Nextmask) -> float:
    begun = time.monotonic()
    assert requests.get(f"{nextmask.url}/health", timeout=30).ok
    return time.monotonic() - begun


def looks_at(nextmask: Nextmask) -> int:
    """How often projects were looked at so far."""
    return nextmask.log.read_text().count(" reconciled seconds=")
