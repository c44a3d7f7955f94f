"""The client against a real Label Studio: what nextmask builds on, checked on every run.

Wants the fixture `label_studio`: a StudioClient client of an administrator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from studio_client import StudioClient

from ml_backend.annotations import brush
from ml_backend.errors import ConfigurationError, ImageError, LabelStudioError, LabelStudioNotFound, LabelStudioRefused
from ml_backend.images.cache import ImageCache

pytestmark = pytest.mark.live

Json = dict[str, Any]
LABEL_CONFIG = """<View>
  <Image name="image" value="$image"/>
  <BrushLabels name="tag" toName="image"><Label value="cell"/></BrushLabels>
</View>"""

Moved = Callable[[Callable[[], Any]], list[int]]
"""Does something, and returns the tasks whose `updated_at` it moved."""


def region() -> Json:
    value = {"format": "rle", "rle": list(brush.encode(np.full((6, 8), 255, np.uint8))), "brushlabels": ["cell"]}
    size = {"original_width": 8, "original_height": 6, "image_rotation": 0}
    return {"id": "r1", "from_name": "tag", "to_name": "image", "type": "brushlabels", **size, "value": value}


@pytest.fixture
def project(label_studio: StudioClient) -> Iterator[int]:
    project_id = label_studio.create_project(title="client test", label_config=LABEL_CONFIG)["id"]
    yield project_id
    label_studio.delete_project(project_id)


@pytest.fixture
def tasks(label_studio: StudioClient, project: int) -> list[int]:
    return label_studio.import_tasks(project, [{"data": {"image": f"/data/upload/0/{n}.png"}} for n in range(5)])


@pytest.fixture
def image_file(tmp_path: Path) -> Path:
    path = tmp_path / "a grün.png"
    Image.fromarray(np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)).save(path)
    return path


def predict(client: StudioClient, project: int, tasks: list[int], version: str, score: float = 0.5) -> int:
    rows = [{"task": task, "result": [region()], "score": score, "model_version": version} for task in tasks]
    return client.import_predictions(project, rows)


def data_manager_action(client: StudioClient, project: int, name: str, tasks: list[int]) -> None:
    selected = {"selectedItems": {"all": False, "included": tasks}, "project": project}
    client.transport.json("POST", "/api/dm/actions/", params={"project": project, "id": name}, json=selected)


class TestChanges:
    """Which events move a task's updated_at."""

    @pytest.fixture
    def moved(self, label_studio: StudioClient, project: int) -> Callable[[Callable[[], Any]], list[int]]:
        def during(call: Callable[[], Any]) -> list[int]:
            before = {task["id"]: task["updated_at"] for task in label_studio.changed_tasks(project, None)}
            since = max(before.values())
            call()
            found = label_studio.changed_tasks(project, since)
            return [task["id"] for task in found if task["updated_at"] != before.get(task["id"])]

        return during

    def test_annotations(self, label_studio: StudioClient, tasks: list[int], moved: Moved) -> None:
        task, made = tasks[1], []
        assert moved(lambda: made.append(label_studio.submit_annotation(task, [region()], 2.5))) == [task]
        annotation = made[-1]["id"]
        assert moved(lambda: label_studio.update_annotation(annotation, result=[])) == [task]
        assert moved(lambda: label_studio.update_annotation(annotation, ground_truth=True)) == [task]
        assert moved(lambda: label_studio.delete_annotation(annotation)) == [task]

    def test_skips_and_the_three_ways_to_take_them_back(
        self, label_studio: StudioClient, tasks: list[int], moved: Moved
    ) -> None:
        task, made = tasks[2], []

        def skip() -> None:
            made.append(label_studio.skip_task(task)["id"])

        assert moved(skip) == [task]
        assert moved(lambda: label_studio.delete_annotation(made[-1])) == [task]
        assert moved(skip) == [task]
        # the editor's button
        draft = f"/api/annotations/{made[-1]}/convert-to-draft"
        assert moved(lambda: label_studio.transport.json("POST", draft)) == [task]
        assert moved(skip) == [task]
        assert moved(lambda: label_studio.update_annotation(made[-1], was_cancelled=False)) == [task]

    def test_tasks(self, label_studio: StudioClient, project: int, tasks: list[int], moved: Moved) -> None:
        path = f"/api/tasks/{tasks[0]}/"
        data = {"data": {"image": "/data/upload/0/other.png"}}
        assert moved(lambda: label_studio.transport.json("PATCH", path, json=data)) == [tasks[0]]
        made: list[list[int]] = []
        assert moved(lambda: made.append(label_studio.import_tasks(project, [{"data": {"image": "x"}}]))) == made[0]

    def test_bulk_actions(self, label_studio: StudioClient, project: int, tasks: list[int], moved: Moved) -> None:
        predict(label_studio, project, tasks[:3], "v-1")
        label_studio.update_project(project, model_version="v-1")
        create = "predictions_to_annotations"
        changed = moved(lambda: data_manager_action(label_studio, project, create, tasks[:3]))
        assert sorted(changed) == tasks[:3]
        delete = "delete_tasks_annotations"
        changed = moved(lambda: data_manager_action(label_studio, project, delete, tasks[:3]))
        assert sorted(changed) == tasks[:3]

    def test_predictions_and_drafts_are_no_changes(
        self, label_studio: StudioClient, project: int, tasks: list[int], moved: Moved
    ) -> None:
        assert moved(lambda: predict(label_studio, project, tasks, "v-1")) == []
        assert moved(lambda: label_studio.delete_model_version(project, "v-1")) == []
        draft = {"result": [region()], "lead_time": 1}
        path = f"/api/tasks/{tasks[0]}/drafts"
        assert moved(lambda: label_studio.transport.json("POST", path, json=draft)) == []

    def test_the_cursor_stays_behind_the_last_minute(self, label_studio: StudioClient, project: int) -> None:
        label_studio.import_tasks(project, [{"data": {"image": "x"}}])
        (task,) = label_studio.changed_tasks(project, None)
        assert label_studio.settled() < task["updated_at"]
        assert [task["id"]] == [found["id"] for found in label_studio.changed_tasks(project, label_studio.settled())]


