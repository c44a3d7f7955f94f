"""Prediction in batches: images in, masks of their size or batches for a strategy out; and the models kept in memory.

What is predicted for an image does not depend on what else is in its batch. An image is shrunk, padded to the
network's stride with its own mirrored pixels, and batched only with images of the same padded size.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ml_backend.checkpoints import Checkpoints, Version
from ml_backend.errors import CheckpointError, ConfigurationError, ImageError
from ml_backend.networks import (
    SegmentationNetwork,
    autocast,
    build,
    labels_at,
    pad_to,
    place,
    resize_image,
    resolve_device,
)
from strategies import Batch

_BATCH_SIZE = 8
_WAITING_BATCHES = 4
"""Shrunk images that wait for others of their size, in batches; above it the largest group goes as it is."""


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
class _Shrunk:
    """An image as the network will see it: pixels (3,h,w) uint8, and its original height and width."""

    id: int
    pixels: Tensor
    size: tuple[int, int]


@dataclass(frozen=True, eq=False)
class _Pass:
    """One forward pass, cropped to its largest image: images (B,3,h,w), valid (B,h,w), logits (B,C,h,w) float32."""

    group: Sequence[_Shrunk]
    images: Tensor
    valid: Tensor
    logits: Tensor
    features: Tensor


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
        self._network = network.eval()
        self._lock = threading.Lock()
        place(self._network, device)

    def predict(self, images: Sequence[npt.NDArray[np.uint8]]) -> list[Prediction]:
        """Return the predictions for images (H,W,3) uint8 RGB, in their order.

        Raises:
            ImageError: an array is not such an image.
            ConfigurationError: a single image is too large for the GPU's memory.
        """
        found: dict[int, Prediction] = {}
        for done in self._passes(self._groups(enumerate(images), _BATCH_SIZE)):
            for image, logits in zip(done.group, done.logits, strict=True):
                found[image.id] = _prediction(image, logits)
        return [found[position] for position in range(len(images))]

    def batches(
        self, items: Iterable[tuple[int, npt.NDArray[np.uint8]]], *, features: bool, batch_size: int
    ) -> Iterator[Batch]:
        """Stream images through the network.

        Images are read lazily: at most a few batches of shrunk images wait for others of their size. The next batch
        is read and started before one is handed out, so a GPU computes while the next images are decoded.

        Args:
            items: (task id, (H,W,3) uint8 RGB).
            features: whether batches get descriptors.
            batch_size: most images per batch; fewer after the GPU ran out of memory.

        Yields:
            Batches on the device, at the network's resolution, with probabilities (1,B,C,h,w) float32; images come
            in another order than they were given in.

        Raises:
            ImageError, ConfigurationError: as in `predict`.
        """
        ahead: _Pass | None = None
        for started in self._passes(self._groups(items, batch_size)):
            if ahead is not None:
                yield _batch(ahead, features=features)
            ahead = started
        if ahead is not None:
            yield _batch(ahead, features=features)

    def _groups(self, items: Iterable[tuple[int, npt.NDArray[np.uint8]]], batch_size: int) -> Iterator[list[_Shrunk]]:
        """Sort images into groups of the same padded size, each of at most `batch_size`."""
        waiting: dict[tuple[int, int], list[_Shrunk]] = {}
        for number, image in items:
            shrunk = self._shrink(number, image)
            key = self._network.padded_size(*shrunk.pixels.shape[1:])
            waiting.setdefault(key, []).append(shrunk)
            if len(waiting[key]) >= batch_size:
                yield waiting.pop(key)
            elif sum(map(len, waiting.values())) >= _WAITING_BATCHES * batch_size:
                yield waiting.pop(max(waiting, key=lambda size: len(waiting[size])))
        yield from waiting.values()

    def _shrink(self, number: int, image: npt.NDArray[np.uint8]) -> _Shrunk:
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
            raise ImageError(f"Image {number} must be (height, width, 3) uint8, not {image.shape} {image.dtype}.")
        return _Shrunk(number, resize_image(image, self.input_size), (image.shape[0], image.shape[1]))

    def _passes(self, groups: Iterable[list[_Shrunk]]) -> Iterator[_Pass]:
        """Run groups through the network; in smaller parts from the first on that did not fit into GPU memory."""
        most: int | None = None
        for group in groups:
            rest = group
            while rest:
                part = rest[:most]
                done = self._try(part)
                if done is None:
                    most = len(part) // 2
                else:
                    rest = rest[len(part) :]
                    yield done

    def _try(self, group: list[_Shrunk]) -> _Pass | None:
        """Run one batch, or return None when it is too large for the GPU."""
        try:
            with self._lock:
                return self._forward(group)
        except torch.cuda.OutOfMemoryError:
            if len(group) == 1:
                raise ConfigurationError(
                    f"One image of at most {self.input_size} pixels a side does not fit into the memory of "
                    f"{self.device}. Lower NEXTMASK_INPUT_SIZE or set NEXTMASK_DEVICE to cpu."
                ) from None
        torch.cuda.empty_cache()  # out of the handler, whose traceback keeps the tensors alive
        return None

    def _forward(self, group: list[_Shrunk]) -> _Pass:
        sizes = [(image.pixels.shape[1], image.pixels.shape[2]) for image in group]
        height, width = max(size[0] for size in sizes), max(size[1] for size in sizes)
        padded = self._network.padded_size(height, width)
        pixels = torch.stack([pad_to(image.pixels, *padded) for image in group])
        images = self._moved(pixels).float() / 255  # (B,3,H,W)
        valid = torch.zeros((len(group), *padded), dtype=torch.bool)
        for inside, (rows, columns) in zip(valid, sizes, strict=True):
            inside[:rows, :columns] = True
        valid = self._moved(valid)
        with torch.no_grad(), autocast(self.device):
            logits, features = self._network.forward_with_features(images, valid)
        logits = logits[..., :height, :width].float()
        return _Pass(group, images[..., :height, :width], valid[..., :height, :width], logits, features.float())

    def _moved(self, tensor: Tensor) -> Tensor:
        """Copy to the device, without waiting for what a GPU still computes."""
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tensor


class PredictorCache:
    """The models in memory: the `capacity` last used ones, each loaded once however many threads ask for it.

    Loading holds no lock: an older version goes on predicting, and leaves only after the new one is there.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"capacity: expected at least 1, received {capacity}")
        self._capacity = capacity
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
            for other in loaded[: -self._capacity]:
                del self._models[other]


