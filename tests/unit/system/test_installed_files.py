"""An installation of nextmask whose files another package replaces, removes, or somebody edits."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from small_training import ROOT

from ml_backend.system.installed_files import damage

SOURCES = ("pyproject.toml", "setup.cfg", "README.md", "LICENSE", "ml_backend", "strategies")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our wheel."""
    folder = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder / "dist"), str(folder))
    (built,) = (folder / "dist").glob("*.whl")
    return built


@pytest.fixture
def environment(tmp_path: Path, wheel: Path) -> Path:
    """An environment with our wheel, and with the packages of this one, but without this one's nextmask."""
    folder = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    install(folder, wheel)
    (packages(folder) / "more.pth").write_text(str(Path(torch.__file__).parents[1]))
    return folder


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def install(environment: Path, wheel: Path) -> None:
    python = str(environment / "bin" / "python")
    pip("--python", python, "install", "--no-deps", "--no-index", "--force-reinstall", str(wheel))


def packages(environment: Path) -> Path:
    (folder,) = environment.glob("lib/python3*/site-packages")
    return folder


def another(folder: Path, content: str) -> Path:
    """A wheel with a package `strategies`, as PyPI has it."""
    name, info = "strategies-0.2.3-py3-none-any.whl", "strategies-0.2.3.dist-info"
    files = {
        "strategies/__init__.py": content,
        "strategies/core.py": "",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: strategies\nVersion: 0.2.3\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/top_level.txt": "strategies\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(folder / name, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    return folder / name


def nextmask(environment: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "MODEL_DIR": str(environment / "state"), "PYTHONPATH": ""}
    command = [str(environment / "bin" / "nextmask"), *arguments]
    return subprocess.run(command, cwd=environment, env=variables, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("content", ["", "import no_such_module", "import collections; collections.Iterable"])
def test_a_package_of_the_same_name_is_named(environment: Path, tmp_path: Path, content: str) -> None:
    assert nextmask(environment, "status").stdout.startswith("No project is connected.")
    install(environment, another(tmp_path, content))
    for command in ("status", "--help", "simulate"):
        ended = nextmask(environment, command)
        assert ended.returncode == 1
        assert ended.stderr == (
            "Error: strategies/__init__.py of nextmask was replaced by another package: strategies 0.2.3. Remove what "
            "is in the way (pip uninstall strategies), then install nextmask anew, in a clone of the repository with: "
            "pip install --force-reinstall --no-deps .\n"
        )


def test_what_the_other_package_takes_along_is_missed(environment: Path, tmp_path: Path, wheel: Path) -> None:
    install(environment, another(tmp_path, ""))
    pip("--python", str(environment / "bin" / "python"), "uninstall", "--yes", "strategies")
    ended = nextmask(environment, "status")
    assert ended.returncode == 1
    assert ended.stderr.startswith("Error: strategies/__init__.py of nextmask was removed, as happens where another ")
    install(environment, wheel)
    assert nextmask(environment, "status").returncode == 0


def test_doctor_compares_the_files_with_what_was_installed(environment: Path) -> None:
    assert "files:" not in nextmask(environment, "doctor", "--timeout", "2").stdout
    (packages(environment) / "strategies" / "margin.py").write_text("# somebody tries something")
    said = nextmask(environment, "doctor", "--timeout", "2").stdout
    assert "• files: strategies/margin.py of nextmask was changed since the installation" in said
    (packages(environment) / "strategies" / "margin.py").unlink()
    assert (
        "✗ problem: files: strategies/margin.py of nextmask was removed"
        in nextmask(environment, "doctor", "--timeout", "2").stdout
    )


def test_a_package_that_hides_that_of_a_clone_is_found(tmp_path: Path) -> None:
    """Not installed, or installed with `pip install -e .`: the list of the installation does not have the files."""
    assert damage() is None
    (tmp_path / "strategies").mkdir()
    (tmp_path / "strategies" / "__init__.py").touch()
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    ended = subprocess.run(
        [sys.executable, "-m", "ml_backend", "status"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr == (
        f"Error: {tmp_path / 'strategies'} hides {ROOT / 'strategies'} of nextmask. Remove what is in the way: rename "
        "it, or take its folder off PYTHONPATH\n"
    )


def test_another_error_is_shown_as_it_is(environment: Path) -> None:
    (packages(environment) / "typer").mkdir()
    (packages(environment) / "typer" / "__init__.py").write_text("import no_such_module")
    assert nextmask(environment, "status").stderr.endswith("No module named 'no_such_module'\n")
