"""Made-up held-out labels: images of classes of very different size and rarity, and two networks that predict them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ml_backend.learning.measuring import Counts

_SIZE = 4000
_CLASSES = 8


class PopulationOfLabels:
    """Many images whose true measures are known, to draw a few from.

    An image is hard or easy for both networks; the rarest class is in one image of seven.
    """

    def __init__(self, generator: np.random.Generator) -> None:
        self.classes = tuple(f"class {index}" for index in range(_CLASSES))
        shape = (_SIZE, _CLASSES)
        usual = np.exp(generator.normal(8, 1, _CLASSES))
        is_there = generator.random(shape) < np.linspace(1, 0.15, _CLASSES)
        self._true = np.where(is_there, usual * np.exp(generator.normal(0, 0.8, shape)), 0).round()
        difficulty, skill = 0.7 * generator.normal(size=(_SIZE, 1)), generator.normal(1.2, 0.7, _CLASSES)
        elsewhere = np.where(is_there, self._true, usual * (generator.random(shape) < 0.1) * 0.2)
        self._networks = [self._network(generator, skill + 0.15 * better - difficulty, elsewhere) for better in (0, 1)]

    def _network(
        self, generator: np.random.Generator, ease: NDArray[np.float64], elsewhere: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        found, wrong = (_logistic(ease + generator.normal(0, 0.8, ease.shape)) for _ in range(2))
        hit = (self._true * found).round()
        predicted = hit + (0.8 * elsewhere * (1 - wrong)).round()
        return np.stack([self._true, predicted, hit], axis=-1).astype(np.int64)  # (N,C,3)

    def sample(self, images: int, generator: np.random.Generator) -> tuple[Counts, Counts]:
        """Draw images; return what both networks do with them."""
        drawn = generator.integers(_SIZE, size=images)
        names = tuple(map(str, range(images)))
        first, second = (Counts(self.classes, names, names, network[drawn]) for network in self._networks)
        return first, second

    def miou(self, counts: Counts) -> list[float]:
        """Return the true mIoU of both networks, over the classes that some counts are of."""
        there = counts.pixels[..., 0].sum(axis=0) > 0
        totals = [network.sum(axis=0)[there].astype(np.float64) for network in self._networks]
        return [
            float((hit / (true + predicted - hit)).mean()) for true, predicted, hit in (total.T for total in totals)
        ]


def _logistic(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-values))
