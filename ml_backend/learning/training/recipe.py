"""What the recipe of a device says where settings and jobs leave it open."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, Protocol

from ml_backend.learning.networks import device_type, weights
from ml_backend.learning.networks.recipe import RECIPES, Asked, Recipe, network_of
from ml_backend.learning.training.job import Job
from ml_backend.settings import AUTO

_MORE_THAN_MAPS = frozenset({"dpt", "segnet"})
"""Architectures whose encoder gives more than a list of maps, which are not kept."""


class Wanted(Asked, Protocol):
    """What settings and jobs say of a training; "auto" and 0 leave it to the recipe."""

    @property
    def encoder_weights(self) -> str: ...  # noqa: D102 (see Settings)
    @property
    def train_encoder(self) -> bool | Literal["auto"]: ...  # noqa: D102
    @property
    def batch_size(self) -> int: ...  # noqa: D102
    @property
    def learning_rate(self) -> float: ...  # noqa: D102


def values_of(wanted: Wanted) -> dict[str, Any]:
    """Return, by name, what network is trained and how: as asked for, and by the recipe where that is left open."""
    recipe = RECIPES[device_type(wanted.device)]
    architecture, options = network_of(wanted)
    return {
        "architecture": architecture,
        "network_options": options,
        "train_encoder": _trains_encoder(wanted, architecture, recipe),
        "batch_size": wanted.batch_size or recipe.batch_size,
        "learning_rate": wanted.learning_rate or recipe.learning_rate,
    }


def is_open(wanted: Wanted) -> bool:
    """Whether a measure may decide that the encoder learns: nobody said, and its maps could be kept as well."""
    return wanted.train_encoder == AUTO and not values_of(wanted)["train_encoder"]


def resolved(job: Job) -> Job:
    """Return a job with the recipe's values where it leaves them open."""
    budget = job.training_budget or RECIPES[device_type(job.device)].minutes
    return dataclasses.replace(job, **values_of(job), training_budget=budget)


def _trains_encoder(wanted: Wanted, architecture: str, recipe: Recipe) -> bool:
    """Whether the encoder learns: one that never saw an image has to, and one whose maps cannot be kept may as well."""
    if wanted.train_encoder != AUTO:
        return bool(wanted.train_encoder)
    return recipe.train_encoder or wanted.encoder_weights == weights.NONE or architecture in _MORE_THAN_MAPS
