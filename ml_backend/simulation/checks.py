"""Checks of a simulation before it starts, so that no hour is lost; and reading its data into memory."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence

from ml_backend.annotations.label_map import IGNORE_INDEX
from ml_backend.datasets import Dataset, Sample
from ml_backend.errors import ConfigurationError
from ml_backend.learning.networks import build, resolve_device
from ml_backend.simulation.material import Material, Picture, background_of, load
from ml_backend.simulation.plan import Contender, Plan, Unit
from ml_backend.simulation.results import FULL
from strategies import catalogue

_VALIDATION_SHARE = 5
"""Without a split for validation, every fifth training image, chosen by its name, measures."""

_FEW_IMAGES = 2
"""A round that adds fewer is warned of."""

Progress = Callable[[str, int, int], None]


def check(plan: Plan, dataset: Dataset) -> None:
    """Check that a plan fits a data set, as far as is possible without reading the images.

    Raises:
        ConfigurationError: the plan does not fit; the message names the value and what to do.
    """
    pool, _ = splits(plan, dataset)
    start = plan.start.of(len(pool))
    if start >= len(pool):
        raise ConfigurationError(
            f"--start {plan.start} labels {start} of {len(pool)} training images of {dataset.name!r} at once: nothing "
            "is left to choose from. Give a smaller value."
        )
    if plan.unit == "images" and not plan.step.is_share and plan.step.of(len(pool)) > len(pool) - start:
        raise ConfigurationError(
            f"--step {plan.step} (images) is more than the {len(pool) - start} images that are left after the first "
            f"{start}. Give a smaller value."
        )
    if plan.object_class is not None and plan.object_class not in dataset.classes:
        raise ConfigurationError(
            f"--object-class {plan.object_class!r} is no class of {dataset.name!r}: use {', '.join(dataset.classes)}."
        )
    if not plan.seeds or not plan.strategies:
        raise ConfigurationError("Nothing to do: give at least one --strategy and one seed.")
    for contender in plan.strategies:
        if contender.name != FULL:
            _check_strategy(contender, plan, dataset)
    _check_recipe(plan, dataset)


def _check_recipe(plan: Plan, dataset: Dataset) -> None:
    """Raise ConfigurationError where no network can be trained as planned."""
    resolve_device(plan.device)
    recipe = plan.recipe
    recipe.job(dataset.classes, 0, plan.device)
    build(
        recipe.architecture,
        recipe.encoder,
        recipe.encoder_weights,
        classes=len(dataset.classes),
        dropout=recipe.dropout,
        options=recipe.network_options,
    )
    if not recipe.train_encoder and recipe.encoder_weights == "none":
        raise ConfigurationError(
            "--freeze-encoder with NEXTMASK_ENCODER_WEIGHTS = 'none' keeps an encoder that never learned anything. "
            "Use pretrained weights, or --train-encoder."
        )


def _check_strategy(contender: Contender, plan: Plan, dataset: Dataset) -> None:
    """Raise ConfigurationError for options that would stop a strategy after its first training."""
    strategy = contender.make()
    from_dropout = "committee" in strategy.needs and not catalogue.described(strategy.name).ensemble
    if from_dropout and plan.recipe.dropout == 0:
        raise ConfigurationError(
            f"{strategy.name} compares the members of a committee, and without dropout they are all the same network. "
            "Give --dropout 0.1 or another share."
        )
    if "background" in strategy.needs and background_of(dataset) is None:
        raise ConfigurationError(
            f"{contender.label} looks for objects on a background, but the first class of {dataset.name!r} is "
            f"{dataset.classes[0]!r}. Leave these options out."
        )


def splits(plan: Plan, dataset: Dataset) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Return the images that can be labelled, and the images that measure.

    Raises:
        ConfigurationError: the data set has no images of either kind.
    """
    train = _split(dataset, "train", "put the images that can be labelled there")
    if plan.measure_on == "test":
        return train, _split(
            dataset,
            "test" if dataset.splits.get("test") or not dataset.splits.get("val") else "val",
            ("add test or val, whose images measure, or give --measure-on validation to hold out a part of train"),
        )
    if dataset.splits.get("val"):
        return train, dataset.samples("val")
    validation = [sample for sample in train if _number(sample) % _VALIDATION_SHARE == 0]
    rest = [sample for sample in train if _number(sample) % _VALIDATION_SHARE]
    if not validation or not rest:
        raise ConfigurationError(
            f"{dataset.name!r} has {len(train)} training images, too few to hold some out: add a split val."
        )
    return tuple(rest), tuple(validation)


