"""The options of a plan as a person gives them, read into a plan; errors name the option."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

from ml_backend.errors import ConfigurationError
from ml_backend.simulation.plan import Amount, Contender, MeasureAt, MeasureOn, Plan, Recipe, Unit
from ml_backend.simulation.presets import plan_of, unit_of
from ml_backend.simulation.results import FULL
from ml_backend.simulation.seeds import seeds_of
from strategies.catalogue import importable

_ALL = "all"
"""In the place of a strategy: all strategies."""
_NONE = "none"
"""In the place of a class: no class."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options as they are given on the command line, each under the name of its option; None: not given.

    Attributes:
        preset: name of a preset, over which the other options are laid; None: over the settings of production.
        strategy: each NAME or NAME:{JSON of its options}; "all" is every strategy.
        seeds: how many, which count from 0, or the first and the last, such as "100-109".
        start, step: a whole number or a share, such as "12" or "5%"; see `Amount`.
        unit, measure_on, measure_at: see `Plan`, whose values they name.
        object_class: name of a class; "none": no objects are measured.
        network_options: a JSON object.
        members: T of a committee of MC dropout; the number of networks of an ensemble stays.
    """

    preset: str | None = None
    strategy: Sequence[str] | None = None
    seeds: str | None = None
    start: str | None = None
    step: str | None = None
    growth: float | None = None
    rounds: int | None = None
    unit: str | None = None
    architecture: str | None = None
    encoder: str | None = None
    encoder_weights: str | None = None
    network_options: str | None = None
    train_encoder: bool | None = None
    dropout: float | None = None
    input_size: int | None = None
    iterations: int | None = None
    passes: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    members: int | None = None
    measure_on: str | None = None
    measure_at: str | None = None
    point_clicks: int | None = None
    opening_clicks: int | None = None
    object_class: str | None = None
    device: str | None = None

    def plan(self) -> Plan:
        """Return the plan.

        Raises:
            ConfigurationError: an option cannot be read; the message begins with its name.
        """
        unit = _choice("--unit", self.unit, get_args(Unit))
        values = {
            "strategies": _contenders(self.strategy),
            "seeds": None if self.seeds is None else seeds_of("--seeds", self.seeds),
            "start": _amount("--start", self.start, "images"),
            "step": _amount("--step", self.step, unit or unit_of(self.preset)),
            "growth": self.growth,
            "rounds": self.rounds,
            "unit": unit,
            "measure_on": _choice("--measure-on", self.measure_on, get_args(MeasureOn)),
            "measure_at": _choice("--measure-at", self.measure_at, get_args(MeasureAt)),
            "point_clicks": self.point_clicks,
            "opening_clicks": self.opening_clicks,
            "object_class": self.object_class,
            "device": self.device,
        }
        shared = {field.name for field in dataclasses.fields(Recipe)} & vars(self).keys()
        recipe = {name: getattr(self, name) for name in shared}
        recipe["network_options"] = _json("--network-options", self.network_options)
        plan = plan_of(self.preset, values, recipe)
        return dataclasses.replace(plan, object_class=None) if self.object_class == _NONE else plan


def _contenders(texts: Sequence[str] | None) -> tuple[Contender, ...] | None:
    """Read strategies, each once, after the reference that they are measured by; None where none is given."""
    if not texts:
        return None
    names = [FULL, *(name for text in texts for name in (importable() if text == _ALL else (text,)))]
    return tuple({contender.label: contender for contender in map(Contender.parse, names)}.values())


def _amount(option: str, text: str | None, unit: str) -> Amount | None:
    try:
        return None if text is None else Amount.parse(text, unit)
    except ConfigurationError as error:
        raise ConfigurationError(f"{option} {error}") from None


def _choice(option: str, value: str | None, valid: Sequence[str]) -> str | None:
    if value is not None and value not in valid:
        raise ConfigurationError(f"{option} {value!r} is unknown: use {', '.join(valid)}.")
    return value


def _json(option: str, text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise ConfigurationError(f"{option} {text!r} is no JSON object such as '{{\"width\": 0.25}}'.")
    return values
