"""One training of a project: fetches images, merges labels, and waits for the process that trains."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from ml_backend.annotations.label_map import LabelMap
from ml_backend.cluster import trainings
from ml_backend.errors import ClusterError, DiskFull, ImageError, MaskError, TrainingError
from ml_backend.learning.checkpoints import Version, VersionRecord
from ml_backend.learning.training import process as training_process
from ml_backend.projects.audit_points import AuditLabel, audit_label
from ml_backend.projects.parts import MergedLabel, parts_of
from ml_backend.projects.training_turns import Turn
from ml_backend.settings import Settings
from ml_backend.store import Task
from ml_backend.system.bucket import Bucket
from ml_backend.system.disk import RESERVE, disk_full, free_bytes, shortage
from ml_backend.worker.cluster_events import tell_cluster_fails, told_cluster_works
from ml_backend.worker.look import Look
from ml_backend.worker.pseudo_labels import PseudoLabels

if TYPE_CHECKING:
    from ml_backend.learning.training import Item, Job, Progress

TRAINING_SETTINGS = (
    "train_from",
    "architecture",
    "encoder",
    "encoder_weights",
    "network_options",
    "dropout",
    "input_size",
    "iterations",
    "training_budget",
    "batch_size",
    "learning_rate",
    "train_encoder",
    "seed",
)
"""Names of the settings that a network depends on."""


class TrainingRun:
    """Trains on the labels of one project; waits for the project's turn.

    Args:
        labelled: the tasks whose labels train or measure.
        label_map: the classes.
        digest: of the labels, kept with what is trained.
        trigger: why it is trained, in words; kept likewise.
        heartbeat: called every few seconds; None: `Look.attend`.
        changes: fields of the job that differ from what the settings say.
    """

    def __init__(
        self,
        look: Look,
        labelled: Sequence[Task],
        label_map: LabelMap,
        digest: str,
        *,
        trigger: str = "",
        heartbeat: Callable[[], None] | None = None,
        **changes: Any,
    ) -> None:
        self._look, self._settings, self._store = look, look.settings, look.store
        self._labelled, self._label_map, self._digest = labelled, label_map, digest
        self._trigger, self._heartbeat, self._changes = trigger, heartbeat or look.attend, changes
        self._run_job: Callable[..., int] = training_process.run

    def train_version(self) -> int:
        """Train the next version and return its number.

        Raises:
            TrainingError: it did not end with a version.
            TrainingWaits: another project trains.
            DiskFull: there is too little room for a version.
        """
        return self._somewhere(self._trained_version)

    def _somewhere(self, train: Callable[[Turn], int]) -> int:
        """Train on the cluster, whose CPUs and GPUs are its turns; here, in the project's turn, where there is none."""
        turns, project_id = self._look.services.turns, self._look.project_id
        if self._settings.ray_address:
            self._run_job = partial(trainings.run, address=self._settings.ray_address)
            try:
                number = train(Turn(self._settings.device, check=lambda: None))
            except ClusterError as error:
                tell_cluster_fails(self._look, error, "The project trains here")
            else:
                told_cluster_works(self._look)
                turns.leave(project_id)  # where it waited for a device of this machine, while there was no cluster
                return number
        with turns.take(project_id) as turn:
            self._run_job = training_process.run
            return train(turn)

    def _trained_version(self, turn: Turn) -> int:
        self._look.stage("training")
        items, unavailable = self.items(self._labelled)
        job = replace(self._job(items), unavailable=unavailable)
        try:
            number = self._train(job, turn)
        except TrainingError as error:
            self._leave_out(error.skipped)
            raise
        self._leave_out(self._look.checkpoints.get(number).record.skipped)
        return number

    def _train(self, job: Job, turn: Turn) -> int:
        if all(item.held_out for item in job.items):
            return self._run(job, turn)  # it fails, and says why: a network is not trained on its own predictions alone
        with PseudoLabels(self._look).items(self._look.checkpoints.current()) as predicted:
            return self._run(replace(job, items=(*job.items, *predicted)), turn)

    def _leave_out(self, skipped: Mapping[str, str]) -> None:
        """Count the labels no longer that could not be used: what is counted is what trains."""
        errors = {int(task): f"Training could not use it: {reason}" for task, reason in skipped.items()}
        self._store.leave_out(self._labelled, errors)

    def train_committee(self, version: Version) -> None:
        """Train the ensemble that goes with a version; raises as `train_version`."""
        self._somewhere(partial(self._trained_committee, version))

    def _trained_committee(self, version: Version, turn: Turn) -> int:
        self._look.stage("training committee")
        items, _ = self.items([task for task in self._labelled if not task.held_out])
        members = self._settings.effective_members
        return self._run(replace(self._job(items), parent=None, committee_of=version.number, members=members), turn)

    # -- the data -----------------------------------------------------------------------------------------------------
    def items(self, labelled: Sequence[Task]) -> tuple[list[Item], dict[str, str]]:
        """Fetch the labelled images and merge their labels.

        Returns:
            What can be trained on, and by task id why the rest cannot; the store is told as well.
        """
        from ml_backend.learning.training import Item

        by_image: dict[str, list[Task]] = defaultdict(list)
        for task in labelled:
            by_image[task.image].append(task)
        items: list[Item] = []
        unavailable: dict[str, str] = {}
        for done, (reference, image) in enumerate(self._look.images.prefetch(list(by_image)), start=1):
            self._look.stage("fetching images", done, len(by_image))
            for label in self._labels(by_image[reference]):
                usable = self._usable(label)
                if isinstance(image, ImageError) or isinstance(usable, MaskError):
                    error = image if isinstance(image, ImageError) else usable
                    unavailable.update({str(task.task_id): str(error) for task in label.tasks})
                else:
                    item = Item(label.key, image, usable.mask, label.held_out, label.digest, group=label.group)
                    items.append(replace(item, points=usable.points))
        if unavailable:
            self._look.client.whoami()  # raises where the host is away: then it is not the images' fault
            self._leave_out(unavailable)
        return items, unavailable

    def _usable(self, label: MergedLabel) -> AuditLabel | MaskError:
        """Return the mask to train on, or what measures of the label of an audit image."""
        if isinstance(label.mask, MaskError) or not label.held_out:
            return label.mask if isinstance(label.mask, MaskError) else AuditLabel(label.mask)
        asked = [
            query
            for task in label.tasks
            for (_, version), query in self._store.published_queries(self._look.project_id, task.task_id).items()
            if version == task.shown_version
        ]
        return audit_label(label, asked, self._look.made_masks, self._settings)

    def _labels(self, tasks: Sequence[Task]) -> Iterator[MergedLabel]:
        """Yield the labels of one image: those of the whole image each by itself, those of parts merged into one."""
        parts = parts_of(tasks)
        files, folder = self._look.files, self._look.made_masks
        yield from (MergedLabel.of_whole(files, task, folder) for task in tasks if not task.boxes)
        if parts:
            yield MergedLabel.of_parts(files, parts, folder)

    def _job(self, items: Sequence[Item]) -> Job:
        from ml_backend.learning.training import Job

        checkpoints = self._look.checkpoints
        current = checkpoints.current()
        values = {name: getattr(self._settings, name) for name in TRAINING_SETTINGS}
        return Job(
            items=tuple(items),
            classes=self._label_map.classes,
            label_map_digest=self._label_map.training_digest,
            data_digest=self._digest,
            folder=place if isinstance(place := checkpoints.files, Bucket) else checkpoints.folder,
            parent=current.number if current else None,
            trigger=self._trigger,
            device=self._settings.device,
            maps_folder=self._settings.maps_folder,
            maps_bytes=self._settings.maps_bytes,
            **values | {"train_encoder": chosen_way(self._settings, checkpoints.history())} | self._changes,
        )

    # -- the process --------------------------------------------------------------------------------------------------
    def _run(self, job: Job, turn: Turn) -> int:
        def heartbeat() -> None:
            turn.check()
            self._heartbeat()

        room_key = f"room_for_training_{self._look.project_id}"
        if full := shortage(self._settings.local_folder, int(self._store.value(room_key) or 0)):
            raise full
        try:
            return self._run_job(replace(job, device=turn.device), progress=self._show, heartbeat=heartbeat)
        except DiskFull as error:
            # Kept, so that the next training does not end in vain as well.
            needed = self._room_for_version()
            self._store.set_value(room_key, str(needed))
            raise disk_full(self._settings.local_folder, needed) from error

    def _room_for_version(self) -> int:
        """Return how many bytes a training should find free."""
        latest = self._look.checkpoints.latest()
        return max(4 * RESERVE, 3 * latest.size if latest else 2 * free_bytes(self._settings.local_folder))

    def _show(self, progress: Progress) -> None:
        ends = None if progress.seconds_left is None else time.time() + progress.seconds_left
        note = ", ".join(filter(None, ("a trial" if self._changes.get("trial") else "", _note(progress))))
        self._look.stage(progress.label, progress.done, progress.total, note=note, ends=ends)


def chosen_way(settings: Settings, records: Iterable[VersionRecord]) -> bool | Literal["auto"]:
    """Return whether the encoder learns: as the settings say, and where they leave it open, as trials measured.

    Args:
        records: of all versions, oldest first.
    """
    ways = [bool(record.settings.get("train_encoder", True)) for record in records if record.trial and record.accepted]
    from ml_backend.learning.training.recipe import is_open  # takes torch with it

    return ways[-1] if ways and is_open(settings) else settings.train_encoder


def _note(progress: Progress) -> str:
    """Say what a training has come to so far."""
    loss = "" if progress.loss is None else f"loss {progress.loss:.3f}"
    held_out = progress.held_out and f"held-out mIoU {progress.held_out}"
    return ", ".join(filter(None, (loss, held_out)))
