"""States of networks as bytes, and what reading damaged files may raise."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

READING_ERRORS = (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""What reading a damaged file into a record may raise."""


def serialise(state: Mapping[str, Tensor]) -> bytes:
    """Return a network's state, on any device, in the safetensors format."""
    from safetensors.torch import save  # torch is slow to import and status pages do without it

    # cloned, because safetensors refuses tensors that share memory or are laid out channels-last
    data: bytes = save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()})
    return data


def now() -> str:
    """Return the current time in UTC, ISO 8601 with milliseconds."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
