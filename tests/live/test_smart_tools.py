"""Smart tools through Label Studio's own call for them: what it sends to nextmask, and what it hands on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from steps import label, label_map_of, predictions, true_mask
from studio_client import StudioClient
from support import PASSWORD, USER, Nextmask

from ml_backend.annotations.masks import read_result
from ml_backend.datasets import Dataset
from ml_backend.doctor.project.connection import check_smart_tools
from ml_backend.doctor.project.facts import read_facts
from ml_backend.projects.settings import read_settings
from ml_backend.projects.status import project_state

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def project(
    serving: Nextmask, label_studio: StudioClient, make_module_project: Callable[..., int], dataset: Dataset
) -> int:
    """Six images, four of them labelled, a trained model, and smart tools."""
    made = make_module_project(images=6)
    settings = {**serving.project_settings, "train_after": 4, "iterations": 24}
    serving.connection(made).connect(settings, add_smart_tools=True)
    label(label_studio, made, dataset, label_studio.task_ids(made)[:4])
    serving.wait_for_version(made, 1)
    return made


def ask(client: StudioClient, project: int, task: int, context: Any) -> dict[str, Any]:
    (backend,) = client.ml_backends(project)
    body = {"task": task, "context": context}
    answer: dict[str, Any] = client.transport.json(
        "POST", f"/api/ml/{backend['id']}/interactive-annotating", json=body, slow=True
    )
    return answer


def click(x: float, y: float, name: str = "a", label: str = "grey matter", **fields: Any) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": 0.6, "keypointlabels": [label], "labels": [label]}
    common = {"from_name": "smart-click", "to_name": "image", "type": "keypointlabels", "image_rotation": 0}
    return {"id": name, **common, "original_width": 320, "original_height": 400, "value": value, **fields}


def test_label_studio_hands_a_suggestion_on(
    project: int, serving: Nextmask, label_studio: StudioClient, dataset: Dataset
) -> None:
    task, label_map = label_studio.task_ids(project)[-1], label_map_of(label_studio, project)
    version = serving.status(project).version
    (prediction,) = [row for row in predictions(label_studio, project, version) if row["task"] == task]
    size = true_mask(label_studio, project, task, dataset, label_map).shape
    before = read_result(prediction["result"], label_map, size=size).mask
    row, column = next((row, column) for row in (40, 20) for column in (160, 40) if before[row, column] == 0)
    place = (column + 0.5) / 320 * 100, (row + 0.5) / 400 * 100
    answer = ask(label_studio, project, task, {"result": [click(*place, is_positive=True)]})
    held = {region["id"]: region for region in prediction["result"]}
    after = [*(held | {region["id"]: region for region in answer["data"]["result"]}).values()]
    assert read_result(after, label_map, size=size).mask[row, column] == label_map.index_of("grey matter")


def test_what_cannot_be_answered_reaches_the_page_as_words(project: int, label_studio: StudioClient) -> None:
    task = label_studio.task_ids(project)[-1]
    strange = ask(label_studio, project, task, {"result": [click(50, 50, label="nose")]})["data"]
    assert (strange["result"], "'nose' is no class" in strange["error"]) == ([], True)
    outside = ask(label_studio, project, task, {"result": [click(500, 50)]})["data"]
    assert "outside of the image" in outside["error"]
    assert ask(label_studio, project, task, {"result": []})["data"]["result"] == []
    assert ask(label_studio, project, task, {"event": "prewarm"})["data"]["result"] == []
    assert ask(label_studio, project, task, None)["data"]["result"], "without prompts it is a prediction"


def test_doctor_and_status_tell_when_the_tools_ask_nobody(
    project: int, serving: Nextmask, label_studio: StudioClient
) -> None:
    def found() -> list[str]:
        known = serving.services.store.project(project)
        facts = read_facts(serving.services.client, project, known, serving.settings)
        return [finding.message for finding in check_smart_tools(facts, serving.settings)]

    def status() -> bool:
        store, known = serving.services.store, serving.services.store.project(project)
        assert known is not None
        read_settings(serving.settings, store, serving.services.client, known)
        hints = project_state(serving.settings, store, project).hints
        return any("the model is not interactive. The editor offers no Auto-Annotation." in hint for hint in hints)

    assert not status()
    assert found() == ["'smart-click', 'smart-box' ask nextmask"]
    (backend,) = label_studio.ml_backends(project)
    login = {"auth_method": "BASIC_AUTH", "basic_auth_user": USER, "basic_auth_pass": PASSWORD}
    label_studio.update_ml_backend(backend["id"], project=project, url=backend["url"], is_interactive=False, **login)
    assert found() == [
        "The labelling configuration has smart tools ('smart-click', 'smart-box'), and the model is not interactive"
    ]
    assert status()
    assert "smart tools ask nextmask: the backend is interactive" in serving.connection(project).connect()
    assert found() == ["'smart-click', 'smart-box' ask nextmask"]
    assert not status()
