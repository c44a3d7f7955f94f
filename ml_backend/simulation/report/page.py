"""The report as one HTML file: all pictures inside, no script, nothing fetched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from ml_backend.simulation.report import findings as texts
from ml_backend.simulation.report.analysis import Analysis
from ml_backend.simulation.report.comparison import RANDOM
from ml_backend.simulation.report.curves import AXES, Axis
from ml_backend.simulation.report.figures import DARK, HIGHLIGHTED, LIGHT, Theme, curve_svg, description, narrow
from ml_backend.simulation.report.panels import panels_svg, shown
from ml_backend.simulation.report.pictures import Picture, data_address, first_choices
from ml_backend.simulation.report.tables import SAVED, saved


@dataclass(frozen=True)
class Drawn:
    """A picture in four forms, for light and dark, wide and narrow screens."""

    light: str
    dark: str
    light_narrow: str
    dark_narrow: str
    description: str


@dataclass(frozen=True)
class Section:
    """The part of the page on a data set."""

    analysis: Analysis
    findings: Sequence[str]
    curves: Sequence[Drawn]
    panels: Drawn | None
    saved: Sequence[Sequence[str]]
    pictures: Sequence[tuple[str, Sequence[Picture]]]


def render(analyses: Sequence[Analysis], pictures: Path) -> str:
    """Return the page."""
    environment = Environment(
        loader=PackageLoader("ml_backend.simulation.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        {name: getattr(texts, name) for name in ("amount", "gain", "miou", "percent", "ratio")},
        axes=AXES,
        highlighted=HIGHLIGHTED,
        random=RANDOM,
        saved_means=SAVED,
    )
    return environment.get_template("report.html").render(
        sections=[_section(analysis, pictures) for analysis in analyses]
    )


def _section(analysis: Analysis, pictures: Path) -> Section:
    strategies = [standing.strategy for standing in analysis.standings]
    first = [analysis.axis, *(axis for axis in AXES if axis != analysis.axis)]
    return Section(
        analysis=analysis,
        findings=texts.findings(analysis),
        curves=[_drawn(analysis, axis, curve_svg, description(analysis, axis)) for axis in first] if strategies else [],
        panels=_panels(analysis),
        saved=saved(analysis) if analysis.savings else (),
        pictures=first_choices(pictures, analysis.dataset, strategies),
    )


def _panels(analysis: Analysis) -> Drawn | None:
    names = shown(analysis)
    text = f"Mean IoU against {analysis.axis} labelled, each strategy beside random: {', '.join(names)}."
    return _drawn(analysis, analysis.axis, panels_svg, text) if names else None


def _drawn(analysis: Analysis, axis: Axis, draw: Callable[[Analysis, Axis, Theme], bytes], text: str) -> Drawn:
    themes = {
        "light": LIGHT,
        "dark": DARK,
        "light_narrow": narrow(LIGHT),
        "dark_narrow": narrow(DARK),
    }
    drawn = {name: data_address(draw(analysis, axis, theme), "image/svg+xml") for name, theme in themes.items()}
    return Drawn(description=text, **drawn)
