"""Labelled images: read, resized, kept in memory under a bound, drawn in batches and augmented."""

from __future__ import annotations

import copy
import math
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torchvision import tv_tensors
from torchvision.transforms import v2

from ml_backend.annotations.label_map import IGNORE_INDEX
from ml_backend.annotations.masks import mask_from_png
from ml_backend.errors import ImageError, MaskError, TrainingError
from ml_backend.images.decoding import load_image
from ml_backend.learning.networks import fit_size, moved, resize_image
from ml_backend.learning.training.job import Item
from ml_backend.learning.training.single_pixels import as_boxes, shrunk, single_pixels, with_moved

MEMORY_BYTES = 1 << 30
SQUARES = 12
"""Squares along the longer side of an image, by which it is said how much of it is labelled."""
_READERS = 4
_ALIKE = 0.5
"""Samples that are labelled to at least this share of the most labelled sample are drawn equally often."""

Augmentation = Callable[..., tuple[Tensor, ...]]
"""Takes and gives `tv_tensors.Image` (3,h,w) uint8, `tv_tensors.Mask` (h,w), and perhaps `tv_tensors.BoundingBoxes`."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Sample:
    """An image (3,h,w) uint8 RGB and its mask (h,w) uint8, both at the network's size."""

    image: Tensor
    mask: Tensor

    @property
    def labelled_share(self) -> float:
        """Share of the image's squares in which anything is labelled, in [0, 1].

        Neighbours tell the same: ten points that lie apart are worth far more than ten pixels of a mask.
        """
        side = math.ceil(max(self.mask.shape) / SQUARES)
        labelled = (self.mask != IGNORE_INDEX).float()[None, None]
        return float(functional.max_pool2d(labelled, side, ceil_mode=True).mean())

    @cached_property
    def single_pixels(self) -> Tensor:
        """Rows and columns (N,2) of the pixels that are labelled one by one."""
        return single_pixels(self.mask)

    @property
    def class_shares(self) -> dict[int, float]:
        """Share of the labelled pixels that each class has which occurs in the mask."""
        indices, counts = np.unique(self.mask[self.mask != IGNORE_INDEX].numpy(), return_counts=True)
        return dict(zip(indices.tolist(), (counts / counts.sum()).tolist(), strict=True))

    @property
    def size_in_bytes(self) -> int:
        """Bytes in memory."""
        return self.image.numel() + self.mask.numel()


