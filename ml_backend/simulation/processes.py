"""Running a simulation: runs side by side in processes of their own, rows written as they come.

Runs are ordered by seed, so that a simulation that is stopped early has all strategies with the same number of seeds.
"""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import queue
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ml_backend.datasets import Dataset
from ml_backend.errors import ConfigurationError, NextmaskError, TrainingError
from ml_backend.simulation import results
from ml_backend.simulation.plan import Contender, Plan
from ml_backend.simulation.report.names import file_name
from ml_backend.simulation.results import FULL, RESULTS, Row
from ml_backend.system.processes import die_with

WAIT_SECONDS = 1.0
"""Time between two looks at whether a process has died."""


class Audience(Protocol):
    """Who is told how a simulation goes on."""

    def reading(self, what: str, done: int, total: int) -> None:
        """Be told how many images were read; each process reads them."""

    def budget(self, text: str) -> None:
        """Be told what a round adds, in a sentence, by each process that has read the data."""

    def row(self, row: Row) -> None:
        """Be told of a row that was written."""


@dataclass(frozen=True)
class Run:
    """A strategy and a seed, of which `done` rows are written already."""

    contender: Contender
    seed: int
    done: int


def missing(plan: Plan, dataset: str, rows: Sequence[Row]) -> list[Run]:
    """Return the runs that lack rows, seed by seed.

    Raises:
        ConfigurationError: rows of the data set were made with other settings.
    """
    _check_settings(plan, dataset, rows)
    there = Counter((row.strategy, row.seed) for row in rows if row.dataset == dataset)
    contenders = {contender.label: contender for contender in plan.strategies}  # each once
    runs = []
    for seed in plan.seeds:
        for contender in contenders.values():
            done = there[contender.label, seed]
            if done < (1 if contender.name == FULL else plan.rounds + 1):
                runs.append(Run(contender, seed, done))
    return runs


def run(plan: Plan, dataset: Dataset, folder: Path, *, jobs: int, audience: Audience) -> None:
    """Make the missing rows of a simulation.

    Args:
        folder: of the results, and of what a stopped simulation continues from.
        jobs: number of processes; each holds the data in memory, and has a single thread where there are several.

    Raises:
        ConfigurationError: the plan does not fit the data, or the rows that are there.
        TrainingError: a run failed; the others are finished.
    """
    with _alone(folder):
        file = folder / RESULTS
        runs = missing(plan, dataset.name, results.read(file))
        if runs:
            _make(runs, plan, dataset, folder, jobs=jobs, audience=audience)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep a second simulation out of the folder; the kernel lets go of it, also when this process is killed."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigurationError(
                f"Another simulation is writing to {folder}. Wait until it ends, or give another --out; with "
                "--jobs one simulation uses several processes."
            ) from None
        yield


def _make(runs: Sequence[Run], plan: Plan, dataset: Dataset, folder: Path, *, jobs: int, audience: Audience) -> None:
    file = folder / RESULTS
    context = multiprocessing.get_context("spawn")
    waiting, answers = context.Queue(), context.Queue()
    for own in runs:
        waiting.put(own)
    workers = [
        context.Process(
            target=_work, args=(plan, dataset, work_folder(folder, dataset, plan), commit(), waiting, answers, jobs > 1)
        )
        for _ in range(min(jobs, len(runs)))
    ]
    try:
        _start(workers, waiting)
        problems = collect(workers, answers, file, audience)
    finally:
        waiting.cancel_join_thread()  # runs that nobody takes any more must not block the end
        for worker in workers:
            if worker.pid is not None:
                worker.terminate()
                worker.join()
    if problems:
        raise TrainingError(f"{len(problems)} of {len(runs)} runs failed; the first: {problems[0]}")


def _start(workers: Sequence[Any], waiting: Any) -> None:
    """Start workers that take no notice of Ctrl-C, which reaches the whole process group: their parent ends them."""
    own = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if own else None
    try:
        for worker in workers:
            waiting.put(None)
            worker.start()
    finally:
        if own:
            signal.signal(signal.SIGINT, before)


