"""Presets of the papers: their numbers, and that each of them runs on the layout of its data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import tiny_datasets

from ml_backend.cli.simulation_options import Simulate
from ml_backend.datasets import open_dataset
from ml_backend.errors import ConfigurationError
from ml_backend.simulation.checks import check, read
from ml_backend.simulation.choices import Choices
from ml_backend.simulation.experiment import Experiment
from ml_backend.simulation.options import Options
from ml_backend.simulation.plan import Amount, Contender, Plan
from ml_backend.simulation.presets import PRESETS, plan_of, unit_of
from ml_backend.simulation.results import FULL, Row

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL: dict[str, Any] = {"iterations": 2, "passes": 0, "input_size": 48, "batch_size": 2}
DATA: dict[str, Callable[[Path], Path]] = {
    "quick": tiny_datasets.camvid,
    "cereals": tiny_datasets.camvid,
    "suggestive_annotation": tiny_datasets.glas,
    "vaal": tiny_datasets.camvid,
    "ceal": tiny_datasets.isic2017,
}
AMOUNTS = {"ceal": {"start": Amount(4), "step": Amount(3)}, "cereals": {"step": Amount(0.1, True)}}
"""Where the tiny data have fewer images than a paper's step takes."""


def run(preset: str, folder: Path, **changes: Any) -> tuple[Plan, list[Row]]:
    """Run a preset for one round with one seed, in this process."""
    dataset = open_dataset(DATA[preset](folder / "data"))
    values = {"seeds": (0,), "rounds": 1, "device": "cpu", **AMOUNTS.get(preset, {}), **changes}
    plan = plan_of(preset, values, SMALL)
    check(plan, dataset)
    experiment = Experiment(plan, read(plan, dataset, lambda *_: None), folder / "work", "")
    return plan, [row for contender in plan.strategies for row in experiment.rows(contender, 0, 0)]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_runs_on_the_layout_of_its_data(tmp_path: Path, preset: str) -> None:
    plan, rows = run(preset, tmp_path)
    expected = [(one.label, number) for one in plan.strategies for number in range(1 if one.name == FULL else 2)]
    assert [(row.strategy, row.round) for row in rows] == expected
    assert all(math.isfinite(row.miou) and 0 <= row.miou <= 1 for row in rows)
    initial = {(row.images, row.pixels, row.clicks) for row in rows if row.round == 0 and row.strategy != FULL}
    assert len(initial) == 1
    for row in rows:
        assert (row.object_f1 is not None) == (preset == "suggestive_annotation")
        assert row.round == 0 or row.clicks > next(iter(initial))[2]


def test_cereals_asks_for_windows_and_keeps_the_budget_to_within_one(tmp_path: Path) -> None:
    small = Contender("cereals", {"window": 8, "stride": 2})  # the paper's are larger than these images
    plan, rows = run("cereals", tmp_path, strategies=(small,))
    _, picks = (choice.picks for choice in Choices(tmp_path / "work", small, 0).read())
    boxes = [box for pick in picks for box in pick.boxes]
    assert {(box.width, box.height) for box in boxes} == {(8, 8)}
    step = plan.step.of(12 * 48 * 48)
    assert abs(rows[1].pixels - rows[0].pixels - step) < 8 * 8


def test_suggestive_annotation_adds_eight_images_a_round(tmp_path: Path) -> None:
    _, rows = run("suggestive_annotation", tmp_path, strategies=(Contender("suggestive_annotation"),))
    assert [row.images for row in rows] == [8, 16]


def test_the_numbers_of_the_papers() -> None:
    cereals, glands, vaal, ceal = (PRESETS[name] for name in ("cereals", "suggestive_annotation", "vaal", "ceal"))
    assert cereals.recipe.architecture == "fcn8s"
    assert cereals.recipe.network_options == {"width": 0.25}
    assert (cereals.unit, cereals.start.of(2975), cereals.step.of(2975)) == ("pixels", 50, 50)
    labelled = cereals.start.of(2975) + cereals.rounds * cereals.step.of(2975)
    assert labelled / 2975 > 0.27  # what random labelling takes to 95 %
    assert (glands.recipe.architecture, glands.recipe.ensemble, glands.object_class) == ("dcan", 4, "gland")
    assert (glands.start, glands.step) == (Amount(8), Amount(8))
    assert 8 * (glands.rounds + 1) > 85 / 2
    assert (vaal.recipe.architecture, vaal.recipe.encoder) == ("drn", "drn22")
    assert vaal.start.value + vaal.rounds * vaal.step.value == pytest.approx(0.4)
    assert (ceal.recipe.architecture, ceal.recipe.dropout, ceal.recipe.members) == ("unet", 0.5, 20)
    assert (ceal.start, ceal.step, ceal.rounds) == (Amount(600), Amount(35), 9)


