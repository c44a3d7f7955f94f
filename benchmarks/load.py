"""100 annotators at once, while training runs: latencies, errors, and whether memory grows. On this machine alone.

    make load [ARGS="--minutes 2"]
    python benchmarks/load.py [--minutes 30] [--annotators 100] [--out benchmarks/results]

Starts a real Label Studio, `nextmask serve` with its worker, and a project of the sample images. Annotators
(load_users.py) sign in with accounts of their own, ask Label Studio for their next task, draw for a while and submit;
so many labels come that a training is under way nearly all the time. Beside them, nextmask's own endpoints are asked
directly, which tells its latencies from Label Studio's. Before that, the same annotators work without nextmask for
`--alone` minutes: the floor that Label Studio sets.

Every few seconds the memory and processor time of each process are read. A line is fitted to the last two thirds of
the run, through means of equal spans since single readings depend on each other; its slope is the growth per hour,
with a 95 % confidence interval. Writes load.json, load.csv (answers) and load_memory.csv, prints tables, and ends by
itself.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import requests
from scipy import stats

from ml_backend.annotations.label_map import parse_label_config
from ml_backend.annotations.masks import write_result
from ml_backend.datasets import Dataset, label_config, sample_dataset
from ml_backend.demo.label_studio import LabelStudioHost, find_label_studio, free_port
from ml_backend.label_studio import LabelStudio
from ml_backend.label_studio.predictions import model_number
from ml_backend.projects.connection import Connection
from ml_backend.projects.services import Services, open_services
from ml_backend.settings import Settings, load_settings

ROOT = Path(__file__).resolve().parents[1]
TOKEN = "0123456789abcdef0123456789abcdef01234567"
AUTH = ("load", "load-password")
PASSWORD = "annotator-password"
PROJECT = {"train_after": 30, "iterations": 150, "input_size": 192, "batch_size": 8}
"""Labels come so fast, and a training takes so long, that the next training is due before one has ended."""
FIRST = {"train_after": 12, "iterations": 4, "batch_size": 4}
"""A first version for predictions to be made with, not to be good."""
PAGES = ["/", "/projects/{id}", "/versions", "/ready", "/metrics"]
LIMITS = {"/health": 1.0, "/setup": 3.0, "/webhook": 1.0, "/predict, 1 task": 100.0, "/predict, 24 tasks": 100.0}
"""Seconds after which Label Studio gives up."""
HOST_CALLS = {"next task", "open a task, with /predict", "image", "submit", "skip"}
SPANS = 20
WARM_UP = 1 / 3


def main() -> None:
    options = parse_arguments()
    if not options.locust.exists():
        raise SystemExit(f"{options.locust} is missing: run make load, which installs it")
    options.out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="nextmask-load-") as folder, ExitStack() as running:
        bench = Bench(options, Path(folder), running)
        alone = bench.load(options.alone, alone=True) if options.alone else []
        bench.start_nextmask()
        watch = Watch(bench.processes)
        with watch.running():
            answers = bench.load(options.minutes, alone=False)
        report = {
            "machine": machine(),
            "options": {name: value for name, value in vars(options).items() if name not in ("out", "locust")},
            "project": PROJECT,
            "seconds": round(watch.seconds, 1),
            "answers": [*summary(alone, "Label Studio alone"), *summary(answers, "with nextmask")],
            "memory": watch.memory(),
            "cores": watch.cores(),
            "load_average": watch.load_average(),
            "training_share": watch.share("training"),
            **bench.labels(answers),
        }
        if options.keep_log:
            (options.out / "load.log").write_bytes((Path(folder) / "nextmask.log").read_bytes())
    (options.out / "load.json").write_text(json.dumps(report, indent=1) + "\n")
    write_rows(options.out / "load.csv", report["answers"])
    write_rows(options.out / "load_memory.csv", watch.rows)
    print(tables(report))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--alone", type=float, default=3.0, help="minutes of Label Studio without nextmask before")
    parser.add_argument("--annotators", type=int, default=100)
    parser.add_argument("--drawing", type=float, default=60.0, help="median seconds that a mask takes")
    parser.add_argument("--tasks", type=int, default=4000)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--locust", type=Path, default=ROOT / ".venv-load" / "bin" / "locust")
    parser.add_argument(
        "--keep-log", action="store_true", help="keep all answers and nextmask's log beside the results"
    )
    return parser.parse_args()


# -- the installation ------------------------------------------------------------------------------------------------
class Bench:
    """Label Studio, a project with tasks, accounts; and nextmask, once it is started."""

    def __init__(self, options: argparse.Namespace, folder: Path, running: ExitStack) -> None:
        self.options, self.folder, self._running = options, folder, running
        self.dataset = sample_dataset()
        port = free_port()
        self.host = LabelStudioHost(
            find_label_studio(),
            folder / "label-studio",
            port,
            folder,
            username="load@nextmask.local",
            password=PASSWORD,
            token=TOKEN,
        )
        running.enter_context(self.host.running())
        self.client = LabelStudio(self.host.url, TOKEN, timeout=120)
        self.project, self.tasks, self.images = make_project(self.client, self.dataset, options.tasks)
        self.accounts = make_accounts(self.host.url, self.client, options.annotators)
        self.settings: Settings = load_settings(
            label_studio_url=self.host.url,
            label_studio_api_key=TOKEN,
            model_dir=folder / "nextmask",
            port=free_port(),
            basic_auth_user=AUTH[0],
            basic_auth_pass=AUTH[1],
        )
        self.server: subprocess.Popen[bytes] | None = None
        self.services: Services | None = None

    def start_nextmask(self) -> None:
        """Start the server, connect the project, and wait until its queue is there."""
        log = self._running.enter_context((self.folder / "nextmask.log").open("ab"))
        command = [sys.executable, "-m", "ml_backend", "serve"]
        environment = {**os.environ, **self.settings.environment()}
        self.server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        self._running.callback(self.server.wait)
        self._running.callback(self.server.terminate)
        wait_until_up(self.settings.effective_backend_url)
        self.services = services = open_services(self.settings)
        self._running.callback(services.store.close)
        connection = Connection(services.settings, services.store, services.client, self.project)
        connection.connect({**PROJECT, **FIRST})
        self._label_first()
        self.settle(trained=True)
        connection.connect(PROJECT)

    def _label_first(self) -> None:
        """Label so many images that there is a model to predict with when the load begins."""
        truth = truths(self.dataset)
        for number, image in list(self.images.items())[:16]:
            name = Path(image).name
            regions = truth.get(name) or truth[name.partition("-")[2]]
            self.client.submit_annotation(number, regions, self.options.drawing)

    def settle(self, *, trained: bool = False, seconds: float = 1500.0) -> None:
        """Wait until the worker has seen everything."""
        assert self.services
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            known = self.services.store.project(self.project)
            is_idle = known and known.lease_owner is None and known.wakes == known.wakes_handled and known.reconciled_at
            if known and is_idle and (model_number(known.published_version) or not trained):
                return
            time.sleep(0.5)
        raise SystemExit(f"nextmask did not come to rest within {seconds:.0f} s")

    def load(self, minutes: float, *, alone: bool) -> list[dict[str, Any]]:
        """Let the users work; return all answers that they got."""
        plan, answers = self.folder / "plan.json", self.folder / f"answers-{'alone' if alone else 'with'}.csv"
        plan.write_text(json.dumps(self._plan(alone=alone)))
        users = self.options.annotators + (0 if alone else len(CALLERS))
        command = [str(self.options.locust), "-f", str(ROOT / "benchmarks" / "load_users.py"), "--headless"]
        command += ["Annotator"] if alone else []  # of the classes of users
        command += ["-u", str(users), "-r", "4", "-t", f"{int(minutes * 60)}s", "--stop-timeout", "20"]
        environment = {**os.environ, "LOAD_PLAN": str(plan), "LOAD_ANSWERS": str(answers)}
        with (self.folder / "locust.log").open("ab") as log:
            # locust's exit code says that some requests failed: they are counted below
            subprocess.run([*command, "--only-summary"], env=environment, stdout=log, stderr=log, check=False)
        if not answers.exists():
            raise SystemExit(f"locust did not start:\n{(self.folder / 'locust.log').read_text()[-2000:]}")
        if self.options.keep_log:
            shutil.copy(answers, self.options.out)
        return read_answers(answers)

    def _plan(self, *, alone: bool) -> dict[str, Any]:
        url = self.settings.effective_backend_url
        pages = [] if alone else [path for page in PAGES if (path := self._page(url, page))]
        return {
            "studio": self.host.url,
            "nextmask": url,
            "project": self.project,
            "accounts": self.accounts,
            "drawing_seconds": self.options.drawing,
            "tasks": self.tasks,
            "truth": truths(self.dataset),
            "auth": AUTH,
            "label_config": label_config(self.dataset),
            "extra_params": json.dumps(PROJECT),
            "samples": [{"id": number, "data": {"image": image}} for number, image in self.images.items()],
            "pages": pages,
        }

    def _page(self, url: str, page: str) -> str | None:
        path = page.replace("{id}", str(self.project))
        answer = requests.get(f"{url}{path}", auth=AUTH, timeout=30)
        return None if answer.status_code == 404 else path

    def processes(self) -> dict[str, list[int]]:
        """Process ids by what they are."""
        assert self.server
        worker = children(self.server.pid)
        trainings = [child for pid in worker for child in children(pid)]
        return {
            "server": [self.server.pid],
            "worker": worker,
            "training": trainings,
            "Label Studio": list(family(self.host._process.pid if self.host._process else 0)),
        }

    def labels(self, answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Compare what was submitted with what nextmask knows once all answers have come."""
        assert self.services
        here = self.services.store
        here.wake(self.project)
        project = self.client.project(self.project)
        deadline = time.monotonic() + 300  # labels are read while a training runs, too
        while time.monotonic() < deadline:
            known = here.count_tasks(self.project)
            if known.get("labelled") == project["num_tasks_with_annotations"]:
                break
            time.sleep(2)
        submitted = sum(row["name"] == "submit" and not row["error"] for row in answers)
        versions = self.services.checkpoints(self.project).versions()
        return {
            "submitted_answers": submitted,
            "labelled_in_label_studio": int(project["num_tasks_with_annotations"]),
            "labelled_in_nextmask": len(here.tasks(self.project, status="labelled")),
            "trainings": len(versions),
            "labels_in_newest_version": len(versions[-1].record.labels) if versions else 0,
        }


