"""Many workers on one state: what waits, what is asked of Label Studio, and whether anything is done twice.

    python benchmarks/many_workers.py [--workers 10] [--projects 200] [--tasks 12] [--seconds 120]

Real: the worker processes (`Worker`, as `nextmask worker` runs it), PostgreSQL (Debian's, started for this), and
all that a look does. Not real: Label Studio is the one in memory of the tests, in a process of its own that all workers
call; **trainings are a sleep of `--training` seconds**, whose versions are kept back. Each worker has a device of its
own, as if on a machine of its own.

Meanwhile people label: every `--pause` seconds a task of a project by chance, and the project is woken, as a webhook
does. Every ten seconds a worker is killed with SIGKILL, and another one is started; halfway, PostgreSQL is, all of it,
and started after three seconds. The clocks of the workers are wrong by -9 to 9 minutes, each by its own.

Told: the age of the oldest label that no look has read, requests to Label Studio per look, and what must be 0: looks at
a project, and trainings on a device, that began while another process was at it.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from multiprocessing.managers import BaseManager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from memory_studio import MemoryStudio  # noqa: E402
from postgresql import running_cluster  # noqa: E402
from wiring import disc, make_settings, png, region  # noqa: E402

from ml_backend import errors  # noqa: E402
from ml_backend.projects.training_turns import TrainingTurns  # noqa: E402
from ml_backend.store import Store  # noqa: E402
from ml_backend.system.clock import boot_seconds  # noqa: E402

TRAIN_AFTER, LEASE_SECONDS, RECONCILE_SECONDS = 1, 10.0, 60.0
KILL_SECONDS, AWAY_SECONDS = 10.0, 3.0
SETTINGS: dict[str, Any] = {
    **{"train_after": TRAIN_AFTER, "lease_seconds": LEASE_SECONDS, "reconcile_seconds": RECONCILE_SECONDS},
    **{"encoder_weights": "none", "strategy": "random", "audit_share": 0.0, "queue_window": 5, "input_size": 32},
}
KEY = b"of this benchmark alone"
PROJECT_STEP = 1000
"""Tasks of project N have the numbers from N * 1000: calls that name a task alone find its project."""


# -- Label Studio, in a process of its own ---------------------------------------------------------------------------
class Studio(MemoryStudio):
    """A Label Studio whose clock goes on."""

    def settled(self) -> str:
        """Return a time before which no further change appears."""
        moment = datetime(2100, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=boot_seconds())
        return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass
class Hosts:
    """The projects in memory; and what is at work where, as workers tell."""

    projects: int
    tasks: int
    calls: int = 0
    looks: int = 0
    doubled: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock, self._inside = threading.Lock(), dict[str, int]()
        files = {f"/data/upload/{index}.png": png(disc(index)[0]) for index in range(self.tasks)}
        self._studios = {
            number: Studio(
                id=number,
                files=files,
                backends=[{"id": number, "url": "http://127.0.0.1:9090", "title": "nextmask", "extra_params": {}}],
                items={task: self._item(task) for task in range(*self._span(number))},
            )
            for number in range(1, self.projects + 1)
        }
        self.calls = self.looks = 0

    def _span(self, project: int) -> tuple[int, int]:
        return project * PROJECT_STEP, project * PROJECT_STEP + self.tasks

    def _item(self, task: int) -> dict[str, Any]:
        image = f"/data/upload/{task % PROJECT_STEP}.png"
        return {"id": task, "data": {"image": image}, "annotations": [], "updated_at": "2026-01-01T00:00:00.000000Z"}

    def call(self, name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> tuple[str, Any]:
        """Answer a request to Label Studio: ("", answer), or the class and text of an error."""
        with self._lock:
            self.calls += 1
            number = int(options.get("project") or (arguments[0] if arguments else 1))
            studio = self._studios[number if number < PROJECT_STEP else number // PROJECT_STEP]
            try:
                answer = getattr(studio, name)(*arguments, **options)
            except errors.LabelStudioError as error:
                return type(error).__name__, str(error)
            return "", list(answer) if isinstance(answer, Iterator) else answer

    def file(self, reference: str) -> bytes:
        with self._lock:
            self.calls += 1
        return self._studios[1].files[reference.rpartition("?")[0] or reference]

    def label(self, project: int) -> int | None:
        """Submit a label; return its task, None where all are labelled."""
        with self._lock:
            studio = self._studios[project]
            task = next((number for number, item in studio.items.items() if not item["annotations"]), None)
            if task is not None:
                studio.annotate(task, [region(disc(task % PROJECT_STEP)[1])], lead_time=2.0)
            return task

    # -- what is at work ----------------------------------------------------------------------------------------------
    def enter(self, what: str, worker: int) -> None:
        with self._lock:
            self.looks += what.startswith("project")
            other = self._inside.get(what)
            if other is not None:
                self.doubled.append(f"{what}: process {worker} while {other} was at it")
            self._inside[what] = worker

    def leave(self, what: str, worker: int) -> None:
        with self._lock:
            if self._inside.get(what) == worker:
                del self._inside[what]

    def is_dead(self, worker: int) -> None:
        """What a process did ended with it."""
        with self._lock:
            self._inside = {what: who for what, who in self._inside.items() if who != worker}

    def counts(self) -> tuple[int, int, list[str]]:
        with self._lock:
            return self.calls, self.looks, list(self.doubled)


@lru_cache(maxsize=1)
def the_hosts(projects: int, tasks: int) -> Hosts:
    """Return the only hosts of the process that serves them."""
    return Hosts(projects, tasks)


class Manager(BaseManager):
    """Serves the hosts to other processes."""


Manager.register("hosts", the_hosts)


class HostClient:
    """Answers as the client of Label Studio does, from another process."""

    def __init__(self, hosts: Any) -> None:
        self._hosts = hosts

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def ask(*arguments: Any, **options: Any) -> Any:
            plain = tuple(list(each) if isinstance(each, (set, Iterator)) else each for each in arguments)
            error, answer = self._hosts.call(name, plain, options)
            if error:
                raise getattr(errors, error)(answer)
            return answer

        return ask

    @contextmanager
    def fetch(self, reference: str) -> Iterator[list[bytes]]:
        yield [self._hosts.file(reference)]


# -- a worker ----------------------------------------------------------------------------------------------------------
def work(
    number: int,
    address: tuple[str, int],
    projects: int,
    tasks: int,
    folder: str,
    url: str,
    training: float,
    ahead: float,
) -> None:
    """Run a worker, whose clock is wrong, until it is killed."""
    real = time.time
    time.time = lambda: real() + ahead
    from trainings import Trainings

    from ml_backend.images.cache import ImageCache
    from ml_backend.learning.networks import Device
    from ml_backend.learning.training import process as training_process
    from ml_backend.projects.services import open_services
    from ml_backend.worker import worker as worker_module

    manager = Manager(address, KEY)
    manager.connect()
    hosts, own = manager.hosts(projects, tasks), os.getpid()  # type: ignore[attr-defined]
    os.environ["NEXTMASK_DATABASE_URL"] = url
    services = open_services(make_settings(Path(folder), **SETTINGS))
    client = HostClient(hosts)
    limits = {"max_bytes": 10**9, "max_image_bytes": 10**7, "max_pixels": 10**7}
    images = ImageCache(Path(folder) / "images", client.fetch, **limits)
    device = Device("cpu", f"machine {number}")
    turns = TrainingTurns(services.store, services.settings, lambda _: [device])
    services = replace(services, client=client, turns=turns, images=images)  # type: ignore[arg-type]
    stub, reconcile = Trainings(), worker_module.reconcile
    stub.accepted = False

    def train(job: Any, *, progress: Any, heartbeat: Any) -> int:
        hosts.enter(device.key, own)
        ends = time.monotonic() + training
        try:
            while time.monotonic() < ends:
                heartbeat()
                time.sleep(min(0.5, training))
            return stub.run(job, progress=progress, heartbeat=heartbeat)
        finally:
            hosts.leave(device.key, own)

    def look(given: Any, project: int, check: Any, **options: Any) -> None:
        hosts.enter(f"project {project}", own)
        try:
            reconcile(given, project, check, **options)
        finally:
            hosts.leave(f"project {project}", own)

    training_process.run = train
    worker_module.reconcile = look
    worker_module.Worker(services).run()


# -- the run -----------------------------------------------------------------------------------------------------------
@dataclass
class Run:
    """People label, workers are killed; and what is seen of that."""

    store: Store
    hosts: Any
    options: argparse.Namespace
    start: Callable[[int], Any]
    workers: dict[int, Any] = field(default_factory=dict)
    unseen: dict[tuple[int, int], float] = field(default_factory=dict)
    delays: list[float] = field(default_factory=list)
    oldest: float = 0.0
    kills: int = 0
    ended: int = 0

    def label(self, chance: random.Random) -> None:
        project = chance.randint(1, self.options.projects)
        task = self.hosts.label(project)
        if task is not None:
            self.unseen[project, task] = time.monotonic()
            self.store.wake(project)

    def look(self) -> None:
        """See which labels were read."""
        now = time.monotonic()
        for project in {project for project, _ in self.unseen}:
            seen = {task for task, status, _ in self.store.answers(project) if status == "labelled"}
            for task in seen:
                if (project, task) in self.unseen:
                    self.delays.append(now - self.unseen.pop((project, task)))
        self.oldest = max([self.oldest, *self.delays[-50:], *(now - since for since in self.unseen.values())])

    def kill(self, chance: random.Random) -> None:
        number = chance.choice([number for number, process in self.workers.items() if process.is_alive()])
        process = self.workers[number]
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        self.hosts.is_dead(process.pid)
        self.workers[number] = self.start(number)
        self.kills += 1

    def start_ended(self) -> None:
        """Start workers again that ended, as whoever keeps them running does: one cannot start without its database."""
        for number, process in self.workers.items():
            if not process.is_alive():
                self.hosts.is_dead(process.pid)
                self.workers[number] = self.start(number)
                self.ended += 1


def main() -> None:
    """Prints what was measured, and writes it as a row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=10)
    parser.add_argument("--projects", type=int, default=200)
    parser.add_argument("--tasks", type=int, default=12, help="of each project")
    parser.add_argument("--seconds", type=float, default=120.0, help="of labelling, after all projects were read")
    parser.add_argument("--pause", type=float, default=0.5, help="seconds between two labels")
    parser.add_argument("--training", type=float, default=2.0, help="seconds that stand for a training")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "many_workers.csv")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory(prefix="nextmask-many-") as folder,
        running_cluster() as cluster,
        cluster.database() as url,
        Manager(("127.0.0.1", 0), KEY, ctx=context) as manager,
        closing(Store(url)) as store,
    ):
        store.wait_for_database(60.0)
        hosts = manager.hosts(options.projects, options.tasks)  # type: ignore[attr-defined]
        settings = (options.projects, options.tasks, folder, url, options.training)

        def start(number: int) -> Any:
            ahead = 60.0 * (2 * number - options.workers + 1)
            arguments = (number, manager.address, *settings, ahead)
            process = context.Process(target=work, args=arguments, daemon=True)
            process.start()
            return process

        for project in range(1, options.projects + 1):
            store.wake(project)
        run = Run(store, hosts, options, start)
        began = time.monotonic()
        run.workers = {number: start(number) for number in range(options.workers)}
        row = measured(run, cluster, began)
        for process in run.workers.values():
            process.kill()
    print(row)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, row, lineterminator="\n")
        writer.writeheader()
        writer.writerow(row)


