"""Runs checks side by side: none that fails or hangs keeps the others from being told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from ml_backend.doctor.findings import Finding, Section, problem, skipped
from ml_backend.errors import NextmaskError

Examine = Callable[[], Iterable[Finding]]
T = TypeVar("T")
_MARGIN_SECONDS = 1.0


class Missing(NextmaskError):
    """What a check needs cannot be had; the message is the reason."""


class Later(Generic[T]):
    """A value that several checks need, made once, in a thread of its own. Made by `Bench.later`."""

    def __init__(self, name: str, make: Callable[[], T], deadline: float) -> None:
        self._name, self._deadline = name, deadline
        self._done = threading.Event()
        self._value: list[T] = []
        self._reason = ""
        threading.Thread(target=self._run, args=(make,), daemon=True).start()

    def _run(self, make: Callable[[], T]) -> None:
        try:
            self._value.append(make())
        except Exception as error:  # noqa: BLE001 (told by every check that needs the value)
            self._reason = _words(error)
        self._done.set()

    def get(self) -> T:
        """Return the value when it is there.

        Raises:
            Missing: it cannot be had, or not in time.
        """
        if not self._done.wait(max(0.0, self._deadline - time.monotonic())):
            raise Missing(f"{self._name} is not known in time")
        if not self._value:
            raise Missing(self._reason)
        return self._value[0]


class Bench:
    """Checks that run side by side until a moment.

    Args:
        seconds: what all of them may take together.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds, self._deadline = seconds, time.monotonic() + seconds
        self._running: list[_Running] = []

    def later(self, name: str, make: Callable[[], T]) -> Later[T]:
        """Start to make a value; checks that ask for it are skipped when it cannot be had, or not in time."""
        # A little earlier than the end: those who wait for it shall have the time to say so.
        return Later(name, make, self._deadline - min(_MARGIN_SECONDS, self._seconds / 10))

    def start(self, section: str, check: str, examine: Examine) -> None:
        """Start a check; what it yields before it fails or hangs is kept."""
        running = _Running(section, check)
        self._running.append(running)
        running.start(examine)

    def sections(self) -> list[Section]:
        """Wait for all checks, and return what they found, in the order in which they were started."""
        for running in self._running:
            running.wait(self._deadline, self._seconds)
        titles = dict.fromkeys(running.section for running in self._running)
        return [Section(title, tuple(self._of(title))) for title in titles]

    def _of(self, title: str) -> Iterable[Finding]:
        for running in self._running:
            if running.section == title:
                yield from running.found


class _Running:
    def __init__(self, section: str, check: str) -> None:
        self.section, self.check = section, check
        self.found: list[Finding] = []
        self._done = threading.Event()

    def start(self, examine: Examine) -> None:
        threading.Thread(target=self._run, args=(examine,), daemon=True).start()

    def _run(self, examine: Examine) -> None:
        try:
            for finding in examine():
                self.found.append(finding)
        except Missing as error:
            self.found.append(skipped(self.check, str(error)))
        except NextmaskError as error:
            self.found.append(problem(self.check, str(error), "", ""))
        except Exception as error:  # noqa: BLE001 (a check that fails is a finding, and never ends the others)
            why = "This check itself failed; the others are not affected."
            self.found.append(problem(self.check, _words(error), why, "Please report it, with this line."))
        self._done.set()

    def wait(self, deadline: float, seconds: float) -> None:
        if not self._done.wait(max(0.0, deadline - time.monotonic())):
            found = f"no answer within {seconds:g} s"
            why = "Something hangs, or the machine is very slow."
            remedy = f"Give it more time: nextmask doctor --timeout {2 * seconds:g}"
            self.found = [*self.found, problem(self.check, found, why, remedy)]


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, NextmaskError) else f"{type(error).__name__}: {error}"
