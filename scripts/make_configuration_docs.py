"""Writes the tables of docs/configuration.md from `ml_backend.settings.Settings`.

    python scripts/make_configuration_docs.py

The tables stand between two markers; the text around them is written by hand and stays. A test compares the page with
what this script would write.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from ml_backend.settings import PROJECT_FIELDS, Settings
from strategies.catalogue import ENTRIES

PAGE = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"
BEGIN = "<!-- made by scripts/make_configuration_docs.py: do not edit by hand -->"
END = "<!-- end of the made part -->"
HEADER = "| Setting | Default | Valid | Project | Meaning |\n|---|---|---|:-:|---|"
# First setting of each section; the others follow in the order of the class.
SECTIONS = {
    "label_studio_url": "Names shared with label-studio-ml",
    "host": "The server",
    "strategy": "What is learned, and from what",
    "queue_window": "The queue",
    "reconcile_seconds": "The worker",
    "minimum_free_bytes": "Operations",
    "image_cache_bytes": "Images",
}
LIMITS = (("ge", "at least"), ("gt", "above"), ("le", "at most"), ("lt", "below"))
KINDS = {
    bool: "true or false",
    int: "integer",
    float: "number",
    str: "text",
    Path: "folder",
    Path | str: "folder, or the address of a bucket",
    SecretStr: "text",
    dict: "JSON object",
}


def updated(page: str) -> str:
    """Return the page with its tables made anew.

    Raises:
        ValueError: a marker is missing.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE.name} lacks the line {END if begin else BEGIN}")
    return "\n".join([before + BEGIN, *_lines(), "", END + after])


def _lines() -> Iterator[str]:
    names = Settings.model_construct().environment()  # in the order of the fields
    for environment_name, (name, field) in zip(names, Settings.model_fields.items(), strict=True):
        if name in SECTIONS:
            yield from ("", f"### {SECTIONS[name]}", "", HEADER)
        project = "yes" if name in PROJECT_FIELDS else ""
        cells = (f"`{environment_name}`", _default(field), _valid(name, field), project, field.description or "")
        yield f"| {' | '.join(cells)} |"


def _default(field: FieldInfo) -> str:
    value = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
    if isinstance(value, bool):
        value = str(value).lower()
    return "empty" if value == "" else f"`{value}`"


def _valid(name: str, field: FieldInfo) -> str:
    kind = field.annotation
    own = tuple(entry.name for entry in ENTRIES)
    choices = own if name == "strategy" else get_args(kind) if get_origin(kind) is Literal else ()
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    limits = (
        f"{word} {getattr(rule, limit)}" for rule in field.metadata for limit, word in LIMITS if hasattr(rule, limit)
    )
    if kind == bool | Literal["auto"]:
        return f"{KINDS[bool]}, or `auto`"
    return ", ".join([KINDS.get(kind) or KINDS[get_origin(kind)], *limits])


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text()))
    print(f"{PAGE} is up to date.")
