"""The report of a simulation: what it claims, what it warns of, and that it stands on its own."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import math
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image
from simulated_rows import SETTINGS, row, simulated

from ml_backend.errors import ConfigurationError
from ml_backend.simulation.contrasts import CONTRASTS, Contrast
from ml_backend.simulation.report import figures, write_report
from ml_backend.simulation.report.analysis import Analysis, EffortSummary, Seconds, analyse
from ml_backend.simulation.report.curves import mean_curve
from ml_backend.simulation.report.findings import findings
from ml_backend.simulation.report.names import file_name, short
from ml_backend.simulation.report.panels import panels_figure
from ml_backend.simulation.results import FULL, Row

EFFECTS = {"random": 0.0, "cereals": 1.0, "entropy": 0.0}
STRANGE = '$\\frac{$ a/../<script>alert("1")</script> | & "\x07\n名'


class Page(HTMLParser):
    """Elements, text, and whether every element that must be closed is."""

    _EMPTY = frozenset({"meta", "img", "source", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in self._EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(autouse=True)
def _small_pictures(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Leave the drawing out, which takes the time, where a test does not ask for it."""
    if "drawn" not in request.fixturenames:
        for name in ("curve_svg", "panels_svg"):
            monkeypatch.setattr(f"ml_backend.simulation.report.page.{name}", lambda *_: b"<svg/>")
        monkeypatch.setattr("ml_backend.simulation.report.curve_files", lambda _: {})


@pytest.fixture
def drawn() -> None:
    """Draw the curves in earnest."""


def page(rows: Sequence[Row], folder: Path, **options: object) -> Page:
    written = write_report(rows, folder, **options)  # type: ignore[arg-type]
    assert written == folder / "report.html"
    text = written.read_text(encoding="utf-8")
    found = Page(text)
    assert not found.open
    for name in ("report.html", "summary.csv", "summary.md", "pairs.csv", "savings.csv"):
        assert not re.search(r"\bnan\b|\binf\b|\bNone\b", (folder / name).read_text(encoding="utf-8")), name
    return found


def one(rows: Sequence[Row], **options: object) -> Analysis:
    (found,) = analyse(rows, **{"target": 0.95, "axis": "clicks", **options})  # type: ignore[arg-type]
    return found


# -- what is written -------------------------------------------------------------------------------------------------
def test_all_files_are_written_and_the_pictures_are_valid(tmp_path: Path, drawn: None) -> None:
    rows = simulated(EFFECTS, seeds=range(3), rounds=4) + simulated(
        EFFECTS, dataset="cam vid", seeds=range(2), rounds=3
    )
    found = page(rows, tmp_path)
    stems = [
        f"curves-{name}-{axis}" for name in ("glas", file_name("cam vid")) for axis in ("images", "pixels", "clicks")
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["report.html", "summary.csv", "summary.md", "pairs.csv", "savings.csv"]
        + [f"{stem}.{kind}" for stem in stems for kind in ("png", "svg")]
    )
    for stem in stems:
        with Image.open(tmp_path / f"{stem}.png") as picture:
            picture.verify()
            assert picture.width > 800
        root = ElementTree.parse(tmp_path / f"{stem}.svg").getroot()
        assert root.tag.endswith("svg")
    # each picture in a light and a dark form, for wide and for narrow screens
    # each data set's three curves, and its panels
    assert len(found.all("img")) == 8
    assert len(found.all("source")) == 24
    assert all(source["srcset"].startswith("data:image/svg+xml;base64,") for source in found.all("source"))
    assert all(image["alt"].startswith("Mean IoU against") for image in found.all("img"))


def test_pictures_of_the_same_numbers_are_the_same(drawn: None) -> None:
    analysis = one(simulated(EFFECTS, seeds=range(2), rounds=3))
    first, again = (figures.curve_svg(analysis, "clicks", figures.LIGHT) for _ in range(2))
    assert first == again
    assert first != figures.curve_svg(analysis, "clicks", figures.DARK)


def test_drawing_leaves_matplotlib_as_it_was(drawn: None) -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    figures.curve_files(one(simulated(EFFECTS, seeds=range(2), rounds=2)))
    assert dict(mpl.rcParams) == before


