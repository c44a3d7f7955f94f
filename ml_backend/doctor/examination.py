"""Which checks there are, and what each of them needs."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from ml_backend.doctor import installation, project
from ml_backend.doctor import label_studio as host
from ml_backend.doctor import torch_setup as computing
from ml_backend.doctor.findings import Finding, Report, note
from ml_backend.doctor.running import Bench, Later, Missing
from ml_backend.errors import LabelStudioNotFound
from ml_backend.projects.signs_of_life import last_sign
from ml_backend.settings import Settings
from ml_backend.store import Project, Store

SECONDS: Final = 30.0
"""What all checks may take together."""
_INSTALLATION, _HOST, _PROJECTS = "nextmask on this machine", "Label Studio", "Connected projects"
_PROJECTS_AT_ONCE = 4
_PROBE_MARGIN = 2.0
_PATIENT_SHARE = 1 / 6


def examine(
    settings: Settings, complaints: Sequence[str], project_id: int | None = None, *, seconds: float = SECONDS
) -> Report:
    """Look at everything, and return what was found.

    Args:
        complaints: what is wrong with the environment that the settings were made from.
        project_id: the project to look at closely; None: all connected ones, in short.
        seconds: what all checks may take together.
    """
    return _Examination(settings, complaints, seconds).run(project_id)


class _Examination:
    """The checks and what they share, each made once."""

    def __init__(self, settings: Settings, complaints: Sequence[str], seconds: float) -> None:
        self._settings, self._complaints, self._seconds = settings, complaints, seconds
        self._patience = seconds * _PATIENT_SHARE
        self._bench = bench = Bench(seconds)
        self._store: Later[Store] = bench.later("the state", lambda: installation.open_store(settings))
        self._answer = bench.later("Label Studio's answer", lambda: host.ask(settings.label_studio_url, self._patience))
        self._entry = bench.later("Label Studio's answer to the token", self._enter)

    def run(self, project_id: int | None) -> Report:
        self._start_installation()
        self._start_host()
        if project_id is not None:
            self._start_project(project_id)
        else:
            self._bench.start(_PROJECTS, "projects", self._start_short)
        sections = self._bench.sections()
        secrets = self._secrets()
        return Report(
            tuple(replace(one, findings=tuple(found.without(secrets) for found in one.findings)) for one in sections)
        )

    # -- the installation ---------------------------------------------------------------------------------------------
    def _start_installation(self) -> None:
        settings, bench = self._settings, self._bench
        answers = bench.later("PyTorch", lambda: computing.probe(settings, self._seconds - _PROBE_MARGIN))
        checks = {
            "settings": lambda: installation.judge_settings(settings, self._complaints),
            "packages": lambda: computing.judge_packages(answers.get()),
            "device": lambda: computing.judge_device(answers.get(), settings.device),
            "network": lambda: computing.judge_network(answers.get(), settings),
            "disk": lambda: installation.judge_folder(settings),
            "database": lambda: installation.judge_database(settings),
            "server": self._judge_server,
            "worker": self._judge_worker,
        }
        for check, examine_it in checks.items():
            bench.start(_INSTALLATION, check, examine_it)

    def _judge_server(self) -> Iterator[Finding]:
        store, secret = self._store_if_any(), self._secret()
        return installation.judge_server(self._settings, store, secret, patience=self._patience)

    def _judge_worker(self) -> Iterator[Finding]:
        store = self._store.get()
        yield installation.judge_worker(store.projects(), last_sign(store))

    def _store_if_any(self) -> Store | None:
        try:
            return self._store.get()
        except Missing:
            return None

    def _secret(self) -> str:
        """Return the webhooks' secret without making one."""
        given = self._settings.webhook_secret.get_secret_value()
        store = self._store_if_any()
        return given or (store.value("webhook_secret") or "" if store else "")

    def _secrets(self) -> set[str]:
        settings = self._settings
        named = (settings.label_studio_api_key, settings.basic_auth_pass, settings.webhook_secret)
        return {value.get_secret_value().strip() for value in named} | {self._secret()}

    # -- Label Studio -------------------------------------------------------------------------------------------------
    def _enter(self) -> tuple[host.Host | None, Finding]:
        answer = self._answer.get()
        if not answer.release:
            raise Missing(f"there is no Label Studio at {self._settings.label_studio_url}")
        return host.enter(self._settings, answer, patience=self._patience)

    def _host(self) -> host.Host:
        found, _ = self._entry.get()
        if found is None:
            raise Missing("Label Studio does not accept the token")
        return found

    def _start_host(self) -> None:
        settings, bench = self._settings, self._bench
        url = settings.effective_backend_url
        checks = {
            "address": lambda: [host.judge_address(settings, self._answer.get(), patience=self._patience)],
            "token": lambda: [self._entry.get()[1]],
            "rights": lambda: [host.judge_rights(self._host().user)],
            "release": lambda: [host.judge_release(self._released().release)],
            "clock": lambda: [host.judge_clock(self._released().apart)],
            "protection": lambda: host.judge_protections(self._host().client, url),
        }
        for check, examine_it in checks.items():
            bench.start(_HOST, check, examine_it)

    def _released(self) -> host.Answer:
        answer = self._answer.get()
        if not answer.release:
            raise Missing(f"there is no Label Studio at {self._settings.label_studio_url}")
        return answer

    # -- projects -----------------------------------------------------------------------------------------------------
    def _start_project(self, project_id: int) -> None:
        title = f"Project {project_id}"
        facts = self._bench.later(f"project {project_id}", lambda: self._read(project_id))
        self._bench.start(title, "project", lambda: self._judge(project_id, facts))
        self._bench.start(title, "images", lambda: self._judge_images(facts))

    def _read(self, project_id: int) -> project.Facts | None:
        """Return what is to be known of a project; None where Label Studio has none of that number."""
        client, store = self._host().client, self._store_if_any()
        try:
            return project.read(client, project_id, store.project(project_id) if store else None, self._settings)
        except LabelStudioNotFound:
            return None

    def _judge(self, project_id: int, facts: Later[project.Facts | None]) -> Iterator[Finding]:
        found = facts.get()
        if found is None:
            yield project.missing_project(self._host().client, project_id)
            return
        yield from self._judge_settings_of(found)
        if self._differs(found.tested):
            answers = computing.probe(found.tested, self._seconds - _PROBE_MARGIN)
            yield from computing.judge_network(answers, found.tested, "network of the project")

    def _judge_settings_of(self, found: project.Facts) -> Iterator[Finding]:
        large = int(found.project.get("task_number") or 0) >= host.LARGE_PROJECT
        fast = host.fast_import(self._host().client) if large else None
        return project.judge_project(found, self._settings, self._secret(), fast_import=fast)

    def _judge_images(self, facts: Later[project.Facts | None]) -> Iterator[Finding]:
        found = facts.get()
        if found is None:
            raise Missing("there is no such project")
        return project.judge_images(self._host().client, found)

    def _differs(self, tested: Settings) -> bool:
        return any(getattr(tested, name) != getattr(self._settings, name) for name in computing.PROBED)

    def _start_short(self) -> Iterator[Finding]:
        """Start a check for each connected project, a few at a time."""
        connected = self._store.get().projects()
        if not connected:
            yield note("projects", "No project is connected", remedy="nextmask connect PROJECT")
        turns = threading.Semaphore(_PROJECTS_AT_ONCE)
        for known in connected:
            self._bench.start(_PROJECTS, f"project {known.id}", functools.partial(self._in_short, known, turns))

    def _in_short(self, known: Project, turns: threading.Semaphore) -> Iterator[Finding]:
        with turns:
            found = self._read(known.id)
            if found is None:
                yield project.deleted(known)
            else:
                yield project.in_short(found, list(self._judge_settings_of(found)))
