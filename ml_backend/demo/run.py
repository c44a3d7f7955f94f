"""The demo: Label Studio, nextmask and a sample project, labelled by the simulated annotator for some rounds.

Everything runs as it does for a team: separate processes, webhooks, the real queue. State lives in one folder, so a
second start finds users, labels and versions again.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import requests
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from ml_backend.annotations.label_map import LabelMap, label_map_of
from ml_backend.datasets import Dataset, label_config
from ml_backend.demo import leash
from ml_backend.demo.annotator import SimulatedAnnotator, Submission
from ml_backend.demo.label_studio import LabelStudioHost, free_port, port_in_use
from ml_backend.errors import LabelStudioNotFound, NextmaskError
from ml_backend.projects.connection import Connection
from ml_backend.projects.services import Services, open_services
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


@dataclass(frozen=True)
class Remembered:
    """What a second start needs to find the first one's state."""

    label_studio_port: int
    port: int
    password: str
    token: str
    backend_password: str
    project: int = 0
    dataset: str = ""


@dataclass(frozen=True)
class Round:
    """One row of the demo's table."""

    number: int
    labelled: int
    version: str
    held_out_miou: float | None
    agreement: float | None
    seconds: float


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
        self._remembered = _recall(folder)

    def run(self) -> list[Round]:
        """Start everything, label for the rounds asked for, and wait for Ctrl-C unless told to leave.

        Raises:
            NextmaskError: something could not be started, or the loop did not go on; the logs are named.
        """
        if self._dataset.remark:
            self._console.print(self._dataset.remark)
        with ExitStack() as running:
            host = self._host()
            with self._progress() as bar:
                line = bar.add_task("starting Label Studio (the first start takes up to a minute)", total=None)
                running.enter_context(host.running(lambda _: bar.advance(line, 0)))
            settings = self._settings(host)
            running.enter_context(self._server(settings))
            services = open_services(settings)
            running.callback(services.store.close)
            label_map = self._project(services)
            try_training_again(services.store, self._remembered.project)
            rounds = self._rounds(services, label_map)
            if rounds:
                self._console.print(_table(rounds))
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
        log = self._folder / "nextmask.log"
        tied = [sys.executable, "-I", str(leash.__file__), str(os.getpid())]
        command = [*tied, sys.executable, "-m", "ml_backend", "serve"]
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 (an argument list; our own interpreter)
                command,
                env={**os.environ, **settings.environment()},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait_for_server(process, settings, log)
            yield
        finally:
            process.terminate()
            try:
                process.wait(12.0)
            except subprocess.TimeoutExpired:
                process.kill()

    def _wait_for_server(self, process: subprocess.Popen[bytes], settings: Settings, log: Path) -> None:
        deadline = time.monotonic() + _START_SECONDS
        with self._progress() as bar:
            bar.add_task("starting nextmask", total=None)
            while time.monotonic() < deadline and process.poll() is None:
                try:
                    if requests.get(f"{settings.effective_backend_url}/health", timeout=2).ok:
                        return
                except requests.ConnectionError:
                    time.sleep(_POLL_SECONDS)
        raise NextmaskError(f"nextmask did not start; {log} ends with:\n{log.read_text(errors='replace')[-2000:]}")

    # -- the project --------------------------------------------------------------------------------------------------
    def _project(self, services: Services) -> LabelMap:
        """Find the project of an earlier start or make it, and connect it."""
        client = services.client
        try:
            if self._remembered.dataset != self._dataset.name:
                raise LabelStudioNotFound("made for other data")
            xml = str(client.project(self._remembered.project)["label_config"])
        except LabelStudioNotFound:
            xml = self._create_project(services)
        settings = {**self._own_settings(), **self._options.settings}
        Connection(services.settings, services.store, client, self._remembered.project).connect(settings)
        return label_map_of(xml, services.settings.for_project(settings))

    def _own_settings(self) -> dict[str, Any]:
        """Settings of the demo's project: small enough for a training to take about a minute on two CPU cores."""
        return {
            "unpainted": self._dataset.unpainted,
            "train_after": self._options.per_round,
            "input_size": 192,
            "iterations": 50,
        }

    def _create_project(self, services: Services) -> str:
        xml = label_config(self._dataset, self._options.control)
        title = f"nextmask demo: {self._dataset.name}"
        project = services.client.create_project(title=title, label_config=xml)
        project_id = int(project["id"])
        split = "train" if "train" in self._dataset.splits else next(iter(self._dataset.splits))
        paths = [sample.image for sample in self._dataset.splits[split]]
        with self._progress() as bar:
            line = bar.add_task("uploading images", total=len(paths))
            for start in range(0, len(paths), _UPLOAD_BATCH):
                batch = paths[start : start + _UPLOAD_BATCH]
                services.client.upload_images(project_id, batch)
                bar.advance(line, len(batch))
        self._remembered = replace(self._remembered, project=project_id, dataset=self._dataset.name)
        _remember(self._folder, self._remembered)
        return xml

    # -- labelling ----------------------------------------------------------------------------------------------------
    def _rounds(self, services: Services, label_map: LabelMap) -> list[Round]:
        """Label, wait for the new version and the new queue, again and again; an early end means nothing is left."""
        annotator = SimulatedAnnotator(services.client, self._remembered.project, self._dataset.truth(), label_map)
        self._follow(services, "first queue", lambda: self._is_settled(services))
        rounds: list[Round] = []
        first = services.checkpoints(self._remembered.project).latest() is None
        for number in range(0 if first else 1, self._options.rounds + 1):
            begin = time.monotonic()
            submitted = self._annotate(annotator, number)
            if not submitted:
                break
            self._follow(services, f"round {number}", lambda: self._is_settled(services))
            rounds.append(self._round(services, number, submitted, time.monotonic() - begin))
        return rounds

    def _annotate(self, annotator: SimulatedAnnotator, number: int) -> list[Submission]:
        with self._progress() as bar:
            line = bar.add_task(f"round {number}: labelling", total=self._options.per_round)
            done = annotator.annotate(self._options.per_round, progress=lambda _: bar.advance(line))
        for failed in (one for one in done if one.error):
            self._console.print(f"task {failed.task} was not labelled: {failed.error}")
        return [one for one in done if not one.error]

    def _is_settled(self, services: Services) -> bool:
        """Whether the worker has seen all labels, trained on them, and published the new order."""
        project = services.store.project(self._remembered.project)
        if project is None or project.lease_owner is not None or project.wakes > project.wakes_handled:
            return False
        if project.state == "failed":
            log = self._folder / "nextmask.log"
            raise NextmaskError(f"The loop stopped: {project.error} The log is {log}.")
        return project.reconciled_at is not None

    def _follow(self, services: Services, name: str, done: Callable[[], bool]) -> None:
        with self._progress() as bar:
            line = bar.add_task(name, total=None)
            while not done():
                project = services.store.project(self._remembered.project)
                if project is not None:
                    stage, total = project.stage or project.state, project.stage_total or None
                    bar.update(line, description=f"{name}: {stage}", completed=project.stage_done, total=total)
                time.sleep(_POLL_SECONDS)

    def _round(self, services: Services, number: int, submitted: list[Submission], seconds: float) -> Round:
        project = services.store.project(self._remembered.project)
        current = services.checkpoints(self._remembered.project).current()
        scores = [one.agreement for one in submitted if one.agreement is not None]
        labelled = services.store.count_tasks(self._remembered.project).get("labelled", 0)
        miou = current.record.measures.get("miou") if current else None
        agreement = sum(scores) / len(scores) if scores else None
        return Round(number, labelled, project.published_version if project else "", miou, agreement, seconds)

    # -- the terminal -------------------------------------------------------------------------------------------------
    def _progress(self) -> Progress:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        return Progress(*columns, TimeElapsedColumn(), console=self._console, transient=True)

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


def _table(rounds: list[Round]) -> Table:
    table = Table("round", "labelled", "version", "held-out mIoU", "pre-annotation IoU", "seconds")
    for one in rounds:
        numbers = ["" if value is None else f"{value:.3f}" for value in (one.held_out_miou, one.agreement)]
        table.add_row(str(one.number), str(one.labelled), one.version, *numbers, f"{one.seconds:.0f}")
    return table


def _recall(folder: Path) -> Remembered:
    """Read what an earlier start noted, or make it up; a port that is in use now is replaced."""
    path = folder / "demo.json"
    if path.exists():
        found = Remembered(**json.loads(path.read_text()))
        studio, own = (free_port() if port_in_use(port) else port for port in (found.label_studio_port, found.port))
        found = replace(found, label_studio_port=studio, port=own)
    else:
        found = Remembered(
            free_port(), free_port(), secrets.token_urlsafe(9), secrets.token_hex(20), secrets.token_hex(16)
        )
    _remember(folder, found)
    return found


def _remember(folder: Path, values: Remembered) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "demo.json"
    path.touch(mode=0o600)  # it holds passwords
    path.write_text(json.dumps(asdict(values), indent=1))
