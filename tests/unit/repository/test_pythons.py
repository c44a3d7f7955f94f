"""Which Python makes the environments, which versions are declared, and that what is declared fits together."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from installations import ROOT, constraint, package_index
from packaging.requirements import Requirement
from packaging.version import Version

SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
NEEDED = [line for line in SETUP["options"]["install_requires"].split("\n") if line and not line.startswith("#")]


# -- the Python ------------------------------------------------------------------------------------------------------
@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A folder that is the whole PATH, for programs that are there."""
    for name in ("sh", "env"):
        (tmp_path / name).symlink_to(f"/bin/{name}")
    return tmp_path


def put(folder: Path, name: str, *, is_version: str | None = None) -> None:
    """Put a Python there that says it is this version, or a program that says no, as pyenv's do."""
    program = folder / name
    if is_version is None:
        program.write_text("#!/bin/sh\nexit 127\n")
    else:
        # A real interpreter that believes that it is another one.
        version = tuple(int(part) for part in is_version.split("."))
        lie = f"import sys; sys.version_info = ({version[0]}, {version[1]}, 0, 'final', 0)"
        program.write_text(
            f'#!/bin/sh\nif [ "$1" = -c ]; then exec {sys.executable} -c "{lie}; $2"; fi\necho "{name} $*"\n'
        )
    program.chmod(0o755)


def chosen(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = ["/bin/sh", str(ROOT / "scripts" / "new_environment.sh"), "folder", *arguments]
    return subprocess.run(command, env={"PATH": str(folder), **variables}, capture_output=True, text=True, check=False)


def test_the_newest_python_that_works_is_taken(there: Path) -> None:
    put(there, "python3", is_version="3.11")
    assert chosen(there).stdout == "python3 -m venv folder\n"
    put(there, "python3.12", is_version="3.12")
    put(there, "python3.13")
    assert chosen(there).stdout == "python3.12 -m venv folder\n"
    put(there, "python3.14", is_version="3.14")
    assert chosen(there).stdout == "python3.14 -m venv folder\n"
    assert chosen(there, "3.13").stdout == "python3.12 -m venv folder\n", "the newest that Label Studio takes"
    assert chosen(there, PYTHON="python3.12").stdout == "python3.12 -m venv folder\n"


@pytest.mark.parametrize("version", ["3.10", "3.15", None])
def test_without_a_python_that_fits_it_says_what_to_install(there: Path, version: str | None) -> None:
    put(there, "python3", is_version=version)
    run = chosen(there)
    assert run.returncode == 1
    assert "needs a Python from 3.11 to 3.14" in run.stderr
    assert "apt install python3 python3-venv" in run.stderr
    assert run.stderr.count("\n") == 1


def test_on_windows_it_says_where_it_runs() -> None:
    code = "import sys; sys.platform = 'win32'; import ml_backend.cli.app"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr == "nextmask runs on Linux and macOS. On Windows, run it in WSL or in Docker: docs/docker.md\n"


# -- the versions ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("line", NEEDED)
def test_what_the_tests_run_with_is_what_is_declared(line: str) -> None:
    declared = Requirement(line)
    assert declared.specifier.contains(pinned(declared.name)), "requirements/constraints.txt"
    assert all(one.operator in {">=", "==", "<"} for one in declared.specifier), (
        "make test-oldest finds no lowest version"
    )


def pinned(name: str) -> str:
    return constraint(re.sub(r"[-_]", "[-_]", name))


def test_a_torch_whose_weights_only_has_a_hole_is_refused() -> None:
    """CVE-2025-32434: below 2.6, torch.load runs code also with weights_only."""
    (torch,) = (Requirement(line) for line in NEEDED if line.startswith("torch>"))
    assert not torch.specifier.contains(Version("2.5.1"))


def test_the_lowest_versions_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import lowest_versions

    here = Version(__import__("importlib.metadata").metadata.version("numpy"))
    assert lowest_versions.compared(Requirement(f"numpy>={here}")) == ""
    assert "Declare that in setup.cfg" in lowest_versions.compared(Requirement("numpy>=1"))
    assert lowest_versions.compared(Requirement('numpy>=1; extra == "dev"')) == ""


# -- without CUDA ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("page", ["README.md", "docs/package.md"])
def test_the_line_for_machines_without_a_gpu_takes_torch_without_cuda(page: str, tmp_path: Path) -> None:
    """pip, between an index as PyPI and one as PyTorch's, whose versions end with +cpu."""
    (line,) = re.findall(r"^pip (install .*--extra-index-url .*)$", (ROOT / page).read_text(), flags=re.MULTILINE)
    line = line.partition("#")[0]
    assert "https://download.pytorch.org/whl/cpu" in line
    names = ("torch", "torchvision")
    with (
        package_index(*((name, constraint(name)) for name in names)) as pypi,
        package_index(*((name, f"{constraint(name)}+cpu") for name in names)) as pytorch,
    ):
        words = line.replace("https://download.pytorch.org/whl/cpu", pytorch).split()
        options = [word for word in words[1:] if word not in {".", "nextmask"}]
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--index-url", pypi]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
        environment["PIP_CONFIG_FILE"] = os.devnull
        run = subprocess.run(
            [*command, *options, *(f"{name}=={constraint(name)}" for name in names)],
            env=environment, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120,
        )  # fmt: skip
    assert {f"{name}-{constraint(name)}+cpu" for name in names} <= set(run.stdout.splitlines()[-1].split())
