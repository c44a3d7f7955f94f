"""The training loop."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ml_backend.errors import TrainingError
from ml_backend.learning.checkpoints import Checkpoints, Version, VersionRecord
from ml_backend.learning.measuring import Counts
from ml_backend.learning.measuring.comparison import compared
from ml_backend.learning.networks import autocast, is_out_of_memory, place, resolve_device
from ml_backend.learning.training.data import Augmentation, Sample, Samples, augmentation, collate
from ml_backend.learning.training.gate import Verdict, judge
from ml_backend.learning.training.job import Item, Job, Progress
from ml_backend.learning.training.losses import cross_entropy_dice
from ml_backend.learning.training.measures import count, held_out_measures
from ml_backend.learning.training.start import continues, initial_network, rebuild

logger = logging.getLogger(__name__)
COURSE_POINTS = 200
"""Points of the loss curve that a version keeps, at most."""
_EVALUATIONS = 10
_WARM_UP = 0.1  # share of the iterations
_ENCODER_RATE = 0.3  # a pretrained encoder needs smaller steps
_FEWEST = 2  # images that batch normalisation needs

Report = Callable[[Progress], None]


@dataclass(frozen=True)
class Data:
    """What can be used of the job's items."""

    training: Samples
    held_out: Samples

    @property
    def items(self) -> list[Item]:
        """The items of usable labels, drawn by people."""
        return [item for item in [*self.training.items, *self.held_out.items] if not item.pseudo]

    @property
    def pseudo(self) -> list[Item]:
        """The items of usable pseudo-labels."""
        return [item for item in self.training.items if item.pseudo]

    def skipped(self, job: Job) -> dict[str, str]:
        """Item id -> why the label is not usable."""
        problems = self.training.problems | self.held_out.problems
        labels = [item for item in job.items if not item.pseudo and item.id in problems]
        return {**job.unavailable, **{task: problems[item.id] for item in labels for task in item.labels}}


@dataclass(frozen=True)
class Fitted:
    """The best weights, what they measured (None when nothing is held out), and the iteration they are of.

    `losses` are those of all steps, `mious` the held-out measures with the steps that they were taken after.
    `images_at_once` is the number of images that went through the network together at the end: fewer than a batch has
    where a batch did not fit into memory.
    """

    state: dict[str, Tensor]
    held_out: Counts | None
    iteration: int
    iterations: int = 0
    images_at_once: int = 0
    losses: Sequence[float] = ()
    mious: Sequence[tuple[int, float]] = ()


def run(job: Job, report: Report) -> Version:
    """Train a version; see `training.train`."""
    started = time.monotonic()
    checkpoints = Checkpoints(job.folder)
    parent = None if job.parent is None else checkpoints.get(job.parent)
    device = resolve_device(job.device)
    data = read_data(job, report)
    with seeded(job.seed, device):
        network = initial_network(job, checkpoints, parent)
        pretrained = job.encoder_weights != "none" or (parent is not None and continues(job, parent))
        fitted = fit(network, data, job, device, report, pretrained=pretrained)
    of_parent = None if parent is None else measure_parent(job, checkpoints, parent, data, device, report)
    verdict = compare_with_parent(job, parent, of_parent, fitted.held_out)
    record = describe(job, data, fitted, verdict, of_parent, seconds=time.monotonic() - started)
    version = checkpoints.create(record, fitted.state)
    logger.info("version %d trained in %.1f s: %s", version.number, record.measures["seconds"], verdict.reason)
    return version


def read_data(job: Job, report: Report) -> Data:
    """Read every item once.

    Raises:
        TrainingError: there is nothing to train on.
    """
    done = iter(range(1, len(job.items) + 1))
    data = Data(
        *(
            Samples(
                [item for item in job.items if item.held_out == held_out],
                classes=len(job.classes),
                input_size=job.input_size,
                report=lambda: report(Progress("reading", next(done), len(job.items))),
            )
            for held_out in (False, True)
        )
    )
    if len(data.training) == len(data.pseudo):
        skipped = data.skipped(job)
        reasons = "; ".join(f"{task}: {reason}" for task, reason in list(skipped.items())[:3])
        raise TrainingError(
            f"There is nothing to train on: {len(data.items) + len(skipped)} labels, {len(data.held_out)} of them held "
            f"out, {len(skipped)} not usable{f' ({reasons})' if reasons else ''}. Label more images.",
            skipped,
        )
    return data


