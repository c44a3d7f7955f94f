"""The seeds of runs, as people write them."""

from __future__ import annotations

from typing import Final

from ml_backend.errors import ConfigurationError

_MOST_SEEDS: Final = 10_000


def seeds_of(option: str, text: str) -> tuple[int, ...]:
    """Read the seeds of runs: how many, which count from 0, or the first and the last.

    >>> seeds_of("--seeds", "3"), seeds_of("--seeds", "100-102")
    ((0, 1, 2), (100, 101, 102))

    Raises:
        ConfigurationError: the text is neither, or names no seed; the message begins with the option.
    """
    first, dash, last = text.strip().partition("-")
    if first.isdecimal() and (last.isdecimal() or not dash):
        seeds = range(int(first), int(last) + 1) if dash else range(int(first))
        if 0 < len(seeds) <= _MOST_SEEDS:
            return tuple(seeds)
    raise ConfigurationError(
        f"{option} {text!r} are no seeds: give how many, such as 10, or the first and the last, such as 100-109; "
        f"{_MOST_SEEDS} at most."
    )
