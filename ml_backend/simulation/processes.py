"""Running a simulation: runs side by side in processes of their own, rows written as they come.

Runs are ordered by seed, so that a simulation that is stopped early has compared all strategies on as many seeds.
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_backend.datasets import Dataset
from ml_backend.errors import ConfigurationError, NextmaskError, TrainingError
from ml_backend.learning.training.process import die_with
from ml_backend.simulation import results
from ml_backend.simulation.plan import Contender, Plan
from ml_backend.simulation.report.names import file_name
from ml_backend.simulation.results import FULL, Row

RESULTS = "results.csv"
_WAIT_SECONDS = 1.0

Told = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Run:
    """A strategy and a seed, of which `done` rows are there already."""

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


def run(plan: Plan, dataset: Dataset, folder: Path, *, jobs: int, on_row: Callable[[Row], None], told: Told) -> None:
    """Make the missing rows of a simulation.

    Args:
        folder: of the results, and of what a stopped simulation goes on from.
        jobs: processes; each holds the data in memory, and works with one thread where there are several.
        on_row: called with each row when it is written.
        told: called with (what is being done, done, total) while the data are read.

    Raises:
        ConfigurationError: the plan does not fit the data, or the rows that are there.
        TrainingError: a run failed; the others were finished.
    """
    with _alone(folder):
        file = folder / RESULTS
        runs = missing(plan, dataset.name, results.read(file))
        if runs:
            _make(runs, plan, dataset, folder, jobs=jobs, on_row=on_row, told=told)


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


def _make(
    runs: Sequence[Run],
    plan: Plan,
    dataset: Dataset,
    folder: Path,
    *,
    jobs: int,
    on_row: Callable[[Row], None],
    told: Told,
) -> None:
    file = folder / RESULTS
    context = multiprocessing.get_context("spawn")
    waiting, found = context.Queue(), context.Queue()
    for one in runs:
        waiting.put(one)
    workers = [
        context.Process(
            target=_work, args=(plan, dataset, work_folder(folder, dataset, plan), commit(), waiting, found, jobs > 1)
        )
        for _ in range(min(jobs, len(runs)))
    ]
    try:
        _start(workers, waiting)
        problems = _collect(workers, found, file, on_row, told)
    finally:
        waiting.cancel_join_thread()  # what nobody takes any more must not keep us
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


def _collect(workers: Sequence[Any], found: Any, file: Path, on_row: Callable[[Row], None], told: Told) -> list[str]:
    """Write rows until all workers are done; return what went wrong."""
    problems: list[str] = []
    running = len(workers)
    while running:
        try:
            kind, value = found.get(timeout=_WAIT_SECONDS)
        except queue.Empty:
            dead = [worker for worker in workers if worker.exitcode not in (None, 0)]
            if dead and found.empty():
                raise TrainingError(
                    f"A process of the simulation ended with exit code {dead[0].exitcode}; with -9 the memory was not "
                    "enough: give fewer --jobs, or a smaller --input-size. Run the same command again to go on."
                ) from None
            continue
        if kind == "row":
            results.append(file, value)
            on_row(value)
        elif kind == "reading":
            told(*value)
        elif kind == "problem":
            problems.append(value)
        elif kind == "refused":
            raise ConfigurationError(value)
        else:
            running -= 1
    return problems


def _work(plan: Plan, dataset: Dataset, folder: Path, code: str, waiting: Any, found: Any, one_thread: bool) -> None:
    """Take runs until there are no more: a worker's life."""
    import torch

    from ml_backend.simulation.checks import read
    from ml_backend.simulation.experiment import Experiment

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told, and ends us
    die_with(os.getppid())
    if one_thread:  # several processes would share the cores
        torch.set_num_threads(1)
    try:
        material = read(plan, dataset, lambda *at: found.put(("reading", at)))
        experiment = Experiment(plan, material, folder, code)
    except NextmaskError as error:
        found.put(("refused", str(error)))
        return
    while (one := waiting.get()) is not None:
        try:
            for row in experiment.rows(one.contender, one.seed, one.done):
                found.put(("row", row))
        except Exception as error:  # noqa: BLE001 (one run's failure is not the others')
            found.put(("problem", f"{one.contender.label}, seed {one.seed}: {type(error).__name__}: {error}"))
    found.put(("done", None))


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
    found = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)  # noqa: S603, S607
    return found.stdout.strip()


def work_folder(folder: Path, dataset: Dataset, plan: Plan) -> Path:
    """Return where a simulation whose results are in `folder` keeps what stopped runs go on from."""
    return folder / "work" / f"{file_name(dataset.name)}-{plan.digest()}"


def _check_settings(plan: Plan, dataset: str, rows: Sequence[Row]) -> None:
    """Rows of other settings must not be mixed with those of this plan."""
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
    """Return settings, those of the recipe among them, by name; all under one name where they are no object."""
    if not isinstance(settings, dict):
        return {"settings": settings}
    return {name: value for name, value in settings.items() if name != "recipe"} | dict(settings.get("recipe", {}))
