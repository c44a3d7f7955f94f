"""The command doctor: what is wrong, and how to mend it."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.text import Text

from ml_backend.cli.console import console, errors
from ml_backend.cli.project_argument import OptionalProjectId
from ml_backend.doctor import Finding, Report, examine
from ml_backend.settings import inspect_environment
from ml_backend.system.progress import step

commands = typer.Typer()

_FILE_WIDTH = 110
_MARKS = {
    "ok": ("✓", "green"),
    "note": ("•", "cyan"),
    "warning": ("!", "yellow"),
    "problem": ("✗", "bold red"),
    "skipped": ("-", "bright_black"),
}
_PLURALS = {"problem": "problems", "warning": "warnings", "note": "notes", "skipped": "not looked at", "ok": "in order"}


@commands.command()
def doctor(
    project: OptionalProjectId = None,
    timeout: Annotated[float, typer.Option(help="Seconds that all checks may take together.", min=1)] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Find what is wrong with the installation, with Label Studio and with projects, and say how to mend it."""
    settings, complaints = inspect_environment()
    with step(errors, "looking at everything"):
        report = examine(settings, complaints, project, seconds=timeout)
    if as_json:
        typer.echo(json.dumps(report.as_json(), indent=1, ensure_ascii=False))
    else:
        _show(report)
    raise typer.Exit(0 if report.healthy else 1)


def _show(report: Report) -> None:
    width = console.width if console.is_terminal else _FILE_WIDTH
    for line in lines_of(report, width):
        console.print(line, soft_wrap=True)


def lines_of(report: Report, width: int) -> Iterator[Text]:
    """Yield what the terminal shows, line by line; addresses and commands are never broken within a word."""
    for section in report.sections:
        yield Text(section.title, style="bold")
        for finding in section.findings:
            yield from _finding_lines(finding, width)
        yield Text()
    counts = [f"{count} {_name(level, count)}" for level, count in report.counts.items() if count]
    yield Text(", ".join(counts), style="bold")


def _finding_lines(finding: Finding, width: int) -> Iterator[Text]:
    mark, style = _MARKS[finding.level]
    level = f"{finding.level}: " if finding.level in ("warning", "problem", "skipped") else ""
    first = _wrapped(f"  {mark} {level}{finding.check}: {finding.message}", width, "    ")
    head = Text(first[0])
    head.stylize(style, 2, 4 + len(level))
    yield head
    yield from map(Text, first[1:])
    for lead, text in (("", finding.why), ("→ ", finding.remedy)):
        if text:
            yield from map(Text, _wrapped(f"      {lead}{text}", width, "      " + " " * len(lead)))


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _name(level: str, count: int) -> str:
    return level if count == 1 and level in ("problem", "warning", "note") else _PLURALS[level]
