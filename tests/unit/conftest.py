"""What tests of the parts share: a Label Studio in memory, an installation of nextmask that works for it, and hosts.

Marks say what a module, a class or a test wants of them; of two, the closer one counts:
`@pytest.mark.studio(8, connected=True)` takes the arguments of MemoryStudio.with_images,
`@pytest.mark.settings(train_after=4)` those of the installation's settings.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from http_host import Host
from memory_studio import MemoryStudio
from postgresql import DatabaseClock
from wiring import PROJECT, Clock, give_model, open_installation, serve_model, single_thread, task_of

from ml_backend.learning.checkpoints import Version
from ml_backend.projects.services import Services
from ml_backend.store import Store, Task


@pytest.fixture
def studio(request: pytest.FixtureRequest) -> MemoryStudio:
    """A Label Studio in memory, without tasks where no mark asks for some."""
    mark = request.node.get_closest_marker("studio")
    return MemoryStudio.with_images(*mark.args, **mark.kwargs) if mark else MemoryStudio()


@pytest.fixture
def services(
    request: pytest.FixtureRequest, tmp_path: Path, studio: MemoryStudio, database_url: str
) -> Iterator[Services]:
    """An installation in tmp_path that knows no project yet, and `studio` is its Label Studio.

    Of the few images of a test none measures, unless the test asks for that.
    """
    mark = request.node.get_closest_marker("settings")
    with open_installation(tmp_path, studio, **{"audit_share": 0.0, **(mark.kwargs if mark else {})}) as services:
        yield services


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, database_url: str) -> Clock:
    """The time as all of nextmask sees it, that of the machine and that of the store, which nobody can set."""
    clock = DatabaseClock(database_url) if database_url else Clock()
    monkeypatch.setattr(time, "time", clock)
    monkeypatch.setattr(Store, "steady_time", lambda _: clock.now)
    return clock


@pytest.fixture
def known_project(services: Services, studio: MemoryStudio) -> None:
    """A project that waits for its first look."""
    services.store.wake(PROJECT)


@pytest.fixture
def served_project(services: Services, known_project: None) -> Version:
    """The project is served by a model that was trained elsewhere: its labels are not those of the project's tasks."""
    return serve_model(services)


@pytest.fixture
def model(services: Services) -> Version:
    """The trained model as version 1 of the project, which serves nobody yet."""
    return give_model(services)


@pytest.fixture
def tasks(services: Services, studio: MemoryStudio) -> list[Task]:
    """The tasks of `studio`, put into the store."""
    tasks = [task_of(number, image=studio.items[number]["data"]["image"]) for number in sorted(studio.items)]
    services.store.put_tasks(tasks)
    return tasks


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    with single_thread():
        yield


@pytest.fixture
def host() -> Iterator[Host]:
    """A server that stands for Label Studio where a test decides its answers."""
    with Host().serving() as running:
        yield running


@pytest.fixture
def elsewhere() -> Iterator[Host]:
    """Another server."""
    with Host().serving() as running:
        yield running
