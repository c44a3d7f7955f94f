"""doctor against a real Label Studio that has each fault; what it names mends it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

import pytest
from faulty_proxy import Answer, Call, FaultyProxy, Handler, answer
from support import PASSWORD, USER, Nextmask, Studio, wait_for

from ml_backend.datasets import Dataset
from ml_backend.doctor import Finding, installation, project
from ml_backend.doctor import label_studio as host
from ml_backend.label_studio import LabelStudio
from ml_backend.projects.registration import SECRET_HEADER, webhook_secret
from ml_backend.projects.services import open_services
from ml_backend.projects.signs_of_life import last_sign
from ml_backend.settings import Settings, load_settings
from ml_backend.worker.worker import Worker

pytestmark = pytest.mark.live

NO_COLOURS = """<View><Image name="image" value="$image"/>
<BrushLabels name="mask" toName="image"><Label value="disc"/><Label value="square"/></BrushLabels></View>"""
CHOICES = """<View><Image name="image" value="$image"/>
<Choices name="kind" toName="image"><Choice value="disc"/><Choice value="square"/></Choices></View>"""


@dataclass
class Connected:
    """A project that is connected to a nextmask without a worker, so that no fault is mended meanwhile."""

    nextmask: Nextmask
    client: LabelStudio
    id: int

    def findings(self) -> list[Finding]:
        store, settings = self.nextmask.services.store, self.nextmask.settings
        facts = project.read(self.client, self.id, store.project(self.id), settings)
        secret = webhook_secret(self.nextmask.services.settings, self.nextmask.services.store)
        return list(project.judge_project(facts, settings, secret, fast_import=True))

    def faults(self) -> list[tuple[str, str]]:
        return [(one.check, one.level) for one in self.findings() if one.level not in ("ok", "note")]

    def webhook(self) -> dict[str, Any]:
        (row,) = self.client.webhooks(self.id)
        return row

    def change_webhook(self, **fields: Any) -> None:
        row = self.webhook()
        self.client.update_webhook(row["id"], **{"actions": row["actions"], **fields})

    def backend(self) -> dict[str, Any]:
        return self.client.ml_backends(self.id)[0]

    def mend(self) -> None:
        """As the findings say: connect, and a look of the worker."""
        self.nextmask.connect(self.id, strategy="random")
        self.look()

    def look(self) -> None:
        Worker(self.nextmask.services).run_once(only=self.id)


@pytest.fixture(scope="module")
def connected(
    make_module_nextmask: Callable[..., Nextmask],
    label_studio: LabelStudio,
    make_module_project: Callable[..., int],
    shapes: Dataset,
) -> Connected:
    nextmask = make_module_nextmask("--no-worker")
    found = Connected(nextmask, label_studio, make_module_project(images=3, dataset=shapes))
    found.mend()
    wait_for(lambda: not found.faults(), name="a healthy project")
    return found


def second_webhook(one: Connected) -> None:
    row = one.webhook()
    fields = {name: row[name] for name in ("url", "headers", "actions", "send_payload", "send_for_all_actions")}
    one.client.add_webhook(project=one.id, **fields)


LOGIN = {"auth_method": "BASIC_AUTH", "basic_auth_user": USER, "basic_auth_pass": PASSWORD}


def second_backend(one: Connected) -> None:
    one.client.add_ml_backend(project=one.id, url=one.nextmask.url, title="again", **LOGIN)


def invalid_params(one: Connected) -> None:
    row = one.backend()
    params = {"train_after": "soon"}
    one.client.update_ml_backend(row["id"], project=one.id, url=row["url"], extra_params=params, **LOGIN)


def remove_predictions(one: Connected) -> None:
    for task in one.client.task_ids(one.id):
        for row in one.client.transport.json("GET", "/api/predictions/", params={"task": task}):
            one.client.transport.json("DELETE", f"/api/predictions/{row['id']}/")


Fault = Callable[[Connected], Any]
FAULTS: dict[str, tuple[Fault, str, str, str]] = {
    "no webhook": (lambda one: one.client.delete_webhook(one.webhook()["id"]), "webhook", "problem", "no webhook"),
    "two webhooks": (second_webhook, "webhook", "problem", "2 webhooks"),
    "inactive webhook": (lambda one: one.change_webhook(is_active=False), "webhook", "problem", "inactive"),
    "webhook without secret": (
        lambda one: one.change_webhook(headers={}),
        "webhook",
        "problem",
        "no header X-Nextmask",
    ),
    "webhook with another secret": (
        lambda one: one.change_webhook(headers={SECRET_HEADER: "of another MODEL_DIR"}),
        "webhook",
        "problem",
        "not the secret of this MODEL_DIR",
    ),
    "webhook to another address": (
        lambda one: one.change_webhook(url="http://127.0.0.1:9/webhook"),
        "webhook",
        "problem",
        "leads to http://127.0.0.1:9/webhook",
    ),
    "webhook for too little": (
        lambda one: one.change_webhook(actions=["TASKS_CREATED"]),
        "webhook",
        "problem",
        "not sent for ANNOTATION_CREATED",
    ),
    "webhook for all": (lambda one: one.change_webhook(send_for_all_actions=True), "webhook", "problem", "every event"),
    "sampling": (
        lambda one: one.client.update_project(one.id, sampling="Sequential sampling"),
        "sampling",
        "problem",
        "'Sequential sampling'",
    ),
    "predictions hidden": (
        lambda one: one.client.update_project(one.id, show_collab_predictions=False),
        "predictions",
        "problem",
        "show_collab_predictions is off",
    ),
    "no model version": (
        lambda one: one.client.update_project(one.id, model_version=""),
        "model version",
        "problem",
        "is not set; it should be nextmask-0.",
    ),
    "model version is a title": (
        lambda one: one.client.update_project(one.id, model_version="nextmask"),
        "model version",
        "problem",
        "the title of a model",
    ),
    "model version without predictions": (remove_predictions, "model version", "problem", "no prediction is of that"),
    "labels without colours": (
        lambda one: one.client.update_project(one.id, label_config=NO_COLOURS),
        "colours",
        "warning",
        "no colour of their own",
    ),
    "two registrations": (second_backend, "backend", "problem", "registered 2 times"),
    "invalid extra_params": (invalid_params, "settings", "problem", "NEXTMASK_TRAIN_AFTER = 'soon'"),
    "no tab": (
        lambda one: [one.client.delete_view(view["id"]) for view in one.client.views(one.id)],
        "tab",
        "warning",
        "'Priority queue' is gone",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_and_what_is_named_mends_it(connected: Connected, name: str) -> None:
    fault, check, level, words = FAULTS[name]
    fault(connected)
    found = [one for one in connected.findings() if one.check == check and one.level == level]
    assert any(words in one.found for one in found), connected.findings()
    assert all(one.why and one.remedy.startswith(("nextmask connect", "nextmask serve")) for one in found)
    if name == "invalid extra_params":  # connect refuses them, too: the value is taken back
        connected.nextmask.connect(connected.id, train_after=None, strategy="random")
    connected.mend()
    wait_for(lambda: not connected.faults(), seconds=60, name=f"a healthy project: {connected.faults()}")


def test_several_annotations_per_task_beat_the_ranking(connected: Connected) -> None:
    connected.client.update_project(connected.id, maximum_annotations=2)
    (found,) = [one for one in connected.findings() if one.check == "annotations"]
    assert found.level == "warning"
    assert "asks for 2 annotations per task" in found.found
    connected.client.update_project(connected.id, maximum_annotations=1)
    assert connected.faults() == []


def test_a_strategy_for_regions_without_their_control(connected: Connected) -> None:
    connected.nextmask.connect(connected.id, strategy="cereals")
    assert ("regions", "warning") in connected.faults()
    connected.mend()
    assert connected.faults() == []


def test_another_model_stands_first(connected: Connected) -> None:
    connected.client.delete_ml_backend(connected.backend()["id"])
    with FaultyProxy(connected.nextmask.url) as other:
        first = connected.client.add_ml_backend(project=connected.id, url=other.url, title="other", **LOGIN)
        connected.mend()
        found = [one.found for one in connected.findings() if one.level == "problem"]
        assert found == [f"{other.url} (other) stands before nextmask"]
        connected.client.delete_ml_backend(first["id"])
        for row in connected.client.webhooks(connected.id):
            if row["url"].startswith(other.url):
                connected.client.delete_webhook(row["id"])
    assert connected.faults() == []


def test_projects_that_cannot_serve(
    connected: Connected, label_studio: LabelStudio, make_project: Callable[..., int], shapes: Dataset
) -> None:
    other = Connected(connected.nextmask, label_studio, make_project(images=0, xml=CHOICES, dataset=shapes))
    levels = {(one.check, one.level): one for one in other.findings()}
    assert "not connected from here" in levels["connection", "problem"].found
    assert "not registered" in levels["backend", "problem"].found
    assert "no control that holds a segmentation mask" in levels["labels", "problem"].found
    missing = project.missing_project(label_studio, 10**6)
    assert missing.level == "problem"
    assert str(other.id) in missing.remedy


@pytest.mark.parametrize(
    ("reference", "words", "remedy"),
    [
        ("/data/local-files/?d=nowhere/1.png", "cannot be fetched", "Local Files storage"),
        ("/data/upload/1/gone.png", "no longer exist", "Upload the images again"),
        ("s3://bucket/1.png", "cannot be fetched", "settings/storage"),
        ("http://127.0.0.1:9/1.png", "cannot be fetched", "curl -I 'http://127.0.0.1:9/1.png'"),
    ],
)
def test_images_that_cannot_be_had(
    connected: Connected,
    label_studio: LabelStudio,
    make_project: Callable[..., int],
    shapes: Dataset,
    reference: str,
    words: str,
    remedy: str,
) -> None:
    number = make_project(images=1, dataset=shapes)
    facts = project.read(label_studio, number, None, connected.nextmask.settings)
    assert [one.level for one in project.judge_images(label_studio, facts)] == ["ok"]
    label_studio.import_tasks(number, [{"data": {"image": reference}}])
    (found,) = project.judge_images(label_studio, facts)
    assert found.level == "problem"
    assert "1 of 2 images" in found.found
    assert words in found.found
    assert remedy in found.remedy


# -- the address -----------------------------------------------------------------------------------------------------
def judged(url: str) -> Finding:
    settings = load_settings(label_studio_url=url)
    return host.judge_address(settings, host.ask(settings.label_studio_url))


def test_wrong_addresses(studio: Studio, serving: Nextmask) -> None:
    assert judged(studio.url).level == "ok"
    closed = judged("http://127.0.0.1:9")
    assert "nothing listens" in closed.found
    unknown = judged("http://label-studio.invalid:8080")
    assert "host name is not known" in unknown.found
    tls = judged(studio.url.replace("http://", "https://"))
    assert "does not speak https" in tls.found
    assert tls.remedy == f"Set LABEL_STUDIO_URL={studio.url}"
    beyond = judged(f"{studio.url}/label-studio")
    assert "is not Label Studio" in beyond.found
    assert beyond.remedy == f"Set LABEL_STUDIO_URL={studio.url}"
    ours = judged(serving.url)
    assert "the address of nextmask itself" in ours.found
    assert {one.level for one in (closed, unknown, tls, beyond, ours)} == {"problem"}


def test_redirects_and_path_prefixes(studio: Studio) -> None:
    with FaultyProxy(studio.url) as proxy:
        proxy.fault(answer(301, Location=f"{studio.url}/api/version"))
        moved = judged(proxy.url)
        assert "redirects" in moved.found
        assert moved.remedy.endswith(studio.url)
    with FaultyProxy(studio.url) as proxy:

        def below(handler: Handler) -> None:
            """As a proxy that serves Label Studio below /studio."""
            path = handler.call.path
            if path == "/":
                handler.send(Answer(302, b"", (("Location", "/studio/user/login/"),)))
            elif path.startswith("/studio/"):
                call = Call(handler.call.method, path.removeprefix("/studio"), b"", handler.call.headers)
                handler.send(handler.forward(call))
            else:
                handler.send(Answer(404, b"not here"))

        proxy.fault(below)
        assert judged(f"{proxy.url}/studio").level == "ok"
        found = judged(proxy.url)
        assert (found.level, found.remedy) == ("problem", f"Set LABEL_STUDIO_URL={proxy.url}/studio")


def test_a_clock_that_is_wrong(studio: Studio) -> None:
    with FaultyProxy(studio.url) as proxy:

        def fast(handler: Handler) -> None:
            found = handler.forward()
            kept = tuple(pair for pair in found.headers if pair[0].lower() != "date")
            handler.date_time_string = lambda *_: formatdate(time.time() + 600, usegmt=True)  # type: ignore[method-assign]
            handler.send(Answer(found.status, found.body, kept))

        assert host.judge_clock(host.ask(proxy.url).apart).level == "ok"
        proxy.fault(fast)
        found = host.judge_clock(host.ask(proxy.url).apart)
        assert found.level == "warning"
        assert "ahead of" in found.found


def test_the_release_that_is_tested(studio: Studio) -> None:
    assert host.judge_release(host.ask(studio.url).release).level == "ok"


# -- the server ------------------------------------------------------------------------------------------------------
def judge_server(nextmask: Nextmask, **changes: Any) -> Finding:
    settings: Settings = nextmask.settings.model_copy(update=changes)
    secret = webhook_secret(nextmask.services.settings, nextmask.services.store)
    found = list(installation.judge_server(settings, nextmask.services.store, secret, patience=30))
    return found[0]


def test_a_server_of_another_installation(connected: Connected, serving: Nextmask) -> None:
    assert judge_server(connected.nextmask).level == "ok"
    # The other one has the same password, and another MODEL_DIR.
    other = judge_server(connected.nextmask, backend_url=serving.url)
    assert (other.level, "does not know the webhook secret" in other.found) == ("problem", True)
    (refused,) = installation.judge_server(
        serving.settings.model_copy(update={"basic_auth_user": "someone"}), None, "", patience=30
    )
    assert "refuses these BASIC_AUTH_USER" in refused.found
    behind = judge_server(connected.nextmask, backend_url="http://127.0.0.1:9")
    assert behind.level == "note"


def test_without_a_worker_that_is_said(connected: Connected, serving: Nextmask) -> None:
    alone, store = connected.nextmask.services.store, serving.services.store
    found = installation.judge_worker(alone.projects(), last_sign(alone))
    assert found.level == "problem"
    assert "No worker has run yet" in found.found

    def judged() -> Finding:
        return installation.judge_worker(store.projects(), last_sign(store))

    wait_for(lambda: judged().level == "ok", name="a sign of life")


def test_a_nextmask_that_is_down_or_has_another_password(connected: Connected) -> None:
    """Last: it stops the nextmask of this module."""
    nextmask = connected.nextmask
    nextmask.stop()
    found = next(one for one in connected.findings() if one.check == "backend")
    assert found.level == "problem"
    assert "cannot reach nextmask" in found.found
    assert "curl" in found.remedy
    assert "connection refused" in judge_server(nextmask).found
    nextmask.settings = load_settings(**{**nextmask.settings.model_dump(), "basic_auth_pass": "changed"})
    nextmask.close()
    nextmask.services = open_services(nextmask.settings)
    nextmask.start()
    wait_for(lambda: [one for one in connected.findings() if "another password" in one.found], name="the refusal")
    connected.mend()
    wait_for(lambda: not connected.faults(), name="a healthy project")
