"""The predictors that are kept in memory. Importing this takes no torch: a model is loaded when it is asked for."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING

from ml_backend.learning.checkpoints import Checkpoints
from ml_backend.system.files import Files

if TYPE_CHECKING:
    from ml_backend.learning.networks import MapStore
    from ml_backend.learning.prediction.predictor import Predictor


class PredictorCache:
    """The `capacity` last used models, in memory; each is loaded once, however many threads ask for it.

    Loading holds no lock: an older version continues to predict, and leaves only after the new version is loaded.

    Args:
        capacity: number of models.
        one_each: whether a project's other versions leave when a version is loaded.
        maps: returns what keeps the maps of encoders that are not trained; asked when a model is loaded.

    Raises:
        ValueError: capacity is below 1.
    """

    def __init__(
        self, capacity: int, *, one_each: bool = False, maps: Callable[[], MapStore | None] = lambda: None
    ) -> None:
        if capacity < 1:
            raise ValueError(f"capacity: expected at least 1, received {capacity}")
        self._capacity, self._one_each, self._maps = capacity, one_each, maps
        self._lock = threading.Lock()
        self._models: OrderedDict[tuple[Files, int, str], Future[Predictor]] = OrderedDict()

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
        key = (checkpoints.files, number, device)
        with self._lock:
            is_new = key not in self._models
            future = self._models.setdefault(key, Future())
            self._models.move_to_end(key)
        if is_new:
            self._load(key, future, checkpoints)
        return future.result()

    def _load(self, key: tuple[Files, int, str], future: Future[Predictor], checkpoints: Checkpoints) -> None:
        try:
            from ml_backend.learning.prediction.predictors import load_predictor  # takes torch with it

            predictor = load_predictor(checkpoints, checkpoints.get(key[1]), key[2], self._maps())
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
