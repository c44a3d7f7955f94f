"""What an editor holds of a task, as far as Label Studio knows when a smart tool asks.

The editor sends its prompts alone. Its regions are in the draft, which it saves up to five seconds after a change;
before the first draft they are those of the annotation or the prediction that it opened with.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml_backend.annotations.fields import regions_of

_Row = Mapping[str, Any]


@dataclass(frozen=True)
class Held:
    """The regions that an editor holds.

    Attributes:
        result: empty where it is not known which of several drafts or annotations is open.
        stamp: changes with each draft that is saved.
    """

    result: tuple[Any, ...] = ()
    stamp: str = ""

    @property
    def ids(self) -> frozenset[str]:
        """The ids of its regions."""
        return frozenset(str(region.get("id")) for region in self.result if isinstance(region, Mapping))


def held(task: _Row, prompts: Collection[str], version: str) -> Held:
    """Return what the editor holds that sends prompts.

    The draft that has one of the prompts is its own. Where none has yet, those of one person are taken for it, and
    those of several tell nothing: a suggestion must not put somebody's regions in the place of another's.

    Args:
        task: as the request has it, with drafts, annotations and predictions.
        prompts: ids of the regions that were sent.
        version: of the predictions that are shown.
    """
    drafts = sorted(_rows(task, "drafts"), key=lambda draft: str(draft.get("updated_at")))
    stamp = str(drafts[-1].get("updated_at")) if drafts else ""
    own = [draft for draft in drafts if not Held(tuple(regions_of(draft))).ids.isdisjoint(prompts)]
    if own or len({str(draft.get("user")) for draft in drafts}) == 1:
        return Held(tuple(regions_of((own or drafts)[-1])), stamp)
    if drafts:
        return Held((), stamp)
    annotations = [row for row in _rows(task, "annotations") if not row.get("was_cancelled")]
    if annotations:
        return Held(tuple(regions_of(annotations[0])) if len(annotations) == 1 else ())
    predictions = _rows(task, "predictions")
    shown = [row for row in predictions if row.get("model_version") == version] or predictions
    return Held(tuple(regions_of(shown[0])) if shown else ())


def _rows(task: _Row, name: str) -> Sequence[_Row]:
    rows = task.get(name)
    return [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []
