"""What a team saves: rows charged anew, and the three figures, by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from simulated_rows import row

from ml_backend.simulation.contrasts import Contrast
from ml_backend.simulation.report import write_report
from ml_backend.simulation.report.analysis import analyse
from ml_backend.simulation.report.charges import charged, tariff_of, to_finish
from ml_backend.simulation.report.findings import verdict_text
from ml_backend.simulation.report.savings import Saving, savings_of
from ml_backend.simulation.report.tables import saved
from ml_backend.simulation.report.verdicts import verdicts_on
from ml_backend.simulation.results import FULL, Row
from ml_backend.simulation.tariff import GRID, Tariff


def counted(strategy: str, seed: int, number: int, miou: float, **counts: int) -> Row:
    """A row that says what it takes; its clicks are those of a point at one, and of an opening at none."""
    values = {"points": 0, "opened": 0, "drawn": 0, "mended": 0, **counts}
    return row(strategy, seed, number, miou, clicks=float(values["drawn"] + values["points"]), **values)


def run(seed: int) -> list[Row]:
    """With all labels 0.8. To 0.4, random draws 1,000 clicks of ten images, the other answers 100 points of ten."""
    return [
        counted(FULL, seed, 0, 0.8 - 1e-9, drawn=5000, mended=5000, opened=50, rest=0, rest_mended=0),
        counted("random", seed, 0, 0.2, drawn=100, mended=100, opened=1),
        counted("random", seed, 1, 0.4, drawn=1000, mended=600, opened=10, rest=40, rest_mended=2000),
        counted("points", seed, 0, 0.2, points=10, opened=1),
        counted("points", seed, 1, 0.4, points=100, opened=10, rest=50, rest_mended=1500),
    ]


ROWS = [one for seed in range(3) for one in run(seed)]


def figures(rows: list[Row], strategy: str, tariff: Tariff) -> Saving:
    (found,) = [one for one in savings_of(rows, 0.4) if (one.strategy, one.tariff) == (strategy, tariff)]
    return found


def test_rows_are_charged_anew() -> None:
    first = run(0)[-1]
    assert [one.clicks for one in charged([first], point=3, opening=5)] == [3 * 100 + 5 * 10]
    assert [one.clicks for one in charged([run(0)[2]], mended=True)] == [600]
    dear = replace(first, settings=json.dumps({"point_clicks": 2, "opening_clicks": 1}))
    assert tariff_of(dear) == Tariff(2, 1)
    assert [one.clicks for one in charged([dear])] == [210], "as in its run"
    assert [one.clicks for one in charged([dear], opening=0)] == [200]
    assert charged([row("random", 0, 0, 0.5)]) == [], "of a release that did not count"
    assert tariff_of(replace(first, settings="not JSON")) == Tariff()


def test_what_it_takes_to_finish() -> None:
    """Points, 1,500 clicks of mending, and 60 openings: ten for the points, and each image once for its mask."""
    assert to_finish(run(0)[-1], Tariff()) == 100 + 1500
    assert to_finish(run(0)[-1], Tariff(3, 5)) == 300 + 1500 + 5 * 60
    assert to_finish(run(0)[1], Tariff()) is None


def test_three_figures_of_a_strategy() -> None:
    plain = figures(ROWS, "points", Tariff())
    assert plain.training is not None
    assert plain.product is not None
    assert plain.whole is not None
    assert plain.training.value == pytest.approx(100 / 1000)
    assert plain.product.value == pytest.approx(100 / 1000)
    assert plain.whole.value == pytest.approx(1600 / 5000)
    assert (plain.whole.seeds, plain.whole.missed) == (3, 0)
    dear = figures(ROWS, "points", Tariff(3, 5))
    assert dear.training is not None
    assert dear.whole is not None
    assert dear.training.value == pytest.approx(350 / 1050)
    assert dear.whole.value == pytest.approx(2100 / (5000 + 250))


def test_random_order_has_the_product_and_every_mask_too() -> None:
    """What predicted masks save by themselves."""
    found = figures(ROWS, "random", Tariff())
    assert found.training is None
    assert found.product is not None
    assert found.whole is not None
    assert found.product.value == pytest.approx(600 / 1000)
    assert found.whole.value == pytest.approx(2600 / 5000)


def test_there_are_figures_for_every_tariff_and_none_of_rows_that_count_too_little() -> None:
    found = savings_of(ROWS, 0.4)
    assert {one.tariff for one in found} == set(GRID)
    assert len(found) == 2 * len(GRID)
    assert savings_of([row("random", 0, 0, 0.5), row(FULL, 0, 0, 0.8)], 0.4) == []
    without = savings_of([one for one in ROWS if one.strategy != FULL], None)
    assert all(one.training is one.whole is None for one in without)


def test_a_seed_that_misses_the_target_is_counted() -> None:
    rows = [replace(one, miou=0.3) if (one.strategy, one.seed, one.round) == ("points", 2, 1) else one for one in ROWS]
    found = figures(rows, "points", Tariff()).training
    assert found is not None
    assert (found.seeds, found.missed) == (2, 1)
    (analysis,) = analyse(rows, 0.5, "clicks")
    assert saved(analysis)[2][:3] == ["points", "1, 0", "0.10 (0.10 to 0.10), 2 of 3 seeds"]


def test_they_are_in_the_report(tmp_path: Path) -> None:
    page = write_report(ROWS, tmp_path, target=0.5).read_text()
    assert "What a team saves" in page
    lines = (tmp_path / "savings.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * len(GRID)
    assert lines[1].startswith("glas,points,1,0,0.1,")
    summary = (tmp_path / "summary.md").read_text()
    assert "| points | 3, 5 | 0.33 (0.33 to 0.33) |" in summary
    old = write_report([row("random", 0, 0, 0.5), row(FULL, 0, 0, 0.8)], tmp_path / "old").read_text()
    assert "What a team saves" not in old


# -- contrasts ---------------------------------------------------------------------------------------------------------
CONTRAST = Contrast("glas", "points", "random", "effort", (0, 1, 2), rounds=1)


@pytest.mark.parametrize(
    ("changes", "value", "said"),
    [
        ({}, 0.1, "points against random, clicks to 50"),
        ({"point_clicks": 3, "opening_clicks": 5}, 350 / 1050, "(a point counts 3, opening an image 5)"),
        ({"measure": "product"}, 0.1, "(points mends predicted masks)"),
        ({"measure": "whole", "against": FULL}, 0.32, "points, clicks until every image has its mask: 0.32"),
        ({"measure": "whole", "against": FULL, "opening_clicks": 5}, 1900 / 5250, "(opening an image 5)"),
    ],
)
def test_contrasts_charge_as_they_say(changes: dict[str, object], value: float, said: str) -> None:
    contrast = replace(CONTRAST, **changes)  # type: ignore[arg-type]
    (found,) = verdicts_on([contrast], ROWS, 0.5, "clicks")
    assert found.is_decided
    assert found.ratio is not None
    assert found.ratio.value == pytest.approx(value)
    assert found.better == "points"
    (analysis,) = analyse(ROWS, 0.5, "clicks", [contrast])
    assert said in verdict_text(found, analysis).replace("\N{NO-BREAK SPACE}", " ")


def test_a_contrast_of_every_mask_waits_for_its_runs() -> None:
    whole = replace(CONTRAST, measure="whole", against=FULL)
    (found,) = verdicts_on([whole], [one for one in ROWS if (one.strategy, one.seed) != ("points", 1)], 0.5, "clicks")
    assert (found.finished, found.is_decided, found.ratio) == (2, False, None)
