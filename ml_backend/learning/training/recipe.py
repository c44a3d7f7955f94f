"""A job with what the recipe of its device says where the job leaves it open."""

from __future__ import annotations

import dataclasses
from typing import Literal

from ml_backend.learning.networks import device_type, weights
from ml_backend.learning.networks.recipe import RECIPES, Recipe, network_of
from ml_backend.learning.training.job import Job
from ml_backend.settings import AUTO

_MORE_THAN_MAPS = frozenset({"dpt", "segnet"})
"""Architectures whose encoder gives more than a list of maps, which are not kept."""


def resolved(job: Job) -> Job:
    """Return a job with the recipe's values where it leaves them open."""
    recipe = RECIPES[device_type(job.device)]
    architecture, options = network_of(job)
    return dataclasses.replace(
        job,
        architecture=architecture,
        network_options=options,
        train_encoder=_trains_encoder(job.train_encoder, job.encoder_weights, architecture, recipe),
        batch_size=job.batch_size or recipe.batch_size,
        learning_rate=job.learning_rate or recipe.learning_rate,
        training_budget=job.training_budget or recipe.minutes,
    )


def _trains_encoder(asked: bool | Literal["auto"], encoder_weights: str, architecture: str, recipe: Recipe) -> bool:
    """Whether the encoder learns: one that never saw an image has to, and one whose maps cannot be kept may as well."""
    if asked != AUTO:
        return bool(asked)
    return recipe.train_encoder or encoder_weights == weights.NONE or architecture in _MORE_THAN_MAPS
