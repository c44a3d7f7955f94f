"""A small pool of images of different sizes, and how it is cut into batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from strategies import Batch

MEMBERS, CLASSES, DESCRIPTOR = 3, 4, 5
SIZES = ((5, 7), (16, 16), (9, 12), (1, 1), (16, 10), (8, 8), (3, 20))


@dataclass(frozen=True)
class Sample:
    """One image with everything that any method may ask for, without padding."""

    id: int | str
    image: Tensor  # (3,H,W)
    probabilities: Tensor  # (M,C,H,W)
    features: Tensor  # (D)
    labelled: Tensor  # (H,W)
    cost: Tensor  # (H,W)


class Pools:
    """Builds samples and batches; everything follows from the arguments."""

    def samples(
        self, count: int = 7, *, seed: int = 0, labelled: float = 0.0, first: int = 0, classes: int = CLASSES
    ) -> list[Sample]:
        """Return images of different sizes whose uncertainty differs; `labelled` is the share of their rows."""
        generator = torch.Generator().manual_seed(seed)
        return [
            self._sample(first + one, SIZES[one % len(SIZES)], labelled, classes, generator) for one in range(count)
        ]

    def _sample(
        self, number: int, size: tuple[int, int], labelled: float, classes: int, generator: torch.Generator
    ) -> Sample:
        height, width = size
        logits = torch.randn(MEMBERS, classes, height, width, generator=generator) * (1 + number % 5)
        drawn = torch.zeros(height, width, dtype=torch.bool)
        drawn[: round(labelled * height)] = True
        return Sample(
            id=f"image-{(number * 7919) % 1000:03d}",  # the order of the ids is not that of the pool
            image=torch.rand(3, height, width, generator=generator),
            probabilities=logits.softmax(dim=1),
            features=torch.randn(DESCRIPTOR, generator=generator),
            labelled=drawn,
            cost=torch.rand(height, width, generator=generator),
        )

    def batch(self, samples: Sequence[Sample], *, padding: int = 0, garbage: float = 0.0) -> Batch:
        """Pad the samples to the largest one, and by `padding` beyond it, with worthless numbers."""
        height = max(sample.image.shape[-2] for sample in samples) + padding
        width = max(sample.image.shape[-1] for sample in samples) + padding

        def padded(values: Sequence[Tensor], fill: float, dim: int = 0) -> Tensor:
            blank = [value.new_full((*value.shape[:-2], height, width), fill) for value in values]
            for whole, value in zip(blank, values, strict=True):
                whole[..., : value.shape[-2], : value.shape[-1]] = value
            return torch.stack(blank, dim=dim)

        return Batch(
            ids=tuple(sample.id for sample in samples),
            images=padded([sample.image for sample in samples], 0.5 if garbage else 0),
            probabilities=padded([sample.probabilities for sample in samples], garbage, dim=1),
            features=torch.stack([sample.features for sample in samples]),
            valid=padded([torch.ones_like(sample.labelled) for sample in samples], False),
            labelled=padded([sample.labelled for sample in samples], garbage != 0),
            cost=padded([sample.cost for sample in samples], garbage),
            size=torch.tensor([[2 * side for side in sample.image.shape[-2:]] for sample in samples]),
        )

    def batches(self, samples: Sequence[Sample], size: int = 3) -> list[Batch]:
        """Cut the samples into batches."""
        return [self.batch(samples[start : start + size]) for start in range(0, len(samples), size)]

    def copies(self, sample: Sample, ids: Sequence[int | str]) -> list[Sample]:
        """Return the same image under several ids."""
        return [replace(sample, id=one) for one in ids]


@pytest.fixture(scope="session")
def pools() -> Pools:
    return Pools()