CALLERS = ("Health", "Setup", "Webhook", "PredictOne", "PredictMany", "Reader")


def make_project(client: LabelStudio, dataset: Dataset, count: int) -> tuple[int, list[int], dict[int, str]]:
    """Upload the sample's images and make tasks that show them again and again; return project, tasks, images."""
    project = int(client.create_project(title="load", label_config=label_config(dataset))["id"])
    samples = [sample.image for split in dataset.splits.values() for sample in split]
    uploaded = client.upload_images(project, samples)
    images = {int(row["id"]): str(row["data"]["image"]) for row in client.tasks(project, uploaded)}
    shown = list(images.values())
    rows = [{"data": {"image": shown[number % len(shown)], "number": number}} for number in range(count - len(shown))]
    return project, [*uploaded, *client.import_tasks(project, rows)], images


def truths(dataset: Dataset) -> dict[str, list[dict[str, Any]]]:
    """File name -> the regions of its true mask."""
    label_map = parse_label_config(label_config(dataset))
    truth = dataset.truth()
    names = [sample.image.name for split in dataset.splits.values() for sample in split]
    return {name: write_result(truth.read(truth.find(name), label_map), label_map, minimum_area=0) for name in names}


def make_accounts(url: str, client: LabelStudio, count: int) -> list[dict[str, Any]]:
    """Let people follow the organisation's invitation; each has the session of a browser."""
    invitation = client.transport.json("GET", "/api/invite")["invite_url"]

    def sign_up(number: int, attempt: int = 1) -> dict[str, Any]:
        session, address = requests.Session(), f"{url}{invitation}"
        (secret,) = set(re.findall(r'name="csrfmiddlewaretoken" value="([^"]+)"', session.get(address).text))
        fields = {
            "email": f"annotator-{number}-{attempt}@nextmask.local",
            "password": PASSWORD,
            "csrfmiddlewaretoken": secret,
        }
        answer = session.post(address, data=fields, headers={"Referer": address})
        if not answer.ok and attempt < 5:  # its database is locked now and then, while it counts the imported tasks
            time.sleep(2 * attempt)
            return sign_up(number, attempt + 1)
        answer.raise_for_status()
        return {"cookies": session.cookies.get_dict()}

    return [sign_up(number) for number in range(count)]


