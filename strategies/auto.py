"""Auto: nextmask's own method. It asks for points or masks, whichever teaches more per effort.

Masks: of every class in turn, by uncertainty per effort, and the network labels what it is sure of. Points: those of
the method `points`. `strategies.questions` says how the kind of question is chosen.

Paper: none of its own. It puts together what each of these does alone: CEREALS (Mackowiak et al., 2018, arXiv
1810.09726) weighs information against effort; class-balanced sampling keeps rare classes in the batch; power
acquisition (Kirsch et al., 2021, arXiv 2106.12059) draws instead of taking the top, so that a batch is diverse; CEAL
(Wang et al., 2017, arXiv 1701.03551) trains on its surest predictions, too.

Equation: of image x, U_c(x) is the mean over its pixels of p_c · u, the uncertainty u where the class c is likely, and
e(x) = (L(x) / mean L + ε)^γ with the expected effort L and its weight γ. A share of the picks goes to the classes in
turn, the smallest predicted area first: in a turn of class c, images are drawn with probabilities proportional to
U_c(x) / e(x). The other picks are drawn in proportion to 1 / e(x). Pseudo-labels are the images with the largest
K(x), the mean over the classes that are predicted in x of their pixels' largest probability, from a threshold on.

Deviations:
- Whole images and points, not windows: the border of a window cuts outlines, and each cut has to be drawn.
  docs/label-efficiency.md has what windows took.
- The expected effort is the length of the predicted boundaries. ε keeps an image on which nothing is predicted from
  being taken for free.
- K counts every class alike, so that much of a sure background does not hide an unsure object.
- Where points are asked for there are no pseudo-labels: a few answers would drown in whole predicted masks.
- No candidates for a pseudo-label are images that a person has labelled in part, and those where a single class is
  predicted: a network that misses its objects is the surest of those it misses altogether.

An image that takes a ninth of another image's effort has more than four times its weight, if both promise the same:

    >>> import torch
    >>> expensive, cheap = effort_factors(torch.tensor([18.0, 2.0]), 1.0).tolist()
    >>> round(expensive / cheap, 3)  # (18 / 10 + 1/4) / (2 / 10 + 1/4)
    4.556
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from strategies import selection
from strategies.base import Batch, Id, Lesson, Observation, Order, Pick, Picks, Ranking, Round
from strategies.catalogue import create
from strategies.checks import check_count, check_number
from strategies.frames import extents
from strategies.pixel_uncertainty import MeasuredUncertainty
from strategies.questions import WORTH, Question, question
from strategies.segmentation import boundary_length, predicted_classes
from strategies.turns import drawn, in_turns
from strategies.uncertainty import image_mean

_LEAST_EFFORT = 0.25
"""ε, in parts of the mean effort: opening an image and looking at it is part of what it takes."""
_LEAST_SURENESS = 1e-9
"""Images that are no candidates have a K of 0, and are out whatever the threshold."""


class Auto(MeasuredUncertainty):
    """Asks for points, or draws images class by class, uncertain and cheap ones sooner, and labels sure ones itself.

    Args:
        points: k, points of an image where points are asked for; 0: masks only.
        worth: points that teach as much as a mask, from 1; see `strategies.questions`.
        measure: the pixels' uncertainty, one of `strategies.uncertainty.MEASURES`.
        share: part of the picks that goes to the classes in turn, in [0, 1].
        cost_weight: γ in [0, 2]; 0: effort is left out of account.
        confident: pseudo-labels, at most so many per labelled image, in [0, 10]; 0: none.
        confident_from: the least K of a pseudo-label, in [0, 1].

    Raises:
        ValueError: an option is unknown or out of its range.
    """

    name = "auto"
    plans_one_round = True
    needs = frozenset({"probabilities"})

    def __init__(
        self,
        *,
        points: int = 10,
        worth: float = WORTH,
        measure: str = "entropy",
        share: float = 0.5,
        cost_weight: float = 1.0,
        confident: float = 0.5,
        confident_from: float = 0.8,
    ) -> None:
        super().__init__(measure=measure)
        check_count("points", points, 0)
        check_number("worth", worth, 1)
        check_number("share", share, 0, 1)
        check_number("cost_weight", cost_weight, 0, 2)
        check_number("confident", confident, 0, 10)
        check_number("confident_from", confident_from, 0, 1)
        self._share, self._cost_weight = share, cost_weight
        self._confident, self._confident_from = confident, confident_from
        self._count, self._worth = points, float(worth)
        self._points = create("points", count=points) if points else None
        self.asks_for_points = self._points is not None

    def _learn(self, lesson: Lesson) -> None:
        if self._points is not None:
            self._points.prepare(lesson.labelled, lesson.unlabelled, generator=lesson.generator)

    @torch.no_grad()
    def observe(self, batch: Batch) -> Observation:
        """Observe, as descriptors (B,C+2) float64: U_c of every class, the length of the predicted boundaries, and K.

        K is 0 where a person has labelled anything, and where a single class is predicted. Where points may be asked
        for, candidates as well, and without probabilities these alone.
        """
        if self._points is not None and batch.probabilities is None and batch.places is not None:
            return self._points.observe(batch)
        seen = self._observe_masks(batch)
        return seen if self._points is None else replace(seen, candidates=self._points.observe(batch).candidates)

    def _observe_masks(self, batch: Batch) -> Observation:
        seen = super().observe(batch)
        probabilities = self.checked(batch)
        pixels = self.measure(probabilities)  # (B,H,W)
        open_pixels = batch.valid & ~batch.labelled
        mean = probabilities.mean(dim=0)  # (B,C,H,W)
        by_class = [image_mean(mean[:, index] * pixels, open_pixels) for index in range(mean.shape[1])]
        effort = _boundaries(predicted_classes(probabilities), open_pixels, batch)
        untouched = ~batch.labelled.flatten(1).any(dim=1)  # (B)
        sureness = torch.where(untouched, class_confidence(mean, batch.valid), 0)
        return replace(seen, descriptors=torch.stack([*by_class, effort, sureness], dim=1))

    def _ranking(self, round: Round) -> Ranking:
        """Choose the kind of question; of both kinds, the images come in the order of that kind."""
        if self._points is None:
            return super()._ranking(round)
        pool = round.unlabelled
        points = self._points.rank(
            pool, round.labelled, budget=round.budget, round=round.number, known=round.known, generator=round.generator
        )
        asked = question(self._count, round.prices, worth=self._worth)
        masks = points if pool.descriptors is None else super()._ranking(round)  # no network yet: in the same order
        return _mixed(masks, points, asked, round.generator)

    def _explained_order(self, round: Round) -> tuple[Order, Picks]:
        """Draw all images, from ids in order."""
        pool = round.unlabelled
        if pool.descriptors is None or pool.class_fraction is None:
            raise ValueError("Observation.descriptors: expected what auto observes, received None")
        by_id = selection.by_id(pool.ids)
        seen = pool.descriptors.double().cpu()[by_id]
        areas = pool.class_fraction.double().cpu()[by_id].mean(dim=0).numpy()
        efforts = effort_factors(seen[:, -2], self._cost_weight)
        drawn_turns = in_turns(
            (seen[:, :-2] / efforts[:, None]).numpy(),
            others=drawn((1 / efforts).numpy(), round.generator),
            areas=areas,
            share=self._share,
            generator=round.generator,
        )
        turns = list(drawn_turns)
        order: Order = by_id[[turn.position for turn in turns]]
        lengths = pool.descriptors[:, -2].tolist()
        picks = {int(by_id[turn.position]): turn.of for turn in turns}
        return order, {at: Pick(turn=of, outlines=lengths[at]) for at, of in picks.items()}

    def _pseudo_labels(self, round: Round, order: Order) -> list[int]:
        """Return the surest images beyond the budget, the surest first."""
        pool = round.unlabelled
        if pool.descriptors is None:
            return []
        sureness = pool.descriptors[:, -1].double().cpu().numpy()
        asked = set(round.budget.take(order.tolist(), pool.size))
        certain = [
            position
            for position in selection.by_information(pool.ids, sureness).tolist()
            if sureness[position] >= max(self._confident_from, _LEAST_SURENESS)
            and position not in asked
            and pool.ids[position] not in round.known
        ]
        return certain[: int(self._confident * len(round.known))]


def _mixed(masks: Ranking, points: Ranking, asked: Question, generator: torch.Generator) -> Ranking:
    """Ask most images one kind of question and a few the other, each kind in its order."""
    kinds = dict(_placed(masks, points, asked, generator))
    return Ranking(
        ids=tuple(kinds),
        priority=masks.priority,
        regions={image: () for image, is_points in kinds.items() if not is_points},
        points={image: points.points[image] for image, is_points in kinds.items() if is_points},
        pseudo_labels=() if asked.is_points else masks.pseudo_labels,
        picks={image: pick for image, pick in masks.picks.items() if not kinds[image]},
        reason=asked.reason,
    )


def _placed(masks: Ranking, points: Ranking, asked: Question, generator: torch.Generator) -> Iterator[tuple[Id, bool]]:
    """Yield all images, and whether each is asked for points; for its mask where it has no points left."""
    queues = {False: list(reversed(masks.ids)), True: [one for one in reversed(points.ids) if one in points.points]}
    placed: set[Id] = set()
    for is_other in asked.is_other(generator):
        for queue in queues.values():
            while queue and queue[-1] in placed:
                queue.pop()
        if not queues[False]:  # it holds all images
            return
        is_points = asked.is_points != is_other and bool(queues[True])
        image = queues[is_points].pop()
        placed.add(image)
        yield image, is_points


def effort_factors(effort: Tensor, cost_weight: float) -> Tensor:
    """Return e of every image (N), positive.

    Args:
        effort: (N), at least 0, in any unit.
        cost_weight: γ.
    """
    mean = effort.double().mean()
    relative = effort.double() / mean if mean > 0 else torch.ones_like(effort, dtype=torch.float64)
    return (relative + _LEAST_EFFORT) ** cost_weight


def class_confidence(mean: Tensor, valid: Tensor) -> Tensor:
    """Return K of every image: (B) float64 in [0, 1]; 0 where a single class is predicted, or none.

    Args:
        mean: (B,C,H,W), the members' mean probabilities.
        valid: (B,H,W) bool.

    >>> sky_and_bird = torch.tensor([[0.875, 0.875, 0.875, 0.25], [0.125, 0.125, 0.125, 0.75]]).view(1, 2, 1, 4)
    >>> class_confidence(sky_and_bird, torch.ones(1, 1, 4, dtype=torch.bool)).item()  # of 7/8 and 3/4
    0.8125
    """
    largest, classes = mean.max(dim=1)  # (B,H,W)
    where = [(classes == index) & valid for index in range(mean.shape[1])]
    sums = torch.stack([image_mean(largest, pixels) for pixels in where]).sum(
        dim=0
    )  # 0 of a class that is not predicted
    seen = torch.stack([pixels.flatten(1).any(dim=1) for pixels in where]).sum(dim=0)
    return torch.where(seen > 1, sums / seen.clamp(min=1), 0)


def _boundaries(classes: Tensor, open_pixels: Tensor, batch: Batch) -> Tensor:
    """Return how long the predicted boundaries are where nothing is labelled: (B) float64, in original pixels."""
    lengths = torch.zeros(len(batch.ids), dtype=torch.float64, device=classes.device)
    for position, (height, width) in enumerate(extents(batch.valid)):
        inside = (position, slice(height), slice(width))
        size: tuple[int, int] = tuple(batch.size[position].tolist())
        length = boundary_length(classes[inside], size)  # (h,w)
        lengths[position] = torch.where(open_pixels[inside], length, 0).double().sum()
    return lengths
