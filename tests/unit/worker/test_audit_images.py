"""Audit images from the first look on: their places, that they open empty, which labels measure, and what trains."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from memory_studio import MemoryStudio
from wiring import PROJECT, XML, change_database, data_uri, disc, look_at, nothing, project_of, region

from ml_backend.annotations.boxes import Box, Query
from ml_backend.annotations.config_edits import with_query_control
from ml_backend.annotations.masks import png_bytes
from ml_backend.label_studio.predictions import MARKER
from ml_backend.projects.audit import AuditSet, audit_set
from ml_backend.projects.services import Services
from ml_backend.projects.status import project_status
from ml_backend.server.model import NextmaskModel
from ml_backend.store import Decision, Task
from ml_backend.worker.pseudo_labels import eligible
from ml_backend.worker.publish import publish
from ml_backend.worker.reconcile import reconcile
from ml_backend.worker.sync import sync

QUICK = {"input_size": 32, "batch_size": 4, "queue_window": 12, "train_after": 99, "encoder_weights": "none"}
DEFAULT = 0.125

pytestmark = [
    pytest.mark.usefixtures("one_thread", "known_project"),
    pytest.mark.studio(24, connected=True),
    pytest.mark.settings(audit_share=DEFAULT, strategy="entropy", **QUICK),
]


def drawn(services: Services, studio: MemoryStudio, **settings: Any) -> set[int]:
    """The tasks of audit images."""
    own = services.settings.for_project(settings)
    audit, tasks = audit_set(own, services.store, PROJECT), services.store.tasks(PROJECT)
    assert {task.task_id for task in tasks} == studio.items.keys()
    return {task.task_id for task in tasks if audit.opens_empty(task)}


def prediction_of(studio: MemoryStudio, task: int) -> dict[str, Any]:
    version = studio.fields["model_version"]
    (row,) = (row for row in studio.predictions if (row["task"], row["model_version"]) == (task, version))
    return row


def submit(studio: MemoryStudio, task: int) -> None:
    """Label a task as an annotator does who begins with what is shown."""
    studio.label(task, parent_prediction=prediction_of(studio, task)["id"])


def label(services: Services, number: int) -> Task:
    task = services.store.task(PROJECT, number)
    assert task is not None
    assert task.status == "labelled"
    return task


def kinds(services: Services) -> list[str]:
    return [event.kind for event in services.store.events(PROJECT)]


# -- places ----------------------------------------------------------------------------------------------------------
def test_they_stand_at_the_fourth_and_eighth_place_of_a_new_project(services: Services, studio: MemoryStudio) -> None:
    reconcile(services, PROJECT, nothing)
    audit = drawn(services, studio)
    assert len(audit) >= 2
    assert [place for place, task in enumerate(studio.queue(), start=1) if task in audit] == [4, 8]


@pytest.mark.usefixtures("served_project")
def test_with_a_model_they_open_empty_and_all_others_with_a_mask(services: Services, studio: MemoryStudio) -> None:
    reconcile(services, PROJECT, nothing)
    audit, queue = drawn(services, studio), studio.queue()
    assert [place for place, task in enumerate(queue, start=1) if task in audit] == [4, 8]
    for task in queue:
        assert bool(prediction_of(studio, task)["result"]) != (task in audit)
        shown = services.store.published_mask(PROJECT, studio.fields["model_version"], task)
        assert (shown is not None) != (task in audit)


@pytest.mark.usefixtures("served_project")
def test_the_pace_goes_on_where_it_was(services: Services, studio: MemoryStudio) -> None:
    reconcile(services, PROJECT, nothing)
    audit, queue = drawn(services, studio), studio.queue()
    for task in queue[:5]:  # the audit image at place 4 is among them
        submit(studio, task)
    services.store.update_project(PROJECT, ranking_key="")
    reconcile(services, PROJECT, nothing)
    assert next(place for place, task in enumerate(studio.queue(), start=1) if task in audit) == 3  # the eighth of all
    for task in studio.queue()[3:9]:  # out of order: the audit image is left behind
        submit(studio, task) if task not in audit else None
    services.store.update_project(PROJECT, ranking_key="")
    reconcile(services, PROJECT, nothing)
    assert studio.queue()[0] in audit


@pytest.mark.usefixtures("served_project")
def test_one_that_is_opened_outside_the_queue_stays_empty_with_its_own_score(
    services: Services, studio: MemoryStudio
) -> None:
    reconcile(services, PROJECT, nothing)
    audit, queue = drawn(services, studio), studio.queue()
    one, other = queue[3], queue[0]
    assert one in audit
    model = NextmaskModel(services, PROJECT, studio.xml)
    answers = model.predict(
        [{"id": task, "project": PROJECT, "data": studio.items[task]["data"]} for task in (one, other)]
    )
    assert (answers[0]["result"], answers[0]["score"]) == ([], prediction_of(studio, one)["score"])
    assert answers[1]["result"]
    assert model.failures == 0
    submit(studio, one)
    reconcile(services, PROJECT, nothing)
    assert label(services, one).held_out


@pytest.mark.usefixtures("served_project")
def test_a_task_that_no_look_has_seen_yet_is_judged_by_its_data(services: Services) -> None:
    audit = audit_set(services.settings, services.store, PROJECT)
    images = [data_uri(number) for number in range(40)]
    tasks = [{"id": 900 + at, "project": PROJECT, "data": {"image": image}} for at, image in enumerate(images)]
    services.store.mark_published(PROJECT, "nextmask-1.1")
    answers = NextmaskModel(services, PROJECT, MemoryStudio().xml).predict(tasks)
    assert [not answer["result"] for answer in answers] == [audit.has(image) for image in images]
    assert any(audit.has(image) for image in images)


@pytest.mark.usefixtures("served_project")
def test_one_without_an_image_is_left_out_and_says_why(services: Services, studio: MemoryStudio) -> None:
    sync(look_at(services))
    (gone, *_) = sorted(drawn(services, studio))
    del studio.files[studio.items[gone]["data"]["image"]]
    reconcile(services, PROJECT, nothing)
    assert gone not in studio.queue()
    assert "cannot be fetched" in project_status(services.settings, services.store, PROJECT).errors[f"task {gone}"]


# -- what measures ---------------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("served_project")
def test_their_labels_measure_and_all_others_train(services: Services, studio: MemoryStudio) -> None:
    reconcile(services, PROJECT, nothing)
    audit, queue = drawn(services, studio), studio.queue()
    for task in queue[:8]:
        submit(studio, task)
    reconcile(services, PROJECT, nothing)
    for task in queue[:8]:
        assert (label(services, task).held_out, label(services, task).masked) == (task in audit, task not in audit)
        assert (label(services, task).agreement is None) == (task in audit)
        assert label(services, task).effort is not None  # also of those that began with nothing
    status = project_status(services.settings, services.store, PROJECT)
    assert status.audit is not None
    assert (status.audit.labels, status.audit.training) == (2, 6)
    assert status.audit.waiting == len(audit) - 2
    assert status.hints == []


@pytest.mark.usefixtures("served_project")
def test_a_label_that_measures_still_does_when_it_is_changed_or_its_prediction_is_gone(
    services: Services, studio: MemoryStudio
) -> None:
    reconcile(services, PROJECT, nothing)
    one, other = studio.queue()[3], studio.queue()[0]
    submit(studio, one)
    submit(studio, other)
    reconcile(services, PROJECT, nothing)
    studio.predictions.clear()
    for task in (one, other):
        studio.items[task]["updated_at"] = studio.now()
        (annotation,) = studio.items[task]["annotations"]
        annotation |= {"result": [region(disc(99)[1])], "updated_at": studio.now(), "parent_prediction": None}
        before = label(services, task)
        reconcile(services, PROJECT, nothing)
        after = label(services, task)
        assert after.label_digest != before.label_digest
        assert (after.held_out, after.masked) == (before.held_out, before.masked) == (task == one, task != one)


def test_labels_of_a_project_that_is_labelled_in_part_measure_from_the_start(
    services: Services, studio: MemoryStudio
) -> None:
    for task in list(studio.items)[:20]:
        studio.label(task)
    reconcile(services, PROJECT, nothing)
    audit = drawn(services, studio)
    held_out = {task.task_id for task in services.store.tasks(PROJECT, status="labelled") if task.held_out}
    assert held_out == {task for task in audit if task <= 20}
    assert held_out
    assert "audit_changed" not in kinds(services)


@pytest.mark.parametrize(
    ("version", "shown", "measures"),
    [
        ("nextmask-3.1", True, False),
        ("nextmask-3.1", False, True),
        ("nextmask-0.1", False, True),
        ("sam", True, True),  # it leans to no version of ours
    ],
)
def test_what_was_shown_decides(
    services: Services, studio: MemoryStudio, version: str, shown: bool, measures: bool
) -> None:
    sync(look_at(services))
    one = min(drawn(services, studio))
    result = [region(disc(0)[1])] if shown else []
    studio.import_predictions(PROJECT, [{"task": one, "result": result, "score": 0.5, "model_version": version}])
    studio.label(one, parent_prediction=studio.predictions[-1]["id"])
    sync(look_at(services))
    assert (label(services, one).held_out, label(services, one).masked) == (measures, not measures)


@pytest.mark.parametrize("origin", ["prediction", "prediction-changed", "manual"])
def test_where_the_prediction_is_gone_the_regions_tell(services: Services, studio: MemoryStudio, origin: str) -> None:
    sync(look_at(services))
    one = min(drawn(services, studio))
    studio.annotate(one, [{**region(disc(0)[1]), "origin": origin}])
    sync(look_at(services))
    assert label(services, one).held_out == (origin == "manual")


def test_a_mask_of_ours_that_predicted_nothing_was_shown_all_the_same(services: Services, studio: MemoryStudio) -> None:
    sync(look_at(services))
    one = min(drawn(services, studio))
    studio.import_predictions(PROJECT, [{"task": one, "result": [], "score": 0.5, "model_version": "nextmask-3.1"}])
    services.store.put_published(PROJECT, "nextmask-3.1", [(one, 0.5, png_bytes(disc(0)[1] * 0))])
    studio.label(one, parent_prediction=studio.predictions[-1]["id"])
    sync(look_at(services))
    assert not label(services, one).held_out


@pytest.mark.parametrize("policy", ["newest", "ground_truth", "majority"])
def test_of_several_annotators_one_who_was_shown_a_mask_is_enough(
    services: Services, studio: MemoryStudio, policy: str
) -> None:
    sync(look_at(services, settings={"several_annotations": policy}))
    one, other = sorted(drawn(services, studio))[:2]
    row = {"result": [region(disc(0)[1])], "score": 0.5, "model_version": "nextmask-3.1"}
    studio.import_predictions(PROJECT, [{**row, "task": one}])
    studio.label(one, parent_prediction=studio.predictions[-1]["id"], completed_by=1)
    for task in (one, other):
        studio.label(task, completed_by=2)
        studio.label(task, completed_by=3)
    sync(look_at(services, settings={"several_annotations": policy}))
    assert [label(services, task).held_out for task in (one, other)] == [False, True]


def test_a_group_of_which_a_label_saw_a_mask_trains_as_a_whole(services: Services, studio: MemoryStudio) -> None:
    settings = {"audit_group": "patient"}
    for task in studio.items:
        studio.items[task]["data"]["patient"] = f"p{task % 6}"
    sync(look_at(services, settings=settings))
    audit = drawn(services, studio, **settings)
    patient = studio.items[min(audit)]["data"]["patient"]
    own = [task for task in studio.items if studio.items[task]["data"]["patient"] == patient]
    studio.label(own[0])
    sync(look_at(services, settings=settings))
    assert label(services, own[0]).held_out

    row = {"task": own[1], "result": [region(disc(0)[1])], "score": 0.5, "model_version": "nextmask-3.1"}
    studio.import_predictions(PROJECT, [row])
    studio.label(own[1], parent_prediction=studio.predictions[-1]["id"])
    services.store.update_project(PROJECT, ranking_key="was ranked")
    sync(look_at(services, settings=settings))
    assert not any(label(services, task).held_out for task in own[:2])
    assert not drawn(services, studio, **settings) & set(own)
    assert project_of(services).ranking_key == ""  # the others of the group are ranked from now on
    (event,) = [event for event in services.store.events(PROJECT) if event.kind == "audit_changed"]
    assert event.text.startswith("1 label that measured trains from now on")


# -- other settings --------------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("served_project")
def test_another_share_counts_for_labels_and_queue_and_is_told(services: Services, studio: MemoryStudio) -> None:
    labelled = list(studio.items)[:18]
    for task in labelled:
        studio.label(task)
    reconcile(services, PROJECT, nothing)
    before = drawn(services, studio)
    assert [task for task in labelled if label(services, task).held_out] == [
        task for task in labelled if task in before
    ]
    assert before & set(labelled)
    assert not before & {1, 2, 3, 4}  # the version was trained on them

    studio.backends[0]["extra_params"] = {"audit_share": 0}
    reconcile(services, PROJECT, nothing)
    assert not any(label(services, task).held_out for task in labelled)
    assert all(prediction_of(studio, task)["result"] for task in studio.queue())
    assert "audit_changed" in kinds(services)
    hints = project_status(services.settings, services.store, PROJECT).hints
    assert any("no learning curve and no advice" in hint for hint in hints)

    studio.backends[0]["extra_params"] = {"audit_share": 0.5}
    reconcile(services, PROJECT, nothing)
    after = drawn(services, studio, audit_share=0.5)
    assert before <= after
    assert not after & {1, 2, 3, 4}
    assert not any(prediction_of(studio, task)["result"] for task in studio.queue() if task in after)


def test_all_labels_on_audit_images_train_nothing_and_that_is_said(services: Services, studio: MemoryStudio) -> None:
    reconcile(services, PROJECT, nothing)
    for task in drawn(services, studio):
        studio.label(task)
    services.store.wake(PROJECT, train=True)
    reconcile(services, PROJECT, nothing)
    assert services.checkpoints(PROJECT).latest() is None
    assert project_of(services).error == ""
    (hint,) = project_status(services.settings, services.store, PROJECT).hints
    assert "labels are of an audit image" in hint


def test_audit_images_that_were_all_skipped_are_told(services: Services, studio: MemoryStudio) -> None:
    reconcile(services, PROJECT, nothing)
    for task in drawn(services, studio):
        studio.annotate(task, [], was_cancelled=True)
    reconcile(services, PROJECT, nothing)
    (hint,) = project_status(services.settings, services.store, PROJECT).hints
    assert "audit images were skipped" in hint


# -- no strategy sees them ---------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("served_project")
def test_no_strategy_scores_them_nor_takes_them_for_covered(
    services: Services, studio: MemoryStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[int]] = []

    def rank_pool(strategy: Any, pools: Any, **options: Any) -> None:
        seen.extend(
            {int(one) for part in measured(strategy) for one in part.ids}
            for measured in (pools.unlabelled, pools.labelled)
        )

    monkeypatch.setattr("ml_backend.worker.score_pool.rank_pool", rank_pool)
    labelled = {task for task in studio.items if task <= 18}
    for task in labelled:
        studio.label(task)
    reconcile(services, PROJECT, nothing)
    audit = drawn(services, studio)
    assert seen[0] == studio.items.keys() - labelled - audit
    assert seen[1] == labelled - audit
    assert labelled & audit


@pytest.mark.usefixtures("served_project")
@pytest.mark.settings(stream_rate=0.05, audit_share=0.3, **QUICK)
def test_a_stream_keeps_all_that_arrive_and_returns_those_it_passed_over(
    services: Services, studio: MemoryStudio
) -> None:
    reconcile(services, PROJECT, nothing)
    arrived = [studio.add_task(index) for index in range(24, 44)]
    reconcile(services, PROJECT, nothing)
    audit = drawn(services, studio)
    status = {task: services.store.task(PROJECT, task) for task in arrived}
    assert {task for task in arrived if status[task].status == "unlabelled"} >= audit & set(arrived)  # type: ignore[union-attr]
    assert services.store.decisions(PROJECT).keys() == set(arrived) - audit
    assert any(one is not None and one.status == "passed" for one in status.values())

    one = min(audit & set(arrived))  # as if it had been passed over before it was drawn
    services.store.put_decisions(
        PROJECT, [Decision(one, keep=False, score=0.0, threshold=1.0, decided_at=0.0)], state=("test", "")
    )
    services.store.set_task_status(PROJECT, [one], "passed")
    reconcile(services, PROJECT, nothing)
    returned = services.store.task(PROJECT, one)
    assert returned is not None
    assert returned.status == "unlabelled"
    assert one not in studio.tasks_with_prediction(PROJECT, MARKER)


def test_none_gets_a_pseudo_label(services: Services, studio: MemoryStudio) -> None:
    sync(look_at(services))
    tasks, audit = services.store.tasks(PROJECT), audit_set(services.settings, services.store, PROJECT)
    proposed = {task.task_id for task in eligible([task.task_id for task in tasks], tasks, audit)}
    assert proposed == studio.items.keys() - drawn(services, studio)


# -- an upgrade --------------------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("served_project")
def test_an_upgrade_reads_no_label_again_and_says_what_measures(services: Services, studio: MemoryStudio) -> None:
    reconcile(services, PROJECT, nothing)
    audit = drawn(services, studio)
    shown, empty = sorted(audit)[:2]
    row = {"task": shown, "result": [region(disc(0)[1])], "score": 0.5, "model_version": "nextmask-1.1"}
    studio.import_predictions(PROJECT, [row])
    studio.label(shown, parent_prediction=studio.predictions[-1]["id"])
    studio.label(empty)
    sync(look_at(services))
    # as the release before left it: both were held out
    services.store.set_held_out(PROJECT, [shown, empty], held_out=True)
    change_database(services, f"DELETE FROM meta WHERE key = 'audit_{PROJECT}'")
    before = {task: label(services, task) for task in (shown, empty)}
    sync(look_at(services))
    assert label(services, shown) == replace(before[shown], held_out=False)
    assert label(services, empty) == before[empty]
    (event,) = [event for event in services.store.events(PROJECT) if event.kind == "audit_changed"]
    assert event.text.startswith("1 label that measured trains from now on")
    assert event.text.endswith("1 label measures now, 1 label trains.")


def test_what_is_kept_is_small_and_readable(services: Services, studio: MemoryStudio) -> None:
    sync(look_at(services))
    kept = json.loads(services.store.value(f"audit_{PROJECT}") or "")
    assert kept["setup"] == [0, ""]
    assert kept["counts"]["waiting"] == len(drawn(services, studio))
    assert len(kept["drawn"]) == max(0, 2 - sum(AuditSet(DEFAULT, 0).has(f"/data/upload/{n}.png") for n in range(24)))


# -- regions ---------------------------------------------------------------------------------------------------------
@pytest.mark.studio(12, connected=True, xml=with_query_control(XML))
def test_where_regions_are_asked_for_they_come_between_and_none_after_the_last(
    services: Services, studio: MemoryStudio
) -> None:
    look = look_at(services)
    sync(look)
    one, other = sorted(drawn(services, studio))
    asked = [task for task in studio.items if task not in (one, other)][:3]
    order = [asked[0], one, asked[1], asked[2], other]
    priorities = {task: 1 - place / 10 for place, task in enumerate(order)}
    unasked = dict.fromkeys(studio.items.keys() - set(order), 0.1)
    query = Query((Box(2, 2, 8, 8),), None)
    services.store.put_ranking(
        PROJECT, priorities | unasked, dict.fromkeys(asked, query), ranking_version="nextmask-0.1", ranking_number=1
    )
    publish(look)
    assert studio.queue() == order[:4]
