"""The refiner on the project's own network; before the first training, on its pretrained encoder alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from ml_backend.errors import OutOfMemory
from ml_backend.learning.prediction.predictor import Predictor
from ml_backend.learning.refinement.agreement import agreed
from ml_backend.learning.refinement.looks import Look, look
from ml_backend.learning.refinement.prompts import Pixels, Prompt, about, standing_for
from ml_backend.learning.refinement.refiner import KEPT_BYTES, Kept, with_room
from ml_backend.system.memory import release_freed_memory


class FeatureRefiner:
    """Corrects the network's mask by prompts; see `Refiner`.

    Args:
        predictor: of the version that serves; or `fresh_predictor`'s, whose classes are not listened to.
        is_trained: whether the predictor's network learned its classes.
        most_bytes: of what is kept of images.
    """

    together = 1

    def __init__(self, predictor: Predictor, *, is_trained: bool = True, most_bytes: int = KEPT_BYTES) -> None:
        self._predictor, self._is_trained = predictor, is_trained
        self._looks = Kept[Look](most_bytes)

    def refine(
        self,
        image: npt.NDArray[np.uint8],
        key: str,
        target: int,
        prompts: Sequence[Prompt],
        drawn: Pixels | None = None,
    ) -> Pixels:
        """See `Refiner.refine`. A class that the network does not know follows the image and the prompts alone."""
        return with_room(lambda: self._refined(image, key, target, prompts, drawn), self.release, _too_large)

    def prepare(self, images: Mapping[str, npt.NDArray[np.uint8]]) -> None:
        """See `Refiner.prepare`."""
        for key, image in images.items():
            with_room(partial(self._look, image, key), self.release, _too_large)

    def release(self) -> None:
        """See `Refiner.release`."""
        self._looks.clear()
        release_freed_memory()

    @property
    def nbytes(self) -> int:
        """Bytes of all that is kept of images."""
        return self._looks.nbytes

    def _refined(
        self,
        image: npt.NDArray[np.uint8],
        key: str,
        target: int,
        prompts: Sequence[Prompt],
        drawn: Pixels | None,
    ) -> Pixels:
        known = self._look(image, key)
        size = (image.shape[0], image.shape[1])
        said = about(target, prompts, *size)
        if drawn is not None:
            said = [*standing_for(drawn, target, said), *said]
        return agreed(known, target, said, size, drawn)

    def _look(self, image: npt.NDArray[np.uint8], key: str) -> Look:
        return self._looks.get(key, lambda: look(self._predictor.encoded(image), is_trained=self._is_trained))


def _too_large() -> OutOfMemory:
    return OutOfMemory("The image does not fit into memory. Lower NEXTMASK_INPUT_SIZE.")