class TestLists:
    def test_what_a_task_holds(self, label_studio: StudioClient, project: int, tasks: list[int]) -> None:
        predict(label_studio, project, tasks[:2], "v-1", 0.25)
        parent = label_studio.task(tasks[0])["predictions"][0]["id"]
        first = label_studio.submit_annotation(tasks[0], [region()], 2.5, parent_prediction=parent)
        label_studio.skip_task(tasks[1])
        found = {task["id"]: task for task in label_studio.changed_tasks(project, None)}
        assert list(found) == [*tasks[2:], *tasks[:2]]
        task = found[tasks[0]]
        assert task["data"] == {"image": "/data/upload/0/0.png"}
        assert (task["total_annotations"], task["cancelled_annotations"]) == (1, 0)
        without_pixels = region() | {"value": {"format": "", "rle": [], "brushlabels": ["cell"]}}
        (prediction,) = task["predictions"]
        assert prediction == {"id": parent, "model_version": "v-1", "score": 0.25, "result": [without_pixels]}
        (annotation,) = task["annotations"]
        assert annotation["id"] == first["id"]
        assert annotation["result"] == [region()]
        assert annotation["parent_prediction"] == parent
        assert annotation["lead_time"] == 2.5
        assert annotation["completed_by"] == label_studio.whoami()["id"]
        assert (annotation["was_cancelled"], annotation["ground_truth"]) == (False, False)
        assert annotation["created_at"] <= annotation["updated_at"] <= task["updated_at"]
        skipped = found[tasks[1]]
        assert (skipped["total_annotations"], skipped["cancelled_annotations"]) == (0, 1)
        assert [row["was_cancelled"] for row in skipped["annotations"]] == [True]
        assert list(label_studio.tasks(project, [tasks[0], 10**9])) == [task]

    @pytest.mark.parametrize("page_size", [1, 2, 3])
    def test_pages_lose_nothing(
        self, label_studio: StudioClient, project: int, tasks: list[int], page_size: int
    ) -> None:
        found = [task["id"] for task in label_studio.changed_tasks(project, None, page_size)]
        assert sorted(found) == tasks
        later = [task["id"] for task in label_studio.changed_tasks(project, None, 100)]
        assert found == later

    def test_tasks_that_changed_at_one_moment(self, label_studio: StudioClient, project: int, tasks: list[int]) -> None:
        for task in tasks:
            label_studio.submit_annotation(task, [], 1.0)
        data_manager_action(label_studio, project, "delete_tasks_annotations", tasks)  # one moment for all
        found = list(label_studio.changed_tasks(project, None, 2))
        assert len({task["updated_at"] for task in found}) == 1
        assert [task["id"] for task in found] == tasks

    def test_all_ids(self, label_studio: StudioClient, project: int, tasks: list[int]) -> None:
        assert label_studio.task_ids(project) == tasks
        data_manager_action(label_studio, project, "delete_tasks", tasks[:1])
        assert label_studio.task_ids(project) == tasks[1:]
        assert label_studio.project(project)["task_number"] == 4

    def test_versions_are_told_apart(self, label_studio: StudioClient, project: int, tasks: list[int]) -> None:
        assert predict(label_studio, project, tasks[:2], "nextmask-7.2") == 2
        assert predict(label_studio, project, tasks[1:4], "nextmask-7.21") == 3
        # the list of one task's versions grows beyond what the host shows
        many = [{"task": tasks[1], "result": [], "score": 0.5, "model_version": f"nextmask-8.{n}"} for n in range(60)]
        label_studio.import_predictions(project, many)
        assert label_studio.tasks_with_prediction(project, "nextmask-7.2") == set(tasks[:2])
        assert label_studio.tasks_with_prediction(project, "nextmask-7.21") == set(tasks[1:4])
        assert label_studio.tasks_with_prediction(project, "nextmask-8.59") == {tasks[1]}
        assert label_studio.tasks_with_prediction(project, "nextmask-7") == set()
        assert label_studio.model_versions(project)["nextmask-7.21"] == 3
        assert label_studio.delete_model_version(project, "nextmask-7.2") == 2
        assert label_studio.delete_model_version(project, "nextmask-7.2") == 0
        assert label_studio.tasks_with_prediction(project, "nextmask-7.2") == set()

    def test_the_queue_ends_with_none(self, label_studio: StudioClient, project: int) -> None:
        assert label_studio.next_task(project) is None
        (task,) = label_studio.import_tasks(project, [{"data": {"image": "x"}}])
        served = label_studio.next_task(project)
        assert served is not None
        assert served["id"] == task
        label_studio.submit_annotation(task, [], 1.0)
        assert label_studio.next_task(project) is None
        with pytest.raises(LabelStudioNotFound):
            label_studio.next_task(10**9)


