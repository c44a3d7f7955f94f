"""The argument PROJECT of the commands: the number of a project, or its address as a browser shows it."""

from __future__ import annotations

import re
from typing import Annotated

import typer
from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from ml_backend.errors import ConfigurationError, shown
from ml_backend.label_studio.tokens import Origin, origin_of
from ml_backend.settings import Settings, inspect_environment

_PAGE = re.compile(r"(?P<base>.*?)/projects/(?P<number>\d+)(?:[/?#].*)?")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]", "0.0.0.0"})  # noqa: S104 (compared, not bound)


def project_number(text: str) -> int:
    """Return the number that an argument names.

    Args:
        text: a number, or the address of a page of a project below LABEL_STUDIO_URL, or below the address that people
            open Label Studio at.

    Raises:
        typer.BadParameter: it is neither.
        ConfigurationError: it is an address of another Label Studio.
    """
    text = text.strip()
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    page = _PAGE.fullmatch(text)
    if page is None or not int(page["number"]):
        raise typer.BadParameter(
            f"{shown(text)} is no project: give its number, or its address in Label Studio, such as "
            "http://localhost:8080/projects/7"
        )
    settings, _ = inspect_environment()
    number, homes = int(page["number"]), {settings.label_studio_url, settings.effective_label_studio_public_url}
    if not any(_same_place(page["base"], home) for home in homes):
        raise ConfigurationError(_of_another(page["base"], number, settings))
    return number


def _of_another(base: str, number: int, settings: Settings) -> str:
    return (
        f"{base}/projects/{number} is not below LABEL_STUDIO_URL = {settings.label_studio_url}, and nextmask works for "
        f"that Label Studio alone. If both are the same one, give the project's number, {number}, or set "
        f"NEXTMASK_LABEL_STUDIO_PUBLIC_URL={base}."
    )


def _same_place(base: str, home: str) -> bool:
    """Whether two addresses are one, as a browser shows it (perhaps without its scheme) and as settings name it."""
    if "://" not in base:
        base = f"{home.partition('://')[0]}://{base}"
    try:
        places = [(_origin(url), (parse_url(url).path or "").rstrip("/")) for url in (base, home)]
    except LocationParseError:
        return False
    return places[0] == places[1]


def _origin(url: str) -> Origin:
    scheme, host, port = origin_of(url)
    return scheme, "localhost" if host in _LOOPBACK else host, port


ProjectId = Annotated[
    int,
    typer.Argument(parser=project_number, help="Number of the project, or its address in Label Studio."),
]
OptionalProjectId = Annotated[
    int | None,
    typer.Argument(parser=project_number, help="Number or address of one project; all when omitted."),
]
