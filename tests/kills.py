"""kill -9 at random moments of a running loop, while a simulated annotator labels.

One `Chaos` owns a running nextmask and a project. It waits for a stage of the loop (they are taken in turn, in random
order, so that all are hit), lets some more milliseconds pass, notes the stage at that moment, and kills: the worker,
the training process, the server, or all of them at once. Everything random comes from one seed.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import sqlite3
import threading
import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from processes import children, is_running, wait_for
from studio_client import StudioClient
from support import Nextmask

from ml_backend.annotations.label_map import parse_label_config
from ml_backend.annotations.masks import Mask, write_result
from ml_backend.datasets import Dataset
from ml_backend.demo.annotator import SimulatedAnnotator
from ml_backend.errors import NextmaskError

logger = logging.getLogger(__name__)

STAGES = ("syncing", "fetching images", "reading", "training", "measuring", "ranking", "publishing", "idle", "any")
"""What is waited for before a kill; "any" waits for nothing."""
TARGETS = ("worker", "worker", "training", "server", "group")
STAGE_SECONDS = 60.0
POLL_SECONDS = 0.005
LABELS_PER_KILL = 2.5


@dataclass(frozen=True)
class Kill:
    """One kill: what was killed, and the stage that the loop was in."""

    target: str
    stage: str


class Annotator(threading.Thread):
    """Labels what Label Studio serves; now and then corrects, deletes or skips one. Waits for permission each time.

    Attributes:
        masks: task id -> the mask that was submitted last; skipped tasks and deleted labels are not among them.
    """

    def __init__(self, client: StudioClient, project: int, dataset: Dataset, seed: int) -> None:
        super().__init__(name="annotator", daemon=True)
        self._client, self._project, self._random = client, project, random.Random(seed)
        self._truth = dataset.truth()
        self._label_map = parse_label_config(str(client.project(project)["label_config"]))
        self._person = SimulatedAnnotator(client, project, self._truth, self._label_map)
        self._permits, self._ended = threading.Semaphore(0), threading.Event()
        self.masks: dict[int, Mask] = {}
        self.problems: list[str] = []

    def permit(self, count: int) -> None:
        for _ in range(count):
            self._permits.release()

    def finish(self) -> None:
        """Do what is permitted, then end."""
        self._ended.set()
        self.join(120)
        assert not self.is_alive(), "the annotator hangs"

    def run(self) -> None:
        while True:
            if not self._permits.acquire(timeout=0.2):
                if self._ended.is_set():
                    return
                continue
            try:
                self._act()
            except (NextmaskError, AssertionError) as error:
                self.problems.append(f"{type(error).__name__}: {error}")

    def _act(self) -> None:
        chance = self._random.random()
        if chance < 0.1 and self.masks:
            self._draw_anew(self._random.choice(sorted(self.masks)))
        elif chance < 0.15 and self.masks:
            self._take_back(self._random.choice(sorted(self.masks)))
        elif chance < 0.2:
            task = self._client.next_task(self._project)
            if task is not None:
                self._client.skip_task(task["id"])
        else:
            self._label()

    def _label(self) -> None:
        for submission in self._person.annotate(1):
            assert not submission.error, submission.error
            self.masks[submission.task] = self._truth.read(self._truth.find(submission.image), self._label_map)

    def _annotation_of(self, task: int) -> int:
        (found,) = self._client.tasks(self._project, [task])
        return int(found["annotations"][0]["id"])

    def _draw_anew(self, task: int) -> None:
        mask = np.roll(self.masks[task], 2, axis=1)
        regions = write_result(mask, self._label_map, minimum_area=0)
        self._client.update_annotation(self._annotation_of(task), result=regions)
        self.masks[task] = mask

    def _take_back(self, task: int) -> None:
        self._client.delete_annotation(self._annotation_of(task))
        del self.masks[task]


class Chaos:
    """Kills parts of one nextmask."""

    def __init__(self, nextmask: Nextmask, project: int, annotator: Annotator, seed: int) -> None:
        self._nextmask, self._project, self._annotator = nextmask, project, annotator
        self._random = random.Random(seed)
        self._database = nextmask.settings.model_dir / "nextmask.sqlite3"
        self.kills: list[Kill] = []

    def run(self, count: int) -> None:
        stages: list[str] = []
        for _ in range(count):
            self._annotator.permit(int(LABELS_PER_KILL) + (self._random.random() < LABELS_PER_KILL % 1))
            if not stages:
                stages = self._random.sample(STAGES, len(STAGES))
            self._wait_for(stages.pop())
            time.sleep(self._random.choice([0.0, self._random.uniform(0, 0.05), self._random.uniform(0, 1.0)]))
            begun = time.monotonic()
            self._kill(self._random.choice(TARGETS))
            logger.info("%s, back after %.1f s", self.kills[-1], time.monotonic() - begun)

    def distribution(self) -> dict[str, Counter[str]]:
        """Return stage -> how often each target was killed in it."""
        found: dict[str, Counter[str]] = {}
        for kill in self.kills:
            found.setdefault(kill.stage, Counter())[kill.target] += 1
        return found

    def report(self) -> str:
        """Return the distribution as a table in Markdown."""
        targets = sorted(set(TARGETS))
        lines = [f"| stage | {' | '.join(targets)} | all |", f"|---|{'---:|' * (len(targets) + 1)}"]
        for stage, counts in sorted(self.distribution().items(), key=lambda item: -item[1].total()):
            cells = " | ".join(str(counts[target]) for target in targets)
            lines.append(f"| {stage} | {cells} | {counts.total()} |")
        return "\n".join(lines)

    def stage(self) -> str:
        """Return what the loop is doing."""
        with closing(sqlite3.connect(f"file:{self._database}?mode=ro", uri=True, timeout=10)) as connection:
            row = connection.execute("SELECT stage, lease_owner FROM projects WHERE id = ?", [self._project])
            stage, owner = row.fetchone()
        # What a dead worker was doing stands there until the next one begins.
        is_alive = owner is not None and is_running(int(owner.split(":")[1]))
        return (stage or "idle") if is_alive else "idle"

    def _wait_for(self, stage: str) -> None:
        until = time.monotonic() + STAGE_SECONDS
        while stage != "any" and self.stage() != stage and time.monotonic() < until:
            time.sleep(POLL_SECONDS)

    def _kill(self, target: str) -> None:
        server, worker = self._server(), self._worker()
        training = [child for one in worker for child in children(one)]
        if target == "training" and not training:
            target = "worker"
        if target == "worker" and not worker:
            target = "server"
        self.kills.append(Kill(target, self.stage()))
        victims = {"worker": worker, "training": training, "server": [server]}.get(target, [])
        if target == "group":
            os.killpg(server, signal.SIGKILL)
        for victim in victims:
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
        if target in ("server", "group"):
            assert self._nextmask.process
            self._nextmask.process.wait(10)
            wait_for(
                lambda: not any(is_running(pid) for pid in [*worker, *training]), seconds=30, name="the children's end"
            )
            self._nextmask.start()

    def _server(self) -> int:
        assert self._nextmask.process
        return self._nextmask.process.pid

    def _worker(self) -> list[int]:
        return children(self._server())


def processes_of(state: Path) -> list[int]:
    """Return the ids of all processes that work on a MODEL_DIR, whoever started them."""
    wanted, found = f"MODEL_DIR={state}".encode(), []
    for entry in Path("/proc").iterdir():
        with suppress(ValueError, OSError):
            pid = int(entry.name)
            if wanted in (entry / "environ").read_bytes().split(b"\0") and is_running(pid):
                found.append(pid)
    return sorted(found)


def left_over(folder: Path) -> list[str]:
    """Return the temporary files and folders below a folder that a killed process may have left."""
    names = (".part", ".unfinished-", "pseudo", ".parts-")
    return sorted(str(path) for path in folder.rglob("*") if any(name in path.name for name in names))
