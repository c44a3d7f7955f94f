from __future__ import annotations

import pytest
import torch

from strategies import Batch, Budget, create


def observed(*distributions):
    probabilities = torch.tensor(distributions).view(1, len(distributions), -1, 1, 1)
    images = torch.zeros(len(distributions), 3, 1, 1)
    return create("margin").observe(
        Batch(ids=tuple(range(len(distributions))), images=images, probabilities=probabilities)
    )


def test_by_hand():
    seen = observed([0.5, 0.25, 0.25], [0.25, 0.0, 0.75], [0.5, 0.0, 0.5])
    assert seen.information.tolist() == [0.75, 0.5, 1.0]  # 1 - 0.25, 1 - 0.5, 1 - 0


def test_the_closest_rivals_come_first():
    # least confidence would put the second one first: its best class is the least probable
    seen = observed([0.48, 0.48, 0.04], [0.45, 0.30, 0.25], [0.9, 0.1, 0.0])
    ranking = create("margin").rank(seen, None, budget=Budget(images=1), generator=torch.Generator())
    assert ranking.ids == (0, 1, 2)


def test_position_of_the_best_classes_does_not_matter():
    values = observed([0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.1, 0.2, 0.7]).information.tolist()
    assert values == [pytest.approx(0.5, abs=1e-7)] * 3
    assert len(set(values)) == 1
