"""What stands in for the training process, and labels for it to learn from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from wiring import task_of

from ml_backend.errors import TrainingError
from ml_backend.learning.checkpoints import Checkpoints, VersionRecord
from ml_backend.learning.training import Job, Progress
from ml_backend.learning.training.recipe import resolved
from ml_backend.projects.services import Services

Run = Callable[..., bool]


class Trainings:
    """Stands in for the training process: keeps the jobs, and writes a version or fails as told."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.accepted = True
        self.fails = ""
        self.groups = 0
        self.before_heartbeat: Callable[[], None] = lambda: None
        self.meanwhile: Callable[[], None] = lambda: None

    def run(self, job: Job, *, progress: Any, heartbeat: Any) -> int:
        self.before_heartbeat()
        heartbeat()
        job = resolved(job)
        progress(Progress("training", 1, 2))
        self.jobs.append(job)
        self.meanwhile()
        if self.fails:
            raise TrainingError(self.fails)
        if job.committee_of is not None:
            state = {"weight": torch.zeros(1)}
            Checkpoints(job.folder).committees.put(job.committee_of, [state] * job.members, {})
            return job.committee_of
        names = ["architecture", "encoder", "input_size", "train_encoder"]
        names += ["network_options"] if job.network_options else []  # the oldest versions have no such key
        record = VersionRecord(
            classes=job.classes,
            label_map_digest=job.label_map_digest,
            data_digest=job.data_digest,
            parent=job.parent,
            labels={item.id: item.digest for item in job.items},
            settings={name: getattr(job, name) for name in names},
            held_out=tuple(item.id for item in job.items if item.held_out),
            measures={"groups": self.groups} if self.groups else {},
            trial=job.trial,
            accepted=self.accepted,
            reason="reason of a trial" if job.trial else "",
        )
        return Checkpoints(job.folder).create(record, {"weight": torch.zeros(1)}).number


def label(services: Services, task_ids: Sequence[int], digest: str = "first") -> None:
    services.store.put_tasks(
        task_of(
            one,
            image=f"/data/upload/{one - 1}.png",
            status="labelled",
            label_digest=digest,
            mask_file=f"/masks/{one}.png",
            held_out=one % 4 == 0,
        )
        for one in task_ids
    )