def load_predictor(checkpoints: Checkpoints, version: Version, device: str) -> Predictor:
    """Load a version's network; arguments and errors as in `PredictorCache.get`."""
    settings = version.record.settings
    try:
        architecture, encoder = str(settings["architecture"]), str(settings["encoder"])
        input_size, dropout = int(settings["input_size"]), float(settings["dropout"])
    except KeyError as error:
        raise CheckpointError(
            f"The record of version {version.number} lacks the setting {error}: train again."
        ) from None
    target = resolve_device(device)
    network = build(architecture, encoder, "none", classes=len(version.record.classes), dropout=dropout)
    try:
        network.load_state_dict(checkpoints.load_state(version))
    except RuntimeError as error:
        raise CheckpointError(
            f"The weights of version {version.number} are not those of {architecture} on {encoder} with "
            f"{len(version.record.classes)} classes: roll back or train again. {str(error)[:300]}"
        ) from error
    return Predictor(network, version.record.classes, input_size, target)


def _prediction(image: _Shrunk, logits: Tensor) -> Prediction:
    """Read logits (C,h,w) of a batch as the mask of one of its images, which fills their upper left corner."""
    height, width = image.pixels.shape[1:]
    own = logits[:, :height, :width]
    confidence = own.softmax(dim=0).amax(dim=0).mean()
    return Prediction(mask=labels_at(own, *image.size), confidence=float(confidence))


def _batch(done: _Pass, *, features: bool) -> Batch:
    return Batch(
        ids=tuple(image.id for image in done.group),
        images=done.images,
        probabilities=done.logits.softmax(dim=1)[None],  # (1,B,C,h,w)
        features=done.features if features else None,
        valid=done.valid,
        size=torch.tensor([image.size for image in done.group], device=done.images.device),
    )
