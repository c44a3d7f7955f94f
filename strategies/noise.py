"""Random numbers that choose without replacement: what is drawn depends on the generator and the count alone."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray


def exponential(count: int, generator: torch.Generator) -> NDArray[np.float64]:
    """Draw positive numbers with density exp(-x): (count)."""
    drawn = torch.empty(count, dtype=torch.float64, device=generator.device).exponential_(generator=generator)
    return drawn.clamp_(min=torch.finfo(torch.float64).tiny).cpu().numpy()


def gumbel(count: int, generator: torch.Generator) -> NDArray[np.float64]:
    """Draw standard Gumbel numbers, minus the logarithms of exponential ones: (count)."""
    drawn: NDArray[np.float64] = -np.log(exponential(count, generator))
    return drawn
