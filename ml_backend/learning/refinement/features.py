"""The refiner on the project's own network; before the first training, on its pretrained encoder alone."""

from __future__ import annotations

from collections.abc import Sequence

from ml_backend.learning.prediction.predictor import Predictor
from ml_backend.learning.refinement.agreement import agreed
from ml_backend.learning.refinement.looks import Look, look
from ml_backend.learning.refinement.prompts import Pixels, Prompt, standing_for
from ml_backend.learning.refinement.refiner import KEPT_BYTES, Image, Refiner, Size


class FeatureRefiner(Refiner[Look]):
    """Corrects the network's mask by prompts. A class that it does not know follows the image and the prompts alone.

    Args:
        predictor: of the version that serves; or `fresh_predictor`'s, whose classes are not listened to.
        is_trained: whether the predictor's network learned its classes.
        most_bytes: of what is kept of images.
    """

    too_large = "The image does not fit into memory. Lower NEXTMASK_INPUT_SIZE."

    def __init__(self, predictor: Predictor, *, is_trained: bool = True, most_bytes: int = KEPT_BYTES) -> None:
        super().__init__(most_bytes)
        self._predictor, self._is_trained = predictor, is_trained

    def _computed(self, images: Sequence[Image]) -> list[Look]:
        return [look(self._predictor.encoded(image), is_trained=self._is_trained) for image in images]

    def _mask(self, kept: Look, target: int, prompts: list[Prompt], size: Size, drawn: Pixels | None) -> Pixels:
        if drawn is not None:
            prompts = [*standing_for(drawn, target, prompts), *prompts]
        return agreed(kept, target, prompts, size, drawn)
