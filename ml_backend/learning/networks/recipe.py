"""How a network is made and trained where the settings leave it open: by the device.

On a CPU the pretrained encoder stays as it is: its maps are computed once per image and kept, and a small decoder
learns from them. On a GPU the encoder learns, too. docs/benchmarks.md has the measurements of the CPU's; the GPU's is
that of the releases before, and not measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ml_backend.learning.networks.architectures import OWN_ENCODERS
from ml_backend.learning.networks.devices import device_type
from ml_backend.settings import AUTO


@dataclass(frozen=True)
class Recipe:
    """What is best on a device.

    Attributes:
        batch_size: images per step.
        learning_rate: peak rate of the decoder.
        minutes: time of a training.
    """

    architecture: str
    train_encoder: bool
    batch_size: int
    learning_rate: float
    minutes: float
    network_options: Mapping[str, Any] = field(default_factory=dict)


RECIPES = {
    "cpu": Recipe(
        architecture="fpn",
        network_options={"decoder_pyramid_channels": 128, "decoder_segmentation_channels": 64},
        train_encoder=False,
        batch_size=4,
        learning_rate=3e-3,
        minutes=2.0,
    ),
    "cuda": Recipe(architecture="unet", train_encoder=True, batch_size=8, learning_rate=3e-3, minutes=5.0),
}


class Asked(Protocol):
    """What settings and jobs say of a network; `AUTO` leaves it to the recipe."""

    @property
    def architecture(self) -> str: ...  # noqa: D102 (see Settings)
    @property
    def encoder(self) -> str: ...  # noqa: D102
    @property
    def network_options(self) -> Mapping[str, Any]: ...  # noqa: D102
    @property
    def device(self) -> str: ...  # noqa: D102


def network_of(asked: Asked) -> tuple[str, dict[str, Any]]:
    """Return the architecture and its options: as asked for, and by the recipe where that is left open.

    Options that are asked for take the place of the recipe's.
    """
    options = dict(asked.network_options)
    if asked.architecture != AUTO:
        return asked.architecture, options
    if asked.encoder in OWN_ENCODERS:
        return OWN_ENCODERS[asked.encoder], options
    recipe = RECIPES[device_type(asked.device)]
    return recipe.architecture, options or dict(recipe.network_options)
