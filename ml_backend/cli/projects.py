"""Commands about projects: connect, disconnect, status, train, rank, versions, rollback."""

from __future__ import annotations

import json
import sys
import time
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from ml_backend.cli.console import console, errors, reconcile_now
from ml_backend.cli.installation import diagnosed, installation
from ml_backend.cli.project_argument import OptionalProjectId, ProjectId
from ml_backend.errors import ConfigurationError, NextmaskError
from ml_backend.learning.checkpoints import Version
from ml_backend.learning.measuring.words import measure_text, measured_text, recorded
from ml_backend.projects.audit import AuditCounts
from ml_backend.projects.connection import Connection
from ml_backend.projects.folders import checkpoints_of
from ml_backend.projects.passed_over import StreamCounts, return_to_pool
from ml_backend.projects.serving import roll_back
from ml_backend.projects.signs_of_life import worker_failure
from ml_backend.projects.status import Status, gone_text, known_project, project_status
from ml_backend.projects.training_turns import held_words
from ml_backend.settings import load_settings
from ml_backend.store import Store
from ml_backend.system.progress import duration

commands = typer.Typer()
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
_SHOWN_ERRORS = 10


@commands.command()
def connect(
    project: ProjectId,
    backend_url: Annotated[str | None, typer.Option(help="Address of nextmask as Label Studio reaches it.")] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Setting of this project; may be repeated.")
    ] = None,
    add_query_control: Annotated[
        bool, typer.Option("--add-query-control", help="Add the control that asks for regions, or else for points.")
    ] = False,
    add_smart_tools: Annotated[
        bool, typer.Option("--add-smart-tools", help="Add smart tools: clicks and boxes that a mask follows.")
    ] = False,
) -> None:
    """Set a Label Studio project up (again, when something is missing). nextmask serve must be running."""
    services = installation(backend_url=backend_url)
    overrides = parse_settings(setting) if setting else None
    connection = Connection(services.settings, services.store, services.client, project)
    with diagnosed(services, project):
        if not add_query_control and connection.lacks_query_control(overrides):
            add_query_control = _offer_query_control()
        changes = connection.connect(overrides, add_query_control=add_query_control, add_smart_tools=add_smart_tools)
    _report(changes, "Everything was in place.")
    for hint in connection.hints:
        console.print(f"! {hint}", highlight=False, markup=False, soft_wrap=True)


@commands.command()
def disconnect(project: ProjectId) -> None:
    """Put a project back as it was before connect; annotations and predictions stay."""
    services = installation()
    connection = Connection(services.settings, services.store, services.client, project)
    with diagnosed(services, project):
        changes = connection.disconnect()
    _report(changes, "There was nothing to put back.")


@commands.command()
def status(
    project: OptionalProjectId = None,
    as_json: AsJson = False,
) -> None:
    """Show labels, versions, queue and errors."""
    settings = load_settings()
    store = Store(settings.effective_database_url)  # it needs no token, and no Label Studio
    ids = [project] if project is not None else [known.id for known in store.projects()]
    statuses = [project_status(settings, store, project_id) for project_id in ids]
    if as_json:
        rows = [item.as_json() for item in statuses]
        typer.echo(json.dumps(rows if project is None else rows[0], indent=1))
        return
    if project is None:
        for gone in store.gone_projects():
            console.print(gone_text(settings, gone), markup=False)
    if not statuses:
        console.print("No project is connected. Run: nextmask connect PROJECT")
        if failure := worker_failure(store):
            errors.print(f"[red]worker:[/red] {escape(failure)}", highlight=False, soft_wrap=True)
        return
    console.print(_status_table(statuses))
    for sentence in held_words(store):
        console.print(sentence, markup=False, highlight=False)
    for item in statuses:
        _print_sentences(item)
        _print_errors(item)


@commands.command()
def train(project: ProjectId) -> None:
    """Train now on all labels, then rank and publish."""
    services = installation()
    known_project(services.settings, services.store, project)
    before = services.checkpoints(project).latest()
    services.store.wake(project, train=True)
    reconcile_now(services, project)
    latest = services.checkpoints(project).latest()
    if latest is None or latest == before:
        raise NextmaskError(
            f"No version was trained: project {project} has no usable label yet, or only labels of audit images, "
            "which measure."
        )
    console.print(f"Version {latest.number}: {_measure(latest)}. {latest.record.reason}", markup=False)


@commands.command()
def rank(project: ProjectId) -> None:
    """Score and order the unlabelled tasks now, and publish the queue."""
    services = installation()
    known_project(services.settings, services.store, project)
    services.store.wake(project, ranking_key="")
    reconcile_now(services, project)
    now = known_project(services.settings, services.store, project)
    console.print(f"{now.published_version or 'Nothing'} is published.")


@commands.command()
def keep(
    project: ProjectId,
    tasks: Annotated[list[int], typer.Argument(metavar="TASK...", help="Numbers of passed-over tasks.")],
) -> None:
    """Return tasks that stream mode passed over to the pool."""
    services = installation()
    known_project(services.settings, services.store, project)
    with diagnosed(services, project):
        return_to_pool(services.store, services.client, project, tasks)
    services.store.wake(project)
    console.print(f"Returned to the pool: {len(set(tasks))}.")


