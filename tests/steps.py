"""What the live tests do to Label Studio, and what they look at there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ml_backend.annotations.label_map import LabelMap, parse_label_config
from ml_backend.annotations.masks import Mask, write_result
from ml_backend.datasets import Dataset
from ml_backend.label_studio import LabelStudio

Json = dict[str, Any]


def label_map_of(client: LabelStudio, project: int) -> LabelMap:
    return parse_label_config(str(client.project(project)["label_config"]))


def true_mask(client: LabelStudio, project: int, task: int, dataset: Dataset, label_map: LabelMap) -> Mask:
    # Not client.task: for a task without predictions, that makes Label Studio ask the backend for one.
    (found,) = client.tasks(project, [task])
    reference = label_map.image_reference(found["data"])
    truth = dataset.truth()
    return truth.read(truth.find(str(reference)), label_map)


def label(client: LabelStudio, project: int, dataset: Dataset, tasks: Iterable[int]) -> list[int]:
    """Submit the true masks of these tasks, and return the annotations' ids."""
    label_map, made = label_map_of(client, project), []
    for task in tasks:
        regions = write_result(true_mask(client, project, task, dataset, label_map), label_map, minimum_area=0)
        made.append(int(client.submit_annotation(task, regions, 3.0)["id"]))
    return made


def predictions(client: LabelStudio, project: int, version: str | None = None) -> list[Json]:
    """All predictions of a project, or those of one version."""
    rows = client.transport.json("GET", "/api/predictions/", params={"project": project})
    return [row for row in rows if version in (None, row["model_version"])]


def data_manager_action(client: LabelStudio, project: int, action: str, tasks: list[int]) -> Json:
    """Do what the Data Manager's menu "Actions" does with selected tasks."""
    body = {"selectedItems": {"all": False, "included": tasks}, "project": project}
    answer: Json = client.transport.json(
        "POST", "/api/dm/actions/", params={"project": project, "id": action}, json=body, slow=True
    )
    return answer
