"""Prediction in batches: images in, masks of their size or batches for a strategy out; and the models kept in memory.

What is predicted for an image does not depend on what else is in its batch (`image_stream`).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ml_backend.errors import CheckpointError, ImageError, OutOfMemory
from ml_backend.learning.checkpoints import Checkpoints, Version
from ml_backend.learning.networks import (
    SegmentationNetwork,
    autocast,
    build,
    is_out_of_memory,
    labels_at,
    place,
    resolve_device,
    working_bytes,
)
from ml_backend.learning.prediction.batches import Item, Shrunk, Size, Stack, grouped, image_batches, shrink, stack
from ml_backend.learning.prediction.committees import Committee, Single, load_ensemble, load_network, mc_dropout
from ml_backend.settings import Settings
from strategies import Batch

__all__ = [
    "Committee",
    "Item",
    "Prediction",
    "Predictor",
    "PredictorCache",
    "fresh_predictor",
    "image_batches",
    "load_predictor",
    "make_committee",
]

_BATCH_SIZE = 8
_SCORING_MEMORY = 1_000_000_000

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the network says about one image.

    Attributes:
        mask: (H,W) uint8 class indices, of the size of the original image.
        confidence: mean over the pixels of the largest class probability, in [1/C, 1].
    """

    mask: npt.NDArray[np.uint8]
    confidence: float


@dataclass(frozen=True, eq=False)
class _Scored:
    """A stack with what a committee says of it: probabilities (M,B,C,H,W) float32, descriptors (B,D) or None."""

    stack: Stack
    probabilities: Tensor
    features: Tensor | None