def test_the_page_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    found = page(simulated(EFFECTS), tmp_path)
    for tag, attributes in found.elements:
        for name in ("src", "href", "srcset", "data", "action"):
            assert attributes.get(name, "#").startswith(("data:", "#")), (tag, name)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in found.elements}
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "@import" not in text
    assert "url(" not in text
    assert "default-src 'none'" in text


def test_tables_have_headers(tmp_path: Path) -> None:
    found = page(simulated(EFFECTS), tmp_path)
    assert len(found.all("table")) == 3
    assert all(header.get("scope") in ("row", "col") for header in found.all("th"))
    assert all({"aria-label", "tabindex"} <= div.keys() for div in found.all("div") if div.get("class") == "scroll")


def test_names_may_hold_anything(tmp_path: Path, drawn: None) -> None:
    rows = simulated({"random": 0.0, STRANGE: 1.0, "": 0.2}, dataset=STRANGE, seeds=range(2), rounds=2)
    folder = tmp_path / "out"
    found = page(rows, folder)
    assert "script" not in {tag for tag, _ in found.elements}
    assert '<script>alert("1")</script>' in found.text
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    for path in folder.glob("*.svg"):
        ElementTree.parse(path)
    read = list(csv.DictReader(io.StringIO((folder / "summary.csv").read_text(encoding="utf-8"), newline="")))
    assert {line["strategy"] for line in read} == {"random", STRANGE, ""}
    tables = [line for line in (folder / "summary.md").read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in tables}) == 1
    assert "<script>" not in "".join(tables)


def test_file_names_stay_in_their_folder_and_apart() -> None:
    names = ["glas", "..", ".", "", "a/b", "a_b", "a b", "/etc/passwd", "x" * 300, "x" * 301, "名"]
    files = [file_name(name) for name in names]
    assert len(set(files)) == len(files)
    assert files[0] == "glas"
    assert files[5] == "a_b"
    for file in files:
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", file)


def test_pictures_of_what_was_chosen(tmp_path: Path) -> None:
    rows = simulated(EFFECTS, dataset="cam vid", seeds=range(2), rounds=2)
    folder = tmp_path / "pictures" / file_name("cam vid") / "cereals"
    folder.mkdir(parents=True)
    for number in range(12):
        Image.new("RGB", (600, 400), (number, 0, 0)).save(folder / f"{number:02}.png")
    (folder / "03.png").write_bytes((folder / "03.png").read_bytes()[:60])  # is being written
    (folder / "04.png").write_bytes(b"")
    found = page(rows, tmp_path)
    chosen = [image for image in found.all("img") if image["alt"].startswith("Choice")]
    assert [image["alt"] for image in chosen] == [f"Choice {number} of cereals" for number in (1, 2, 3, 6, 7, 8)]
    assert all(image["src"].startswith("data:image/png;base64,") for image in chosen)
    assert "chose first" in found.text
    assert "chose first" not in page(rows, tmp_path / "other").text


def test_summary_holds_the_numbers(tmp_path: Path) -> None:
    rows = [row(FULL, seed, 0, 0.8, images=100, pixels=10_000, clicks=10_000.0) for seed in range(2)]
    for seed in range(2):
        rows += [row("random", seed, n, miou, clicks=10.0 ** (n + 1)) for n, miou in enumerate((0.4, 0.6, 0.8))]
        rows += [row("quick", seed, n, miou, clicks=10.0 ** (n + 1)) for n, miou in enumerate((0.4, 0.8, 0.8))]
    page(rows, tmp_path, target=0.75)
    read = {line["strategy"]: line for line in csv.DictReader((tmp_path / "summary.csv").open(encoding="utf-8"))}
    quick = read["quick"]
    assert (quick["seeds"], quick["auc_clicks"], quick["final_miou"]) == ("2", "0.7", "0.8")
    assert (quick["target"], quick["target_miou"], quick["effort_clicks"]) == ("0.75", "0.6", "31.6228")
    assert (quick["effort_clicks_share"], quick["effort_clicks_reached"], quick["ratio_clicks"]) == (
        "0.00316228",
        "2",
        "0.316228",
    )
    assert (quick["ratio_clicks_missed"], quick["ratio_clicks_random_missed"]) == ("0", "0")
    assert (read["random"]["effort_clicks"], read["random"]["ratio_clicks"]) == ("100", "")
    (pair,) = csv.DictReader((tmp_path / "pairs.csv").open(encoding="utf-8"))
    assert (pair["one"], pair["other"], pair["difference"], pair["seeds"]) == ("quick", "random", "0.1", "2")
    assert "p" not in pair


