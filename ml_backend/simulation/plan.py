"""The plan of a simulation: how networks are trained, how much is labelled in each round, and by which strategies."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ml_backend.errors import ConfigurationError, NextmaskError
from ml_backend.learning.training import Job
from ml_backend.simulation.results import FULL
from ml_backend.simulation.tariff import USUAL, Tariff
from strategies import Strategy, create

Unit = Literal["images", "pixels", "clicks"]
MeasureOn = Literal["test", "validation"]
MeasureAt = Literal["original", "network"]


@dataclass(frozen=True)
class Recipe:
    """How every network of a simulation is trained: from the same initial weights, with as many passes over its labels.

    Attributes:
        iterations: the fewest steps of a training.
        passes: how often a training sees each of its images, at least. With a number of steps alone, a network that
            learns from all labels has seen each of them the least, and is no reference.
        train_encoder: whether the encoder learns. A pretrained encoder that does not is computed once per image.
        views: for an encoder that does not learn, number of augmented views of each image, drawn once for all
            trainings; 1 is the image itself; 0: as in production, four, and fewer of many. An encoder that learns sees
            new views in every step.
        members: T, number of members of a committee of MC dropout.
        ensemble: number of networks of an ensemble, each trained on another bootstrap resample of the labels.
        prepare_minutes: longest time that a strategy may train networks of its own in a round, as in production.
        score_size: images in a batch of the pool.
    """

    architecture: str = "unet"
    encoder: str = "tu-tf_efficientnet_lite0"
    encoder_weights: str = "bundled"
    network_options: Mapping[str, Any] = field(default_factory=dict)
    train_encoder: bool = True
    dropout: float = 0.1
    input_size: int = 384
    iterations: int = 200
    passes: int = 20
    batch_size: int = 8
    learning_rate: float = 3e-3
    views: int = 0
    members: int = 20
    ensemble: int = 4
    prepare_minutes: float = 15.0
    score_size: int = 32

    def steps(self, images: int) -> int:
        """Return the steps of a training on so many images.

        >>> Recipe(iterations=150, passes=20, batch_size=4).steps(85), Recipe(iterations=150, batch_size=4).steps(5)
        (425, 150)
        """
        return max(self.iterations, math.ceil(self.passes * images / self.batch_size))

    def job(self, classes: tuple[str, ...], seed: int, device: str, images: int = 0) -> Job:
        """Return the training job of a network.

        Args:
            images: number of images that it learns from.

        Raises:
            ConfigurationError: a value is out of range.
        """
        for name in ("iterations", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ConfigurationError(f"{name} of a simulation must be positive, not {getattr(self, name)!r}.")
        try:
            return Job(
                items=(),
                classes=classes,
                label_map_digest="",
                data_digest="",
                folder=Path(),
                architecture=self.architecture,
                encoder=self.encoder,
                encoder_weights=self.encoder_weights,
                network_options=dict(self.network_options),
                dropout=self.dropout,
                input_size=self.input_size,
                iterations=self.steps(images),
                batch_size=self.batch_size,
                learning_rate=self.learning_rate,
                train_encoder=self.train_encoder,
                device=device,
                seed=seed,
            )
        except NextmaskError as error:
            raise ConfigurationError(str(error)) from error


@dataclass(frozen=True)
class Amount:
    """A number of images, pixels or clicks, or a share of all, in (0, 1].

    >>> Amount.parse("5%", "images").of(2000), Amount.parse("12", "images").of(2000)
    (100, 12)
    """

    value: float
    is_share: bool = False

    def of(self, total: int) -> int:
        """Return the number, at least 1, given the total."""
        return max(1, round(total * self.value)) if self.is_share else int(self.value)

    @classmethod
    def parse(cls, text: str, unit: str) -> Amount:
        """Read "12" or "5%", of a unit that errors name.

        Raises:
            ConfigurationError: the text is neither, or not positive.
        """
        number = text.strip().removesuffix("%")
        try:
            value = float(number)
        except ValueError:
            value = 0.0
        is_share = text.strip().endswith("%")
        valid = 0 < value <= 100 if is_share else 1 <= value < math.inf and value == int(value)
        if not valid:
            raise ConfigurationError(
                f"{text!r} is no amount of {unit}: give a whole number from 1, such as 20, or a share up to 100%, such "
                "as 5%."
            )
        return cls(value / 100 if is_share else value, is_share)

    def __str__(self) -> str:
        return f"{self.value * 100:g}%" if self.is_share else f"{self.value:g}"


@dataclass(frozen=True)
class Contender:
    """A strategy with its options, as `--strategy` takes it: a name, or name:JSON.

    >>> Contender.parse('power_noise:{"beta": 2}')
    Contender(name='power_noise', options={'beta': 2})
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def label(self) -> str:
        """Name of the strategy with its options in results."""
        return f"{self.name}:{json.dumps(dict(self.options), sort_keys=True)}" if self.options else self.name

    def make(self) -> Strategy:
        """Return the strategy.

        Raises:
            ConfigurationError: unknown name or option; the message lists the valid ones.
        """
        try:
            return create(self.name, **self.options)
        except (ValueError, TypeError) as error:
            raise ConfigurationError(str(error)[:1000]) from error

    @classmethod
    def parse(cls, text: str) -> Contender:
        """Read a strategy with its options, and check both.

        Raises:
            ConfigurationError: the text after the colon is no JSON object, or strategy or options are unknown.
        """
        name, _, options = text.partition(":")
        try:
            values = json.loads(options) if options else {}
        except ValueError:
            values = None
        if not isinstance(values, dict):
            raise ConfigurationError(f"--strategy {text!r}: expected NAME or NAME:{{JSON of its options}}.")
        contender = cls(name, values)
        try:
            if name != FULL:
                contender.make()
        except ConfigurationError as error:
            raise ConfigurationError(f"--strategy {text!r}: {error}") from error
        return contender


