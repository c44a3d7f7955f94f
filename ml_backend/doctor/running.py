"""Runs checks side by side: a check that fails or hangs does not keep the others from being told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from ml_backend.doctor.findings import Finding, Section, problem, skipped
from ml_backend.errors import NextmaskError
from ml_backend.label_studio.failures import FAILURES, reason

Check = Callable[[], Iterable[Finding]]
T = TypeVar("T")
_MARGIN_SECONDS = 1.0


class Missing(NextmaskError):
    """What a check needs cannot be had; the message is the reason."""


class Shared(Generic[T]):
    """A value that several checks need, made once, in a thread of its own. Made by `Checks.share`."""

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
        """Return the value as soon as it is there.

        Raises:
            Missing: it cannot be had, or not in time.
        """
        if not self._done.wait(max(0.0, self._deadline - time.monotonic())):
            raise Missing(f"{self._name} is not known in time")
        if not self._value:
            raise Missing(self._reason)
        return self._value[0]


class Checks:
    """Checks that run side by side, each in a thread of its own.

    Args:
        seconds: how long all of them may take together.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds, self._deadline = seconds, time.monotonic() + seconds
        self._running: list[_Running] = []

    def share(self, name: str, make: Callable[[], T]) -> Shared[T]:
        """Start to make a value; checks that ask for it are skipped when it cannot be had, or not in time."""
        # A little earlier than the end: checks that wait for it need the time to say so.
        return Shared(name, make, self._deadline - min(_MARGIN_SECONDS, self._seconds / 10))

    def start(self, section: str, name: str, check: Check) -> None:
        """Start a check; the findings that it yields before it fails or hangs are told."""
        running = _Running(section, name)
        self._running.append(running)
        running.start(check)

    def sections(self) -> list[Section]:
        """Wait for all checks, and return their findings, in the order in which they were started."""
        for running in self._running:
            running.wait(self._deadline, self._seconds)
        titles = dict.fromkeys(running.section for running in self._running)
        return [Section(title, tuple(self._findings(title))) for title in titles]

    def _findings(self, title: str) -> Iterable[Finding]:
        for running in self._running:
            if running.section == title:
                yield from running.findings


class _Running:
    def __init__(self, section: str, name: str) -> None:
        self.section, self.name = section, name
        self.findings: list[Finding] = []
        self._done = threading.Event()

    def start(self, check: Check) -> None:
        threading.Thread(target=self._run, args=(check,), daemon=True).start()

    def _run(self, check: Check) -> None:
        try:
            for finding in check():
                self.findings.append(finding)
        except Missing as error:
            self.findings.append(skipped(self.name, str(error)))
        except NextmaskError as error:
            self.findings.append(problem(self.name, error.cause, "", error.remedy))
        except Exception as error:  # noqa: BLE001 (a check that fails is a finding, and never ends the others)
            why = "This check itself failed; the others are not affected."
            self.findings.append(problem(self.name, _words(error), why, "Please report it, with this line."))
        self._done.set()

    def wait(self, deadline: float, seconds: float) -> None:
        if not self._done.wait(max(0.0, deadline - time.monotonic())):
            message = f"no answer within {seconds:g} s"
            why = "The machine is slow or busy, or something hangs: which of them is not known."
            remedy = f"Give it more time: nextmask doctor --timeout {4 * seconds:g}"
            self.findings = [*self.findings, Finding(self.name, "skipped", message, why, remedy)]


def _words(error: Exception) -> str:
    if isinstance(error, NextmaskError):
        return str(error)
    if isinstance(error, FAILURES):
        return reason(error, 0.0)
    return f"{type(error).__name__}: {error}"
