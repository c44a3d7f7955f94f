"""The numbers of a data set in sentences; nothing is claimed that chance can explain."""

from __future__ import annotations

from collections.abc import Sequence

from ml_backend.simulation.report.analysis import Analysis, EffortSummary, Standing
from ml_backend.simulation.report.comparison import RANDOM, Ratio
from ml_backend.simulation.report.statistics import Interval

UNKNOWN = "\N{EN DASH}"
"""In place of a number that is not known."""


def findings(analysis: Analysis) -> list[str]:
    """Return the findings, the most important first."""
    sentences = _against_random(analysis)
    if analysis.reference is None:
        sentences.append(
            "There is no reference yet: efforts to reach a target can be given once training on all labels is done."
        )
    elif analysis.target_miou is not None:
        sentences.append(
            f"Training on all labels reaches a mean mIoU of {miou(analysis.reference.miou)};"
            f" {percent(analysis.target)} of that is {analysis.target_miou:.3f}."
        )
    return sentences


def _against_random(analysis: Analysis) -> list[str]:
    names = [standing.strategy for standing in analysis.standings]
    if RANDOM not in names:
        return [f"No comparison with random labelling: the results hold no strategy “{RANDOM}”."]
    if len(names) == 1:
        return ["There is no strategy to compare with random labelling yet."]
    tested = [pair for pair in analysis.pairs if RANDOM in (pair.first, pair.second) and pair.p_holm is not None]
    if not tested:
        return [
            "No strategy can be told from random yet: that takes finished runs of two seeds or more, over a common"
            f" range of {analysis.axis}."
        ]
    winners = [standing for standing in analysis.standings if _winner(analysis, standing) not in (None, RANDOM)]
    losers = [
        standing
        for standing in analysis.standings
        if standing.strategy != RANDOM and _winner(analysis, standing) == RANDOM
    ]
    sentences = _nobody(analysis)
    if winners:
        sentences = [_some_won(winners, len(names) - 1), *(_won(analysis, standing) for standing in winners)]
    if losers:
        sentences.append(f"Worse than random beyond chance: {', '.join(standing.strategy for standing in losers)}.")
    return sentences + _flattered(analysis)


def _winner(analysis: Analysis, standing: Standing) -> str | None:
    pair = analysis.against_random(standing.strategy)
    return pair.winner if pair else None


def _some_won(winners: Sequence[Standing], strategies: int) -> str:
    names = ", ".join(standing.strategy for standing in winners)
    verb = "beats" if len(winners) == 1 else "beat"
    return f"{len(winners)} of {strategies} strategies {verb} random beyond chance: {names}."


def _won(analysis: Analysis, standing: Standing) -> str:
    pair = analysis.against_random(standing.strategy)
    lead, p = (pair.lead(standing.strategy), pair.p_holm) if pair else (None, None)
    text = (
        f"{standing.strategy} is ahead by {gain(lead)} mIoU on average over the {analysis.axis} spent"
        f" ({lead.seeds if lead else 0} seeds, corrected p {p_value(p)})."
    )
    effort = standing.efforts[analysis.axis]
    return text if effort is None else f"{text} {_saving(analysis, effort)}"


def _saving(analysis: Analysis, effort: EffortSummary) -> str:
    goal = f"{percent(analysis.target)} of full data"
    reached = f"{effort.reached} of {effort.seeds} seeds reached it"
    if effort.ratio is None:
        return f"For {goal} no ratio can be given; {reached}."
    return f"It needs {ratio(effort.ratio)} of random's {analysis.axis} for {goal}; {reached}."


def _flattered(analysis: Analysis) -> list[str]:
    """Say that random's effort is put too high where it did not reach the target before the simulation ended."""
    random = next(
        (standing.efforts[analysis.axis] for standing in analysis.standings if standing.strategy == RANDOM), None
    )
    if random is None or random.reached == random.seeds:
        return []
    return [
        f"Random reached {percent(analysis.target)} of full data in {random.reached} of {random.seeds} seeds. The"
        " others count as the whole data set, which may be too much: ratios to random are flattering. More rounds"
        " would tell."
    ]


def _nobody(analysis: Analysis) -> list[str]:
    pairs = [pair for pair in analysis.pairs if pair.p_holm is not None]
    seeds = sorted({pair.seeds for pair in pairs})
    how_many = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    count = "one pair" if len(pairs) == 1 else f"Holm-corrected over {len(pairs)} pairs"
    sentences = [f"No strategy beats random beyond chance (paired t-tests over {how_many} seeds, {count})."]
    best = analysis.standings[0]
    pair = analysis.against_random(best.strategy)
    if best.strategy != RANDOM and pair is not None:
        lead = gain(pair.lead(best.strategy))
        sentences.append(f"The highest mean has {best.strategy}, {lead} mIoU against random: it may be chance.")
    return sentences


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
