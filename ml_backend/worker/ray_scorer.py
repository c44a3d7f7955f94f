"""RayScorer: measures a large pool on a Ray cluster, and here where the cluster cannot be used."""

from __future__ import annotations

import io
import pickle
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from ml_backend.cluster.process import Work, messages
from ml_backend.cluster.rows import Row, Scored, Scoring, device_on_node
from ml_backend.cluster.versions import versions
from ml_backend.errors import CheckpointError, ClusterError
from ml_backend.images.references import in_project, is_data
from ml_backend.learning.checkpoints import Version
from ml_backend.learning.ranking import sees_predictions
from ml_backend.projects.candidates import Candidate
from ml_backend.projects.labelled_images import read_labels
from ml_backend.projects.services import public_urls
from ml_backend.worker.cluster_events import tell_cluster_fails, told_cluster_works
from ml_backend.worker.look import Look
from ml_backend.worker.scorers import Candidates, LocalScorer, PoolImages

if TYPE_CHECKING:
    from strategies import Observation, Strategy

LEAST_IMAGES: Final = 1000
"""Fewer are measured here: a cluster takes up to half a minute to begin (docs/benchmarks.md, A Ray cluster)."""
_NONE_AT_ALL: Final = 8
"""A node that can have none of so many images is at fault, and not the images."""
_PART: Final = 256
"""Rows handed to the driver at a time."""
_SETTINGS: Final = (
    *("strategy", "committee", "members", "dropout", "seed", "input_size", "batch_size"),
    *("max_image_bytes", "max_pixels", "image_hosts", "image_seconds", "request_timeout", "label_studio_url"),
)
"""Settings of the worker that nodes are told; what they may spend, and their secrets, are their own."""


class RayScorer:
    """Measures on the cluster that NEXTMASK_RAY_ADDRESS names.

    What it observes of an image is what `LocalScorer` would. Where the cluster cannot be used, or is lost in the
    middle, the project's events say so once, and the rest is measured here.

    Args:
        model, needs: as `LocalScorer` has them.
        options: those that the strategy was made with.
    """

    def __init__(
        self,
        look: Look,
        images: PoolImages,
        model: Version | None,
        needs: Collection[str],
        options: Mapping[str, Any],
    ) -> None:
        self._look, self._images, self._model, self._needs = look, images, model, needs
        self._options = options

    def observe(self, strategy: Strategy, images: Candidates) -> Iterator[Observation]:
        """Yield what is observed of the images, block by block; see `PoolScorer.observe`."""
        if len(images) >= LEAST_IMAGES:
            # Read whole: the cluster is handed all of them, and what it leaves is scored here.
            waiting = {candidate.task.task_id: candidate for candidate in images}
            images = list(waiting.values())
            try:
                for scored in self._answers(strategy, images):
                    self._look.check()
                    yield from self._noted(scored, waiting)
                told_cluster_works(self._look)
            except GeneratorExit:  # the time for scoring is over
                told_cluster_works(self._look)
                raise
            except ClusterError as error:
                tell_cluster_fails(self._look, error, "The pool is scored here")
            images = list(waiting.values())
        if images:
            local = LocalScorer(self._look, self._images, self._model, self._needs)
            yield from local.observe(strategy, images)

    def _noted(self, scored: Scored, waiting: dict[int, Candidate]) -> Iterator[Observation]:
        """Keep the store informed of which images could be had, and pass on what was observed of them.

        An image that a node cannot have may be had here: the node may not reach its host, or may have another token. It
        stays waiting, and what becomes of it here decides.

        Raises:
            ClusterError: a node can have no image at all.
        """
        lost = [why for why, is_lost in scored.errors.values() if is_lost]
        for task, (why, is_lost) in scored.errors.items():
            if not is_lost and (candidate := waiting.pop(task, None)):
                self._images.leave_out(candidate, why, is_lost=False)
        if scored.observation is not None:
            for name in scored.observation.ids:
                self._images.keep(waiting.pop(int(name)))
            yield scored.observation
        elif len(lost) >= _NONE_AT_ALL:
            raise ClusterError(
                f"A node of the Ray cluster could have none of {len(lost)} images: {lost[0]}",
                "Does it reach Label Studio and the hosts of the images, with a token of its own?",
            )

    def _answers(self, strategy: Strategy, images: Sequence[Candidate]) -> Iterator[Scored]:
        s = self._look.settings
        fetches = not all(is_data(candidate.task.image) for candidate in images)
        work = Work(s.ray_address, s.device, "score", self._scoring(strategy), fetches=fetches)
        return messages(work, self._rows(images), heartbeat=self._look.check)

    def _rows(self, images: Sequence[Candidate]) -> Iterator[list[Row]]:
        for start in range(0, len(images), _PART):
            yield [self._row(candidate) for candidate in images[start : start + _PART]]

    def _row(self, candidate: Candidate) -> Row:
        reference = in_project(candidate.task.image, self._look.project_id)
        return Row(candidate.task.task_id, reference, read_labels(self._look.files, candidate.parts))

    def _scoring(self, strategy: Strategy) -> Scoring:
        s = self._look.settings
        files, number, input_size = dict[str, bytes](), 0, s.input_size
        if sees_predictions(strategy):
            if self._model is None:
                raise CheckpointError("There is no model to score with; label more tasks, or ask for a training.")
            number, input_size = self._model.number, int(self._model.record.settings["input_size"])
            ensemble = "committee" in strategy.needs and s.effective_committee == "ensemble"
            files = self._look.checkpoints.files_of(number, committee=ensemble)
        return Scoring(
            batch_size=s.effective_batch_size,
            settings={
                "device": device_on_node(s.device),
                "strategy_options": dict(self._options),
                **{name: getattr(s, name) for name in _SETTINGS},
                "label_studio_url": _without_user(s.label_studio_url),
            },
            public_urls=tuple(public_urls(s, self._look.store)),
            strategy=b"" if strategy.state_dict() else pickle.dumps(strategy),
            state=_learned(strategy),
            files=files,
            number=number,
            input_size=input_size,
            versions=versions(),
        )


def _without_user(url: str) -> str:
    """Return an address without a user and a password: nodes have secrets of their own."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _learned(strategy: Strategy) -> bytes:
    """Return what a strategy has learned, apart from the strategy: a node may have other devices than the worker."""
    state = strategy.state_dict()
    if not state:
        return b""
    import torch

    stream = io.BytesIO()
    torch.save(state, stream)
    return stream.getvalue()
