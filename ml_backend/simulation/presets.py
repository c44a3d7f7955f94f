"""Settings of simulations by name: "quick", which a laptop finishes, and those of four papers.

Where a paper's setting is not available, the nearest is taken, and a comment says so. Options of the command are laid
over a preset; without a preset, the settings of production (`NEXTMASK_…`) are simulated.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_backend.errors import ConfigurationError
from ml_backend.learning.training.recipe import values_of
from ml_backend.settings import Settings, load_settings
from ml_backend.simulation.plan import Amount, Contender, Plan, Recipe, Unit

_STEPS = 300
"""Steps of a training by time, about: as many as two cores take in the two minutes of a CPU's budget."""
_QUICK = Recipe(
    architecture="segformer",
    network_options={"decoder_segmentation_channels": 128},
    train_encoder=False,
    input_size=128,
    iterations=150,
    batch_size=4,
    learning_rate=2e-2,
    members=8,
)
_FCN = Recipe(
    architecture="fcn8s",
    encoder="fcn-vgg16",
    encoder_weights="none",
    network_options={"width": 0.25},
    input_size=480,
    iterations=2000,
    dropout=0.5,
)


def _contenders(*names: str) -> tuple[Contender, ...]:
    return tuple(map(Contender.parse, names))


PRESETS: dict[str, Plan] = {
    "quick": Plan(
        strategies=_contenders("full", "random", "entropy"),
        start=Amount(0.05, True),
        step=Amount(0.08, True),
        rounds=4,
        unit="clicks",
        recipe=_QUICK,
        measure_at="network",
    ),
    # Mackowiak et al. 2018: FCN-8s of width 0.25, 50 of 2,975 images first, as many pixels again in each round,
    # windows of 128 of 2,048 pixels. Random labelling reaches 95 % with 27 % of the clicks: 16 rounds get to 29 %, so
    # that it can. Different here: no ImageNet weights; images of 480 pixels; trained anew in each round.
    "cereals": Plan(
        strategies=_contenders("full", "random", "entropy", "cereals"),
        start=Amount(50 / 2975, True),
        step=Amount(50 / 2975, True),
        rounds=16,
        unit="pixels",
        recipe=_FCN,
    ),
    # Yang et al. 2017: a network like DCAN, steps of k = 8 out of K = 16 by the deviation of 4 networks on resamples,
    # past half of the 85 images of GlaS. Different here: the encoder under DCAN's decoder is the pretrained one of
    # production; the first 8 images are drawn at random.
    "suggestive_annotation": Plan(
        strategies=_contenders("full", "random", "entropy", "suggestive_annotation"),
        start=Amount(8),
        step=Amount(8),
        rounds=5,
        recipe=Recipe(architecture="dcan", input_size=384, iterations=1000),
        object_class="gland",
    ),
    # Sinha et al. 2019: a dilated residual network, 10 % and 5 % more in each round up to 40 %. Different here: not
    # pretrained; images of 480 pixels; VAAL's options are those for classification, since those for segmentation
    # (latent of 128, adversarial weight of 25) could not be confirmed: --strategy 'vaal:{"latent": 128, …}' sets them.
    "vaal": Plan(
        strategies=_contenders("full", "random", "coreset", "vaal"),
        start=Amount(0.1, True),
        step=Amount(0.05, True),
        rounds=6,
        recipe=Recipe(architecture="drn", encoder="drn22", encoder_weights="none", input_size=480, iterations=2000),
    ),
    # Gorriz et al. 2017: 600 of 2,000 images of ISIC 2017, 9 rounds of 35 images, MC dropout with T = 20. Different
    # here: the U-Net has the pretrained encoder of production; every round trains anew for 400 steps, in place of 2
    # epochs more.
    "ceal": Plan(
        strategies=_contenders("full", "random", "entropy", 'ceal:{"preset": "melanoma"}'),
        start=Amount(600),
        step=Amount(35),
        rounds=9,
        recipe=Recipe(architecture="unet", input_size=256, iterations=400, dropout=0.5, members=20),
    ),
}


def plan_of(preset: str | None, values: Mapping[str, Any], recipe: Mapping[str, Any]) -> Plan:
    """Return the plan of a preset with other values laid over it.

    Args:
        preset: name of the preset; None: the settings of production.
        values: field of `Plan` -> value; None leaves a value as it is.
        recipe: field of its `Recipe` -> value, likewise.

    Raises:
        ConfigurationError: there is no such preset.
    """
    if preset is not None and preset not in PRESETS:
        raise ConfigurationError(f"--preset {preset!r} is unknown: use {', '.join(PRESETS)}.")
    plan = _production(load_settings()) if preset is None else PRESETS[preset]
    given = _given(recipe)
    if given.get("architecture", plan.recipe.architecture) != plan.recipe.architecture:
        given.setdefault("network_options", {})  # those of the preset belong to its architecture
    changed = dataclasses.replace(plan.recipe, **given)
    return dataclasses.replace(plan, **_given(values), recipe=changed)


def unit_of(preset: str | None) -> Unit:
    """Return what the steps of a preset count; of one that is unknown, and of production, images."""
    return PRESETS[preset].unit if preset in PRESETS else "images"


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _production(settings: Settings) -> Plan:
    names = {field.name for field in dataclasses.fields(Recipe)} & set(type(settings).model_fields) - {"members"}
    values = {name: getattr(settings, name) for name in names} | values_of(settings)
    recipe = Recipe(**values | {"iterations": settings.iterations or _STEPS})
    if settings.members:
        recipe = dataclasses.replace(recipe, members=settings.members, ensemble=settings.members)
    own = Contender(settings.strategy, settings.strategy_options)
    return Plan(strategies=tuple(dict.fromkeys((*_contenders("full", "random"), own))), recipe=recipe)
