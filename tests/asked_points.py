"""What tests of strategies that ask for points share."""

from __future__ import annotations

from dataclasses import replace

import torch

from strategies import Budget, Observation, Region


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def ranked(strategy, *batches, seed=0, asked=None):
    """Observe and rank; `asked` holds, by image, the boxes that were asked for before."""
    pool = Observation.concatenate(map(strategy.observe, batches))
    if asked:
        pool = replace(pool, excluded=tuple(tuple(asked.get(name, ())) for name in pool.ids))
    return strategy.rank(pool, None, budget=Budget(images=1), generator=seeded(seed))


def pixels(ranking, name="a"):
    return [(point.row, point.column) for point in ranking.points.get(name, ())]


def pixel_box(row, column):
    return Region(top=row, left=column, height=1, width=1, score=0.0)
