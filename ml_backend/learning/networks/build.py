"""From names in the configuration to a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ml_backend.errors import CheckpointError, ConfigurationError
from ml_backend.learning.networks import weights as initial
from ml_backend.learning.networks.architectures import ARCHITECTURES
from ml_backend.learning.networks.encoder_maps import MapStore
from ml_backend.learning.networks.names import TIMM_PREFIX, check_pair
from ml_backend.learning.networks.options import check_options, valid_text
from ml_backend.learning.networks.segmentation import SegmentationNetwork

_LEAST_SIDE = {"pan": 128}
"""PAN's decoder pools the deepest map, of stride 16, three times."""
_STRIDE_FACTOR = {"dpt": 2}
"""DPT's decoder halves the deepest map and expects to get the same size back."""
_MISFITS = (ValueError, TypeError, KeyError, IndexError, RuntimeError, NotImplementedError, AssertionError)
"""What smp, timm and torch raise about parts that do not go together."""


@dataclass(frozen=True)
class _Plan:
    """What is to be built: names, number of classes, options."""

    architecture: str
    encoder: str
    classes: int
    options: Mapping[str, Any] = field(default_factory=dict)

    def create(self, encoder_weights: str | bool | None) -> nn.Module:
        """Build the model; raises whatever smp, timm or torch raise."""
        if not (self.architecture == "dpt" or _wants_one_size(self.encoder)):
            return self._make(encoder_weights)
        try:
            return self._make(encoder_weights, dynamic_img_size=True)
        except TypeError:  # not a transformer that takes the option
            return self._make(encoder_weights)

    def _make(self, encoder_weights: str | bool | None, **of_encoder: Any) -> nn.Module:
        if self.architecture in ARCHITECTURES:
            own = ARCHITECTURES[self.architecture]
            return own.make(self.encoder, encoder_weights, self.classes, self.options, of_encoder)
        from segmentation_models_pytorch import create_model

        names = {"encoder_name": self.encoder, "encoder_weights": encoder_weights, "classes": self.classes}
        model: nn.Module = create_model(self.architecture, **names, **self.options, **of_encoder)
        return model

    def misfit(self, error: Exception) -> ConfigurationError:
        """Return the error for parts that do not go together."""
        reason = " ".join(str(error).split())[:300].rstrip(".")  # some of torch's go over several lines
        start = f"NEXTMASK_ARCHITECTURE = {self.architecture!r} cannot be built on NEXTMASK_ENCODER = {self.encoder!r}"
        if self.options:
            valid = valid_text(self.architecture, self.encoder)
            return ConfigurationError(
                f"{start} with NEXTMASK_NETWORK_OPTIONS = {dict(self.options)!r}: {reason}. {valid}"
            )
        return ConfigurationError(
            f"{start} for images of any size: {reason}. Choose another pair, for example 'unet' on "
            f"{initial.BUNDLED_ENCODER!r}."
        )


def build(
    architecture: str = "unet",
    encoder: str = initial.BUNDLED_ENCODER,
    encoder_weights: str = initial.BUNDLED,
    *,
    classes: int,
    dropout: float,
    options: Mapping[str, Any] | None = None,
) -> SegmentationNetwork:
    """Build a segmentation network on the CPU, in training mode.

    Args:
        architecture: name of an architecture, smp's or that of `ml_backend.learning.networks.architectures`.
        encoder: name of an smp encoder, "tu-" and that of a timm model, or an encoder of the architecture's own.
        encoder_weights: "bundled" (offline, default encoder only), "none", or a name that smp knows ("imagenet", …),
            which is downloaded. A network whose state is loaded afterwards needs "none".
        classes: number of classes C.
        dropout: share of channels dropped before the head while training, in [0, 1).
        options: keyword arguments of the architecture, as JSON has them.

    Raises:
        ConfigurationError: a name is unknown, the parts do not fit, or weights cannot be fetched.
    """
    check_pair(architecture, encoder)
    initial.check_weights(encoder, encoder_weights)
    check_options(architecture, encoder, options or {})
    if not 0 <= dropout < 1:
        raise ConfigurationError(f"NEXTMASK_DROPOUT = {dropout!r} must be at least 0 and less than 1.")
    plan = _Plan(architecture, encoder, classes, options or {})
    network = _wrap(architecture, _construct(plan), initial.IMAGENET, dropout)
    _try_out(network, plan)
    if encoder_weights == initial.NONE:
        return network
    if encoder_weights == initial.BUNDLED:
        initial.load_bundled(network.model.get_submodule("encoder"))
        return _wrap(architecture, network.model, initial.LITE, dropout)
    return _pretrained(plan, encoder_weights, dropout)


