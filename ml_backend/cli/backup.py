"""Commands about an installation's state as a whole: backup, restore, migrate."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from ml_backend.cli.console import console, errors
from ml_backend.settings import load_settings
from ml_backend.system.progress import step

commands = typer.Typer()


@commands.command()
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Archive to write: .tar.zst or .tar.gz.")],
) -> None:
    """Write database, model versions and masks into one archive; nextmask may run meanwhile."""
    from ml_backend.store.backup import backup as write

    with step(errors, "copying files") as shown:
        count = write(load_settings(), file, progress=shown.update)
    size = file.stat().st_size / 1e6
    console.print(f"{file}: {count} files, {size:,.1f} MB.", markup=False, highlight=False, soft_wrap=True)


@commands.command()
def restore(file: Annotated[Path, typer.Argument(metavar="FILE", help="Archive that backup has written.")]) -> None:
    """Put a backup into MODEL_DIR, which has to be empty."""
    from ml_backend.store.backup import restore as read

    settings = load_settings()
    with step(errors, "unpacking files") as shown:
        count = read(settings, file, progress=shown.update)
    console.print(
        f"{count} files are in MODEL_DIR = {settings.model_dir}. Start nextmask: it reads from Label Studio what was "
        "labelled since.",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


@commands.command()
def migrate(
    to: Annotated[
        str,
        typer.Option("--to", metavar="URL", help="Empty database: postgresql+psycopg://… or sqlite:////FILE."),
    ],
) -> None:
    """Copy the state into another database, from SQLite to PostgreSQL or back; nextmask must not run."""
    from ml_backend.projects.running_server import refuse_while_running
    from ml_backend.store.database import parse, shown_url
    from ml_backend.store.store import Store
    from ml_backend.store.transfer import refuse_missing, transfer

    settings, target = load_settings(), parse(to)
    source = settings.effective_database_url
    with step(errors, "copying rows") as shown:
        refuse_missing(source)
        with closing(Store(source)) as store:
            refuse_while_running(settings, store)
        counts = transfer(source, to, progress=shown.update)
    own = settings.model_copy(update={"database_url": ""}).effective_database_url
    then = "Unset NEXTMASK_DATABASE_URL" if to == own else "Set NEXTMASK_DATABASE_URL to it"
    console.print(
        f"{sum(counts.values()):,} rows of {counts['projects']:,} projects and {counts['tasks']:,} tasks are in "
        f"{shown_url(target)}. {then} and start nextmask, with the same MODEL_DIR. "
        f"{shown_url(parse(source))} is as it was: remove it when all is well.",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
