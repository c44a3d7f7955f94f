"""Checks of what enters the package: every message says what was expected and what was received.

A check that passes costs one pass over the data; only a failing check looks closer to word its message.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sized
from typing import Any

import torch
from torch import Tensor

Id = str | int
"""What names an image. The ids of one pool are all `str` or all `int`, so that they can be sorted."""

OMITTED: Any = None
"""Default of a field that is filled in on creation, so that readers never meet None."""

SUM_TOLERANCE = 1e-3
HALF_SUM_TOLERANCE = 1e-2
"""How far probabilities may sum from 1: bfloat16 rounds each of them by up to 1/512."""


def unique_ids(field: str, ids: Iterable[Id]) -> tuple[Id, ...]:
    """Return `ids` as a tuple of distinct `str` or distinct `int`; integer tensors and arrays are read, too.

    Raises:
        ValueError: other types, a mixture of both, or an id that occurs twice.
    """
    plain: tuple[Id, ...] = tuple(ids.tolist() if hasattr(ids, "tolist") else ids)
    kinds = {type(own) for own in plain}
    if kinds not in (set(), {str}, {int}):
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise ValueError(f"{field}: expected all str or all int, received {names}")
    if len(set(plain)) != len(plain):
        twice = Counter(plain).most_common(1)[0][0]
        raise ValueError(f"{field}: expected every id once, received {twice!r} more than once")
    return plain


def image_sizes(field: str, value: Any, count: int, device: torch.device) -> Tensor:
    """Return heights and widths as (count,2) int64 on the device.

    Raises:
        ValueError: another shape, not integers, or a side shorter than a pixel.
    """
    sizes = torch.as_tensor(value, device=device)
    if count == 0 and sizes.numel() == 0:
        return torch.zeros((0, 2), dtype=torch.int64, device=device)
    check_shape(field, sizes, N=count, sides=2)
    if sizes.is_floating_point() or sizes.dtype == torch.bool or (sizes < 1).any():
        raise ValueError(f"{field}: expected integers from 1 up, received {sizes.dtype} from {float(sizes.min()):g} up")
    return sizes.to(torch.int64)


def assign(target: object, **values: object) -> None:
    """Set fields of a frozen dataclass while it is being created."""
    for name, value in values.items():
        object.__setattr__(target, name, value)


def check_shape(field: str, value: Tensor, **axes: int | None) -> None:
    """Check the length of every axis, named in order; an axis given as None has any length from 1 up.

    >>> check_shape("features", torch.zeros(2, 8), B=2, D=None)
    >>> check_shape("features", torch.zeros(2, 8), B=3, D=None)
    Traceback (most recent call last):
        ...
    ValueError: features: expected shape (B=3, D), received (2, 8)
    """
    if not isinstance(value, Tensor):
        raise ValueError(f"{field}: expected a torch.Tensor, received {type(value).__name__}")
    fits = value.ndim == len(axes) and all(
        got >= 1 if want is None else got == want for want, got in zip(axes.values(), value.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join(name if want is None else f"{name}={want}" for name, want in axes.items())
        raise ValueError(f"{field}: expected shape ({wanted}), received {tuple(value.shape)}")


def check_length(field: str, value: Sized, count: int) -> None:
    """Check that there is one entry per image."""
    if len(value) != count:
        raise ValueError(f"{field}: expected one entry for each of {count} images, received {len(value)}")


def check_count(field: str, value: object, least: int) -> None:
    """Check that the value is an integer, and not too small."""
    if type(value) is not int or value < least:
        raise ValueError(f"{field}: expected an integer from {least} up, received {value!r}")


def check_number(field: str, value: object, least: float, most: float = math.inf) -> None:
    """Check that the value is a finite number within the bounds."""
    number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    if not (math.isfinite(number) and least <= number <= most):
        raise ValueError(f"{field}: expected a number in [{least:g}, {most:g}], received {value!r}")


def check_choice(field: str, value: str, choices: Iterable[str]) -> str:
    """Return the name; check that it is one of the choices."""
    names = sorted(choices)
    if value not in names:
        raise ValueError(f"{field}: expected one of {', '.join(names)}, received {value!r}")
    return value


def check_floating(field: str, value: Tensor) -> None:
    """Check that the values are floating-point numbers."""
    if not value.is_floating_point():
        raise ValueError(f"{field}: expected floating-point values, received {value.dtype}")


def check_mask(field: str, value: Tensor) -> None:
    """Check that the values are boolean."""
    if value.dtype != torch.bool:
        raise ValueError(f"{field}: expected torch.bool, received {value.dtype}")


def check_finite(field: str, value: Tensor) -> None:
    """Check that there is neither NaN nor infinity."""
    check_floating(field, value)
    if value.numel() == 0 or all(bound.isfinite() for bound in value.aminmax()):  # no copy; NaN comes through
        return
    finite = value.isfinite()
    if not finite.all():
        worst = float(value[~finite].flatten()[0])
        raise ValueError(f"{field}: expected finite values, received {worst} ({int((~finite).sum())} not finite)")


def check_range(field: str, value: Tensor, low: float, high: float, *, tolerance: float = 0.0) -> None:
    """Check that all values are finite and within [low, high], give or take the tolerance."""
    check_floating(field, value)
    if value.numel() == 0:
        return
    least, most = (float(bound) for bound in value.aminmax())  # NaN comes through and fails the comparison
    if not (least >= low - tolerance and most <= high + tolerance):
        raise ValueError(f"{field}: expected finite values in [{low:g}, {high:g}], received {least:g} to {most:g}")


def check_probabilities(field: str, probabilities: Tensor, valid: Tensor, ids: tuple[Id, ...]) -> None:
    """Check that (M,B,C,H,W) holds distributions over C wherever valid (B,H,W); padding may hold anything.

    Sums class by class in maps of (M,B,H,W), so that a large committee is not copied.
    """
    check_floating(field, probabilities)
    half = probabilities.dtype in (torch.float16, torch.bfloat16)
    tolerance = HALF_SUM_TOLERANCE if half else SUM_TOLERANCE
    total = torch.zeros_like(probabilities[:, :, 0], dtype=torch.float32)  # (M,B,H,W)
    wrong = torch.zeros_like(total, dtype=torch.bool)  # (M,B,H,W)
    for plane in probabilities.unbind(dim=2):
        total += plane
        wrong |= plane < 0
    wrong |= ~((total - 1).abs() <= tolerance)  # written so that NaN is wrong
    wrong &= valid
    if wrong.any():
        member, image, row, column = wrong.nonzero()[0].tolist()
        values = probabilities[member, image, :, row, column]
        raise ValueError(
            f"{field}: expected finite values >= 0 that sum to 1 over C (± {tolerance:g}), received a sum of "
            f"{float(total[member, image, row, column]):g} with a least value of {float(values.min()):g} in image "
            f"{ids[image]!r}, member {member}, row {row}, column {column}; "
            f"{int(wrong.sum())} pixels in all: pass the softmax of the logits"
        )
