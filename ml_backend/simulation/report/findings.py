"""The numbers of a data set in sentences; nothing is claimed that chance can explain."""

from __future__ import annotations

from ml_backend.simulation.contrasts import Contrast
from ml_backend.simulation.report.analysis import Analysis
from ml_backend.simulation.report.comparison import RANDOM, Ratio
from ml_backend.simulation.report.statistics import LEVEL, Interval
from ml_backend.simulation.report.verdicts import Verdict

UNKNOWN = "\N{EN DASH}"
"""In place of a number that is not known."""
_UNNAMED = (
    "Nothing is tested: no comparison was named before the run (--contrasts FILE). Differences and intervals describe "
    "these runs; the largest of many is large by chance."
)


def findings(analysis: Analysis) -> list[str]:
    """Return the findings, the most important first."""
    sentences = [verdict_text(verdict, analysis) for verdict in analysis.verdicts] or [_UNNAMED]
    if analysis.reference is None:
        sentences.append(
            "There is no reference yet: efforts to reach a target can be given once training on all labels is done."
        )
    elif analysis.target_miou is not None:
        sentences.append(
            f"Training on all labels reaches a mean mIoU of {miou(analysis.reference.miou)};"
            f" {percent(analysis.target)} of that is {analysis.target_miou:.3f}."
        )
    return sentences + _described(analysis)


def verdict_text(verdict: Verdict, analysis: Analysis) -> str:
    """Return what came of a contrast, with all that it takes to judge it."""
    contrast = verdict.contrast
    names = f"{contrast.strategy} against {contrast.against}"
    if not verdict.is_decided:
        return (
            f"{names} is not decided yet: {verdict.finished} of {len(contrast.seeds)} seeds are finished, and no part "
            "of them is tested."
        )
    if contrast.measure == "whole":
        text = f"{contrast.strategy}, {analysis.axis} until every image has its mask: {_ratio(verdict)} of drawing all"
    elif contrast.measure == "area":
        text = f"{names}, mean mIoU over the logarithm of {analysis.axis}: {gain(verdict.lead)}"
    elif verdict.ratio is None:
        return f"{names}: no seed reached {percent(analysis.target)} of full data with both, so no ratio can be given."
    else:
        text = f"{names}, {analysis.axis} to {percent(analysis.target)} of full data: {ratio(verdict.ratio)}"
        text += f" of its {analysis.axis}, {_missed(verdict.ratio, contrast.strategy, contrast.against)}"
    text += _charged(contrast)
    return f"{text}; p {p_value(verdict.p)}, corrected {p_value(verdict.p_corrected)}. {_judged(verdict)}"


def _charged(contrast: Contrast) -> str:
    """Say what is charged where it is not as in the run."""
    said = [f"{contrast.strategy} mends predicted masks"] if contrast.measure == "product" else []
    if contrast.point_clicks is not None:
        said.append(f"a point counts {contrast.point_clicks}")
    if contrast.opening_clicks is not None:
        said.append(f"opening an image {contrast.opening_clicks}")
    return f" ({', '.join(said)})" if said else ""


def _ratio(verdict: Verdict) -> str:
    return UNKNOWN if verdict.ratio is None else ratio(verdict.ratio)


def _missed(compared: Ratio, strategy: str, other: str) -> str:
    seeds = f"over {compared.seeds} of {compared.pairs} seeds"
    if not compared.missed and not compared.other_missed:
        return seeds
    return f"{seeds}; {strategy} missed it in {compared.missed}, {other} in {compared.other_missed}"


def _judged(verdict: Verdict) -> str:
    if verdict.better is not None:
        return f"{verdict.better} is better beyond chance."
    if verdict.p_corrected is not None and verdict.p_corrected < LEVEL:
        return "Where both reached it the difference is more than chance, but the one ahead missed it more often."
    return "The two cannot be told apart."


def _described(analysis: Analysis) -> list[str]:
    """Say what has the highest mean; it is a description, whatever its interval."""
    if RANDOM not in analysis.curves:
        return [f"No comparison with random labelling: the results hold no strategy “{RANDOM}”."]
    if len(analysis.standings) == 1:
        return ["There is no strategy to compare with random labelling yet."]
    best = analysis.standings[0]
    pair = analysis.against_random(best.strategy)
    if best.strategy == RANDOM or pair is None or pair.difference is None:
        return []
    lead = gain(pair.lead(best.strategy))
    return [f"The highest mean of {len(analysis.standings)} has {best.strategy}, {lead} mIoU against random."]


# -- numbers as text ---------------------------------------------------------------------------------------------------
def percent(share: float) -> str:
    """A share as text, whose two parts are not parted by a line break.

    >>> percent(0.95), percent(0.1557)
    ('95\\xa0%', '15.6\\xa0%')
    """
    return f"{100 * share:.1f}".removesuffix(".0") + "\N{NO-BREAK SPACE}%"


def amount(value: float) -> str:
    """A number of images, pixels or clicks as text.

    >>> amount(12_345.4), amount(2_500_000)
    ('12,345', '2.50 M')
    """
    return f"{value / 1e6:.2f} M" if value >= 1e6 else f"{value:,.0f}"


def miou(interval: Interval | None) -> str:
    """A mean with its interval as text."""
    if interval is None:
        return UNKNOWN
    if interval.low is None or interval.high is None:
        return f"{interval.mean:.3f} (one seed)"
    return f"{interval.mean:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def gain(lead: Interval | None) -> str:
    """What a strategy is ahead by, with the interval, as text.

    >>> gain(Interval(-0.0123, -0.02, -0.005, 5))
    '-0.012 (-0.020 to -0.005)'
    """
    if lead is None:
        return UNKNOWN
    if lead.low is None or lead.high is None:
        return f"{lead.mean:+.3f}"
    return f"{lead.mean:+.3f} ({lead.low:+.3f} to {lead.high:+.3f})"


def ratio(compared: Ratio) -> str:
    """A ratio with its interval as text."""
    if compared.low is None or compared.high is None:
        return f"{compared.value:.2f} (one seed)"
    return f"{compared.value:.2f} ({compared.low:.2f} to {_bounded(compared.high)})"


def _bounded(value: float) -> str:
    return "over 100" if value > 100 else f"{value:.2f}"


def p_value(value: float | None) -> str:
    """A p as text.

    >>> p_value(0.0123), p_value(0.00001)
    ('0.012', '< 0.001')
    """
    if value is None:
        return UNKNOWN
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"
