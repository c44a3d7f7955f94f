"""Fitting a network to labelled images: batches, gradients, steps, and the average of the weights."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ml_backend.errors import TrainingError
from ml_backend.learning.measuring import Counts, Estimate, estimates
from ml_backend.learning.measuring.words import measured_text
from ml_backend.learning.networks import SegmentationNetwork, autocast, is_out_of_memory, place
from ml_backend.learning.training.data import Augmentation, Sample, Samples, augmentation, collate, unchanged
from ml_backend.learning.training.job import Job, Progress
from ml_backend.learning.training.length import Length
from ml_backend.learning.training.losses import class_weights_of, cross_entropy_dice

logger = logging.getLogger(__name__)
_ENCODER_RATE = 0.3  # a pretrained encoder needs smaller steps
_FEWEST = 2  # images that batch normalisation needs
_WARM_UP = 0.1  # share of the steps
_FIRST_RATE = 0.1  # of the peak
_MEASURED_AT = (0.25, 0.5, 0.75)
"""Shares of a training after which held-out labels are measured, for people to watch: nothing is decided by it."""
_READ_EVERY = 10
"""Steps between two looks at the loss: each makes a GPU wait."""
_VIEWS, _VIEWS_IN_ALL = 4, 400
"""Views of each sample for an encoder that is not trained, and of all samples together, beyond one of each."""

Report = Callable[[Progress], None]
Measure = Callable[[nn.Module, Report], Counts | None]


@dataclass(frozen=True)
class Fitted:
    """The averaged weights, and how they came about.

    Attributes:
        held_out: what these weights measured; None where nothing is held out.
        images_at_once: images that went through the network together at the end: fewer than a batch has where a batch
            did not fit into memory.
        losses: those of all steps.
        mious: held-out mIoU with the steps that it was measured after.
    """

    state: dict[str, Tensor]
    held_out: Counts | None = None
    iterations: int = 0
    images_at_once: int = 0
    losses: Sequence[float] = ()
    mious: Sequence[tuple[int, Estimate]] = ()


def fit(
    network: SegmentationNetwork,
    samples: Samples,
    job: Job,
    device: torch.device,
    report: Report,
    *,
    pretrained: bool,
    length: Length | None = None,
    views: int = 0,
    measure: Measure = lambda *_: None,
) -> Fitted:
    """Optimise for the job's steps or time, and return the average of the weights over the second half of the steps.

    A batch that does not fit into memory goes through the network in parts, whose gradients are added up: see `Parts`.
    An encoder that is not trained sees a few views of each image, always the same, so that its maps can be kept; one
    that is trained sees new ones in every step.

    Args:
        network: in any mode; the averaged weights are its weights at the end.
        pretrained: the encoder learns at a lower rate.
        length: how long; None: as the job says, from now on.
        views: of each sample, for an encoder that is not trained; 0: four, and fewer of many samples.
        measure: measures the network a few times; None where there is nothing to measure on.

    Raises:
        TrainingError: the loss is not finite any more, or two images do not fit into memory.
    """
    place(network, device)
    optimizer = torch.optim.AdamW(parameter_groups(network, job.learning_rate, _ENCODER_RATE if pretrained else 1.0))
    peaks = [group["lr"] for group in optimizer.param_groups]
    length = length or Length.of(job, len(samples))
    augment, drawn = augmentation(), samples
    if network.is_frozen:
        augment, drawn = unchanged, samples.views(views or max(1, min(_VIEWS, _VIEWS_IN_ALL // len(samples))))
    course, average = Course(report, length), Average(network)
    size = max(_FEWEST, job.batch_size)
    parts = Parts(network, device, augment, size, class_weights_of(drawn.class_shares(len(job.classes))))
    with closing(drawn.batches(size, torch.Generator().manual_seed(job.seed))) as batches:
        while not length.is_over(course.steps):
            share = length.share(course.steps)
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * rate(share)
            network.train()
            loss = parts.backward(next(batches))
            optimizer.step()
            if share >= Average.FROM:
                average.add()
            course.add(loss)
            if course.is_time_to_measure(share):
                with average.in_place():
                    course.measured(measure(network, course.report))
    course.read()
    average.load()
    course.measured(held_out := measure(network, course.report))
    return Fitted(snapshot(network), held_out, course.steps, parts.most, course.losses, course.mious)


class Course:
    """How a training goes: its losses and measures, told as they come.

    Losses stay on the device until they are read, so that no step waits for the one before.
    """

    def __init__(self, report: Report, length: Length) -> None:
        self._report, self._length = report, length
        self._unread: list[Tensor] = []
        self._measured = 0
        self.losses: list[float] = []
        self.mious: list[tuple[int, Estimate]] = []

    @property
    def steps(self) -> int:
        """Steps that were taken."""
        return len(self.losses) + len(self._unread)

    def add(self, loss: Tensor) -> None:
        """Take in the loss of another step.

        Raises:
            TrainingError: one of the latest is not finite.
        """
        self._unread.append(loss)
        if loss.device.type == "cpu" or len(self._unread) >= _READ_EVERY:
            self.read()
        self.report(Progress("training", self.steps, self._length.total(self.steps)))

    def read(self) -> None:
        """Wait for the losses of the steps so far."""
        for loss in torch.stack(self._unread).tolist() if self._unread else ():
            finite(loss, len(self.losses) + 1)
            self.losses.append(loss)
        self._unread.clear()

    def report(self, progress: Progress) -> None:
        """Tell how far something is, beside how the training goes."""
        loss = self.losses[-1] if self.losses else None
        held_out = measured_text(self.mious[-1][1]) if self.mious else ""
        left = self._length.seconds_left(self.steps)
        self._report(dataclasses.replace(progress, loss=loss, held_out=held_out, seconds_left=left))

    def is_time_to_measure(self, share: float) -> bool:
        """Whether a share was reached after which there has been no measure yet."""
        due = sum(share >= at for at in _MEASURED_AT)
        return due > self._measured

    def measured(self, held_out: Counts | None) -> None:
        """Take in what was measured; None where nothing is held out."""
        self._measured += 1
        if held_out is not None and (found := estimates(held_out)):
            self.mious.append((self.steps, found.miou))


class Average:
    """The moving average of a network's weights and statistics.

    The statistics of batch normalisation are averaged as weights are, since they belong to the weights of their step.
    """

    FROM = 0.5
    """Share of the steps after which weights are averaged."""
    _MEMORY = 0.99

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._values: dict[str, Tensor] = {}
        self._count = 0

    def add(self) -> None:
        """Take in the weights as they are now."""
        self._count += 1
        memory = min(self._MEMORY, (self._count - 1) / (self._count + 8))  # the first weights count for little
        for name, value in self._network.state_dict().items():
            if not value.is_floating_point():
                continue
            if name in self._values:
                self._values[name].lerp_(value, 1 - memory)
            else:
                self._values[name] = value.clone()

    def load(self) -> None:
        """Give the network the averaged weights."""
        if self._values:
            self._network.load_state_dict(self._values, strict=False)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Give the network the averaged weights until the block ends."""
        before = {name: value.clone() for name, value in self._network.state_dict().items()}
        self.load()
        yield
        self._network.load_state_dict(before)