def measured(run: Run, cluster: Any, began: float) -> dict[str, Any]:
    """Let all projects be read for the first time, then people label; return what was seen."""
    store, hosts, options = run.store, run.hosts, run.options
    while any(project.reconciled_at is None for project in store.projects()):
        time.sleep(0.5)
    first, (calls, looks, _) = time.monotonic() - began, hosts.counts()
    print(f"all {options.projects} projects were read after {first:.0f} s", flush=True)
    chance, start = random.Random(1), time.monotonic()
    next_label = next_look = start
    next_kill, database_dies = start + KILL_SECONDS, start + options.seconds / 2
    while time.monotonic() - start < options.seconds:
        now = time.monotonic()
        if now >= database_dies:
            database_dies = start + 10 * options.seconds
            cluster.stop(signal.SIGQUIT)
            time.sleep(AWAY_SECONDS)
            cluster.start()
        if now >= next_kill:
            next_kill = now + KILL_SECONDS
            run.kill(chance)
        if now >= next_label:
            next_label = now + options.pause
            run.label(chance)
        if now >= next_look:
            next_look = now + 1.0
            run.look()
            run.start_ended()
        time.sleep(0.05)
    labelled, ends = len(run.delays) + len(run.unseen), time.monotonic() + 60
    while run.unseen and time.monotonic() < ends:
        time.sleep(0.5)
        run.look()
    more_calls, more_looks, doubled = hosts.counts()
    for line in doubled:
        print(line)
    trained = sum(store.counted(f"trainings_trained_{project}") for project in range(1, options.projects + 1))
    delays = sorted(run.delays)
    return {
        **{"workers": options.workers, "projects": options.projects, "seconds": options.seconds},
        **{"labels": labelled, "read": len(delays), "worker_kills": run.kills, "database_kills": 1, "ended": run.ended},
        "first_look_at_all_s": round(first, 1),
        "delay_median_s": round(statistics.median(delays), 1),
        "delay_p95_s": round(delays[int(0.95 * (len(delays) - 1))], 1),
        "oldest_unseen_s": round(run.oldest, 1),
        "looks": more_looks - looks,
        "requests_a_look": round((more_calls - calls) / max(1, more_looks - looks), 1),
        "requests_a_first_look": round(calls / max(1, looks), 1),
        **{"trainings": trained, "doubled": len(doubled)},
        "failed": sum(bool(project.error) for project in store.projects()),
    }


if __name__ == "__main__":
    main()
