"""Scorers: where the images of a pool are fetched, decoded and measured; their order is made by `score_pool`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import tee
from typing import TYPE_CHECKING, Protocol

from ml_backend.errors import CheckpointError, ImageError
from ml_backend.images.decoding import Array
from ml_backend.learning.checkpoints import Version
from ml_backend.learning.ranking import sees_predictions
from ml_backend.projects.candidates import Candidate
from ml_backend.projects.labelled_images import labelled_image, read_labels
from ml_backend.system.files import Files
from ml_backend.worker.look import Look

if TYPE_CHECKING:
    from ml_backend.learning.prediction.batches import Item
    from ml_backend.learning.prediction.committees import Committee
    from ml_backend.learning.prediction.predictor import Predictor
    from strategies import Batch, Observation, Strategy


class Candidates(Protocol):
    """Some candidates, given anew each time; a large pool is read from the store as far as it is gone through."""

    def __len__(self) -> int:
        """Return how many there are."""

    def __iter__(self) -> Iterator[Candidate]:
        """Give them one by one."""


class PoolScorer(Protocol):
    """Measures images as a strategy does, with one model version. It writes no ranking and publishes nothing."""

    def observe(self, strategy: Strategy, images: Candidates) -> Iterator[Observation]:
        """Yield what is observed of the images, each once, in any order and number at a time.

        Images that cannot be had are left out, and `PoolImages` is told why.

        Raises:
            LeaseLost: this process no longer holds the project; nothing is measured any more.
        """


class PoolImages:
    """The images of a project's pool, and which of them cannot be had.

    Attributes:
        failed: ids of the tasks whose image could not be had; the store says why.
    """

    def __init__(self, look: Look) -> None:
        self._look, self.failed = look, set[int]()

    def items(self, of: Iterable[Candidate]) -> Iterator[Item]:
        """Fetch and decode images, in order; where that fails, the task's error says why, and the image is left out."""
        ahead, candidates_in_turn = tee(of)
        images = self._look.images.arrays(candidate.task.image for candidate in ahead)
        for candidate, image in zip(candidates_in_turn, images, strict=True):
            self._look.check()
            item = image if isinstance(image, ImageError) else _item(self._look.files, candidate, image)
            if isinstance(item, ImageError):
                self.leave_out(candidate, str(item), is_lost=isinstance(image, ImageError))
                continue
            self.keep(candidate)
            yield item

    def keep(self, candidate: Candidate) -> None:
        """Forget what was wrong with an image that can be had."""
        task = candidate.task
        if task.error and task.status == "unlabelled":
            self._look.store.set_task_error(self._look.project_id, task.task_id, "")

    def leave_out(self, candidate: Candidate, error: str, *, is_lost: bool) -> None:
        """Say why a task is left out; a label without its image is none, unless Label Studio itself is away.

        Args:
            is_lost: whether it is the image that cannot be had, and not what is labelled of it.

        Raises:
            LabelStudioError: Label Studio is away.
        """
        task, store = candidate.task, self._look.store
        self.failed.add(task.task_id)
        if task.status == "labelled" and is_lost:
            self._look.client.whoami()
            tasks = candidate.parts or (task,)
            store.leave_out(tasks, {each.task_id: error for each in tasks})
        else:
            store.set_task_error(self._look.project_id, task.task_id, error)

    def batches(self, of: Iterable[Candidate]) -> Iterator[Batch]:
        """Yield the images alone, without predictions."""
        from ml_backend.learning.networks import resolve_device
        from ml_backend.learning.prediction.batches import image_batches

        s = self._look.settings
        device = resolve_device(self._look.device)
        return image_batches(self.items(of), input_size=s.input_size, batch_size=s.effective_batch_size, device=device)


class LocalScorer:
    """Measures in this process, on the device of the look.

    Args:
        model: the version that predicts; None: there is none, and only images alone can be measured.
        needs: what the strategy needs; a committee is loaded at once.
    """

    def __init__(self, look: Look, images: PoolImages, model: Version | None, needs: Collection[str]) -> None:
        self._look, self._images, self._model = look, images, model
        self._committee = self._make_committee() if "committee" in needs else None

    def observe(self, strategy: Strategy, images: Candidates) -> Iterator[Observation]:
        """Yield what is observed of the images, batch by batch; see `PoolScorer.observe`."""
        return map(strategy.observe, self._batches(strategy, images))

    def _batches(self, strategy: Strategy, images: Candidates) -> Iterator[Batch]:
        if not sees_predictions(strategy):
            return self._images.batches(images)
        s = self._look.settings
        return self._predictor().batches(
            self._images.items(images),
            features="features" in strategy.needs,
            batch_size=s.effective_batch_size,
            committee=self._committee,
            memory=s.scoring_memory,
        )

    def _make_committee(self) -> Committee | None:
        if self._model is None:
            return None
        from ml_backend.learning.prediction.predictors import make_committee

        return make_committee(self._predictor(), self._look.checkpoints, self._model, self._look.settings)

    def _predictor(self) -> Predictor:
        if self._model is None:
            raise CheckpointError("There is no model to score with; label more tasks, or ask for a training.")
        look = self._look
        return look.services.predictors.get(look.checkpoints, self._model.number, look.device)


def _item(files: Files, candidate: Candidate, image: Array) -> Item | ImageError:
    """Put what is labelled of an image, and what that cost, beside it."""
    labels = read_labels(files, candidate.parts)
    return labels if isinstance(labels, ImageError) else labelled_image(candidate.task.task_id, image, labels)
