"""Long work, shown to people: a bar on a terminal, and lines where a file or another program reads along.

Either way a line stays behind when a step is over, with the time that it took.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

QUIET_SECONDS: Final = 15.0
"""Without a terminal, work that goes on says so after this time; once it has taken five minutes, each minute."""
_LONG_WORK, _QUIET_IN_LONG_WORK = 300.0, 60.0
_LEAST_SECONDS = 2.0
"""Between two lines of work that counts quickly."""

Clock = Callable[[], float]


@dataclass
class _Part:
    """A part of the work.

    Attributes:
        began, first: when it was heard of first, and how many were done then.
        told: how many were done when a line said so; None before the first line.
        ends: when it will be over, as who works on it says, in seconds since the epoch; None: the pace tells.
    """

    began: float
    first: int
    done: int = 0
    total: int | None = None
    told: int | None = None
    ends: float | None = None


class Step(ABC):
    """Some work that takes long: what it does now, and how far that is; see `step`."""

    def __init__(self, console: Console, name: str, total: int | None, clock: Clock) -> None:
        self._console, self._name, self._clock = console, name, clock
        self._began = clock()
        self._what, self._part = "", _Part(self._began, 0, total=total or None)
        self._parts = {"": self._part}
        self._lock = threading.RLock()  # work may go on in several threads

    def update(
        self, done: int | None = None, total: int | None = None, what: str | None = None, *, ends: float | None = None
    ) -> None:
        """Show how far the work is.

        Args:
            done: how many of `total` are done.
            total: how many there are; 0 where that is not known. None, as of the others: as before.
            what: the part of the work that goes on. Parts may alternate; each has a pace of its own.
            ends: when this part will be over, in seconds since the epoch; None: what the pace until now tells.
        """
        with self._lock:
            self._what = self._what if what is None else what
            self._part = self._parts.setdefault(self._what, _Part(self._clock(), done or 0))
            self._part.done = self._part.done if done is None else done
            self._part.total = self._part.total if total is None else total or None
            self._part.ends = ends
            self._show()

    def advance(self) -> None:
        """Show that one more is done."""
        with self._lock:
            self.update(self._part.done + 1)

    def say(self, text: str) -> None:
        """Print a line of its own."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def left(self) -> str:
        """Return the time that is left, as told or at the pace until now, as text; empty where that is not known."""
        part = self._part
        if part.ends is not None:
            return f"about {duration(max(0.0, part.ends - time.time()))} left"
        done = part.done - part.first
        if part.total is None or done <= 0 or part.done >= part.total:
            return ""
        return f"about {duration((self._clock() - part.began) / done * (part.total - part.done))} left"

    @abstractmethod
    def begin(self) -> None:
        """Show that the work begins."""

    @abstractmethod
    def end(self, *, is_done: bool) -> None:
        """Say that the work is over, and how long it took."""

    @abstractmethod
    def _show(self) -> None: ...

    def _title(self) -> str:
        return f"{self._name}: {self._what}" if self._what else self._name

    def _count(self) -> str:
        if self._part.total:
            return f"{self._part.done:,} of {self._part.total:,}"
        return f"{self._part.done:,}" if self._part.done else ""

    def _spent(self) -> str:
        return duration(self._clock() - self._began)


class _Bar(Step):
    """A bar, in whose place a line is left when the work is over."""

    def begin(self) -> None:
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, TextColumn("{task.fields[count]}"), console=self._console, transient=True)
        self._line = self._bar.add_task(self._title(), total=self._part.total, count="")
        self._bar.start()

    def end(self, *, is_done: bool) -> None:
        self._bar.stop()
        self.say(f"✓ {self._name}: {self._spent()}" if is_done else f"✗ {self._title()}: stopped after {self._spent()}")

    def _show(self) -> None:
        count = ", ".join(filter(None, (self._count(), self.left())))
        done, total = self._part.done, self._part.total
        self._bar.update(self._line, description=self._title(), completed=done, total=total, count=count)


class _Lines(Step):
    """Lines: when the work begins, with each tenth of what it counts, when it was quiet for long, and at its end."""

    def begin(self) -> None:
        self._over = threading.Event()
        self.say(f"{self._name} …")
        threading.Thread(target=self._break_silence, name="progress", daemon=True).start()

    def end(self, *, is_done: bool) -> None:
        self._over.set()
        with self._lock:
            ended = f"{self._name}: done in" if is_done else f"{self._title()}: stopped after"
            self.say(f"{ended} {self._spent()}")

    def say(self, text: str) -> None:
        with self._lock:
            super().say(text)
            self._said_at, self._part.told = self._clock(), self._part.done

    def _show(self) -> None:
        part = self._part
        if part.told is None:
            self.say(f"{self._title()} …")
        elif part.total is not None and part.done - part.told >= part.total / 10 and self._is_calm():
            self._say_how_far()

    def _is_calm(self) -> bool:
        return self._clock() - self._said_at >= _LEAST_SECONDS

    def _break_silence(self) -> None:
        while not self._over.wait(self._until_due()):
            with self._lock:
                if self._until_due() <= 0 and not self._over.is_set():
                    self._say_how_far()

    def _until_due(self) -> float:
        now = self._clock()
        quiet = QUIET_SECONDS if now - self._began < _LONG_WORK else _QUIET_IN_LONG_WORK
        return max(0.0, self._said_at + quiet - now)

    def _say_how_far(self) -> None:
        parts = (self._count(), f"{self._spent()} so far", self.left())
        self.say(f"{self._title()}: {', '.join(filter(None, parts))}")


@contextmanager
def step(console: Console, name: str, total: int | None = None, *, clock: Clock = time.monotonic) -> Iterator[Step]:
    """Show that work goes on until the block ends, however it ends.

    Args:
        name: of the work, such as "uploading images".
        total: how many parts it has; None where it counts nothing, or not yet.
        clock: seconds.
    """
    kind = _Bar if is_watched(console) else _Lines
    shown = kind(console, name, total, clock)
    shown.begin()
    is_done = False
    try:
        yield shown
        is_done = True
    finally:
        shown.end(is_done=is_done)


def is_watched(console: Console) -> bool:
    """Return whether a person sees the console: a file is none, also where colours are forced upon it."""
    return console.file.isatty() and not console.is_dumb_terminal


def duration(seconds: float) -> str:
    """Return a time as text.

    >>> duration(42.4), duration(125), duration(7260)
    ('42 s', '2:05 min', '2:01 h')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}:{rest:02d} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d} h"
