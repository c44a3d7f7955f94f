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
from processes import wait_for
from support import Studio

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


def test_the_files_that_are_copied_can_be_installed(tmp_path: Path) -> None:
    context, target = tmp_path / "context", tmp_path / "target"
    context.mkdir()
    for sources, _ in re.findall(r"^COPY (.+) (\S+)$", DOCKERFILE, flags=re.MULTILINE):
        for name in sources.split():
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, context / name)
    found = re.search(r"^RUN pip (install .+ \.)$", DOCKERFILE, flags=re.MULTILINE)
    assert found
    # The dependencies are installed here already.
    command = [sys.executable, "-m", "pip", *found.group(1).split(), "--no-deps", "--target", str(target)]
    subprocess.run(command, cwd=context, check=True, timeout=300)

    version = [sys.executable, "-m", "ml_backend", "--version"]
    shown = subprocess.run(version, cwd=target, check=True, capture_output=True, text=True, timeout=120)
    code = "from ml_backend.datasets import SAMPLE_FOLDER, sample_dataset; sample_dataset(); print(SAMPLE_FOLDER)"
    sample = subprocess.run([sys.executable, "-c", code], cwd=target, check=True, capture_output=True, text=True)
    assert shown.stdout.strip() in {
        path.name.split("-")[1].removesuffix(".dist") for path in target.glob("*.dist-info")
    }
    assert Path(sample.stdout.strip()).is_relative_to(target)
    assert (target / "bin" / "nextmask").exists()


@pytest.mark.live
def test_the_server_starts_and_is_healthy_as_the_files_have_it(studio: Studio, tmp_path: Path) -> None:
    compose = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
    service = compose["services"]["nextmask"]
    assert service["command"] == ["nextmask", "serve"]
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
