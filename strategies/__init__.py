"""Active-learning strategies for semantic segmentation: tensors in, an order of images out.

Stands alone: torch and numpy, no labelling tool, no particular network. A strategy observes the pool batch by
batch and ranks what it has seen; higher = label sooner. Importing this package imports neither torch nor a method:
what needs them is imported when it is used. `strategies.catalogue` has the facts of every method.

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

import importlib
from typing import TYPE_CHECKING, Any

from strategies.catalogue import available, create
from strategies.entry import Entry, Words

if TYPE_CHECKING:
    from strategies.base import Batch, Budget, Observation, Pick, Point, Prices, Ranking, Region, Strategy

__all__ = [
    "Batch",
    "Budget",
    "Entry",
    "Observation",
    "Pick",
    "Point",
    "Prices",
    "Ranking",
    "Region",
    "Strategy",
    "Words",
    "available",
    "create",
]


def __getattr__(name: str) -> Any:
    """Return a class of `strategies.base`, which takes torch with it, when it is first asked for (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module("strategies.base"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