@dataclass(frozen=True)
class Plan:
    """A simulation.

    Attributes:
        strategies: compared with each other; "full" is the reference that is trained on all labels.
        seeds: each strategy runs once with each; runs of the same seed start with the same images.
        start: number of images that are labelled at first, drawn at random.
        step: what the first round adds, in `unit`.
        growth: each further round adds so many times as much as the one before.
        rounds: number of rounds after the first training.
        unit: unit of `step`; strategies may choose regions of images in any unit.
        measure_on: the split that measures. "validation": the split val, or without it a fifth of the training images,
            which then cannot be chosen.
        measure_at: "original": predictions are compared with the original masks; "network": with masks shrunk to
            what the network sees, which is faster.
        point_clicks: clicks that the answer to a point counts as.
        opening_clicks: clicks that opening an image counts as, each time.
        object_class: the class whose connected components are measured as objects; None: no class is.
    """

    strategies: tuple[Contender, ...]
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    start: Amount = Amount(0.1, True)
    step: Amount = Amount(0.05, True)
    growth: float = 1.0
    rounds: int = 6
    unit: Unit = "images"
    recipe: Recipe = field(default_factory=Recipe)
    measure_on: MeasureOn = "test"
    measure_at: MeasureAt = "original"
    point_clicks: int = USUAL.point
    opening_clicks: int = USUAL.opening
    object_class: str | None = None
    device: str = "auto"

    @property
    def tariff(self) -> Tariff:
        """What annotators are charged for besides the clicks of outlines."""
        return Tariff(self.point_clicks, self.opening_clicks)

    def settings(self) -> dict[str, Any]:
        """Return all settings that change the rows of a run, by name; more rounds only add rows."""
        values = dataclasses.asdict(self)
        for name in ("strategies", "seeds", "rounds", "device"):
            del values[name]
        usual = {"point_clicks": USUAL.point, "opening_clicks": USUAL.opening, "growth": 1.0}
        for name, value in usual.items():
            if values[name] == value:  # as in files of results that do not know them
                del values[name]
        values["start"], values["step"] = str(self.start), str(self.step)
        values["recipe"] = {key: value for key, value in values["recipe"].items() if key != "score_size"}
        return values

    def settings_text(self) -> str:
        """Return the settings as JSON."""
        return json.dumps(self.settings(), sort_keys=True, separators=(",", ":"))

    def digest(self) -> str:
        """Return a short name of the settings."""
        return hashlib.sha256(self.settings_text().encode()).hexdigest()[:10]
