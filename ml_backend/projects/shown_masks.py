"""Renders the masks that annotators are shown."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ml_backend.annotations import masks
from ml_backend.annotations.boxes import Query
from ml_backend.annotations.label_map import IGNORE_INDEX, LabelMap
from ml_backend.annotations.query_regions import write_rectangles
from ml_backend.errors import CheckpointError, ImageError, MaskError, OutOfMemory
from ml_backend.images.decoding import Array
from ml_backend.images.references import shown_reference
from ml_backend.learning.checkpoints import Version
from ml_backend.projects.parts import merged_mask, parts_of
from ml_backend.projects.services import Services
from ml_backend.store import Task

if TYPE_CHECKING:
    from ml_backend.learning.prediction.predictor import Predictor

logger = logging.getLogger(__name__)

_PIXELS_AT_ONCE = 50_000_000
"""Images are decoded until they have so many pixels together, 3 bytes each; then they are predicted."""


@dataclass(frozen=True)
class Shown:
    """A predicted mask as Label Studio regions and as PNG of class indices (of the current label map).

    Attributes:
        size: (height, width) of the image.
    """

    regions: Sequence[Mapping[str, Any]]
    png: bytes
    size: tuple[int, int]


def _pass() -> None:
    """Check nothing: a server needs no lease."""


class MaskRenderer:
    """Predicts the masks that annotators are shown, for one project with one model version.

    Args:
        model: the version that predicts; None before the first training: then nothing is predicted.
        check: raises LeaseLost when this process must stop.
    """

    def __init__(
        self,
        services: Services,
        project_id: int,
        model: Version | None,
        label_map: LabelMap,
        *,
        check: Callable[[], None] = _pass,
    ) -> None:
        self._services, self._settings, self._id = services, services.settings, project_id
        self._model, self._label_map, self._check = model, label_map, check

    # -- what is asked for --------------------------------------------------------------------------------------------
    @cached_property
    def queries(self) -> Mapping[int, Query]:
        """What the ranking asks for of unlabelled tasks, where the configuration can show it, by task id."""
        if self._label_map.query_control is None:
            return {}
        return self._services.store.ranked_queries(self._id, status="unlabelled")

    def regions(self, shown: Shown, query: Query | None) -> list[Mapping[str, Any]]:
        """Return what an annotator is shown: the mask and, over it, the rectangles of what is asked for."""
        boxes = query.boxes if query else ()
        return [*shown.regions, *write_rectangles(boxes, self._label_map, shown.size)]

    @cached_property
    def _parts(self) -> Mapping[str, Sequence[Task]]:
        """The labels of parts, by image."""
        by_image: dict[str, list[Task]] = defaultdict(list)
        if self._label_map.query_control is None:
            return by_image
        for task in parts_of(self._services.store.tasks_in_parts(self._id)):
            by_image[task.image].append(task)
        return by_image

    # -- masks --------------------------------------------------------------------------------------------------------
    def render(self, tasks: Sequence[Task]) -> Iterator[Rendered]:
        """Predict the masks of tasks, in order; without a model, or without an image, there is none."""
        for task, shown in zip(tasks, self.show([task.image for task in tasks]), strict=True):
            self._check()
            if isinstance(shown, Shown):
                query = self.queries.get(task.task_id)
                yield Rendered(task, self.regions(shown, query), shown.png, query)
                continue
            if shown is not None:
                self._services.store.set_task_error(self._id, task.task_id, str(shown))
            if shown is None or isinstance(shown, OutOfMemory):  # a person can label it all the same
                yield Rendered(task, (), None)

    def show(self, references: Sequence[str], *, deadline: float | None = None) -> Iterator[Shown | ImageError | None]:
        """Predict masks for image references, one answer each, in order.

        Args:
            deadline: time on `time.monotonic`'s clock after which the rest is answered with an ImageError; so it
                is when the server has to end.

        Yields:
            The mask; None where there is no model yet; an ImageError where the image cannot be had, an OutOfMemory
            where it does not fit into memory.
        """
        if self._model is None:
            yield from [None] * len(references)
            return
        predictor, answered = self._predictor(), 0
        with closing(self._services.images_of(self._id).arrays(references)) as images:
            for chunk in _chunks(images, self._settings.batch_size):
                good = [image for image in chunk if not isinstance(image, ImageError)]
                predictions = iter(predictor.predict_each(good) if good else [])
                for reference, image in zip(references[answered:], chunk, strict=False):
                    found = image if isinstance(image, ImageError) else next(predictions)
                    yield found if isinstance(found, ImageError) else self._drawn(found.mask, reference)
                answered += len(chunk)
                if self._services.stopping.is_set() or (deadline is not None and time.monotonic() > deadline):
                    break
        for reference in references[answered:]:
            yield ImageError(
                f"No time was left to predict {shown_reference(reference)}; open the task, or ask for fewer at once."
            )

    def _drawn(self, mask: masks.Mask, reference: str) -> Shown | OutOfMemory:
        try:
            return self._shown(mask, reference)
        except MemoryError:
            return OutOfMemory(f"The regions of {reference} do not fit into memory: lower NEXTMASK_MAX_PIXELS.")

    def _shown(self, mask: masks.Mask, reference: str) -> Shown:
        own = self._with_known(self._translate(mask), reference)
        tolerance = self._settings.polygon_tolerance
        regions = masks.write_result(
            own, self._label_map, minimum_area=self._settings.minimum_area, tolerance=tolerance
        )
        return Shown(regions, masks.png_bytes(own), (own.shape[0], own.shape[1]))

    def _with_known(self, mask: masks.Mask, reference: str) -> masks.Mask:
        """Lay what people labelled of an image over what is predicted."""
        parts = self._parts.get(reference)
        if not parts:
            return mask
        try:
            known = merged_mask(parts)
        except (MaskError, OSError, ValueError) as error:
            logger.warning("project=%s image=%s its labels are not shown: %s", self._id, reference, error)
            return mask
        return mask if known.shape != mask.shape else np.where(known == IGNORE_INDEX, mask, known).astype(np.uint8)

    def _translate(self, mask: masks.Mask) -> masks.Mask:
        """Turn the version's class indices into the current configuration's, by name."""
        return mask if self._model is None else masks.translated(mask, self._model.record.classes, self._label_map)

    # -- parts --------------------------------------------------------------------------------------------------------
    def _predictor(self) -> Predictor:
        if self._model is None:
            raise CheckpointError("There is no model to predict with; label more tasks, or ask for a training.")
        checkpoints = self._services.checkpoints(self._id)
        return self._services.predictors.get(checkpoints, self._model.number, self._settings.device)


def _chunks(images: Iterable[Array | ImageError], most: int) -> Iterator[list[Array | ImageError]]:
    """Group images, `most` at a time and fewer of large ones."""
    chunk, pixels = list[Array | ImageError](), 0
    for image in images:
        chunk.append(image)
        pixels += 0 if isinstance(image, ImageError) else image.shape[0] * image.shape[1]
        if len(chunk) == most or pixels >= _PIXELS_AT_ONCE:
            yield chunk
            chunk, pixels = [], 0
    if chunk:
        yield chunk


@dataclass(frozen=True)
class Rendered:
    """A task's mask, ready to be shown: Label Studio regions, and the index mask as PNG (None: no mask).

    Attributes:
        query: what is asked for, where its rectangles are among the regions.
    """

    task: Task
    regions: Sequence[Mapping[str, Any]]
    png: bytes | None
    query: Query | None = None
