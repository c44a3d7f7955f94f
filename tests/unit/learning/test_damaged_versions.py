"""A version on disk is damaged, while it serves or before the start: the last good one serves, and it is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from wiring import PROJECT, XML, data_uri, disc, give_project, overlap_with_truth

from ml_backend.annotations.label_map import parse_label_config
from ml_backend.annotations.masks import read_result
from ml_backend.errors import CheckpointError
from ml_backend.learning.checkpoints import Checkpoints
from ml_backend.learning.checkpoints.pointer import CURRENT
from ml_backend.projects.services import Services
from ml_backend.projects.status import project_status
from ml_backend.server.app import create_app

BODY = {"project": f"{PROJECT}.0", "label_config": XML, "tasks": [{"id": 7, "data": {"image": data_uri(4)}}]}


def truncated(folder: Path) -> None:
    weights = folder / "versions/2/weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def flipped(folder: Path) -> None:
    """One bit, in the middle; size and name stay."""
    weights = folder / "versions/2/weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)


def without_weights(folder: Path) -> None:
    (folder / "versions/2/weights.safetensors").unlink()


def without_record(folder: Path) -> None:
    (folder / "versions/2/version.json").unlink()


def half_a_record(folder: Path) -> None:
    record = folder / "versions/2/version.json"
    record.write_bytes(record.read_bytes()[:200])


def foreign_record(folder: Path) -> None:
    (folder / "versions/2/version.json").write_text(json.dumps({"format": 1, "record": [], "weights": {}}))


def without_folder(folder: Path) -> None:
    shutil.rmtree(folder / "versions/2")


DAMAGES = [truncated, flipped, without_weights, without_record, half_a_record, foreign_record, without_folder]


@pytest.fixture(autouse=True)
def _two_versions(services: Services) -> None:
    """Version 2 serves; version 1 is as good."""
    give_project(services, version="nextmask-2.1")
    checkpoints = services.checkpoints(PROJECT)
    first = checkpoints.get(1)
    checkpoints.create(first.record, checkpoints.load_state(first))
    checkpoints.publish(2)
    services.store.update_project(PROJECT, decided_model=2)


def predicts(client: TestClient) -> None:
    answer = client.post("/predict", json=BODY).json()
    (prediction,) = answer["results"]
    mask = read_result(prediction["result"], parse_label_config(XML), size=disc(4)[1].shape).mask
    assert overlap_with_truth(mask, 4) > 0.5
    assert (
        prediction["model_version"] == client.post("/setup", json={"project": f"{PROJECT}.0"}).json()["model_version"]
    )


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("when", ["while it serves", "before the start"])
def test_the_last_good_version_serves(services: Services, damage: Callable[[Path], None], when: str) -> None:
    folder = services.checkpoints(PROJECT).folder
    if when == "before the start":
        damage(folder)
    with TestClient(create_app(services.settings)) as client:
        if when == "while it serves":
            predicts(client)
            damage(folder)
        predicts(client)
    current = services.checkpoints(PROJECT).current()
    assert current is not None
    assert current.number == 1
    assert "serves in its place" in project_status(services.settings, services.store, PROJECT).errors["model"]


def test_of_an_installation_whose_pointer_was_an_empty_file_the_newest_version_serves(services: Services) -> None:
    """Nothing says which version it meant."""
    checkpoints = Checkpoints(services.checkpoints(PROJECT).files)
    checkpoints.publish(2)
    (checkpoints.folder / CURRENT).write_bytes(b"")
    services.store.delete_values([f"serving_{PROJECT}"])
    current = services.checkpoints(PROJECT).current()
    assert current is not None
    assert current.number == 2
    assert "serves in its place" in project_status(services.settings, services.store, PROJECT).errors["model"]
    services.checkpoints(PROJECT).publish(1)
    assert services.checkpoints(PROJECT).stand_in() == ""


@pytest.mark.parametrize("damage", [truncated, flipped])
def test_the_next_version_heals_it(services: Services, damage: Callable[[Path], None]) -> None:
    checkpoints = services.checkpoints(PROJECT)
    damage(checkpoints.folder)
    good = checkpoints.get(1)
    made = checkpoints.create(good.record, checkpoints.load_state(good))
    assert made.number == 3
    checkpoints.publish(3)
    assert checkpoints.stand_in() == ""
    assert "model" not in project_status(services.settings, services.store, PROJECT).errors
    current = checkpoints.current()
    assert current is not None
    assert current.number == 3


def test_a_damaged_version_is_never_published(services: Services) -> None:
    checkpoints = services.checkpoints(PROJECT)
    flipped(checkpoints.folder)
    with pytest.raises(CheckpointError, match="has changed"):
        checkpoints.publish(2)
