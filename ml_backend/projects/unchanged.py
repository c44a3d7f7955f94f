"""Labels that were submitted as the mask that was predicted: how many, whose, and whether that is to be told.

Only labels count that were made over a mask of ours; audit images open without one. Such a label may well be right.
Answers to points are no such labels, however many repeat the guess: each was asked by itself, and guesses are often
right. What share of them an annotator found right is told beside, without a warning.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ml_backend.settings import Settings
from ml_backend.store import AnnotatorLabels, Store

LABELS: Final = 10
"""Labels over a predicted mask below which nothing is told."""
_NAMES: Final = "annotators"


@dataclass(frozen=True)
class Annotator:
    """The labels of one annotator.

    Attributes:
        id: of the user in Label Studio; None: of all labels whose annotator is unknown.
        name: of the user there; empty where it is unknown.
        labels: all of them. shown: those made over a predicted mask. unchanged: those of them submitted as it was.
        share: unchanged of shown; None where no mask was shown.
        guesses: at points that they answered. right: share of them that the answers repeat; None without any.
    """

    id: int | None
    name: str
    labels: int
    shown: int
    unchanged: int
    share: float | None
    guesses: int = 0
    right: float | None = None

    @property
    def title(self) -> str:
        """How people are told of the annotator."""
        return self.name or ("unknown" if self.id is None else f"user {self.id}")


@dataclass(frozen=True)
class UnchangedLabels:
    """The labels of a project.

    Attributes:
        shown, unchanged, share: as of `Annotator`, over all labels.
        annotators: by id, those whose labels name nobody last.
        warning: that the share is above NEXTMASK_UNCHANGED_SHARE, what follows and what to do; empty where it is not.
    """

    shown: int
    unchanged: int
    share: float | None
    annotators: list[Annotator]
    warning: str


def unchanged_labels(settings: Settings, store: Store, project_id: int) -> UnchangedLabels:
    """Count the labels of a project that were submitted as the mask that was shown.

    Args:
        settings: of the project.
    """
    names, rows = annotator_names(store), store.labels_of_annotators(project_id)
    shown, unchanged = sum(row.shown for row in rows), sum(row.unchanged for row in rows)
    return UnchangedLabels(
        shown,
        unchanged,
        _share(unchanged, shown),
        [_annotator(row, names) for row in rows],
        _warning(unchanged, shown, settings.unchanged_share),
    )


def annotator_names(store: Store) -> dict[int, str]:
    """Return the names of Label Studio's users, as far as they were asked for; empty where it does not tell."""
    return {int(user): str(name) for user, name in json.loads(store.value(_NAMES) or "{}").items()}


def keep_annotator_names(store: Store, names: Mapping[int, str]) -> None:
    """Keep the names of users."""
    store.set_value(_NAMES, json.dumps({str(user): name for user, name in names.items()}))


def unnamed(store: Store, rows: Sequence[AnnotatorLabels]) -> set[int]:
    """Return the ids of annotators whose names were never asked for."""
    known = annotator_names(store)
    return {row.annotator for row in rows if row.annotator is not None and row.annotator not in known}


def _annotator(row: AnnotatorLabels, names: Mapping[int, str]) -> Annotator:
    name = names.get(row.annotator, "") if row.annotator is not None else ""
    share = _share(row.unchanged, row.shown)
    right = _share(row.right_guesses, row.guesses)
    return Annotator(row.annotator, name, row.labels, row.shown, row.unchanged, share, row.guesses, right)


def _share(unchanged: int, shown: int) -> float | None:
    return unchanged / shown if shown else None


def _warning(unchanged: int, shown: int, limit: float) -> str:
    if shown < LABELS or unchanged <= limit * shown:
        return ""
    return (
        f"{unchanged} of {shown} labels that began with a predicted mask were submitted unchanged, which is more than"
        f" NEXTMASK_UNCHANGED_SHARE ({limit:g}): they may be right, but trainings and the agreement with predicted"
        " masks lean on the model, and only audit images, which open without a mask, measure it independently; ask"
        " annotators to check each mask before they submit it (docs/annotating.md)."
    )