def fit(
    network: nn.Module,
    data: Data,
    job: Job,
    device: torch.device,
    report: Report,
    *,
    pretrained: bool,
    augment: Augmentation | None = None,
) -> Fitted:
    """Optimise until the iterations are used up or the held-out mIoU stops rising; return the best weights.

    With nothing held out they are the last weights. A batch that does not fit into memory goes through the network in
    parts, whose gradients are added up: see `Parts`.

    Args:
        pretrained: the encoder learns at a lower rate.
        augment: changes an image and its mask each time they are drawn; None: `augmentation`.

    Raises:
        TrainingError: the loss is not finite any more, or two images do not fit into memory.
    """
    place(network, device)
    frozen = [] if job.train_encoder else _frozen_encoders(network)
    optimizer = torch.optim.AdamW(parameter_groups(network, job.learning_rate, _ENCODER_RATE if pretrained else 1.0))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, job.iterations))
    interval = math.ceil(job.iterations / _EVALUATIONS)
    augment, generator = augment or augmentation(), torch.Generator().manual_seed(job.seed)
    best: Fitted | None = None
    losses, mious = list[float](), list[tuple[int, float]]()
    iteration = waited = 0
    size = max(_FEWEST, job.batch_size)
    parts = Parts(network, device, augment, size)
    with closing(data.training.batches(size, generator)) as batches:
        while iteration < job.iterations and waited < job.patience:
            iteration += 1
            network.train()
            for encoder in frozen:
                encoder.eval()  # the statistics of batch normalisation belong to its weights
            loss = parts.backward(next(batches))
            finite(loss, iteration)
            optimizer.step()
            schedule.step()
            losses.append(loss)
            report_at(report, loss, mious)(Progress("training", iteration, job.iterations))
            if len(data.held_out) and (iteration % interval == 0 or iteration == job.iterations):
                measured = measure(network, data.held_out, job, device, report_at(report, loss, mious))
                miou = held_out_measures(measured)["miou"] or 0.0
                waited += 1
                if best is None or miou > max(before for _, before in mious):
                    best, waited = Fitted(snapshot(network), measured, iteration), 0
                mious.append((iteration, miou))
    best = best or Fitted(snapshot(network), None, iteration)
    return dataclasses.replace(best, iterations=iteration, images_at_once=parts.most, losses=losses, mious=mious)


def report_at(report: Report, loss: float, mious: Sequence[tuple[int, float]]) -> Report:
    """Return a report that adds how far the training had come."""
    miou = mious[-1][1] if mious else None
    return lambda progress: report(dataclasses.replace(progress, loss=loss, miou=miou))


class Parts:
    """Computes the gradients of batches, in parts where a whole batch does not fit into memory.

    Each part's loss counts by its share of the images, so that a step is as large as with the whole batch. It is not
    the same to the last digit: batch normalisation sees a part, and Dice is that of the part. The first batch that
    does not fit halves the parts for the rest of the training.

    Args:
        most: images that go through the network together, at first.
    """

    def __init__(self, network: nn.Module, device: torch.device, augment: Augmentation, most: int) -> None:
        self._network, self._device, self._augment, self.most = network, device, augment, most

    def backward(self, batch: list[Sample]) -> float:
        """Put the gradients of a batch's loss into the parameters; return the loss.

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

    def _attempt(self, batch: list[Sample]) -> float | None:
        """Return the loss, or None where memory ran out."""
        self._network.zero_grad()
        total = 0.0
        try:
            for part in _parts(batch, self.most):
                images, target = collate(part, self._device, self._augment)  # (B,3,H,W), (B,H,W)
                with autocast(self._device):
                    logits = self._network(images)  # (B,C,H,W)
                loss = cross_entropy_dice(logits.float(), target) * (len(part) / len(batch))
                torch.autograd.backward(loss)
                total += loss.item()
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


def measure(network: nn.Module, held_out: Samples, job: Job, device: torch.device, report: Report) -> Counts:
    """Measure a network of the job's classes on held-out samples."""
    total = len(held_out)
    return count(
        network, held_out, job.classes, device=device, report=lambda done: report(Progress("measuring", done, total))
    )


def measure_parent(
    job: Job, checkpoints: Checkpoints, parent: Version, data: Data, device: torch.device, report: Report
) -> Counts | None:
    """Measure the parent on this job's held-out labels, without those that it was trained on.

    Returns:
        None with other classes, or where no label is left.
    """
    items = [item for item in data.held_out.items if parent.record.trained_on.isdisjoint(item.labels)]
    if parent.record.classes != job.classes or not items:
        return None
    held_out, size = data.held_out, int(parent.record.settings["input_size"])
    if size != job.input_size or len(items) < len(held_out):
        held_out = Samples(items, classes=len(job.classes), input_size=size)
    return measure(place(rebuild(checkpoints, parent), device), held_out, job, device, report)


