"""Plans and what is wrong with them: found before any training, with the value and what to do."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from simulated_data import TINY, material, plan, shapes, write_dataset

from ml_backend.datasets import Dataset, open_dataset
from ml_backend.errors import ConfigurationError
from ml_backend.learning.ranking import make_strategy
from ml_backend.simulation.checks import budget_text, check, read, splits
from ml_backend.simulation.options import Options
from ml_backend.simulation.plan import Amount, Contender, Plan, Recipe, Unit
from ml_backend.simulation.polygons import polygons
from ml_backend.simulation.presets import plan_of
from strategies.regions import Windows


# -- amounts -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "total", "expected"),
    [
        ("12", 2000, 12),
        ("1", 1, 1),
        ("1e3", 5000, 1000),
        (" 20 ", 2000, 20),
        ("5%", 2000, 100),
        ("100%", 7, 7),
        ("0.1%", 20, 1),  # at least one
        ("12.5%", 80, 10),
        ("10 %", 50, 5),
    ],
)
def test_amounts(text: str, total: int, expected: int) -> None:
    assert Amount.parse(text, "images").of(total) == expected


@pytest.mark.parametrize(
    "text", ["0", "-1", "1.5", "", "%", "0%", "101%", "-5%", "many", "nan", "inf", "inf%", "nan%", "1e999"]
)
def test_no_amounts(text: str) -> None:
    with pytest.raises(
        ConfigurationError, match="is no amount of images: give a whole number from 1, such as 20, or a share"
    ):
        Amount.parse(text, "images")


@pytest.mark.parametrize("text", ["12", "5%", "12.5%", "1"])
def test_an_amount_is_written_as_it_is_read(text: str) -> None:
    assert str(Amount.parse(text, "images")) == text
    assert Amount.parse(str(Amount.parse(text, "images")), "images") == Amount.parse(text, "images")


# -- strategies --------------------------------------------------------------------------------------------------------
def test_contenders() -> None:
    assert Contender.parse("entropy") == Contender("entropy")
    assert Contender.parse("entropy:") == Contender.parse("entropy:{}") == Contender("entropy")
    found = Contender.parse('ceal:{"threshold": 0.5, "decay": 0}')
    assert found == Contender("ceal", {"decay": 0, "threshold": 0.5})
    assert found.label == 'ceal:{"decay": 0, "threshold": 0.5}'
    assert Contender("entropy").label == "entropy"
    assert found.make().name == "ceal"
    assert Contender.parse(found.label) == found
    assert Contender.parse("full").name == "full"


def test_equal_contenders_are_one() -> None:
    one, other = Contender.parse('ceal:{"decay":0}'), Contender.parse('ceal:{"decay": 0}')
    assert list(dict.fromkeys([one, other, Contender("ceal")])) == [one, Contender("ceal")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("entropi", "entropi.*available: .*entropy"),
        ("", "available: .*entropy"),
        ('entropy:{"beta": 1}', "beta.*valid"),
        ('ceal:{"threshold": 2}', "threshold"),
        ('ceal:{"preset": "lesions"}', "lesions.*melanoma"),
        ("ceal:threshold=1", "NAME or NAME:{JSON of its options}"),
        ("ceal:[1]", "NAME or NAME:{JSON of its options}"),
        ('ceal:{"threshold": }', "NAME or NAME:{JSON of its options}"),
    ],
)
def test_strategies_that_cannot_be(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Contender.parse(text)


def test_what_is_charged_is_a_setting_unless_it_is_the_usual() -> None:
    """Rows of earlier files have the settings of the plan without these."""
    usual, dear = Options(preset="quick").plan(), Options(preset="quick", point_clicks=3, opening_clicks=5).plan()
    assert not {"point_clicks", "opening_clicks"} & usual.settings().keys()
    assert (dear.settings()["point_clicks"], dear.settings()["opening_clicks"]) == (3, 5)
    assert (dear.tariff.point, dear.tariff.opening) == (3, 5)
    assert usual.digest() != dear.digest()


def test_every_strategy_can_be_played_through() -> None:
    names = {contender.name for contender in Options(preset="quick", strategy=["all"]).plan().strategies}
    assert {"points", "random_points", "cereals"} < names


def test_windows_are_those_of_production() -> None:
    """Of the strategy's own options: a simulation with others would say nothing of what annotators are asked for."""
    simulated, produced = Contender.parse("cereals").make(), make_strategy("cereals", {})
    assert vars(simulated)["_windows"] == vars(produced)["_windows"] == Windows(window=128, stride=32)


