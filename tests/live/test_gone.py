"""Things go away while they are worked on: the project, a task that is open, the label configuration."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from faulty_proxy import FaultyProxy, held
from invariants import assert_whole, trained_on, wait_until_healthy
from processes import children, kill, wait_for
from steps import label
from studio_client import StudioClient
from support import Nextmask

from ml_backend.datasets import Dataset, label_config

pytestmark = pytest.mark.live

ENDLESS = {"iterations": 1_000_000}


def is_at(nextmask: Nextmask, project: int, stage: str) -> bool:
    known = nextmask.services.store.project(project)
    return known is not None and known.stage.startswith(stage)


@pytest.mark.parametrize("stage", ["training", "publishing"])
def test_a_project_is_deleted_at_work(
    stage: str,
    make_nextmask: Callable[..., Nextmask],
    label_studio: StudioClient,
    make_project: Callable[..., int],
    shapes: Dataset,
) -> None:
    made = label_studio.create_project(title="doomed", label_config=label_config(shapes, "BrushLabels"))
    doomed = int(made["id"])
    label_studio.upload_images(doomed, [one.image for one in shapes.splits["train"][:30]])
    other = make_project(images=9, dataset=shapes)
    with FaultyProxy(label_studio.transport.url) as proxy:
        nextmask = make_nextmask(label_studio_url=proxy.url)
        delete_at_work(nextmask, proxy, label_studio, doomed, stage, shapes)
        nextmask.connect(other)
        assert_the_other_goes_on(nextmask, label_studio, doomed, other, shapes)


def delete_at_work(
    nextmask: Nextmask, proxy: FaultyProxy, label_studio: StudioClient, doomed: int, stage: str, shapes: Dataset
) -> None:
    release = threading.Event()
    if stage == "publishing":
        proxy.fault(held(release), method="POST", path="import/predictions", times=1)
    nextmask.connect(doomed, **ENDLESS)
    if stage == "training":
        label(label_studio, doomed, shapes, label_studio.task_ids(doomed)[:4])
    wait_for(lambda: is_at(nextmask, doomed, stage), name=f"{stage} of the project", every=0.02)
    label_studio.delete_project(doomed)
    release.set()


def assert_the_other_goes_on(
    nextmask: Nextmask, label_studio: StudioClient, doomed: int, other: int, shapes: Dataset
) -> None:

    def gone() -> bool:
        known = nextmask.services.store.project(doomed)
        return known is not None and not known.managed and known.lease_owner is None

    wait_for(gone, name="the project being gone")
    known = nextmask.services.store.project(doomed)
    assert known
    assert known.state == "gone"
    looks = known.reconciled_at

    # The others are looked after, and nobody asks for the one that is gone any more.
    tasks = label_studio.task_ids(other)
    label(label_studio, other, shapes, tasks[:4])
    wait_for(lambda: trained_on(nextmask, other) == set(tasks[:4]), name="the other project's version")
    wait_until_healthy(nextmask, other)
    assert_whole(nextmask, label_studio, other, tasks[:4])
    after = nextmask.services.store.project(doomed)
    assert after
    assert after.reconciled_at == looks, "it is still looked at"
    assert next(event.kind for event in nextmask.services.store.events(doomed)) == "gone"


def test_tasks_are_deleted_while_open_and_the_configuration_changes_in_training(
    nextmask: Nextmask, label_studio: StudioClient, make_project: Callable[..., int], shapes: Dataset
) -> None:
    project = make_project(images=14, dataset=shapes)
    tasks = label_studio.task_ids(project)
    nextmask.connect(project, **ENDLESS)
    label(label_studio, project, shapes, tasks[:4])
    wait_for(lambda: is_at(nextmask, project, "training"), name="a training")

    # A task that an annotator has open, and one that was labelled and is in the training set, go.
    opened = label_studio.next_task(project)
    assert opened
    for gone in (opened["id"], tasks[0]):
        label_studio.transport.json("DELETE", f"/api/tasks/{gone}/")
    # A class is added: what trains now is of the old one.
    xml = str(label_studio.project(project)["label_config"])
    added = xml.replace("</BrushLabels>", '<Label value="triangle" background="#123456"/></BrushLabels>')
    assert added != xml
    label_studio.update_project(project, label_config=added)
    nextmask.connect(project, iterations=6)
    label(label_studio, project, shapes, [task for task in tasks[4:7] if task != opened["id"]])
    done = {task for task in tasks[1:7] if task != opened["id"]}

    def follows() -> bool:
        latest = nextmask.services.checkpoints(project).latest()
        return latest is not None and "triangle" in latest.record.classes

    # The endless training goes on with what it began with, until somebody ends it.
    (training,) = children(nextmask.worker())
    kill(training)
    nextmask.services.store.wake(project, train=True)
    wait_for(follows, name="a version that knows the new class")
    wait_for(lambda: trained_on(nextmask, project) == done, name="a training on what is there")
    wait_until_healthy(nextmask, project)
    assert_whole(nextmask, label_studio, project, done)
