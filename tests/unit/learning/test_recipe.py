"""What is left to the recipe, and what settings and jobs say themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_training import disc_job

from ml_backend.learning.networks.recipe import network_of
from ml_backend.learning.training.recipe import is_open, resolved
from ml_backend.settings import Settings

OPTIONS = {"decoder_pyramid_channels": 128, "decoder_segmentation_channels": 64}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("fpn", OPTIONS)),
        ({"device": "cuda:1"}, ("unet", {})),
        ({"architecture": "segformer"}, ("segformer", {})),
        ({"network_options": {"decoder_pyramid_channels": 32}}, ("fpn", {"decoder_pyramid_channels": 32})),
        ({"encoder": "segnet-vgg16", "encoder_weights": "none"}, ("segnet", {})),
    ],
)
def test_the_network(changes: dict[str, Any], expected: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    assert network_of(Settings(device=changes.pop("device", "cpu"), **changes)) == expected


@pytest.mark.parametrize(
    ("changes", "trains"),
    [
        ({}, False),
        ({"device": "cuda"}, True),
        ({"train_encoder": True}, True),
        ({"device": "cuda", "train_encoder": False}, False),
        ({"encoder_weights": "none"}, True),
        ({"encoder_weights": "none", "train_encoder": False}, False),
        ({"architecture": "dpt", "encoder_weights": "imagenet"}, True),
    ],
)
def test_whether_the_encoder_learns(changes: dict[str, Any], trains: bool, tmp_path: Path) -> None:
    assert resolved(disc_job(tmp_path, **changes)).train_encoder is trains


@pytest.mark.parametrize(
    ("changes", "open_to_measure"),
    [
        ({}, True),
        ({"encoder": "resnet18", "encoder_weights": "imagenet"}, True),
        ({"device": "cuda"}, False),
        ({"train_encoder": False}, False),
        ({"train_encoder": True}, False),
        ({"encoder_weights": "none"}, False),
        ({"architecture": "dpt", "encoder_weights": "imagenet"}, False),
    ],
)
def test_where_a_measure_may_decide(changes: dict[str, Any], open_to_measure: bool, tmp_path: Path) -> None:
    assert is_open(disc_job(tmp_path, **changes)) is open_to_measure


def test_values_that_are_given_win(tmp_path: Path) -> None:
    usual = resolved(disc_job(tmp_path, iterations=0))
    assert (usual.learning_rate, usual.training_budget, usual.iterations) == (3e-3, 2.0, 0)
    assert resolved(disc_job(tmp_path / "open", batch_size=0)).batch_size == 4
    given = resolved(disc_job(tmp_path / "other", learning_rate=1e-4, training_budget=9.0))
    assert (given.learning_rate, given.training_budget) == (1e-4, 9.0)
    assert resolved(given) == given
