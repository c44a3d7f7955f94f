"""Chance that is the same for ever: a number for each key, by a hash."""

from __future__ import annotations

import hashlib


def draw(seed: int, key: object) -> int:
    """Return the number of a key, in [0, 2^63): it depends on the seed and the key only.

    >>> draw(0, 7) == draw(0, 7) != draw(1, 7)
    True
    """
    return int.from_bytes(hashlib.sha256(f"{seed}|{key}".encode()).digest()[:8], "big") >> 1
