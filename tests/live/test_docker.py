"""The commands of docker/, run without an engine: the installation, the server, the health check."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from installations import environment_beside, package_index
from processes import wait_for
from support import Studio

from ml_backend import __version__
from ml_backend.demo.label_studio import free_port

ROOT = Path(__file__).resolve().parents[2]
# Without continuation lines: one instruction per line.
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text().replace("\\\n", " ")
BIN = Path(sys.executable).parent


def command_after(pattern: str) -> list[str]:
    """Return the command (a JSON list, as the Dockerfile has it) with its program's path in our environment."""
    found = re.search(pattern + r" *(\[.*\])$", DOCKERFILE, flags=re.MULTILINE)
    assert found
    program, *arguments = ast.literal_eval(found.group(1))
    return [str(BIN / program), *arguments]


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A folder that stands for the image's root after each COPY and RUN; /venv is where its pip installs.

    What differs from a build: pip finds the dependencies of the tests instead of downloading them, folders are below
    the temporary one, and only root can add the user.
    """
    root = work = tmp_path / "root"
    programs = environment_beside(root / "venv")
    extras = re.findall(r"^ARG EXTRAS=(\S+)$", DOCKERFILE, flags=re.MULTILINE)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "EXTRAS": extras[0]}
    with package_index() as environment["PYTORCH_INDEX"]:
        for instruction, rest in re.findall(r"^([A-Z]+) +(.+)$", DOCKERFILE, flags=re.MULTILINE):
            if instruction == "WORKDIR":
                work = root / rest.strip("/")
            elif instruction == "COPY":
                copy(rest.split(), work)
            elif instruction == "RUN":
                work.mkdir(parents=True, exist_ok=True)
                if "useradd" not in rest:
                    command = re.sub(r"--mount=\S+ ", "", rest)
                elif os.getuid() == 0:
                    command = with_prefix(rest, root)
                else:
                    continue
                subprocess.run(["bash", "-ceu", command], cwd=work, env=environment, check=True, timeout=600)
    return root


def copy(words: list[str], work: Path) -> None:
    """Copy files into a folder, and what is in folders, as COPY does."""
    *names, target = words
    for name in names:
        source, folder = ROOT / name, work / target
        folder.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, folder, dirs_exist_ok=True)
        else:
            shutil.copy(source, folder)


def with_prefix(command: str, root: Path) -> str:
    """Let a user be added, and its folder made, below a root that has no users yet."""
    for file in ("etc/passwd", "etc/group", "home/.keep"):
        (root / file).parent.mkdir(exist_ok=True)
        (root / file).touch()
    return command.replace("useradd", f"useradd --prefix {root}").replace(" /data", f" {root}/data")


def test_what_is_run_makes_an_image_with_nextmask(built: Path) -> None:
    programs = built / "venv" / "bin"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    code = "from ml_backend.datasets import SAMPLE_FOLDER, sample_dataset; sample_dataset(); print(SAMPLE_FOLDER)"

    def said(program: str, *arguments: str) -> str:
        command = [programs / program, *arguments]
        run = subprocess.run(command, cwd=built, env=environment, capture_output=True, text=True, check=True)
        return run.stdout.strip()

    assert said("nextmask", "--version") == __version__
    assert Path(said("python", "-c", code)).is_relative_to(built / "venv")
    if os.getuid() == 0:
        assert (built / "data").stat().st_uid == 10001
        assert re.match(r"nextmask:[^:]*:10001:10001:", (built / "etc" / "passwd").read_text())


def test_a_change_of_the_code_downloads_nothing_again() -> None:
    """What is copied before the dependencies are installed is what says which they are."""
    before, _, after = DOCKERFILE.partition("RUN --mount=type=cache,target=/root/.cache/pip ")
    copied = re.findall(r"^COPY (.+) \S+$", before, flags=re.MULTILINE)
    assert copied == ["pyproject.toml setup.cfg", "requirements/constraints.txt"]
    first, *later = re.findall(r"pip install (.+)", after)
    assert first == '--extra-index-url "$PYTORCH_INDEX" -c requirements/constraints.txt ".[$EXTRAS]"'
    assert later
    assert all("--no-deps" in install for install in later)


@pytest.mark.live
def test_the_server_starts_and_is_healthy_as_the_files_have_it(studio: Studio, tmp_path: Path) -> None:
    compose = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
    service = compose["services"]["nextmask"]
    environment = {
        **{name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ},
        **service["environment"],
        # what the container, its volume and docker/.env would give
        "MODEL_DIR": str(tmp_path),
        "LABEL_STUDIO_URL": studio.url,
        "LABEL_STUDIO_API_KEY": studio.token,
        "BASIC_AUTH_PASS": "of-the-env-file",
        "NEXTMASK_PORT": str(free_port()),
        "PATH": f"{BIN}:{os.environ['PATH']}",
    }
    check = command_after(r"^HEALTHCHECK.* CMD")

    def is_healthy() -> bool:
        return subprocess.run(check, env=environment, capture_output=True, timeout=60).returncode == 0

    assert not is_healthy()
    with subprocess.Popen(command_after("^CMD"), env=environment, cwd=tmp_path) as server:
        try:
            wait_for(is_healthy, name="the health check")
        finally:
            server.terminate()
            server.wait(30)
    assert not is_healthy()