def wait_until_up(url: str) -> None:
    for _ in range(240):
        with suppress(requests.ConnectionError):
            if requests.get(f"{url}/health", timeout=5).ok:
                return
        time.sleep(0.5)
    raise SystemExit("nextmask did not start")


# -- memory and processor time ---------------------------------------------------------------------------------------
@dataclass
class Watch:
    """Reads memory and processor time of processes every few seconds."""

    processes: Any
    every: float = 3.0
    rows: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self._used: dict[int, tuple[str, float]] = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        ended, begin = threading.Event(), time.monotonic()
        before = {pid: seconds for pids in self.processes().values() for pid in pids if (seconds := cpu_seconds(pid))}

        def read() -> None:
            while not ended.wait(self.every):
                self._read(time.monotonic() - begin, before)

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self.seconds = time.monotonic() - begin

    def _read(self, at: float, before: dict[int, float]) -> None:
        row: dict[str, Any] = {"seconds": round(at, 1), "load_average": os.getloadavg()[0]}
        for name, pids in self.processes().items():
            sizes = [size for pid in pids if (size := resident_bytes(pid))]
            row[name] = round(sum(sizes) / 1e6, 2) if sizes else None
            for pid in pids:
                with suppress(OSError):
                    self._used[pid] = (name, cpu_seconds(pid) - before.get(pid, 0.0))
        self.rows.append(row)

    def memory(self) -> dict[str, dict[str, float]]:
        """Per process: megabytes at most and at the end, and the growth per hour with its interval."""
        memory = {}
        for name in ("server", "worker", "training"):
            points = [(row["seconds"], row[name]) for row in self.rows if row[name] is not None]
            if not points:
                continue
            memory[name] = {"most": max(size for _, size in points), "last": points[-1][1]}
            if name != "training":  # each training is a new process
                memory[name] |= growth([at for at, _ in points], [size for _, size in points])
        return memory

    def cores(self) -> dict[str, float]:
        """Mean number of processor cores that each kept busy."""
        total: dict[str, float] = defaultdict(float)
        for name, seconds in self._used.values():
            total[name] += seconds
        return {name: round(seconds / self.seconds, 2) for name, seconds in total.items()}

    def share(self, name: str) -> float:
        """Share of the time in which there was such a process."""
        return round(sum(row[name] is not None for row in self.rows) / max(1, len(self.rows)), 3)

    def load_average(self) -> float:
        return round(float(np.mean([row["load_average"] for row in self.rows])), 2)