class Predictor:
    """A network on its device, ready to predict. Any number of threads may use one.

    One forward pass runs at a time, under a lock: two at once would share the same cores or GPU memory and finish
    later. Decoding, shrinking and upsampling of other threads go on meanwhile, and the lock is free between batches,
    so a long request does not hold up a short one.

    Args:
        network: is put into evaluation mode and moved to the device.
        classes: index -> class name, C of them.
        input_size: longest image side that the network sees, in pixels.
        device: where it runs.
    """

    def __init__(
        self, network: SegmentationNetwork, classes: Sequence[str], input_size: int, device: torch.device
    ) -> None:
        self.classes = tuple(classes)
        self.input_size = input_size
        self.device = device
        self.network = network.eval()
        self._lock = threading.Lock()
        place(self.network, device)

    def predict(self, images: Sequence[npt.NDArray[np.uint8]]) -> list[Prediction]:
        """Return the predictions for images (H,W,3) uint8 RGB, in their order.

        Raises:
            ImageError: an array is not such an image.
            OutOfMemory: a single image is too large for the memory.
        """
        items = (Item(position, image) for position, image in enumerate(images))
        found: dict[int, Prediction] = {}
        for done in self._run(self._groups(items, lambda _: _BATCH_SIZE), self._logits, _predictions):
            found.update(done)
        return [found[position] for position in range(len(images))]

    def predict_each(self, images: Sequence[npt.NDArray[np.uint8]]) -> list[Prediction | ImageError]:
        """As `predict`, with the error in the place of each image that cannot be predicted: the others are."""
        error = _shortage(self.predict, images)
        if not isinstance(error, ImageError):
            return list(error)
        if len(images) == 1:
            return [error]
        half = len(images) // 2
        return [*self.predict_each(images[:half]), *self.predict_each(images[half:])]

    def batches(
        self,
        items: Iterable[Item | Shrunk],
        *,
        features: bool,
        batch_size: int,
        committee: Committee | None = None,
        memory: int = _SCORING_MEMORY,
    ) -> Iterator[Batch]:
        """Stream images through the network, or through the members of a committee.

        Images are read lazily: at most a few batches of shrunk images wait for others of their size. The next images
        are read before a batch is handed out, while a GPU still computes it.

        Args:
            items: images of any size, or as the network will see them.
            features: whether batches get descriptors; they are those of this network.
            batch_size: most images per batch; fewer where `memory` does not hold so many, or after it ran out.
            committee: whose probabilities the batches get; None: those of this network.
            memory: bytes that two batches (the reader's, and the next one) and the passes may take together, as far as
                can be told beforehand; a single image is tried whatever it needs.

        Yields:
            Batches on the device, at the network's resolution, with probabilities (M,B,C,h,w) float32, M = 1 without
            a committee; images come in another order than they were given in.

        Raises:
            ImageError, OutOfMemory: as in `predict`.
            MaskError: what is labelled, or its cost, does not fit the image.
        """
        asked = committee or Single(len(self.classes))
        need: float | None = None

        def most(size: Size) -> int:
            nonlocal need
            need = need or self._bytes_per_pixel(asked)  # when the first image is there
            return max(1, min(batch_size, int(memory / (need * size[0] * size[1]))))

        score = partial(self._score, committee=asked, features=features)
        yield from self._run(self._groups(items, most), score, _batch)

    def _groups(self, items: Iterable[Item | Shrunk], most: Callable[[Size], int]) -> Iterator[list[Shrunk]]:
        shrunk = (one if isinstance(one, Shrunk) else shrink(one, self.input_size) for one in items)
        return grouped(shrunk, self.network.padded_size, most)

    # -- memory -------------------------------------------------------------------------------------------------------
    def _bytes_per_pixel(self, committee: Committee) -> float:
        """Estimate what each pixel of a padded image takes while a batch is computed and its reader has another."""
        members, classes = committee.members, committee.classes
        probabilities = 2 * members * classes + 3 * members  # two batches; three maps of (M,B,H,W) check the new one
        opinion = 3 * classes  # of one member: logits, in single precision, softmax
        images = 2 * 3 * 2  # RGB of two batches, and normalised
        with self._lock:  # where there is no memory even for this, the passes themselves will tell
            passing = self._fitting(working_bytes, self.network, divisible=True) or 0.0
        return 4 * (probabilities + opinion + images) + passing

    def _run(
        self, groups: Iterator[list[Shrunk]], start: Callable[[list[Shrunk]], T], finish: Callable[[T], R]
    ) -> Iterator[R]:
        """Run groups of images; in smaller parts from the first on that did not fit into memory.

        Args:
            start: puts a part to work: a GPU computes after it has returned.
            finish: waits for what was started.
        """
        rest, following, most = next(groups, []), list[Shrunk](), None
        while rest:
            part = rest[:most]
            started = self._fitting(start, part, divisible=len(part) > 1)
            if started is not None and len(part) == len(rest) and not following:
                following = next(groups, [])
            done = None if started is None else self._fitting(finish, started, divisible=len(part) > 1)
            del started
            if done is None:
                most = len(part) // 2
                continue
            rest = rest[len(part) :]
            if not rest:
                rest, following = following, []
            yield done

    def _fitting(self, work: Callable[[T], R], given: T, *, divisible: bool) -> R | None:
        """Do some work, or return None where it needs more memory than there is and can be had in smaller parts."""
        try:
            return work(given)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if not divisible:
                raise OutOfMemory(
                    f"One image of at most {self.input_size} pixels a side does not fit into the memory of "
                    f"{self.device}. Lower NEXTMASK_INPUT_SIZE or set NEXTMASK_DEVICE to cpu. Where a committee is "
                    "asked, fewer NEXTMASK_MEMBERS help, too."
                ) from None
        torch.cuda.empty_cache()  # out of the handler, whose traceback keeps the tensors alive
        return None

    # -- forward passes -----------------------------------------------------------------------------------------------
    def _logits(self, group: list[Shrunk]) -> tuple[Stack, Tensor]:
        """Run one group: logits (B,C,H,W) float32."""
        found = stack(group, self._padded(group), self.device)
        with self._lock, torch.no_grad(), autocast(self.device):
            logits, _ = self.network.forward_with_features(found.images, found.valid)
        return found, logits[..., : found.height, : found.width].float()

    def _score(self, group: list[Shrunk], committee: Committee, *, features: bool) -> _Scored:
        """Run one group through a committee, one member at a time."""
        found = stack(group, self._padded(group), self.device)
        shape = (committee.members, len(group), committee.classes, found.height, found.width)
        probabilities = torch.empty(shape, device=self.device)  # (M,B,C,H,W)
        with self._lock, torch.no_grad(), autocast(self.device):
            opinions, descriptors = committee.opinions(self.network, found.images, found.valid, features=features)
            for own, logits in zip(probabilities, opinions, strict=True):
                own.copy_(logits[..., : found.height, : found.width].float().softmax(dim=1))
        return _Scored(found, probabilities, None if descriptors is None else descriptors.float())

    def _padded(self, group: Sequence[Shrunk]) -> Size:
        return self.network.padded_size(group[0].height, group[0].width)


