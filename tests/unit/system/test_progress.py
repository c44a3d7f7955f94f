"""Progress of long work: lines where nobody watches a bar, and a bar that leaves a line behind."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import time

import pytest
from rich.console import Console
from wiring import Clock

from ml_backend.system import progress
from ml_backend.system.progress import is_watched, step


class Flushed(io.StringIO):
    """A file that remembers what it held whenever it was flushed."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = ""

    def flush(self) -> None:
        self.reached = self.getvalue()


@pytest.fixture
def clock() -> Clock:
    made = Clock()
    made.now = 0.0
    return made


@pytest.fixture
def file() -> Flushed:
    return Flushed()


@pytest.fixture
def console(file: Flushed) -> Console:
    return Console(file=file, width=40)


def test_a_step_says_when_it_begins_and_how_long_it_took(console: Console, file: Flushed, clock: Clock) -> None:
    with step(console, "starting [b]Label Studio", clock=clock):
        assert file.reached == "starting [b]Label Studio …\n"  # at once, and as it is
        clock.now = 75.0
    assert file.reached.splitlines()[1:] == ["starting [b]Label Studio: done in 1:15 min"]


def test_the_time_that_is_left_is_what_is_told_where_it_is_told(console: Console, file: Flushed, clock: Clock) -> None:
    with step(console, "project 1", clock=clock) as shown:
        shown.update(0, 100, "training")
        for done, ends in ((10, time.time() + 90.4), (20, None)):
            clock.now += 30.0
            shown.update(done, ends=ends)
    lines = file.reached.splitlines()
    assert "project 1: training: 10 of 100, 30 s so far, about 1:30 min left" in lines
    assert "project 1: training: 20 of 100, 1:00 min so far, about 4:00 min left" in lines  # at the pace until now


def test_each_tenth_is_a_line_with_the_time_that_is_left(console: Console, file: Flushed, clock: Clock) -> None:
    with step(console, "uploading", 200, clock=clock) as shown:
        for done in range(1, 201):
            clock.now = done / 2
            shown.update(done)
    lines = file.reached.splitlines()
    assert lines[1:3] == [
        "uploading: 20 of 200, 10 s so far, about 1:30 min left",
        "uploading: 40 of 200, 20 s so far, about 1:20 min left",
    ]
    assert lines[-2:] == ["uploading: 200 of 200, 1:40 min so far", "uploading: done in 1:40 min"]
    assert len(lines) == 12


def test_work_that_counts_quickly_does_not_fill_the_log(console: Console, file: Flushed, clock: Clock) -> None:
    with step(console, "reading", 1000, clock=clock) as shown:
        for _ in range(1000):
            clock.now += 0.001
            shown.advance()
    assert file.reached.splitlines() == ["reading …", "reading: done in 1 s"]


def test_parts_that_alternate_keep_their_pace(console: Console, file: Flushed, clock: Clock) -> None:
    """A training is measured every few steps: the time that is left is that of steps and measurements together."""
    with step(console, "round 1", clock=clock) as shown:
        for done in range(0, 50, 5):
            clock.now = 2.0 * done
            shown.update(done, 50, "training")
            clock.now += 5.0
            shown.update(2, 2, "measuring")
    lines = file.reached.splitlines()
    assert lines[:4] == [
        "round 1 …",
        "round 1: training …",
        "round 1: measuring …",
        "round 1: training: 5 of 50, 10 s so far, about 1:30 min left",
    ]
    assert lines[-2] == "round 1: training: 45 of 50, 1:30 min so far, about 10 s left"
    assert sum("measuring" in line for line in lines) == 1


def test_silence_is_broken_by_a_line(
    console: Console, file: Flushed, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.05)
    with step(console, "waiting") as shown:
        deadline = time.monotonic() + 30
        while file.reached.count("so far") < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        shown.update(3, 0, "syncing")
    lines = file.reached.splitlines()
    assert all(re.fullmatch(r"waiting: \d+ s so far", line) for line in lines[1:3])
    assert lines[-2] == "waiting: syncing …"
    before = file.reached
    time.sleep(0.2)
    assert file.reached == before  # nothing is told of a step that is over


def test_a_step_that_fails_says_where(console: Console, file: Flushed, clock: Clock) -> None:
    def interrupted() -> None:
        with step(console, "round 1", clock=clock) as shown:
            shown.update(3, 9, "training")
            clock.now = 12.0
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert file.reached.splitlines()[-1] == "round 1: training: stopped after 12 s"


@pytest.mark.parametrize("name", ["FORCE_COLOR", "TTY_COMPATIBLE"])
def test_forced_colours_make_no_terminal_of_a_file(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    console = Console(file=io.StringIO())
    assert console.is_terminal
    assert not is_watched(console)


def test_on_a_terminal_a_bar_leaves_a_line() -> None:
    code = (
        "import time; from rich.console import Console; from ml_backend.system.progress import step\n"
        "with step(Console(), 'uploading', 4) as shown:\n"
        "    for _ in range(3): time.sleep(0.3); shown.advance()\n"
        "try:\n"
        "    with step(Console(), 'training'): raise ValueError\n"
        "except ValueError: pass\n"
    )
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "PYTHONPATH": ":".join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    while chunk := _read(ours):
        shown += chunk
    os.close(ours)
    assert process.wait() == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert re.search(r"uploading .*3 of 4, about \d+ s left", text)
    assert re.search(r"✓ uploading: \d+ s", text)
    assert re.search(r"✗ training: stopped after \d+ s", text)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the other end is closed
        return b""
