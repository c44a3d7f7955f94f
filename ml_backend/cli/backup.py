"""Commands about MODEL_DIR as a whole: backup, restore."""

from __future__ import annotations

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