# -- what is claimed -------------------------------------------------------------------------------------------------
NAMED = Contrast("glas", "cereals", "random", "effort", tuple(range(5)), rounds=8)


def claimed(rows: Sequence[Row], *contrasts: Contrast) -> list[str]:
    (found,) = analyse(rows, 0.95, "clicks", contrasts)
    return findings(found)


def test_what_was_named_is_tested_and_stands_first(tmp_path: Path) -> None:
    rows = simulated({**EFFECTS, "vaal": -1.0}, rounds=9)
    named = [NAMED, dataclasses.replace(NAMED, measure="area")]
    first, second, *_ = claimed(rows, *named)
    assert re.fullmatch(
        r"cereals against random, clicks to 95\xa0% of full data: 0\.\d\d \(0\.\d\d to 0\.\d\d\) of its clicks, "
        r"over 5 of 5 seeds; p .*, corrected .*\. cereals is better beyond chance\.",
        first,
    )
    assert re.fullmatch(
        r"cereals against random, mean mIoU over the logarithm of clicks: \+0\.\d+ \(.*\); p .*\. cereals is better .*",
        second,
    )
    (tmp_path / CONTRASTS).write_text(
        '[[contrast]]\ndataset = "glas"\nstrategy = "cereals"\nagainst = "random"\nmeasure = "effort"\nseeds = "5"\n'
        "rounds = 8\n"
    )
    text = page(rows, tmp_path).text
    assert "cereals is better beyond chance." in text
    assert "vaal is" not in text  # it is worse, and nobody had asked


def test_nothing_is_claimed_that_was_not_named(tmp_path: Path) -> None:
    """However large: of many differences one is large by chance."""
    rows = simulated({**EFFECTS, "vaal": -1.0}, rounds=9)
    found = claimed(rows)
    assert found[0].startswith("Nothing is tested: no comparison was named before the run (--contrasts FILE).")
    assert "The highest mean of 4 has cereals, +0." in found[-1]
    assert "beyond chance" not in page(rows, tmp_path).text
    assert not re.search(r"\bp ?(<|=|0)", page(rows, tmp_path).text)


def test_chance_is_called_chance() -> None:
    found = claimed(simulated(dict.fromkeys(("random", "cereals", "b"), 0.0), rounds=9, draw=2), NAMED)
    assert found[0].endswith("The two cannot be told apart.")


def test_a_part_of_the_seeds_is_not_tested() -> None:
    rows = [one for one in simulated(EFFECTS, rounds=9) if one.seed < 4]
    assert claimed(rows, NAMED)[0] == (
        "cereals against random is not decided yet: 4 of 5 seeds are finished, and no part of them is tested."
    )


def test_misses_are_told_and_nothing_stands_for_them(tmp_path: Path) -> None:
    rows = simulated({"random": 0.0, "cereals": 1.2}, rounds=5)
    found = claimed(rows, dataclasses.replace(NAMED, rounds=4))
    assert found[0] == (
        "cereals against random: no seed reached 95\xa0% of full data with both, so no ratio can be given."
    )
    (analysis,) = analyse(rows, 0.95, "clicks")
    efforts = {standing.strategy: standing.efforts["clicks"] for standing in analysis.standings}
    assert efforts["random"] == EffortSummary(None, None, 0, 5, None)
    assert efforts["cereals"] is not None
    assert efforts["cereals"].ratio is None
    text = page(rows, tmp_path).text
    assert "0 of 5" in text
    lines = list(csv.DictReader((tmp_path / "summary.csv").open(encoding="utf-8")))
    assert {line["strategy"]: line["effort_clicks"] for line in lines}["random"] == ""


def test_a_miss_in_some_seeds_is_said_with_the_ratio() -> None:
    rows = [
        dataclasses.replace(one, miou=min(one.miou, 0.7)) if (one.strategy, one.seed) == ("random", 2) else one
        for one in simulated(EFFECTS, rounds=9)
    ]
    assert "over 4 of 5 seeds; cereals missed it in 0, random in 1; p " in claimed(rows, NAMED)[0]


