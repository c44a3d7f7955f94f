"""connect and disconnect: what they find, change, mend and put back."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Any

import pytest
from processes import children, wait_for
from steps import label, predictions
from support import PASSWORD, USER, Nextmask

from ml_backend.annotations.config_edits import labels_without_colours
from ml_backend.datasets import Dataset
from ml_backend.doctor.project.facts import read_facts
from ml_backend.doctor.project.labels import check_labels
from ml_backend.errors import ConfigurationError
from ml_backend.label_studio import LabelStudio
from ml_backend.projects.connection import Connection
from ml_backend.projects.registration import SECRET_HEADER, WEBHOOK_ACTIONS, webhook_secret
from ml_backend.settings import load_settings

pytestmark = pytest.mark.live

NO_COLOURS = """<View><Image name="image" value="$image"/>
<BrushLabels name="mask" toName="image"><Label value="disc"/><Label value="square"/></BrushLabels></View>"""
FIELDS = ("sampling", "show_collab_predictions", "model_version", "label_config")


def state_of(client: LabelStudio, project: int) -> dict[str, Any]:
    """All that connect may touch."""
    found = client.project(project)
    return {
        "project": {name: found[name] for name in FIELDS},
        "backends": [(row["id"], row["url"], row["extra_params"]) for row in client.ml_backends(project)],
        "webhooks": [
            (row["id"], row["url"], row["headers"], sorted(row["actions"]), row["send_for_all_actions"])
            for row in client.webhooks(project)
        ],
        "views": [(row["id"], row["data"]) for row in client.views(project)],
    }


def ours(client: LabelStudio, project: int, nextmask: Nextmask) -> list[dict[str, Any]]:
    return [row for row in client.webhooks(project) if row["url"] == f"{nextmask.url}/webhook"]


def test_connect_mends_what_is_missing_and_disconnect_puts_all_back(
    serving: Nextmask, label_studio: LabelStudio, make_project: Callable[..., int], shapes: Dataset
) -> None:
    project = make_project(images=2, xml=NO_COLOURS, dataset=shapes)
    tasks = label_studio.task_ids(project)
    label_studio.import_predictions(project, [{"task": tasks[0], "result": [], "score": 0.5, "model_version": "own"}])
    label_studio.update_project(project, model_version="own", show_collab_predictions=False)
    label_studio.add_webhook(
        project=project, url="http://127.0.0.1:9/own", send_for_all_actions=False, actions=["TASKS_CREATED"]
    )
    label_studio.add_view(project, {"title": "Own tab", "type": "list", "target": "tasks"})
    before = state_of(label_studio, project)

    changes = serving.connect(project)
    assert len(changes) == 7, changes
    assert any("hidden from annotators: 1 of 'own'" in change for change in changes)
    serving.wait_settled(project)
    connected = state_of(label_studio, project)
    assert connected["project"]["sampling"] == "Uncertainty sampling"
    assert connected["project"]["show_collab_predictions"] is True
    assert connected["project"]["model_version"] == "nextmask-0.1"
    assert not labels_without_colours(connected["project"]["label_config"])
    assert [row[1] for row in connected["backends"]] == [serving.url]
    # Label Studio made a webhook of its own, for all events and without a secret: it is no more.
    (webhook,) = ours(label_studio, project, serving)
    assert webhook["headers"] == {SECRET_HEADER: webhook_secret(serving.services.settings, serving.services.store)}
    assert (webhook["send_for_all_actions"], set(webhook["actions"])) == (False, set(WEBHOOK_ACTIONS))

    assert serving.connect(project) == []
    serving.wait_settled(project)
    assert state_of(label_studio, project) == connected

    # Someone takes things away, or adds the backend by hand.
    label_studio.delete_webhook(webhook["id"])
    label_studio.update_project(project, sampling="Sequential sampling")
    view = next(row for row in label_studio.views(project) if row["data"]["title"] == "Priority queue")
    label_studio.delete_view(view["id"])
    assert len(serving.connect(project)) == 3
    (backend,) = label_studio.ml_backends(project)
    label_studio.delete_ml_backend(backend["id"])
    label_studio.delete_webhook(ours(label_studio, project, serving)[0]["id"])
    credentials = {"auth_method": "BASIC_AUTH", "basic_auth_user": USER, "basic_auth_pass": PASSWORD}
    label_studio.add_ml_backend(project=project, url=serving.url, title="by hand", **credentials)
    (automatic,) = ours(label_studio, project, serving)
    assert automatic["send_for_all_actions"] is True
    assert any("secret" in change for change in serving.connect(project))
    (webhook,) = ours(label_studio, project, serving)
    assert SECRET_HEADER in webhook["headers"]
    serving.wait_settled(project)
    assert label_studio.project(project)["model_version"].startswith("nextmask-0.")

    assert serving.connection(project).disconnect()
    assert state_of(label_studio, project) == before
    assert serving.connection(project).disconnect() == []
    known = serving.services.store.project(project)
    assert known
    assert not known.managed
    versions = {row["model_version"] for row in predictions(label_studio, project)}
    assert {"own", "nextmask-0.1"} <= versions  # and those of the settings of the backend that was added by hand
    assert all(version == "own" or version.startswith("nextmask-0.") for version in versions)


def test_disconnect_ends_a_training_and_stays_disconnected(
    make_nextmask: Callable[..., Nextmask], label_studio: LabelStudio, make_project: Callable[..., int], shapes: Dataset
) -> None:
    nextmask = make_nextmask()
    project = make_project(images=8, dataset=shapes)
    tasks = label_studio.task_ids(project)
    before = state_of(label_studio, project)
    nextmask.connect(project, iterations=1_000_000)
    label(label_studio, project, shapes, tasks[:4])
    wait_for(lambda: nextmask.status(project).state == "training", name="a training")
    assert nextmask.process
    (worker,) = children(nextmask.process.pid)
    wait_for(lambda: children(worker), name="a training process")

    nextmask.connection(project).disconnect()
    wait_for(lambda: not children(worker), seconds=30, name="the end of the training")
    assert state_of(label_studio, project) == before
    label(label_studio, project, shapes, tasks[4:6])
    known = nextmask.services.store.project(project)
    assert known
    assert not known.managed
    assert known.lease_owner is None

    # Connected again, it goes on where it was.
    nextmask.connect(project)
    status = nextmask.wait_for_version(project, 1)
    assert (status.labels, status.trained_labels, status.queue) == (6, 6, 2)


def test_an_address_that_label_studio_refuses_is_not_registered(
    serving: Nextmask, label_studio: LabelStudio, make_project: Callable[..., int], shapes: Dataset
) -> None:
    project = make_project(images=0, dataset=shapes)
    settings = load_settings(backend_url="http://ml-backend:9090")
    services = serving.services
    connection = Connection(settings, services.store, services.client, project)
    with pytest.raises(ConfigurationError, match=r"http://ml-backend:9090.*without a dot.*nextmask\.local"):
        connection.connect()
    assert label_studio.ml_backends(project) == []
    assert services.store.project(project) is None


def test_an_image_in_a_list_of_the_task_is_ranked(
    serving: Nextmask, label_studio: LabelStudio, make_project: Callable[..., int], shapes: Dataset
) -> None:
    uploaded = make_project(images=2, dataset=shapes)
    references = [str(task["data"]["image"]) for task in label_studio.some_tasks(uploaded, 2)]
    project = make_project(images=0, xml=NO_COLOURS.replace("$image", "$images[1]"))
    label_studio.import_tasks(project, [{"data": {"images": [one, other]}} for one, other in permutations(references)])
    serving.connect(project)
    status = serving.wait_settled(project)
    assert (status.pool, status.queue, status.errors) == (2, 2, {})


def test_what_cannot_be_prefilled_is_told_by_connect_status_and_doctor_and_mended_by_pasting(
    serving: Nextmask, label_studio: LabelStudio, make_project: Callable[..., int], shapes: Dataset
) -> None:
    boxes = NO_COLOURS.replace("BrushLabels", "RectangleLabels")
    project = make_project(images=2, xml=boxes, dataset=shapes)
    connection = serving.connection(project)
    # One is drawn: where none measures, there is another hint. auto would ask for a points control.
    connection.connect({"audit_share": 0.001, "strategy": "entropy"})
    (hint,) = connection.hints
    assert hint.cause.startswith("No mask can be pre-filled: the labelling configuration has <RectangleLabels> 'mask'")
    assert serving.wait_settled(project).hints == [str(hint)]
    facts = read_facts(label_studio, project, serving.services.store.project(project), serving.settings)
    (told,) = [finding for finding in check_labels(facts) if finding.level == "warning"]
    assert (told.message, hint.remedy in told.remedy) == (hint.cause, True)

    control = hint.remedy.partition("</View>: ")[2]
    xml = str(label_studio.project(project)["label_config"])
    label_studio.update_project(project, label_config=xml.replace("</View>", f"{control}</View>"))
    wait_for(lambda: serving.settled(project) and not serving.status(project).hints, name="the new configuration")
