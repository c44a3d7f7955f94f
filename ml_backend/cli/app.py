"""The program `nextmask`: all commands, and what becomes of their errors."""

from __future__ import annotations

import logging
import os
import sys

import typer
from rich.logging import RichHandler
from rich.markup import escape

from ml_backend import __version__
from ml_backend.cli import backup, demo, doctor, projects, serve, simulation
from ml_backend.cli.console import errors
from ml_backend.errors import ConfigurationError, NextmaskError
from ml_backend.system.processes import guard_imports

app = typer.Typer(
    name="nextmask",
    help="Label Studio ML backend for semantic segmentation that decides which mask is worth drawing next.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for module in (serve, projects, doctor, backup, demo, simulation):
    app.registered_commands += module.commands.registered_commands


def main() -> None:
    """Run a command; expected errors become one line on standard error."""
    # Before torch is imported: its threads otherwise spin while they wait, and starve each other, and the training
    # starves the server, wherever two of our processes share the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    guard_imports()
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except NextmaskError as error:
        errors.print(f"[red]Error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2 if isinstance(error, ConfigurationError) else 1)


@app.callback(invoke_without_command=True)
def _version(
    context: typer.Context, version: bool = typer.Option(False, "--version", help="Show the version and leave.")
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit
    if context.invoked_subcommand not in {"serve", "worker"}:
        # Long-running commands log to standard error in full; the others show warnings only.
        logging.basicConfig(level="WARNING", format="%(message)s", handlers=[RichHandler(console=errors)])
        logging.getLogger("urllib3").setLevel("ERROR")  # its retries end in an error of ours
