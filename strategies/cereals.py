"""CEREALS: label first the parts of images that promise most for the effort that they take.

Paper: Mackowiak, Lenz, Ghori, Diego, Lange, Rother, "CEREALS: Cost-effective region-based active learning for
semantic segmentation", 2018, arXiv 1810.09726; Gu, "Active Learning and Its Application in Semantic Segmentation"
(the survey), section III.B.1 (whose reference lacks the last digit of the arXiv number).
Equation: g = (1 - C) · I, with the information I and the cost C of a window, each the sum over its pixels and
normalised to [0, 1] over the whole pool. The best windows that do not overlap are taken up to the budget.

Deviations:
- Any pixel measure can stand for I, not only entropy and vote entropy; with the fusion "information" it drives the
  choice of windows alone.
- I and C are means over the window's pixels, not sums: the same where all windows are of one size. In images smaller
  than a window sums would put a large dull one before a small sharp one, although the budget is an area.
- A budget of images is labelled image by image: windows in so many images are chosen as a batch, then in others.
- Normalised from the least to the largest window of the pool. Where all windows cost the same C is 0, and where
  all are as informative I is 1, so that the other decides.
- C comes from a small network without pretrained weights (see `strategies.cost_network`). Before there are cost
  maps to learn from, it is the length of the predicted boundaries.
- Pixels that a person has labelled have neither information nor cost.
- The last window of a row or column ends at the image's border; an image smaller than the window is one window.
- An image without a chosen window follows the others, by the mean information of its pixels.

Two windows promise the same, the second for twice the effort of the first; a third promises half of it for free:

    >>> information, cost = np.array([1.0, 1.0, 0.5]), np.array([0.5, 1.0, 0.0])
    >>> product(information, cost).tolist()
    [0.5, 0.0, 0.5]
    >>> difference(information, cost).tolist()
    [0.5, 0.0, 0.5]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from strategies import regions, training
from strategies.base import Batch, Lesson, Observation, Ranking, Round
from strategies.checks import check_choice, check_count, check_number
from strategies.cost_network import CostNetwork, Crop, crops, poisson_loss, stacked
from strategies.frames import extents
from strategies.pixel_uncertainty import MeasuredUncertainty
from strategies.regions import Windows, normalised
from strategies.segmentation import boundary_length, predicted_classes
from strategies.uncertainty import image_information

Values = NDArray[np.float64]
Fusion = Callable[[Values, Values], Values]
"""Score of windows from their information and their cost, arrays of the same shape with values in [0, 1]."""

_BATCH = 16
"""Crops in a step of the cost network's training."""


def product(information: Values, cost: Values) -> Values:
    """Return (1 - C) · I, the paper's best."""
    return (1 - cost) * information


def difference(information: Values, cost: Values) -> Values:
    """Return I - C."""
    return information - cost


def ratio(information: Values, cost: Values, epsilon: float = 0.1) -> Values:
    """Return I / (C + ε); the smaller ε, the more a window gains by costing nothing."""
    return information / (cost + epsilon)


def convex(information: Values, cost: Values, weight: float = 0.5) -> Values:
    """Return w · I + (1 - w) · (1 - C)."""
    return weight * information + (1 - weight) * (1 - cost)


def information_alone(information: Values, cost: Values) -> Values:
    """Return I: the cost is left out of account."""
    del cost
    return information


FUSIONS: dict[str, Fusion] = {
    "product": product,
    "difference": difference,
    "ratio": ratio,
    "convex": convex,
    "information": information_alone,
}


@dataclass(frozen=True, kw_only=True)
class _Trained:
    network: CostNetwork
    run: training.Run


