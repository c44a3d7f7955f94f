"""The curves as pictures: the means of all strategies, a few of them in colour, the others thin and grey.

Intervals of many curves that cross hide each other. Here each coloured curve has its own as a bar where it ends;
`panels` draws those of the whole curves, strategy by strategy.

matplotlib is imported where it is used, and only through its objects: nothing here changes its state for others.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ml_backend.settings import Settings
from ml_backend.simulation.report.analysis import Analysis
from ml_backend.simulation.report.comparison import RANDOM
from ml_backend.simulation.report.curves import AXES, Axis, Band, mean_curve
from ml_backend.simulation.report.findings import percent
from ml_backend.simulation.report.names import file_name, short
from ml_backend.simulation.report.statistics import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import XAxis
    from matplotlib.figure import Figure

_DEFAULT: str = Settings.model_fields["strategy"].default
HIGHLIGHTED = 4
"""Strategies in colour, besides random."""


@dataclass(frozen=True)
class Theme:
    """Colours, and the width and height in inches; `margin` is that of the labels, of `letters` at most.

    The colours are Okabe and Ito's, which people with any common colour blindness tell apart; dashes tell the curves
    apart without colour.
    """

    ink: str
    faint: str
    paper: str
    colours: tuple[str, ...]
    size: tuple[float, float]
    margin: float = 2.0
    letters: int = 22
    font: float = 9.0


LIGHT = Theme("#1b1b1b", "#b4b4b4", "#ffffff", ("#0072b2", "#d55e00", "#00805f", "#b0568c"), (8.2, 4.4))
DARK = Theme("#ececec", "#5f6670", "#16181c", ("#56b4e9", "#e69f00", "#2fc79c", "#e08fbd"), (8.2, 4.4))
_DASHES = ("-", (0, (6, 1.5)), (0, (3, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
_NEAR, _BAR_INCHES = 0.03, 0.055
"""Curves that end within this share of the axis end together; their intervals stand so far apart."""
_GAP = 0.28
"""Inches between curves and labels."""


def narrow(theme: Theme) -> Theme:
    """Return a theme for a small screen."""
    return dataclasses.replace(theme, size=(4.4, 4.2), margin=1.5, letters=15)


@dataclass(frozen=True)
class _Label:
    """Text beside the point where a curve ends; `end` is None for a line across the picture."""

    text: str
    end: float | None
    height: float
    colour: str


def curve_files(analysis: Analysis) -> dict[str, bytes]:
    """Return `curves-<dataset>-<axis>.png` and `.svg` for each axis, by name."""
    files = {}
    for axis in AXES:
        stem = f"curves-{file_name(analysis.dataset)}-{axis}"
        figure = curve_figure(analysis, axis, LIGHT)
        files[f"{stem}.png"] = picture(figure, "png")
        files[f"{stem}.svg"] = picture(figure, "svg")
    return files


def curve_svg(analysis: Analysis, axis: Axis, theme: Theme) -> bytes:
    """Draw the curves for a page."""
    return picture(curve_figure(analysis, axis, theme), "svg")


def curve_figure(analysis: Analysis, axis: Axis, theme: Theme) -> Figure:
    """Draw mIoU against what was labelled: the mean of each strategy, and 95 % intervals where coloured ones end."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=theme.size, facecolor=theme.paper)
    FigureCanvasAgg(figure)
    left, right = 0.62 / theme.size[0], 1 - theme.margin / theme.size[0]
    axes = figure.add_axes((left, 0.13, right - left, 0.73))
    bands = {name: mean_curve(curves, axis) for name, curves in analysis.curves.items()}
    known = {name: band for name, band in bands.items() if band is not None}
    _draw_curves(axes, known, highlighted(analysis), theme)
    axes.set_ylim(*limits(list(known.values()), analysis))
    _dress(axes, analysis, axis, theme)
    _draw_intervals(axes, known, highlighted(analysis), theme)
    _place_labels(axes, [*_curve_labels(known, highlighted(analysis), theme), *_lines(axes, analysis, theme)], theme)
    return figure


def highlighted(analysis: Analysis) -> list[str]:
    """Return the strategies to draw in colour, best first, without random; the default is always among them."""
    names = [standing.strategy for standing in analysis.standings if standing.strategy != RANDOM]
    places_for_others = HIGHLIGHTED - (_DEFAULT in names)
    coloured = {*[name for name in names if name != _DEFAULT][:places_for_others], _DEFAULT}
    return [name for name in names if name in coloured]


