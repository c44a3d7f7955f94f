"""Records what Label Studio sends to a machine learning backend, into tests/payloads/*.json.

    python tests/record_payloads.py --url http://localhost:8080 --token <token of an administrator>

Makes a project with two tiny images, connects a recording server to it as its backend, does in turn whatever makes
Label Studio call one, and deletes the project. Each file holds one request: method, path, headers and body as they
arrived, with addresses and tokens replaced. Label Studio must run with ML_BLOCK_LOCAL_IP=false and
SSRF_PROTECTION_ENABLED=false.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from servers import answering
from studio_client import StudioClient

from ml_backend.annotations import brush

PAYLOADS = Path(__file__).with_name("payloads")
LABEL_CONFIG = """<View>
  <Image name="image" value="$image"/>
  <BrushLabels name="tag" toName="image"><Label value="cell"/><Label value="nucleus"/></BrushLabels>
</View>"""
VERSION = "nextmask-1.1"
WIDTH, HEIGHT = 8, 6
USER, PASSWORD, SECRET = "nextmask", "not-a-password", "not-a-secret"  # what the backend is registered with here
LEFT_OUT = {"Host", "Connection", "Content-Length", "sentry-trace", "baggage"}  # of this run or this machine
ACTIONS = [
    "ANNOTATION_CREATED",
    "ANNOTATIONS_CREATED",
    "ANNOTATION_UPDATED",
    "ANNOTATIONS_DELETED",
    "TASKS_CREATED",
    "TASKS_DELETED",
    "PROJECT_UPDATED",
]
Recorded = dict[str, Any]


@dataclass
class Recorder:
    """A backend that answers well and keeps every request."""

    requests: list[Recorded] = field(default_factory=list)

    def answer(self, path: str, body: Any) -> Any:
        if path.startswith("/health"):
            return {"status": "UP", "model_class": "Recorder"}
        if path.startswith("/setup"):
            return {"model_version": VERSION}
        if path.startswith("/versions"):
            return {"versions": [VERSION]}
        if path.startswith("/predict"):
            return {"results": [{"result": [region()], "score": 0.5, "model_version": VERSION} for _ in body["tasks"]]}
        return {}

    @contextmanager
    def serving(self) -> Iterator[str]:
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                recorder.requests.append(
                    {"method": self.command, "path": self.path, "headers": dict(self.headers), "body": body}
                )
                answer = json.dumps(recorder.answer(self.path, body)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_POST = do_GET  # noqa: N815  # the name that http.server calls

        with answering(Handler) as address:
            yield address

    def during(self, call: Callable[[], Any], path: str, action: str | None = None) -> Recorded:
        """Do something and return the one request of interest that Label Studio sent meanwhile."""
        before = len(self.requests)
        call()
        found = [
            request
            for request in self.requests[before:]
            if request["path"].startswith(path) and (action is None or request["body"].get("action") == action)
        ]
        assert found, f"no request to {path} {action or ''}, only {[r['path'] for r in self.requests[before:]]}"
        return found[-1]


def region(label: str = "cell", **extra: Any) -> Recorded:
    """A brush region over the left half of the image."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[:, : WIDTH // 2] = 255
    value = {"format": "rle", "rle": list(brush.encode(mask)), "brushlabels": [label]}
    size = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
    return {"id": "r1", "from_name": "tag", "to_name": "image", "type": "brushlabels", **size, "value": value, **extra}


def record(client: StudioClient, recorder: Recorder, url: str, project_id: int) -> dict[str, Recorded]:
    """Make Label Studio send one request of each kind."""
    seen: dict[str, Recorded] = {}
    post = client.transport.json
    tasks = client.upload_images(project_id, _images())
    registration: Recorded = {"title": "nextmask", "is_interactive": True, "auth_method": "BASIC_AUTH"}
    registration |= {"basic_auth_user": USER, "basic_auth_pass": PASSWORD, "extra_params": {"strategy": "entropy"}}
    backend: Recorded = {}
    seen["setup"] = recorder.during(
        lambda: backend.update(client.add_ml_backend(project=project_id, url=url, **registration)), "/setup"
    )
    seen["health"] = recorder.during(lambda: client.ml_backends(project_id), "/health")
    seen["versions"] = recorder.during(lambda: post("GET", f"/api/ml/{backend['id']}/versions"), "/versions")
    hook = client.webhooks(project_id)[0]
    client.update_webhook(
        hook["id"], url=hook["url"], send_for_all_actions=False, actions=ACTIONS, headers={"X-Nextmask-Secret": SECRET}
    )

    seen["predict_single"] = recorder.during(lambda: client.task(tasks[0]), "/predict")
    client.submit_annotation(tasks[0], [region(origin="prediction")], 3.5)
    client.delete_model_version(project_id, VERSION)
    seen["predict_retrieve"] = recorder.during(
        lambda: data_manager_action(client, project_id, "retrieve_tasks_predictions", tasks), "/predict"
    )
    context = {"result": [region(origin="manual")]}
    seen["predict_interactive"] = recorder.during(
        lambda: post(
            "POST", f"/api/ml/{backend['id']}/interactive-annotating", json={"task": tasks[1], "context": context}
        ),
        "/predict",
    )
    seen |= _record_events(client, recorder, project_id, tasks[1])
    seen["webhook_start_training"] = recorder.during(
        lambda: post("POST", f"/api/ml/{backend['id']}/train", json={}), "/webhook", "START_TRAINING"
    )
    return seen


