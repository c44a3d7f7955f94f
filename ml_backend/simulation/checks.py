"""Getting a simulation ready: data into memory, and everything that can be wrong found before any hour is spent."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from ml_backend.annotations.label_map import IGNORE_INDEX
from ml_backend.datasets import Dataset, Sample
from ml_backend.errors import ConfigurationError
from ml_backend.learning.networks import build, resolve_device
from ml_backend.simulation.material import Material, background_of, load
from ml_backend.simulation.plan import Contender, Plan
from ml_backend.simulation.results import FULL
from strategies import catalogue

_VALIDATION_SHARE = 5
"""Where there is no split for validation, one of so many training images is taken for it."""

Progress = Callable[[str, int, int], None]


def check(plan: Plan, dataset: Dataset) -> None:
    """Check that a plan fits a data set, as far as can be told without reading the images.

    Raises:
        ConfigurationError: it does not; the message names the value and what to do.
    """
    pool, _ = splits(plan, dataset)
    start = plan.start.of(len(pool))
    if start >= len(pool):
        raise ConfigurationError(
            f"--start {plan.start} labels {start} of {len(pool)} training images of {dataset.name!r} at once: nothing "
            "is left to choose from. Give a smaller one."
        )
    if plan.unit == "images" and not plan.step.is_share and plan.step.of(len(pool)) > len(pool) - start:
        raise ConfigurationError(
            f"--step {plan.step} is more than the {len(pool) - start} images that are left after the first {start}. "
            "Give a smaller one."
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
    """Find what would stop a strategy after its first training."""
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
    """Return the images that can be labelled, and those that measure.

    Raises:
        ConfigurationError: the data set lacks one of them, or it is empty.
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
    """Return a number that follows from the file's name alone."""
    return int.from_bytes(hashlib.sha256(sample.image.name.encode()).digest()[:4], "big")


def read(plan: Plan, dataset: Dataset, progress: Progress) -> Material:
    """Decode what a simulation works on.

    Args:
        progress: called with (what is being done, done, total).

    Raises:
        ConfigurationError: an image cannot be read, or a step in clicks is less than an image takes.
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
                f"all masks are {IGNORE_INDEX}, which means that nobody looked. Put class indices into them."
            )


def _check_step(plan: Plan, material: Material) -> None:
    """Refuse a step that no image fits into."""
    if plan.unit == "images":
        return
    sizes = [one.area if plan.unit == "pixels" else one.outlines.clicks for one in material.pool.values()]
    step, smallest = plan.step.of(sum(sizes)), min(sizes)
    if step < smallest:
        raise ConfigurationError(
            f"--step {plan.step} is {step} {plan.unit}, less than the {smallest} of the smallest image. Give at least "
            f"{_median(sizes)}, what an image of {material.dataset!r} takes."
        )


def _median(values: Sequence[int]) -> int:
    return sorted(values)[len(values) // 2]