def compare_with_parent(job: Job, parent: Version | None, before: Counts | None, after: Counts | None) -> Verdict:
    """Judge what a training brought.

    Args:
        before, after: what the parent and the new network measured; None where they were not measured.
    """
    if parent is None:
        return judge(None, None)
    if parent.record.classes != job.classes:
        return judge(job.parent, None, why_not="it has other classes")
    if not after:
        return judge(job.parent, None, why_not="no label is held out")
    if not before:
        return judge(job.parent, None, why_not="it was trained on the labels that are held out now")
    common = [label for label in before.labels if label in after.labels]
    comparison = compared(before.only(common), after.only(common))
    return judge(job.parent, comparison, why_not="none of the held-out labels can be read any more")


def describe(
    job: Job, data: Data, fitted: Fitted, verdict: Verdict, of_parent: Counts | None, *, seconds: float
) -> VersionRecord:
    """Return the record of a trained version: what it was trained on and how, and its measures."""
    skipped, trained = data.skipped(job), len(data.training) - len(data.pseudo)
    counts = {"trained": trained, "held_out": len(data.held_out), "skipped": len(skipped)}
    effort = {"iterations": fitted.iterations, "best_iteration": fitted.iteration, "seconds": round(seconds, 2)}
    effort |= {"images_at_once": fitted.images_at_once}
    measured = held_out_measures(fitted.held_out) if fitted.held_out else {}
    parent_miou = held_out_measures(of_parent)["miou"] if of_parent else None
    not_settings = {"items", "unavailable", "classes", "label_map_digest", "folder", "parent", "trigger"}
    not_settings |= {"committee_of", "members"}
    return VersionRecord(
        classes=job.classes,
        label_map_digest=job.label_map_digest,
        data_digest=job.data_digest,
        parent=job.parent,
        labels={task: digest for item in data.items for task, digest in item.labels.items()},
        skipped=skipped,
        pseudo_labels=tuple(item.id for item in data.pseudo),
        held_out=tuple(task for item in data.held_out.items for task in item.labels),
        measures={"miou": None} | measured | {"parent_miou": parent_miou} | counts | effort,
        settings={
            field.name: getattr(job, field.name) for field in dataclasses.fields(job) if field.name not in not_settings
        },
        accepted=verdict.accepted,
        reason=verdict.reason,
        trigger=job.trigger,
        counts=fitted.held_out.texts() if fitted.held_out else {},
        parent_counts=of_parent.texts() if of_parent else {},
        groups=fitted.held_out.known_groups() if fitted.held_out else {},
        course={"loss": thinned(fitted.losses), "miou": [list(point) for point in fitted.mious]},
        class_labels=dict(zip(job.classes, data.training.class_counts(len(job.classes)), strict=True)),
    )


def thinned(losses: Sequence[float]) -> list[list[float]]:
    """Return losses as at most `COURSE_POINTS` pairs of a step, counted from 1, and the mean loss up to it.

    >>> thinned([4.0, 2.0])
    [[1, 4.0], [2, 2.0]]
    """
    size = math.ceil(len(losses) / COURSE_POINTS) or 1
    parts = [losses[start : start + size] for start in range(0, len(losses), size)]
    return [[min(len(losses), (at + 1) * size), round(sum(part) / len(part), 5)] for at, part in enumerate(parts)]


def _frozen_encoders(network: nn.Module) -> list[nn.Module]:
    encoders = [module for name, module in network.named_modules() if name.split(".")[-1] == "encoder"]
    return [encoder.requires_grad_(False) for encoder in encoders]


def parameter_groups(network: nn.Module, learning_rate: float, encoder_rate: float) -> list[dict[str, Any]]:
    """Return the parameters of the encoder and the others as two groups of an optimiser, each with its peak rate."""
    named = list(network.named_parameters())
    encoder = [parameter for name, parameter in named if "encoder" in name.split(".")]
    rest = [parameter for name, parameter in named if "encoder" not in name.split(".")]
    return [{"params": encoder, "lr": learning_rate * encoder_rate}, {"params": rest, "lr": learning_rate}]


def rate(step: int, iterations: int) -> float:
    """Return the share of the peak learning rate at a step: linear warm-up, then half a cosine down to zero."""
    warm_up = max(1, round(_WARM_UP * iterations))
    if step < warm_up:
        return (step + 1) / (warm_up + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, iterations - warm_up)))


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