class TestPredictions:
    def test_the_count_tells_what_was_imported(
        self, label_studio: StudioClient, project: int, tasks: list[int]
    ) -> None:
        # The invalid score is dropped without a word; with the memory-efficient import nothing is checked and it stays.
        rows = [{"task": tasks[0], "result": [], "score": score, "model_version": "v-1"} for score in (0.5, 1.5)]
        created = label_studio.import_predictions(project, rows)
        found = label_studio.transport.json("GET", "/api/predictions/", params={"task": tasks[0]})
        assert len(found) == created
        assert created in {1, 2}
        assert 0.5 in [row["score"] for row in found]

    def test_one_task_that_is_gone_refuses_all_rows(
        self, label_studio: StudioClient, project: int, tasks: list[int]
    ) -> None:
        with pytest.raises(LabelStudioError, match=r"invalid .*task.* field") as caught:
            predict(label_studio, project, [tasks[0], 10**9], "v-1")
        assert caught.value.status == 400
        assert label_studio.tasks_with_prediction(project, "v-1") == set()

    def test_a_version_without_predictions_cannot_be_shown(
        self, label_studio: StudioClient, project: int, tasks: list[int]
    ) -> None:
        with pytest.raises(LabelStudioError, match="model_version") as caught:
            label_studio.update_project(project, model_version="v-1")
        assert caught.value.status == 400
        predict(label_studio, project, tasks, "v-1")
        assert label_studio.update_project(project, model_version="v-1")["model_version"] == "v-1"