def test_seconds_and_runs_per_hour() -> None:
    rows = [
        row("s", seed, number, 0.5, seconds_train=40.0, seconds_select=20.0 if number else 0.0)
        for seed, rounds in enumerate((4, 4, 1))
        for number in range(rounds)
    ]
    (analysis,) = analyse(rows, 0.95, "clicks")
    # a run of four rounds takes 4 * 40 + 3 * 20 = 220 s
    assert analysis.standings[0].seconds == Seconds(40, 20, pytest.approx(3600 / 220))
    (first,) = analyse([row("s", 0, 0, 0.5, seconds_train=0.0)], 0.95, "clicks")
    assert first.standings[0].seconds == Seconds(0, None, None)


# -- while a simulation runs -------------------------------------------------------------------------------------------
def test_no_rows_is_an_error_that_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nextmask simulate"):
        write_report([], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("target", [0, 1.2, math.nan])
def test_targets_that_are_no_share(tmp_path: Path, target: float) -> None:
    with pytest.raises(ConfigurationError):
        write_report(simulated(EFFECTS), tmp_path, target=target)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (simulated(EFFECTS, full=False), "There is no reference yet"),
        (simulated({"cereals": 1.0, "entropy": 0.0}), "No comparison with random labelling"),
        (simulated({"random": 0.0}), "There is no strategy to compare with random"),
        (simulated(EFFECTS, rounds=1), "Nothing is tested"),
        (simulated(EFFECTS, seeds=[3]), "Nothing is tested"),
        (simulated({}, seeds=range(2)), "No strategy has a row yet"),
        (simulated(EFFECTS)[:1], "There is no strategy to compare with random"),
        (simulated(EFFECTS, full=False, seeds=[0])[:8], "Not finished, and so not compared: cereals, seed 0."),
    ],
)
def test_a_report_of_what_there_is(tmp_path: Path, rows: list[Row], expected: str, drawn: None) -> None:
    assert expected in page(rows, tmp_path).text


def test_every_prefix_of_a_results_file_makes_a_report(tmp_path: Path) -> None:
    rows = simulated(EFFECTS, seeds=range(2), rounds=3)
    for count in range(1, len(rows) + 1):
        page(rows[:count], tmp_path)


def test_unfinished_runs_are_named_and_not_compared() -> None:
    rows = [r for r in simulated(EFFECTS) if not (r.strategy == "cereals" and r.seed == 4 and r.round > 2)]
    analysis = one(rows)
    assert "Not finished, and so not compared: cereals, seed 4." in analysis.warnings
    assert "Seeds that others have are missing; pairs compare the common ones: cereals (4)." in analysis.warnings
    assert {standing.strategy: standing.seeds for standing in analysis.standings} == {
        "cereals": 4,
        "random": 5,
        "entropy": 5,
    }
    pair = analysis.against_random("cereals")
    assert pair is not None
    assert pair.seeds == 4


def test_mixed_settings_and_commits_are_listed(tmp_path: Path) -> None:
    other = json.dumps({**json.loads(SETTINGS), "iterations": 10, "augment": True})
    rows = [
        *simulated({"random": 0.0}, seeds=range(2)),
        row("new", 0, 0, 0.5, settings=other, commit="fff+"),
        row("old", 0, 0, 0.5, settings="no JSON", commit=""),
    ]
    text = page(rows, tmp_path).text
    assert "Rows of 3 different settings (14, 1, 1 rows) are compared with each other." in text
    assert "augment: not set, true; iterations: 1500, 10, not set;" in text
    assert (
        "Rows of 3 different commits are compared with each other: 0123abc (14 rows), fff+ (1 rows), unknown (1 rows)."
        in text
    )
    assert "changes that were not committed" in text


def test_one_setting_and_one_commit_are_nothing_to_warn_of() -> None:
    analysis = one(simulated(EFFECTS))
    assert analysis.warnings == []
    assert dict(analysis.settings)["network"] == "unet"
    assert list(analysis.commits) == ["0123abc"]


def test_rows_without_numbers_are_counted(tmp_path: Path) -> None:
    rows = [*simulated(EFFECTS), row("entropy", 9, 0, math.nan)]
    assert f"1 of {len(rows)} rows hold no number as mIoU or clicks, and are left out." in page(rows, tmp_path).text
    assert "No strategy has a row yet" in page([row("entropy", 9, 0, math.nan)], tmp_path).text


# -- intervals ---------------------------------------------------------------------------------------------------------
DOZEN = {"random": 0.0, **{f"method_{number:02}": 0.05 * number for number in range(12)}}