# -- seeds -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("text", ["", "0", "-1", "5-4", "a", "1-b", "1.5", "3-", "-", "0-10000", "10001", "1-2-3"])
def test_seeds_that_are_none(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"--seeds '.*' are no seeds: give how many, such as 10, or the first"):
        Options(seeds=text).plan()


def test_seeds_are_a_number_or_the_first_and_the_last() -> None:
    assert Options(preset="quick", seeds="2").plan().seeds == (0, 1)
    assert Options(preset="quick", seeds=" 100-102 ").plan().seeds == (100, 101, 102)
    assert Options(preset="quick", seeds="7-7").plan().seeds == (7,)


# -- settings ----------------------------------------------------------------------------------------------------------
def test_settings_are_what_decides_the_outcome() -> None:
    """More strategies, seeds or rounds only add rows, a device or a batch of the pool changes nothing."""
    before = plan("random")
    same = [
        plan("random", "entropy"),
        plan("random", seeds=(0, 1)),
        plan("random", rounds=9),
        plan("random", device="auto"),
        plan("random", score_size=1),
    ]
    assert {one.settings_text() for one in same} == {before.settings_text()}
    other = [
        plan("random", start=Amount(3)),
        plan("random", step=Amount(0.1, True)),
        plan("random", unit="clicks"),
        plan("random", measure_at="network"),
        plan("random", measure_on="validation"),
        plan("random", object_class="disc"),
        plan("random", iterations=3),
        plan("random", passes=7),
        plan("random", network_options={"a": 1}),
    ]
    texts = {one.settings_text() for one in (before, *other)}
    assert len(texts) == 1 + len(other)
    assert len({one.digest() for one in (before, *other)}) == 1 + len(other)


def test_the_settings_of_a_plan_stay_as_they_are() -> None:
    """Rows that are there were written with these names: a simulation that was stopped goes on by them."""
    settings = json.loads(plan_of("quick", {}, {}).settings_text())
    assert settings.keys() == {"start", "step", "unit", "recipe", "measure_on", "measure_at", "object_class"}
    assert all(isinstance(settings[name], str) for name in ("start", "step", "unit"))
    fields = {field.name for field in dataclasses.fields(Recipe)} - {"score_size"}
    assert settings["recipe"].keys() == fields


def test_a_training_of_production_is_told_the_recipe() -> None:
    job = TINY.job(("a", "b"), 7, "cpu")
    for field in dataclasses.fields(Recipe):
        if hasattr(job, field.name) and field.name != "members":
            assert getattr(job, field.name) == getattr(TINY, field.name), field.name
    assert (job.seed, job.classes, job.device) == (7, ("a", "b"), "cpu")


# -- splits ------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_dataset(tmp_path_factory.mktemp("data"), {"train": 20, "test": 3})


def names(samples: Any) -> list[str]:
    return [sample.image.name for sample in samples]


def test_a_held_out_part_is_the_same_each_time_and_not_in_the_pool(opened: Dataset) -> None:
    validation = plan(measure_on="validation")
    pool, held_out = splits(validation, opened)
    assert sorted(names(pool) + names(held_out)) == names(opened.samples("train"))
    assert 1 <= len(held_out) <= 8
    shuffled = list(opened.samples("train"))
    random.Random(0).shuffle(shuffled)
    other = dataclasses.replace(opened, splits={"train": tuple(shuffled)})
    assert set(splits(validation, other)[1]) == set(held_out)
    fewer = dataclasses.replace(opened, splits={"train": tuple(shuffled[:15])})
    assert set(splits(validation, fewer)[1]) == set(held_out) & set(shuffled[:15])  # by name, not by place


def test_a_fifth_is_held_out(opened: Dataset) -> None:
    sample = opened.samples("train")[0]
    many = tuple(
        dataclasses.replace(sample, image=Path(f"frame_{number}.png"), mask=Path(f"{number}.png"))
        for number in range(2000)
    )
    _, held_out = splits(plan(measure_on="validation"), dataclasses.replace(opened, splits={"train": many}))
    assert len(held_out) == pytest.approx(400, abs=60)


def test_splits_that_are_there_are_used(opened: Dataset) -> None:
    train, test = opened.samples("train"), opened.samples("test")
    with_val = dataclasses.replace(opened, splits={"train": train[:10], "val": train[10:], "test": test})
    assert splits(plan(), with_val) == (train[:10], test)
    assert splits(plan(measure_on="validation"), with_val) == (train[:10], train[10:])
    without_test = dataclasses.replace(opened, splits={"train": train[:10], "val": train[10:]})
    assert splits(plan(), without_test) == (train[:10], train[10:])


