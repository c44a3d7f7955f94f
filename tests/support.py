"""Runs a real nextmask for the live tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from processes import children, wait_for

from ml_backend.annotations.label_map import parse_label_config
from ml_backend.datasets import Dataset
from ml_backend.demo.annotator import SimulatedAnnotator, Submission
from ml_backend.demo.label_studio import free_port
from ml_backend.projects.connection import Connection
from ml_backend.projects.services import Services, open_services
from ml_backend.projects.status import Status, project_status
from ml_backend.settings import Settings, load_settings

USER, PASSWORD = "nextmask", "backend-password"


@dataclass(frozen=True)
class Studio:
    """A running Label Studio."""

    url: str
    token: str
    user: str
    password: str


class Nextmask:
    """`nextmask serve` as a process, and a view of its state from here."""

    def __init__(
        self,
        studio: Studio,
        folder: Path,
        project_settings: Mapping[str, Any],
        arguments: tuple[str, ...] = (),
        environment: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.project_settings, self.arguments = folder, dict(project_settings), arguments
        folder.mkdir(parents=True, exist_ok=True)
        values: dict[str, Any] = {
            "label_studio_url": studio.url,
            "label_studio_api_key": studio.token,
            "basic_auth_user": USER,
            "basic_auth_pass": PASSWORD,
            "model_dir": folder / "state",
            "port": free_port(),
            "reconcile_seconds": 5.0,
            "lease_seconds": 4.0,
            **(environment or {}),
        }
        self.settings: Settings = load_settings(**values)
        self.log = folder / "nextmask.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.services: Services = open_services(self.settings)

    # -- the process --------------------------------------------------------------------------------------------------
    def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ml_backend", "serve", *self.arguments],
                env={**os.environ, **self.settings.environment()},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_for(self._answers, name="nextmask's /health")

    def _answers(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            raise AssertionError(f"nextmask ended: {self.log.read_text()[-2000:]}")
        try:
            return requests.get(f"{self.url}/health", timeout=2).ok
        except requests.ConnectionError:
            return False

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(15)

    def kill(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def worker(self) -> int:
        """Wait for the server's worker and return its process id."""
        assert self.process
        server = self.process.pid
        return wait_for(lambda: children(server), name="a worker")[0]

    def close(self) -> None:
        self.services.store.close()

    # -- its protocol -------------------------------------------------------------------------------------------------
    @property
    def url(self) -> str:
        return self.settings.effective_backend_url

    def post(self, path: str, body: object, **options: Any) -> requests.Response:
        return requests.post(f"{self.url}{path}", json=body, auth=(USER, PASSWORD), timeout=110, **options)

    # -- its projects -------------------------------------------------------------------------------------------------
    def connection(self, project: int) -> Connection:
        services = self.services
        return Connection(services.settings, services.store, services.client, project)

    def connect(self, project: int, **settings: Any) -> list[str]:
        return self.connection(project).connect({**self.project_settings, **settings})

    def status(self, project: int) -> Status:
        return project_status(self.services.settings, self.services.store, project)

    def settled(self, project: int) -> bool:
        """Whether the worker has seen everything up to now."""
        known = self.services.store.project(project)
        if known is None or known.lease_owner is not None or known.wakes > known.wakes_handled:
            return False
        return known.reconciled_at is not None

    def wait_settled(self, project: int, *, seconds: float = 180.0) -> Status:
        wait_for(lambda: self.settled(project), seconds=seconds, name=f"the worker's rest; log: {self.log}")
        return self.status(project)

    def wait_for_version(self, project: int, model: int, *, seconds: float = 240.0) -> Status:
        """Wait until the queue of that model is published."""
        prefix = f"nextmask-{model}."

        def published() -> bool:
            return self.status(project).version.startswith(prefix) and self.settled(project)

        wait_for(published, seconds=seconds, name=f"version {prefix}…; log: {self.log}")
        return self.status(project)

    def annotate(self, project: int, dataset: Dataset, count: int) -> list[Submission]:
        xml = str(self.services.client.project(project)["label_config"])
        annotator = SimulatedAnnotator(self.services.client, project, dataset.truth(), parse_label_config(xml))
        return annotator.annotate(count)
