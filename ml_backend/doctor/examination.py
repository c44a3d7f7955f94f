"""Which checks there are, and what each of them needs."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from ml_backend.doctor import torch_setup
from ml_backend.doctor.findings import Finding, Report, note
from ml_backend.doctor.installation.database import check_database, open_store
from ml_backend.doctor.installation.disk import check_folder
from ml_backend.doctor.installation.environment import check_settings
from ml_backend.doctor.installation.files import check_files
from ml_backend.doctor.installation.sam import check_sam
from ml_backend.doctor.installation.server import check_server
from ml_backend.doctor.installation.worker import check_trainings, check_worker
from ml_backend.doctor.label_studio.address import Answer, ask, check_address, check_clock
from ml_backend.doctor.label_studio.protection import check_protections
from ml_backend.doctor.label_studio.release import LARGE_PROJECT, check_release, fast_import
from ml_backend.doctor.label_studio.token import Login, check_rights, log_in
from ml_backend.doctor.project.facts import Facts, read_facts
from ml_backend.doctor.project.images import check_images
from ml_backend.doctor.project.labels import check_audit, check_left_out
from ml_backend.doctor.project.summary import check_project, deleted_project, in_short, missing_project
from ml_backend.doctor.running import Checks, Missing, Shared
from ml_backend.errors import LabelStudioNotFound
from ml_backend.projects.running_server import with_running_server
from ml_backend.projects.signs_of_life import worker_failure, workers
from ml_backend.projects.training_turns import held_words
from ml_backend.settings import Settings
from ml_backend.store import Project, Store

SECONDS: Final = 30.0
"""How long all checks may take together."""
_INSTALLATION, _HOST, _PROJECTS = "nextmask on this machine", "Label Studio", "Connected projects"
_PROJECTS_AT_ONCE = 4
_PROBE_MARGIN = 2.0
_PATIENT_SHARE = 1 / 6


def examine(
    settings: Settings, complaints: Sequence[str], project_id: int | None = None, *, seconds: float = SECONDS
) -> Report:
    """Make all checks, and return their findings.

    Args:
        complaints: what is wrong with the environment that the settings were made from.
        project_id: the project to look at closely; None: all connected ones, in short.
        seconds: how long all checks may take together.
    """
    return _Examination(settings, complaints, seconds).run(project_id)


class _Examination:
    """The checks and the values that they share, each made once."""

    def __init__(self, settings: Settings, complaints: Sequence[str], seconds: float) -> None:
        self._settings, self._complaints, self._seconds = settings, complaints, seconds
        self._patience = seconds * _PATIENT_SHARE
        self._checks = checks = Checks(seconds)
        self._store: Shared[Store] = checks.share("the state", lambda: open_store(settings))
        self._answer = checks.share("Label Studio's answer", lambda: ask(settings.label_studio_url, self._patience))
        self._login = checks.share("Label Studio's answer to the token", self._log_in)

    def run(self, project_id: int | None) -> Report:
        self._start_installation()
        self._start_host()
        if project_id is not None:
            self._start_project(project_id)
        else:
            self._checks.start(_PROJECTS, "projects", self._start_short)
        sections = self._checks.sections()
        secrets = self._secrets()
        return Report(
            tuple(
                replace(section, findings=tuple(finding.without(secrets) for finding in section.findings))
                for section in sections
            )
        )

    # -- the installation ---------------------------------------------------------------------------------------------
    def _start_installation(self) -> None:
        settings = self._settings
        answers = self._checks.share("PyTorch", lambda: self._probe(settings))
        checks = {
            "settings": lambda: check_settings(settings, self._complaints),
            "files": check_files,
            "packages": lambda: torch_setup.check_packages(answers.get()),
            "device": lambda: torch_setup.check_device(answers.get(), settings.device),
            "sam": lambda: check_sam(settings.sam),
            "network": lambda: torch_setup.check_network(answers.get(), settings),
            "disk": lambda: check_folder(settings),
            "database": lambda: check_database(settings),
            "server": self._check_server,
            "worker": self._check_worker,
        }
        for name, check in checks.items():
            self._checks.start(_INSTALLATION, name, check)

    def _probe(self, settings: Settings) -> dict[str, torch_setup.Json]:
        return torch_setup.probe(settings, self._seconds - _PROBE_MARGIN)

    def _check_server(self) -> Iterator[Finding]:
        store, secret = self._store_if_any(), self._secret()
        return check_server(self._here(), store, secret, patience=self._patience)

    def _check_worker(self) -> Iterator[Finding]:
        store = self._store.get()
        yield check_worker(store.projects(), workers(store), failure=worker_failure(store))
        yield from check_trainings(held_words(store))

    def _store_if_any(self) -> Store | None:
        try:
            return self._store.get()
        except Missing:
            return None

    def _here(self) -> Settings:
        """Return the settings with the address of the server that runs here."""
        store = self._store_if_any()
        return self._settings if store is None else with_running_server(self._settings, store)

    def _secret(self) -> str:
        """Return the webhooks' secret; "" where there is none yet: none is made."""
        given = self._settings.webhook_secret.get_secret_value()
        store = self._store_if_any()
        return given or (store.value("webhook_secret") or "" if store else "")

    def _secrets(self) -> set[str]:
        settings = self._settings
        named = (settings.label_studio_api_key, settings.basic_auth_pass, settings.webhook_secret)
        return {value.get_secret_value().strip() for value in named} | {self._secret()}

    # -- Label Studio -------------------------------------------------------------------------------------------------
    def _start_host(self) -> None:
        settings = self._settings
        checks = {
            "address": lambda: [check_address(settings, self._answer.get(), patience=self._patience)],
            "token": lambda: [self._login.get()[1]],
            "rights": lambda: [check_rights(self._logged_in().user)],
            "release": lambda: [check_release(self._host().release)],
            "clock": lambda: [check_clock(self._host().clock_offset)],
            "protection": lambda: check_protections(self._logged_in().client, self._here().effective_backend_url),
        }
        for name, check in checks.items():
            self._checks.start(_HOST, name, check)

    def _host(self) -> Answer:
        """Return the answer of Label Studio.

        Raises:
            Missing: nothing answered, or another program.
        """
        answer = self._answer.get()
        if not answer.release:
            raise Missing(f"there is no Label Studio at {self._settings.label_studio_url}")
        return answer

    def _log_in(self) -> tuple[Login | None, Finding]:
        self._host()
        return log_in(self._settings, self._store_if_any(), patience=self._patience)

    def _logged_in(self) -> Login:
        login, _ = self._login.get()
        if login is None:
            raise Missing("Label Studio does not accept the token")
        return login

    # -- projects -----------------------------------------------------------------------------------------------------
    def _start_project(self, project_id: int) -> None:
        title = f"Project {project_id}"
        facts = self._checks.share(f"project {project_id}", lambda: self._read(project_id))
        self._checks.start(title, "project", lambda: self._check_project(project_id, facts))
        self._checks.start(title, "images", lambda: self._check_images(facts))

    def _read(self, project_id: int) -> Facts | None:
        """Return the facts about a project; None where Label Studio has none of that number."""
        client, store = self._logged_in().client, self._store_if_any()
        try:
            return read_facts(client, project_id, store.project(project_id) if store else None, self._here())
        except LabelStudioNotFound:
            return None

    def _check_project(self, project_id: int, shared: Shared[Facts | None]) -> Iterator[Finding]:
        facts = shared.get()
        if facts is None:
            yield missing_project(self._logged_in().client, project_id)
            return
        yield from self._check_facts(facts)
        if self._differs(facts.tested):
            yield from torch_setup.check_network(self._probe(facts.tested), facts.tested, "network of the project")

    def _check_facts(self, facts: Facts) -> Iterator[Finding]:
        large = int(facts.project.get("task_number") or 0) >= LARGE_PROJECT
        fast = fast_import(self._logged_in().client) if large else None
        yield from check_project(facts, self._here(), self._secret(), fast_import=fast)
        store = self._store_if_any()
        if store is not None and facts.known is not None and facts.known.managed:
            yield from check_left_out(store, facts)
            yield from check_audit(store, facts)

    def _check_images(self, shared: Shared[Facts | None]) -> Iterator[Finding]:
        facts = shared.get()
        if facts is None:
            raise Missing("there is no such project")
        return check_images(self._logged_in().client, facts)

    def _differs(self, tested: Settings) -> bool:
        return any(getattr(tested, name) != getattr(self._settings, name) for name in torch_setup.PROBED)

    def _start_short(self) -> Iterator[Finding]:
        """Start a check for each connected project, a few at a time."""
        connected = self._store.get().projects()
        if not connected:
            yield note("projects", "No project is connected", remedy="nextmask connect PROJECT")
        turns = threading.Semaphore(_PROJECTS_AT_ONCE)
        for known in connected:
            self._checks.start(_PROJECTS, f"project {known.id}", functools.partial(self._in_short, known, turns))

    def _in_short(self, known: Project, turns: threading.Semaphore) -> Iterator[Finding]:
        with turns:
            facts = self._read(known.id)
            if facts is None:
                yield deleted_project(known)
            else:
                yield in_short(facts, list(self._check_facts(facts)))
