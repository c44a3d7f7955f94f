"""One real Label Studio for all live tests, and a real nextmask beside it for each test that wants one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from shapes import make_shapes
from support import Nextmask, Studio

from ml_backend.datasets import Dataset, label_config, sample_dataset
from ml_backend.demo.label_studio import LabelStudioHost, free_port
from ml_backend.label_studio import LabelStudio

TOKEN = "0123456789abcdef0123456789abcdef01234567"
FAST = {"input_size": 64, "iterations": 6, "train_after": 4, "held_out_share": 0.0}
"""Settings with which a training takes seconds. Nothing is held out: chance must not take all of four labels away."""


@pytest.fixture(scope="session")
def studio(
    request: pytest.FixtureRequest, label_studio_command: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Studio]:
    option = request.config.getoption
    if option("--studio-url"):
        url, token = str(option("--studio-url")), str(option("--studio-token"))
        yield Studio(url, token, str(option("--studio-user")), str(option("--studio-password")))
        return
    user, password = str(option("--studio-user")), str(option("--studio-password"))
    with _studio(label_studio_command, tmp_path_factory.mktemp("label-studio"), user, password) as started:
        yield started


@pytest.fixture(scope="module")
def older_studio(older_label_studio_command: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """A release before the oldest that nextmask is tested with."""
    folder = tmp_path_factory.mktemp("older-label-studio")
    with _studio(older_label_studio_command, folder, "admin@nextmask.local", "nextmask-password") as started:
        yield started


@contextmanager
def _studio(command: Path, folder: Path, user: str, password: str) -> Iterator[Studio]:
    host = LabelStudioHost(command, folder / "data", free_port(), folder, username=user, password=password, token=TOKEN)
    with host.running():
        yield Studio(host.url, TOKEN, user, password)


@pytest.fixture(scope="session")
def label_studio(studio: Studio) -> LabelStudio:
    return LabelStudio(studio.url, studio.token)


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    return sample_dataset()


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Forty tiny images."""
    return make_shapes(tmp_path_factory.mktemp("data") / "shapes", 40)


@pytest.fixture
def make_project(label_studio: LabelStudio, dataset: Dataset) -> Iterator[Callable[..., int]]:
    """Make a project with images, the sample's by default; it is deleted after the test."""
    with _projects(label_studio, dataset) as make:
        yield make


@pytest.fixture(scope="module")
def make_module_project(label_studio: LabelStudio, dataset: Dataset) -> Iterator[Callable[..., int]]:
    """Like make_project, for a project that all tests of a module work on."""
    with _projects(label_studio, dataset) as make:
        yield make


@contextmanager
def _projects(label_studio: LabelStudio, sample: Dataset) -> Iterator[Callable[..., int]]:
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