class Samples:
    """The usable samples of some items, in their order.

    Args:
        classes: number of classes C; a mask with an index from C to 254 is not usable.
        input_size: longest side of a sample, in pixels.
        memory_bytes: samples beyond it are read from their files each time they are drawn.
        report: called after each item.

    Attributes:
        problems: item id -> why it is not usable.
    """

    def __init__(
        self,
        items: Sequence[Item],
        *,
        classes: int,
        input_size: int,
        memory_bytes: int = MEMORY_BYTES,
        report: Callable[[], None] = lambda: None,
    ) -> None:
        self.items: list[Item] = []
        self.problems: dict[str, str] = {}
        self._classes, self._input_size = classes, input_size
        self._kept: list[Sample | None] = []
        self._shares: list[float] = []
        self._classes_of: list[dict[int, float]] = []
        for item, sample in zip(items, _ahead(self._read, items), strict=True):
            if isinstance(sample, Sample):
                memory_bytes -= sample.size_in_bytes
                self.items.append(item)
                self._shares.append(sample.labelled_share)
                self._classes_of.append(sample.class_shares)
                self._kept.append(sample if memory_bytes >= 0 or len(self.items) == 1 else None)
            else:
                self.problems[item.id] = sample
            report()

    @classmethod
    def in_memory(cls, samples: Sequence[tuple[Item, Sample]]) -> Samples:
        """Return samples that are in memory already; nothing is read from their items' files."""
        made = cls([], classes=1, input_size=1)
        made.items, made._kept = [item for item, _ in samples], [sample for _, sample in samples]
        made._shares = [sample.labelled_share for _, sample in samples]
        made._classes_of = [sample.class_shares for _, sample in samples]
        return made

    def __len__(self) -> int:
        return len(self.items)

    def class_counts(self, classes: int) -> list[int]:
        """Return for each class in how many labels that people drew it occurs, at the size that the network sees."""
        drawn = [own for item, own in zip(self.items, self._classes_of, strict=True) if not item.pseudo]
        return [sum(index in own for own in drawn) for index in range(classes)]

    def class_shares(self, classes: int) -> Tensor:
        """Return the share of the labelled pixels (C) that each class has in what `batches` draws, images alike."""
        shares = torch.zeros(classes, dtype=torch.float64)
        for weight, own in zip(_weights(self._shares), self._classes_of, strict=True):
            for index, share in own.items():
                shares[index] += weight * share
        return shares / shares.sum().clamp(min=1e-9)

    def batches(self, size: int, generator: torch.Generator) -> Generator[list[Sample], None, None]:
        """Draw batches for ever: all samples in random order, then all again, in batches that are always full.

        Where some are labelled in small parts only, samples are drawn with replacement, by their labelled shares:
        otherwise a window or a few points would count as much as a whole image.

        A file that has become unreadable is skipped.

        Raises:
            TrainingError: every file became unreadable.
        """
        batch: list[Sample] = []
        unread = 0
        for sample in _ahead(self._sample, _drawn(self._shares, generator)):
            if isinstance(sample, Sample):
                batch.append(sample)
                unread = 0
            elif (unread := unread + 1) >= 2 * len(self.items):  # so many in a row hold each sample at least once
                raise TrainingError(f"None of the {len(self.items)} images can be read any more: {sample}")
            if len(batch) == size:
                yield batch
                batch = []

    def resampled(self, generator: np.random.Generator) -> Samples:
        """Draw as many samples as there are, with replacement: some several times, some not at all.

        Images and masks in memory are shared with these samples, not copied.
        """
        return self._of(generator.integers(len(self.items), size=len(self.items)).tolist())

    def _of(self, chosen: Sequence[int]) -> Samples:
        """Return the samples at some positions."""
        samples = copy.copy(self)
        samples.items = [self.items[index] for index in chosen]
        samples._kept = [self._kept[index] for index in chosen]
        samples._shares = [self._shares[index] for index in chosen]
        samples._classes_of = [self._classes_of[index] for index in chosen]
        return samples

    def views(self, most: int, memory_bytes: int = MEMORY_BYTES) -> Samples:
        """Return these samples with up to `most` views of each, the first of which is the sample itself.

        The others are augmented, in a way that depends on the image only: they are the same in every training, so that
        what a frozen encoder makes of them can be kept. Views in which nothing is labelled are left out; samples that
        are not in memory have no others.
        """
        viewed = self._of(range(len(self.items)))
        for number in range(1, most):
            for index, sample in enumerate(self._kept):
                if sample is None or memory_bytes < sample.size_in_bytes:
                    continue
                view = _view(sample, number)
                if view.labelled_share > 0:
                    memory_bytes -= view.size_in_bytes
                    viewed.items.append(self.items[index])
                    viewed._kept.append(view)
                    viewed._shares.append(view.labelled_share)
                    viewed._classes_of.append(view.class_shares)
        return viewed

    def with_original_masks(self) -> Iterator[tuple[Item, Tensor, NDArray[np.uint8]]]:
        """Yield every sample's item and image (3,h,w) uint8 with its mask (H,W) uint8 at the original size.

        A file that has become unreadable is skipped.
        """
        read = _ahead(self._with_original_mask, range(len(self.items)))
        return (sample for sample in read if sample is not None)

    def _with_original_mask(self, index: int) -> tuple[Item, Tensor, NDArray[np.uint8]] | None:
        sample = self._sample(index)
        if isinstance(sample, str):
            return None
        try:
            return self.items[index], sample.image, _read_mask(self.items[index], self._classes)
        except (MaskError, OSError):
            return None

    def _sample(self, index: int) -> Sample | str:
        return self._kept[index] or self._read(self.items[index])

    def _read(self, item: Item) -> Sample | str:
        """Return the sample, or why it cannot be used."""
        try:
            image, mask = load_image(item.image), _read_mask(item, self._classes)
        except (ImageError, MaskError, OSError) as error:
            return str(error)
        if image.shape[:2] != mask.shape:
            return f"the mask is {mask.shape[1]}x{mask.shape[0]}, the image {image.shape[1]}x{image.shape[0]} pixels"
        size = fit_size(mask.shape[0], mask.shape[1], self._input_size)
        return Sample(resize_image(image, self._input_size), shrunk(mask, size))


