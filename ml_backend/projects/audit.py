"""The audit set: images drawn at random from the whole pool, once, to measure with.

No strategy ranks them, they are asked for at a steady pace between the others, and they open without a predicted mask:
so a measure on their labels leans neither to what a strategy found difficult nor to what a version had drawn.

A hash of an image's group decides, so an image never changes sides, and a lost state draws the same. Two things are
kept beside it: the groups that were drawn in addition, where the hash drew too few of a small pool, and those of which
a label trained, or was made over a mask of ours: all of their labels train.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from ml_backend.annotations.fields import printable
from ml_backend.settings import Settings
from ml_backend.store import Store, Task
from ml_backend.system.chance import draw

MINIMUM: Final = 2
"""Groups that measure at least, where the pool has that many and something is left to train."""
_TURN_SHIFT: Final = 63 - 48
"""48 bits of a number tell the groups of a turn apart, the bits above them the turns."""
_MOST_TURNS: Final = 2**14 - 1
LOOKED_AT: Final = 1000
"""Places of the queue that are looked at for the next audit image."""


@dataclass(frozen=True)
class AuditSet:
    """Which groups measure.

    Attributes:
        share: of the groups that the hash draws; 0: no group measures.
        seed: of the hash.
        drawn: groups that were drawn in addition.
        trains: groups of which a label trained or was made over a mask of ours, whatever was drawn.
    """

    share: float
    seed: int
    drawn: frozenset[str] = frozenset()
    trains: frozenset[str] = frozenset()

    def has(self, group: str) -> bool:
        """Whether images of a group measure; those without an image do not."""
        if not group or not self.share or group in self.trains:
            return False
        return group in self.drawn or place_of(group, self.seed) < self.share

    def opens_empty(self, task: Task) -> bool:
        """Whether annotators are shown no mask for a task."""
        return self.has(task.group_key)


@dataclass(frozen=True)
class AuditCounts:
    """Numbers of an audit set, as the last look found it.

    Attributes:
        images: tasks of audit images. waiting, skipped: how many of them are unlabelled, and were skipped.
        labels: that measure. training: that train.
        groups: all of the project's. measuring: those of the audit set.
    """

    images: int
    waiting: int
    skipped: int
    labels: int
    training: int
    groups: int
    measuring: int


def place_of(group: str, seed: int) -> float:
    """Return where the hash of a group lies, in [0, 1): the same for ever."""
    digest = hashlib.sha256(f"{seed}|{group}".encode()).digest()
    return float(int.from_bytes(digest[:8], "big") / 2**64)


def turns_of(images: Iterable[tuple[int, str, str]], audit: AuditSet) -> dict[int, int]:
    """Return a number for each audit image: in their order, annotators are asked for one of each group, in turn.

    Both the groups and the images of each are in the order of their hashes. All images count, labelled ones as well,
    so that the turns go on where they were.

    Args:
        images: id of the task, group and image.
        audit: gives the seed.
    """
    groups: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for task_id, group, image in images:
        groups[group].append((place_of(image, audit.seed), task_id))
    turns: dict[int, int] = {}
    for group, own in groups.items():
        place = draw(audit.seed, group) >> _TURN_SHIFT
        turns |= {task: (min(turn, _MOST_TURNS) << 48) | place for turn, (_, task) in enumerate(sorted(own))}
    return turns


def drawn_from(groups: Collection[str], before: AuditSet, trained: Collection[str]) -> AuditSet:
    """Return the audit set of a pool.

    Args:
        groups: all of the pool's.
        before: what was kept of it.
        trained: groups of which a label trained, or was made over a mask of ours.

    >>> audit = drawn_from(["a", "b", "c", "d"], AuditSet(0.01, seed=0), trained=())
    >>> len(audit.drawn), drawn_from(["a", "b", "c", "d", "e"], audit, trained=()) == audit
    (2, True)
    """
    audit = replace(before, trains=before.trains | {group for group in trained if before.has(group)})
    inside = [group for group in groups if audit.has(group)]
    missing = min(MINIMUM, len(groups) - 1) - len(inside)
    if not audit.share or missing <= 0:
        return audit
    free = (group for group in groups if group and group not in {*inside, *trained, *audit.trains})
    more = sorted(free, key=lambda group: place_of(group, audit.seed))[:missing]
    return replace(audit, drawn=audit.drawn | set(more))


# -- what is kept ----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class KeptAudit:
    """What the store keeps of an audit set.

    Attributes:
        audit: the set. counts: its numbers.
        changes, pool: numbers of the changes of tasks, and of the pool, that it knows of; see `Store.changes`.
    """

    audit: AuditSet
    counts: AuditCounts
    changes: int = -1
    pool: int = -1


def kept_audit(settings: Settings, store: Store, project_id: int) -> KeptAudit | None:
    """Return the audit set as the last look left it; None before the first, and after other groups or another seed."""
    kept: Mapping[str, Any] = json.loads(store.value(_key(project_id)) or "{}")
    if kept.get("setup") != _setup(settings):
        return None
    audit = AuditSet(kept["share"], settings.seed, frozenset(kept["drawn"]), frozenset(kept["trains"]))
    # An earlier release kept neither, and numbered no turns: as if the pool had changed.
    changes, pool = kept.get("changes", -1), kept.get("pool", -1) if kept.get("turns") else -1
    return KeptAudit(audit, AuditCounts(**kept["counts"]), changes, pool)


def keep_audit(settings: Settings, store: Store, project_id: int, kept: KeptAudit) -> None:
    """Keep an audit set."""
    audit = kept.audit
    values = {"share": audit.share, "drawn": sorted(audit.drawn), "trains": sorted(audit.trains)}
    known = {"changes": kept.changes, "pool": kept.pool, "turns": True}
    text = json.dumps({"setup": _setup(settings), **values, "counts": asdict(kept.counts), **known})
    if store.value(_key(project_id)) != text:
        store.set_value(_key(project_id), text)


def audit_set(settings: Settings, store: Store, project_id: int) -> AuditSet:
    """Return which groups measure by a project's settings.

    Args:
        settings: of the project.
    """
    kept = kept_audit(settings, store, project_id)
    return replace(kept.audit if kept else AuditSet(0, settings.seed), share=settings.audit_share)


def audit_counts(settings: Settings, store: Store, project_id: int) -> AuditCounts | None:
    """Return the numbers of a project's audit set; None before the first look.

    Args:
        settings: of the project.
    """
    kept = kept_audit(settings, store, project_id)
    return kept.counts if kept else None


def first_audit_place(settings: Settings, store: Store, project_id: int) -> int | None:
    """Return the place in the queue, from 1, of the first audit image; None: none is near.

    Args:
        settings: of the project.
    """
    audit, ranked = audit_set(settings, store, project_id), store.ranked(project_id, limit=LOOKED_AT)
    return next((place for place, (task, _) in enumerate(ranked, start=1) if audit.opens_empty(task)), None)


def group_of(data: Mapping[str, Any], image: str, settings: Settings) -> str:
    """Return what the image of a task is of: the value of `audit_group` in its data, or the image itself."""
    return printable(data.get(settings.audit_group) or image)


def _setup(settings: Settings) -> list[object]:
    return [settings.seed, settings.audit_group]


def _key(project_id: int) -> str:
    return f"audit_{project_id}"