class TestConnections:
    def test_webhooks(self, label_studio: StudioClient, project: int) -> None:
        hook = label_studio.add_webhook(
            project=project,
            url="http://127.0.0.1:9/webhook",
            send_payload=True,
            send_for_all_actions=False,
            actions=["ANNOTATION_CREATED"],
            headers={"X-Nextmask-Secret": "one"},
        )
        label_studio.update_webhook(hook["id"], actions=["TASKS_CREATED"], headers={"X-Nextmask-Secret": "two"})
        (found,) = label_studio.webhooks(project)
        assert found["actions"] == ["TASKS_CREATED"]
        assert found["headers"] == {"X-Nextmask-Secret": "two"}
        label_studio.delete_webhook(hook["id"])
        assert label_studio.webhooks(project) == []

    def test_tabs(self, label_studio: StudioClient, project: int) -> None:
        data = {"title": "Queue", "type": "list", "target": "tasks", "ordering": ["tasks:predictions_score"]}
        view = label_studio.add_view(project, data)
        label_studio.update_view(view["id"], project, {**data, "ordering": ["-tasks:predictions_score"]})
        (found,) = label_studio.views(project)
        assert found["data"]["ordering"] == ["-tasks:predictions_score"]
        label_studio.delete_view(view["id"])
        assert label_studio.views(project) == []

    def test_the_installation(self, label_studio: StudioClient, project: int) -> None:
        assert label_studio.release().count(".") == 2
        assert project in [row["id"] for row in label_studio.projects()]
        assert label_studio.ml_backends(project) == []


class TestFiles:
    def test_uploads_come_back(
        self, label_studio: StudioClient, project: int, image_file: Path, tmp_path: Path
    ) -> None:
        (task,) = label_studio.upload_images(project, [image_file])
        (found,) = label_studio.tasks(project, [task])
        reference = found["data"]["image"]
        assert reference.startswith("/data/upload/")
        with label_studio.fetch(reference) as chunks:
            assert b"".join(chunks) == image_file.read_bytes()
        cache = ImageCache(
            tmp_path / "cache", label_studio.fetch, max_bytes=10**6, max_image_bytes=10**6, max_pixels=10**6
        )
        np.testing.assert_array_equal(cache.load(reference), np.asarray(Image.open(image_file)))

    def test_more_files_than_the_host_takes_at_once(
        self, label_studio: StudioClient, project: int, image_file: Path
    ) -> None:
        assert len(set(label_studio.upload_images(project, [image_file] * 101))) == 101

    @pytest.mark.parametrize("reference", ["/data/upload/1/nothing.png", "/data/local-files/?d=nothing.png"])
    def test_what_is_not_there(self, label_studio: StudioClient, reference: str) -> None:
        with pytest.raises(ImageError, match=r"not found|no longer exist"), label_studio.fetch(reference):
            pass


class TestTokens:
    def test_a_wrong_token_is_refused_with_advice(self, label_studio: StudioClient) -> None:
        with pytest.raises(LabelStudioRefused, match="does not know the legacy token"):
            StudioClient(label_studio.transport.url, "1" * 40).whoami()
        with pytest.raises(ConfigurationError, match="no personal access token"):
            StudioClient(label_studio.transport.url, "a.b.c")

    def test_a_personal_access_token(self, label_studio: StudioClient, project: int, image_file: Path) -> None:
        try:
            personal = label_studio.transport.json("POST", "/api/token/")["token"]
        except LabelStudioError as error:
            if error.status != 409:
                raise
            pytest.skip("this user has a personal access token already, and can have only one")
        try:
            client = StudioClient(label_studio.transport.url, personal)
            assert client.whoami()["id"] == label_studio.whoami()["id"]
            (task,) = client.upload_images(project, [image_file])
            (found,) = client.tasks(project, [task])
            with client.fetch(found["data"]["image"]) as chunks:
                assert b"".join(chunks) == image_file.read_bytes()
        finally:
            label_studio.transport.json("POST", "/api/token/blacklist/", json={"refresh": personal})
        with pytest.raises(LabelStudioRefused, match="blacklisted"):
            StudioClient(label_studio.transport.url, personal).whoami()
