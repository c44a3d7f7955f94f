"""Predictors: of a version, and of a network that was not trained yet; and the committee beside a version."""

from __future__ import annotations

from collections.abc import Sequence

from ml_backend.errors import CheckpointError
from ml_backend.learning.checkpoints import Checkpoints, Version
from ml_backend.learning.networks import MapFolder, MapStore, build, load_network, resolve_device
from ml_backend.learning.networks.recipe import network_of
from ml_backend.learning.prediction.committees import Committee, load_ensemble, mc_dropout
from ml_backend.learning.prediction.predictor import Predictor
from ml_backend.settings import Settings


def load_predictor(checkpoints: Checkpoints, version: Version, device: str, maps: MapStore | None = None) -> Predictor:
    """Load a version's network; arguments and errors as in `PredictorCache.get`.

    Args:
        maps: keeps the maps of an encoder that was not trained.
    """
    settings, classes = version.record.settings, version.record.classes
    target = resolve_device(device)
    try:
        network = load_network(settings, len(classes), checkpoints.load_state(version), maps)
        return Predictor(network, classes, int(settings["input_size"]), target, maps)
    except KeyError as error:
        raise CheckpointError(
            f"The record of version {version.number} lacks the setting {error}: train again."
        ) from None
    except CheckpointError as error:
        raise CheckpointError(f"Version {version.number} cannot be loaded. {error}") from error


def fresh_predictor(settings: Settings, classes: Sequence[str], device: str = "") -> Predictor:
    """Build an untrained network on a pretrained encoder: for descriptors before the first version.

    Maps of the encoder are kept for the trainings that follow, where it is not trained by them.

    Args:
        device: where it predicts; empty: as the settings say.

    Raises:
        ConfigurationError: the network cannot be built as configured, or the device is not available here.
    """
    s = settings
    architecture, options = network_of(s)
    network = build(
        architecture, s.encoder, s.encoder_weights, classes=len(classes), dropout=s.dropout, options=options
    )
    network.freeze_encoder(MapFolder(s.maps_folder, s.maps_bytes))
    return Predictor(network, classes, s.input_size, resolve_device(device or s.device))


def make_committee(predictor: Predictor, checkpoints: Checkpoints, version: Version, settings: Settings) -> Committee:
    """Make the committee that is configured, for a version whose predictor is given.

    Raises:
        ConfigurationError: dropout that leaves all members the same.
        CheckpointError: the version has no ensemble, which the worker trains for strategies that ask for one, or a
            damaged one.
    """
    if settings.effective_committee == "ensemble":
        return load_ensemble(checkpoints, version, predictor.device, predictor.maps)
    return mc_dropout(predictor.network, settings.effective_members, settings.seed)
