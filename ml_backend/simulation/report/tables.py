"""The numbers as files: CSV for other programs, Markdown for a page of documentation."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from ml_backend.simulation.report.analysis import MEASURES, Analysis, Standing
from ml_backend.simulation.report.comparison import Ratio
from ml_backend.simulation.report.curves import AXES, Axis
from ml_backend.simulation.report.findings import UNKNOWN, amount, findings, gain, miou, percent, ratio
from ml_backend.simulation.report.statistics import Interval

SHOWN = ((1, 0), (2, 2), (3, 5))
"""Clicks of a point and of an opening whose savings are shown; savings.csv has all."""
SAVED = (
    "Clicks as a share, with 95 % intervals over the seeds: to the target against random images, with the same "
    "training; the same where predicted masks are mended and the random ones are drawn from nothing; until every image "
    "has its mask, against drawing all of them."
)
Cell = str | int | float | None

_TIMES = "\N{MULTIPLICATION SIGN}"

_LEGEND = (
    "In brackets: 95 % intervals over the seeds. Best first. Efforts are geometric means of the seeds that reached the"
    " target, followed by their ratio to random's over the seeds in which both did."
)


def summary_csv(analyses: Iterable[Analysis]) -> str:
    """Return a line for each data set and strategy; a number that is not known is an empty cell."""
    records = [_record(analysis, standing) for analysis in analyses for standing in analysis.standings]
    return _csv(list(records[0]) if records else ["dataset", "strategy"], [list(record.values()) for record in records])


def _record(analysis: Analysis, standing: Standing) -> dict[str, Cell]:
    record: dict[str, Cell] = {"dataset": analysis.dataset, "strategy": standing.strategy, "seeds": standing.seeds}
    for axis in AXES:
        record |= _interval(f"auc_{axis}", standing.area[axis])
    record |= _interval("final_miou", standing.final)
    for column, name in MEASURES.items():
        record |= _interval(f"final_{column}", standing.other.get(name))
    record |= {"target": analysis.target, "target_miou": analysis.target_miou}
    for axis in AXES:
        record |= _effort(standing, axis)
    record |= {
        "seconds_train": standing.seconds.train,
        "seconds_select": standing.seconds.select,
        "runs_per_hour": standing.seconds.runs_per_hour,
    }
    return record


def _interval(name: str, interval: Interval | None) -> dict[str, Cell]:
    if interval is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _effort(standing: Standing, axis: Axis) -> dict[str, Cell]:
    effort = standing.efforts[axis]
    compared = effort.ratio if effort else None
    return {
        f"effort_{axis}": effort.value if effort else None,
        f"effort_{axis}_share": effort.share if effort else None,
        f"effort_{axis}_reached": effort.reached if effort else None,
        f"ratio_{axis}": compared.value if compared else None,
        f"ratio_{axis}_low": compared.low if compared else None,
        f"ratio_{axis}_high": compared.high if compared else None,
        f"ratio_{axis}_seeds": compared.seeds if compared else None,
        f"ratio_{axis}_missed": compared.missed if compared else None,
        f"ratio_{axis}_random_missed": compared.other_missed if compared else None,
    }


def pairs_csv(analyses: Iterable[Analysis]) -> str:
    """Return a line for each data set and pair of strategies, compared in the area on the report's axis."""
    lines: list[list[Cell]] = []
    for analysis in analyses:
        for pair in analysis.pairs:
            names = (analysis.dataset, analysis.axis, pair.first, pair.second)
            difference = _interval("difference", pair.difference).values()
            lines.append([*names, pair.seeds, *difference])
    header = "dataset axis one other seeds difference low high"
    return _csv(header.split(), lines)


def savings_csv(analyses: Iterable[Analysis]) -> str:
    """Return a line for each data set, strategy and tariff; see `savings`."""
    lines: list[list[Cell]] = []
    for analysis in analyses:
        for saving in analysis.savings:
            names = (analysis.dataset, saving.strategy, saving.tariff.point, saving.tariff.opening)
            figures = (saving.training, saving.product, saving.whole)
            lines.append([*names, *(cell for figure in figures for cell in _ratio_cells(figure))])
    header = ["dataset", "strategy", "point_clicks", "opening_clicks"]
    cells = ("", "_low", "_high", "_seeds", "_missed", "_other_missed")
    return _csv([*header, *(f"{name}{cell}" for name in ("training", "product", "whole") for cell in cells)], lines)