def _record_events(client: StudioClient, recorder: Recorder, project_id: int, task_id: int) -> dict[str, Recorded]:
    made: list[Any] = []
    shown = client.task(task_id)["predictions"][0]["id"]

    def event(action: str, call: Callable[[], Any]) -> Recorded:
        return recorder.during(lambda: made.append(call()), "/webhook", action)

    events = {
        "annotation_created": event(
            "ANNOTATION_CREATED",
            lambda: client.submit_annotation(task_id, [region(origin="manual")], 12.25, parent_prediction=shown),
        )
    }
    annotation_id = made[-1]["id"]
    events["annotation_updated"] = event(
        "ANNOTATION_UPDATED", lambda: client.update_annotation(annotation_id, result=[region("nucleus")])
    )
    events["annotations_deleted"] = event("ANNOTATIONS_DELETED", lambda: client.delete_annotation(annotation_id))
    events["skip"] = event("ANNOTATION_CREATED", lambda: client.skip_task(task_id, 1.0))
    new = [{"data": {"image": "/data/upload/1/new.png"}}]
    events["tasks_created"] = event("TASKS_CREATED", lambda: client.import_tasks(project_id, new))
    created = made[-1]
    events["tasks_deleted"] = event(
        "TASKS_DELETED", lambda: data_manager_action(client, project_id, "delete_tasks", created)
    )
    events["annotations_created"] = event(
        "ANNOTATIONS_CREATED",
        lambda: data_manager_action(client, project_id, "predictions_to_annotations", [task_id]),
    )
    events["project_updated"] = event("PROJECT_UPDATED", lambda: client.update_project(project_id, description="new"))
    return {f"webhook_{name}": request for name, request in events.items()}


def data_manager_action(client: StudioClient, project_id: int, name: str, tasks: list[int]) -> Any:
    """Do what the Data Manager does with selected tasks."""
    selected = {"selectedItems": {"all": False, "included": tasks}, "project": project_id}
    return client.transport.json("POST", "/api/dm/actions/", params={"project": project_id, "id": name}, json=selected)


def _images() -> list[Path]:
    folder = Path(tempfile.mkdtemp())
    paths = [folder / "first.png", folder / "second.png"]
    for number, path in enumerate(paths):
        Image.new("RGB", (WIDTH, HEIGHT), (100 * number, 50, 50)).save(path)
    return paths


def scrubbed(request: Recorded, replacements: dict[str, str]) -> Recorded:
    """Replace addresses and tokens, and leave out the headers that mean nothing."""
    headers = {name: value for name, value in request["headers"].items() if name not in LEFT_OUT}
    text = json.dumps({**request, "headers": headers, "body": without_tokens(request["body"])})
    for old, new in replacements.items():
        text = text.replace(old, new)
    cleaned: Recorded = json.loads(text)
    return cleaned


def without_tokens(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: "0" * 40 if k in ("access_token", "token") else without_tokens(v) for k, v in value.items()}
    return [without_tokens(item) for item in value] if isinstance(value, list) else value


def main() -> None:
    """Record against the Label Studio named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--token", required=True)
    options = parser.parse_args()
    client, recorder = StudioClient(options.url, options.token), Recorder()
    project = client.create_project(title="Recording", label_config=LABEL_CONFIG)
    try:
        with recorder.serving() as url:
            seen = record(client, recorder, url, project["id"])
    finally:
        client.delete_project(project["id"])
    replacements = {client.transport.url: "http://localhost:8080", url: "http://127.0.0.1:9090"}
    replacements[client.whoami()["email"]] = "annotator@example.com"
    PAYLOADS.mkdir(exist_ok=True)
    for name, request in seen.items():
        text = json.dumps(scrubbed(request, replacements), indent=1, ensure_ascii=False)
        (PAYLOADS / f"{name}.json").write_text(f"{text}\n", encoding="utf-8")
        print(f"{name:28} {len(text):6} bytes")


if __name__ == "__main__":
    main()
