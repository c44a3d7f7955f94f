"""What can be said of the files in docker/ without an engine; tests/live/test_docker.py runs their commands."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from ml_backend import __version__
from ml_backend.demo.label_studio import LabelStudioHost
from ml_backend.label_studio.client import TESTED_RELEASE
from ml_backend.settings import Settings

DOCKER = Path(__file__).resolve().parents[3] / "docker"
TEXT = (DOCKER / "compose.yaml").read_text()
SERVICES = yaml.safe_load(TEXT)["services"]


def test_label_studio_runs_as_in_the_tests() -> None:
    host = LabelStudioHost(Path("label-studio"), Path(), 1, Path(), username="", password="", token="")
    tested, here = host.environment(), SERVICES["label-studio"]["environment"]
    filled_in = {name for name, value in here.items() if value.startswith("${")}
    assert filled_in == {f"LABEL_STUDIO_{name}" for name in ("USERNAME", "PASSWORD", "USER_TOKEN")} <= tested.keys()
    fixed = here.keys() - filled_in
    assert {name: here[name] for name in fixed} == {name: tested.get(name) for name in fixed}
    assert SERVICES["label-studio"]["image"].endswith(f":{TESTED_RELEASE}")


def test_both_services_differ_in_the_gpu_only() -> None:
    on_cpu, on_gpu = dict(SERVICES["nextmask"]), dict(SERVICES["nextmask-gpu"])
    assert (on_cpu.pop("profiles"), on_gpu.pop("profiles")) == (["cpu"], ["gpu"])
    assert on_gpu.pop("deploy")["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    on_gpu["environment"] = {**on_gpu["environment"]}
    assert on_gpu["environment"].pop("NEXTMASK_DEVICE") == "cuda"
    assert on_cpu == on_gpu
    assert on_cpu["image"] == f"nextmask:{__version__}"


def test_label_studio_can_reach_nextmask_by_a_dotted_name() -> None:
    (alias,) = SERVICES["nextmask"]["networks"]["default"]["aliases"]
    environment = SERVICES["nextmask"]["environment"]
    assert environment["NEXTMASK_BACKEND_URL"] == f"http://{alias}:{environment['NEXTMASK_PORT']}"
    assert "." in alias


def test_settings_of_nextmask_exist() -> None:
    dockerfile = (DOCKER / "Dockerfile").read_text()
    known = Settings.model_construct().environment().keys()
    assert SERVICES["nextmask-gpu"]["environment"].keys() <= known
    assert set(re.findall(r"\b(?:NEXTMASK_\w+|MODEL_DIR)(?==)", dockerfile)) <= known


def test_the_example_of_the_environment_holds_all_that_must_be_set_and_no_secret() -> None:
    example = dict(re.findall(r"^([A-Z_]+)=(.*)$", (DOCKER / ".env.example").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"\$\{([A-Z_]+):\?", TEXT)) | {"COMPOSE_PROFILES"} == example.keys()
    assert not any(value for name, value in example.items() if "PASS" in name or "TOKEN" in name)
