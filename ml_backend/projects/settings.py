"""The settings that Label Studio keeps with a project's models: read at each look, and told apart from news in between.

Label Studio calls `/setup` of every registration whenever they are listed. Where nextmask is registered twice with
different settings, each call would be news of the other one's: so what the last look saw is noted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

from ml_backend.errors import ConfigurationError
from ml_backend.projects.registration import same_address
from ml_backend.projects.services import Services
from ml_backend.settings import Settings, params_text
from ml_backend.store import Project, Store


def read_settings(services: Services, project: Project) -> str:
    """Ask the host for the settings of a project, and keep them for the server; those of its first registration count.

    Returns:
        The settings, in the form of `params_text`.

    Raises:
        ConfigurationError: they cannot be read.
        LabelStudioError: the host cannot be asked.
    """
    rows = services.client.ml_backends(project.id)
    own = [row for row in rows if same_address(row.get("url"), services.settings.effective_backend_url)]
    # Of all: a registration under another name of this machine calls here, too.
    _note(services.store, project.id, set(_settings_of(rows)), doubled=len(own) > 1)
    if not own:
        return project.extra_params
    text = params_text(own[0].get("extra_params"))
    if text != project.extra_params:
        services.store.update_project(project.id, extra_params=text)
    return text


def is_news(store: Store, project: Project, text: str) -> bool:
    """Whether settings that `/setup` brings are neither those that count nor another registration's."""
    return project.extra_params != text and text not in json.loads(store.value(_noted(project.id)) or "[]")


def _settings_of(rows: Iterable[Mapping[str, object]]) -> Iterator[str]:
    for row in rows:
        with suppress(ConfigurationError):  # of another model, maybe; ours are complained of where they are read
            yield params_text(row.get("extra_params"))


def _note(store: Store, project_id: int, texts: set[str], *, doubled: bool) -> None:
    noted = json.dumps(sorted(texts)) if len(texts) > 1 else ""
    if noted == (store.value(_noted(project_id)) or ""):
        return
    store.set_value(_noted(project_id), noted)
    if noted and doubled:
        text = "nextmask is registered twice in this project, with different settings; those of the first one count."
        remedy = f"`nextmask connect {project_id}` removes the other one."
        store.add_event(project_id, "registered_twice", f"{text} {remedy}", level="warning")


def _noted(project_id: int) -> str:
    return f"registered_settings_{project_id}"


def project_settings(services: Services, project: Project) -> tuple[Settings, ConfigurationError | None]:
    """Return a project's settings; those that were good last, and why, where those entered now are invalid."""
    try:
        return services.settings.for_project(project.extra_params), None
    except ConfigurationError as error:
        return last_good_settings(services, project.id) or services.settings, error


def last_good_settings(services: Services, project_id: int) -> Settings | None:
    """Return the settings that a project was last looked at with; None where it never had good ones."""
    kept = services.store.value(_good_params(project_id))
    try:
        return None if kept is None else services.settings.for_project(kept)
    except ConfigurationError:  # they were good for another release
        return None


def keep_good_settings(services: Services, project: Project) -> None:
    """Keep a project's settings, which are valid, for a time when what is entered is not."""
    if services.store.value(_good_params(project.id)) != project.extra_params:
        services.store.set_value(_good_params(project.id), project.extra_params)


def _good_params(project_id: int) -> str:
    return f"good_extra_params_{project_id}"
