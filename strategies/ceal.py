"""CEAL, cost-effective active learning: people label what is uncertain, the network itself what is certain.

Paper: Wang et al., "Cost-effective active learning for deep image classification", 2017, arXiv 1701.03551; Gorriz
et al., "Cost-effective active learning for melanoma segmentation", 2017, arXiv 1711.09168 (the preset `melanoma`);
Gu, "Active Learning and Its Application in Semantic Segmentation" (the survey), section III.A.1. The survey numbers
no equation.
In round t the most uncertain images are asked for, and those whose entropy is below δ_t = δ_0 - t · decay (not below
0) get their prediction as pseudo-label, until the next round decides anew.

Deviations:
- Without a threshold δ is a quantile: the share of the pool with the lowest entropy is certain. The paper's δ_0 of 0.05
  is below all entropies of a network that has learned from few labels; the method is then plain uncertainty. A
  quantile also names images that are certain and wrong, so one where a single class is predicted is no candidate: a
  network that misses its objects is the surest of those it misses altogether.
- An image's entropy is the mean over its pixels, divided by log C.
- The melanoma paper's groups are shares of the budget, and its pixel weights are those of a mean, so that images
  of different size compare: Σ w u / Σ w with w the distance to the nearest pixel of another class, or of background.
- An image where nothing is detected is no candidate for a pseudo-label when groups are used, nor is an image
  that a person has labelled in part.

A certain and two uncertain images, of which one is asked for:

    >>> import torch
    >>> from strategies.base import Batch, Budget
    >>> probabilities = torch.tensor([[0.999, 0.001], [0.5, 0.5], [0.7, 0.3]]).view(1, 3, 2, 1, 1)
    >>> strategy = Ceal(threshold=0.05)
    >>> pool = strategy.observe(Batch(ids=("a", "b", "c"), images=torch.zeros(3, 3, 1, 1), probabilities=probabilities))
    >>> ranking = strategy.rank(pool, None, budget=Budget(images=1), generator=torch.Generator())
    >>> ranking.ids, ranking.pseudo_labels  # entropies 0.01, 1 and 0.88
    (('b', 'c', 'a'), ('a',))
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from strategies import selection, uncertainty
from strategies.base import Batch, Observation, Order, Round
from strategies.checks import check_choice, check_count, check_number
from strategies.frames import extents
from strategies.pixel_uncertainty import MeasuredUncertainty
from strategies.segmentation import predicted_classes


class Ceal(MeasuredUncertainty):
    """Asks for uncertain images, and proposes certain ones as pseudo-labels.

    Args:
        measure: the pixels' uncertainty, one of `strategies.uncertainty.MEASURES`. Those of disagreement need a
            committee.
        share: part of the candidates for pseudo-labels that is certain, those of lowest entropy, in [0, 1].
        threshold: δ_0, in [0, 1]; then images of lower entropy are certain, however many. None: `share` decides.
        decay: what δ loses each round.
        confident_from: the first round that proposes pseudo-labels.
        confident_most: how many it proposes at most, the most certain first; None for all.
        confident_growth: how many more the rounds after it may, each more than the previous.
        groups: in what proportion the budget is split over images where nothing is detected, the most uncertain and
            random ones, in this order. What is missing of the first group goes to the second.
        background: the class of pixels where nothing is detected.
        weighting: "none", or "distance" to weigh a pixel by how far inside a detected object it is.

    Raises:
        ValueError: an option is unknown or out of its range.
    """

    name = "ceal"
    plans_one_round = True
    needs = frozenset({"probabilities"})

    def __init__(
        self,
        *,
        measure: str = "entropy",
        share: float = 0.1,
        threshold: float | None = None,
        decay: float = 0.005,
        confident_from: int = 0,
        confident_most: int | None = None,
        confident_growth: int = 0,
        groups: Sequence[float] = (0, 1, 0),
        background: int = 0,
        weighting: str = "none",
    ) -> None:
        super().__init__(measure=measure)
        check_number("share", share, 0, 1)
        if threshold is not None:
            check_number("threshold", threshold, 0, 1)
        check_number("decay", decay, 0)
        counts = {"confident_from": confident_from, "confident_growth": confident_growth, "background": background}
        for option, count in counts.items():
            check_count(option, count, 0)
        if confident_most is not None:
            check_count("confident_most", confident_most, 0)
        self._share, self._threshold, self._decay = share, threshold, decay
        self._from, self._most, self._growth = confident_from, confident_most, confident_growth
        self._shares = _shares(groups)
        self._background = background
        self._weighted = check_choice("weighting", weighting, ("none", "distance")) == "distance"
        if self._weighted:
            self.needs = self.needs | {"background"}

    @torch.no_grad()
    def observe(self, batch: Batch) -> Observation:
        """Observe the uncertainty of each image, and beside it what makes its prediction certain.

        The descriptors (B,2) float64 hold the mean entropy of its pixels, and the share of them that a person has
        labelled.
        """
        probabilities = self.checked(batch)
        pixels = self.measure(probabilities)  # (B,H,W)
        open_pixels = batch.valid & ~batch.labelled
        if self._weighted:
            classes = predicted_classes(probabilities).masked_fill(~batch.valid, self._background)
            information = weighted_means(pixels, classes, open_pixels, extents(batch.valid), self._background)
        else:
            information = uncertainty.image_mean(pixels, open_pixels)
        entropy = uncertainty.image_mean(uncertainty.entropy(probabilities), batch.valid)
        labelled = uncertainty.image_mean(batch.labelled.double(), batch.valid)
        seen = Observation.from_batch(batch, information=information)
        return replace(seen, descriptors=torch.stack([entropy, labelled], dim=1))

    def threshold(self, round: int) -> float | None:
        """Return δ of a round, in [0, 1]; None where it is a quantile.

        >>> [Ceal(threshold=0.5, decay=0.25).threshold(round) for round in (0, 1, 2, 3)]
        [0.5, 0.25, 0.0, 0.0]
        """
        return None if self._threshold is None else max(0.0, self._threshold - self._decay * round)

    def _order(self, round: Round) -> Order:
        """Put the groups first, in turn, then the rest by information."""
        pool = round.unlabelled
        uncertain = selection.by_information(pool.ids, pool.information.cpu().numpy())
        asked = self._asked(pool, uncertain.tolist(), self._count(round), round.generator)
        return selection.first_then(asked, uncertain)

    def _pseudo_labels(self, round: Round, order: Order) -> list[int]:
        """Return the certain images of those that are not asked for.

        Labelled images are not among them, nor are any that a person has labelled in part.
        """
        pool = round.unlabelled
        asked = set(order[: self._count(round)].tolist())
        candidates = (position for position in self._certain(pool, round.number) if position not in asked)
        certain = [position for position in candidates if pool.ids[position] not in round.known]
        return certain[: self._limit(round.number)]

    def _count(self, round: Round) -> int:
        """Return how many images the budget is enough for, if the most uncertain were taken."""
        pool = round.unlabelled
        return len(round.budget.take(selection.by_information(pool.ids, pool.information.cpu().numpy()), pool.size))

    def _asked(self, pool: Observation, uncertain: list[int], count: int, generator: torch.Generator) -> list[int]:
        """Return the positions to label: nothing detected, most uncertain and random, none of them twice."""
        ends = [math.floor(count * sum(self._shares[: group + 1]) + 0.5) for group in range(3)]
        asked = []
        if ends[0]:
            undetected = self._undetected(pool)
            asked = [position for position in uncertain if undetected[position]][: ends[0]]
        out = set(asked)
        asked += [position for position in uncertain if position not in out][: ends[1] - len(asked)]
        if ends[2] > ends[1]:
            by_id = selection.by_id(pool.ids)
            left = by_id[~np.isin(by_id, asked)]
            shuffle = torch.randperm(len(left), generator=generator, device=generator.device).cpu().numpy()
            asked += left[shuffle][: ends[2] - ends[1]].tolist()
        return asked

    def _certain(self, pool: Observation, round: int) -> list[int]:
        """Return the positions of images whose prediction may stand for a label, the most certain first."""
        if round < self._from or not pool.ids:
            return []
        if pool.descriptors is None:
            raise ValueError("Observation.descriptors: expected the entropies that ceal observes, received None")
        entropy, labelled = pool.descriptors.cpu().numpy().T  # (N) each
        threshold = self.threshold(round)
        candidates = labelled == 0
        if self._shares[0]:
            candidates &= ~self._undetected(pool)
        candidates &= ~_of_one_class(pool) if threshold is None else entropy < threshold
        by_certainty = selection.by_information(pool.ids, -entropy)
        certain: list[int] = by_certainty[candidates[by_certainty]].tolist()
        return certain if threshold is not None else certain[: int(self._share * len(certain))]

    def _limit(self, round: int) -> int | None:
        return None if self._most is None else self._most + self._growth * (round - self._from)

    def _undetected(self, pool: Observation) -> NDArray[np.bool_]:
        """Say of which images (N) every pixel is predicted as background."""
        shares = pool.class_fraction
        if shares is None or shares.shape[1] <= self._background:
            received = "None" if shares is None else f"{shares.shape[1]} classes"
            raise ValueError(f"Observation.class_fraction: expected class {self._background}, received {received}")
        undetected: NDArray[np.bool_] = (shares[:, self._background] == 1).cpu().numpy()
        return undetected


def _of_one_class(pool: Observation) -> NDArray[np.bool_]:
    """Say of which images (N) every pixel is predicted as the same class."""
    if pool.class_fraction is None:
        raise ValueError("Observation.class_fraction: expected what ceal observes, received None")
    single: NDArray[np.bool_] = (pool.class_fraction.max(dim=1).values == 1).cpu().numpy()
    return single


def _shares(groups: object) -> list[float]:
    """Return the parts of the budget that go to the three groups; they sum to 1."""
    if not isinstance(groups, Sequence) or len(groups) != 3:
        raise ValueError(f"groups: expected three numbers, received {groups!r}")
    for share in groups:
        check_number("groups", share, 0)
    if not any(groups):
        raise ValueError(f"groups: expected three numbers, not all of them 0, received {groups!r}")
    return [share / sum(groups) for share in groups]


def weighted_means(
    pixels: Tensor, classes: Tensor, where: Tensor, sizes: Sequence[tuple[int, int]], background: int
) -> Tensor:
    """Average pixel maps (B,H,W), each pixel by how far inside a detected object it is: (B) float64.

    Args:
        pixels: (B,H,W) in [0, 1].
        classes: (B,H,W) predicted.
        where: (B,H,W) bool, the pixels that count.
        sizes: rows and columns of each image in its padded map.
        background: the class that is no object.

    Returns:
        0 where nothing is detected.
    """
    means = torch.zeros(len(sizes), dtype=torch.float64, device=pixels.device)
    for position, (height, width) in enumerate(sizes):
        inside = (position, slice(height), slice(width))
        counted = where[inside].cpu().numpy()
        weights = depth(classes[inside].cpu().numpy(), background)[counted]
        if weights.any():
            values = pixels[inside].double().cpu().numpy()[counted]
            means[position] = float((weights * values).sum() / weights.sum())
    return means


def depth(classes: NDArray[np.int64], background: int) -> NDArray[np.float64]:
    """Return each pixel's distance to the nearest of another class, 0 on background: (h,w), in pixels.

    An object without border, which fills the image, is 1 deep everywhere.

    >>> depth(np.array([[0, 1, 1, 1, 2]]), background=0).tolist()
    [[0.0, 1.0, 2.0, 1.0, 1.0]]
    >>> depth(np.array([[1, 1]]), background=0).tolist()
    [[1.0, 1.0]]
    """
    deep = np.zeros(classes.shape)
    for index in np.unique(classes[classes != background]):
        mask = classes == index
        deep += mask if mask.all() else ndimage.distance_transform_edt(mask)
    return deep
