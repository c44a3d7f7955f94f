"""What a stream passed over: what is kept of it, its numbers, and the way back to the pool."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from ml_backend.errors import ConfigurationError
from ml_backend.label_studio import LabelStudio
from ml_backend.label_studio.predictions import MARKER, RETURNED
from ml_backend.store import Store


@dataclass(frozen=True)
class StreamState:
    """What is kept of a stream from one look to the next.

    Attributes:
        baseline: highest task id when the stream was switched on; tasks up to it belong to the pool.
        setup: rate, strategy and options that `state` belongs to: under others the selection starts over.
        state: of the selection.
        threshold: that the last task was held against; None where nothing would have been enough.
    """

    baseline: int
    setup: list[Any] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)
    threshold: float | None = None


@dataclass(frozen=True)
class StreamCounts:
    """A stream in numbers: tasks kept, passed over, and returned to the pool after that; see also `StreamState`."""

    kept: int
    passed: int
    returned: int
    threshold: float | None


def keep(client: LabelStudio, store: Store, project_id: int, task_ids: Iterable[int]) -> None:
    """Return passed-over tasks to the pool.

    Raises:
        ConfigurationError: one of the tasks is not passed over; then nothing is done.
    """
    wanted, passed = sorted(set(task_ids)), store.passed_over(project_id)
    unknown = [task for task in wanted if task not in passed]
    if unknown:
        listed = ", ".join(map(str, unknown))
        raise ConfigurationError(f"Not passed over in project {project_id}: task {listed}.")
    # First the decision: a marker that a crash leaves as it is is renamed by the next look.
    store.update_decisions(project_id, wanted, returned=True)
    store.set_task_status(project_id, wanted, "unlabelled")
    take_markers_off(client, store, project_id, wanted, lambda: None)


def stream_counts(store: Store, project_id: int) -> StreamCounts | None:
    """Describe a stream; None for a project that never had one."""
    counts, note = store.count_decisions(project_id), kept_state(store, project_id)
    if note is None and not any(counts):
        return None
    return StreamCounts(*counts, note.threshold if note else None)


def take_markers_off(
    client: LabelStudio, store: Store, project_id: int, task_ids: Iterable[int], check: Callable[[], None]
) -> None:
    """Rename the markers of tasks; they are deleted when no editor can have them open any more."""
    for task in task_ids:
        check()
        store.set_value(returned_key(project_id), str(store.steady_time()))
        client.rename_predictions(task, MARKER, RETURNED)


def state_key(project_id: int) -> str:
    """Return the key under which the store keeps a stream's state."""
    return f"stream_{project_id}"


def returned_key(project_id: int) -> str:
    """Return the key under which the store keeps when a marker was last renamed."""
    return f"stream_returned_{project_id}"


def kept_state(store: Store, project_id: int) -> StreamState | None:
    """Return a stream's state; None where stream mode is off."""
    text = store.value(state_key(project_id))
    return StreamState(**json.loads(text)) if text else None


def state_text(state: StreamState) -> str:
    """Return a stream's state as the store keeps it."""
    return json.dumps(asdict(state))
