"""kill -9 at random moments, again and again: every submitted label is trained on, and nothing is done twice.

`--kills` says how often, `--seed` repeats a run. The distribution of the kills over the stages of the loop is printed
(`-s` shows it), and belongs into docs/reliability.md.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from invariants import wait_without_errors
from kills import LABELS_PER_KILL, Annotator, Chaos, left_over, processes_of
from processes import children, wait_for
from shapes import make_shapes
from steps import predictions
from support import Nextmask

from ml_backend.annotations.masks import mask_from_png
from ml_backend.label_studio import LabelStudio

pytestmark = [pytest.mark.live, pytest.mark.timeout(3 * 3600)]

SPARE = 12
"""Images that stay unlabelled, so that there is always something to rank and publish."""


def test_kills_at_random_moments(
    request: pytest.FixtureRequest,
    make_nextmask: Callable[..., Nextmask],
    label_studio: LabelStudio,
    make_project: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kills = int(request.config.getoption("--kills"))
    seed = request.config.getoption("--seed")
    seed = int.from_bytes(os.urandom(4)) if seed is None else int(seed)
    print(f"\nkills={kills} seed={seed}")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    count = round(LABELS_PER_KILL * kills) + SPARE
    data = make_shapes(tmp_path / "shapes", count)
    project = make_project(images=count, dataset=data)
    nextmask = make_nextmask()
    nextmask.connect(project, train_after=3, audit_share=0.25, queue_window=10)
    nextmask.wait_settled(project)

    annotator = Annotator(label_studio, project, data, seed)
    annotator.start()
    chaos = Chaos(nextmask, project, annotator, seed)
    chaos.run(kills)
    annotator.finish()
    print(chaos.report())
    assert len(chaos.kills) == kills
    assert annotator.problems == []
    submitted = annotator.masks
    before = nextmask.services.checkpoints(project).latest()
    print(f"labels={len(submitted)} trainings between the kills={before.number if before else 0}")

    # Whatever happened: the next training is on exactly what people submitted, as they submitted it last.
    nextmask.services.store.wake(project, train=True)
    wait_for(lambda: nextmask.services.store.project(project).train_requested_at is None, seconds=300, name="training")
    status = nextmask.wait_settled(project)
    latest = nextmask.services.checkpoints(project).latest()
    assert latest
    assert latest.number > (before.number if before else 0)
    assert set(latest.record.labels) == {str(task) for task in submitted}, (
        "a label was lost, or one that was deleted stayed"
    )
    assert latest.record.skipped == {}
    tasks = {task.task_id: task for task in nextmask.services.store.tasks(project)}
    for task, mask in submitted.items():
        png = nextmask.services.files.read(tasks[task].mask_file)
        assert hashlib.sha256(png).hexdigest() == latest.record.labels[str(task)]
        assert np.array_equal(mask_from_png(png), mask), f"task {task} was trained with another mask than was submitted"

    # Nothing was done twice: neither in Label Studio, nor here.
    carried = Counter((row["task"], row["model_version"]) for row in predictions(label_studio, project))
    assert set(carried.values()) == {1}, f"doubled predictions: {[key for key, n in carried.items() if n > 1]}"
    versions = nextmask.services.checkpoints(project).versions()
    digests = Counter(version.record.data_digest for version in versions[:-1])
    assert set(digests.values()) <= {1}, "the same labels were trained on twice"

    # Store, disk and Label Studio say the same.
    assert nextmask.services.checkpoints(project).damaged() == {}
    wait_without_errors(nextmask, project)
    assert set(tasks) == set(label_studio.task_ids(project))
    assert label_studio.project(project)["model_version"] == status.version
    unlabelled = {task.task_id for task in tasks.values() if task.status == "unlabelled"}
    queue = label_studio.tasks_with_prediction(project, status.version)
    assert status.queue == len(queue & unlabelled) >= min(5, len(unlabelled))
    with closing(sqlite3.connect(nextmask.settings.model_dir / "nextmask.sqlite3")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

    # Nobody and nothing is left behind.
    assert nextmask.process
    server = nextmask.process.pid
    (worker,) = children(server)
    wait_for(lambda: processes_of(nextmask.settings.model_dir) == [server, worker], name="the end of all others")
    state = nextmask.settings.model_dir
    used = {Path(file).name for task in tasks.values() for file in (task.mask_file, task.effort_file) if file}
    masks = state / "projects" / str(project) / "masks"
    assert {path.name for path in masks.iterdir()} == used
    assert [path for path in left_over(state) if "/images/" not in path] == []
    # A file half fetched is another process's business for an hour; then the next fetch removes it.
    assert len(left_over(state / "images")) <= kills
    assert {path.name for path in temporary.iterdir()} <= {f"torchinductor_{getpass.getuser()}"}, "torch's own cache"
