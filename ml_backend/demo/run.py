"""The demo: Label Studio, nextmask and a sample project, labelled by the simulated annotator for some rounds.

Everything runs as it does for a team: separate processes, webhooks, the real queue. State is kept in one folder, so a
second start goes on with the users, labels and versions of the first.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import requests
from rich.console import Console

from ml_backend.annotations.label_map import LabelMap, label_map_of
from ml_backend.datasets import Dataset, label_config
from ml_backend.demo import leash
from ml_backend.demo.annotator import SimulatedAnnotator
from ml_backend.demo.label_studio import LabelStudioHost
from ml_backend.demo.rounds import Round, Rounds, progress_bar, rounds_table
from ml_backend.demo.state import recall, remember
from ml_backend.errors import LabelStudioNotFound, NextmaskError
from ml_backend.label_studio import LabelStudio
from ml_backend.projects.connection import Connection
from ml_backend.projects.services import label_studio_of
from ml_backend.settings import Settings, load_settings
from ml_backend.store import Store

USERNAME = "demo@nextmask.local"
_UPLOAD_BATCH = 40
_START_SECONDS = 120.0
_POLL_SECONDS = 0.3


@dataclass(frozen=True)
class DemoOptions:
    """What to do once everything runs.

    Attributes:
        rounds: rounds of the simulated annotator, after the first masks.
        per_round: masks per round, and the number of new labels that starts a training.
        leave: stop after the rounds instead of waiting for Ctrl-C.
        control: tag of the region control of the project.
        settings: settings of the project, over the demo's own.
    """

    rounds: int
    per_round: int
    leave: bool
    control: str
    settings: Mapping[str, Any]


class Demo:
    """One run of the demo.

    Args:
        folder: keeps Label Studio's data, nextmask's state and the logs.
        label_studio: the label-studio program.
    """

    def __init__(
        self, dataset: Dataset, folder: Path, label_studio: Path, options: DemoOptions, *, console: Console
    ) -> None:
        self._dataset, self._folder, self._command = dataset, folder, label_studio
        self._options, self._console = options, console
        self._log = folder / "nextmask.log"
        self._remembered = recall(folder)

    def run(self) -> list[Round]:
        """Start everything, label for the rounds asked for, and wait for Ctrl-C unless told to leave.

        Raises:
            NextmaskError: something could not be started, or the worker failed; the logs are named.
        """
        if self._dataset.remark:
            self._console.print(self._dataset.remark)
        with ExitStack() as running:
            host = self._host()
            with progress_bar(self._console) as bar:
                line = bar.add_task("starting Label Studio (the first start takes up to a minute)", total=None)
                running.enter_context(host.running(lambda _: bar.advance(line, 0)))
            settings = self._settings(host)
            running.enter_context(self._server(settings))
            client, store = label_studio_of(settings), Store(settings.effective_database_url)
            running.callback(store.close)
            label_map = self._connect(settings, store, client)
            try_training_again(store, self._remembered.project)
            rounds = self._label(settings, store, client, label_map)
            if rounds:
                self._console.print(rounds_table(rounds))
            self._say_where(host, settings)
            if not self._options.leave:
                self._wait_for_interrupt(host)
        return rounds

    # -- processes ----------------------------------------------------------------------------------------------------
    def _host(self) -> LabelStudioHost:
        files = self._folder / "files"
        files.mkdir(parents=True, exist_ok=True)
        return LabelStudioHost(
            self._command,
            self._folder / "label-studio",
            self._remembered.label_studio_port,
            files,
            username=USERNAME,
            password=self._remembered.password,
            token=self._remembered.token,
        )

    def _settings(self, host: LabelStudioHost) -> Settings:
        return load_settings(
            label_studio_url=host.url,
            label_studio_api_key=self._remembered.token,
            basic_auth_user="nextmask",
            basic_auth_pass=self._remembered.backend_password,
            model_dir=self._folder / "nextmask",
            host="127.0.0.1",
            port=self._remembered.port,
            backend_url=f"http://127.0.0.1:{self._remembered.port}",
        )

    @contextmanager
    def _server(self, settings: Settings) -> Iterator[None]:
        """Run `nextmask serve` until the block ends."""
        tied = [sys.executable, "-I", str(leash.__file__), str(os.getpid())]
        command = [*tied, sys.executable, "-m", "ml_backend", "serve"]
        with self._log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 (an argument list; our own interpreter)
                command,
                env={**os.environ, **settings.environment()},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait_for_server(process, settings)
            yield
        finally:
            process.terminate()
            try:
                process.wait(12.0)
            except subprocess.TimeoutExpired:
                process.kill()

    def _wait_for_server(self, process: subprocess.Popen[bytes], settings: Settings) -> None:
        deadline = time.monotonic() + _START_SECONDS
        with progress_bar(self._console) as bar:
            bar.add_task("starting nextmask", total=None)
            while time.monotonic() < deadline and process.poll() is None:
                try:
                    if requests.get(f"{settings.effective_backend_url}/health", timeout=2).ok:
                        return
                except requests.ConnectionError:
                    time.sleep(_POLL_SECONDS)
        tail = self._log.read_text(errors="replace")[-2000:]
        raise NextmaskError(f"nextmask did not start; {self._log} ends with:\n{tail}")

    # -- the project --------------------------------------------------------------------------------------------------
    def _connect(self, settings: Settings, store: Store, client: LabelStudio) -> LabelMap:
        """Take the project of an earlier start or make one, and connect it."""
        try:
            if self._remembered.dataset != self._dataset.name:
                raise LabelStudioNotFound("made for other data")
            xml = str(client.project(self._remembered.project)["label_config"])
        except LabelStudioNotFound:
            xml = self._create_project(client)
        params = {**self._own_params(), **self._options.settings}
        Connection(settings, store, client, self._remembered.project).connect(params)
        return label_map_of(xml, settings.for_project(params))

    def _own_params(self) -> dict[str, Any]:
        """Settings of the demo's project: small enough for a training to take about a minute on two CPU cores."""
        return {
            "unpainted": self._dataset.unpainted,
            "train_after": self._options.per_round,
            "input_size": 192,
            "iterations": 50,
        }

    def _create_project(self, client: LabelStudio) -> str:
        """Make the project, with its images; return its labelling configuration."""
        xml = label_config(self._dataset, self._options.control)
        title = f"nextmask demo: {self._dataset.name}"
        project_id = int(client.create_project(title=title, label_config=xml)["id"])
        split = "train" if "train" in self._dataset.splits else next(iter(self._dataset.splits))
        paths = [sample.image for sample in self._dataset.splits[split]]
        with progress_bar(self._console) as bar:
            line = bar.add_task("uploading images", total=len(paths))
            for start in range(0, len(paths), _UPLOAD_BATCH):
                batch = paths[start : start + _UPLOAD_BATCH]
                client.upload_images(project_id, batch)
                bar.advance(line, len(batch))
        self._remembered = replace(self._remembered, project=project_id, dataset=self._dataset.name)
        remember(self._folder, self._remembered)
        return xml

    def _label(self, settings: Settings, store: Store, client: LabelStudio, label_map: LabelMap) -> list[Round]:
        project_id = self._remembered.project
        annotator = SimulatedAnnotator(client, project_id, self._dataset.truth(), label_map)
        rounds = Rounds(settings, store, project_id, annotator, log=self._log, console=self._console)
        return rounds.run(self._options.rounds, self._options.per_round)

    # -- the terminal -------------------------------------------------------------------------------------------------
    def _say_where(self, host: LabelStudioHost, settings: Settings) -> None:
        self._console.print(f"Label on: {host.url}/projects/{self._remembered.project}/data", highlight=False)
        self._console.print(f"User: {USERNAME}   Password: {self._remembered.password}", highlight=False)
        password = self._remembered.backend_password
        self._console.print(f"Dashboard: {settings.effective_backend_url}", highlight=False)
        self._console.print(f"User: {settings.basic_auth_user}   Password: {password}", highlight=False)

    def _wait_for_interrupt(self, host: LabelStudioHost) -> None:
        self._console.print("Ctrl-C stops both; the next start finds everything again.")
        try:
            while host.alive:
                time.sleep(1)
        except KeyboardInterrupt:
            self._console.print("Stopping …")
            return
        raise NextmaskError(f"Label Studio ended; {host.log} ends with:\n{host.log_tail()}")


def try_training_again(store: Store, project_id: int) -> None:
    """Train at once where an earlier start's training failed: its cause may be gone, and the pause after it is long."""
    project = store.project(project_id)
    if project is not None and project.train_error:
        store.wake(project_id, train=True)
