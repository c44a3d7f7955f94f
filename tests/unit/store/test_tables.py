"""What the store keeps of tasks, rankings, published versions, events and decisions: written whole, and read back."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import sqlalchemy as sa
from wiring import Clock, execute, project_of, task_of

from ml_backend.annotations.boxes import Box, Query
from ml_backend.store import AnnotatorLabels, Decision, Event, Store, Task


# -- tasks -----------------------------------------------------------------------------------------------------------
def test_tasks_come_back_as_they_were_put(store: Store) -> None:
    full = task_of(
        7,
        1,
        group_key="patient 3",
        updated_at="2026-01-01T00:00:00Z",
        status="labelled",
        annotation_id=9,
        label_digest="d",
        mask_file="/m/7.png",
        held_out=True,
        lead_time=2.5,
        regions=3,
        vertices=40,
        shown_version="nextmask-1.1",
        agreement=0.75,
        annotator=3,
        unchanged=False,
    )
    store.put_tasks([full, task_of(6, 1)])
    assert store.task(1, 7) == full
    assert store.tasks(1) == [task_of(6, 1), full]
    assert store.tasks(1, status="labelled") == [full]
    assert store.count_tasks(1) == {"labelled": 1, "unlabelled": 1}
    store.put_tasks([task_of(7, 1)])
    assert store.task(1, 7) == task_of(7, 1)
    assert (store.task(1, 8), store.tasks(2)) == (None, [])


def test_a_tasks_error_comes_and_goes(store: Store) -> None:
    store.put_tasks([task_of(7, 1)])
    store.set_task_error(1, 7, "no image")
    assert store.tasks(1)[0].error == "no image"
    store.set_task_error(1, 7, "")
    assert store.tasks(1) == [task_of(7, 1)]


def test_labels_are_counted_by_annotator(store: Store) -> None:
    done: dict[str, Any] = {"status": "labelled"}
    store.put_tasks(
        [
            task_of(1, 1, **done, annotation_id=5, annotator=9, unchanged=True),
            task_of(2, 1, **done, annotation_id=7, annotator=9, unchanged=True),
            task_of(3, 1, **done, annotation_id=6, annotator=9, unchanged=False),
            task_of(4, 1, **done, annotation_id=8, annotator=2),
            task_of(5, 1, **done, annotation_id=9, unchanged=True),
            task_of(6, 1, status="broken", annotation_id=10, annotator=2, unchanged=True),
            task_of(7, 2, **done, annotation_id=11, annotator=2, unchanged=True),
        ]
    )
    expected = [AnnotatorLabels(2, 1, 0, 0), AnnotatorLabels(9, 3, 3, 2), AnnotatorLabels(None, 1, 1, 1)]
    assert store.labels_of_annotators(1) == expected
    assert [task.task_id for task in store.unchanged_labels(1, limit=9)] == [5, 2, 1]
    assert [task.task_id for task in store.unchanged_labels(1, annotator=9, limit=9)] == [2, 1]
    assert [task.task_id for task in store.unchanged_labels(1, limit=1, offset=1)] == [2]
    assert store.labels_of_annotators(3) == []


def test_who_made_a_label_is_not_said_of_one_that_was_replaced_meanwhile(store: Store) -> None:
    store.put_tasks([task_of(1, 1, status="labelled", annotation_id=6, annotator=2, unchanged=False)])
    store.set_unchanged([task_of(1, 1, annotation_id=5, annotator=9, unchanged=True)])
    assert store.labels_of_annotators(1) == [AnnotatorLabels(2, 1, 1, 0)]


def test_deleted_tasks_leave_ranking_and_queue(store: Store) -> None:
    everything = list(range(1, 1201))  # more than one statement takes
    store.put_tasks([task_of(one, 1) for one in everything])
    store.put_ranking(1, {one: 1 / one for one in everything})
    store.put_published(1, "nextmask-1.1", [(one, 0.5, None) for one in everything])
    store.delete_tasks(1, everything[:-1])
    assert [task.task_id for task in store.tasks(1)] == [1200]
    assert store.priorities(1, everything) == {1200: 1 / 1200}
    assert store.queue_length(1, "nextmask-1.1") == 1


# -- ranking ---------------------------------------------------------------------------------------------------------
def test_the_ranking_gives_unlabelled_tasks_best_first(store: Store) -> None:
    store.wake(1)
    store.put_tasks([*(task_of(one, 1) for one in (1, 2, 3, 4)), task_of(5, 1, status="labelled")])
    store.put_ranking(1, {1: 0.2, 2: 0.9, 3: 0.2, 5: 1.0}, ranking_version="nextmask-1.4", ranking_number=4)
    assert [(task.task_id, priority) for task, priority in store.ranked(1)] == [(2, 0.9), (1, 0.2), (3, 0.2)]
    assert [task.task_id for task, _ in store.ranked(1, limit=1)] == [2]
    assert (project_of(store, 1).ranking_version, project_of(store, 1).ranking_number) == ("nextmask-1.4", 4)
    store.put_ranking(1, {4: 0.5})
    assert [task.task_id for task, _ in store.ranked(1)] == [4]


def test_a_ranking_that_cannot_be_written_leaves_the_old_one(store: Store) -> None:
    store.wake(1)
    store.put_tasks([task_of(one, 1) for one in (1, 2)])
    store.put_ranking(1, {1: 0.5}, ranking_version="nextmask-1.1")
    with pytest.raises(sa.exc.IntegrityError):
        store.put_ranking(1, {1: 0.1, 2: None}, ranking_version="nextmask-1.2")  # type: ignore[dict-item]
    assert store.priorities(1, [1, 2]) == {1: 0.5}
    assert project_of(store, 1).ranking_version == "nextmask-1.1"


def test_readers_see_the_old_or_the_new_ranking_whole(store: Store) -> None:
    store.wake(1)
    tasks = list(range(1, 201))
    store.put_tasks([task_of(one, 1) for one in tasks])
    store.put_ranking(1, dict.fromkeys(tasks, 0.0))
    ended = threading.Event()

    def write() -> None:
        for number in range(1, 15):
            store.put_ranking(1, dict.fromkeys(tasks, number / 20))
        ended.set()

    thread = threading.Thread(target=write)
    thread.start()
    seen = []
    while not ended.is_set():
        seen.append(store.priorities(1, tasks))
    thread.join()
    assert all(len(one) == 200 and len(set(one.values())) == 1 for one in seen)


# -- what was published ----------------------------------------------------------------------------------------------
def test_the_version_before_retires_and_comes_back(store: Store, clock: Clock) -> None:
    store.wake(1)
    for version in ("nextmask-1.1", "nextmask-2.2", "nextmask-1.3"):
        store.mark_published(1, version)
        clock.now += 10
    assert project_of(store, 1).published_version == "nextmask-1.3"
    assert store.versions(1) == ["nextmask-1.3", "nextmask-2.2", "nextmask-1.1"]
    assert store.retired_versions(1, before=clock.now) == ["nextmask-1.1", "nextmask-2.2"]
    assert store.retired_versions(1, before=clock.now - 15) == ["nextmask-1.1"]
    store.mark_published(1, "nextmask-1.1")  # published again: it must not be pruned
    assert store.retired_versions(1, before=clock.now + 1) == ["nextmask-2.2", "nextmask-1.3"]


def test_what_was_shown_is_kept_until_the_version_is_forgotten(store: Store) -> None:
    store.wake(1)
    store.put_tasks([task_of(5, 1), task_of(6, 1, status="labelled")])
    store.put_published(1, "nextmask-1.1", [(5, 0.25, b"mask of 5"), (6, 0.5, None)])
    store.put_published(1, "nextmask-1.1", [(5, 0.75, b"newer")])
    assert store.published_mask(1, "nextmask-1.1", 5) == b"newer"
    assert store.published_mask(1, "nextmask-1.1", 6) is None
    assert store.published_mask(1, "nextmask-2.1", 5) is None
    assert store.queue_length(1, "nextmask-1.1") == 1  # the other one is labelled
    store.forget_version(1, "nextmask-1.1")
    assert store.published_mask(1, "nextmask-1.1", 5) is None
    assert store.queue_length(1, "nextmask-1.1") == 0


def test_a_version_that_was_imported_and_never_served_is_pruned_as_well(store: Store, clock: Clock) -> None:
    # The worker was killed before it switched, and then ranked anew: the host holds predictions of a dead version.
    store.wake(1)
    store.put_published(1, "nextmask-1.1", [(5, 0.5, None)])
    clock.now += 10
    store.mark_published(1, "nextmask-1.2")
    assert store.retired_versions(1, before=clock.now + 1) == ["nextmask-1.1"]


def test_notes_and_secrets(store: Store) -> None:
    assert store.value("when") is None
    store.set_value("when", "1")
    store.set_value("when", "2")
    assert store.value("when") == "2"
    assert (store.set_default("key", "first"), store.set_default("key", "second")) == ("first", "first")


# -- events ----------------------------------------------------------------------------------------------------------
def test_events_come_back_newest_first_and_page_by_page(store: Store, clock: Clock) -> None:
    for number in range(5):
        clock.now += 1
        store.add_event(1 + number % 2, "ranked", f"number {number}", level="info" if number else "warning")
    assert [event.text for event in store.events(None)] == [f"number {number}" for number in (4, 3, 2, 1, 0)]
    first = store.events(1, limit=2)
    assert [event.text for event in first] == ["number 4", "number 2"]
    (last,) = store.events(1, limit=2, before=first[-1].id)
    assert last == Event(last.id, 1, clock.now - 4, "ranked", "warning", "number 0")


def test_the_newest_events_of_each_project_are_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ml_backend.store.events.KEPT_EVENTS", 3)
    store.add_event(2, "ranked", "of another project")
    for number in range(7):
        store.add_event(1, "ranked", str(number))
    assert [event.text for event in store.events(None)] == ["6", "5", "4", "of another project"]


def test_what_an_event_says_is_bounded_and_can_be_stored(store: Store) -> None:
    store.add_event(1, "failed", "a\0b\ud800" + "c" * 10_000, level="error")
    (event,) = store.events(1)
    assert event.text.startswith("ab?c")
    assert len(event.text) == 2000


def test_an_event_that_cannot_be_kept_breaks_nothing(store: Store, url: str, caplog: pytest.LogCaptureFixture) -> None:
    execute(url, "DROP TABLE events")
    store.add_event(1, "failed", "text")
    assert "project=1 event=failed cannot be kept: (" in caplog.text
    reason = "no such table: events" if url.startswith("sqlite") else 'relation "events" does not exist'
    assert reason in caplog.text


def test_ids_and_texts_that_label_studio_may_send_are_kept(store: Store) -> None:
    far = 99_999_999_999  # the largest that the server takes
    store.wake(far, title="Cells\0and nuclei")
    store.put_tasks([task_of(far, far, image="a\0.png", annotation_id=far, annotator=far)])
    store.put_published(far, "nextmask-1.1", [(far, 0.5, b"\0")])
    task = store.task(far, far)
    assert task is not None
    assert (task.annotation_id, task.annotator) == (far, far)
    assert {task.image, project_of(store, far).title} <= {
        *("a\0.png", "Cells\0and nuclei"),
        *("a\ufffd.png", "Cells\ufffdand nuclei"),  # PostgreSQL has no null bytes
    }
    assert store.published_mask(far, "nextmask-1.1", far) == b"\0"


# -- queries and decisions -------------------------------------------------------------------------------------------
ASKED = Query((Box(0, 10, 20, 30), Box(50, 10, 20, 30)), cost=12.5)


def test_what_is_asked_for_belongs_to_the_ranking(store: Store) -> None:
    store.put_ranking(1, {5: 0.9, 6: 0.5}, {5: ASKED})
    assert store.ranked_queries(1) == {5: ASKED}
    assert store.ranked_queries(2) == {}
    store.put_ranking(1, {5: 0.9})
    assert store.ranked_queries(1) == {}


def last_queries(store: Store) -> dict[int, Query]:
    return {task: query for (task, _), query in store.published_queries(1).items()}


def test_what_was_published_with_rectangles_outlives_its_version(store: Store) -> None:
    store.put_queries(1, "nextmask-1.1", {5: ASKED, 6: Query((Box(0, 0, 1, 1),))})
    store.put_queries(1, "nextmask-1.2", {5: Query((Box(1, 1, 2, 2),), cost=0.0)})
    store.forget_version(1, "nextmask-1.2")
    assert last_queries(store) == {5: Query((Box(1, 1, 2, 2),), cost=0.0), 6: Query((Box(0, 0, 1, 1),))}
    store.delete_tasks(1, [5])
    assert set(last_queries(store)) == {6}


def test_what_was_published_is_known_by_version(store: Store) -> None:
    first, second = Query((Box(0, 0, 1, 1),), 1.0), Query((Box(1, 1, 2, 2),), 2.0)
    store.put_queries(1, "nextmask-1.10", {5: first})
    store.put_queries(1, "nextmask-1.9", {5: second, 6: second})
    assert store.published_queries(1, 5) == {(5, "nextmask-1.10"): first, (5, "nextmask-1.9"): second}
    assert last_queries(store)[5] == second  # the last one, whatever its version is called
    store.drop_queries(1, "nextmask-1.9", [5])
    assert store.published_queries(1) == {(5, "nextmask-1.10"): first, (6, "nextmask-1.9"): second}


def test_a_mask_that_a_label_began_with_outlives_its_version(store: Store) -> None:
    store.put_published(1, "nextmask-1.1", [(5, 0.5, b"mask"), (6, 0.5, b"other")])
    store.put_tasks([Task(1, 5, "a", status="labelled", shown_version="nextmask-1.1"), Task(1, 6, "b")])
    store.forget_version(1, "nextmask-1.1")
    assert store.published_mask(1, "nextmask-1.1", 5) == b"mask"
    assert store.published_mask(1, "nextmask-1.1", 6) is None
    assert store.versions(1) == []


def test_a_task_takes_the_place_of_another_in_the_ranking(store: Store) -> None:
    store.put_ranking(1, {5: 0.9, 6: 0.5, 8: 0.1}, {5: ASKED})
    store.put_ranking(2, {5: 0.9})
    store.move_ranking(1, {5: 7, 6: 8}, [Task(1, 7, "a")])
    assert store.priorities(1, [5, 6, 7, 8]) == {7: 0.9, 8: 0.5}
    assert store.ranked_queries(1) == {7: ASKED}
    assert store.priorities(2, [5, 7]) == {5: 0.9}
    assert [task.task_id for task, _ in store.ranked(1)] == [7]


def test_decisions_are_kept_with_the_stream_that_made_them(store: Store) -> None:
    passed = Decision(5, keep=False, score=0.25, threshold=0.5, decided_at=10.0)
    store.put_decisions(
        1, [passed, Decision(6, keep=True, score=1.0, threshold=None, decided_at=10.0)], state=("s", "1")
    )
    assert store.value("s") == "1"
    assert store.decisions(1)[5] == passed
    store.update_decisions(1, [5], marked=True)
    assert (store.decisions(1)[5].marked, store.decisions(1)[6].marked) == (True, False)
    store.put_decisions(1, [], state=("s", "2"))
    assert (store.value("s"), len(store.decisions(1))) == ("2", 2)


def test_a_status_is_set_only_where_nobody_labelled(store: Store) -> None:
    store.put_tasks([Task(1, 5, "a"), Task(1, 6, "b", status="labelled"), Task(1, 7, "c", status="skipped")])
    store.set_task_status(1, [5, 6, 7], "passed")
    assert [task.status for task in store.tasks(1)] == ["passed", "labelled", "skipped"]
