"""Findings: what the checks of an examination have to tell, and the report of all of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["ok", "note", "warning", "problem", "skipped"]
LEVELS: tuple[Level, ...] = ("problem", "warning", "note", "skipped", "ok")
"""The worst first."""


@dataclass(frozen=True)
class Finding:
    """The result of a check; a check may have several.

    Attributes:
        check: name of the check, a word or two that never change, for scripts.
        level: problem: something does not work. warning: it works, but not as well as it could. note: worth knowing.
            skipped: the check could not be made, for the reason in `message`. ok: nothing is to be done.
        message: what is there, with the value.
        why: why that matters; empty where nothing is wrong.
        remedy: the command or click that mends it; empty where nothing is wrong.
    """

    check: str
    level: Level
    message: str
    why: str = ""
    remedy: str = ""

    def without(self, secrets: Iterable[str]) -> Finding:
        """Return the same finding with every secret in it blotted out."""
        texts = [self.message, self.why, self.remedy]
        for secret in sorted(filter(None, secrets), key=len, reverse=True):  # a secret may contain another
            texts = [text.replace(secret, "…") for text in texts]
        return Finding(self.check, self.level, *texts)

    def as_json(self) -> dict[str, str]:
        """Return an object for scripts, with the keys that docs/commands.md promises."""
        return {
            "check": self.check,
            "level": self.level,
            "found": self.message,
            "why": self.why,
            "remedy": self.remedy,
        }


@dataclass(frozen=True)
class Section:
    """Findings about one subject: the installation, Label Studio, or a project."""

    title: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Report:
    """All findings, in the order in which they are told."""

    sections: tuple[Section, ...]

    @property
    def counts(self) -> dict[Level, int]:
        """How many findings there are of each level."""
        levels = [finding.level for section in self.sections for finding in section.findings]
        return {level: levels.count(level) for level in LEVELS}

    @property
    def healthy(self) -> bool:
        """Whether there is no problem; warnings do not count."""
        return not self.counts["problem"]

    def as_json(self) -> dict[str, Any]:
        """Return an object for scripts."""
        rows = [
            {"section": section.title, **finding.as_json()} for section in self.sections for finding in section.findings
        ]
        return {"healthy": self.healthy, "counts": self.counts, "findings": rows}


def ok(check: str, message: str) -> Finding:
    """Return a finding about which nothing is to be done."""
    return Finding(check, "ok", message)


def note(check: str, message: str, why: str = "", remedy: str = "") -> Finding:
    """Return a finding that is worth knowing."""
    return Finding(check, "note", message, why, remedy)


def warning(check: str, message: str, why: str, remedy: str) -> Finding:
    """Return a finding about something that works, but not as well as it could."""
    return Finding(check, "warning", message, why, remedy)


def problem(check: str, message: str, why: str, remedy: str) -> Finding:
    """Return a finding about something that does not work."""
    return Finding(check, "problem", message, why, remedy)


def skipped(check: str, reason: str) -> Finding:
    """Return the finding of a check that could not be made."""
    return Finding(check, "skipped", reason)