def growth(seconds: Sequence[float], megabytes: Sequence[float]) -> dict[str, float]:
    """Fit a line to the last two thirds, through means of `SPANS` spans: MB per hour, half a 95 % interval."""
    at, size = np.asarray(seconds) / 3600, np.asarray(megabytes)
    begin = at[0] + WARM_UP * (at[-1] - at[0])
    span = np.minimum(((at - begin) / (at[-1] - begin) * SPANS).astype(int), SPANS - 1)
    chosen = [(at >= begin) & (span == number) for number in range(SPANS)]
    times, means = zip(*((at[part].mean(), size[part].mean()) for part in chosen if part.any()), strict=True)
    line = stats.linregress(times, means)
    half = float(stats.t.ppf(0.975, len(times) - 2) * line.stderr)
    return {"growth_per_hour": round(float(line.slope), 2), "growth_interval": round(half, 2)}


def resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def cpu_seconds(pid: int) -> float:
    """Processor seconds of a process, without those of its children."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children(pid: int) -> list[int]:
    children: list[int] = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            children += map(int, listed.read_text().split())
    return children


def family(pid: int) -> Iterator[int]:
    yield pid
    for child in children(pid):
        yield from family(child)


# -- results ---------------------------------------------------------------------------------------------------------
def read_answers(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="") as file:
        rows = csv.reader(file)
        return [{"at": float(at), "name": name, "ms": float(ms), "error": error} for at, name, ms, _, error in rows]


def summary(answers: Sequence[dict[str, Any]], phase: str) -> list[dict[str, Any]]:
    by_name: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in answers:
        by_name[row["name"]].append(row)
    return [of_one(name, rows, phase) for name, rows in sorted(by_name.items())]


def of_one(name: str, rows: Sequence[dict[str, Any]], phase: str) -> dict[str, Any]:
    seconds = np.asarray([row["ms"] for row in rows]) / 1000
    limit = LIMITS.get(name)
    errors = [row["error"] for row in rows if row["error"]]
    return {
        "phase": phase,
        "who": "Label Studio" if name in HOST_CALLS else "nextmask",
        "name": name,
        "count": len(rows),
        "errors": len(errors),
        "error": max(set(errors), key=errors.count)[:200] if errors else "",
        "p50": round(float(np.quantile(seconds, 0.5)), 4),
        "p99": round(float(np.quantile(seconds, 0.99)), 4),
        "most": round(float(seconds.max()), 4),
        "limit": limit or "",
        "late": "" if limit is None else int((seconds > limit).sum()),
    }


def machine() -> dict[str, Any]:
    names = [
        line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "name" in line
    ]
    return {"cores": os.cpu_count(), "processor": names[0] if names else platform.processor()}


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def tables(report: dict[str, Any]) -> str:
    """The results in Markdown, as docs/reliability.md has them."""
    lines = ["| Who answers | What | Answers | p50 | p99 | Longest | Time-out | Later than that | Errors |"]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for row in report["answers"]:
        who = row["who"] if row["phase"] == "with nextmask" else row["phase"]
        limit = f"{row['limit']:g} s" if row["limit"] else ""
        times = " | ".join(f"{row[key]:.3f} s" for key in ("p50", "p99", "most"))
        lines.append(
            f"| {who} | {row['name']} | {row['count']} | {times} | {limit} | {row['late']} | {row['errors']} |"
        )
    lines += ["", "| Process | Cores busy | Memory at most | Growth per hour (95 % interval) |", "|---|---|---|---|"]
    for name, cores in report["cores"].items():
        memory = report["memory"].get(name, {})
        most = f"{memory['most']:.0f} MB" if memory else ""
        grows = f"{memory['growth_per_hour']:+.1f} ± {memory['growth_interval']:.1f} MB" if len(memory) > 2 else ""
        lines.append(f"| {name} | {cores:.2f} | {most} | {grows} |")
    r = report
    known = ["labelled_in_label_studio", "labelled_in_nextmask", "labels_in_newest_version"]
    summary = (
        f"{r['seconds'] / 60:.0f} min, {r['options']['annotators']} annotators, {r['machine']['cores']} cores, mean"
        f" load {r['load_average']:.1f}. A training was under way {r['training_share']:.0%} of the time;"
        f" {r['trainings']} ended. Labelled tasks: {' / '.join(str(r[name]) for name in known)} (in Label Studio, known"
        " to nextmask, in the newest version)."
    )
    return "\n".join([*lines, "", summary])


if __name__ == "__main__":
    main()