# -- what cannot be ----------------------------------------------------------------------------------------------------
def refused(opened: Dataset, plan: Plan, *parts: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        check(plan, opened)
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("there", "changes", "parts"),
    [
        ({"train": 4}, {}, ("'shapes'", "test", "--measure-on validation")),
        ({"train": 4, "test": 0}, {}, ("'shapes'", "test", "--measure-on validation")),
        ({"train": 0, "test": 3}, {}, ("'shapes'", "'train'", "test")),
        ({"test": 3}, {}, ("'shapes'", "'train'")),
        ({"train": 1}, {"measure_on": "validation"}, ("1 training images", "add a split val")),
    ],
)
def test_splits_that_are_missing(
    opened: Dataset, there: dict[str, int], changes: dict[str, Any], parts: tuple[str, ...]
) -> None:
    found = {split: opened.samples("train")[:count] for split, count in there.items()}
    refused(dataclasses.replace(opened, splits=found), plan(**changes), *parts)


@pytest.mark.parametrize(
    ("made", "parts"),
    [
        (plan(start=Amount(20)), ("--start 20", "20 of 20 training images", "smaller")),
        (plan(start=Amount(1.0, True)), ("--start 100%", "20 of 20", "smaller")),
        (plan(start=Amount(15), step=Amount(6)), ("--step 6", "5 images that are left", "smaller")),
        (plan(object_class="circle"), ("--object-class 'circle'", "background, disc, square")),
        (plan(seeds=()), ("--strategy", "seed")),
        (dataclasses.replace(plan(), strategies=()), ("--strategy", "seed")),
        (plan("bald", dropout=0.0), ("bald", "committee", "--dropout 0.1")),
        (plan("random", dropout=1.5), ("1.5", "less than 1")),
        (plan("random", iterations=0), ("iterations", "0")),
        (plan("random", learning_rate=-1.0), ("learning_rate", "-1.0")),
        (plan("random", architecture="fcn9s"), ("fcn9s", "fcn8s")),
        (plan("random", encoder="fcn-vgg17"), ("fcn-vgg17", "fcn-vgg16")),
        (plan("random", encoder="fcn-vgg16"), ("fcn-vgg16", "none")),
        (plan("random", network_options={"widht": 1}), ("widht",)),
        (plan("random", encoder_weights="none"), ("--freeze-encoder", "--train-encoder")),
        (plan("random", device="abacus"), ("abacus", "cpu")),
    ],
)
def test_plans_that_do_not_fit(opened: Dataset, made: Plan, parts: tuple[str, ...]) -> None:
    refused(opened, made, *parts)


def test_a_plan_that_fits(opened: Dataset) -> None:
    check(
        plan("full", "random", "bald", "ceal", "cereals", object_class="disc", start=Amount(19), step=Amount(1)), opened
    )


def test_an_ensemble_needs_no_dropout(opened: Dataset) -> None:
    check(plan("suggestive_annotation", dropout=0.0), opened)


@pytest.mark.parametrize("text", ['ceal:{"preset": "melanoma"}', 'ceal:{"weighting": "distance"}'])
def test_objects_are_looked_for_on_a_background(opened: Dataset, text: str) -> None:
    check(plan(text), opened)
    refused(
        dataclasses.replace(opened, classes=("sky", "disc", "square")), plan(text), text[:10], "background", "'sky'"
    )


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"'slow' is unknown: use quick, cereals"):
        plan_of("slow", {}, {})


# -- data --------------------------------------------------------------------------------------------------------------
def remove(mask: Path) -> None:
    mask.unlink()


def crop(mask: Path) -> None:
    Image.open(mask).crop((0, 0, 47, 40)).save(mask)


def add_a_class(mask: Path) -> None:
    values = np.array(Image.open(mask))
    values[0, 0] = 3
    Image.fromarray(values).save(mask)


def damage(mask: Path) -> None:
    mask.write_bytes(mask.read_bytes()[:30])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove, r"shape_01\.png has no mask: add .*shape_01\.png or remove the image"),
        (crop, r"shape_01\.png is 47x40 pixels, its image shape_01\.png is 48x40: both must have one size"),
        (add_a_class, r"shape_01\.png holds the value 3, but the classes are 0 to 2.*correct the mask"),
        (damage, r"shape_01\.png"),
    ],
)
def test_masks_that_cannot_be_used(tmp_path: Path, change: Callable[[Path], None], message: str) -> None:
    write_dataset(tmp_path, {"train": 3, "test": 1})
    change(tmp_path / "masks" / "train" / "shape_01.png")
    with pytest.raises(ConfigurationError, match=message):
        open_dataset(tmp_path)


