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
from ml_backend.demo.installation import command_line, demo_settings, write_environment
from ml_backend.demo.label_studio import LabelStudioHost
from ml_backend.demo.rounds import Round, Rounds, rounds_table
from ml_backend.demo.state import recall, remember
from ml_backend.errors import LabelStudioNotFound, NextmaskError
from ml_backend.label_studio import LabelStudio
from ml_backend.projects.connection import Connection
from ml_backend.projects.services import label_studio_of
from ml_backend.settings import Settings, environment_name
from ml_backend.store import Store
from ml_backend.system.progress import step

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
        self._say(f"The demo keeps its state and its logs in {self._folder}.")
        if self._dataset.remark:
            self._say(self._dataset.remark)
        with ExitStack() as running:
            try:
                return self._run(running)
            except KeyboardInterrupt:
                self._say("Stopping … The next start goes on from here.")
                raise

    def _run(self, running: ExitStack) -> list[Round]:
        host = self._host()
        first = "" if host.folder.exists() else " for the first time: it makes its database"
        with step(self._console, f"starting Label Studio{first}"):
            running.enter_context(host.running())
        settings = demo_settings(self._remembered, self._folder, host.url)
        environment = write_environment(self._remembered, self._folder, host.url)
        running.enter_context(self._server(settings))
        client, store = label_studio_of(settings), Store(settings.effective_database_url)
        running.callback(store.close)
        label_map = self._connect(settings, store, client)
        try_training_again(store, self._remembered.project)
        if not self._options.leave:
            self._say_where(host, settings, environment)
        rounds = self._label(settings, store, client, label_map)
        if rounds:
            self._console.print(rounds_table(rounds))
        if self._options.leave:
            self._say(f"Label Studio and nextmask stop; their state stays: {command_line(environment, 'status')}")
        else:
            self._say_where(host, settings, environment)
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

    @contextmanager
    def _server(self, settings: Settings) -> Iterator[None]:
        """Run `nextmask serve` until the block ends."""
        tied = [sys.executable, "-I", str(leash.__file__), str(os.getpid())]
        command = [*tied, sys.executable, "-m", "ml_backend", "serve"]
        with self._log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 (an argument list; our own interpreter)
                command,
                # An empty setting would be read from a person's .env: this one must not be.
                env={
                    **os.environ,
                    **settings.environment(),
                    environment_name("database_url"): settings.effective_database_url,
                },
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
        with step(self._console, "starting nextmask"):
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
        with step(self._console, f"uploading {len(paths)} images", len(paths)) as shown:
            for start in range(0, len(paths), _UPLOAD_BATCH):
                batch = paths[start : start + _UPLOAD_BATCH]
                client.upload_images(project_id, batch)
                shown.update(start + len(batch))
        self._remembered = replace(self._remembered, project=project_id, dataset=self._dataset.name)
        remember(self._folder, self._remembered)
        return xml

    def _label(self, settings: Settings, store: Store, client: LabelStudio, label_map: LabelMap) -> list[Round]:
        project_id = self._remembered.project
        annotator = SimulatedAnnotator(client, project_id, self._dataset.truth(), label_map)
        rounds = Rounds(settings, store, project_id, annotator, log=self._log, console=self._console)
        return rounds.run(self._options.rounds, self._options.per_round)

    # -- the terminal -------------------------------------------------------------------------------------------------
    def _say(self, text: str) -> None:
        """Print a line as it is: addresses and commands are copied from it."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _say_where(self, host: LabelStudioHost, settings: Settings, environment: Path) -> None:
        kept = self._remembered
        self._say(f"Label on:  {host.url}/projects/{kept.project}/data")
        self._say(f"           User: {USERNAME}   Password: {kept.password}")
        self._say(f"Dashboard: {settings.effective_backend_url}")
        self._say(f"           User: {settings.basic_auth_user}   Password: {kept.backend_password}")
        self._say(f"Commands:  {command_line(environment, 'status')}")

    def _wait_for_interrupt(self, host: LabelStudioHost) -> None:
        self._say("Ctrl-C stops both; the next start finds everything again.")
        try:
            while host.alive:
                time.sleep(1)
        except KeyboardInterrupt:
            self._say("Stopping …")
            return
        raise NextmaskError(f"Label Studio ended; {host.log} ends with:\n{host.log_tail()}")


def try_training_again(store: Store, project_id: int) -> None:
    """Train at once where an earlier start's training failed: its cause may be gone, and the pause after it is long."""
    project = store.project(project_id)
    if project is not None and project.train_error:
        store.wake(project_id, train=True)