class PredictorCache:
    """The models in memory: the `capacity` last used ones, each loaded once however many threads ask for it.

    Loading holds no lock: an older version goes on predicting, and leaves only after the new one is there.

    Args:
        capacity: models.
        one_each: whether a project's other versions leave when one of them is loaded.
    """

    def __init__(self, capacity: int, *, one_each: bool = False) -> None:
        if capacity < 1:
            raise ValueError(f"capacity: expected at least 1, received {capacity}")
        self._capacity, self._one_each = capacity, one_each
        self._lock = threading.Lock()
        self._models: OrderedDict[tuple[Path, int, str], Future[Predictor]] = OrderedDict()

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
        key = (checkpoints.folder, number, device)
        with self._lock:
            is_new = key not in self._models
            future = self._models.setdefault(key, Future())
            self._models.move_to_end(key)
        if is_new:
            self._load(key, future, checkpoints)
        return future.result()

    def _load(self, key: tuple[Path, int, str], future: Future[Predictor], checkpoints: Checkpoints) -> None:
        try:
            predictor = load_predictor(checkpoints, checkpoints.get(key[1]), key[2])
        except BaseException as error:
            with self._lock:
                del self._models[key]
            future.set_exception(error)
            raise
        with self._lock:
            future.set_result(predictor)
            self._models.move_to_end(key)  # others were used while this one was loading
            loaded = [other for other, one in self._models.items() if one.done()]
            others = [other for other in loaded if self._one_each and other[0] == key[0] and other != key]
            for other in {*others, *loaded[: -self._capacity]}:
                del self._models[other]


def load_predictor(checkpoints: Checkpoints, version: Version, device: str) -> Predictor:
    """Load a version's network; arguments and errors as in `PredictorCache.get`."""
    settings, classes = version.record.settings, version.record.classes
    target = resolve_device(device)
    try:
        network = load_network(settings, len(classes), checkpoints.load_state(version))
        return Predictor(network, classes, int(settings["input_size"]), target)
    except KeyError as error:
        raise CheckpointError(
            f"The record of version {version.number} lacks the setting {error}: train again."
        ) from None
    except CheckpointError as error:
        raise CheckpointError(f"Version {version.number} cannot be loaded. {error}") from error


def fresh_predictor(settings: Settings, classes: Sequence[str]) -> Predictor:
    """Build a network that nothing was trained on but its encoder: for descriptors before the first version.

    Raises:
        ConfigurationError: the network cannot be built as configured, or the device is not available here.
    """
    s = settings
    network = build(
        s.architecture,
        s.encoder,
        s.encoder_weights,
        classes=len(classes),
        dropout=s.dropout,
        options=s.network_options,
    )
    return Predictor(network, classes, s.input_size, resolve_device(s.device))


def make_committee(predictor: Predictor, checkpoints: Checkpoints, version: Version, settings: Settings) -> Committee:
    """Make the committee that is configured, for a version whose predictor is given.

    Raises:
        ConfigurationError: dropout that leaves all members the same.
        CheckpointError: the version has no ensemble (`Trainer.ensure_committee` trains it), or it is damaged.
    """
    if settings.effective_committee == "ensemble":
        return load_ensemble(checkpoints, version, predictor.device)
    return mc_dropout(predictor.network, settings.effective_members, settings.seed)


def _shortage(work: Callable[[T], R], given: T) -> R | ImageError:
    """Do some work; return the error where an image is none, or memory ran out, wherever it did."""
    try:
        return work(given)
    except ImageError as error:
        error.__context__ = None  # what it was raised from, and the tracebacks, would keep the tensors alive
        return error.with_traceback(None)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return OutOfMemory(f"The image does not fit into memory ({type(error).__name__}). Lower NEXTMASK_MAX_PIXELS.")


def _predictions(found: tuple[Stack, Tensor]) -> dict[int, Prediction]:
    """Read logits (B,C,H,W) as the masks of the images, which fill the upper left corners: id -> prediction."""
    return {item.id: _prediction(item, logits) for item, logits in zip(found[0].items, found[1], strict=True)}


def _prediction(item: Shrunk, logits: Tensor) -> Prediction:
    own = logits[:, : item.height, : item.width]
    confidence = own.softmax(dim=0).amax(dim=0).mean()
    return Prediction(mask=labels_at(own, *item.size), confidence=float(confidence))


def _batch(scored: _Scored) -> Batch:
    return scored.stack.batch(scored.probabilities, scored.features)
