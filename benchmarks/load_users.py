"""The users of the load test, run by locust in an environment of its own (requirements/load.txt); see load.py.

Annotators do what Label Studio's editor does for a person: ask for the next task, look at its image, draw, submit. Now
and then they open a task from the list instead, for which Label Studio asks nextmask's /predict, or skip it. Each
`Caller` sends one kind of request to nextmask directly, at the pace and with the time-out of its sender in real life.

Reads a plan (JSON) from the file that LOAD_PLAN names, and appends a line per answer to LOAD_ANSWERS: seconds since
the epoch, name, milliseconds, length, error.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
import random
from pathlib import Path
from typing import Any

from gevent.lock import Semaphore
from locust import HttpUser, between, constant_pacing, events, task

PLAN = json.loads(Path(os.environ["LOAD_PLAN"]).read_text())
STUDIO, NEXTMASK, PROJECT = PLAN["studio"], PLAN["nextmask"], PLAN["project"]
_ACCOUNTS = itertools.cycle(PLAN["accounts"])
_TASK_COUNTER = itertools.count()
_MEDIAN_SECONDS, _SPREAD = PLAN["drawing_seconds"], 0.6
_OPEN_SHARE, _SKIP_SHARE = 0.1, 0.03


def truth_of(image: str) -> list[dict[str, Any]]:
    """The true mask's regions; Label Studio puts its own letters and a dash before the name of an upload."""
    name = Path(image).name
    return PLAN["truth"].get(name) or PLAN["truth"][name.partition("-")[2]]


class Annotator(HttpUser):
    """One person. Drawing takes a log-normal time: most masks near the median, a few several times as long."""

    host = STUDIO
    weight = 1

    def wait_time(self) -> float:
        return min(6 * _MEDIAN_SECONDS, random.lognormvariate(0.0, _SPREAD) * _MEDIAN_SECONDS)

    def on_start(self) -> None:
        account = next(_ACCOUNTS)
        self.client.cookies.update(account["cookies"])
        self.client.headers.update({"X-CSRFToken": account["cookies"]["csrftoken"], "Referer": STUDIO})
        self.seen: set[str] = set()
        self.current: dict[str, Any] | None = None

    @task
    def label(self) -> None:
        """Submit what was drawn while waiting, then get the next task at once, as the editor does."""
        if self.current is not None:
            self.submit(self.current)
        self.current = self.opened() if random.random() < _OPEN_SHARE else self.next_task()
        if self.current is not None:
            self.look(self.current["data"]["image"])

    def next_task(self) -> dict[str, Any] | None:
        with self.client.get(
            f"/api/projects/{PROJECT}/next", name="next task", catch_response=True, timeout=60
        ) as answer:
            if answer.status_code == 404:
                answer.success()  # nothing is left
                return None
            return answer.json() if answer.ok else None

    def opened(self) -> dict[str, Any] | None:
        """A task from the list: the last tasks, which the queue reaches last, one at a time."""
        number = PLAN["tasks"][-1 - next(_TASK_COUNTER) % len(PLAN["tasks"])]
        answer = self.client.get(
            f"/api/tasks/{number}", params={"project": PROJECT}, name="open a task, with /predict", timeout=110
        )
        return answer.json() if answer.ok else None

    def look(self, image: str) -> None:
        if image not in self.seen:  # the browser keeps it
            self.seen.add(image)
            self.client.get(image, name="image", timeout=60)

    def submit(self, shown: dict[str, Any]) -> None:
        skipped = random.random() < _SKIP_SHARE
        predictions = shown.get("predictions") or [{}]
        body = {
            "result": [] if skipped else truth_of(shown["data"]["image"]),
            "lead_time": _MEDIAN_SECONDS,
            "was_cancelled": skipped,
            "draft_id": 0,
            "parent_prediction": predictions[0].get("id"),
        }
        self.client.post(
            f"/api/tasks/{shown['id']}/annotations/",
            params={"project": PROJECT},
            json=body,
            name="skip" if skipped else "submit",
            timeout=60,
        )


class Caller(HttpUser):
    """Sends one kind of request to nextmask."""

    abstract = True
    host = NEXTMASK
    fixed_count = 1

    def on_start(self) -> None:
        self.client.auth = tuple(PLAN["auth"])
        # Label Studio connects anew each time; a kept connection would now and then be closed as it is used.
        self.client.headers["Connection"] = "close"

    def batch(self, size: int) -> dict[str, Any]:
        tasks = random.sample(PLAN["samples"], min(size, len(PLAN["samples"])))
        return {"project": f"{PROJECT}.0", "label_config": PLAN["label_config"], "tasks": tasks}


class Health(Caller):
    wait_time = constant_pacing(1)

    @task
    def ask(self) -> None:
        self.client.get("/health", timeout=5)


class Setup(Caller):
    wait_time = constant_pacing(5)

    @task
    def ask(self) -> None:
        body = {"project": f"{PROJECT}.0", "schema": PLAN["label_config"], "extra_params": PLAN["extra_params"]}
        self.client.post("/setup", json=body, timeout=10)


class Webhook(Caller):
    """Beside the events that Label Studio sends for what annotators do."""

    wait_time = constant_pacing(0.5)

    @task
    def ask(self) -> None:
        body = {"action": "ANNOTATION_CREATED", "project": {"id": PROJECT}, "annotation": {"id": 1, "result": []}}
        self.client.post("/webhook", json=body, timeout=10)


class PredictOne(Caller):
    wait_time = between(1, 3)

    @task
    def ask(self) -> None:
        self.client.post("/predict", json=self.batch(1), name="/predict, 1 task", timeout=100)


class PredictMany(Caller):
    """ "Retrieve predictions" of the Data Manager."""

    wait_time = between(20, 40)

    @task
    def ask(self) -> None:
        self.client.post("/predict", json=self.batch(24), name="/predict, 24 tasks", timeout=100)


class Reader(Caller):
    """Somebody who has the dashboard open, and a monitoring system."""

    wait_time = constant_pacing(2)

    @task
    def ask(self) -> None:
        for page in PLAN["pages"]:
            self.client.get(page, name=page.replace(f"/{PROJECT}", "/{id}"), timeout=30)


_WRITING = Semaphore()
_FILE = Path(os.environ["LOAD_ANSWERS"]).open("a", newline="")  # noqa: SIM115 - open for as long as locust runs
_ROWS = csv.writer(_FILE)


@events.request.add_listener
def keep(name: str, response_time: float, response_length: int, exception: Any, start_time: float, **_: Any) -> None:
    with _WRITING:
        _ROWS.writerow([f"{start_time:.3f}", name, f"{response_time:.1f}", response_length or 0, exception or ""])


@events.quitting.add_listener
def close(**_: Any) -> None:
    _FILE.close()