def collect(workers: Sequence[Any], answers: Any, file: Path, audience: Audience) -> list[str]:
    """Write the rows that workers send until all are done; return what went wrong in runs, a line each.

    Args:
        workers: processes; only their `exitcode` is read.
        answers: queue of (kind, value) that they send.
        file: of results.

    Raises:
        ConfigurationError: the plan does not fit the data.
        TrainingError: a worker died.
    """
    problems: list[str] = []
    running = len(workers)
    while running:
        try:
            kind, value = answers.get(timeout=WAIT_SECONDS)
        except queue.Empty:
            dead = [worker for worker in workers if worker.exitcode not in (None, 0)]
            if dead and answers.empty():
                raise TrainingError(
                    f"A process of the simulation ended with exit code {dead[0].exitcode}; with -9 the memory was not "
                    "enough: give fewer --jobs, or a smaller --input-size. Run the same command again to continue."
                ) from None
            continue
        if kind == "row":
            results.append(file, value)
            audience.row(value)
        elif kind == "reading":
            audience.reading(*value)
        elif kind == "budget":
            audience.budget(value)
        elif kind == "problem":
            problems.append(value)
        elif kind == "refused":
            raise ConfigurationError(value)
        else:
            running -= 1
    return problems


def _work(plan: Plan, dataset: Dataset, folder: Path, code: str, waiting: Any, answers: Any, single: bool) -> None:
    """Take runs until there are no more: the work of a process, with a single thread or as many as there are cores."""
    import torch

    from ml_backend.simulation.checks import budget_text, read
    from ml_backend.simulation.experiment import Experiment

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent receives it, too, and ends this process
    die_with(os.getppid())
    if single:  # several processes would share the cores
        torch.set_num_threads(1)
    try:
        material = read(plan, dataset, lambda *at: answers.put(("reading", at)))
        answers.put(("budget", budget_text(plan, material)))
        experiment = Experiment(plan, material, folder, code)
    except NextmaskError as error:
        answers.put(("refused", str(error)))
        return
    while (run := waiting.get()) is not None:
        try:
            for row in experiment.rows(run.contender, run.seed, run.done):
                answers.put(("row", row))
        except Exception as error:  # noqa: BLE001 (one run's failure is not the others')
            answers.put(("problem", f"{run.contender.label}, seed {run.seed}: {type(error).__name__}: {error}"))
    answers.put(("done", None))


def commit() -> str:
    """Return the commit of the code that runs, "+" at its end with changes beside it; empty outside a checkout."""
    here = Path(__file__).parent
    try:
        head = _git(here, "rev-parse", "--short=10", "HEAD")
        _git(here, "ls-files", "--error-unmatch", Path(__file__).name)  # it may be installed in another repository
        return head + ("+" if _git(here, "status", "--porcelain", "--", "../..") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _git(folder: Path, *arguments: str) -> str:
    ended = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)  # noqa: S603, S607
    return ended.stdout.strip()


def work_folder(folder: Path, dataset: Dataset, plan: Plan) -> Path:
    """Return where a simulation whose results are in `folder` keeps what stopped runs continue from."""
    return folder / "work" / f"{file_name(dataset.name)}-{plan.digest()}"


def _check_settings(plan: Plan, dataset: str, rows: Sequence[Row]) -> None:
    """Raise ConfigurationError where rows of the data set have other settings than this plan."""
    own = plan.settings_text()
    for row in rows:
        if row.dataset == dataset and row.settings != own:
            raise ConfigurationError(
                f"The results file has rows of {dataset!r} with other settings ({_differing(row.settings, own)}). Give "
                "another --out, or the same settings."
            )


def _differing(there: str, wanted: str) -> str:
    """Name the settings that differ, with both values."""
    old, new = _flat(json.loads(there)), _flat(json.loads(wanted))
    missing = "not set"
    return ", ".join(
        f"{name}: {old.get(name, missing)} there, {new.get(name, missing)} now"
        for name in sorted({*old, *new})
        if old.get(name, missing) != new.get(name, missing)
    )


def _flat(settings: Any) -> dict[str, Any]:
    """Return settings by name, those of the recipe among them."""
    if not isinstance(settings, dict):
        return {"settings": settings}
    return {name: value for name, value in settings.items() if name != "recipe"} | dict(settings.get("recipe", {}))
