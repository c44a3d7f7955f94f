"""Options of networks: their names, and the error for an unknown option."""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Mapping
from typing import Any

from ml_backend.errors import ConfigurationError
from ml_backend.learning.networks.architectures import ARCHITECTURES

_SET_ELSEWHERE = frozenset({"encoder_name", "encoder_weights", "in_channels", "classes", "activation", "aux_params"})
"""Of smp's keyword arguments: what has a setting of its own, and what would give something else than logits."""


def valid_options(architecture: str, encoder: str) -> list[str]:
    """Return the names of an architecture's options; those of smp's are keyword arguments of its class."""
    if architecture in ARCHITECTURES:
        return ARCHITECTURES[architecture].options(encoder)
    from segmentation_models_pytorch import MODEL_ARCHITECTURES_MAPPING  # seconds of imports

    parameters = inspect.signature(MODEL_ARCHITECTURES_MAPPING[architecture]).parameters.values()
    named = [parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
    return [name for name in named if name not in _SET_ELSEWHERE]


def check_options(architecture: str, encoder: str, options: Mapping[str, Any]) -> None:
    """Raise ConfigurationError when an option is unknown or no JSON; whether values fit shows when they are used."""
    if not options:
        return
    valid = valid_options(architecture, encoder)
    unknown = [name for name in options if name not in valid]
    if unknown:
        similar = difflib.get_close_matches(str(unknown[0]), valid, n=1)
        hint = f"Did you mean {similar[0]!r}? " if similar else ""
        raise ConfigurationError(
            f"NEXTMASK_NETWORK_OPTIONS = {dict(options)!r}: {unknown[0]!r} is no option of NEXTMASK_ARCHITECTURE = "
            f"{architecture!r} on NEXTMASK_ENCODER = {encoder!r}. {hint}{valid_text(architecture, encoder)}"
        )
    try:
        json.dumps(dict(options), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"NEXTMASK_NETWORK_OPTIONS = {dict(options)!r} is no JSON object: {error}.") from None


def valid_text(architecture: str, encoder: str) -> str:
    """Return a sentence that names the valid options; without any, the encoders that have some."""
    if valid := valid_options(architecture, encoder):
        return f"Valid: {', '.join(valid)}."
    others = ARCHITECTURES[architecture].own if architecture in ARCHITECTURES else ()
    hints = [f"; on {other} there is {', '.join(valid_options(architecture, other))}" for other in others]
    return f"It has none{''.join(hints)}."
