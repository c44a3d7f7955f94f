"""What real annotations contain, submitted to a real Label Studio: what is used, what told, and what left alone."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
import pytest
import requests
from processes import wait_for
from steps import label_map_of, predictions, true_mask
from studio_client import StudioClient
from support import PASSWORD, USER, Nextmask

from ml_backend.annotations.label_map import LabelMap
from ml_backend.annotations.masks import Mask, mask_from_png, write_result
from ml_backend.datasets import Dataset
from ml_backend.doctor import examine
from ml_backend.store import Task

pytestmark = pytest.mark.live

LABELS = '<Label value="disc" background="#ff0000"/><Label value="square" background="#0000ff"/>'
XML = f"""<View><Image name="image" value="$image"/><MagicWand name="wand" toName="image"/>
<BrushLabels name="tag" toName="image">{LABELS}</BrushLabels>
<PolygonLabels name="outline" toName="image">{LABELS}</PolygonLabels>
<RectangleLabels name="box" toName="image" smart="true">{LABELS}</RectangleLabels>
<KeyPointLabels name="point" toName="image" smart="true">{LABELS}</KeyPointLabels>
</View>"""
POINTS = [[15.625, 16.6667], [62.5, 16.6667], [62.5, 62.5], [15.625, 62.5]]
COUNTED, TOLD = 6, 3


class Submitted:
    """The project's tasks, a kind each, as they are submitted."""

    def __init__(self, client: StudioClient, project: int, shapes: Dataset) -> None:
        self._client, self._project, self._shapes = client, project, shapes
        self.label_map = label_map_of(client, project)
        self._free = iter(client.task_ids(project))
        self.tasks: dict[str, int] = {}

    def submit(self, name: str, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
        """Submit the true mask of another task, changed."""
        self.tasks[name] = task = next(self._free)
        mask = true_mask(self._client, self._project, task, self._shapes, self.label_map)
        self._client.submit_annotation(task, change(write_result(mask, self.label_map, minimum_area=0)), 3.0)

    def truth(self, name: str) -> Mask:
        return true_mask(self._client, self._project, self.tasks[name], self._shapes, self.label_map)


def region(kind: str, name: str, value: dict[str, Any], **fields: Any) -> dict[str, Any]:
    size = {"original_width": 64, "original_height": 48, "image_rotation": 0}
    return {"id": kind, "from_name": name, "to_name": "image", "type": kind, **size, "value": value, **fields}


def polygon(**fields: Any) -> dict[str, Any]:
    return region("polygonlabels", "outline", {"points": POINTS, "closed": True, "polygonlabels": ["disc"]}, **fields)


def prompts() -> list[dict[str, Any]]:
    box = {"x": 0, "y": 0, "width": 90, "height": 90, "rotation": 0, "rectanglelabels": ["disc"]}
    point = {"x": 5, "y": 5, "width": 1, "keypointlabels": ["disc"]}
    return [region("rectanglelabels", "box", box), region("keypointlabels", "point", point)]


def wand(regions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The regions as they are without a label."""
    shapes = [{key: part for key, part in one["value"].items() if key != "brushlabels"} for one in regions]
    return [
        {**one, "type": "magicwand", "from_name": "wand", "value": value}
        for one, value in zip(regions, shapes, strict=True)
    ]


@pytest.fixture(scope="module")
def project(label_studio: StudioClient, make_module_project: Callable[..., int], shapes: Dataset) -> int:
    return make_module_project(images=12, xml=XML, dataset=shapes)


@pytest.fixture(scope="module")
def submitted(label_studio: StudioClient, project: int, shapes: Dataset) -> Submitted:
    made = Submitted(label_studio, project, shapes)
    made.submit("magic wand", wand)
    made.submit("other names", lambda regions: [{**one, "from_name": "t", "to_name": "picture"} for one in regions])
    made.submit("other size", lambda regions: [{**one, "original_width": 640} for one in regions])
    made.submit("no size", lambda _: [polygon(original_width=None, original_height=None)])
    made.submit("larger original", lambda _: [polygon(original_width=6400, original_height=4800)])
    made.submit("prompts", lambda regions: [*prompts(), *regions])
    made.submit("empty", lambda _: [])
    for name in ("first", "second"):
        made.submit(name, lambda regions: regions)
    return made


@pytest.fixture
def label_map(submitted: Submitted) -> LabelMap:
    return submitted.label_map


def task_of(serving: Nextmask, project: int, task: int) -> Task:
    found = serving.services.store.task(project, task)
    assert found
    return found


def mask_of(serving: Nextmask, task: Task) -> Mask:
    return mask_from_png(serving.services.files.read(task.mask_file))


def test_each_kind_is_used_or_told(project: int, serving: Nextmask, submitted: Submitted) -> None:
    serving.connect(project, train_after=99)
    serving.wait_settled(project)
    status = serving.status(project)
    assert (status.labels, len(status.errors)) == (COUNTED, TOLD)
    words = {
        "magic wand": "it has no label (type 'magicwand')",
        "other names": "the labelling configuration has no image 'picture'",
        "other size": "640 x 48 pixels, this one is 64 x 48",
    }
    for name, part in words.items():
        assert part in status.errors[f"task {submitted.tasks[name]}"]
    for name in ("no size", "larger original"):
        mask = mask_of(serving, task_of(serving, project, submitted.tasks[name]))
        assert int((mask == submitted.label_map.index_of("disc")).sum()) == 660
    for name in ("prompts", "first"):
        assert np.array_equal(mask_of(serving, task_of(serving, project, submitted.tasks[name])), submitted.truth(name))
    assert not mask_of(serving, task_of(serving, project, submitted.tasks["empty"])).any()


def test_doctor_and_dashboard_say_the_same(project: int, serving: Nextmask, submitted: Submitted) -> None:
    address = f"{serving.url}/projects/{project}/tasks?reason=failed"
    page = html.unescape(requests.get(address, auth=(USER, PASSWORD), timeout=30).text)
    assert "it has no label" in page
    report = examine(serving.services.settings, (), project)
    found = [finding for section in report.sections for finding in section.findings if finding.check == "left out"]
    assert [finding.level for finding in found] == ["warning"]
    assert found[0].message.startswith(f"{TOLD} tasks cannot be used, or not in full")


def test_what_is_counted_trains_and_a_mask_that_is_kept_agrees_in_full(
    project: int, serving: Nextmask, submitted: Submitted, label_studio: StudioClient
) -> None:
    serving.connect(project, train_after=COUNTED, iterations=25)
    serving.wait_for_version(project, 1)
    status = serving.status(project)
    assert (status.labels, status.trained_labels) == (COUNTED, COUNTED)
    rows = (row for row in predictions(label_studio, project, status.version) if row["result"])
    shown, mended = islice(rows, 2)
    kept = [{**one, "origin": "prediction"} for one in shown["result"]]
    label_studio.submit_annotation(shown["task"], kept, 2.0, parent_prediction=shown["id"])
    changed = [{**one, "origin": "prediction-changed"} for one in mended["result"]]
    label_studio.submit_annotation(mended["task"], changed, 2.0, parent_prediction=mended["id"])
    wait_for(lambda: serving.status(project).labels == COUNTED + 2, name="the labels' arrival")
    assert task_of(serving, project, shown["task"]).agreement == 1.0

    me = label_studio.whoami()
    labels = {one: task_of(serving, project, one) for one in (shown["task"], mended["task"])}
    assert [(one.annotator, one.unchanged) for one in labels.values()] == [(me["id"], True), (me["id"], False)]
    assert {one.unchanged for one in serving.services.store.tasks(project) if one.task_id not in labels} == {None}
    (told,) = serving.status(project).unchanged.annotators
    assert (told.id, told.labels, told.shown, told.unchanged) == (me["id"], COUNTED + 2, 2, 1)
    full = f"{me['first_name']} {me['last_name']}".strip()
    assert told.name == (full or me["email"])
    page = requests.get(f"{serving.url}/projects/{project}/unchanged", auth=(USER, PASSWORD), timeout=30).text
    assert re.findall(r"/data\?task=(\d+)", page) == [str(shown["task"])]