def load_network(
    settings: Mapping[str, Any], classes: int, state: Mapping[str, Tensor], maps: MapStore | None = None
) -> SegmentationNetwork:
    """Build the network that a version's settings describe, on the CPU, with its weights.

    Args:
        settings: of a version's record; `architecture`, `encoder`, `dropout`, `network_options` and `train_encoder`
            are read.
        classes: number of classes C.
        state: name -> tensor, the network's `state_dict()`.
        maps: keeps the maps of an encoder that was not trained.

    Raises:
        KeyError: a setting is missing.
        CheckpointError: the weights are another network's.
    """
    architecture, encoder = str(settings["architecture"]), str(settings["encoder"])
    network = build(
        architecture,
        encoder,
        initial.NONE,
        classes=classes,
        dropout=float(settings["dropout"]),
        options=settings.get("network_options", {}),  # records of the first versions have none
    )
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(
            f"The weights are not those of {architecture} on {encoder} with {classes} classes: roll back or train "
            f"again. {str(error)[:300]}"
        ) from error
    return network if settings.get("train_encoder", True) else network.freeze_encoder(maps)


def check_network(architecture: str, encoder: str, options: Mapping[str, Any] | None = None) -> None:
    """Raise ConfigurationError when a name is unknown or options do not fit.

    The defaults need no look: it takes seconds of imports. With options the network is built once: whether their
    values fit shows only then.
    """
    if options:
        build(architecture, encoder, initial.NONE, classes=2, dropout=0, options=options)
    elif (architecture, encoder) != ("unet", initial.BUNDLED_ENCODER):
        check_pair(architecture, encoder)


def _wrap(
    architecture: str, model: nn.Module, normalisation: initial.Normalisation, dropout: float
) -> SegmentationNetwork:
    return SegmentationNetwork(
        model,
        stride=int(getattr(model.get_submodule("encoder"), "output_stride", 32)) * _STRIDE_FACTOR.get(architecture, 1),
        least_side=_LEAST_SIDE.get(architecture, 1),
        normalisation=normalisation,
        dropout=dropout,
    )


def _construct(plan: _Plan) -> nn.Module:
    try:
        return plan.create(None)
    except _MISFITS as error:
        raise plan.misfit(error) from error


def _pretrained(plan: _Plan, encoder_weights: str, dropout: float) -> SegmentationNetwork:
    """Build with downloaded weights. The same network was built without any: what fails now is the download."""
    encoder = plan.encoder
    # timm has its tag in the model's name and takes a yes or no
    asked = True if encoder.startswith(TIMM_PREFIX) else encoder_weights
    try:
        model = plan.create(asked)
        return _wrap(plan.architecture, model, initial.normalisation_of(encoder, encoder_weights), dropout)
    except ConfigurationError:
        raise
    except Exception as error:  # whatever the HTTP client of the day raises
        raise initial.unavailable(encoder, encoder_weights, error) from error


def _wants_one_size(encoder: str) -> bool:
    """Whether a timm model takes images of a single size only, unless an option changes that."""
    import timm

    config = timm.get_pretrained_cfg(encoder.removeprefix(TIMM_PREFIX), allow_unregistered=True)
    return encoder.startswith(TIMM_PREFIX) and config is not None and bool(config.fixed_input_size)


def _try_out(network: SegmentationNetwork, plan: _Plan) -> None:
    """Run an odd-sized image: parts that do not fit fail now, and not in the middle of a training."""
    network.eval()
    try:
        with torch.no_grad():
            images = torch.zeros(1, 3, 65, 33)
            _check_logits(network, images, plan.classes)
    except _MISFITS as error:
        raise plan.misfit(error) from error
    network.train()


def _check_logits(network: SegmentationNetwork, images: Tensor, classes: int) -> None:
    """Raise ValueError unless the head's map has the padded size: a larger one would be cut off unseen."""
    height, width = network.padded_size(images.shape[-2], images.shape[-1])
    decoded, _ = network.decode(images)
    shape = tuple(network.model.get_submodule("segmentation_head")(decoded).shape)
    if shape != (1, classes, height, width):
        raise ValueError(f"the head's map is of shape {shape}, not {(1, classes, height, width)}")
