"""From names in the configuration to a network."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ml_backend.errors import ConfigurationError
from ml_backend.networks import weights as initial
from ml_backend.networks.names import TIMM_PREFIX, check_architecture, check_encoder
from ml_backend.networks.segmentation import SegmentationNetwork

_LEAST_SIDE = {"pan": 128}
"""PAN's decoder pools the deepest map, of stride 16, three times."""
_STRIDE_FACTOR = {"dpt": 2}
"""DPT's decoder halves the deepest map and expects to get the same size back."""


def build(
    architecture: str = "unet",
    encoder: str = initial.BUNDLED_ENCODER,
    encoder_weights: str = initial.BUNDLED,
    *,
    classes: int,
    dropout: float,
) -> SegmentationNetwork:
    """Build a segmentation network on the CPU, in training mode.

    Args:
        architecture: name of an smp architecture.
        encoder: name of an smp encoder, or "tu-" and that of a timm model.
        encoder_weights: "bundled" (offline, default encoder only), "none", or a name that smp knows ("imagenet", …),
            which is downloaded. A network whose state is loaded afterwards needs "none".
        classes: number of classes C.
        dropout: share of channels dropped before the head while training, in [0, 1).

    Raises:
        ConfigurationError: a name is unknown, the two do not fit, or weights cannot be fetched.
    """
    check_architecture(architecture)
    check_encoder(encoder)
    initial.check_weights(encoder, encoder_weights)
    if not 0 <= dropout < 1:
        raise ConfigurationError(f"NEXTMASK_DROPOUT = {dropout!r} must be at least 0 and less than 1.")
    network = _wrap(architecture, _construct(architecture, encoder, classes), initial.IMAGENET, dropout)
    _try_out(network, architecture, encoder)
    if encoder_weights == initial.NONE:
        return network
    if encoder_weights == initial.BUNDLED:
        initial.load_bundled(network.model.get_submodule("encoder"))
        return _wrap(architecture, network.model, initial.LITE, dropout)
    return _pretrained(architecture, encoder, encoder_weights, classes, dropout)


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


def _construct(architecture: str, encoder: str, classes: int) -> nn.Module:
    try:
        return _create(architecture, encoder, None, classes)
    except (ValueError, KeyError, TypeError, RuntimeError, NotImplementedError, AssertionError) as error:
        raise _misfit(architecture, encoder, error) from error


def _pretrained(
    architecture: str, encoder: str, encoder_weights: str, classes: int, dropout: float
) -> SegmentationNetwork:
    """Build with downloaded weights. The same network was built without any: what fails now is the download."""
    # timm has its tag in the model's name and takes a yes or no
    asked = True if encoder.startswith(TIMM_PREFIX) else encoder_weights
    try:
        model = _create(architecture, encoder, asked, classes)
        return _wrap(architecture, model, initial.normalisation_of(encoder, encoder_weights), dropout)
    except ConfigurationError:
        raise
    except Exception as error:  # whatever the HTTP client of the day raises
        raise initial.unavailable(encoder, encoder_weights, error) from error


def _create(architecture: str, encoder: str, encoder_weights: str | bool | None, classes: int) -> nn.Module:
    from segmentation_models_pytorch import create_model

    options: dict[str, Any] = {"encoder_name": encoder, "encoder_weights": encoder_weights, "classes": classes}
    if not (architecture == "dpt" or _wants_one_size(encoder)):
        model: nn.Module = create_model(architecture, **options)
        return model
    try:
        model = create_model(architecture, **options, dynamic_img_size=True)
    except TypeError:  # not a transformer that can be told so
        model = create_model(architecture, **options)
    return model


def _wants_one_size(encoder: str) -> bool:
    """Say whether a timm model takes images of one size only, unless it is told otherwise."""
    import timm

    config = timm.get_pretrained_cfg(encoder.removeprefix(TIMM_PREFIX), allow_unregistered=True)
    return encoder.startswith(TIMM_PREFIX) and config is not None and bool(config.fixed_input_size)


def _try_out(network: SegmentationNetwork, architecture: str, encoder: str) -> None:
    """Run one odd-sized image: whatever cannot work shows now, and not in the middle of a training."""
    network.eval()
    try:
        with torch.no_grad():
            network(torch.zeros(1, 3, 65, 33))
    except (ValueError, TypeError, IndexError, RuntimeError, NotImplementedError, AssertionError) as error:
        raise _misfit(architecture, encoder, error) from error
    network.train()


def _misfit(architecture: str, encoder: str, error: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"NEXTMASK_ARCHITECTURE = {architecture!r} cannot be built on NEXTMASK_ENCODER = {encoder!r} for images of any "
        f"size: {str(error)[:300]}. Choose another pair, for example 'unet' on {initial.BUNDLED_ENCODER!r}."
    )
