"""A node's side of scoring: fetches, decodes and shrinks images, and measures them. Imports no Ray.

Everything that a node raises comes back as a value: what Ray reports by itself is that a process was lost.
"""

from __future__ import annotations

import io
import logging
import pickle
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

from ml_backend.cluster.rows import Row, Scored, Scoring
from ml_backend.cluster.versions import difference, versions
from ml_backend.errors import ClusterError, ImageError, NextmaskError
from ml_backend.images.cache import ImageCache
from ml_backend.images.hosts import ImageHosts
from ml_backend.label_studio import LabelStudio
from ml_backend.learning.checkpoints import Checkpoints
from ml_backend.learning.ranking import make_strategy, sees_predictions
from ml_backend.projects.labelled_images import labelled_image
from ml_backend.projects.services import image_cache
from ml_backend.settings import Settings, load_settings
from ml_backend.system.disk import is_full

if TYPE_CHECKING:
    from ml_backend.learning.prediction.batches import Shrunk
    from ml_backend.learning.prediction.committees import Committee
    from ml_backend.learning.prediction.predictor import Predictor
    from strategies import Batch, Observation, Strategy

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")


def node_settings(given: Mapping[str, Any]) -> Settings:
    """Return a node's settings: its own environment, and the worker's where that decides what is computed.

    The address of Label Studio is the node's, where it has one: it may reach it by another than the worker.
    """
    own = load_settings()
    changes = dict(given)
    if "label_studio_url" in own.model_fields_set:
        del changes["label_studio_url"]
    if "model_dir" not in own.model_fields_set or not isinstance(own.model_dir, Path):  # a bucket: images stay here
        changes["model_dir"] = Path(tempfile.gettempdir()) / "nextmask"
    return load_settings(**changes)


def on_node(work: Callable[[], _Result]) -> _Result | NextmaskError:
    """Do some work on a node; an error comes back as a ClusterError that names the node: elsewhere it may go well."""
    try:
        return work()
    except ClusterError as error:
        return error
    except NextmaskError as error:
        return ClusterError(f"Node {socket.gethostname()} of the Ray cluster failed: {error}")
    except Exception as error:
        logger.exception("a node failed")  # in Ray's logs of this process
        return ClusterError(failure_of(error))


def failure_of(error: Exception) -> str:
    """Say what went wrong on this node."""
    name = f"Node {socket.gethostname()} of the Ray cluster"
    if is_full(error):
        return f"{name} has no room for temporary files: free some under {tempfile.gettempdir()} there."
    first = (str(error).strip().splitlines() or [""])[0][:300]
    return f"{name} failed: {type(error).__name__}: {first}."


def check_versions(wanted: Mapping[str, str]) -> None:
    """Check that this node has what the worker has: it may have joined after the others were examined.

    Raises:
        ClusterError: it has other versions.
    """
    if other := difference(dict(wanted), versions()):
        raise ClusterError(
            f"Node {socket.gethostname()} of the Ray cluster has {other}.",
            "Install the same versions on all machines.",
        )


class Shrinker:
    """Fetches, decodes and shrinks images: a few rows in, the images as the network will see them out."""

    def __init__(self, scoring: Scoring) -> None:
        self._scoring = scoring

    def shrink(self, rows: Sequence[Row]) -> tuple[list[Shrunk], dict[int, tuple[str, bool]]]:
        """Return what could be had, in order, and task id -> (why not, whether it is the image) of the others."""
        from ml_backend.learning.prediction.batches import shrink

        shrunk, errors = [], {}
        images = self._images.arrays(row.reference for row in rows)
        for row, image in zip(rows, images, strict=True):
            if isinstance(image, ImageError):
                errors[row.task_id] = (str(image), True)
                continue
            labels = row.labels
            item = labels if isinstance(labels, ImageError) else labelled_image(row.task_id, image, labels)
            if isinstance(item, ImageError):
                errors[row.task_id] = (str(item), False)
            else:
                shrunk.append(shrink(item, self._scoring.input_size))
        return shrunk, errors

    @cached_property
    def _settings(self) -> Settings:
        return node_settings(self._scoring.settings)

    @cached_property
    def _images(self) -> ImageCache:
        check_versions(self._scoring.versions)
        return image_cache(self._settings, lambda reference: self._client.fetch(reference))

    @cached_property
    def _client(self) -> LabelStudio:
        s = self._settings
        return LabelStudio(
            s.label_studio_url,
            s.label_studio_api_key.get_secret_value(),
            timeout=s.request_timeout,
            image_hosts=ImageHosts.parse(s.image_hosts),
            image_seconds=s.image_seconds,
            public_urls=lambda: list(self._scoring.public_urls),
        )