def augmentation() -> Augmentation:
    """Light and label-preserving: flip, shift and scale by up to a fifth, colours. Uncovered pixels are not labelled.

    Masks are interpolated to the nearest; see `single_pixels` for what that would lose.
    """
    fill = {tv_tensors.Image: 0, tv_tensors.Mask: IGNORE_INDEX}
    bilinear = v2.InterpolationMode.BILINEAR
    composed: Augmentation = v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            v2.RandomAffine(degrees=0, translate=(0.1, 0.1), scale=(0.8, 1.25), interpolation=bilinear, fill=fill),
            v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2),
        ]
    )
    return composed


def unchanged(*inputs: Tensor) -> tuple[Tensor, ...]:
    """Change nothing: the `Augmentation` of samples that were augmented before."""
    return inputs


def _view(sample: Sample, number: int) -> Sample:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(sample.image.cpu().contiguous().numpy().tobytes()) + number)
        return Sample(*_augmented(sample, sample.mask.device, augmentation()))


def _augmented(sample: Sample, device: torch.device, augment: Augmentation) -> tuple[Tensor, Tensor]:
    """Return image and mask on a device; no pixel that is labelled by itself is lost on the way, if it stays inside."""
    image, mask = tv_tensors.Image(moved(sample.image, device)), moved(sample.mask, device)
    if not len(sample.single_pixels):
        changed, nearest = augment(image, tv_tensors.Mask(mask))
        return changed.as_subclass(Tensor), nearest.as_subclass(Tensor)
    at = moved(sample.single_pixels, device)
    areas = mask.index_put(tuple(at.T), torch.tensor(IGNORE_INDEX, dtype=mask.dtype, device=device))
    boxes = as_boxes(at, (mask.shape[0], mask.shape[1]))
    changed, nearest, places = augment(image, tv_tensors.Mask(areas), boxes)
    single = with_moved(nearest.as_subclass(Tensor), places.as_subclass(Tensor), mask[tuple(at.T)])
    return changed.as_subclass(Tensor), single


def collate(batch: Sequence[Sample], device: torch.device, augment: Augmentation) -> tuple[list[Tensor], Tensor]:
    """Augment on `device`.

    Returns:
        images (3,h,w) float in [0, 1], and masks (B,H,W) int64, of the size of the largest, padded with 255.
    """
    pairs = [_augmented(sample, device, augment) for sample in batch]
    height, width = (max(mask.shape[axis] for _, mask in pairs) for axis in (0, 1))
    masks = torch.full((len(pairs), height, width), IGNORE_INDEX, dtype=torch.int64, device=device)
    for padded, (_, mask) in zip(masks, pairs, strict=True):
        padded[: mask.shape[0], : mask.shape[1]] = mask
    return [image / 255 for image, _ in pairs], masks


def _read_mask(item: Item, classes: int) -> NDArray[np.uint8]:
    """Read the mask (H,W) at its original size; MaskError when there is nothing in it to learn from."""
    mask = mask_from_png(item.mask.read_bytes())
    labelled = mask[mask != IGNORE_INDEX]
    if not labelled.size:
        raise MaskError("no pixel of the mask is labelled")
    if (highest := int(labelled.max())) >= classes:
        raise MaskError(f"the mask has class index {highest}, but there are {classes} classes")
    return mask


def _drawn(shares: Sequence[float], generator: torch.Generator) -> Iterator[int]:
    """Yield positions for ever; see `Samples.batches`."""
    weights = torch.tensor(_weights(shares), dtype=torch.float64)
    alike = bool((weights == weights[:1]).all())
    while True:
        if alike:
            yield from torch.randperm(len(shares), generator=generator).tolist()
        else:
            yield from torch.multinomial(weights, len(shares), replacement=True, generator=generator).tolist()


def _weights(shares: Sequence[float]) -> list[float]:
    """Return how often samples are drawn: by their labelled shares, or alike where those differ little."""
    alike = all(share >= _ALIKE * max(shares) for share in shares)
    return [1.0] * len(shares) if alike else list(shares)


def _ahead(function: Callable[[T], R], arguments: Iterable[T]) -> Iterator[R]:
    """Map in order on a few threads, which stay only a little ahead: decoding is what takes long."""
    waiting = iter(arguments)
    with ThreadPoolExecutor(_READERS) as pool:
        pending = deque(pool.submit(function, argument) for argument in islice(waiting, 2 * _READERS))
        while pending:
            result = pending.popleft().result()
            pending.extend(pool.submit(function, argument) for argument in islice(waiting, 1))
            yield result
