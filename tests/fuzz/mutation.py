"""Changes to JSON that keep it JSON: a mutation of bytes alone rarely gets past the parser."""

from __future__ import annotations

import json
from random import Random
from typing import Any

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 255, 256, 2**31, 2**53 + 1, 2**64, -(2**63), 10**400, 10**4000),
    *(0.5, -0.0, 1e-320, 1e308, -1e308, float("nan"), float("inf"), float("-inf"), 100.0, 99.999999, 100_001.0),
    *("", "0", "1e400", "cell", "rle", "\0", "\ud800", "\u202e", "a" * 5000, "../../etc/passwd", "$image", "9" * 5000),
    *([], {}, [[]], [{}], {"": ""}, [None], [0] * 5000, {"x": 1, "y": 2}),
)
"""Values that code forgets about."""


def mutated_json(data: bytes, seed: int) -> bytes | None:
    """The document with one to four places changed; None where it is no JSON."""
    random = Random(seed)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return None
    for _ in range(random.randint(1, 4)):
        document = changed(document, random)
    try:
        return json.dumps(document).encode()
    except (ValueError, RecursionError):
        return None


def changed(value: Any, random: Random) -> Any:
    """One place of a value changed, somewhere inside or all of it."""
    if isinstance(value, dict) and value and random.random() < 0.9:
        key = random.choice(list(value))
        return _changed_dict(value, key, random)
    if isinstance(value, list) and value and random.random() < 0.9:
        at = random.randrange(len(value))
        return _changed_list(value, at, random)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and random.random() < 0.5:
        return random.choice((value + 1, -value, value * 10, value / 3 if abs(value) < 1e300 else 0, str(value)[:50]))
    if random.random() < 0.1:
        deep: Any = value
        for _ in range(random.choice((3, 70, 400, 900))):
            deep = [deep] if random.random() < 0.7 else {"a": deep}
        return deep
    return random.choice(ODD)


def _changed_dict(value: dict[str, Any], key: str, random: Random) -> dict[str, Any]:
    kind = random.random()
    rest = {name: inner for name, inner in value.items() if name != key}
    if kind < 0.1:
        return rest
    if kind < 0.15:
        return {**rest, random.choice([*value, "rle", "points", "vertices", "imageDataURL", ""]): value[key]}
    return {**value, key: changed(value[key], random)}


def _changed_list(value: list[Any], at: int, random: Random) -> list[Any]:
    kind = random.random()
    if kind < 0.1:
        return value[:at] + value[at + 1 :]
    if kind < 0.2 and len(value) < 1000:
        return value[:at] + [value[at]] * random.choice((2, 3, 50)) + value[at + 1 :]
    return [*value[:at], changed(value[at], random), *value[at + 1 :]]