def test_intervals_of_a_dozen_strategies_do_not_flood_the_curves(drawn: None) -> None:
    """Bands of many curves hide each other: the overview has a bar where each coloured curve ends, and nothing else."""
    analysis = one(simulated(DOZEN, seeds=range(3), noise=0.02))
    (axes, *_) = figures.curve_figure(analysis, "clicks", figures.LIGHT).axes
    assert not axes.collections
    bars = [line for line in axes.lines if line.get_marker() == "_"]
    coloured = ["random", *figures.highlighted(analysis)]
    assert {line.get_color() for line in bars} == {figures.LIGHT.ink, *figures.LIGHT.colours}
    assert len(bars) == len(coloured) == 5
    ends = {name: mean_curve(analysis.curves[name], "clicks") for name in coloured}
    expected = {(round(float(band.low[-1]), 9), round(float(band.high[-1]), 9)) for band in ends.values()}
    assert {tuple(round(float(end), 9) for end in line.get_ydata()) for line in bars} == expected
    low, high = axes.get_ylim()
    means = [value for band in ends.values() for value in band.mean]
    assert low < min(means) <= max(means) < high
    drawn_at = {round(line.get_transform().transform((line.get_xdata()[0], 0))[0]) for line in bars}
    assert len(drawn_at) == len(bars)  # side by side, although all curves end together


def test_each_strategy_has_a_panel_with_its_band_beside_random(drawn: None) -> None:
    analysis = one(simulated(DOZEN, seeds=range(3)))
    for theme in (figures.LIGHT, figures.narrow(figures.DARK)):
        used = [axes for axes in panels_figure(analysis, "clicks", theme).axes if axes.get_visible()]
        names = [standing.strategy for standing in analysis.standings if standing.strategy != "random"]
        assert [axes.get_title() for axes in used] == [short(name, theme.letters) for name in names]
        assert all(len(axes.collections) == len(axes.lines) == 2 for axes in used)
        assert len({axes.get_ylim() for axes in used}) == len({axes.get_xlim() for axes in used}) == 1


def test_a_single_seed_has_no_interval(drawn: None) -> None:
    analysis = one(simulated(DOZEN, seeds=range(1)))
    (axes, *_) = figures.curve_figure(analysis, "clicks", figures.LIGHT).axes
    assert not [line for line in axes.lines if line.get_marker() == "_"]
    assert not any(axes.collections for axes in panels_figure(analysis, "clicks", figures.LIGHT).axes)


def test_wide_intervals_do_not_flatten_the_curves(drawn: None) -> None:
    """Two seeds have intervals of twelve times their deviation."""
    analysis = one(simulated(EFFECTS, seeds=range(2), noise=0.2))
    bands = [mean_curve(curves, "clicks") for curves in analysis.curves.values()]
    assert max(float((band.high - band.low)[-1]) for band in bands) > 0.3
    low, high = figures.limits(bands, analysis)
    values = [float(value) for band in bands for value in band.mean] + [analysis.reference.miou.mean]
    assert high - low < 2.3 * (max(values) - min(values))
    assert 0 <= low < high <= 1


# -- labels ------------------------------------------------------------------------------------------------------------
def test_the_best_and_the_default_strategy_are_in_colour() -> None:
    names = ("random", "entropy", "margin", "coreset", "density", "std", "auto")
    effects = {name: 0.6 - 0.1 * place for place, name in enumerate(names)}
    (found,) = analyse(simulated(effects, noise=1e-4), 0.95, "clicks")
    assert [one.strategy for one in found.standings][-1] == "auto"
    assert figures.highlighted(found) == ["entropy", "margin", "coreset", "auto"]
    (without,) = analyse(simulated({name: effects[name] for name in names[:-1]}, noise=1e-4), 0.95, "clicks")
    assert figures.highlighted(without) == ["entropy", "margin", "coreset", "density"]


def test_labels_do_not_overlap_and_stay_inside() -> None:
    wanted = [0.99, 0.98, 0.98, 0.5, 0.02, 0.01]
    places = figures.spread(wanted, 0.05)
    heights = sorted(places)
    assert min(b - a for a, b in itertools.pairwise(heights)) >= 0.05 - 1e-9
    assert heights[0] >= 0
    assert heights[-1] <= 1
    assert places[3] == 0.5
    assert figures.spread([], 0.05) == []
