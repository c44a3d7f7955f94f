"""What all tests share: an environment without the developer's own settings, and the label-studio program."""

from __future__ import annotations

import os

# As the command line does, and before torch is imported: threads that spin while they wait starve each other.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from collections import Counter
from pathlib import Path

import hypothesis
import pytest

from ml_backend.demo.label_studio import find_label_studio
from ml_backend.settings import Settings, environment_name

pytest_plugins = ["full_disks", "live_fixtures", "browser_fixtures", "object_store", "postgresql", "ray_cluster"]

# How long an example takes says how busy the machine is, and nothing of the code.
hypothesis.settings.register_profile("nextmask", deadline=None)
hypothesis.settings.load_profile("nextmask")

_OURS = frozenset(environment_name(name) for name in Settings.model_fields)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("nextmask")
    group.addoption("--fuzz-examples", type=int, help="inputs that hypothesis sends to each fuzz target")
    group.addoption("--studio-url", help="use this running Label Studio instead of starting one (development)")
    group.addoption("--studio-token", help="legacy token of its administrator")
    group.addoption("--studio-user", help="e-mail address of its administrator", default="admin@nextmask.local")
    group.addoption("--studio-password", help="password of its administrator", default="nextmask-password")
    group.addoption("--kills", type=int, default=8, help="how often tests/live/test_random_kills.py kills")
    group.addoption(
        "--down", type=float, default=5.0, help="seconds that tests/live/test_host_down.py is without a host"
    )
    group.addoption("--projects", type=int, default=4, help="how many tests/live/test_many_projects.py has at once")
    group.addoption("--seed", type=int, help="seed of tests that draw their moments at random; printed by each run")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several processes share the files, let them begin with the long ones, so that all end at the same time."""
    if not hasattr(config, "workerinput"):
        return
    tests = Counter(item.path for item in items)
    slow = {Path(__file__).with_name(name) for name in ("live", "browser")}
    items.sort(key=lambda item: (slow.isdisjoint(item.path.parents), -tests[item.path]))


@pytest.fixture(autouse=True, scope="session")
def _no_settings_of_the_developer() -> None:
    for name in [name for name in os.environ if name in _OURS or name.startswith("NEXTMASK_")]:
        del os.environ[name]


@pytest.fixture(scope="session")
def label_studio_command() -> Path:
    return find_label_studio()


@pytest.fixture(scope="session")
def older_label_studio_command() -> Path:
    return find_label_studio(Path(__file__).parents[1] / ".venv-label-studio-older" / "bin" / "label-studio")
