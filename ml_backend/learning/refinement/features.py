"""The refiner on the project's own network; before the first training, on its pretrained encoder alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ml_backend.errors import OutOfMemory
from ml_backend.learning.networks import is_out_of_memory
from ml_backend.learning.prediction.predictor import Predictor
from ml_backend.learning.refinement.agreement import agreed
from ml_backend.learning.refinement.looks import Look, look
from ml_backend.learning.refinement.prompts import Pixels, Prompt, about
from ml_backend.learning.refinement.refiner import Kept
from ml_backend.system.memory import release_freed_memory

T = TypeVar("T")

KEPT_BYTES = 128_000_000
"""Of what is kept of images: some thirty of them at the default input size."""


class FeatureRefiner:
    """Corrects the network's mask by prompts; see `Refiner`.

    Args:
        predictor: of the version that serves; or `fresh_predictor`'s, whose classes are not listened to.
        is_trained: whether the predictor's network learned its classes.
        most_bytes: of what is kept of images.
    """

    def __init__(self, predictor: Predictor, *, is_trained: bool = True, most_bytes: int = KEPT_BYTES) -> None:
        self._predictor, self._is_trained = predictor, is_trained
        self._looks = Kept[Look](most_bytes)

    def refine(self, image: npt.NDArray[np.uint8], key: str, target: int, prompts: Sequence[Prompt]) -> Pixels:
        """See `Refiner.refine`. A class that the network does not know follows the image and the prompts alone."""
        return self._with_room(lambda: self._refined(image, key, target, prompts))

    def prepare(self, image: npt.NDArray[np.uint8], key: str) -> None:
        """See `Refiner.prepare`."""
        self._with_room(lambda: self._look(image, key))

    def release(self) -> None:
        """See `Refiner.release`."""
        self._looks.clear()
        release_freed_memory()

    @property
    def nbytes(self) -> int:
        """Bytes of all that is kept of images."""
        return self._looks.nbytes

    def _refined(self, image: npt.NDArray[np.uint8], key: str, target: int, prompts: Sequence[Prompt]) -> Pixels:
        known = self._look(image, key)
        size = (image.shape[0], image.shape[1])
        return agreed(known, target, about(target, prompts, *size), size)

    def _look(self, image: npt.NDArray[np.uint8], key: str) -> Look:
        return self._looks.get(key, lambda: look(self._predictor.encoded(image), is_trained=self._is_trained))

    def _with_room(self, work: Callable[[], T]) -> T:
        """Do some work; where memory runs out, once more after everything that is kept was given back."""
        try:
            return work()
        except (OutOfMemory, MemoryError, RuntimeError) as error:
            if not (isinstance(error, OutOfMemory) or is_out_of_memory(error)):
                raise
        self.release()  # out of the handler, whose traceback keeps what was computed alive
        try:
            return work()
        except MemoryError:
            raise OutOfMemory("The image does not fit into memory. Lower NEXTMASK_INPUT_SIZE.") from None
