"""What an examination finds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

Level = Literal["ok", "note", "warning", "problem", "skipped"]
LEVELS: tuple[Level, ...] = ("problem", "warning", "note", "skipped", "ok")
"""The worst first."""


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        check: which check it was, a word or two that never change, for scripts.
        level: problem: something does not work. warning: it works, and not as it could. note: worth knowing.
            skipped: could not be looked at, for the reason in `found`.
        found: what is there, with the value.
        why: why that matters; empty where nothing is wrong.
        remedy: the command or click that mends it; empty where nothing is wrong.
    """

    check: str
    level: Level
    found: str
    why: str = ""
    remedy: str = ""

    def without(self, secrets: Iterable[str]) -> Finding:
        """Return the same finding with every secret in it blotted out."""
        texts = {name: getattr(self, name) for name in ("found", "why", "remedy")}
        for secret in sorted(filter(None, secrets), key=len, reverse=True):  # one may hold another
            texts = {name: text.replace(secret, "…") for name, text in texts.items()}
        return replace(self, **texts)


@dataclass(frozen=True)
class Section:
    """Findings about one thing: the installation, Label Studio, or a project."""

    title: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Report:
    """All that was found, in the order in which it is told."""

    sections: tuple[Section, ...]

    @property
    def counts(self) -> dict[Level, int]:
        """How many findings there are of each level."""
        found = [finding.level for section in self.sections for finding in section.findings]
        return {level: found.count(level) for level in LEVELS}

    @property
    def healthy(self) -> bool:
        """Whether no problem was found; warnings are none."""
        return not self.counts["problem"]

    def as_json(self) -> dict[str, Any]:
        """Return an object for scripts."""
        rows = [{"section": section.title, **asdict(one)} for section in self.sections for one in section.findings]
        return {"healthy": self.healthy, "counts": self.counts, "findings": rows}


def ok(check: str, found: str) -> Finding:
    """Return a finding about which nothing is to be done."""
    return Finding(check, "ok", found)


def note(check: str, found: str, why: str = "", remedy: str = "") -> Finding:
    """Return a finding that is worth knowing."""
    return Finding(check, "note", found, why, remedy)


def warning(check: str, found: str, why: str, remedy: str) -> Finding:
    """Return a finding about something that works, and not as it could."""
    return Finding(check, "warning", found, why, remedy)


def problem(check: str, found: str, why: str, remedy: str) -> Finding:
    """Return a finding about something that does not work."""
    return Finding(check, "problem", found, why, remedy)


def skipped(check: str, reason: str) -> Finding:
    """Return the finding of a check that could not be made."""
    return Finding(check, "skipped", reason)