def _draw_curves(axes: Axes, bands: Mapping[str, Band], coloured: Sequence[str], theme: Theme) -> None:
    for name, band in bands.items():
        if name not in coloured and name != RANDOM:
            axes.plot(band.effort, band.mean, color=theme.faint, linewidth=0.8, zorder=1, **marker(band))
    for name in [RANDOM, *reversed(coloured)]:
        band_ = bands.get(name)
        if band_ is None:
            continue
        colour, dash = _style(name, coloured, theme)
        axes.plot(band_.effort, band_.mean, color=colour, linestyle=dash, linewidth=1.9, zorder=3, **marker(band_))


def _draw_intervals(axes: Axes, bands: Mapping[str, Band], coloured: Sequence[str], theme: Theme) -> None:
    """Draw the interval at the end of each coloured curve as a bar; bars of curves that end together stand apart."""
    from matplotlib.transforms import ScaledTranslation

    ends = sorted((float(bands[name].effort[-1]), name) for name in [*coloured, RANDOM] if name in bands)
    low, high = np.log(axes.get_xlim())
    place, before = 0, -np.inf
    for end, name in ends:
        band = bands[name]
        place = place + 1 if np.log(end) - before < _NEAR * (high - low) else 0
        before = np.log(end)
        if band.low is None or band.high is None:
            continue
        axes.plot(
            [end, end],
            [band.low[-1], band.high[-1]],
            color=_style(name, coloured, theme)[0],
            linewidth=1.4,
            solid_capstyle="butt",
            marker="_",
            markersize=5,
            zorder=4,
            transform=axes.transData + ScaledTranslation(_BAR_INCHES * (place + 1), 0, axes.figure.dpi_scale_trans),
        )


def marker(band: Band) -> dict[str, Any]:
    """A point where there is no line to draw."""
    return {"marker": "o", "markersize": 4} if len(band.effort) == 1 else {}


def _style(name: str, coloured: Sequence[str], theme: Theme) -> tuple[str, Any]:
    if name == RANDOM:
        return theme.ink, (0, (2, 1.2))
    rank = coloured.index(name)
    return theme.colours[rank], _DASHES[rank]


def limits(bands: Sequence[Band], analysis: Analysis) -> tuple[float, float]:
    """Return the range of mIoU to draw: all means, and half as much again for intervals where they need it.

    Wider ones, as two seeds have them, are cut off: they would flatten the curves.
    """
    values = [float(value) for band in bands for value in (band.mean.min(), band.mean.max())]
    if analysis.reference is not None and analysis.target_miou is not None:
        values += [analysis.reference.miou.mean, analysis.target_miou]
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    room = 0.5 * (high - low)
    ends = [float(end[-1]) for band in bands for end in (band.low, band.high) if end is not None]
    lowest, highest = min([low, *ends]), max([high, *ends])
    margin = 0.06 * (high - low) or 0.02
    return max(0.0, max(lowest, low - room) - margin), min(1.0, min(highest, high + room) + margin)


def _dress(axes: Axes, analysis: Analysis, axis: Axis, theme: Theme) -> None:
    axes.set_facecolor(theme.paper)
    axes.grid(visible=True, color=theme.faint, alpha=0.35, linewidth=0.6)
    logarithmic(axes, max(3, int(theme.size[0])))
    axes.set_xlabel(f"{axis} labelled", color=theme.ink, fontsize=theme.font)
    axes.set_ylabel("mean IoU", color=theme.ink, fontsize=theme.font)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.faint)
    axes.tick_params(colors=theme.ink, labelsize=theme.font - 1)
    total = analysis.reference.totals[axis] if analysis.reference else 0.0
    if total > 0:
        shares = (lambda x: np.asarray(x) * (100 / total), lambda x: np.asarray(x) * (total / 100))
        top = axes.secondary_xaxis("top", functions=shares)
        top.set_xlabel(f"% of all {axis}", color=theme.ink, fontsize=theme.font)
        top.tick_params(colors=theme.ink, labelsize=theme.font - 1)
        _ticks(top.xaxis, max(3, int(theme.size[0])))
        top.spines["top"].set_color(theme.faint)


def logarithmic(axes: Axes, ticks: int) -> None:
    """Let an axis of efforts run in logarithms, with so many ticks or fewer."""
    axes.set_xscale("log")
    _ticks(axes.xaxis, ticks)


def _ticks(axis: XAxis, ticks: int) -> None:
    from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(EngFormatter(sep=""))


