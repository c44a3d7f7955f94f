"""Ensembles: networks trained on bootstrap resamples of the labelled images, as a committee for a version.

Paper: Yang et al., "Suggestive annotation: a deep active learning framework for biomedical image segmentation", 2017
(arXiv 1706.04737), where 4 networks are each trained on another resample, drawn with replacement, of the annotated
images.

Every member starts from the encoder's initial weights with a head and a decoder of its own, and is trained as a version
is; all of them share the time of one. Nothing is measured, so the held-out labels stay unseen by all of them.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ml_backend.learning.checkpoints import Checkpoints, Version
from ml_backend.learning.networks import MapStore, resolve_device
from ml_backend.learning.training.data import Samples
from ml_backend.learning.training.fit import Report, fit, seeded
from ml_backend.learning.training.job import Job, Progress
from ml_backend.learning.training.loop import Data, read_data
from ml_backend.learning.training.recipe import resolved
from ml_backend.learning.training.start import initial_network, kept_maps

logger = logging.getLogger(__name__)


def run(job: Job, report: Report) -> Version:
    """Train the committee of the version `job.committee_of`; see `training.train`.

    Each member is kept as soon as it is trained: the same job, run again after it was killed, trains the others.

    Returns:
        the version of the committee.
    """
    started = time.monotonic()
    checkpoints = Checkpoints(job.folder)
    version = checkpoints.get(job.committee_of or 0)
    job, device = _own(job), resolve_device(job.device)
    data, maps = read_data(job, report), kept_maps(job)
    record = describe(job, data)
    states = checkpoints.committees.parts(version.number, record)
    for index in range(job.members):
        if index not in states:
            states[index] = train_member(job, data, index, device, report, maps)
            checkpoints.committees.keep_part(version.number, index, states[index], record)
    checkpoints.committees.put(version.number, [states[index] for index in range(job.members)], record)
    seconds = time.monotonic() - started
    logger.info("committee of version %d trained in %.1f s: %d members", version.number, seconds, job.members)
    return version


def run_member(job: Job, index: int, report: Report) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Train one member of the job's committee, wherever the others are trained.

    Returns:
        its weights, and the record of the committee that it belongs to.
    """
    job = _own(job)
    data = read_data(job, report)
    state = train_member(job, data, index, resolve_device(job.device), report, kept_maps(job))
    return state, describe(job, data)


def _own(job: Job) -> Job:
    """Return the job as members are trained by it: without what is held out, and without a parent."""
    return resolved(dataclasses.replace(job, items=tuple(item for item in job.items if not item.held_out), parent=None))


def train_member(
    job: Job, data: Data, index: int, device: torch.device, report: Report, maps: MapStore | None = None
) -> dict[str, Tensor]:
    """Train a member on its resample; return its weights."""
    own = dataclasses.replace(job, seed=job.seed + 1 + index)  # no member has the version's seed

    def show(step: Progress) -> None:
        report(dataclasses.replace(step, stage="training committee", member=index + 1, members=job.members))

    with seeded(own.seed, device):
        network = initial_network(own, Checkpoints(job.folder), None, maps)
        resample = resampled(job, data, index)
        return fit(network, resample, own, device, show, pretrained=job.encoder_weights != "none").state


def resampled(job: Job, data: Data, index: int) -> Samples:
    """Return the resample of a member; it depends on the job's seed and the member's index only."""
    return data.training.resampled(np.random.default_rng([job.seed, index]))


def describe(job: Job, data: Data) -> dict[str, Any]:
    """Return the committee's record: all that its weights depend on, as JSON values."""
    network = ("architecture", "encoder", "encoder_weights", "network_options", "dropout", "input_size")
    effort = ("iterations", "training_budget", "batch_size", "learning_rate", "train_encoder", "seed")
    settings = {name: getattr(job, name) for name in (*network, *effort)}
    resamples = [[item.id for item in resampled(job, data, index).items] for index in range(job.members)]
    return {
        "classes": list(job.classes),
        "label_map_digest": job.label_map_digest,
        "data_digest": job.data_digest,
        "labels": {item.id: item.digest for item in data.items},
        "skipped": data.skipped(job),
        "resamples": resamples,
        "settings": settings,
    }