class Scorer:
    """Measures shrunk images as the strategy does; the network is loaded with the first of them."""

    def __init__(self, scoring: Scoring) -> None:
        self._scoring = scoring

    def observe(self, shrunk: Iterable[Shrunk]) -> Observation | None:
        """Return what is observed of images, on the CPU; None of none."""
        from strategies import Observation

        parts = [self._strategy.observe(batch) for batch in self._batches(shrunk)]
        return Observation.concatenate(parts) if parts else None

    def _batches(self, shrunk: Iterable[Shrunk]) -> Iterator[Batch]:
        s, strategy = self._settings, self._strategy
        if sees_predictions(strategy):
            return self._predictor.batches(
                shrunk,
                features="features" in strategy.needs,
                batch_size=s.effective_batch_size,
                committee=self._committee,
                memory=s.scoring_memory,
            )
        from ml_backend.learning.networks import resolve_device
        from ml_backend.learning.prediction.batches import image_batches

        size, device = self._scoring.input_size, resolve_device(s.device)
        return image_batches(shrunk, input_size=size, batch_size=s.effective_batch_size, device=device)

    @cached_property
    def _settings(self) -> Settings:
        check_versions(self._scoring.versions)
        return node_settings(self._scoring.settings)

    @cached_property
    def _strategy(self) -> Strategy:
        import torch

        if self._scoring.strategy:
            return cast("Strategy", pickle.loads(self._scoring.strategy))  # noqa: S301 (written by our own worker)
        s = self._settings
        strategy = make_strategy(s.strategy, s.strategy_options)
        # Learned on whatever device the worker has.
        state = torch.load(io.BytesIO(self._scoring.state), weights_only=True, map_location="cpu")
        strategy.load_state_dict(state)
        return strategy

    @cached_property
    def _predictor(self) -> Predictor:
        return self._loaded[0]

    @cached_property
    def _committee(self) -> Committee | None:
        return self._loaded[1]

    @cached_property
    def _loaded(self) -> tuple[Predictor, Committee | None]:
        from ml_backend.learning.prediction.predictors import load_predictor, make_committee

        with tempfile.TemporaryDirectory(prefix="nextmask-") as folder:
            checkpoints = unpacked(self._scoring.files, Path(folder))
            version = checkpoints.get(self._scoring.number)
            predictor = load_predictor(checkpoints, version, self._settings.device)
            needed = "committee" in self._strategy.needs
            return predictor, make_committee(predictor, checkpoints, version, self._settings) if needed else None


def unpacked(files: Mapping[str, bytes], folder: Path) -> Checkpoints:
    """Write files of a project's checkpoints into a folder."""
    for key, content in files.items():
        file = folder / key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return Checkpoints(folder)


# -- stages: rows in, what is observed of them out ---------------------------------------------------------------------
_Shrunk: TypeAlias = "tuple[list[Shrunk], dict[int, tuple[str, bool]]] | NextmaskError"


class ShrinkingStage:
    """Rows in, shrunk images out: the stage before GPUs, on any node with CPUs."""

    def __init__(self, scoring: Scoring) -> None:
        self._shrinker = Shrinker(scoring)

    def __call__(self, rows: Sequence[Row]) -> _Shrunk:
        """Do one block."""
        return on_node(lambda: self._shrinker.shrink(rows))


class ScoringStage:
    """Shrunk images in, what is observed of them out."""

    def __init__(self, scoring: Scoring) -> None:
        self._scorer = Scorer(scoring)

    def __call__(self, given: _Shrunk) -> Scored:
        """Do one block."""
        if isinstance(given, NextmaskError):
            return Scored(None, failure=given)
        shrunk, errors = given
        observation = on_node(lambda: self._scorer.observe(shrunk))
        if isinstance(observation, NextmaskError):
            return Scored(None, failure=observation)
        return Scored(observation, errors)


class WholeStage:
    """Rows in, what is observed of them out: where CPUs do both, shrunk images need not travel."""

    def __init__(self, scoring: Scoring) -> None:
        self._shrinking, self._scoring = ShrinkingStage(scoring), ScoringStage(scoring)

    def __call__(self, rows: Sequence[Row]) -> Scored:
        """Do one block."""
        return self._scoring(self._shrinking(rows))
