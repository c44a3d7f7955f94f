"""Who made a label, and whether it is the mask that was shown: from the host, through the store, to what is told."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from memory_studio import MemoryStudio
from wiring import LABEL_MAP, PROJECT, change_database, disc, look_at, project_of, region

from ml_backend.annotations.masks import png_bytes, write_result
from ml_backend.errors import LabelStudioError, LabelStudioRefused, LabelStudioUnavailable
from ml_backend.projects.services import Services
from ml_backend.projects.status import project_state
from ml_backend.projects.unchanged import Annotator, annotator_names
from ml_backend.store import Task
from ml_backend.worker.sync import sync

pytestmark = [
    pytest.mark.usefixtures("one_thread", "known_project"),
    pytest.mark.studio(6, connected=True),
    pytest.mark.settings(audit_share=0),
]
VERSION = "nextmask-3.1"
MASK = disc(0)[1]


def show(services: Services, studio: MemoryStudio, task: int, mask: Any = MASK, *, keep: bool = True) -> list[Any]:
    """Predict a mask for a task, as publishing does; returns its regions as an annotation has them if nobody drew."""
    result = write_result(mask, LABEL_MAP, minimum_area=0)
    row = {"task": task, "result": result, "score": 0.5, "model_version": VERSION}
    studio.import_predictions(PROJECT, [row])
    if keep:
        services.store.put_published(PROJECT, VERSION, [(task, 0.5, png_bytes(mask))])
    return [{**one, "origin": "prediction"} for one in result]


def submit(studio: MemoryStudio, task: int, result: list[Any], user: object = 7) -> int:
    return studio.annotate(task, result, completed_by=user, parent_prediction=studio.predictions[-1]["id"])


def told(services: Services, task: int) -> tuple[int | None, bool | None]:
    found = label(services, task)
    return found.annotator, found.unchanged


def label(services: Services, task: int) -> Task:
    found = services.store.task(PROJECT, task)
    assert found is not None
    return found


def changed(kept: list[Any]) -> list[Any]:
    return [{**kept[0], "origin": "prediction-changed"}, *kept[1:]]


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (lambda kept: kept, True),
        (lambda kept: [{**one, "id": f"other-{at}"} for at, one in enumerate(kept[::-1])], True),
        (changed, False),
        (lambda kept: [*kept, region(disc(3)[1])], False),  # by hand, beside what was predicted
        (lambda _: [], False),  # all of it was deleted
        (lambda kept: [{name: value for name, value in one.items() if name != "origin"} for one in kept], False),
    ],
    ids=["kept", "other order", "changed", "more", "deleted", "drawn elsewhere"],
)
@pytest.mark.parametrize("keep", [True, False], ids=["", "what was shown is lost here"])
def test_a_label_is_unchanged_where_all_of_it_is_as_it_was_shown(
    made: Callable[[list[Any]], list[Any]], expected: bool, keep: bool, services: Services, studio: MemoryStudio
) -> None:
    submit(studio, 1, made(show(services, studio, 1, keep=keep)))
    sync(look_at(services))
    assert told(services, 1) == (7, expected)


def test_without_a_mask_of_ours_it_is_not_asked_whether_a_label_is_unchanged(
    services: Services, studio: MemoryStudio
) -> None:
    studio.label(1, completed_by=7)  # began with nothing
    kept = show(services, studio, 2, keep=False)
    studio.predictions[-1]["model_version"] = "somebody's"
    submit(studio, 2, kept)
    studio.import_predictions(PROJECT, [{"task": 3, "result": [], "score": 0.5, "model_version": "nextmask-0.1"}])
    submit(studio, 3, [region(disc(2)[1])])
    sync(look_at(services))
    assert [told(services, task) for task in (1, 2, 3)] == [(7, None)] * 3
    assert project_state(services.settings, services.store, PROJECT).unchanged.share is None


def test_nothing_predicted_and_nothing_drawn_is_unchanged(services: Services, studio: MemoryStudio) -> None:
    submit(studio, 1, show(services, studio, 1, MASK * 0))
    show(services, studio, 2, MASK * 0)
    submit(studio, 2, [region(disc(1)[1])])
    sync(look_at(services))
    assert [told(services, task) for task in (1, 2)] == [(7, True), (7, False)]


@pytest.mark.parametrize("made", [lambda kept: kept, changed])
def test_it_stays_known_after_the_prediction_was_deleted(
    made: Callable[[list[Any]], list[Any]], services: Services, studio: MemoryStudio
) -> None:
    submit(studio, 1, made(show(services, studio, 1)))
    sync(look_at(services))
    before = told(services, 1)
    studio.predictions.clear()
    annotation = studio.items[1]["annotations"][0]
    annotation["parent_prediction"] = None
    studio.items[1]["updated_at"] = studio.now()
    services.store.forget_version(PROJECT, VERSION)
    change_database(services, "DELETE FROM published")  # what was shown is lost, too
    sync(look_at(services))
    assert label(services, 1).updated_at == studio.items[1]["updated_at"]
    assert told(services, 1) == before
    annotation["result"] = [region(disc(4)[1])]  # then it is drawn anew, under the same id
    studio.items[1]["updated_at"] = studio.now()
    sync(look_at(services))
    assert told(services, 1) == (7, False)


def test_a_deleted_label_counts_no_longer_and_one_made_anew_counts_as_it_is(
    services: Services, studio: MemoryStudio
) -> None:
    kept = show(services, studio, 1)
    submit(studio, 1, kept)
    sync(look_at(services))
    studio.items[1] |= {"annotations": [], "updated_at": studio.now()}
    sync(look_at(services))
    assert told(services, 1) == (None, None)
    assert project_state(services.settings, services.store, PROJECT).unchanged.annotators == []
    submit(studio, 1, changed(kept), user=8)
    sync(look_at(services))
    assert told(services, 1) == (8, False)


@pytest.mark.parametrize("policy", ["newest", "ground_truth", "majority"])
def test_of_several_annotators_the_one_whose_label_counts_is_told(
    policy: str, services: Services, studio: MemoryStudio
) -> None:
    kept = show(services, studio, 1)
    submit(studio, 1, kept, user=7)
    studio.items[1]["annotations"][0]["ground_truth"] = True
    submit(studio, 1, changed(kept), user=8)
    sync(look_at(services, settings={"several_annotations": policy}))
    assert told(services, 1) == ((8, False) if policy == "newest" else (7, True))


def test_whose_annotation_began_with_nothing_is_not_told_by_what_another_was_shown(
    services: Services, studio: MemoryStudio
) -> None:
    submit(studio, 1, show(services, studio, 1), user=7)
    studio.label(1, completed_by=8)
    sync(look_at(services, settings={"several_annotations": "newest"}))
    assert (label(services, 1).masked, *told(services, 1)) == (True, 8, None)


@pytest.mark.parametrize(
    "user", [None, "seven", "7", 7.5, True, [7], {"id": None}, {"id": [7]}, {}, 0, -1, 2**31, 10**30], ids=repr
)
@pytest.mark.parametrize("policy", ["newest", "majority"])
def test_an_annotator_of_another_form_is_unknown_and_the_label_counts(
    user: object, policy: str, services: Services, studio: MemoryStudio
) -> None:
    kept = show(services, studio, 1)
    submit(studio, 1, kept, user=user)
    submit(studio, 1, kept, user=user)
    show(services, studio, 2)
    submit(studio, 2, kept, user={"id": 1, "email": "one@example.org"})
    sync(look_at(services, settings={"several_annotations": policy}))
    assert [told(services, task) for task in (1, 2)] == [(None, True), (1, True)]
    known, unknown = project_state(services.settings, services.store, PROJECT).unchanged.annotators
    assert (known, unknown.title) == (Annotator(1, "one@example.org", 1, 1, 1, 1.0), "unknown")


# -- names -----------------------------------------------------------------------------------------------------------
def test_names_are_asked_for_once_and_again_when_somebody_new_labels(
    services: Services, studio: MemoryStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    known = studio.users

    def users() -> list[Any]:
        asked.append(1)
        return known()

    monkeypatch.setattr(studio, "users", users)
    studio.people = [{"id": 7, "first_name": "Ada", "last_name": "Lövelace\0", "email": "ada@example.org"}]
    sync(look_at(services))
    assert asked == []  # nobody labelled
    for task, user in ((1, 7), (2, 1), (3, 99)):  # the last was deleted in Label Studio
        studio.label(task, completed_by=user)
    sync(look_at(services))
    sync(look_at(services))
    assert len(asked) == 1
    people = project_state(services.settings, services.store, PROJECT).unchanged.annotators
    assert [one.title for one in people] == ["one@example.org", "Ada Lövelace?", "user 99"]
    studio.people.append({"id": 8, "email": "new@example.org"})
    studio.label(4, completed_by=8)
    sync(look_at(services))
    assert (len(asked), annotator_names(services.store)[8]) == (2, "new@example.org")


@pytest.mark.parametrize(
    ("failure", "calls"), [(LabelStudioRefused("no right", status=403), 1), (LabelStudioUnavailable("away"), 2)]
)
def test_labels_count_without_names(
    failure: LabelStudioError,
    calls: int,
    services: Services,
    studio: MemoryStudio,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []

    def users() -> list[Any]:
        asked.append(1)
        raise failure

    monkeypatch.setattr(studio, "users", users)
    studio.label(1, completed_by=7)
    sync(look_at(services))
    sync(look_at(services))
    assert len(asked) == calls  # who may not list users is not asked again
    (one,) = project_state(services.settings, services.store, PROJECT).unchanged.annotators
    assert (one.title, one.labels) == ("user 7", 1)


# -- labels that were read before this was known ---------------------------------------------------------------------
def of_the_rules_before(services: Services) -> None:
    """Make the labels of a project what the release before kept of them."""
    look = look_at(services)
    s = look.settings
    parts = (look.label_map.digest, s.audit_group, s.several_annotations, s.cost_measure, 3)
    digest = hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()
    services.store.update_project(PROJECT, labels_digest=digest)
    change_database(services, "UPDATE tasks SET annotator = NULL, unchanged = NULL")


def test_labels_that_are_there_get_it_at_the_next_look_and_stay_as_they_are(
    services: Services, studio: MemoryStudio
) -> None:
    submit(studio, 1, show(services, studio, 1))
    submit(studio, 2, changed(show(services, studio, 2)), user=8)
    studio.label(3, completed_by=8)
    sync(look_at(services))
    before = services.store.tasks(PROJECT)
    of_the_rules_before(services)
    studio.files.clear()  # the images are gone, which is no reason to lose a label
    sync(look_at(services))
    assert services.store.tasks(PROJECT) == before
    assert [told(services, task) for task in (1, 2, 3)] == [(7, True), (8, False), (8, None)]
    digest = project_of(services).labels_digest
    sync(look_at(services))
    assert project_of(services).labels_digest == digest


def test_where_the_prediction_is_gone_an_agreement_in_full_tells_and_else_nothing_does(
    services: Services, studio: MemoryStudio
) -> None:
    for task in (1, 2, 3):
        kept = show(services, studio, task)
        submit(studio, task, changed(kept) if task == 3 else kept)
    sync(look_at(services))
    of_the_rules_before(services)
    change_database(services, "UPDATE tasks SET agreement = 0.97 WHERE task_id = 2")  # as 0.1 measured it
    studio.predictions.clear()
    sync(look_at(services))
    assert [told(services, task) for task in (1, 2, 3)] == [(7, True), (7, None), (7, False)]


def test_a_look_that_ends_half_way_is_finished_by_the_next(services: Services, studio: MemoryStudio) -> None:
    submit(studio, 1, show(services, studio, 1))
    sync(look_at(services))
    of_the_rules_before(services)

    class Stopped(Exception):
        pass

    def stop() -> None:
        raise Stopped

    with pytest.raises(Stopped):
        sync(look_at(services, check=stop))
    assert told(services, 1) == (None, None)
    sync(look_at(services))
    assert told(services, 1) == (7, True)
