"""Prediction: images in, masks of their size or batches for a strategy out.

What is predicted for an image does not depend on the other images of its batch; see `batches`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ml_backend.errors import ImageError, OutOfMemory
from ml_backend.learning.networks import (
    MapStore,
    SegmentationNetwork,
    autocast,
    is_out_of_memory,
    labels_at,
    place,
    working_bytes,
)
from ml_backend.learning.prediction.batches import Item, Shrunk, Size, Stack, grouped, shrink, stack
from ml_backend.learning.prediction.committees import Committee, Single
from strategies import Batch

_BATCH_SIZE = 8
_SCORING_MEMORY = 1_000_000_000

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, eq=False)
class Prediction:
    """The network's prediction for an image.

    Attributes:
        mask: (H,W) uint8 class indices, of the size of the original image.
        confidence: mean over the pixels of the largest class probability, in [1/C, 1].
    """

    mask: npt.NDArray[np.uint8]
    confidence: float


@dataclass(frozen=True, eq=False)
class Encoded:
    """What a network makes of one image on the way to its mask.

    Attributes:
        pixels: (3,h,w) uint8, the image as the network sees it.
        size: height and width of the padded image, which the maps are of.
        maps: the encoder's (D,r,c), shallow to deep; zeros where the decoder uses none.
        logits: (C,h,w) float32.
    """

    pixels: Tensor
    size: Size
    maps: list[Tensor]
    logits: Tensor


@dataclass(frozen=True, eq=False)
class _Scored:
    """A stack with the predictions of a committee: probabilities (M,B,C,H,W) float32, descriptors (B,D) or None."""

    stack: Stack
    probabilities: Tensor
    features: Tensor | None


class Predictor:
    """A network on its device, ready to predict. Any number of threads may use it.

    A single forward pass runs at a time, under a lock: two at once would share the cores or the GPU memory and finish
    later. Decoding, shrinking and upsampling of other threads continue meanwhile, and the lock is free between batches,
    so a long request does not hold up short requests.

    Args:
        network: is put into evaluation mode and moved to the device.
        classes: index -> class name, C of them.
        input_size: longest image side that the network sees, in pixels.
        device: where it runs.
        maps: what keeps the maps of encoders that are not trained; None where nothing does.
    """

    def __init__(
        self,
        network: SegmentationNetwork,
        classes: Sequence[str],
        input_size: int,
        device: torch.device,
        maps: MapStore | None = None,
    ) -> None:
        self.classes = tuple(classes)
        self.input_size = input_size
        self.device, self.maps = device, maps
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
        predictions: dict[int, Prediction] = {}
        for group in self._run(self._groups(items, lambda _: _BATCH_SIZE), self._logits, _predictions):
            predictions.update(group)
        return [predictions[position] for position in range(len(images))]

    def predict_each(self, images: Sequence[npt.NDArray[np.uint8]]) -> list[Prediction | ImageError]:
        """As `predict`, with an error in the place of each image that is damaged or too large for the memory."""
        predictions = _error_or_result(self.predict, images)
        if not isinstance(predictions, ImageError):
            return list(predictions)
        if len(images) == 1:
            return [predictions]
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
        """Pass images through the network, or through the members of a committee, batch by batch.

        Images are read lazily: at most a few batches of shrunk images wait for others of their size. The next images
        are read before a batch is handed out, while a GPU still computes it.

        Args:
            items: images of any size, or as the network will see them.
            features: whether batches get descriptors; they are those of this network.
            batch_size: most images per batch; fewer where `memory` does not hold so many, or after it ran out.
            committee: whose probabilities the batches get; None: those of this network.
            memory: bytes that two batches (the caller's, and the next) and the passes may take together, as far as
                can be estimated; a single image is tried whatever it needs.

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

    def encoded(self, image: npt.NDArray[np.uint8]) -> Encoded:
        """Return what the network makes of an image (H,W,3) uint8 RGB; errors as in `predict`."""
        item = shrink(Item(0, image), self.input_size)
        return self._fitting(self._encoded, item, divisible=False)  # type: ignore[return-value]

    def _encoded(self, item: Shrunk) -> Encoded:
        size = self._padded([item])
        stacked = stack([item], size, self.device)
        with self._lock, torch.no_grad(), autocast(self.device):
            maps, logits = self.network.encoded(stacked.images)
        own = logits[0, :, : item.height, : item.width].float()
        return Encoded(item.pixels, size, [level[0].float() for level in maps], own)

    def places(self, items: Iterable[Item | Shrunk], *, batch_size: int) -> Iterator[Batch]:
        """Give images with descriptors of their places, of the encoder alone: for a network that learned nothing yet.

        Args:
            items: images of any size, or as the network will see them; read lazily.
            batch_size: most images per batch; fewer after memory ran out.

        Yields:
            Batches on the device, at the network's resolution; images come in another order than they were given in.

        Raises:
            ImageError, OutOfMemory, MaskError: as in `batches`.
        """
        yield from self._run(self._groups(items, lambda _: batch_size), self._placed, lambda batch: batch)

    def _placed(self, group: list[Shrunk]) -> Batch:
        stacked = stack(group, self._padded(group), self.device)
        with self._lock, torch.no_grad(), autocast(self.device):
            places, side = self.network.places(stacked.images)
        return replace(stacked.batch(), places=places, place_size=side)

    def _groups(self, items: Iterable[Item | Shrunk], most: Callable[[Size], int]) -> Iterator[list[Shrunk]]:
        shrunk = (item if isinstance(item, Shrunk) else shrink(item, self.input_size) for item in items)
        return grouped(shrunk, self.network.padded_size, most)

    # -- memory -------------------------------------------------------------------------------------------------------
    def _bytes_per_pixel(self, committee: Committee) -> float:
        """Estimate the bytes per pixel of padded images while a batch is computed and the caller holds another."""
        members, classes = committee.members, committee.classes
        probabilities = 2 * members * classes + 3 * members  # two batches; three maps (M,B,H,W) that check the next
        opinion = 3 * classes  # of a member: logits, in single precision, softmax
        images = 2 * 3 * 2  # RGB of two batches, and normalised
        with self._lock:  # without memory for this, the passes fail, and tell so
            passing = self._fitting(working_bytes, self.network, divisible=True) or 0.0
        return 4 * (probabilities + opinion + images) + passing

    def _run(
        self, groups: Iterator[list[Shrunk]], start: Callable[[list[Shrunk]], T], finish: Callable[[T], R]
    ) -> Iterator[R]:
        """Run groups of images; once a group did not fit into memory, in smaller parts.

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
        """Run a group: logits (B,C,H,W) float32."""
        stacked = stack(group, self._padded(group), self.device)
        with self._lock, torch.no_grad(), autocast(self.device):
            logits, _ = self.network.forward_with_features(stacked.images, stacked.valid)
        return stacked, logits[..., : stacked.height, : stacked.width].float()

    def _score(self, group: list[Shrunk], committee: Committee, *, features: bool) -> _Scored:
        """Run a group through a committee, one member at a time."""
        stacked = stack(group, self._padded(group), self.device)
        shape = (committee.members, len(group), committee.classes, stacked.height, stacked.width)
        probabilities = torch.empty(shape, device=self.device)  # (M,B,C,H,W)
        with self._lock, torch.no_grad(), autocast(self.device):
            opinions, descriptors = committee.opinions(self.network, stacked.images, stacked.valid, features=features)
            for own, logits in zip(probabilities, opinions, strict=True):
                own.copy_(logits[..., : stacked.height, : stacked.width].float().softmax(dim=1))
        return _Scored(stacked, probabilities, None if descriptors is None else descriptors.float())

    def _padded(self, group: Sequence[Shrunk]) -> Size:
        return self.network.padded_size(group[0].height, group[0].width)


def _error_or_result(work: Callable[[T], R], given: T) -> R | ImageError:
    """Return the result of some work, or the error where an image is damaged or memory ran out, wherever it did."""
    try:
        return work(given)
    except ImageError as error:
        error.__context__ = None  # what it was raised from, and the tracebacks, would keep the tensors alive
        return error.with_traceback(None)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return OutOfMemory(f"The image does not fit into memory ({type(error).__name__}). Lower NEXTMASK_MAX_PIXELS.")


def _predictions(passed: tuple[Stack, Tensor]) -> dict[int, Prediction]:
    """Return item id -> prediction from a stack and its logits (B,C,H,W), whose upper left corners are the images."""
    stacked, logits = passed
    return {item.id: _prediction(item, own) for item, own in zip(stacked.items, logits, strict=True)}


def _prediction(item: Shrunk, logits: Tensor) -> Prediction:
    own = logits[:, : item.height, : item.width]
    confidence = own.softmax(dim=0).amax(dim=0).mean()
    return Prediction(mask=labels_at(own, *item.size), confidence=float(confidence))


def _batch(scored: _Scored) -> Batch:
    return scored.stack.batch(scored.probabilities, scored.features)
