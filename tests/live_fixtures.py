"""One real Label Studio for all live tests, and a real nextmask beside it for each test that wants one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prepared_studio import Account, host_on
from shapes import make_shapes
from studio_client import StudioClient
from support import Nextmask, Studio

from ml_backend.datasets import Dataset, label_config, sample_dataset

FAST = {"input_size": 64, "iterations": 6, "train_after": 4, "audit_share": 0.0}
"""Settings with which a training takes seconds. Nothing is held out: chance must not take all of four labels away."""


@pytest.fixture(scope="session")
def first_starts(pytestconfig: pytest.Config) -> Path:
    """Folder that keeps what Label Studio writes at its first start, for all runs."""
    return pytestconfig.cache.mkdir("label-studio")


@pytest.fixture(scope="session")
def studio(
    request: pytest.FixtureRequest,
    label_studio_command: Path,
    first_starts: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Studio]:
    option = request.config.getoption
    account = Account(str(option("--studio-user")), str(option("--studio-password")))
    if option("--studio-url"):
        yield Studio(str(option("--studio-url")), str(option("--studio-token")), account.user, account.password)
        return
    folder = tmp_path_factory.mktemp("label-studio") / "data"
    with host_on(label_studio_command, folder, first_starts, account=account).running() as host:
        yield Studio(host.url, account.token, account.user, account.password)


@pytest.fixture(scope="module")
def older_studio(
    older_label_studio_command: Path, first_starts: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Studio]:
    """A release before the oldest that nextmask is tested with."""
    account = Account()
    folder = tmp_path_factory.mktemp("older-label-studio") / "data"
    with host_on(older_label_studio_command, folder, first_starts, account=account).running() as host:
        yield Studio(host.url, account.token, account.user, account.password)


@pytest.fixture(scope="session")
def label_studio(studio: Studio) -> StudioClient:
    return StudioClient(studio.url, studio.token)


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    return sample_dataset()


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Forty tiny images."""
    return make_shapes(tmp_path_factory.mktemp("data") / "shapes", 40)


@pytest.fixture
def make_project(label_studio: StudioClient, dataset: Dataset) -> Iterator[Callable[..., int]]:
    """Make a project with images, the sample's by default; it is deleted after the test."""
    with _projects(label_studio, dataset) as make:
        yield make


@pytest.fixture(scope="module")
def make_module_project(label_studio: StudioClient, dataset: Dataset) -> Iterator[Callable[..., int]]:
    """Like make_project, for a project that all tests of a module work on."""
    with _projects(label_studio, dataset) as make:
        yield make


@contextmanager
def _projects(label_studio: StudioClient, sample: Dataset) -> Iterator[Callable[..., int]]:
    made: list[int] = []

    def make(images: int = 12, control: str = "BrushLabels", xml: str | None = None, dataset: Dataset = sample) -> int:
        config = xml or label_config(dataset, control)
        project = int(label_studio.create_project(title="nextmask live test", label_config=config)["id"])
        made.append(project)
        if images:
            label_studio.upload_images(project, [one.image for one in dataset.splits["train"][:images]])
        return project

    try:
        yield make
    finally:
        for project in made:
            label_studio.delete_project(project)


@pytest.fixture
def make_nextmask(studio: Studio, tmp_path: Path) -> Iterator[Callable[..., Nextmask]]:
    """Start `nextmask serve`; all are stopped after the test."""
    with nextmasks(studio, tmp_path) as make:
        yield make


@pytest.fixture(scope="module")
def make_module_nextmask(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Nextmask]]:
    """Like make_nextmask, for one that all tests of a module use."""
    with nextmasks(studio, tmp_path_factory.mktemp("module")) as make:
        yield make


@contextmanager
def nextmasks(studio: Studio, folder: Path) -> Iterator[Callable[..., Nextmask]]:
    started: list[Nextmask] = []

    def make(*arguments: str, **environment: Any) -> Nextmask:
        nextmask = Nextmask(studio, folder / f"nextmask-{len(started)}", FAST, arguments, environment)
        started.append(nextmask)
        nextmask.start()
        return nextmask

    try:
        yield make
    finally:
        for nextmask in started:
            nextmask.stop()
            nextmask.close()


@pytest.fixture
def nextmask(make_nextmask: Callable[..., Nextmask]) -> Nextmask:
    return make_nextmask()


@pytest.fixture(scope="session")
def serving(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nextmask]:
    """One nextmask for all tests that leave it running. Its timer is off: what it does, a webhook made it do."""
    environment = {"reconcile_seconds": 3600.0}
    nextmask = Nextmask(studio, tmp_path_factory.mktemp("nextmask"), FAST, environment=environment)
    nextmask.start()
    yield nextmask
    nextmask.stop()
    nextmask.close()
