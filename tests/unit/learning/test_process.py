"""Training in a process of its own: what it gives back, and who dies with whom."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from processes import children, is_running, wait_for
from small_training import FOREVER, ROOT, once_under_way, run, small_job

from ml_backend.errors import LeaseLost, TrainingError
from ml_backend.learning.checkpoints import Checkpoints
from ml_backend.learning.training import Progress
from ml_backend.learning.training import process as training_process


def test_it_trains(tmp_path: Path) -> None:
    shown: list[Progress] = []
    beats: list[float] = []
    number = run(small_job(tmp_path), progress=shown.append, heartbeat=lambda: beats.append(time.monotonic()))
    version = Checkpoints(tmp_path / "models").get(number)
    assert version.record.measures["iterations"] == 2
    assert Progress("reading", 2, 2) in shown
    assert [(step.done, step.total) for step in shown if step.stage == "training"][-1] == (2, 2)
    assert all(later - earlier < 4 for earlier, later in itertools.pairwise(beats))


def test_the_parent_needs_no_torch() -> None:
    code = "import sys, ml_backend.learning.training.process as _; assert not {'torch', 'numpy'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_killed_child_is_an_error(tmp_path: Path) -> None:
    niceness: list[int] = []

    def kill(child: int) -> None:
        niceness.append(os.getpriority(os.PRIO_PROCESS, child))
        os.kill(child, signal.SIGKILL)

    with pytest.raises(TrainingError, match=r"was ended by SIGKILL.*memory.*NEXTMASK_BATCH_SIZE"):
        run(small_job(tmp_path, iterations=FOREVER), progress=once_under_way(kill))
    assert Checkpoints(tmp_path / "models").versions() == []
    assert niceness == [min(19, os.nice(0) + 10)]  # serving goes first


def test_a_crash_is_said_in_one_line_and_logged(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TrainingError, match=r"^Training failed: TypeError: .* The log has the details\.$"):
        run(small_job(tmp_path, dropout="a lot"))
    assert "Traceback" in capfd.readouterr().err


def test_a_training_that_hangs_is_ended(tmp_path: Path) -> None:
    before = set(children())
    stop = once_under_way(lambda child: os.kill(child, signal.SIGSTOP))
    with pytest.raises(TrainingError, match=r"Training was ended: nothing was heard of it for 0\.05 minutes"):
        run(small_job(tmp_path, iterations=FOREVER), progress=stop, silence=3.0)
    assert set(children()) <= before


def test_a_lost_lease_ends_the_child(tmp_path: Path) -> None:
    pids: list[int] = []

    def heartbeat() -> None:
        if pids:
            raise LeaseLost("another worker has it")

    with pytest.raises(LeaseLost):
        run(small_job(tmp_path, iterations=FOREVER), progress=once_under_way(pids.append), heartbeat=heartbeat)
    assert not is_running(pids[0])


PARENT = """
import sys
from pathlib import Path
from ml_backend.learning.training import process as training_process
from ml_backend.learning.training import Job
job = Job.from_json(Path(sys.argv[1]).read_text())
def progress(shown):
    print("under way", flush=True)
training_process.run(job, progress=progress, heartbeat=lambda: None)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_the_child_dies_with_its_parent(tmp_path: Path, how: signal.Signals) -> None:
    (tmp_path / "job.json").write_text(small_job(tmp_path, iterations=FOREVER).to_json())
    command = [sys.executable, "-c", PARENT, str(tmp_path / "job.json")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"under way\n"
        (child,) = children(parent.pid)
        assert is_running(child)
        parent.send_signal(how)
    wait_for(lambda: not is_running(child))


WATCHED = """
import os, subprocess, sys, time
from ml_backend.system.processes import die_with
sys.platform = "elsewhere"  # no order to the kernel, only the watch
die_with(os.getppid())
print(os.getpid(), flush=True)
time.sleep(600)
"""


def test_the_watch_works_without_the_kernel(tmp_path: Path) -> None:
    # a shell that waits stands between, and is killed
    command = ["sh", "-c", '"$0" -c "$1"; true', sys.executable, WATCHED]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as shell:
        assert shell.stdout is not None
        child = int(shell.stdout.readline())
        shell.kill()
        wait_for(lambda: not is_running(child))


def test_serve_answers_in_messages(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    messages: list[dict[str, Any]] = []
    assert training_process.serve(small_job(tmp_path, iterations=1).to_json(), messages.append) == 0
    assert messages[-1] == {"version": 1}
    reached = {"done": 1, "total": 1, "loss": pytest.approx(1.5, abs=1), "held_out": ""}
    step = {"stage": "training", **reached, "member": 0, "members": 0, "seconds_left": 0.0}
    assert {"progress": step} in messages
    messages.clear()
    caplog.clear()
    assert training_process.serve(small_job(tmp_path, device="tpu").to_json(), messages.append) == 1
    assert not caplog.records  # expected: no traceback
    assert "NEXTMASK_DEVICE" in messages[-1]["error"]
    messages.clear()
    assert training_process.serve("{", messages.append) == 1
    assert "JSONDecodeError" in messages[-1]["error"]
    assert "Traceback" in caplog.text
    assert json.dumps(messages)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you"),
    ],
)
def test_running_out_of_memory_has_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("ml_backend.learning.training.train", fail)
    messages: list[dict[str, Any]] = []
    assert training_process.serve(small_job(tmp_path).to_json(), messages.append) == 1
    assert messages[-1]["error"].startswith("Training ran out of memory")
    assert "lower NEXTMASK_BATCH_SIZE" in messages[-1]["error"]