def test_the_results_of_quick_stay_comparable() -> None:
    assert PRESETS["quick"].digest() == "48b32c7607", "settings of quick differ: rows made before do not fit"


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_compares_with_random_and_with_all_labels(preset: str) -> None:
    names = [one.name for one in PRESETS[preset].strategies]
    assert names[:2] == [FULL, "random"]
    assert len(names) == len(set(names)) >= 3


def test_options_are_laid_over_a_preset() -> None:
    plan = plan_of("quick", {"rounds": 1, "unit": None}, {"iterations": 7, "dropout": None})
    expected = dataclasses.replace(PRESETS["quick"].recipe, iterations=7)
    assert plan == dataclasses.replace(PRESETS["quick"], rounds=1, recipe=expected)


def test_another_architecture_takes_no_options_of_the_presets_one() -> None:
    assert plan_of("quick", {}, {"architecture": "unet"}).recipe.network_options == {}
    assert plan_of("quick", {}, {"architecture": "segformer"}).recipe.network_options != {}
    given = {"architecture": "unet", "network_options": {"decoder_use_norm": False}}
    assert plan_of("quick", {}, given).recipe.network_options == {"decoder_use_norm": False}


def test_without_a_preset_the_settings_of_production_are_simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXTMASK_STRATEGY", "margin")
    monkeypatch.setenv("NEXTMASK_ITERATIONS", "77")
    plan = plan_of(None, {}, {})
    assert [one.label for one in plan.strategies] == ["full", "random", "margin"]
    assert plan.recipe.iterations == 77


def test_what_production_leaves_to_the_device_is_simulated_as_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXTMASK_DEVICE", "cpu")
    recipe = plan_of(None, {}, {}).recipe
    assert (recipe.architecture, recipe.train_encoder, recipe.batch_size) == ("fpn", False, 4)
    assert recipe.iterations > 0
    assert plan_of(None, {}, {"architecture": "unet"}).recipe.network_options == {}


def test_an_unknown_preset() -> None:
    with pytest.raises(ConfigurationError, match=r"--preset 'fast' is unknown: use quick, cereals, "):
        plan_of("fast", {}, {})


# -- options as they are given -----------------------------------------------------------------------------------------
def test_options_are_read() -> None:
    plan = Options(
        preset="quick",
        strategy=["entropy", "random", "entropy:{}"],
        seeds="2",
        start="12",
        step="5%",
        network_options='{"decoder_segmentation_channels": 64}',
        object_class="disc",
    ).plan()
    quick = PRESETS["quick"]
    assert plan == dataclasses.replace(
        quick,
        strategies=(Contender("full"), Contender("entropy"), Contender("random")),
        seeds=(0, 1),
        start=Amount(12),
        step=Amount(0.05, True),
        object_class="disc",
        recipe=dataclasses.replace(quick.recipe, network_options={"decoder_segmentation_channels": 64}),
    )


@pytest.mark.parametrize("given", [["random"], ["full", "random"], ["random", "full"], ["all"]])
def test_training_on_all_labels_is_always_run(given: list[str]) -> None:
    """Efforts are measured by it."""
    names = [contender.name for contender in Options(strategy=given).plan().strategies]
    assert names[0] == FULL
    assert names.count(FULL) == 1
    assert "random" in names


def test_the_help_names_the_units_of_presets() -> None:
    helped = next(one for one in get_type_hints(Simulate, include_extras=True)["unit"].__metadata__).help
    others = {name: plan.unit for name, plan in PRESETS.items() if plan.unit != unit_of(None)}
    assert others == {"quick": "clicks", "cereals": "pixels"}
    assert f"Without it {unit_of(None)}; " + ", ".join(
        f"{unit} in {'the preset ' if name == 'quick' else ''}{name}" for name, unit in others.items()
    ) in str(helped)


def test_without_options_the_preset_stays() -> None:
    assert Options(preset="quick").plan() == PRESETS["quick"]


def test_no_class_takes_back_that_of_a_preset() -> None:
    assert PRESETS["suggestive_annotation"].object_class == "gland"
    assert Options(preset="suggestive_annotation", object_class="none").plan().object_class is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(start="0"), "--start '0' is no amount of images: "),
        (Options(step="few", preset="quick"), "--step 'few' is no amount of clicks: "),
        (Options(step="few", preset="quick", unit="pixels"), "--step 'few' is no amount of pixels: "),
        (Options(step="few"), "--step 'few' is no amount of images: "),
        (Options(unit="minutes"), "--unit 'minutes' is unknown: use images, pixels, clicks"),
        (Options(measure_on="train"), "--measure-on 'train' is unknown: use test, validation"),
        (Options(measure_at="half"), "--measure-at 'half' is unknown: use original, network"),
        (Options(network_options="[1]"), "--network-options '.1.' is no JSON object"),
        (Options(strategy=["entropi"]), "--strategy 'entropi'"),
    ],
)
def test_an_option_that_cannot_be_read_is_named(options: Options, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        options.plan()
