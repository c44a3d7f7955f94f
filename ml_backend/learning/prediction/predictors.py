"""Predictors of model versions: loading them, and keeping the last used in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

from ml_backend.errors import CheckpointError
from ml_backend.learning.checkpoints import Checkpoints, Version
from ml_backend.learning.networks import build, load_network, resolve_device
from ml_backend.learning.prediction.committees import Committee, load_ensemble, mc_dropout
from ml_backend.learning.prediction.predictor import Predictor
from ml_backend.settings import Settings


class PredictorCache:
    """The `capacity` last used models, in memory; each is loaded once, however many threads ask for it.

    Loading holds no lock: an older version continues to predict, and leaves only after the new version is loaded.

    Args:
        capacity: number of models.
        one_each: whether a project's other versions leave when a version is loaded.

    Raises:
        ValueError: capacity is below 1.
    """

    def __init__(self, capacity: int, *, one_each: bool = False) -> None:
        if capacity < 1:
            raise ValueError(f"capacity: expected at least 1, received {capacity}")
        self._capacity, self._one_each = capacity, one_each
        self._lock = threading.Lock()
        self._models: OrderedDict[tuple[Path, int, str], Future[Predictor]] = OrderedDict()

    def get(self, checkpoints: Checkpoints, number: int, device: str) -> Predictor:
        """Return the predictor of a version, loaded when it is not in memory.

        Args:
            checkpoints: of the project.
            number: of the version.
            device: auto, cpu, cuda or cuda:N.

        Raises:
            CheckpointError: the version is missing, damaged, or of another network than its record says.
            ConfigurationError: the device or the network is not available here.
        """
        key = (checkpoints.folder, number, device)
        with self._lock:
            is_new = key not in self._models
            future = self._models.setdefault(key, Future())
            self._models.move_to_end(key)
        if is_new:
            self._load(key, future, checkpoints)
        return future.result()

    def _load(self, key: tuple[Path, int, str], future: Future[Predictor], checkpoints: Checkpoints) -> None:
        try:
            predictor = load_predictor(checkpoints, checkpoints.get(key[1]), key[2])
        except BaseException as error:
            with self._lock:
                del self._models[key]
            future.set_exception(error)
            raise
        with self._lock:
            future.set_result(predictor)
            self._models.move_to_end(key)  # other models were used while this was loading
            loaded = [other for other, model in self._models.items() if model.done()]
            others = [other for other in loaded if self._one_each and other[0] == key[0] and other != key]
            for other in {*others, *loaded[: -self._capacity]}:
                del self._models[other]


def load_predictor(checkpoints: Checkpoints, version: Version, device: str) -> Predictor:
    """Load a version's network; arguments and errors as in `PredictorCache.get`."""
    settings, classes = version.record.settings, version.record.classes
    target = resolve_device(device)
    try:
        network = load_network(settings, len(classes), checkpoints.load_state(version))
        return Predictor(network, classes, int(settings["input_size"]), target)
    except KeyError as error:
        raise CheckpointError(
            f"The record of version {version.number} lacks the setting {error}: train again."
        ) from None
    except CheckpointError as error:
        raise CheckpointError(f"Version {version.number} cannot be loaded. {error}") from error


def fresh_predictor(settings: Settings, classes: Sequence[str]) -> Predictor:
    """Build an untrained network on a pretrained encoder: for descriptors before the first version.

    Raises:
        ConfigurationError: the network cannot be built as configured, or the device is not available here.
    """
    s = settings
    network = build(
        s.architecture,
        s.encoder,
        s.encoder_weights,
        classes=len(classes),
        dropout=s.dropout,
        options=s.network_options,
    )
    return Predictor(network, classes, s.input_size, resolve_device(s.device))


def make_committee(predictor: Predictor, checkpoints: Checkpoints, version: Version, settings: Settings) -> Committee:
    """Make the committee that is configured, for a version whose predictor is given.

    Raises:
        ConfigurationError: dropout that leaves all members the same.
        CheckpointError: the version has no ensemble, which the worker trains for strategies that ask for one, or a
            damaged one.
    """
    if settings.effective_committee == "ensemble":
        return load_ensemble(checkpoints, version, predictor.device)
    return mc_dropout(predictor.network, settings.effective_members, settings.seed)
