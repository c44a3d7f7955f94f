"""What annotators are shown: masks or points that a model version predicts, under what people have labelled already."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ml_backend.annotations import masks
from ml_backend.annotations.boxes import Query, boxes_from_text
from ml_backend.annotations.key_points import Guess, write_points
from ml_backend.annotations.label_map import IGNORE_INDEX, LabelMap
from ml_backend.annotations.masks import Mask
from ml_backend.annotations.query_regions import write_rectangles
from ml_backend.errors import ImageError, MaskError, OutOfMemory
from ml_backend.images.cache import ProjectImages
from ml_backend.images.decoding import Array
from ml_backend.images.references import shown_reference
from ml_backend.projects.audit import AuditSet
from ml_backend.projects.audit_points import asks_points_of_audit_images, audit_points
from ml_backend.projects.folders import files_of
from ml_backend.projects.parts import merged_mask, parts_of
from ml_backend.settings import Settings
from ml_backend.store import Store, Task
from ml_backend.system.ahead import cores, in_order

if TYPE_CHECKING:
    from ml_backend.learning.prediction.predictor import Predictor

logger = logging.getLogger(__name__)

_PIXELS_AT_ONCE: Final = 50_000_000
"""Images are decoded until they have so many pixels together, 3 bytes each; then they are predicted."""
_BYTES_A_PIXEL, _BYTES_TO_RENDER = 16, 1_000_000_000
"""What the rendering of a mask takes for each pixel, and masks that are rendered at the same time take together."""


@dataclass(frozen=True)
class Shown:
    """A predicted mask as Label Studio regions and as PNG of class indices (of the current label map).

    Attributes:
        png: None where nothing is predicted.
        size: (height, width) of the image.
    """

    regions: Sequence[Mapping[str, Any]]
    png: bytes | None
    size: tuple[int, int]


@dataclass(frozen=True)
class Rendered:
    """A task's mask, ready to be shown: Label Studio regions, and the index mask as PNG (None: no mask).

    Attributes:
        query: what is asked for, where its rectangles or points are among the regions.
    """

    task: Task
    regions: Sequence[Mapping[str, Any]]
    png: bytes | None
    query: Query | None = None


class MaskRenderer:
    """Predicts the masks that annotators are shown, for one project with one model version.

    Args:
        settings: of the project.
        label_map: the classes that masks are in now; those of the version are translated by name.
        images: of the project's tasks.
        predictor: returns the version's network, asked for when a mask is wanted; None before the first training:
            then nothing is predicted.
        audit: whose images open without a mask.
        check: raises LeaseLost when this process must stop; a server has no lease.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        project_id: int,
        label_map: LabelMap,
        *,
        images: ProjectImages,
        predictor: Callable[[], Predictor] | None,
        audit: AuditSet,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings, self._store, self._id, self._label_map = settings, store, project_id, label_map
        self._images, self._predictor, self._audit, self._check = images, predictor, audit, check

    # -- what is asked for --------------------------------------------------------------------------------------------
    @cached_property
    def queries(self) -> Mapping[int, Query]:
        """What parts the ranking asks for of unlabelled tasks, where the configuration can show them, by task id."""
        ranked = self._store.ranked_queries(self._id, status="unlabelled")
        return {task: query for task, query in ranked.items() if self._can_show(query)}

    def _can_show(self, query: Query) -> bool:
        label_map = self._label_map
        return (
            bool(query.boxes)
            and (label_map.points_control if query.asks_for_points else label_map.query_control) is not None
        )

    @cached_property
    def audits_by_points(self) -> bool:
        """Whether audit images are asked for points."""
        return asks_points_of_audit_images(self._settings, self._label_map, self.queries.values())

    def question(self, task: Task, size: tuple[int, int]) -> Query | None:
        """Return what is asked of a task; None: all of its image.

        Args:
            size: (height, width) of the image.
        """
        if not self._audit.opens_empty(task):
            return self.queries.get(task.task_id)
        if not self.audits_by_points:
            return None
        return Query(audit_points(task.image, size, count=self._settings.audit_points, seed=self._audit.seed))

    def asking(self, shown: Shown, task: Task, query: Query | None) -> Shown:
        """Return what an annotator is shown who is asked for something: points alone, or rectangles over the mask.

        Points carry the class that is predicted at their pixel, unless guesses are hidden or the image is of the audit
        set; the PNG holds these guesses, shown or hidden, and 255 elsewhere.
        """
        if query is None:
            return shown
        if not query.asks_for_points:
            return replace(shown, regions=[*shown.regions, *write_rectangles(query.boxes, self._label_map, shown.size)])
        guessed = np.full(shown.size, IGNORE_INDEX, np.uint8)
        if shown.png is not None:
            predicted = masks.mask_from_png(shown.png)
            for box in query.boxes:
                guessed[box.slices] = predicted[box.slices]
        places = [(box.top, box.left, int(guessed[box.top, box.left])) for box in query.boxes]
        hidden = not self._settings.point_guesses
        guesses = [
            Guess(row, column, None if hidden or index == IGNORE_INDEX else index) for row, column, index in places
        ]
        png = None if shown.png is None else masks.png_bytes(guessed)
        is_audit = self._audit.opens_empty(task)
        return Shown(write_points(guesses, self._label_map, shown.size, for_audit=is_audit), png, shown.size)

    # -- masks --------------------------------------------------------------------------------------------------------
    def render(self, tasks: Sequence[Task]) -> Iterator[Rendered]:
        """Predict the masks of tasks, in order; tasks whose image cannot be had are left out, and the store says why.

        A task without a mask comes all the same before the first training, where memory does not suffice, and where
        its image is of the audit set: a person can label it.

        Raises:
            LeaseLost: this process must stop.
            CheckpointError: the version cannot be loaded.
        """
        for task, shown in self._each(tasks):
            self._check()
            if isinstance(shown, Shown):
                query = self.question(task, shown.size)
                asking = self.asking(shown, task, query)
                yield Rendered(task, asking.regions, asking.png, query)
                continue
            if shown is not None:
                self._store.set_task_error(self._id, task.task_id, str(shown))
            if shown is None or isinstance(shown, OutOfMemory):
                yield Rendered(task, (), None)

    def _each(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Shown | ImageError | None]]:
        """Yield each task with its mask; None where it opens without one, an ImageError where it has no image."""
        empty = {task.task_id for task in tasks if self._audit.opens_empty(task)}
        if self._predictor is None:  # points need the size of their image
            empty |= {task.task_id for task in tasks if self._asks_for_points(task)}
        shown = self.show([task.image for task in tasks if task.task_id not in empty])
        with closing(self.show_nothing([task.image for task in tasks if task.task_id in empty])) as without:
            for task in tasks:
                if task.task_id not in empty:
                    yield task, next(shown)
                    continue
                nothing = next(without)
                yield task, nothing if isinstance(nothing, ImageError) or self._asks_for_points(task) else None

    def _asks_for_points(self, task: Task) -> bool:
        if self._audit.opens_empty(task):
            return self.audits_by_points
        query = self.queries.get(task.task_id)
        return query is not None and query.asks_for_points

    def show_nothing(self, references: Sequence[str]) -> Generator[Shown | ImageError, None, None]:
        """Yield for each image, in order, that nothing is predicted in it, or why it cannot be had."""
        with closing(self._images.arrays(references)) as images:
            for image in images:
                if isinstance(image, ImageError):
                    yield image
                else:
                    yield Shown((), None, (image.shape[0], image.shape[1]))

    def show(
        self, references: Sequence[str], *, is_late: Callable[[], bool] = lambda: False
    ) -> Iterator[Shown | ImageError | None]:
        """Predict masks for image references, one answer each, in order.

        Args:
            is_late: asked after each batch; once it is, the rest is answered with an ImageError.

        Yields:
            The mask; None where there is no model yet; an ImageError where the image cannot be had, an OutOfMemory
            where it does not fit into memory.

        Raises:
            CheckpointError: the version cannot be loaded.
        """
        if self._predictor is None:
            yield from [None] * len(references)
            return
        predictor = self._predictor()
        _ = self._parts  # read once, and not by each thread

        def shown(predicted: tuple[str, Mask | ImageError]) -> Shown | ImageError:
            reference, mask = predicted
            return mask if isinstance(mask, ImageError) else self._shown(mask, predictor.classes, reference)

        predicted = self._predicted(predictor, references, is_late)
        futures = in_order(
            shown, predicted, workers=cores(), name="masks", size=_bytes_to_render, most=_BYTES_TO_RENDER
        )
        with closing(predicted), closing(futures):
            for future in futures:
                yield future.result()

    def _predicted(
        self, predictor: Predictor, references: Sequence[str], is_late: Callable[[], bool]
    ) -> Generator[tuple[str, Mask | ImageError], None, None]:
        """Yield each reference with its mask (H,W) of the version's classes, or why there is none."""
        answered = 0
        with closing(self._images.arrays(references)) as images:
            for chunk in _chunks(images, self._settings.effective_batch_size):
                good = [image for image in chunk if not isinstance(image, ImageError)]
                predictions = iter(predictor.predict_each(good) if good else [])
                for reference, image in zip(references[answered:], chunk, strict=False):
                    prediction = image if isinstance(image, ImageError) else next(predictions)
                    yield reference, prediction if isinstance(prediction, ImageError) else prediction.mask
                answered += len(chunk)
                if is_late():
                    break
        for reference in references[answered:]:
            late = f"No time was left to predict {shown_reference(reference)}; open the task, or ask for fewer at once."
            yield reference, ImageError(late)

    def _shown(self, mask: Mask, classes: Sequence[str], reference: str) -> Shown | OutOfMemory:
        """Turn a mask (H,W) of a version's classes into what an annotator of that image is shown."""
        s = self._settings
        try:
            own = self._with_labels(masks.translated(mask, classes, self._label_map), reference)
            regions = masks.write_result(
                own, self._label_map, minimum_area=s.minimum_area, tolerance=s.polygon_tolerance
            )
            return Shown(regions, masks.png_bytes(own), (own.shape[0], own.shape[1]))
        except MemoryError:
            return OutOfMemory(f"The regions of {reference} do not fit into memory: lower NEXTMASK_MAX_PIXELS.")

    # -- labels of parts ----------------------------------------------------------------------------------------------
    @cached_property
    def _parts(self) -> Mapping[str, Sequence[Task]]:
        """The labels of parts, by image."""
        by_image: dict[str, list[Task]] = defaultdict(list)
        if self._label_map.query_control is None and self._label_map.points_control is None:
            return by_image
        for task in parts_of(self._store.tasks_in_parts(self._id)):
            by_image[task.image].append(task)
        return by_image

    def _with_labels(self, mask: Mask, reference: str) -> Mask:
        """Lay what people drew of an image over what is predicted; answers to points would be holes in its masks."""
        parts = self._parts.get(reference)
        if not parts:
            return mask
        try:
            labelled = merged_mask(files_of(self._settings), parts)
        except (MaskError, OSError, ValueError) as error:
            logger.warning("project=%s image=%s its labels are not shown: %s", self._id, reference, error)
            return mask
        if labelled.shape != mask.shape:
            return mask
        for box in (box for part in parts for box in boxes_from_text(part.boxes) if box.is_point):
            labelled[box.slices] = IGNORE_INDEX
        return np.where(labelled == IGNORE_INDEX, mask, labelled).astype(np.uint8)


def _bytes_to_render(predicted: tuple[str, Mask | ImageError]) -> int:
    """Return about how many bytes the rendering of a mask takes at once."""
    _, mask = predicted
    return 0 if isinstance(mask, ImageError) else _BYTES_A_PIXEL * mask.size


def _chunks(images: Iterable[Array | ImageError], most: int) -> Iterator[list[Array | ImageError]]:
    """Group images, `most` at a time, or fewer where they are large."""
    chunk, pixels = list[Array | ImageError](), 0
    for image in images:
        chunk.append(image)
        pixels += 0 if isinstance(image, ImageError) else image.shape[0] * image.shape[1]
        if len(chunk) == most or pixels >= _PIXELS_AT_ONCE:
            yield chunk
            chunk, pixels = [], 0
    if chunk:
        yield chunk
