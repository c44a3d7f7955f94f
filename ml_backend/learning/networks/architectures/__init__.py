"""The survey's architectures that smp does not have, a module each, and their names in configurations.

Each is made over any encoder of smp and timm, over encoders of its own, or both. What a maker takes by keyword are the
architecture's options.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ml_backend.learning.networks.architectures import dcan, drn, fcn8s, segnet
from ml_backend.learning.networks.architectures.blocks import EncoderDecoder


@dataclass(frozen=True)
class Architecture:
    """How an architecture is made.

    Attributes:
        over: (encoder, classes, **options) -> model, over an encoder that smp made; None: it takes none of these.
        own: name of an encoder that belongs to the architecture -> (classes, **options) -> model.
    """

    over: Callable[..., EncoderDecoder] | None = None
    own: Mapping[str, Callable[..., EncoderDecoder]] = field(default_factory=dict)

    def options(self, encoder: str) -> list[str]:
        """Return the names of the options that there are with this encoder."""
        maker = self.own.get(encoder) or self.over
        parameters = {} if maker is None else inspect.signature(maker).parameters
        return [name for name, parameter in parameters.items() if parameter.kind is parameter.KEYWORD_ONLY]

    def make(
        self,
        encoder: str,
        encoder_weights: str | bool | None,
        classes: int,
        options: Mapping[str, Any],
        of_encoder: Mapping[str, Any],
    ) -> EncoderDecoder:
        """Build the model over its own encoder, or over smp's of this name, with these weights and `of_encoder`.

        Raises:
            ValueError: an option has a value that does not fit, or the architecture does not take the encoder.
        """
        if encoder in self.own:
            return self.own[encoder](classes, **options)
        if self.over is None:
            raise ValueError(f"the encoder must be one of: {', '.join(self.own)}")
        from segmentation_models_pytorch.encoders import get_encoder  # seconds of imports

        made = get_encoder(encoder, in_channels=3, depth=5, weights=encoder_weights, **of_encoder)
        return self.over(made, classes, **options)


ARCHITECTURES: Mapping[str, Architecture] = {
    "dcan": Architecture(over=dcan.over),
    "drn": Architecture(own={"drn22": drn.of_drn22}),
    "fcn8s": Architecture(over=fcn8s.over, own={"fcn-vgg16": fcn8s.of_vgg16}),
    "segnet": Architecture(own={"segnet-vgg16": segnet.of_vgg16}),
}
OWN_ENCODERS: Mapping[str, str] = {
    encoder: name for name, architecture in ARCHITECTURES.items() for encoder in architecture.own
}
"""Encoder -> the architecture that it belongs to. None of them has pretrained weights."""