class Parts:
    """Computes the gradients of batches, in parts where a whole batch does not fit into memory.

    Each part's loss counts by its share of the images, so that a step is as large as with the whole batch. It is not
    the same to the last digit: batch normalisation sees a part, and Dice is that of the part. The first batch that
    does not fit halves the parts for the rest of the training.

    Args:
        most: images that go through the network together, at first.
        class_weights: (C), see `losses.class_weights_of`.
    """

    def __init__(
        self,
        network: SegmentationNetwork,
        device: torch.device,
        augment: Augmentation,
        most: int,
        class_weights: Tensor,
    ) -> None:
        self._network, self._device, self._augment, self.most = network, device, augment, most
        self._class_weights = class_weights.to(device)

    def backward(self, batch: list[Sample]) -> Tensor:
        """Put the gradients of a batch's loss into the parameters; return the loss, a scalar on the device.

        Raises:
            TrainingError: two images do not fit into memory.
        """
        while True:
            loss = self._attempt(batch)
            if loss is not None:
                return loss
            torch.cuda.empty_cache()  # out of the handler, whose traceback keeps the tensors alive
            if self.most <= _FEWEST:
                raise TrainingError(
                    f"Training ran out of memory with {_FEWEST} images at a time on {self._device}: lower "
                    "NEXTMASK_INPUT_SIZE, choose a smaller NEXTMASK_ENCODER, or give the machine more memory."
                )
            self.most = max(_FEWEST, self.most // 2)
            logger.warning("a batch of %d does not fit into memory: %d at a time", len(batch), self.most)

    def _attempt(self, batch: list[Sample]) -> Tensor | None:
        """Return the loss, or None where memory ran out."""
        self._network.zero_grad()
        total = torch.zeros((), device=self._device)
        try:
            for part in _parts(batch, self.most):
                images, target = collate(part, self._device, self._augment)  # B of (3,h,w), (B,H,W)
                with autocast(self._device):
                    logits = self._network.forward_each(images)  # (B,C,H,W)
                loss = cross_entropy_dice(logits.float(), target, self._class_weights) * (len(part) / len(batch))
                torch.autograd.backward(loss)
                total += loss.detach()
                del images, target, logits, loss  # before the next part, not after its first layer
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return None
        return total


def _parts(batch: list[Sample], most: int) -> Iterator[list[Sample]]:
    """Cut a batch into parts of at most `most` images (of three, where a single image would be left over)."""
    count = max(1, min(math.ceil(len(batch) / most), len(batch) // _FEWEST))
    bounds = [round(number * len(batch) / count) for number in range(count + 1)]
    return (batch[start:end] for start, end in itertools.pairwise(bounds))


def parameter_groups(network: nn.Module, learning_rate: float, encoder_rate: float) -> list[dict[str, Any]]:
    """Return the parameters of the encoder and the others as two groups of an optimiser, each with its peak rate."""
    named = list(network.named_parameters())
    encoder = [parameter for name, parameter in named if "encoder" in name.split(".")]
    rest = [parameter for name, parameter in named if "encoder" not in name.split(".")]
    return [{"params": encoder, "lr": learning_rate * encoder_rate}, {"params": rest, "lr": learning_rate}]


def rate(share: float) -> float:
    """Return the share of the peak learning rate after a share of a training: it rises, then falls along a cosine.

    >>> rate(0.0), rate(0.1), rate(1.0)
    (0.1, 1.0, 0.0)
    """
    if share < _WARM_UP:
        return _FIRST_RATE + (1 - _FIRST_RATE) * share / _WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (share - _WARM_UP) / (1 - _WARM_UP)))


def finite(loss: float, iteration: int) -> None:
    """Raise TrainingError for a loss that is not finite: a network that diverged must never be published."""
    if not math.isfinite(loss):
        raise TrainingError(
            f"The loss became {loss} at iteration {iteration}: lower NEXTMASK_LEARNING_RATE, or train from scratch."
        )


def snapshot(network: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the network's state on the CPU: name -> tensor."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in network.state_dict().items()}


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Make torch's random numbers a function of the seed, and give the caller's state back."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
