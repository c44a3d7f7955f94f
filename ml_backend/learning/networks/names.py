"""Names of architectures and encoders, and the errors for unknown names."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from ml_backend.errors import ConfigurationError
from ml_backend.learning.networks.architectures import ARCHITECTURES, OWN_ENCODERS

TIMM_PREFIX = "tu-"
"""Encoders with this prefix are timm models, all others are smp's own."""


def architectures() -> list[str]:
    """Return the valid names of architectures."""
    from segmentation_models_pytorch import MODEL_ARCHITECTURES_MAPPING  # seconds of imports

    return sorted([*MODEL_ARCHITECTURES_MAPPING, *ARCHITECTURES])


def check_architecture(name: str) -> None:
    """Raise ConfigurationError when there is no such architecture; the message lists those that exist."""
    if name not in (valid := architectures()):
        ordered = _close_first(name, valid)
        raise ConfigurationError(f"NEXTMASK_ARCHITECTURE = {name!r} is unknown. Valid: {', '.join(ordered)}.")


def check_pair(architecture: str, encoder: str) -> None:
    """Raise ConfigurationError when a name is unknown, or the architecture does not take the encoder."""
    check_architecture(architecture)
    wanted = ARCHITECTURES.get(architecture)
    if encoder in OWN_ENCODERS and OWN_ENCODERS[encoder] != architecture:
        raise ConfigurationError(
            f"NEXTMASK_ENCODER = {encoder!r} belongs to NEXTMASK_ARCHITECTURE = {OWN_ENCODERS[encoder]!r}, not to "
            f"{architecture!r}. Change one of the two."
        )
    if encoder in OWN_ENCODERS:
        return
    if wanted is not None and wanted.over is None:
        raise ConfigurationError(
            f"NEXTMASK_ENCODER = {encoder!r} does not go with NEXTMASK_ARCHITECTURE = {architecture!r}, which has "
            f"encoders of its own: set it to {', '.join(wanted.own)}, and NEXTMASK_ENCODER_WEIGHTS to 'none'."
        )
    check_encoder(encoder)


def check_encoder(name: str) -> None:
    """Raise ConfigurationError when smp and timm have no such encoder; the message lists those that exist."""
    import timm
    from segmentation_models_pytorch.encoders import get_encoder_names

    own = get_encoder_names()
    is_known = timm.is_model(name.removeprefix(TIMM_PREFIX)) if name.startswith(TIMM_PREFIX) else name in own
    if not is_known:
        universal = [f"{TIMM_PREFIX}{model}" for model in timm.list_models()]
        similar = difflib.get_close_matches(name, [*own, *OWN_ENCODERS, *universal], n=5)
        hint = f"Did you mean {', '.join(similar)}? " if similar else ""
        raise ConfigurationError(
            f"NEXTMASK_ENCODER = {name!r} is unknown. {hint}Valid: {TIMM_PREFIX}NAME with any timm model that gives "
            f"feature maps, and {', '.join(_close_first(name, own))}; with one architecture each: "
            f"{', '.join(f'{encoder} ({owner})' for encoder, owner in OWN_ENCODERS.items())}."
        )


def _close_first(name: str, valid: Sequence[str]) -> list[str]:
    similar = difflib.get_close_matches(name, valid, n=5)
    return [*similar, *(other for other in valid if other not in similar)]