def test_an_image_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    opened = write_dataset(tmp_path, {"train": 3, "test": 1})
    image = tmp_path / "images" / "train" / "shape_01.png"
    image.write_bytes(image.read_bytes()[:200])  # the header, which opening looks at, is whole
    with pytest.raises(ConfigurationError, match=r"shape_01\.png cannot be used"):
        read(plan(), opened, lambda *_: None)


def test_data_in_memory_are_those_of_the_files(opened: Dataset) -> None:
    told: list[tuple[str, int, int]] = []
    found = read(plan(), opened, lambda *at: told.append(at))
    assert told == [("reading images and masks", done, 23) for done in range(1, 24)]
    assert list(found.pool) == list(range(20))
    assert [one.number for one in found.test] == [20, 21, 22]
    assert (found.dataset, found.classes, found.background) == ("shapes", ("background", "disc", "square"), 0)
    one, (image, mask) = found.pool[4], shapes(4)
    assert one.name == "shape_04.png"
    assert np.array_equal(one.truth(), mask)
    assert (one.size, one.area, tuple(one.pixels.shape), tuple(one.mask.shape)) == (
        (40, 48),
        1920,
        (3, 27, 32),
        (27, 32),
    )
    assert one.outlines.clicks > 4
    assert found.test[0].outlines.clicks == 0
    assert abs(float(one.pixels.float().mean()) - image.mean()) < 2


@pytest.mark.parametrize(
    ("unit", "step", "parts"),
    [
        (
            "pixels",
            Amount(1919),
            ("--step 1919", "1,919 pixels", "1,920 of the smallest", "Give --step 1920 or more", "'shapes'"),
        ),
        ("pixels", Amount(0.01, True), ("--step 1%", "384 pixels")),
        ("clicks", Amount(3), ("--step 3", "3 clicks", "smallest image", "Give --step")),
    ],
)
def test_a_step_that_no_image_fits_into(opened: Dataset, unit: Any, step: Amount, parts: tuple[str, ...]) -> None:
    made = plan(unit=unit, step=step)
    check(made, opened)
    with pytest.raises(ConfigurationError) as error:
        read(made, opened, lambda *_: None)
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("unit", "step"), [("pixels", Amount(1920)), ("clicks", Amount(0.5, True)), ("images", Amount(1))]
)
def test_a_step_that_an_image_fits_into(opened: Dataset, unit: Any, step: Amount) -> None:
    read(plan(unit=unit, step=step), opened, lambda *_: None)


# -- what a round adds -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("unit", "step", "said"),
    [
        ("images", "3", "A round adds 3 images."),
        ("images", "25%", "A round adds 2 images (25% of all 8)."),
        (
            "images",
            "1",
            "A round adds 1 image. Warning: every round trains a network, and fewer than 2 new images change it "
            "little. Give --step 2 or more.",
        ),
        ("pixels", "7680", "A round adds 7,680 pixels: about 4 images, as an image takes {pixels} on average."),
        (
            "clicks",
            "50%",
            "A round adds {half} clicks (50% of all {clicks}): about 4 images, as an image takes {mean} on average.",
        ),
        (
            "clicks",
            "{mean}",
            "A round adds {mean} clicks: about 1 image, as an image takes {mean} on average. Warning: every round "
            "trains a network, and fewer than 2 new images change it little. Give --step {two} or more, or --unit "
            "images.",
        ),
    ],
)
def test_what_a_round_adds_is_said_in_its_unit_and_in_images(unit: Unit, step: str, said: str) -> None:
    made = material(8, 2)
    clicks = sum(picture.outlines.clicks for picture in made.pool.values())
    known = {
        "clicks": f"{clicks:,}",
        "half": f"{round(clicks / 2):,}",
        "mean": f"{clicks // 8:,}",
        "two": f"{-(-2 * clicks // 8)}",
        "pixels": f"{made.pool[0].area:,}",
    }
    amount = Amount.parse(step.format(**known), unit)
    assert budget_text(plan("random", unit=unit, step=amount), made) == said.format(**known)


def test_what_a_round_adds_where_nothing_takes_clicks() -> None:
    made = material(8, 2)
    empty = {
        number: dataclasses.replace(one, outlines=polygons(np.zeros((9, 9), np.uint8), background=0))
        for number, one in made.pool.items()
    }
    said = budget_text(plan("random", unit="clicks", step=Amount(8)), dataclasses.replace(made, pool=empty))
    assert said == "A round adds 8 clicks: about 8 images, as an image takes 0 on average."
