"""What is uploaded: a wheel that works where there is no repository, a page that reads well there, and all sources."""

from __future__ import annotations

import csv
import email
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import pytest
import requests
import tiny_datasets
import wiring
from installations import ROOT, copy_of_the_repository, environment_beside
from processes import wait_for

from ml_backend.demo.label_studio import free_port

PYTHON = [sys.executable, "-c"]
BUILD = "import sys; from setuptools import build_meta as b; to = sys.argv[1]; b.build_wheel(to); b.build_sdist(to)"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with wheel and source distribution."""
    folder = tmp_path_factory.mktemp("built")
    sources = copy_of_the_repository(folder / "sources")
    subprocess.run([*PYTHON, BUILD, str(folder)], cwd=sources, check=True, capture_output=True, timeout=300)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return email.message_from_bytes(archive.read(name))


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment into which the wheel is installed."""
    programs = environment_beside(tmp_path_factory.mktemp("environment") / "venv")
    install = [
        str(programs / "python"),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--force-reinstall",
        str(wheel),
    ]
    subprocess.run(install, check=True, timeout=300)
    return programs


@pytest.fixture
def environment(tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of somebody whose working folder is empty."""
    monkeypatch.chdir(tmp_path)
    ours = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    return {**ours, "OMP_NUM_THREADS": "1", "MODEL_DIR": str(tmp_path / "state"), "COLUMNS": "100"}


def test_what_runs_is_the_wheel(programs: Path, environment: dict[str, str]) -> None:
    code = (
        "import ml_backend, strategies; from ml_backend.datasets import SAMPLE_FOLDER, sample_dataset;"
        "sample_dataset(); print(ml_backend.__file__, strategies.__file__, SAMPLE_FOLDER)"
    )
    run = subprocess.run([programs / "python", "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert all(Path(file).is_relative_to(programs.parent) for file in run.stdout.split())


def test_it_simulates(programs: Path, environment: dict[str, str], tmp_path: Path) -> None:
    cells = tiny_datasets.own(tmp_path / "cells", splits={"train": 6, "test": 2}, classes=("background", "cell"))
    options = "--preset quick --device cpu --iterations 2 --input-size 64 --rounds 1 --step 40% --seeds 1"
    command = [programs / "nextmask", "simulate", cells, *options.split(), "--strategy", "entropy"]
    command += ["--out", tmp_path / "out"]
    subprocess.run(command, env=environment, check=True, timeout=600)
    rows = list(csv.DictReader((tmp_path / "out" / "results.csv").open()))
    assert {row["strategy"] for row in rows} == {"entropy", "full"}
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000


@pytest.fixture
def served(programs: Path, environment: dict[str, str], tmp_path: Path) -> Iterator[str]:
    """The address of a server of the wheel, which has a trained model."""
    with wiring.open_installation(tmp_path / "state") as services:
        wiring.give_project(services)
    port = free_port()
    environment |= {"LABEL_STUDIO_URL": wiring.NOBODY, "LABEL_STUDIO_API_KEY": "0" * 40}
    environment |= {"NEXTMASK_PORT": str(port), "NEXTMASK_DEVICE": "cpu"}
    address = f"http://127.0.0.1:{port}"

    def healthy() -> bool:
        assert server.poll() is None, "the server ended"
        try:
            return requests.get(f"{address}/health", timeout=5).ok
        except requests.ConnectionError:
            return False

    with subprocess.Popen([programs / "nextmask", "serve", "--no-worker"], env=environment) as server:
        try:
            wait_for(healthy, name="/health")
            yield address
        finally:
            server.terminate()
            server.wait(30)


def test_it_serves_and_predicts(served: str) -> None:
    task = {"id": 1, "data": {"image": wiring.data_uri(1)}}
    sent = {**wiring.payload("predict_single")["body"], "tasks": [task], "project": f"{wiring.PROJECT}.1"}
    (answer,) = requests.post(f"{served}/predict", json=sent, timeout=120).json()["results"]
    assert answer["result"][0]["value"]["brushlabels"] == ["cell"]
    page = requests.get(f"{served}/", timeout=60)
    assert page.ok
    for file in re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text):
        assert requests.get(f"{served}{file}", timeout=60).ok, file


def test_the_page_has_no_link_that_leads_nowhere(metadata: Message) -> None:
    page = metadata.get_payload()
    assert isinstance(page, str)
    assert len(page) > 500
    links = re.findall(r"\]\(([^)\s]+)\)", page)
    assert links
    assert all(link.startswith("https://") for link in links)
    assert "](docs/" not in page


def test_the_metadata_names_what_is_supported(metadata: Message) -> None:
    pythons = {line.rpartition(" ")[2] for line in metadata.get_all("Classifier", []) if "Python :: 3." in line}
    assert pythons == {"3.11", "3.12", "3.13", "3.14"}
    assert metadata["Requires-Python"] == ">=3.11"
    assert "Operating System :: POSIX" in metadata.get_all("Classifier", [])


def test_the_wheel_has_no_tests_and_the_sources_have_all_that_they_need(built: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        folders = {name.partition("/")[0] for name in archive.namelist()}
    assert {folder for folder in folders if not folder.endswith(".dist-info")} == {"ml_backend", "strategies"}
    (sources,) = built.glob("*.tar.gz")
    with tarfile.open(sources) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    assert set(filter(None, tracked)) - names == {".gitignore"}
    assert not any("secret" in name or name.endswith("/.env") for name in names if name.startswith("docker/"))
