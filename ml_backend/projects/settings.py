"""The settings of one project: Label Studio keeps them with its models, and they are laid over the installation's.

    read_settings       asks Label Studio for them, at each look
    project_settings    lays them over those of the installation; where they are invalid, those that were good last
    is_news             tells whether what `/setup` brings has to be looked at

Label Studio calls `/setup` of every registration whenever they are listed. Where nextmask is registered twice with
different settings, each call would be news against the other one's: so the store keeps what the last look read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

from ml_backend.errors import ConfigurationError
from ml_backend.label_studio import LabelStudio
from ml_backend.projects.registration import same_address
from ml_backend.projects.smart_tools import keep_interactive
from ml_backend.settings import Settings, params_text
from ml_backend.store import Project, Store


def read_settings(settings: Settings, store: Store, client: LabelStudio, project: Project) -> str:
    """Ask Label Studio for the settings of a project, and keep them for the server.

    Those of its first registration count. Whether smart tools may ask it is kept as well.

    Args:
        settings: of the installation.

    Returns:
        The settings of the project, in the form of `params_text`.

    Raises:
        ConfigurationError: they cannot be read.
        LabelStudioError: Label Studio cannot be asked.
    """
    rows = client.ml_backends(project.id)
    own = [row for row in rows if same_address(row.get("url"), settings.effective_backend_url)]
    # Of all rows: a registration under another name of this machine calls here, too.
    _keep_registered(store, project.id, set(_settings_in(rows)), doubled=len(own) > 1)
    keep_interactive(store, project.id, own)
    if not own:
        return project.extra_params
    text = params_text(own[0].get("extra_params"))
    if text != project.extra_params:
        store.update_project(project.id, extra_params=text)
    return text


def is_news(store: Store, project: Project, text: str) -> bool:
    """Tell whether settings that `/setup` brings are neither those that count nor another registration's.

    Args:
        text: the settings, in the form of `params_text`.
    """
    return project.extra_params != text and text not in json.loads(store.value(_registered_key(project.id)) or "[]")


def project_settings(settings: Settings, store: Store, project: Project) -> tuple[Settings, ConfigurationError | None]:
    """Return a project's settings; those that were good last, and why, where those entered now are invalid."""
    try:
        return settings.for_project(project.extra_params), None
    except ConfigurationError as error:
        return last_good_settings(settings, store, project.id) or settings, error


def last_good_settings(settings: Settings, store: Store, project_id: int) -> Settings | None:
    """Return the settings that a project was last looked at with; None where it never had good ones."""
    kept = store.value(_good_key(project_id))
    try:
        return None if kept is None else settings.for_project_of_earlier_release(kept)
    except ConfigurationError:  # they were good for another release
        return None


def keep_good_settings(store: Store, project: Project) -> None:
    """Keep a project's settings, which are valid, for a time when what is entered is not."""
    if store.value(_good_key(project.id)) != project.extra_params:
        store.set_value(_good_key(project.id), project.extra_params)


def _settings_in(rows: Iterable[Mapping[str, object]]) -> Iterator[str]:
    for row in rows:
        with suppress(ConfigurationError):  # of another model, maybe; ours are complained of where they are read
            yield params_text(row.get("extra_params"))


def _keep_registered(store: Store, project_id: int, texts: set[str], *, doubled: bool) -> None:
    """Keep the settings of several registrations; tell of it once where nextmask itself is registered twice."""
    kept = json.dumps(sorted(texts)) if len(texts) > 1 else ""
    if kept == (store.value(_registered_key(project_id)) or ""):
        return
    store.set_value(_registered_key(project_id), kept)
    if kept and doubled:
        text = "nextmask is registered twice in this project, with different settings; those of the first one count."
        remedy = f"`nextmask connect {project_id}` removes the other one."
        store.add_event(project_id, "registered_twice", f"{text} {remedy}", level="warning")


def _registered_key(project_id: int) -> str:
    return f"registered_settings_{project_id}"


def _good_key(project_id: int) -> str:
    return f"good_extra_params_{project_id}"
