"""The numbers as files: CSV for other programs, Markdown for a page of documentation."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from ml_backend.simulation.report.analysis import MEASURES, Analysis, Standing
from ml_backend.simulation.report.findings import UNKNOWN, amount, findings, gain, miou, p_value, percent, ratio
from ml_backend.simulation.report.statistics import AXES, Axis, Interval

Cell = str | int | float | None

_TIMES = "\N{MULTIPLICATION SIGN}"

_NOTE = (
    "In brackets: 95 % intervals over the seeds. Best first. Efforts are geometric means, followed by their ratio to"
    " random's, paired by seed; \\*: a seed that did not reach the target counts as the whole data set."
)


def summary_csv(analyses: Iterable[Analysis]) -> str:
    """One line for each data set and strategy; empty where something is not known."""
    records = [_record(analysis, one) for analysis in analyses for one in analysis.standings]
    return _csv(list(records[0]) if records else ["dataset", "strategy"], [list(one.values()) for one in records])


def _record(analysis: Analysis, one: Standing) -> dict[str, Cell]:
    record: dict[str, Cell] = {"dataset": analysis.dataset, "strategy": one.strategy, "seeds": one.seeds}
    for axis in AXES:
        record |= _interval(f"auc_{axis}", one.area[axis])
    record |= _interval("final_miou", one.final)
    for column, name in MEASURES.items():
        record |= _interval(f"final_{column}", one.other.get(name))
    record |= {"target": analysis.target, "target_miou": analysis.target_miou}
    for axis in AXES:
        record |= _effort(one, axis)
    record |= {
        "seconds_train": one.seconds.train,
        "seconds_select": one.seconds.select,
        "runs_per_hour": one.seconds.runs_per_hour,
    }
    return record


def _interval(name: str, interval: Interval | None) -> dict[str, Cell]:
    if interval is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _effort(one: Standing, axis: Axis) -> dict[str, Cell]:
    effort = one.efforts[axis]
    found = effort.ratio if effort else None
    return {
        f"effort_{axis}": effort.value if effort else None,
        f"effort_{axis}_share": effort.share if effort else None,
        f"effort_{axis}_reached": effort.reached if effort else None,
        f"ratio_{axis}": found.value if found else None,
        f"ratio_{axis}_low": found.low if found else None,
        f"ratio_{axis}_high": found.high if found else None,
        f"ratio_{axis}_bootstrap_low": found.bootstrap_low if found else None,
        f"ratio_{axis}_bootstrap_high": found.bootstrap_high if found else None,
        f"ratio_{axis}_seeds": found.seeds if found else None,
        f"ratio_{axis}_random_reached": found.random_reached if found else None,
    }


def pairs_csv(analyses: Iterable[Analysis]) -> str:
    """One line for each data set and pair of strategies, compared in the area on the report's axis."""
    lines: list[list[Cell]] = []
    for analysis in analyses:
        for pair in analysis.pairs:
            found = _interval("difference", pair.difference).values()
            tests = (pair.p, pair.p_holm, pair.p_wilcoxon, pair.winner)
            lines.append([analysis.dataset, analysis.axis, pair.one, pair.other, pair.seeds, *found, *tests])
    header = "dataset axis one other seeds difference low high p p_holm p_wilcoxon winner"
    return _csv(header.split(), lines)


def _csv(header: Sequence[str], lines: Iterable[Sequence[Cell]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([f"{cell:.6g}" if isinstance(cell, float) else cell for cell in line] for line in lines)
    return stream.getvalue()


def summary_markdown(analyses: Iterable[Analysis]) -> str:
    """The findings and one table for each data set."""
    return "\n".join(_section(analysis) for analysis in analyses)


def _section(analysis: Analysis) -> str:
    lines = [f"## {escape(analysis.dataset)}", ""]
    lines += [f"- {escape(text)}" for text in findings(analysis)]
    lines += [f"- **Warning:** {escape(text)}" for text in analysis.warnings]
    header = ["strategy", "seeds", f"mean mIoU over {analysis.axis}", "against random", "corrected p", "final mIoU"]
    header += [f"final {name}" for name in analysis.other_measures]
    header += [f"{axis} to {percent(analysis.target)}" for axis in AXES]
    header += ["reached", "s/training", "s/choice"]
    rows = [_cells(analysis, one) for one in analysis.standings]
    table = [header, ["---"] * len(header), *rows]
    return "\n".join([*lines, "", *(f"| {' | '.join(row)} |" for row in table), "", _NOTE, ""])


def _cells(analysis: Analysis, one: Standing) -> list[str]:
    pair = analysis.against_random(one.strategy)
    main = one.efforts[analysis.axis]
    return [
        escape(one.strategy),
        str(one.seeds),
        miou(one.area[analysis.axis]),
        gain(pair.lead(one.strategy)) if pair else UNKNOWN,
        p_value(pair.p_holm) if pair else UNKNOWN,
        miou(one.final),
        *(miou(one.other.get(name)) for name in analysis.other_measures),
        *(_effort_text(one, axis) for axis in AXES),
        f"{main.reached} of {main.seeds}" if main else UNKNOWN,
        f"{one.seconds.train:.1f}",
        UNKNOWN if one.seconds.select is None else f"{one.seconds.select:.1f}",
    ]


def _effort_text(one: Standing, axis: Axis) -> str:
    """Effort, its share of the whole, and the ratio to random's in one cell."""
    effort = one.efforts[axis]
    if effort is None:
        return UNKNOWN
    share = "" if effort.share is None else f" ({percent(effort.share)})"
    missed = "" if effort.reached == effort.seeds else r"\*"
    return f"{amount(effort.value)}{missed}{share}" + (
        "" if effort.ratio is None else f", {_TIMES} {ratio(effort.ratio)}"
    )


def escape(text: str) -> str:
    """Text as it is, in Markdown: no markup of its own, in one line.

    >>> escape("a|b_c <i>")
    'a\\\\|b\\\\_c &lt;i>'
    """
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    for character in "\\`*_[]|#":
        plain = plain.replace(character, f"\\{character}")
    return plain
