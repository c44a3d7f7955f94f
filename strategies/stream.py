"""Stream-based selective sampling: as images arrive, one at a time, each is kept for labelling or passed over.

Paper: Gu, "Active Learning and Its Application in Semantic Segmentation" (the survey), section I.A; the threshold is
the balanced incremental quantile filter of Kottke, Krempl and Spiliopoulou, "Probabilistic active learning in
datastreams", 2015.
Equation: with w the scores of the last `window` images, the arriving image included, it is kept if its score reaches
quantile(w, 1 - rate) - (max w - min w) · (rate · seen - kept) / tolerance.

The quantile keeps the most informative share of what has come lately; the second term lowers it while the budget is
not used and raises it while it is overdrawn, so that scores that drift up or down neither flood nor starve the
annotators.

Deviations:
- The budget is a bound: at no time are more than `rate` of the images kept, rounded up.
- Nothing is kept before 1 / rate images have come: of fewer there is no such quantile.
- Nothing is drawn at random: the same scores in the same order give the same decisions.

    >>> import torch
    >>> from strategies.base import Observation
    >>> stream = StreamSelection(rate=0.25)
    >>> def arrive(number, score):
    ...     return stream.decide(Observation(ids=(number,), information=torch.tensor([score]), size=[[64, 64]]))
    >>> [arrive(number, score).keep for number, score in enumerate((0.25, 1.0, 0.25, 0.25, 0.75))]  # learns, then acts
    [False, False, False, False, True]
    >>> arrive(5, 0.5)  # quantile 0.6875, less 0.75 · (0.25 · 6 - 1) / 8
    Decision(id=5, keep=False, score=0.5, threshold=0.640625)
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from strategies.checks import Id, check_count, check_number
from strategies.observation import Observation


@dataclass(frozen=True)
class Decision:
    """What was decided about an image, and why.

    Attributes:
        id: the image's.
        keep: whether it is to be labelled; otherwise it is passed over.
        score: its information.
        threshold: what the score would have had to reach; infinite while nothing may be kept.
    """

    id: Id
    keep: bool
    score: float
    threshold: float


class StreamSelection:
    """Decides about observed images, one at a time; whatever strategy observed them.

    Args:
        rate: share of the images to keep, in (0, 1].
        window: how many of the latest scores the quantile is taken of, from 2.
        tolerance: by how many kept images the budget may be missed before the threshold has moved all over the range
            of the scores, from 1.
    """

    def __init__(self, *, rate: float = 0.1, window: int = 256, tolerance: float = 8.0) -> None:
        check_number("rate", rate, 1e-6, 1)
        check_count("window", window, 2)
        check_number("tolerance", tolerance, 1)
        self._rate, self._tolerance = rate, tolerance
        self._scores: deque[float] = deque(maxlen=window)
        self._seen = self._kept = 0

    def decide(self, observation: Observation) -> Decision:
        """Keep or pass over an image, once and for all.

        Raises:
            ValueError: the observation is not of exactly one image.
        """
        if len(observation.ids) != 1:
            raise ValueError(f"stream: expected an Observation of one image, received {len(observation.ids)}")
        score = float(observation.information[0])
        self._seen += 1
        self._scores.append(score)
        threshold = self._threshold()
        keep = score >= threshold
        self._kept += keep
        return Decision(observation.ids[0], keep, score, threshold)

    def _threshold(self) -> float:
        due = self._rate * self._seen - self._kept
        if due <= 0 or self._seen < 1 / self._rate:
            return math.inf
        scores = np.array(self._scores)
        quantile = float(np.quantile(scores, 1 - self._rate))
        return quantile - float(np.ptp(scores)) * due / self._tolerance

    def state_dict(self) -> dict[str, Any]:
        """Return what has been seen, as numbers and lists that JSON holds exactly."""
        return {"seen": self._seen, "kept": self._kept, "scores": list(self._scores)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another process stopped.

        Raises:
            ValueError: not a state of this class.
        """
        if set(state) != {"seen", "kept", "scores"}:
            raise ValueError(f"stream: expected a state of seen, kept and scores, received {sorted(state)}")
        check_count("seen", state["seen"], 0)
        check_count("kept", state["kept"], 0)
        for score in state["scores"]:
            check_number("scores", score, -math.inf)
        self._seen, self._kept = state["seen"], state["kept"]
        self._scores = deque(state["scores"], maxlen=self._scores.maxlen)
