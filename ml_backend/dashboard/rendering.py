"""Pages from templates: everything is escaped, and a name that a template does not get is an error."""

from __future__ import annotations

import functools
from datetime import datetime, timezone
from typing import Any, Final

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ml_backend import __version__
from ml_backend.dashboard.static import static_path
from ml_backend.learning.measuring import Estimate
from ml_backend.learning.measuring.words import difference_text, measure_text, measured_text, recorded

TABS: Final = (
    ("overview", "Overview", ""),
    ("queue", "Queue", "/queue"),
    ("versions", "Versions", "/versions"),
    ("compare", "Compare", "/compare"),
    ("tasks", "Tasks", "/tasks"),
    ("events", "Events", "/events"),
)
"""The pages of a project: name, title, path below /projects/{id}."""
NOTHING: Final = "\N{EN DASH}"
"""Stands where there is no number."""


@functools.cache
def environment() -> Environment:
    """Return the environment of all templates."""
    made = Environment(
        loader=PackageLoader("ml_backend.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"count": count, "measure": measure, "change": change, "moment": moment, "duration": duration}
    made.filters |= {"megabytes": megabytes, "estimate": estimate, "measured": measured, "points": difference_text}
    made.filters |= {"percent": percent}
    made.globals |= {"nextmask_version": __version__, "tabs": TABS, "recorded": recorded}
    return made


def render(request: Request, template: str, *, status_code: int = 200, **values: Any) -> HTMLResponse:
    """Answer with a page.

    Args:
        template: its file name.
        values: what it shows. Pages of a project need `project` (with `id` and `title`) and `tab`, a name of TABS.
    """
    root = request.scope.get("root_path", "")
    text = (
        environment()
        .get_template(template)
        .render(
            root=root,
            static=lambda name: root + static_path(name),
            now=datetime.now(timezone.utc).timestamp(),
            **values,
        )
    )
    # What a page shows changes all the time, and nobody but the visitor may keep it.
    return HTMLResponse(text, status_code, headers={"Cache-Control": "private, no-cache"})


# -- filters ----------------------------------------------------------------------------------------------------------
def count(value: int | None) -> str:
    """Write a whole number with thousands set off by a narrow space.

    >>> count(50000).replace(chr(0x202f), "_"), count(None)
    ('50_000', '–')
    """
    return NOTHING if value is None else f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def measure(value: float | None, digits: int = 3) -> str:
    """Write a measure in [0, 1].

    >>> measure(0.83449), measure(None)
    ('0.834', '–')
    """
    return NOTHING if value is None else f"{value:.{digits}f}"


def percent(share: float | None) -> str:
    """Write a share of [0, 1].

    >>> percent(0.666), percent(None)
    ('67 %', '–')
    """
    return NOTHING if share is None else f"{100 * share:.0f} %"


def estimate(value: Estimate | None) -> str:
    """Write a measure with its interval.

    >>> estimate(Estimate(0.83449, 0.8, 0.868)), estimate(None)
    ('0.83 (0.80 to 0.87)', '–')
    """
    return measure_text(value) or NOTHING


def measured(value: Estimate | None) -> str:
    """Write a measure with its interval and the images that it is of.

    >>> measured(Estimate(0.83449, 0.8, 0.868, 12, 12)), measured(None)
    ('0.83 (0.80 to 0.87) on 12 images', '–')
    """
    return measured_text(value) or NOTHING


def change(value: float) -> str:
    """Write a change of a measure.

    >>> change(0.0312), change(-0.0002)
    ('+0.031', '+0.000')
    """
    return f"{round(value, 3) + 0.0:+.3f}"  # no minus before nothing


def megabytes(size: int) -> str:
    """Write a number of bytes.

    >>> megabytes(23_456_789), megabytes(12_345)
    ('23.5 MB', '0.01 MB')
    """
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e6:.2f} MB"


def duration(seconds: float | None) -> str:
    """Write a time span in the two largest fitting units.

    >>> [duration(seconds) for seconds in (0.4, 75, 3600, 90000, None)]
    ['0 s', '1 min 15 s', '1 h', '1 d 1 h', '–']
    """
    if seconds is None:
        return NOTHING
    left, parts = max(0, round(seconds)), []
    for name, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        amount, left = divmod(left, size)
        parts.append((amount, name))
    while len(parts) > 1 and parts[0][0] == 0:
        del parts[0]
    return " ".join(f"{amount} {name}" for amount, name in parts[:2] if amount or len(parts) == 1)


def moment(seconds: float | None) -> str | Markup:
    """Write a time (seconds since the epoch) as UTC; a script turns it into the visitor's own time.

    >>> str(moment(0))
    '<time datetime="1970-01-01T00:00:00Z">1970-01-01 00:00 UTC</time>'
    """
    if seconds is None:
        return NOTHING
    at = datetime.fromtimestamp(seconds, timezone.utc)
    return Markup('<time datetime="{}">{}</time>').format(
        at.strftime("%Y-%m-%dT%H:%M:%SZ"), at.strftime("%Y-%m-%d %H:%M UTC")
    )
