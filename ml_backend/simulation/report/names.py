"""Names of data sets and strategies, which may hold anything, as parts of paths and as text in pictures."""

from __future__ import annotations

import hashlib
import re

_LONGEST = 60


def file_name(name: str) -> str:
    """Return a part of a path for a name: itself where it is harmless, else with a digest, so that no two are the same.

    >>> file_name("glas"), file_name("../a b")
    ('glas', 'a_b-2c2c79')
    """
    harmless = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:_LONGEST].lstrip("._-")
    if harmless == name and name:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:6]
    return f"{harmless}-{digest}" if harmless else digest


def short(name: str, longest: int) -> str:
    """Return the name in a line that fits beside a curve, without characters that cannot be drawn."""
    printable = "".join(character if character.isprintable() else " " for character in name)
    return printable if len(printable) <= longest else printable[: longest - 1] + "…"
