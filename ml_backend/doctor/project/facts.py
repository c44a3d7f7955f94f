"""What Label Studio and the state know of a project."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from ml_backend.errors import ConfigurationError, NextmaskError
from ml_backend.label_studio import LabelStudio
from ml_backend.projects.registration import is_ours, same_address
from ml_backend.settings import Settings
from ml_backend.store import Project

Json = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Facts:
    """A project as Label Studio and the state have it.

    Attributes:
        project: as Label Studio has it.
        backends, webhooks, views: its rows; None where they could not be read, for the reason in `unread`.
        predictions: how many there are, by model version; None likewise.
        known: the project in the state; None where it was never connected from here.
        tested: the settings of the project; those of the installation where they are invalid.
        fault: what is invalid in them.
    """

    project: Json
    backends: list[Json] | None
    webhooks: list[Json] | None
    views: list[Json] | None
    predictions: dict[str, int] | None
    known: Project | None
    tested: Settings
    fault: str
    unread: str = ""

    @property
    def id(self) -> int:
        """Number of the project."""
        return int(self.project["id"])

    @property
    def is_connected(self) -> bool:
        """Whether `nextmask connect` was run from here, and not undone: what it sets up is to be there."""
        return self.known is not None and self.known.managed

    @property
    def mend(self) -> str:
        """The command that mends what is about the connection."""
        return f"nextmask connect {self.id}"


def read_facts(client: LabelStudio, project_id: int, known: Project | None, settings: Settings) -> Facts:
    """Ask for all that the checks need to know of a project.

    Label Studio calls each backend of the project before it lists them, as it does whenever its settings are opened.

    Raises:
        LabelStudioError: the project itself cannot be read.
    """
    unread: list[str] = []

    def attempt(get: Callable[[int], T]) -> T | None:
        try:
            return get(project_id)
        except NextmaskError as error:
            unread.append(str(error))
            return None

    project = client.project(project_id)
    backends = attempt(client.ml_backends)
    ours = [row for row in backends or [] if is_own(row, settings)]
    params = ours[0].get("extra_params") if ours else (known.extra_params if known else None)
    try:
        tested, fault = settings.for_project(params), ""
    except ConfigurationError as error:
        tested, fault = settings, str(error)
    return Facts(
        project,
        backends,
        attempt(client.webhooks),
        attempt(client.views),
        attempt(client.model_versions),
        known,
        tested,
        fault,
        "; ".join(unread),
    )


def is_own(row: Mapping[str, Any], settings: Settings) -> bool:
    """Whether a backend or webhook is ours: by its address, its title or its header."""
    base = str(row.get("url") or "").removesuffix("/").removesuffix("/webhook")
    return is_ours(row) or same_address(base, settings.effective_backend_url)
