"""sides: draw the audit set where that has to be done, and let each label train or measure by it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

from ml_backend.projects.audit import (
    MINIMUM,
    AuditCounts,
    AuditSet,
    KeptAudit,
    drawn_from,
    keep_audit,
    kept_audit,
    turns_of,
)
from ml_backend.store import Side
from ml_backend.worker.look import Look

logger = logging.getLogger(__name__)


def assign_sides(look: Look) -> None:
    """Let labels of audit images measure where nobody was shown a mask of ours, and all others train.

    Where neither the pool nor the settings changed since the last look, only those tasks are read that did; else all.
    A run that is killed anywhere is finished by the next.
    """
    store, project_id, kept = look.store, look.project_id, kept_audit(look.settings, look.store, look.project_id)
    changes, pool = store.changes(project_id), store.pool_changes(project_id)
    if kept is not None and kept.changes == changes and _is_drawn(look, kept, pool):
        return
    if kept is not None and _is_drawn(look, kept, pool):
        sides = store.sides(project_id, after=kept.changes)
        if not _seen(sides, kept.audit):
            moved = _assign(look, sides, kept.audit)
            counts = _counts_of_tasks(look, kept.counts)
            keep_audit(look.settings, store, project_id, replace(kept, counts=counts, changes=changes))
            _tell(look, *moved, counts)
            return
    sides = store.sides(project_id)
    audit = _drawn(look, sides, kept)
    moved = _assign(look, sides, audit)
    _give_turns(look, audit)
    counts = _counts(sides, audit)
    keep_audit(look.settings, store, project_id, KeptAudit(audit, counts, changes, pool))
    if kept is not None or look.checkpoints.latest() is not None:
        _tell(look, *moved, counts)
    changed = [group for group in audit.trains if kept is None or group not in kept.audit.trains]
    if _wait(sides, changed):
        store.update_project(project_id, ranking_key="")  # they are ranked from now on


def _is_drawn(look: Look, kept: KeptAudit, pool: int) -> bool:
    """Whether the audit set of this pool is drawn, and large enough where it can be."""
    counts = kept.counts
    is_small = bool(kept.audit.share) and counts.measuring < min(MINIMUM, counts.groups - 1)
    return kept.pool == pool and kept.audit.share == look.settings.audit_share and not is_small


def _seen(sides: Sequence[Side], audit: AuditSet) -> bool:
    """Whether somebody labelled an audit image over a mask of ours: then its group trains from now on."""
    return any(side.status == "labelled" and side.masked and audit.has(side.group_key) for side in sides)


def _assign(look: Look, sides: Sequence[Side], audit: AuditSet) -> tuple[list[int], list[int]]:
    """Write down which images and labels are on which side; return the labels that train, and that measure, by now."""
    store, project_id = look.store, look.project_id
    measured = {group for group in {side.group_key for side in sides} if audit.has(group)}
    labelled = [side for side in sides if side.status == "labelled"]
    training = [side.task_id for side in labelled if side.held_out and side.group_key not in measured]
    measuring = [side.task_id for side in labelled if not side.held_out and side.group_key in measured]
    joining = [side.task_id for side in sides if not side.audit and side.group_key in measured]
    leaving = [side.task_id for side in sides if side.audit and side.group_key not in measured]
    look.check()
    store.set_audit(project_id, joining, audit=True)
    store.set_audit(project_id, leaving, audit=False)
    store.set_held_out(project_id, training, held_out=False)
    store.set_held_out(project_id, measuring, held_out=True)
    return training, measuring


def _give_turns(look: Look, audit: AuditSet) -> None:
    """Number the images of the audit set by the turns in which they are asked for."""
    images = look.store.audit_tasks(look.project_id)
    turns = turns_of((image[:3] for image in images), audit)
    before = {task_id: turn for task_id, _, _, turn in images}
    look.store.set_turns(look.project_id, {task: turn for task, turn in turns.items() if turn != before[task]})


def _counts_of_tasks(look: Look, before: AuditCounts) -> AuditCounts:
    """Count the same images anew by their status."""
    counts = look.store.count_sides(look.project_id)
    labels = counts.get(("labelled", True), 0)
    return replace(
        before,
        waiting=counts.get(("unlabelled", True), 0),
        skipped=counts.get(("skipped", True), 0),
        labels=labels,
        training=counts.get(("labelled", False), 0),
    )


def _drawn(look: Look, sides: Sequence[Side], kept: KeptAudit | None) -> AuditSet:
    s = look.settings
    before = replace(kept.audit if kept else AuditSet(0, s.seed), share=s.audit_share)
    masked = {side.group_key for side in sides if side.status == "labelled" and side.masked}
    groups = {side.group_key for side in sides if side.group_key}
    audit = drawn_from(groups, before, masked)
    if kept is None or kept.audit.share != s.audit_share or audit.drawn != before.drawn:
        # Versions may have been trained on labels of images that were of no audit set before.
        audit = drawn_from(groups, before, masked | _trained(look, sides))
    return audit


def _trained(look: Look, sides: Sequence[Side]) -> set[str]:
    """Return the groups of the labels that trained a version."""
    records = look.checkpoints.history()
    trained = {task for record in records for task in record.labels.keys() - set(record.held_out)}
    tasks = {part for key in trained for part in key.split("+")}
    return {side.group_key for side in sides if str(side.task_id) in tasks}


def _counts(sides: Sequence[Side], audit: AuditSet) -> AuditCounts:
    groups = {side.group_key for side in sides if side.group_key}
    measuring = {group for group in groups if audit.has(group)}
    images = [side for side in sides if side.group_key in measuring]
    by_status = Counter(side.status for side in images)
    labels = sum(side.status == "labelled" for side in sides)
    return AuditCounts(
        images=len(images),
        waiting=by_status["unlabelled"],
        skipped=by_status["skipped"],
        labels=by_status["labelled"],
        training=labels - by_status["labelled"],
        groups=len(groups),
        measuring=len(measuring),
    )


def _wait(sides: Sequence[Side], groups: Collection[str]) -> bool:
    changed = set(groups)
    return any(side.status == "unlabelled" and side.group_key in changed for side in sides)


def _tell(look: Look, training: Collection[int], measuring: Collection[int], counts: AuditCounts) -> None:
    if not training and not measuring:
        return
    moved = [
        f"{_labels(len(tasks), after)} from now on"
        for tasks, after in ((training, "that measured train"), (measuring, "that trained measure"))
        if tasks
    ]
    logger.info("project=%s to_training=%s to_measuring=%s", look.project_id, len(training), len(measuring))
    look.tell(
        "audit_changed",
        f"{'; '.join(moved)}: labels measure where their image was drawn for that at random and nobody was shown a"
        f" predicted mask for it. {_labels(counts.labels, 'measure')} now, {_labels(counts.training, 'train')}.",
    )


def _labels(number: int, verb: str) -> str:
    return f"1 label {verb}s" if number == 1 else f"{number} labels {verb}"
