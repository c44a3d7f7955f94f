"""What holds whatever happened: no label lost, no prediction doubled, store and Label Studio agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from contextlib import suppress

import requests
from processes import wait_for
from steps import predictions
from support import Nextmask

from ml_backend.label_studio import LabelStudio
from ml_backend.label_studio.predictions import DUPLICATE
from ml_backend.projects.signs_of_life import SETTLED_SECONDS


def doubled(client: LabelStudio, project: int) -> list[tuple[int, str]]:
    """Return task and version of those predictions that are there more than once."""
    rows = [row for row in predictions(client, project) if not row["model_version"].endswith(DUPLICATE)]
    carried = Counter((row["task"], row["model_version"]) for row in rows)
    return [key for key, count in carried.items() if count > 1]


def labelled(nextmask: Nextmask, project: int) -> set[int]:
    return {task.task_id for task in nextmask.services.store.tasks(project, status="labelled")}


def trained_on(nextmask: Nextmask, project: int) -> set[int]:
    latest = nextmask.services.checkpoints(project).latest()
    return {int(task) for task in latest.record.labels} if latest else set()


def wait_until_healthy(nextmask: Nextmask, project: int, *, seconds: float = 120.0) -> None:
    """Wait for a look that ended well."""

    def is_healthy() -> bool:
        known = nextmask.services.store.project(project)
        return known is not None and (known.state, known.error) == ("waiting", "") and nextmask.settled(project)

    wait_for(is_healthy, seconds=seconds, name="a look that ends well")


def wait_without_errors(nextmask: Nextmask, project: int) -> None:
    """Wait until status has nothing to complain of; that workers were killed is said until one has settled."""
    with suppress(AssertionError):  # the next one names them
        wait_for(lambda: nextmask.status(project).errors == {}, seconds=SETTLED_SECONDS + 20, name="no errors")
    assert nextmask.status(project).errors == {}


def assert_whole(nextmask: Nextmask, client: LabelStudio, project: int, submitted: Collection[int]) -> None:
    """Compare what the store says with what a client, which no fault stands before, sees."""
    assert labelled(nextmask, project) == set(submitted), "a label was lost, or made up"
    wait_for(lambda: doubled(client, project) == [], seconds=30, name="one prediction of each version per task")
    tasks = {task.task_id: task for task in nextmask.services.store.tasks(project)}
    assert set(tasks) == set(client.task_ids(project))
    wait_without_errors(nextmask, project)
    status = nextmask.status(project)
    assert client.project(project)["model_version"] == status.version
    unlabelled = {task_id for task_id, task in tasks.items() if task.status == "unlabelled"}
    assert status.queue == len(client.tasks_with_prediction(project, status.version) & unlabelled) > 0


def assert_serves(nextmask: Nextmask, project: int) -> None:
    """Without Label Studio: alive, and the model that is published predicts images that were fetched before."""
    assert requests.get(f"{nextmask.url}/health", timeout=1).ok
    store, version = nextmask.services.store, nextmask.status(project).version
    new = [one for one in store.tasks(project) if store.published_mask(project, version, one.task_id) is None]
    body = {"project": project, "tasks": [{"id": new[0].task_id, "data": {"image": new[0].image}}]}
    (answer,) = nextmask.post("/predict", body).json()["results"]
    assert answer["model_version"] == version
    assert store.published_mask(project, version, new[0].task_id) is not None, "no mask was made"
