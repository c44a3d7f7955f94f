"""Each strategy beside random in a small panel: both means, and the bands of their 95 % intervals."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from ml_backend.simulation.report.analysis import Analysis
from ml_backend.simulation.report.comparison import RANDOM
from ml_backend.simulation.report.curves import Axis, Band, mean_curve
from ml_backend.simulation.report.figures import Theme, limits, logarithmic, marker, picture
from ml_backend.simulation.report.names import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HEIGHT: Final = 1.5
"""Inches of a panel with its title."""
_PANEL_WIDTH: Final = 2.0


def panels_svg(analysis: Analysis, axis: Axis, theme: Theme) -> bytes:
    """Draw the panels for a page."""
    return picture(panels_figure(analysis, axis, theme), "svg")


def panels_figure(analysis: Analysis, axis: Axis, theme: Theme) -> Figure:
    """Draw a panel for each strategy but random, best first, all on the same axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    bands = {name: mean_curve(analysis.curves[name], axis) for name in shown(analysis)}
    random = mean_curve(analysis.curves.get(RANDOM, ()), axis)
    columns = int(theme.size[0] / _PANEL_WIDTH)
    rows = max(1, math.ceil(len(bands) / columns))
    figure = Figure(figsize=(theme.size[0], rows * _HEIGHT + 0.45), facecolor=theme.paper, layout="constrained")
    FigureCanvasAgg(figure)
    grid = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    known = [band for band in (*bands.values(), random) if band is not None]
    for axes, (name, band) in zip(grid, bands.items(), strict=False):
        _draw(axes, random, theme.ink, (0, (2, 1.2)))
        _draw(axes, band, theme.colours[0], "-")
        axes.set_title(short(name, theme.letters), color=theme.ink, fontsize=theme.font, parse_math=False)
        axes.set_ylim(*limits(known, analysis))
        _dress(axes, theme)
    for number, axes in enumerate(grid):
        axes.set_visible(number < len(bands))
        axes.tick_params(labelbottom=number + columns >= len(bands))  # the lowest of its column
    figure.supxlabel(f"{axis} labelled", color=theme.ink, fontsize=theme.font)
    figure.supylabel("mean IoU", color=theme.ink, fontsize=theme.font)
    return figure


def shown(analysis: Analysis) -> list[str]:
    """Return the strategies that have a panel, best first."""
    return [standing.strategy for standing in analysis.standings if standing.strategy != RANDOM]


def _draw(axes: Axes, band: Band | None, colour: str, dash: str | tuple[int, tuple[float, float]]) -> None:
    if band is None:
        return
    if band.low is not None and band.high is not None:
        axes.fill_between(band.effort, band.low, band.high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(band.effort, band.mean, color=colour, linestyle=dash, linewidth=1.5, **marker(band))


def _dress(axes: Axes, theme: Theme) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_facecolor(theme.paper)
    axes.grid(visible=True, color=theme.faint, alpha=0.35, linewidth=0.6)
    logarithmic(axes, 4)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.faint)
    axes.tick_params(colors=theme.ink, labelsize=theme.font - 2)
