"""A worker that is gone while what it has sent is still on its way."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from faulty_proxy import FaultyProxy, held, wait_until_seen
from invariants import assert_whole, wait_until_healthy
from steps import kill
from support import Nextmask, wait_for

from ml_backend.datasets import Dataset
from ml_backend.label_studio import DUPLICATE, LabelStudio

pytestmark = pytest.mark.live


def test_a_zombie_whose_import_is_on_its_way(
    make_nextmask: Callable[..., Nextmask],
    label_studio: LabelStudio,
    make_project: Callable[..., int],
    shapes: Dataset,
    tmp_path: Path,
) -> None:
    """No check helps against a request that was sent already: what it doubles is parted afterwards."""
    with FaultyProxy(label_studio.transport.url) as proxy:
        shared = {"model_dir": tmp_path / "state", "lease_seconds": 4.0, "reconcile_seconds": 1.0}
        nextmask = make_nextmask(**shared, label_studio_url=proxy.url)
        project = make_project(images=12, dataset=shapes)
        release = threading.Event()
        held_back = proxy.fault(held(release), method="POST", path="import/predictions", times=1)
        nextmask.connect(project, queue_window=8)
        wait_until_seen(held_back)
        kill(nextmask.worker())  # what it has sent is on its way, and arrives after the next worker's import
        wait_for(lambda: nextmask.status(project).queue == 8, name="the next worker's import")
        release.set()
        wait_for(lambda: parted(label_studio, project) == 8, name="the second predictions being renamed")
        wait_until_healthy(nextmask, project)
        assert_whole(nextmask, label_studio, project, [])


def parted(client: LabelStudio, project: int) -> int:
    """How many predictions were the second of their version."""
    return sum(count for name, count in client.model_versions(project).items() if name.endswith(DUPLICATE))
