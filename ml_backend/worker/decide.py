"""Stream mode: each task that arrives is scored once, and joins the pool or is passed over.

    decisions   in the store, each made once, together with the state of the selection that made it
    statuses    of tasks without an annotation, "passed" or "unlabelled": follow from the decisions
    markers     in Label Studio, an empty prediction of a version of its own on each task passed over: follow from both

Each look compares the three, so one that is killed anywhere is finished by the next. A person takes a decision back
by deleting the marker in Label Studio, or with `nextmask keep`; a label by a person always wins.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from ml_backend.label_studio.predictions import MARKER, RETURNED, SERVED_LAST, import_for_present
from ml_backend.learning.checkpoints import Version
from ml_backend.projects.audit import audit_set
from ml_backend.projects.candidates import Candidate
from ml_backend.projects.parts import parts_of
from ml_backend.projects.passed_over import StreamRecords, StreamState, rename_markers
from ml_backend.projects.tabs import show_passed_over
from ml_backend.store import Decision
from ml_backend.worker.committee import ensure_committee
from ml_backend.worker.look import Look
from ml_backend.worker.score_pool import Observer, PoolRanker

if TYPE_CHECKING:
    from strategies import Observation
    from strategies.stream import StreamSelection

logger = logging.getLogger(__name__)

COMPARED: Final = 256
"""Latest arrivals that a new one is compared with."""
CHUNK: Final = 32
"""Tasks decided in one transaction: what a run that is killed loses."""

_MARKERS_PER_REQUEST = 10_000
RENAMED_PER_LOOK = 200
"""The host renames one at a time, some ten a second."""

MakeObserver = Callable[[], Observer | None]
"""Returns None where the strategy has still to learn: then arrivals stay in the pool, and are decided about later."""


def decide(look: Look) -> None:
    """In stream mode: keep or pass over the tasks that arrived; those there is no time for wait for the next look."""
    model = look.checkpoints.current()
    look.undecided = Arrivals(look).run(partial(_observer, look, model) if model else None)


def _observer(look: Look, model: Version) -> Observer | None:
    ensure_committee(look, model, look.store.tasks(look.project_id, status="labelled"))
    return PoolRanker(look, model).observer()


def decide_meanwhile(look: Look) -> None:
    """Decide while a training runs: about a few tasks at a time, and only with a committee that is ready."""
    model = look.checkpoints.current()
    with look.quietly():
        Arrivals(look).run(PoolRanker(look, model).observer if model else None, most=CHUNK)


class Arrivals:
    """The tasks that arrive in one project in stream mode."""

    def __init__(self, look: Look) -> None:
        self._look, self._client, self._store = look, look.client, look.store
        self._settings, self._id = look.settings, look.project_id
        self._rate, self._records = look.settings.stream_rate, StreamRecords(look.store, look.project_id)
        self._kept_passed: dict[int, Decision] | None = None

    def run(self, make_observer: MakeObserver | None, *, most: int | None = None) -> set[int]:
        """Follow what people took back, decide about arrivals, and make statuses and markers follow.

        Args:
            make_observer: called when there is an arrival; None before the first model.
            most: how many tasks to decide about at most.

        Returns:
            Arrivals that wait for their decision; they belong to no pool yet.
        """
        if not self._rate and not self._is_left_over():
            return set()
        present = self._markers()
        self._follow_people(present)
        waiting = set[int]()
        if not self._rate:
            self._return(list(self._passed()), "stream mode was switched off")
        elif make_observer is not None:
            waiting = self._decide(make_observer, most)
        self._set_statuses()
        self._set_markers(present)
        return waiting

    def _is_left_over(self) -> bool:
        is_passed = self._store.count_decisions(self._id)[1] > 0
        return bool(self._records.state() or self._records.renamed_at() or is_passed)

    # -- what people took back ----------------------------------------------------------------------------------------
    def _markers(self) -> set[int] | None:
        """Return the tasks that carry the marker, listed only when their number tells that something changed.

        None: those that carry it are as the decisions have them, and none of them is to lose it.
        """
        count = self._client.model_versions(self._id).get(MARKER, 0)
        if count != self._store.count_marked(self._id):
            return self._client.tasks_with_prediction(self._id, MARKER)
        if self._rate and not self._store.passed_audits(self._id):
            return None
        return {task for task, decision in self._passed().items() if decision.marked}

    def _follow_people(self, present: set[int] | None) -> None:
        passed = {} if present is None else self._passed()
        gone = [task for task, decision in passed.items() if decision.marked and task not in (present or ())]
        there = [task for task, decision in passed.items() if not decision.marked and task in (present or ())]
        self._return(gone, "their markers were deleted")
        # Audit images that were passed over when they were none.
        self._return(self._store.passed_audits(self._id), "their images measure")
        self._update(there, marked=True)  # a run died between the import and this

    def _return(self, task_ids: Sequence[int], why: str) -> None:
        self._look.check()
        self._update(task_ids, returned=True)
        if task_ids:
            logger.info("project=%s returned to the pool=%s: %s", self._id, len(task_ids), why)

    # -- arrivals -----------------------------------------------------------------------------------------------------
    def _decide(self, make_observer: MakeObserver, limit: int | None) -> set[int]:
        state = self._records.state() or self._switch_on()
        arrivals = self._arrivals(state.baseline)
        observer = make_observer() if arrivals else None
        if observer is None:
            return set()
        most, least, seconds = observer.bounds(len(arrivals))
        most = min(most, limit or most)
        deadline, done, state = time.monotonic() + seconds, 0, self._current(state)
        selection = self._selection(state)
        while done < most and (done < least or time.monotonic() < deadline):
            self._look.stage("ranking", done, len(arrivals))
            chunk = arrivals[done : min(done + CHUNK, most)]
            state = self._decide_chunk(observer, selection, state, chunk)
            done += len(chunk)
        logger.info("project=%s arrived=%s decided=%s", self._id, len(arrivals), done)
        return {arrival.task.task_id for arrival in arrivals[done:]}

    def _switch_on(self) -> StreamState:
        """Leave to the pool what is there now."""
        state = StreamState(baseline=self._store.newest_task(self._id))
        self._look.check()
        self._records.put_state(state)
        return state

    def _arrivals(self, baseline: int) -> list[Candidate]:
        """Return new tasks without a decision, by id; follow-ups of images that are labelled in part are none.

        No strategy decides about audit images: those are kept, all of them.
        """
        arrived = self._store.tasks_by_id(self._id, self._store.arrivals(self._id, after=baseline))
        audit = audit_set(self._settings, self._store, self._id) if arrived else None
        in_parts = {part.image for part in parts_of(self._store.tasks_in_parts(self._id))} if arrived else ()
        return [
            Candidate(task)
            for _, task in sorted(arrived.items())
            if audit and not audit.opens_empty(task) and task.image not in in_parts
        ]

    def _current(self, state: StreamState) -> StreamState:
        """Let the selection start over where its scores or its budget would be other ones."""
        setup = [self._rate, self._settings.strategy, self._settings.strategy_options]
        return state if state.setup == setup else replace(state, setup=setup, state={})

    def _selection(self, state: StreamState) -> StreamSelection:
        from strategies.stream import StreamSelection

        rate = max(self._rate, 1e-6)  # the selection's own lower bound
        selection = StreamSelection(rate=rate, window=COMPARED)
        if state.state:
            selection.load_state_dict(state.state)
        return selection

    def _decide_chunk(
        self, observer: Observer, selection: StreamSelection, state: StreamState, chunk: Sequence[Candidate]
    ) -> StreamState:
        observations = {int(image.ids[0]): image for batch in observer.observe(chunk) for image in _images(batch)}
        selected = [selection.decide(observations[task]) for task in sorted(observations)]
        now = time.time()
        decisions = [
            Decision(
                int(choice.id),
                keep=choice.keep,
                score=choice.score,
                threshold=choice.threshold if math.isfinite(choice.threshold) else None,
                decided_at=now,
            )
            for choice in selected
        ]
        threshold = decisions[-1].threshold if decisions else state.threshold
        state = replace(state, state=selection.state_dict(), threshold=threshold)
        self._look.check()
        self._records.put_state(state, decisions)
        self._kept_passed = None
        return state

    # -- what follows from the decisions ------------------------------------------------------------------------------
    def _set_statuses(self) -> None:
        self._look.check()
        leaving, joining = self._store.wrong_statuses(self._id)
        self._store.set_task_status(self._id, leaving, "passed")
        self._store.set_task_status(self._id, joining, "unlabelled")
        if self._store.ranks_passed_over(self._id):
            # Ranked, and maybe published, before they could be decided about: only a new ranking takes them out.
            self._store.update_project(self._id, ranking_key="")

    def _set_markers(self, present: set[int] | None) -> None:
        missing = self._store.unmarked(self._id)
        for start in range(0, len(missing), _MARKERS_PER_REQUEST):
            show_passed_over(self._client, self._id)
            self._mark(missing[start : start + _MARKERS_PER_REQUEST])
        strays = [] if present is None else sorted(present - self._passed().keys())
        rename_markers(self._client, self._records, strays[:RENAMED_PER_LOOK], check=self._look.check)
        if strays[RENAMED_PER_LOOK:]:
            self._store.wake(self._id)
        elif not self._rate:
            self._records.remove_state()
        self._prune()

    def _prune(self) -> None:
        renamed_at = self._records.renamed_at()
        if renamed_at and self._store.steady_time() - renamed_at > self._settings.retire_hours * 3600:
            self._look.check()
            self._client.delete_model_version(self._id, RETURNED)
            self._records.remove_renamed()

    def _mark(self, task_ids: Sequence[int]) -> None:
        self._look.check()
        rows = [{"task": task, "result": [], "score": SERVED_LAST, "model_version": MARKER} for task in task_ids]
        created, rows = import_for_present(self._client, self._id, rows)
        marked = {int(str(row["task"])) for row in rows}
        if created != len(rows):
            marked &= self._client.tasks_with_prediction(self._id, MARKER)
        self._update(marked, marked=True)

    def _passed(self) -> dict[int, Decision]:
        """Return what is passed over, read anew after a change: it may be most of a large project."""
        if self._kept_passed is None:
            self._kept_passed = self._store.passed_over(self._id)
        return self._kept_passed

    def _update(self, task_ids: Collection[int], **fields: bool) -> None:
        if task_ids:
            self._store.update_decisions(self._id, task_ids, **fields)
            self._kept_passed = None


def _images(observation: Observation) -> Iterator[Observation]:
    """Split the observation of a batch into those of its images, with what a stream looks at."""
    from strategies import Observation

    information, size = observation.information.cpu(), observation.size.cpu()
    for at, image in enumerate(observation.ids):
        yield Observation(ids=(image,), information=information[at : at + 1], size=size[at : at + 1])
