"""Scores a project's pool with its current model, and renders the masks that annotators are shown."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from ml_backend import masks
from ml_backend.checkpoints import Version
from ml_backend.errors import CheckpointError, ImageError
from ml_backend.images import Array
from ml_backend.label_config import LabelMap
from ml_backend.priority_queue import Rendered
from ml_backend.ranking import PoolRanking, append_unscored, make_strategy, rank_pool, sample_order, within_time
from ml_backend.services import Services
from ml_backend.store import Task

if TYPE_CHECKING:
    from ml_backend.inference import Predictor
    from strategies import Batch

logger = logging.getLogger(__name__)

WINDOWS_ALWAYS_SCORED = 10
"""A pool of up to so many windows is scored whole, however long it takes."""


@dataclass(frozen=True)
class Shown:
    """A predicted mask as Label Studio regions and as PNG of class indices (of the current label map)."""

    regions: Sequence[Mapping[str, Any]]
    png: bytes


class Scorer:
    """Predictions for one project with one model version.

    Args:
        model: the version that predicts; None before the first training: then nothing is predicted.
        stage: shows progress: (name, done, total).
        check: raises LeaseLost when this process must stop.
    """

    def __init__(
        self,
        services: Services,
        project_id: int,
        model: Version | None,
        label_map: LabelMap,
        *,
        stage: Callable[[str, int, int], None],
        check: Callable[[], None],
    ) -> None:
        self._services, self._settings, self._id = services, services.settings, project_id
        self._model, self._label_map, self._stage, self._check = model, label_map, stage, check

        self._failed: set[int] = set()

    # -- ranking ------------------------------------------------------------------------------------------------------
    def rank(self, unlabelled: Sequence[Task], labelled: Sequence[Task], *, round_number: int) -> PoolRanking:
        """Order the pool: scored tasks first, best first, then those that there was no time to score.

        Tasks whose image cannot be had are noted and left out.
        """
        pool = {task.task_id: task for task in unlabelled}
        order = sample_order(list(pool), self._settings.seed)
        if self._model is None:
            return append_unscored({}, order)
        strategy = make_strategy(self._settings.strategy, self._settings.strategy_options)
        features = "features" in strategy.needs
        limit, at_least, seconds = self._sample_bounds(len(order))
        sample = [pool[task_id] for task_id in order[:limit]]
        seen: set[int] = set()

        def unlabelled_batches() -> Iterator[Batch]:
            stream = self._batches(sample, features=features)
            for batch in within_time(stream, seconds=seconds, at_least=at_least):
                seen.update(int(task_id) for task_id in batch.ids)
                yield batch

        priorities = rank_pool(
            strategy,
            unlabelled_batches,
            lambda: self._batches(labelled, features=features),
            budget=self._settings.queue_window,
            seed=self._settings.seed + round_number,
            round_number=round_number,
            progress=lambda done: self._stage("ranking", done, len(sample)),
        )
        done = seen | self._failed
        return append_unscored(priorities, [task for task in order if task not in done])

    def _sample_bounds(self, pool: int) -> tuple[int, int, float]:
        """Return (most, least) images to score, and the seconds after which scoring ends once the least is done."""
        if self._settings.pool_sample:
            most = min(pool, self._settings.pool_sample)
            return most, most, 0.0
        least = min(pool, WINDOWS_ALWAYS_SCORED * self._settings.queue_window)
        trained = self._model.record.measures.get("seconds", 0.0) if self._model else 0.0
        return pool, least, float(trained)

    def _batches(self, tasks: Sequence[Task], *, features: bool) -> Iterator[Batch]:
        size = self._settings.batch_size
        yield from self._predictor().batches(self._loaded(tasks), features=features, batch_size=size)

    def _loaded(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Array]]:
        """Fetch and decode images, in order; a task whose image cannot be had is noted and left out."""
        for task, image in zip(tasks, self._images([task.image for task in tasks]), strict=True):
            self._check()
            if isinstance(image, ImageError):
                self._failed.add(task.task_id)
                self._services.store.set_task_error(self._id, task.task_id, str(image))
                continue
            if task.error:
                self._services.store.set_task_error(self._id, task.task_id, "")
            yield task.task_id, image

    # -- masks --------------------------------------------------------------------------------------------------------
    def render(self, tasks: Sequence[Task]) -> Iterator[Rendered]:
        """Predict the masks of tasks, in order; without a model, or without an image, there is none."""
        for task, shown in zip(tasks, self.show([task.image for task in tasks]), strict=True):
            self._check()
            if isinstance(shown, Shown):
                yield Rendered(task, shown.regions, shown.png)
            elif shown is None:
                yield Rendered(task, (), None)
            else:
                self._services.store.set_task_error(self._id, task.task_id, str(shown))

    def show(self, references: Sequence[str], *, deadline: float | None = None) -> Iterator[Shown | ImageError | None]:
        """Predict masks for image references, one answer each, in order.

        Args:
            deadline: time on `time.monotonic`'s clock after which the rest is answered with an ImageError.

        Yields:
            The mask; None where there is no model yet; an ImageError where the image cannot be had.
        """
        if self._model is None:
            yield from [None] * len(references)
            return
        predictor, answered = self._predictor(), 0
        with closing(self._images(references)) as images:
            while chunk := list(islice(images, self._settings.batch_size)):
                good = [image for image in chunk if not isinstance(image, ImageError)]
                predictions = iter(predictor.predict(good) if good else [])
                for image in chunk:
                    yield image if isinstance(image, ImageError) else self._shown(next(predictions).mask)
                answered += len(chunk)
                if deadline is not None and time.monotonic() > deadline:
                    break
        for reference in references[answered:]:
            yield ImageError(f"No time was left to predict {reference}; open the task, or ask for fewer at once.")

    def _shown(self, mask: masks.Mask) -> Shown:
        own = self._translate(mask)
        tolerance = self._settings.polygon_tolerance
        regions = masks.write_result(
            own, self._label_map, minimum_area=self._settings.minimum_area, tolerance=tolerance
        )
        return Shown(regions, masks.png_bytes(own))

    def _translate(self, mask: masks.Mask) -> masks.Mask:
        """Turn the version's class indices into the current configuration's, by name."""
        if self._model is None or self._model.record.classes == self._label_map.classes:
            return mask
        unpainted = self._label_map.unpainted_index
        table = np.full(256, unpainted, dtype=np.uint8)
        for index, name in enumerate(self._model.record.classes):
            found = self._label_map.index_of(name)
            table[index] = unpainted if found is None else found
        return table[mask]

    # -- parts --------------------------------------------------------------------------------------------------------
    def _predictor(self) -> Predictor:
        if self._model is None:
            raise CheckpointError("There is no model to predict with; label more tasks, or ask for a training.")
        checkpoints = self._services.checkpoints(self._id)
        return self._services.predictors.get(checkpoints, self._model.number, self._settings.device)

    def _images(self, references: Sequence[str]) -> Generator[Array | ImageError, None, None]:
        """Fetch (ahead, in parallel) and decode images, in order."""
        for reference, path in self._services.images.prefetch(references):
            try:
                yield path if isinstance(path, ImageError) else self._services.images.load(reference)
            except ImageError as error:
                yield error
