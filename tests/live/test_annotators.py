"""Several people on one project in a real Label Studio: at once, and several on one task."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import requests
from steps import label_map_of
from support import Nextmask, Studio

from ml_backend.annotations.masks import mask_from_png, write_result
from ml_backend.datasets import Dataset
from ml_backend.demo.annotator import SimulatedAnnotator
from ml_backend.label_studio import LabelStudio

pytestmark = pytest.mark.live

PEOPLE = 3
SIZE = (48, 64)


@pytest.fixture(scope="module")
def people(studio: Studio, label_studio: LabelStudio) -> list[LabelStudio]:
    """The owner, and others who follow the organisation's invitation; each with a token of their own."""
    invitation = label_studio.transport.json("GET", "/api/invite")["invite_url"]
    return [label_studio, *(signed_up(studio, invitation, number) for number in range(1, PEOPLE))]


def signed_up(studio: Studio, invitation: str, number: int) -> LabelStudio:
    session, address = requests.Session(), f"{studio.url}{invitation}"
    page = session.get(address, timeout=30).text
    (secret,) = set(re.findall(r'name="csrfmiddlewaretoken" value="([^"]+)"', page))
    # The name is new each time: the host may be one that other runs have used.
    name = f"annotator-{number}-{np.random.default_rng().integers(10**9)}@nextmask.local"
    fields = {"email": name, "password": "annotator-password", "csrfmiddlewaretoken": secret}
    session.post(address, data=fields, headers={"Referer": address}, timeout=30).raise_for_status()
    headers = {"X-CSRFToken": session.cookies["csrftoken"], "Referer": studio.url}
    answer = session.post(f"{studio.url}/api/token/", headers=headers, timeout=30)
    answer.raise_for_status()
    return LabelStudio(studio.url, answer.json()["token"])


def test_labels_of_people_who_work_at_once_all_count(
    people: list[LabelStudio], serving: Nextmask, make_project: Callable[..., int], shapes: Dataset
) -> None:
    project = make_project(images=18, dataset=shapes)
    serving.connect(project, strategy="margin", train_after=6)
    serving.wait_settled(project)
    label_map = label_map_of(people[0], project)

    def work(client: LabelStudio) -> list[int]:
        done = SimulatedAnnotator(client, project, shapes.truth(), label_map).annotate(3)
        assert [one.error for one in done] == [""] * 3
        return [one.task for one in done]

    with ThreadPoolExecutor(PEOPLE) as at_once:
        served = {task for tasks in at_once.map(work, people) for task in tasks}
    # Label Studio finds a free task and locks it in two steps: asked in the same instant it may give one task twice.
    assert len(served) >= 3 * PEOPLE - 2
    serving.wait_for_version(project, 1)
    status = serving.wait_settled(project)
    assert (status.labels, status.pool, status.errors) == (len(served), 18 - len(served), {})
    trained = {int(task) for task in serving.services.checkpoints(project).get(1).record.labels}
    assert len(trained) >= 6
    assert trained <= served


def square(left: int) -> Any:
    mask = np.zeros(SIZE, np.uint8)
    mask[8:24, left : left + 16] = 2
    return mask


def test_the_majority_of_three_masks_is_the_label(
    people: list[LabelStudio], serving: Nextmask, make_project: Callable[..., int], shapes: Dataset
) -> None:
    project = make_project(images=3, dataset=shapes)
    people[0].update_project(project, maximum_annotations=3)
    serving.connect(project, several_annotations="majority", train_after=99)
    serving.wait_settled(project)
    label_map, task = label_map_of(people[0], project), min(people[0].task_ids(project))
    for client, left in zip(people, (4, 8, 12), strict=True):
        regions = write_result(square(left), label_map, minimum_area=0)
        client.submit_annotation(task, regions, 3.0)
    serving.wait_settled(project)

    def label() -> Any:
        (found,) = [one for one in serving.services.store.tasks(project) if one.task_id == task]
        return mask_from_png(serving.services.files.read(found.mask_file))

    assert (label() == square(8)).all()
    serving.connect(project, several_annotations="newest", train_after=99)
    serving.wait_settled(project)
    assert (label() == square(12)).all(), "another rule reads the labels again"