def _lines(axes: Axes, analysis: Analysis, theme: Theme) -> list[_Label]:
    """Draw the full data's line and the target's; return their labels."""
    if analysis.reference is None or analysis.target_miou is None:
        return []
    full = analysis.reference.miou.mean
    axes.axhline(full, color=theme.ink, linewidth=1.0, zorder=1)
    labels = [_Label("all labels", None, full, theme.ink)]
    if analysis.target < 1:
        axes.axhline(analysis.target_miou, color=theme.ink, linewidth=0.9, linestyle=":", zorder=1)
        labels.append(_Label(f"target ({percent(analysis.target)})", None, analysis.target_miou, theme.ink))
    return labels


def _curve_labels(bands: Mapping[str, Band], coloured: Sequence[str], theme: Theme) -> list[_Label]:
    names = [name for name in [*coloured, RANDOM] if name in bands]
    return [
        _Label(
            short(name, theme.letters),
            float(bands[name].effort[-1]),
            float(bands[name].mean[-1]),
            _style(name, coloured, theme)[0],
        )
        for name in names
    ]


def _place_labels(axes: Axes, labels: Sequence[_Label], theme: Theme) -> None:
    """Write the labels in a column to the right of the curves, each as near to its height as the others allow."""
    low, high = axes.get_ylim()
    height = theme.size[1] * 0.73 * 72  # points
    left = 1 + _GAP / (theme.size[0] - theme.margin - 0.62)
    wanted = [(label.height - low) / (high - low) for label in labels]
    for label, want, place in zip(labels, wanted, spread(wanted, 1.25 * theme.font / height), strict=True):
        axes.annotate(
            label.text,
            xy=(1.0, want) if label.end is None else (label.end, label.height),
            xycoords="axes fraction" if label.end is None else "data",
            xytext=(left, place),
            textcoords="axes fraction",
            color=label.colour,
            fontsize=theme.font,
            va="center",
            annotation_clip=False,
            parse_math=False,
            arrowprops={
                "arrowstyle": "-",
                "color": label.colour,
                "linewidth": 0.6,
                "linestyle": ":",  # a full line would look like a curve that goes on
                "alpha": 0.6,
                "relpos": (0, 0.5),  # from the text's left edge, not across it
                "shrinkA": 1,
                "shrinkB": 0,
            },
        )


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Move heights apart so that neighbours are at least `gap` from each other, within [0, 1] where there is room.

    >>> [round(place, 2) for place in spread([0.5, 0.52, 0.1], 0.1)]
    [0.46, 0.56, 0.1]
    """
    order = np.argsort(np.asarray(wanted), kind="stable")
    groups: list[list[int]] = []
    for index in order:
        groups.append([int(index)])
        while len(groups) > 1 and _bottom(groups[-1], wanted, gap) < _top(groups[-2], wanted, gap) + gap:
            last = groups.pop()
            groups[-1] += last
    places = [0.0] * len(wanted)
    for group in groups:
        bottom = _bottom(group, wanted, gap)
        for number, index in enumerate(group):
            places[index] = bottom + number * gap
    return places


def _bottom(group: Sequence[int], wanted: Sequence[float], gap: float) -> float:
    half = gap * (len(group) - 1) / 2
    middle = sum(wanted[index] for index in group) / len(group)
    return max(0.0, min(middle - half, 1.0 - 2 * half))


def _top(group: Sequence[int], wanted: Sequence[float], gap: float) -> float:
    return _bottom(group, wanted, gap) + gap * (len(group) - 1)


def picture(figure: Figure, kind: str) -> bytes:
    """Write a picture that is the same for the same numbers."""
    import matplotlib as mpl

    content = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with mpl.rc_context({"svg.hashsalt": "nextmask", "svg.fonttype": "path"}):
        figure.savefig(content, format=kind, dpi=144, facecolor=figure.get_facecolor(), metadata=metadata)
    return content.getvalue()


def description(analysis: Analysis, axis: Axis) -> str:
    """Return what the curves show, for people who do not see them."""
    ends = []
    for name in [*highlighted(analysis), RANDOM]:
        band = mean_curve(analysis.curves.get(name, ()), axis)
        if band is not None:
            ends.append(f"{name} ends at {band.mean[-1]:.3f}")
    text = f"Mean IoU against {axis} labelled for {len(analysis.curves)} strategies. {'; '.join(ends)}."
    full: Interval | None = analysis.reference.miou if analysis.reference else None
    return text if full is None else f"{text} All labels: {full.mean:.3f}."