@commands.command()
def versions(project: ProjectId, as_json: AsJson = False) -> None:
    """List model versions with their held-out measures."""
    settings = load_settings()
    store = Store(settings.effective_database_url)
    known_project(settings, store, project)
    checkpoints = checkpoints_of(settings, store, project)
    current = checkpoints.current()
    rows = [_version_row(version, current) for version in checkpoints.versions()]
    measured = {version.number: measure_text(recorded(version.record, "miou")) for version in checkpoints.versions()}
    damaged = [{"number": number, "damaged": why} for number, why in checkpoints.damaged().items()]
    if as_json:
        typer.echo(json.dumps([*rows, *damaged], indent=1))
        return
    table = Table("version", "serves", "labels", "held out", "pseudo", "mIoU", "trained", "note")
    for row in rows:
        cells = [row["number"], "yes" if row["serves"] else "", row["labels"], row["held_out"], row["pseudo_labels"]]
        cells.append(measured[row["number"]])
        table.add_row(*map(str, cells), row["created_at"], escape(row["reason"]))
    for item in damaged:
        table.add_row(str(item["number"]), *[""] * 6, escape(f"damaged: {item['damaged']}"))
    console.print(table)


@commands.command()
def rollback(
    project: ProjectId,
    number: Annotated[int | None, typer.Argument(help="Version to go back to; the one before when omitted.")] = None,
) -> None:
    """Let an earlier version serve; the queue follows."""
    services = installation()
    known_project(services.settings, services.store, project)
    version = roll_back(services.settings, services.store, project, number)
    reconcile_now(services, project)
    console.print(f"Version {version.number} serves again: {_measure(version)}.")


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    """Read KEY=VALUE options; values are JSON where they can be (`iterations=50`), else text.

    Raises:
        ConfigurationError: a pair has no "=".
    """
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigurationError(f"--set {pair!r} is not of the form KEY=VALUE, such as strategy=entropy.")
        try:
            settings[key] = json.loads(value)
        except ValueError:
            settings[key] = value
    return settings


def _offer_query_control() -> bool:
    """Ask whether the labelling configuration may be changed; where nobody can answer, a hint tells how."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    why = "The strategy can ask for parts of images, and the labelling configuration has no control that shows them."
    return typer.confirm(f"{why} Add one? What it shows does not hide the image.", default=True)


def _report(changes: list[str], nothing: str) -> None:
    for change in changes:
        console.print(f"• {change}", highlight=False, markup=False)
    if not changes:
        console.print(nothing)


def _status_table(statuses: list[Status]) -> Table:
    """Return a table with a column per project: thirteen facts do not fit side by side."""
    table = Table("", *[escape(f"{status.project} {status.title}") for status in statuses])
    columns = list(map(_status_cells, statuses))
    for name in columns[0]:
        table.add_row(name, *[str(column[name]) for column in columns])
    return table


def _status_cells(status: Status) -> dict[str, object]:
    state = status.state
    if state == "waiting" and status.pool == 0:
        state = "waiting (nothing left to label)"
    elif state != "waiting" and status.total:
        left = f", about {duration(max(0.0, status.ends - time.time()))} left" if status.ends else ""
        state = f"{state} ({status.done}/{status.total}{left})"
    return {
        "state": state,
        "strategy": escape(status.strategy),
        "version": status.version or "none",
        "labels": status.labels,
        "trained on": status.trained_labels,
        "held-out mIoU": measured_text(status.held_out),
        "agreement": _number(status.agreement),
        "unchanged": f"{status.unchanged.unchanged} of {status.unchanged.shown}",
        "pool": status.pool,
        "queue": status.queue,
        "skipped": status.skipped,
        "audit images": _audit(status.audit),
        "stream": _stream(status.stream),
        "errors": len(status.errors),
    }


def _audit(counts: AuditCounts | None) -> str:
    return "" if counts is None else f"{counts.waiting} wait, {counts.labels} labels measure"


def _stream(counts: StreamCounts | None) -> str:
    if counts is None:
        return "off"
    threshold = "none" if counts.threshold is None else f"{counts.threshold:.4g}"
    return f"kept {counts.kept}, passed over {counts.passed}, returned {counts.returned}, threshold {threshold}"


def _print_sentences(status: Status) -> None:
    effort = [*([status.effort.sentence] if status.effort else []), *(status.points.sentences if status.points else ())]
    advice = status.advice.sentences if status.advice else ()
    for sentence in (*filter(None, [status.notice, status.question]), *advice, *effort, *status.hints):
        console.print(f"{status.project}: {sentence}", highlight=False, markup=False, soft_wrap=True)


def _print_errors(status: Status) -> None:
    for count, (where, message) in enumerate(status.errors.items()):
        if count == _SHOWN_ERRORS:
            errors.print(f"… and {len(status.errors) - _SHOWN_ERRORS} more (--json lists all)")
            return
        errors.print(f"[red]{status.project}, {where}:[/red] {escape(message)}", highlight=False, soft_wrap=True)


def _version_row(version: Version, current: Version | None) -> dict[str, Any]:
    record = version.record
    return {
        "number": version.number,
        "serves": current is not None and current.number == version.number,
        "labels": len(record.labels),
        "held_out": len(record.held_out),
        "pseudo_labels": len(record.pseudo_labels),
        "miou": record.measures.get("miou"),
        "measures": record.measures,
        "created_at": record.created_at,
        "accepted": record.accepted,
        "reason": record.reason,
    }


def _measure(version: Version) -> str:
    miou, labels = measured_text(recorded(version.record, "miou")), f"{len(version.record.labels)} labels"
    return f"{labels}, held-out mIoU {miou}" if miou else f"{labels}, no held-out measure yet"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
