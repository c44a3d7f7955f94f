"""The audit set: which groups are drawn, that none changes sides, and what is told where that leaves nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wiring import PROJECT, make_settings

from ml_backend.doctor.project.facts import Facts
from ml_backend.doctor.project.labels import check_audit
from ml_backend.projects.audit import (
    AuditCounts,
    AuditSet,
    KeptAudit,
    audit_counts,
    audit_set,
    drawn_from,
    group_of,
    keep_audit,
)
from ml_backend.projects.audit_hints import audit_hints
from ml_backend.projects.services import Services

GROUPS = st.sets(st.text("abcdef0123456789", min_size=1, max_size=6), max_size=30)
SHARES = st.sampled_from([0.01, 0.125, 0.5, 0.9])


def inside(audit: AuditSet, groups: set[str]) -> set[str]:
    return {group for group in groups if audit.has(group)}


def test_the_share_is_drawn_at_random_and_stays() -> None:
    names = [f"/data/upload/{number}.png" for number in range(4000)]
    drawn = {name for name in names if AuditSet(0.125, 0).has(name)}
    assert 0.11 < len(drawn) / len(names) < 0.14
    assert drawn <= {name for name in names if AuditSet(0.2, 0).has(name)}  # a larger share takes none back
    assert drawn != {name for name in names if AuditSet(0.125, 1).has(name)}
    assert not any(AuditSet(0.0, 0, drawn=frozenset(names)).has(name) for name in names)
    assert not AuditSet(0.9, 0).has("")  # a task without an image


@given(GROUPS, SHARES)
def test_two_measure_at_least_and_one_is_left_to_train(groups: set[str], share: float) -> None:
    audit = drawn_from(groups, AuditSet(share, 0), trained=())
    assert len(inside(audit, groups)) >= min(2, len(groups) - 1)
    by_hash = inside(AuditSet(share, 0), groups)
    assert inside(audit, groups) >= by_hash
    if len(by_hash) >= 2:
        assert not audit.drawn
    assert drawn_from(groups, AuditSet(share, 0), trained=()) == audit  # a lost state draws the same


@given(GROUPS, GROUPS, SHARES)
def test_no_group_changes_sides_when_the_pool_grows(groups: set[str], more: set[str], share: float) -> None:
    before = drawn_from(groups, AuditSet(share, 0), trained=())
    after = drawn_from(groups | more, before, trained=())
    assert inside(before, groups) <= inside(after, groups)
    if len(inside(before, groups)) >= 2:
        assert inside(after, groups) == inside(before, groups)


@given(GROUPS, SHARES, st.data())
def test_a_group_that_trained_never_measures(groups: set[str], share: float, data: st.DataObject) -> None:
    trained = data.draw(st.sets(st.sampled_from(sorted(groups)))) if groups else set()
    audit = drawn_from(groups, AuditSet(share, 0), trained)
    assert not inside(audit, groups) & trained
    by_hash = inside(AuditSet(share, 0), groups)
    assert not inside(drawn_from(groups, audit, trained=()), groups) & trained & by_hash  # nor when its label is gone


def test_no_share_draws_nothing() -> None:
    assert drawn_from({"a", "b", "c"}, AuditSet(0.0, 0), trained=()) == AuditSet(0.0, 0)


# -- what is kept ----------------------------------------------------------------------------------------------------
COUNTS = AuditCounts(images=2, waiting=1, skipped=0, labels=1, training=3, groups=9, measuring=2)


def test_what_was_drawn_is_kept_for_the_same_groups(services: Services) -> None:
    own = services.settings.for_project({"audit_share": 0.125})
    audit = AuditSet(0.125, 0, frozenset(["a"]), frozenset(["b"]))
    assert (audit_set(own, services.store, PROJECT), audit_counts(own, services.store, PROJECT)) == (
        AuditSet(0.125, 0),
        None,
    )
    keep_audit(own, services.store, PROJECT, KeptAudit(audit, COUNTS))
    assert (audit_set(own, services.store, PROJECT), audit_counts(own, services.store, PROJECT)) == (audit, COUNTS)
    other_share = own.for_project({"audit_share": 0.5})
    assert audit_set(other_share, services.store, PROJECT) == AuditSet(0.5, 0, frozenset(["a"]), frozenset(["b"]))
    for change in ({"seed": 7}, {"audit_group": "patient"}):
        changed = own.for_project(change)
        assert audit_set(changed, services.store, PROJECT) == AuditSet(0.125, changed.seed)


@pytest.mark.parametrize(
    ("data", "group"),
    [
        ({}, "/x.png"),
        ({"patient": 7}, "7"),
        ({"patient": ""}, "/x.png"),
        ({"patient": "a\0b"}, "a?b"),
        ({"patient": ["p"]}, "['p']"),
    ],
)
def test_the_group_is_what_the_data_names_or_the_image(data: dict[str, Any], group: str, tmp_path: Any) -> None:
    assert group_of(data, "/x.png", make_settings(tmp_path, audit_group="patient")) == group


# -- what is told ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "settings", "cause", "remedy"),
    [
        ({}, {"audit_share": 0}, "no learning curve and no advice", "Set it to 0.125"),
        ({"groups": 1, "measuring": 0}, {"audit_group": "p"}, "All tasks have the same 'p'", "leave the setting empty"),
        ({"groups": 1, "measuring": 0}, {}, "All tasks show the same image", "Import others"),
        ({"groups": 3, "measuring": 3}, {"audit_group": "p"}, "All 3 groups of 'p' measure", "which is 0.125"),
        ({"groups": 3, "measuring": 0}, {}, "None of the 3 images measures", "Import images"),
        ({"labels": 3, "training": 0}, {}, "All 3 labels are of an audit image", "in the order of the queue"),
        ({"images": 2, "waiting": 0, "skipped": 2, "labels": 0}, {}, "All 2 audit images were", "Cancel the skip"),
    ],
)  # fmt: skip
def test_what_leaves_nothing_to_measure_or_train_is_said_with_the_remedy(
    changes: dict[str, int], settings: dict[str, Any], cause: str, remedy: str, tmp_path: Any
) -> None:
    counts = AuditCounts(**{**vars(COUNTS), **changes})
    (hint,) = audit_hints(counts, make_settings(tmp_path, **settings))
    assert cause in hint.cause
    assert remedy in hint.remedy


def test_where_all_is_well_nothing_is_said(tmp_path: Any) -> None:
    settings = make_settings(tmp_path)
    assert audit_hints(COUNTS, settings) == audit_hints(None, settings) == []


@pytest.mark.parametrize(
    ("share", "changes", "level", "words"),
    [
        (0.125, {}, "ok", "labels that measure: 1; audit images that wait: 1"),
        (0.125, {"groups": 2, "measuring": 2}, "warning", "so nothing trains"),
        (0.0, {}, "note", "no learning curve"),
    ],
)
def test_the_doctor_says_the_same(
    services: Services, share: float, changes: dict[str, int], level: str, words: str
) -> None:
    own = services.settings.for_project({"audit_share": share})
    counts = AuditCounts(**{**vars(COUNTS), **changes})
    keep_audit(own, services.store, PROJECT, KeptAudit(AuditSet(share, 0), counts))
    facts = Facts({"id": PROJECT}, [], [], [], {}, None, own, "")
    (found,) = check_audit(services.store, facts)
    assert (found.check, found.level, words in found.message) == ("audit images", level, True)
