"""doctor against a real Label Studio that has each fault; what it names mends it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

import pytest
from faulty_proxy import Answer, Call, FaultyProxy, Handler, answer
from processes import wait_for
from support import PASSWORD, USER, Nextmask, Studio

from ml_backend.datasets import Dataset
from ml_backend.doctor import Finding
from ml_backend.doctor.installation.server import check_server
from ml_backend.doctor.installation.worker import check_worker
from ml_backend.doctor.label_studio.address import ask, check_address, check_clock
from ml_backend.doctor.label_studio.release import check_release
from ml_backend.doctor.project.facts import read_facts
from ml_backend.doctor.project.images import check_images
from ml_backend.doctor.project.summary import check_project, missing_project
from ml_backend.label_studio import LabelStudio
from ml_backend.projects.registration import SECRET_HEADER, webhook_secret
from ml_backend.projects.services import open_services
from ml_backend.projects.signs_of_life import workers
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
        facts = read_facts(self.client, self.id, store.project(self.id), settings)
        secret = webhook_secret(self.nextmask.services.settings, self.nextmask.services.store)
        return list(check_project(facts, settings, secret, fast_import=True))

    def faults(self) -> list[tuple[str, str]]:
        return [(finding.check, finding.level) for finding in self.findings() if finding.level not in ("ok", "note")]

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
    project = Connected(nextmask, label_studio, make_module_project(images=3, dataset=shapes))
    project.mend()
    wait_for(lambda: not project.faults(), name="a healthy project")
    return project


def second_webhook(connected: Connected) -> None:
    row = connected.webhook()
    fields = {name: row[name] for name in ("url", "headers", "actions", "send_payload", "send_for_all_actions")}
    connected.client.add_webhook(project=connected.id, **fields)


LOGIN = {"auth_method": "BASIC_AUTH", "basic_auth_user": USER, "basic_auth_pass": PASSWORD}


def second_backend(connected: Connected) -> None:
    connected.client.add_ml_backend(project=connected.id, url=connected.nextmask.url, title="again", **LOGIN)


def invalid_params(connected: Connected) -> None:
    row = connected.backend()
    params = {"train_after": "soon"}
    connected.client.update_ml_backend(row["id"], project=connected.id, url=row["url"], extra_params=params, **LOGIN)


def remove_predictions(connected: Connected) -> None:
    for task in connected.client.task_ids(connected.id):
        for row in connected.client.transport.json("GET", "/api/predictions/", params={"task": task}):
            connected.client.transport.json("DELETE", f"/api/predictions/{row['id']}/")


Fault = Callable[[Connected], Any]
FAULTS: dict[str, tuple[Fault, str, str, str]] = {
    "no webhook": (
        lambda connected: connected.client.delete_webhook(connected.webhook()["id"]),
        "webhook",
        "problem",
        "no webhook",
    ),
    "two webhooks": (second_webhook, "webhook", "problem", "2 webhooks"),
    "inactive webhook": (lambda connected: connected.change_webhook(is_active=False), "webhook", "problem", "inactive"),
    "webhook without secret": (
        lambda connected: connected.change_webhook(headers={}),
        "webhook",
        "problem",
        "no header X-Nextmask",
    ),
    "webhook with another secret": (
        lambda connected: connected.change_webhook(headers={SECRET_HEADER: "of another MODEL_DIR"}),
        "webhook",
        "problem",
        "not the secret of this MODEL_DIR",
    ),
    "webhook to another address": (
        lambda connected: connected.change_webhook(url="http://127.0.0.1:9/webhook"),
        "webhook",
        "problem",
        "leads to http://127.0.0.1:9/webhook",
    ),
    "webhook for too little": (
        lambda connected: connected.change_webhook(actions=["TASKS_CREATED"]),
        "webhook",
        "problem",
        "not sent for ANNOTATION_CREATED",
    ),
    "webhook for all": (
        lambda connected: connected.change_webhook(send_for_all_actions=True),
        "webhook",
        "problem",
        "every event",
    ),
    "sampling": (
        lambda connected: connected.client.update_project(connected.id, sampling="Sequential sampling"),
        "sampling",
        "problem",
        "'Sequential sampling'",
    ),
    "predictions hidden": (
        lambda connected: connected.client.update_project(connected.id, show_collab_predictions=False),
        "predictions",
        "problem",
        "show_collab_predictions is off",
    ),
    "no model version": (
        lambda connected: connected.client.update_project(connected.id, model_version=""),
        "model version",
        "problem",
        "is not set; it should be nextmask-0.",
    ),
    "model version is a title": (
        lambda connected: connected.client.update_project(connected.id, model_version="nextmask"),
        "model version",
        "problem",
        "the title of a model",
    ),
    "model version without predictions": (remove_predictions, "model version", "problem", "no prediction is of that"),
    "labels without colours": (
        lambda connected: connected.client.update_project(connected.id, label_config=NO_COLOURS),
        "colours",
        "warning",
        "no colour of their own",
    ),
    "two registrations": (second_backend, "backend", "problem", "registered 2 times"),
    "invalid extra_params": (invalid_params, "settings", "problem", "NEXTMASK_TRAIN_AFTER = 'soon'"),
    "no tab": (
        lambda connected: [connected.client.delete_view(view["id"]) for view in connected.client.views(connected.id)],
        "tab",
        "warning",
        "'Priority queue' is gone",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_and_what_is_named_mends_it(connected: Connected, name: str) -> None:
    fault, check, level, words = FAULTS[name]
    fault(connected)
    findings = [finding for finding in connected.findings() if finding.check == check and finding.level == level]
    assert any(words in finding.message for finding in findings), connected.findings()
    assert all(
        finding.why and finding.remedy.startswith(("nextmask connect", "nextmask serve")) for finding in findings
    )
    if name == "invalid extra_params":  # connect refuses them, too: the value is taken back
        connected.nextmask.connect(connected.id, train_after=None, strategy="random")
    connected.mend()
    wait_for(lambda: not connected.faults(), seconds=60, name=f"a healthy project: {connected.faults()}")


def test_several_annotations_per_task_beat_the_ranking(connected: Connected) -> None:
    connected.client.update_project(connected.id, maximum_annotations=2)
    (finding,) = [finding for finding in connected.findings() if finding.check == "annotations"]
    assert finding.level == "warning"
    assert "asks for 2 annotations per task" in finding.message
    connected.client.update_project(connected.id, maximum_annotations=1)
    assert connected.faults() == []


def test_a_strategy_for_regions_without_their_control(connected: Connected) -> None:
    connected.nextmask.connect(connected.id, strategy="cereals")
    assert ("questions", "warning") in connected.faults()
    connected.mend()
    assert connected.faults() == []


def test_another_model_stands_first(connected: Connected) -> None:
    connected.client.delete_ml_backend(connected.backend()["id"])
    with FaultyProxy(connected.nextmask.url) as other:
        first = connected.client.add_ml_backend(project=connected.id, url=other.url, title="other", **LOGIN)
        connected.mend()
        messages = [finding.message for finding in connected.findings() if finding.level == "problem"]
        assert messages == [f"{other.url} (other) stands before nextmask"]
        connected.client.delete_ml_backend(first["id"])
        for row in connected.client.webhooks(connected.id):
            if row["url"].startswith(other.url):
                connected.client.delete_webhook(row["id"])
    assert connected.faults() == []


def test_projects_that_cannot_serve(
    connected: Connected, label_studio: LabelStudio, make_project: Callable[..., int], shapes: Dataset
) -> None:
    other = Connected(connected.nextmask, label_studio, make_project(images=0, xml=CHOICES, dataset=shapes))
    levels = {(finding.check, finding.level): finding for finding in other.findings()}
    assert "not connected from here" in levels["connection", "problem"].message
    # That it is not connected is said once: nothing that connect sets up is missed besides.
    assert {check for check, level in levels if level == "problem"} == {"connection", "labels"}
    assert "no control that holds a segmentation mask" in levels["labels", "problem"].message
    missing = missing_project(label_studio, 10**6)
    assert missing.level == "problem"
    assert str(other.id) in missing.remedy


@pytest.mark.parametrize(
    ("reference", "words", "remedy"),
    [
        ("/data/local-files/?d=nowhere/1.png", "cannot be fetched", "Local Files storage"),
        ("/data/upload/1/gone.png", "no longer exist", "Upload the images again"),
        ("/label-studio/data/upload/1/gone.png", "no longer exist", "Upload the images again"),
        ("http://127.0.0.1:9/data/upload/1/1.png", "may not be asked", "set NEXTMASK_LABEL_STUDIO_PUBLIC_URL to its"),
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
    facts = read_facts(label_studio, number, None, connected.nextmask.settings)
    assert [finding.level for finding in check_images(label_studio, facts)] == ["ok"]
    label_studio.import_tasks(number, [{"data": {"image": reference}}])
    (finding,) = check_images(label_studio, facts)
    assert finding.level == "problem"
    assert "1 of 2 images" in finding.message
    assert words in finding.message
    assert remedy in finding.remedy


# -- the address -----------------------------------------------------------------------------------------------------
def address_finding(url: str) -> Finding:
    settings = load_settings(label_studio_url=url)
    return check_address(settings, ask(settings.label_studio_url))


def test_wrong_addresses(studio: Studio, serving: Nextmask) -> None:
    assert address_finding(studio.url).level == "ok"
    closed = address_finding("http://127.0.0.1:9")
    assert "nothing listens" in closed.message
    unknown = address_finding("http://label-studio.invalid:8080")
    assert "host name is not known" in unknown.message
    tls = address_finding(studio.url.replace("http://", "https://"))
    assert "does not speak https" in tls.message
    assert tls.remedy == f"Set LABEL_STUDIO_URL={studio.url}"
    beyond = address_finding(f"{studio.url}/label-studio")
    assert "is not Label Studio" in beyond.message
    assert beyond.remedy == f"Set LABEL_STUDIO_URL={studio.url}"
    ours = address_finding(serving.url)
    assert "the address of nextmask itself" in ours.message
    assert {finding.level for finding in (closed, unknown, tls, beyond, ours)} == {"problem"}


def test_redirects_and_path_prefixes(studio: Studio) -> None:
    with FaultyProxy(studio.url) as proxy:
        proxy.fault(answer(301, Location=f"{studio.url}/api/version"))
        moved = address_finding(proxy.url)
        assert "redirects" in moved.message
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
        assert address_finding(f"{proxy.url}/studio").level == "ok"
        finding = address_finding(proxy.url)
        assert (finding.level, finding.remedy) == ("problem", f"Set LABEL_STUDIO_URL={proxy.url}/studio")


def test_a_clock_that_is_wrong(studio: Studio) -> None:
    with FaultyProxy(studio.url) as proxy:

        def fast(handler: Handler) -> None:
            answered = handler.forward()
            kept = tuple(pair for pair in answered.headers if pair[0].lower() != "date")
            handler.date_time_string = lambda *_: formatdate(time.time() + 600, usegmt=True)  # type: ignore[method-assign]
            handler.send(Answer(answered.status, answered.body, kept))

        assert check_clock(ask(proxy.url).clock_offset).level == "ok"
        proxy.fault(fast)
        finding = check_clock(ask(proxy.url).clock_offset)
        assert finding.level == "warning"
        assert "ahead of" in finding.message


def test_the_release_that_is_tested(studio: Studio) -> None:
    assert check_release(ask(studio.url).release).level == "ok"


# -- the server ------------------------------------------------------------------------------------------------------
def server_finding(nextmask: Nextmask, **changes: Any) -> Finding:
    settings: Settings = nextmask.settings.model_copy(update=changes)
    secret = webhook_secret(nextmask.services.settings, nextmask.services.store)
    findings = list(check_server(settings, nextmask.services.store, secret, patience=30))
    return findings[0]


def test_a_server_of_another_installation(connected: Connected, serving: Nextmask) -> None:
    assert server_finding(connected.nextmask).level == "ok"
    # The other one has the same password, and another MODEL_DIR.
    other = server_finding(connected.nextmask, backend_url=serving.url)
    assert (other.level, "does not know the webhook secret" in other.message) == ("problem", True)
    (refused,) = check_server(serving.settings.model_copy(update={"basic_auth_user": "someone"}), None, "", patience=30)
    assert "refuses these BASIC_AUTH_USER" in refused.message
    behind = server_finding(connected.nextmask, backend_url="http://127.0.0.1:9")
    assert behind.level == "note"


def test_without_a_worker_that_is_said(connected: Connected, serving: Nextmask) -> None:
    alone, store = connected.nextmask.services.store, serving.services.store
    finding = check_worker(alone.projects(), workers(alone))
    assert finding.level == "problem"
    assert "No worker runs" in finding.message

    def judged() -> Finding:
        return check_worker(store.projects(), workers(store))

    wait_for(lambda: judged().level == "ok", name="a sign of life")


def test_a_nextmask_that_is_down_or_has_another_password(connected: Connected) -> None:
    """Last: it stops the nextmask of this module."""
    nextmask = connected.nextmask
    nextmask.stop()
    finding = next(finding for finding in connected.findings() if finding.check == "backend")
    assert finding.level == "problem"
    assert "cannot reach nextmask" in finding.message
    assert "curl" in finding.remedy
    assert "connection refused" in server_finding(nextmask).message
    nextmask.settings = load_settings(**{**nextmask.settings.model_dump(), "basic_auth_pass": "changed"})
    nextmask.close()
    nextmask.services = open_services(nextmask.settings)
    nextmask.start()
    wait_for(
        lambda: [finding for finding in connected.findings() if "another password" in finding.message],
        name="the refusal",
    )
    connected.mend()
    wait_for(lambda: not connected.faults(), name="a healthy project")