def _ratio_cells(compared: Ratio | None) -> list[Cell]:
    if compared is None:
        return [None] * 6
    return [compared.value, compared.low, compared.high, compared.seeds, compared.missed, compared.other_missed]


def _csv(header: Sequence[str], lines: Iterable[Sequence[Cell]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([f"{cell:.6g}" if isinstance(cell, float) else cell for cell in line] for line in lines)
    return text.getvalue()


def summary_markdown(analyses: Iterable[Analysis]) -> str:
    """Return the findings and a table for each data set."""
    return "\n".join(_section(analysis) for analysis in analyses)


def _section(analysis: Analysis) -> str:
    lines = [f"## {escape(analysis.dataset)}", ""]
    lines += [f"- {escape(text)}" for text in findings(analysis)]
    lines += [f"- **Warning:** {escape(text)}" for text in analysis.warnings]
    header = ["strategy", "seeds", f"mean mIoU over {analysis.axis}", "against random", "final mIoU"]
    header += [f"final {name}" for name in analysis.other_measures]
    header += [f"{axis} to {percent(analysis.target)}" for axis in AXES]
    header += ["reached", "s/training", "s/choice"]
    rows = [_cells(analysis, standing) for standing in analysis.standings]
    table = [header, ["---"] * len(header), *rows]
    savings = (
        [SAVED, "", *_table([[escape(row[0]), *row[1:]] for row in saved(analysis)]), ""] if analysis.savings else []
    )
    return "\n".join([*lines, "", *_table(table), "", _LEGEND, "", *savings])


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in rows]


def _saved(figure: Ratio | None) -> str:
    """Return a figure as text, with its seeds where some are not in it."""
    if figure is None:
        return UNKNOWN
    return ratio(figure) if figure.seeds == figure.pairs else f"{ratio(figure)}, {figure.seeds} of {figure.pairs} seeds"


def saved(analysis: Analysis) -> list[list[str]]:
    """Return what each strategy saves as a table: a header, the line below it, a row for each strategy and tariff."""
    header = ["strategy", "a point, an opening", "same training", "the product", "every mask"]
    rows = [
        [
            one.strategy,
            f"{one.tariff.point}, {one.tariff.opening}",
            *(_saved(figure) for figure in (one.training, one.product, one.whole)),
        ]
        for one in sorted(analysis.savings, key=lambda one: one.strategy)
        if (one.tariff.point, one.tariff.opening) in SHOWN
    ]
    return [header, ["---"] * len(header), *rows]


def _cells(analysis: Analysis, standing: Standing) -> list[str]:
    pair = analysis.against_random(standing.strategy)
    main = standing.efforts[analysis.axis]
    return [
        escape(standing.strategy),
        str(standing.seeds),
        miou(standing.area[analysis.axis]),
        gain(pair.lead(standing.strategy)) if pair else UNKNOWN,
        miou(standing.final),
        *(miou(standing.other.get(name)) for name in analysis.other_measures),
        *(_effort_text(standing, axis) for axis in AXES),
        f"{main.reached} of {main.seeds}" if main else UNKNOWN,
        f"{standing.seconds.train:.1f}",
        UNKNOWN if standing.seconds.select is None else f"{standing.seconds.select:.1f}",
    ]


def _effort_text(standing: Standing, axis: Axis) -> str:
    """Return the effort, its share of the whole, and the ratio to random's."""
    effort = standing.efforts[axis]
    if effort is None or effort.value is None:
        return UNKNOWN
    share = "" if effort.share is None else f" ({percent(effort.share)})"
    return f"{amount(effort.value)}{share}" + ("" if effort.ratio is None else f", {_TIMES} {ratio(effort.ratio)}")


def escape(text: str) -> str:
    """Return text for Markdown: without markup of its own, in a single line.

    >>> escape("a|b_c <i>")
    'a\\\\|b\\\\_c &lt;i>'
    """
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    for character in "\\`*_[]|#":
        plain = plain.replace(character, f"\\{character}")
    return plain
