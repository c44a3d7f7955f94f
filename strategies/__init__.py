"""Active-learning strategies for semantic segmentation: tensors in, an order of images out.

Stands alone: torch and numpy, no labelling tool, no particular network. A strategy observes the pool batch by
batch and ranks what it has seen; higher = label sooner.

    >>> import torch
    >>> from strategies import Batch, Budget, Observation, available, create
    >>> [name for name in available() if "entropy" in name]
    ['entropy', 'vote_entropy']
    >>> strategy = create("entropy")
    >>> def batches():  # two batches of two images each; class probabilities from a network's softmax
    ...     for ids, logit in (((1, 2), 0.0), ((3, 4), 5.0)):
    ...         logits = torch.stack([torch.full((2, 8, 8), logit), torch.zeros(2, 8, 8)], dim=1)  # (B,C,H,W)
    ...         probabilities = logits.softmax(dim=1)[None]  # (M,B,C,H,W) of a single member
    ...         yield Batch(ids=ids, images=torch.rand(2, 3, 8, 8), probabilities=probabilities)
    >>> pool = Observation.concatenate(strategy.observe(batch) for batch in batches())
    >>> ranking = strategy.rank(pool, None, budget=Budget(images=2), generator=torch.Generator().manual_seed(0))
    >>> ranking.ids  # the undecided images first, ties by id
    (1, 2, 3, 4)
    >>> ranking.priority.tolist()
    [1.0, 0.75, 0.5, 0.25]
"""

from __future__ import annotations

import inspect
from typing import Any

from strategies.auto import Auto
from strategies.bald import Bald
from strategies.base import Batch, Budget, Observation, Ranking, Region, Strategy
from strategies.ceal import Ceal
from strategies.cereals import Cereals
from strategies.class_balanced import ClassBalanced
from strategies.coreset import Coreset
from strategies.density import Density
from strategies.entropy import Entropy
from strategies.least_confidence import LeastConfidence
from strategies.margin import Margin
from strategies.power_noise import PowerNoise
from strategies.random import Random
from strategies.std import Std
from strategies.suggestive_annotation import SuggestiveAnnotation
from strategies.vaal import Vaal
from strategies.vote_entropy import VoteEntropy

__all__ = ["Batch", "Budget", "Observation", "Ranking", "Region", "Strategy", "available", "create"]

_CLASSES: tuple[type[Strategy], ...] = (
    Auto,
    Bald,
    Ceal,
    Cereals,
    ClassBalanced,
    Coreset,
    Density,
    Entropy,
    LeastConfidence,
    Margin,
    PowerNoise,
    Random,
    Std,
    SuggestiveAnnotation,
    Vaal,
    VoteEntropy,
)
_METHODS = {one.name: one for one in _CLASSES}
_SHORT_NAMES = {"sa": "suggestive_annotation"}


def available() -> tuple[str, ...]:
    """Return the names of all methods, sorted."""
    return tuple(sorted(_METHODS))


def create(name: str, **options: Any) -> Strategy:
    """Return the method of that name with these options; the method's class says which there are.

    "sa" is accepted for "suggestive_annotation".

    Raises:
        ValueError: no such method, or no such option; it lists the valid ones.
    """
    name = _SHORT_NAMES.get(name, name)
    if name not in _METHODS:
        raise ValueError(f"unknown strategy {name!r}; available: {', '.join(available())}")
    method = _METHODS[name]
    valid = inspect.signature(method).parameters
    unknown = sorted(set(options) - set(valid))
    if unknown:
        raise ValueError(f"unknown option {unknown[0]!r} of strategy {name!r}; valid: {', '.join(valid) or 'none'}")
    return method(**options)
