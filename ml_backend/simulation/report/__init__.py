"""A simulation's results as a page.

`charges` says what clicks are counted; `curves`, `statistics`, `comparison` and `savings` are the formulas, `verdicts`
the tests, `analysis` gathers the numbers, `findings` puts them into sentences, `figures` draws the curves, `tables`
writes files for other tools, `pictures` reads what was chosen first, and `page` puts all into a single file that needs
no network.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from ml_backend.errors import ConfigurationError
from ml_backend.simulation.contrasts import CONTRASTS
from ml_backend.simulation.contrasts import read as read_contrasts
from ml_backend.simulation.report import tables
from ml_backend.simulation.report.analysis import analyse
from ml_backend.simulation.report.curves import Axis
from ml_backend.simulation.report.figures import curve_files
from ml_backend.simulation.report.page import render
from ml_backend.simulation.results import Row

AXIS: Final[Axis] = "clicks"
"""What strategies are compared and ordered by."""


def check_installed() -> None:
    """Check that a report can be drawn here.

    Raises:
        ConfigurationError: the package that draws the curves is not installed; the message says how to get it.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigurationError(
            "The report's curves are drawn by matplotlib, which is not installed: pip install 'nextmask[simulation]'. "
            "With --no-report the simulation does without, and nextmask simulate --out FOLDER makes the report later."
        )


def write_report(rows: Iterable[Row], folder: Path, *, target: float = 0.95) -> Path:
    """Write report.html, summary.csv, summary.md, pairs.csv, savings.csv and the curves, also while a simulation runs.

    What was named before the run, in the folder's contrasts.toml, is tested, and nothing else.

    Args:
        rows: of any number of data sets.
        folder: made if need be; files of an earlier report are replaced. What was chosen first is read from its
            `pictures/<dataset>/<strategy>/<nn>.png`, with names as `names.file_name` gives them; a page without
            pictures has no such section.
        target: share of the mean mIoU of "full" that efforts are measured for, in (0, 1].

    Returns:
        The path of report.html.

    Raises:
        ConfigurationError: there are no rows, the target is out of range, or the contrasts cannot be read.
    """
    if not 0 < target <= 1:
        raise ConfigurationError(f"the target is a share of the full data's mIoU, above 0 and up to 1; got {target}")
    analyses = analyse(list(rows), target, AXIS, read_contrasts(folder / CONTRASTS))
    if not analyses:
        raise ConfigurationError(
            "there are no results to report yet: run `nextmask simulate` first, and give its folder here"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for analysis in analyses:
        for name, content in curve_files(analysis).items():
            (folder / name).write_bytes(content)
    texts = {
        "summary.csv": tables.summary_csv(analyses),
        "pairs.csv": tables.pairs_csv(analyses),
        "savings.csv": tables.savings_csv(analyses),
        "summary.md": tables.summary_markdown(analyses),
        "report.html": render(analyses, folder / "pictures"),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    return folder / "report.html"