class Cereals(training.Learner[_Trained], MeasuredUncertainty):
    """Asks for windows of images by their information and cost.

    Args:
        measure: the pixel map that makes the information; one of `strategies.uncertainty.MEASURES`. Those of
            disagreement need a committee.
        window: side of the windows, in pixels of the original image.
        stride: step of the windows, likewise.
        fusion: how information and cost make a score; one of `FUSIONS`, or a function like those.
        cost_width: channels of the cost network at half resolution.
        blur: standard deviation that cost maps are blurred with, in pixels of what the network sees.
        iterations: steps of the cost network's training.
        learning_rate: of its optimiser, Adam.

    Raises:
        ValueError: an option is unknown or out of its range.
    """

    name = "cereals"
    asks_for_regions = True
    plans_one_round = True
    needs = frozenset({"probabilities", "examples"})

    def __init__(
        self,
        *,
        measure: str = "entropy",
        window: int = 128,
        stride: int = 32,
        fusion: str | Fusion = "product",
        cost_width: int = 16,
        blur: float = 4.0,
        iterations: int = 300,
        learning_rate: float = 1e-3,
    ) -> None:
        super().__init__(measure=measure)
        check_count("cost_width", cost_width, 1)
        check_count("iterations", iterations, 1)
        check_number("blur", blur, 0.1)
        check_number("learning_rate", learning_rate, 0)
        self._windows = Windows(window=window, stride=stride)
        self._fusion: Fusion = fusion if callable(fusion) else FUSIONS[check_choice("fusion", fusion, FUSIONS)]
        self._cost_width, self._blur = cost_width, float(blur)
        self._iterations, self._learning_rate = iterations, learning_rate

    def _learn(self, lesson: Lesson) -> None:
        """Train the cost network on the labelled pixels of the images that have a cost map.

        Called again with the same images it goes on where it stopped, at once or from a loaded state; with others it
        starts over. The order of the images and their batches do not matter. Without effort on record, or when cost is
        left out of account, nothing is trained.
        """
        if self._fusion is information_alone:
            return
        parts = crops(training.before(lesson.deadline, lesson.labelled), self._blur)
        effort = sum(float(part.effort.double().sum()) for part in parts)
        if effort == 0:
            self._learned = None
            return
        data = training.digest(value for part in parts for value in (part.pixels, part.effort, part.known))
        if self._learned is None or self._learned.run.data != data:
            self._learned = self._start(training.draw_seed(lesson.generator), data)
            self._learned.network.scale.fill_(effort / sum(int(part.known.sum()) for part in parts))
        trained = self._learned
        trained.run.to(parts[0].pixels.device)
        trained.run.until(
            self._iterations,
            lambda chance: _step(trained, parts, chance),
            progress=lesson.progress,
            deadline=lesson.deadline,
        )

    @torch.no_grad()
    def observe(self, batch: Batch) -> Observation:
        """Average information and expected cost over the windows of each image, per pixel of the original.

        What is known of the images' true cost (`Batch.cost`) plays no part.
        """
        probabilities = self.checked(batch)
        pixels = self.measure(probabilities)  # (B,H,W)
        information = image_information(pixels, valid=batch.valid, labelled=batch.labelled)
        open_pixels = batch.valid & ~batch.labelled
        classes = predicted_classes(probabilities)  # (B,H,W)
        grids = []
        for position, (height, width) in enumerate(extents(batch.valid)):
            inside = (position, slice(height), slice(width))
            size: tuple[int, int] = tuple(batch.size[position].tolist())
            density = size[0] * size[1] / (height * width)  # pixels of the original image per pixel of the map
            cost = self._cost(batch.images[position, :, :height, :width], classes[inside], size)
            both = (torch.where(open_pixels[inside], values, 0) for values in (pixels[inside] * density, cost))
            grids.append(torch.stack([self._windows.sums(values, size) for values in both]) / self._windows.area(size))
        return replace(Observation.from_batch(batch, information=information), regions=tuple(grids))

    def _ranking(self, round: Round) -> Ranking:
        """Choose windows up to the budget; the images they are in come first, in the order of their best window."""
        pool = round.unlabelled
        grids = pool.regions or ()
        if len(grids) != len(pool.ids):
            raise ValueError("Observation.regions: expected the windows that cereals observes, received None")
        # The length of boundaries, which stands for the cost before there is effort to learn from, is no effort.
        costs = None
        if self._learned is not None:
            areas = [self._windows.area((height, width)) for height, width in pool.size.tolist()]
            costs = [grid[1].double().cpu().numpy() * area for grid, area in zip(grids, areas, strict=True)]
        return regions.rank(pool, self._scores(grids), self._windows, round.budget, costs)

    def _start(self, seed: int, data: str) -> _Trained:
        network = training.drawn(lambda: CostNetwork(self._cost_width), seed)
        run = training.Run(
            kind=self.name,
            settings={"cost_width": self._cost_width, "blur": self._blur, "learning_rate": self._learning_rate},
            seed=seed,
            data=data,
            modules=(network,),
            learning_rate=self._learning_rate,
        )
        return _Trained(network=network, run=run)

    def _cost(self, image: Tensor, classes: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the expected cost of an image (3,h,w) by itself, predicted as classes (h,w): (h,w)."""
        if self._learned is None:
            return boundary_length(classes, size)
        self._learned.run.to(image.device)
        return self._learned.network.effort(image[None].float())[0]

    def _scores(self, grids: Sequence[Tensor]) -> list[Values]:
        information, cost = (
            normalised([grid[kind].double().cpu().numpy() for grid in grids], constant=constant)
            for kind, constant in ((0, 1.0), (1, 0.0))
        )
        scores = [self._fusion(*both) for both in zip(information, cost, strict=True)]
        if not all(np.isfinite(grid).all() for grid in scores):
            raise ValueError("fusion: expected finite scores, received NaN or infinity")
        return scores


def _step(trained: _Trained, parts: Sequence[Crop], chance: torch.Generator) -> None:
    images, effort, known = stacked(training.picked(parts, min(_BATCH, len(parts)), chance))
    if torch.rand((), generator=chance) < 0.5:
        images, effort, known = images.flip(-1), effort.flip(-1), known.flip(-1)
    loss = poisson_loss(trained.network(images), effort / trained.network.scale, known)
    trained.run.descend(0, loss)
