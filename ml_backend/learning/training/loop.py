"""The training loop."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ml_backend.errors import TrainingError
from ml_backend.learning.checkpoints import Checkpoints, Version, VersionRecord
from ml_backend.learning.measuring import Counts
from ml_backend.learning.measuring.comparison import compared
from ml_backend.learning.networks import MapStore, place, resolve_device
from ml_backend.learning.training.data import Samples
from ml_backend.learning.training.fit import Fitted, Report, fit, seeded
from ml_backend.learning.training.gate import Verdict, judge, judge_trial
from ml_backend.learning.training.job import Item, Job, Progress
from ml_backend.learning.training.length import Length
from ml_backend.learning.training.measures import count, held_out_measures
from ml_backend.learning.training.recipe import resolved
from ml_backend.learning.training.start import continues, initial_network, kept_maps, rebuild

logger = logging.getLogger(__name__)
COURSE_POINTS = 200
"""Points of the loss curve that a version keeps, at most."""


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


def run(job: Job, report: Report) -> Version:
    """Train a version; see `training.train`."""
    started = time.monotonic()
    job = resolved(job)
    checkpoints = Checkpoints(job.folder)
    parent = None if job.parent is None else checkpoints.get(job.parent)
    device = resolve_device(job.device)
    data = read_data(job, report)
    maps = kept_maps(job)

    def watch(network: nn.Module, report: Report) -> Counts | None:
        return measure(network, data.held_out, job, device, report) if len(data.held_out) else None

    with seeded(job.seed, device):
        network = initial_network(job, checkpoints, parent, maps)
        pretrained = job.encoder_weights != "none" or (parent is not None and continues(job, parent))
        length = Length.of(job, len(data.training), began=None if job.iterations else started)
        fitted = fit(network, data.training, job, device, report, pretrained=pretrained, length=length, measure=watch)
    of_parent = None if parent is None else measure_parent(job, checkpoints, parent, data, device, report, maps)
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


def measure(network: nn.Module, held_out: Samples, job: Job, device: torch.device, report: Report) -> Counts:
    """Measure a network of the job's classes on held-out samples."""
    total = len(held_out)
    return count(
        network, held_out, job.classes, device=device, report=lambda done: report(Progress("measuring", done, total))
    )


def measure_parent(
    job: Job,
    checkpoints: Checkpoints,
    parent: Version,
    data: Data,
    device: torch.device,
    report: Report,
    maps: MapStore | None = None,
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
    return measure(place(rebuild(checkpoints, parent, maps), device), held_out, job, device, report)


def compare_with_parent(job: Job, parent: Version | None, before: Counts | None, after: Counts | None) -> Verdict:
    """Judge what a training brought.

    Args:
        before, after: what the parent and the new network measured; None where they were not measured.
    """
    if parent is None:
        return judge(None, None)
    comparison = None
    if parent.record.classes != job.classes:
        why_not = "it has other classes"
    elif not after:
        why_not = "no label is held out"
    elif not before:
        why_not = "it was trained on the labels that are held out now"
    else:
        common = [label for label in before.labels if label in after.labels]
        comparison = compared(before.only(common), after.only(common))
        why_not = "none of the held-out labels can be read any more"
    if job.trial:
        return judge_trial(comparison, learns=bool(job.train_encoder), why_not=why_not)
    return judge(job.parent, comparison, why_not=why_not)


def describe(
    job: Job, data: Data, fitted: Fitted, verdict: Verdict, of_parent: Counts | None, *, seconds: float
) -> VersionRecord:
    """Return the record of a trained version: what it was trained on and how, and its measures."""
    skipped, trained = data.skipped(job), len(data.training) - len(data.pseudo)
    counts = {"trained": trained, "held_out": len(data.held_out), "skipped": len(skipped)}
    effort = {"iterations": fitted.iterations, "seconds": round(seconds, 2)}
    effort |= {"images_at_once": fitted.images_at_once}
    measured = held_out_measures(fitted.held_out) if fitted.held_out else {}
    parent_miou = held_out_measures(of_parent)["miou"] if of_parent else None
    not_settings = {"items", "unavailable", "classes", "label_map_digest", "folder", "parent", "trigger"}
    not_settings |= {"committee_of", "members", "maps_folder", "maps_bytes", "trial"}
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
        trial=job.trial,
        counts=fitted.held_out.texts() if fitted.held_out else {},
        parent_counts=of_parent.texts() if of_parent else {},
        groups=fitted.held_out.known_groups() if fitted.held_out else {},
        course={
            "loss": thinned(fitted.losses),
            "miou": [[at, one.value, one.low, one.high] for at, one in fitted.mious],
        },
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
