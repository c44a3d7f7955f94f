"""Grey images of more than 8 bits: stretched so that the 0.1th and 99.9th percentile become 0 and 255."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_PERCENTILES = (0.1, 99.9)
_WHITE = 255.0


@dataclass(frozen=True)
class DeepGrey:
    """Values (H,W) of any numeric type, with the values that become black (`low`) and white (`high`).

    Attributes:
        alpha: (H,W) uint16, 65535 = opaque; None where all pixels are.
    """

    values: npt.NDArray[Any]
    low: float
    high: float
    alpha: npt.NDArray[np.uint16] | None = None

    @classmethod
    def of(cls, values: npt.NDArray[Any], *, alpha: npt.NDArray[np.uint16] | None = None) -> DeepGrey:
        """Stretch from percentile to percentile of the values that are finite and seen."""
        seen = values if alpha is None else values[alpha > 0]
        finite = seen if seen.dtype.kind in "iu" else seen[np.isfinite(seen)]
        if not finite.size:
            return cls(values, 0.0, 0.0, alpha)
        low, high = np.percentile(finite, _PERCENTILES)
        if high <= low:  # nearly all values are equal: show the few others
            low, high = finite.min(), finite.max()
        return cls(values, float(low), float(high), alpha)

    def grey(self, rows: slice) -> npt.NDArray[np.uint8]:
        """Return some rows as (h,W) uint8, over white where they are transparent; values that are not finite are 0."""
        scaled = self._scaled(self.values[rows].astype(np.float64))
        if self.alpha is not None:
            scaled = _WHITE + (scaled - _WHITE) * (self.alpha[rows] / np.iinfo(np.uint16).max)
        return np.rint(scaled).astype(np.uint8)

    def _scaled(self, numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        if self.high <= self.low:
            return np.zeros(numbers.shape)
        known = np.where(np.isfinite(numbers), numbers, self.low)
        return np.clip((known - self.low) * (255.0 / (self.high - self.low)), 0, 255)
