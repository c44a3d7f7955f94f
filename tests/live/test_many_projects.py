"""Twenty projects in one installation: each gets its queue and its training, none starves, memory stays bounded.

`--projects N` says how many; four by default.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from invariants import assert_whole, trained_on, wait_until_healthy
from processes import children, kill, wait_for
from steps import label
from support import Nextmask

from ml_backend.datasets import Dataset
from ml_backend.label_studio import LabelStudio

pytestmark = [pytest.mark.live, pytest.mark.timeout(2 * 3600)]

IMAGES, LABELS = 8, 4
PATIENCE = 1800.0
"""Seconds; a busy machine trains slowly."""
KEPT, NETWORK = 4, 21
"""Networks that a process keeps, and the megabytes of one."""
_LOOK = re.compile(r"project=(\d+) reconciled")


def memory(pid: int, field: str = "VmHWM") -> int:
    """Return the largest resident set of a process so far, or the one now (VmRSS), in megabytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return round(int(re.findall(rf"{field}:\s+(\d+) kB", status)[0]) / 1000)


def looks(nextmask: Nextmask, projects: list[int]) -> list[int]:
    """Return the projects in the order in which looks at them ended."""
    found = [int(number) for number in _LOOK.findall(nextmask.log.read_text())]
    return [project for project in found if project in projects]


def longest_gap(seen: list[int], project: int) -> int:
    """Return the most looks at others between two at this one, before the first and after the last included."""
    at = [-1, *[index for index, one in enumerate(seen) if one == project], len(seen)]
    return max(later - earlier - 1 for earlier, later in pairwise(at))


def test_many_projects_at_once(
    request: pytest.FixtureRequest,
    make_nextmask: Callable[..., Nextmask],
    label_studio: LabelStudio,
    make_project: Callable[..., int],
    shapes: Dataset,
) -> None:
    count = int(request.config.getoption("--projects"))
    nextmask = make_nextmask(reconcile_seconds=3.0, log_level="DEBUG")
    projects = [make_project(images=IMAGES, dataset=shapes) for _ in range(count)]
    for project in projects:
        nextmask.connect(project, queue_window=IMAGES)
    done = {project: label_studio.task_ids(project)[:LABELS] for project in projects}
    for project in projects:
        wait_for(lambda one=project: nextmask.status(one).queue == IMAGES, seconds=PATIENCE, name=f"queue of {project}")

    # All want to be trained at the same time, one for as long as it takes all others.
    nextmask.connect(projects[0], queue_window=IMAGES, iterations=1_000_000)
    for project in projects:
        label(label_studio, project, shapes, done[project])
    wait_for(lambda: nextmask.status(projects[0]).state == "training", name="the long training")
    others = projects[1:]
    begun = len(looks(nextmask, others))
    wait_for(lambda: len(looks(nextmask, others)) > begun + 4 * count, seconds=PATIENCE, name="four rounds of looks")
    seen = looks(nextmask, others)[begun:]
    gaps = {project: longest_gap(seen, project) for project in others}
    assert nextmask.status(projects[0]).trained_labels == 0, "the long training ended"
    assert max(gaps.values()) <= 3 * count, gaps
    for project in others:
        assert nextmask.status(project).labels == LABELS, "its labels were not read meanwhile"

    nextmask.connect(projects[0], queue_window=IMAGES)
    (training,) = children(nextmask.worker())
    kill(training)
    nextmask.services.store.wake(projects[0], train=True)
    worker, ranked = nextmask.worker(), dict[int, int]()

    def all_trained() -> bool:
        trained = [project for project in projects if trained_on(nextmask, project) == set(done[project])]
        ranked[len(trained)] = memory(worker, "VmRSS")
        return len(trained) == count

    wait_for(all_trained, seconds=PATIENCE, name="a version of each", every=1.0)
    for project in projects:
        wait_until_healthy(nextmask, project, seconds=PATIENCE)
        assert_whole(nextmask, label_studio, project, done[project])

    # A network of each would be kept in memory, were their number not bounded.
    assert nextmask.process
    server = nextmask.process.pid
    after = [predicted(nextmask, project, server) for project in (*projects, *projects)]
    used = {"server": memory(server), "worker": memory(worker)}
    print(f"\n{count} projects: at most {max(gaps.values())} looks at others between two at one; at most {used} MB")
    print(f"the server's MB after predicting for one project after the other: {after}")
    print(f"the worker's MB by projects that are trained: {ranked}, in the end {memory(worker, 'VmRSS')}")
    assert nextmask.worker() == worker, "the worker was started anew"
    assert max(used.values()) < 2500
    assert_levels_off(dict(enumerate(after[:count], start=1)), count)
    assert_levels_off(ranked, count)


def assert_levels_off(megabytes: dict[int, int], count: int) -> None:
    """What is left of evicted networks fills gaps at first; from the middle on, most of each must come out of these.

    Args:
        megabytes: by the number of projects whose networks were used so far.
    """
    half = max(count // 2, 2 * KEPT)
    if count > half:
        from_half_on = [used for projects, used in sorted(megabytes.items()) if projects >= half]
        assert from_half_on[-1] - from_half_on[0] < NETWORK * (count - half) / 2


def predicted(nextmask: Nextmask, project: int, server: int) -> int:
    """Have all images of a project predicted, and return the server's memory afterwards."""
    tasks = [{"id": task.task_id, "data": {"image": task.image}} for task in nextmask.services.store.tasks(project)]
    results = nextmask.post("/predict", {"project": project, "tasks": tasks}).json()["results"]
    assert {one["model_version"] for one in results} == {nextmask.status(project).version}
    for task in nextmask.services.store.tasks(project):
        version = nextmask.status(project).version
        assert nextmask.services.store.published_mask(project, version, task.task_id) is not None
    return memory(server, "VmRSS")
