"""Stream mode as others see it: its state and its numbers, and the way back for tasks that were passed over.

The worker decides, see `worker.decide`; here is what status, command line and worker share.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from ml_backend.errors import ConfigurationError
from ml_backend.label_studio import LabelStudio
from ml_backend.label_studio.predictions import MARKER, RETURNED
from ml_backend.store import Decision, Store


@dataclass(frozen=True)
class StreamState:
    """What is kept of a stream from one look to the next.

    Attributes:
        baseline: highest task id when stream mode was switched on; tasks up to it belong to the pool.
        setup: rate, strategy and options that `state` belongs to: under others the selection starts over.
        state: of the selection.
        threshold: that the last task was compared with; None where no score would have been high enough.
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


class StreamRecords:
    """What the store keeps of one project's stream besides its decisions."""

    def __init__(self, store: Store, project_id: int) -> None:
        self._store, self._id = store, project_id
        self._state_key, self._renamed_key = f"stream_{project_id}", f"stream_returned_{project_id}"

    def state(self) -> StreamState | None:
        """Return the state; None where stream mode is off."""
        text = self._store.value(self._state_key)
        return StreamState(**json.loads(text)) if text else None

    def put_state(self, state: StreamState, decisions: Iterable[Decision] = ()) -> None:
        """Keep a state, and the decisions that led to it, in one transaction."""
        self._store.put_decisions(self._id, decisions, state=(self._state_key, json.dumps(asdict(state))))

    def remove_state(self) -> None:
        """Forget the state: stream mode is off."""
        self._store.set_value(self._state_key, "")

    def renamed_at(self) -> float | None:
        """Return when a marker was last renamed, by the store's `steady_time`; None once they are deleted."""
        text = self._store.value(self._renamed_key)
        return float(text) if text else None

    def put_renamed(self) -> None:
        """Keep that a marker is renamed now."""
        self._store.set_value(self._renamed_key, str(self._store.steady_time()))

    def remove_renamed(self) -> None:
        """Keep that renamed markers are deleted."""
        self._store.set_value(self._renamed_key, "")


def stream_counts(store: Store, project_id: int) -> StreamCounts | None:
    """Describe the stream of a project; None where stream mode was never on."""
    counts, state = store.count_decisions(project_id), StreamRecords(store, project_id).state()
    if state is None and not any(counts):
        return None
    return StreamCounts(*counts, state.threshold if state else None)


def return_to_pool(store: Store, client: LabelStudio, project_id: int, task_ids: Iterable[int]) -> None:
    """Return passed-over tasks to the pool.

    Raises:
        ConfigurationError: a task is not passed over; then nothing is done.
    """
    tasks, passed = sorted(set(task_ids)), store.passed_over(project_id)
    unknown = [task for task in tasks if task not in passed]
    if unknown:
        listed = ", ".join(map(str, unknown))
        raise ConfigurationError(f"Not passed over in project {project_id}: task {listed}.")
    # First the decision: a marker that a crash leaves as it is is renamed by the next look.
    store.update_decisions(project_id, tasks, returned=True)
    store.set_task_status(project_id, tasks, "unlabelled")
    rename_markers(client, StreamRecords(store, project_id), tasks)


def rename_markers(
    client: LabelStudio, records: StreamRecords, task_ids: Iterable[int], *, check: Callable[[], None] = lambda: None
) -> None:
    """Rename the markers of tasks; they are deleted later, when no editor can have them open any more.

    Args:
        check: called before each task; raises LeaseLost when this process must stop.
    """
    for task in task_ids:
        check()
        records.put_renamed()
        client.rename_predictions(task, MARKER, RETURNED)
