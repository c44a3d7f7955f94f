"""Names of architectures and encoders, and what is said about unknown ones."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from ml_backend.errors import ConfigurationError

TIMM_PREFIX = "tu-"
"""Encoders with this prefix are timm models, all others are smp's own."""


_DEFAULTS = ("unet", "tu-tf_efficientnet_lite0")


def check_network(architecture: str, encoder: str) -> None:
    """Raise ConfigurationError when a name is unknown. The defaults need no look: it takes seconds of imports."""
    if (architecture, encoder) != _DEFAULTS:
        check_architecture(architecture)
        check_encoder(encoder)


def architectures() -> list[str]:
    """Return the valid names of architectures."""
    from segmentation_models_pytorch import MODEL_ARCHITECTURES_MAPPING  # seconds of imports

    return sorted(MODEL_ARCHITECTURES_MAPPING)


def check_architecture(name: str) -> None:
    """Raise ConfigurationError when there is no such architecture; the message lists those that exist."""
    if name not in (valid := architectures()):
        ordered = _close_first(name, valid)
        raise ConfigurationError(f"NEXTMASK_ARCHITECTURE = {name!r} is unknown. Valid: {', '.join(ordered)}.")


def check_encoder(name: str) -> None:
    """Raise ConfigurationError when there is no such encoder; the message lists those that exist."""
    import timm
    from segmentation_models_pytorch.encoders import get_encoder_names

    own = get_encoder_names()
    is_known = timm.is_model(name.removeprefix(TIMM_PREFIX)) if name.startswith(TIMM_PREFIX) else name in own
    if not is_known:
        universal = [f"{TIMM_PREFIX}{model}" for model in timm.list_models()]
        similar = difflib.get_close_matches(name, [*own, *universal], n=5)
        hint = f"Did you mean {', '.join(similar)}? " if similar else ""
        raise ConfigurationError(
            f"NEXTMASK_ENCODER = {name!r} is unknown. {hint}Valid: {TIMM_PREFIX}NAME with any timm model that gives "
            f"feature maps, and {', '.join(_close_first(name, own))}."
        )


def _close_first(name: str, valid: Sequence[str]) -> list[str]:
    similar = difflib.get_close_matches(name, valid, n=5)
    return [*similar, *(other for other in valid if other not in similar)]