def _split(dataset: Dataset, name: str, remedy: str) -> tuple[Sample, ...]:
    if not dataset.splits.get(name):
        there = ", ".join(split for split, samples in dataset.splits.items() if samples)
        raise ConfigurationError(f"{dataset.name!r} has no images in a split {name!r}, only in {there}: {remedy}.")
    return dataset.samples(name)


def _number(sample: Sample) -> int:
    """Return a number in [0, 2**32) that depends on the file's name only."""
    return int.from_bytes(hashlib.sha256(sample.image.name.encode()).digest()[:4], "big")


def read(plan: Plan, dataset: Dataset, progress: Progress) -> Material:
    """Decode the images and masks of a simulation.

    Args:
        progress: called with (activity, images done, images in total).

    Raises:
        ConfigurationError: an image cannot be read, nothing is labelled, or a step is less than the smallest image.
    """
    pool, test = splits(plan, dataset)
    device, total, done = resolve_device(plan.device), len(pool) + len(test), 0

    def advance() -> None:
        nonlocal done
        done += 1
        progress("reading images and masks", done, total)

    size = plan.recipe.input_size
    pictures = load(dataset, pool, input_size=size, device=device, outlined=True, progress=advance)
    measured = load(
        dataset, test, input_size=size, device=device, outlined=False, first=len(pictures), progress=advance
    )
    material = Material(
        dataset=dataset.name,
        classes=dataset.classes,
        background=background_of(dataset),
        pool={picture.number: picture for picture in pictures},
        test=measured,
    )
    _check_labelled(material)
    _check_step(plan, material)
    return material


def _check_labelled(material: Material) -> None:
    """Refuse data in which nothing is labelled: nothing could be learned, or measured."""
    for what, pictures in (("can be labelled", list(material.pool.values())), ("measure", list(material.test))):
        if all(bool((picture.mask == IGNORE_INDEX).all()) for picture in pictures):
            raise ConfigurationError(
                f"Of the {len(pictures)} images of {material.dataset!r} that {what}, none has a labelled pixel: "
                f"all masks are {IGNORE_INDEX}, which means unlabelled. Put class indices into them."
            )


def _check_step(plan: Plan, material: Material) -> None:
    """Refuse a step that no image fits into; points of images are cheap."""
    names = {contender.name for contender in plan.strategies} - {FULL}
    if plan.unit == "images" or all(catalogue.described(name).asks_for_points for name in names):
        return
    sizes = _sizes(plan, material)
    step, smallest = plan.step.of(sum(sizes)), min(sizes)
    if step < smallest:
        raise ConfigurationError(
            f"--step {plan.step} is {step:,} {plan.unit} a round, less than the {smallest:,} of the smallest image. "
            f"Give --step {math.ceil(_mean(sizes))} or more, what an image of {material.dataset!r} takes, or --unit "
            "images."
        )


def budget_text(plan: Plan, material: Material) -> str:
    """Return what a round adds, in the unit of the plan and in images, and a warning where that is little."""
    sizes = _sizes(plan, material)
    step, mean = plan.step.of(sum(sizes)), _mean(sizes)
    share = f" ({plan.step} of all {sum(sizes):,})" if plan.step.is_share else ""
    images = max(1.0, step / mean) if mean else len(sizes)
    if plan.unit == "images":
        text = f"A round adds {_counted(step, 'image')}{share}."
    else:
        text = (
            f"A round adds {step:,} {plan.unit}{share}: about {_counted(round(images), 'image')}, as an image takes "
            f"{mean:,.0f} on average."
        )
    if images >= _FEW_IMAGES:
        return text
    other = "" if plan.unit == "images" else ", or --unit images"
    return (
        f"{text} Warning: every round trains a network, and fewer than {_FEW_IMAGES} new images change it little. "
        f"Give --step {math.ceil(_FEW_IMAGES * mean)} or more{other}."
    )


def _sizes(plan: Plan, material: Material) -> list[int]:
    """Return what each image of the pool takes, in the unit of the plan."""
    takes: dict[Unit, Callable[[Picture], int]] = {
        "images": lambda _: 1,
        "pixels": lambda picture: picture.area,
        "clicks": lambda picture: picture.outlines.clicks,
    }
    return [takes[plan.unit](picture) for picture in material.pool.values()]


def _mean(sizes: Sequence[int]) -> float:
    return sum(sizes) / len(sizes)


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
