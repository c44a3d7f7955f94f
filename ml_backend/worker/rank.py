"""rank: put the pool in order, if the model, the strategy or the pool changed."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Collection, Sequence

from ml_backend.label_studio.predictions import model_number, ranking_number, version_name
from ml_backend.learning.checkpoints import Version
from ml_backend.learning.ranking import PoolRanking
from ml_backend.projects.audit import AuditSet, audit_set
from ml_backend.projects.hidden_predictions import keep_hidden_predictions
from ml_backend.projects.questions import keep_reason
from ml_backend.projects.queued_points import points_to_text
from ml_backend.store import Behind, Task
from ml_backend.worker.audit_places import most_audits, with_audits
from ml_backend.worker.committee import ensure_committee
from ml_backend.worker.follow_up import follow_ups_of
from ml_backend.worker.images_in_part import tell_images_in_part
from ml_backend.worker.look import Look
from ml_backend.worker.pool import Waiting
from ml_backend.worker.pseudo_labels import proposal_text
from ml_backend.worker.publish import REFILL
from ml_backend.worker.score_pool import WINDOWS_ALWAYS_SCORED, PoolRanker, asks_for_points

logger = logging.getLogger(__name__)

_NEW_SHARE = 0.1
"""Share of the pool that has to be new before a large pool is ranked again for what is new in it."""


def rank(look: Look) -> None:
    """Rank the pool if there is reason to.

    Raises:
        ConfigurationError: the strategy cannot work with its options.
        TrainingError, TrainingWaits: it compares the members of a committee that cannot be had now.
    """
    model = look.checkpoints.current()
    key = _ranking_key(look, model)
    if not _needs_ranking(look, key):
        _name_serving_model(look, model)
        return
    changes = look.store.changes(look.project_id)  # first: what changes from now on is news to this ranking
    look.store.draw_tasks(look.project_id, look.settings.seed)
    done = [task for task in look.store.tasks_done(look.project_id) if task.task_id not in look.undecided]
    look.stage("ranking", 0, _waiting(look))
    answers = _answers(look)
    scored = _put_ranking(look, model, done, key, changes)
    seen = [*look.store.tasks_by_id(look.project_id, scored).values(), *done]
    tell_images_in_part(look, {task.task_id: task for task in seen}.values())
    # Afterwards: a run that is killed in between ranks once more, and none waits for a change in vain.
    look.store.set_value(_answers_key(look), answers)


def _put_ranking(look: Look, model: Version | None, done: Sequence[Task], key: str, changes: int) -> Collection[int]:
    """Rank, keep the ranking, and return the tasks whose images were looked at for it.

    Args:
        done: all tasks but unlabelled ones, and of these the ones that `Store.tasks_done` gives.
    """
    started = time.monotonic()
    labelled = [task for task in done if task.status == "labelled"]
    if model is not None:
        ensure_committee(look, model, labelled)
    number = _next_ranking_number(look)
    audit = audit_set(look.settings, look.store, look.project_id)
    measures = {group for group in {task.group_key for task in done} if audit.has(group)}
    own = [task for task in done if task.group_key not in measures]
    newest = look.store.newest_task(look.project_id)
    waiting = _waiting_tasks(look, own, newest)
    # What stream mode has still to decide about must not come up from behind.
    places = None if look.undecided else WINDOWS_ALWAYS_SCORED * look.settings.queue_window
    ranker = PoolRanker(look, model)
    ranking = ranker.rank(own, round_number=model.number - 1 if model else 0, waiting=waiting, places=places)
    ranking, behind = _with_audits(look, ranking, labelled, audit, newest)
    version = version_name(model.number if model else 0, number)
    classes = model.record.classes if model else ()
    seconds = time.monotonic() - started
    look.check()
    look.store.put_ranking(
        look.project_id,
        ranking.priorities,
        ranking.queries,
        ranking.information,
        turns={task: classes[pick.turn] for task, pick in ranking.picks.items() if pick.turn is not None},
        outlines={task: pick.outlines for task, pick in ranking.picks.items() if pick.outlines is not None},
        points={task: points_to_text(points, classes) for task, points in ranking.points.items()},
        ranking_version=version,
        ranking_number=number,
        ranking_key=key,
        ranked_changes=changes,
        ranking_seconds=seconds,
        pseudo_labels=proposal_text(look.settings, ranking.pseudo_labels),
        behind=behind,
    )
    keep_reason(look.store, look.project_id, ranking.reason)
    total, scored = len(ranking.priorities) + ranking.behind, ranking.scored
    line = "project=%s version=%s ranked=%s scored=%s seconds=%.1f"
    logger.info(line, look.project_id, version, total, scored, seconds)
    by = look.settings.strategy if model is not None else "a diverse first batch"
    why = f" {ranking.reason}" if ranking.reason else ""
    look.tell("ranked", f"{version}: {total} tasks ranked in {seconds:.0f} s, {scored} of them scored ({by}).{why}")
    return ranking.information.keys()


def _waiting_tasks(look: Look, own: Sequence[Task], newest: int) -> Waiting:
    """Return the tasks to rank that are not among those in memory."""
    without = {*look.undecided, *(task.task_id for task in own if task.status == "unlabelled")}
    count = look.store.count_sides(look.project_id).get(("unlabelled", False), 0)
    return Waiting(look.store, look.project_id, newest, max(0, count - len(without)), without)


def _with_audits(
    look: Look, ranking: PoolRanking, labelled: Sequence[Task], audit: AuditSet, newest: int
) -> tuple[PoolRanking, Behind | None]:
    """Put audit images between the others; return where the rows of the ranking end, if tasks follow behind them."""
    store, project_id = look.store, look.project_id
    limit = most_audits(len(ranking.priorities), audit.share) if ranking.behind else None
    turns = store.audits_in_turn(project_id, newest=newest, limit=limit)
    audits = [task for task in turns if task not in look.undecided]
    if not ranking.behind:
        return with_audits(ranking, audits, audit.share, labelled).ranking, None
    after = Behind(ranking.after, turns[audits[-1]] if audits else -1, newest)
    more = store.count_behind(project_id, after, audit=True, placed=())
    mixed = with_audits(ranking, audits, audit.share, labelled, more=more)
    turn = turns[audits[mixed.used - 1]] if mixed.used else -1
    return mixed.ranking, Behind(ranking.after, turn, newest, mixed.first, mixed.period)


def _name_serving_model(look: Look, model: Version | None) -> None:
    """Where nothing is left to rank, let an empty ranking name the model that serves now."""
    shown = model_number(look.project.ranking_version)
    if model is None or model.number == shown or _waiting(look):
        return
    number = _next_ranking_number(look)
    look.check()
    version = version_name(model.number, number)
    look.store.put_ranking(look.project_id, {}, ranking_version=version, ranking_number=number, ranking_key="")


# -- is there reason to? ---------------------------------------------------------------------------------------------
def _ranking_key(look: Look, model: Version | None) -> str:
    """Return a digest of all that the order, and what is shown with it, depends on besides the pool."""
    s = look.settings
    measuring = audit_set(s, look.store, look.project_id)
    audit = json.dumps([measuring.share, measuring.seed, s.audit_group, sorted(measuring.drawn)])
    points = [s.point_guesses, s.audit_points] if asks_for_points(look) else []
    if model is None:
        asked = [s.strategy, s.strategy_options, look.label_map.digest, *points] if points else []
        first = json.dumps([audit, *asked], sort_keys=True) if asked else audit
        return f"no model {hashlib.sha256(first.encode()).hexdigest()}"
    scoring = [s.pool_sample, s.committee, s.members, s.query_images, s.cost_measure]
    parts = [model.number, s.strategy, s.strategy_options, *scoring, look.label_map.digest, audit]
    shown = [s.minimum_area, s.polygon_tolerance, *points]
    return hashlib.sha256(json.dumps(parts + shown, sort_keys=True).encode()).hexdigest()


def _needs_ranking(look: Look, key: str) -> bool:
    project, waiting = look.project, _waiting(look)
    if not waiting and not look.store.has_parts(look.project_id):
        return False
    if not project.ranking_version or project.ranking_key != key:
        return True
    if _is_answered(look):
        return True
    new = _new(look, project.ranked_changes)
    window = look.settings.queue_window
    if new and (waiting <= WINDOWS_ALWAYS_SCORED * window or new >= _NEW_SHARE * waiting):
        return True
    return new > 0 and not look.store.has_ranked(look.project_id, math.ceil(REFILL * window))


def _waiting(look: Look) -> int:
    """Return the number of unlabelled tasks, without those that stream mode has still to decide about."""
    undecided = look.store.tasks_by_id(look.project_id, look.undecided).values()
    waiting = look.store.count_tasks(look.project_id).get("unlabelled", 0)
    return waiting - sum(task.status == "unlabelled" for task in undecided)


def _new(look: Look, after: int) -> int:
    """Return the number of those that could be ranked, and came after the last ranking."""
    new = look.store.count_new(look.project_id, after=after)
    return new - (look.store.count_new(look.project_id, after=after, among=look.undecided) if look.undecided else 0)


def _is_answered(look: Look) -> bool:
    """Whether regions were asked for and all of them came back: then there may be others worth asking for.

    Not when nothing came back since the last ranking, which asked in vain: the next one would ask for the same.
    """
    store, project_id = look.store, look.project_id
    if not store.asks_for_parts(project_id):
        return False
    asked = store.tasks_by_id(project_id, store.asked_tasks(project_id) - look.undecided)
    if any(not task.error for task in asked.values()):
        return False
    if follow_ups_of(look).pending(look.project.ranking_version):
        return False
    return store.value(_answers_key(look)) != _answers(look)


def _answers(look: Look) -> str:
    """Return a digest of what people have done with the tasks so far."""
    return hashlib.sha256(json.dumps(look.store.answers(look.project_id)).encode()).hexdigest()


def _answers_key(look: Look) -> str:
    return f"ranked_answers_{look.project_id}"


def _next_ranking_number(look: Look) -> int:
    """Never a number that the host has seen, even if the state here was lost: imports only ever append."""
    counts = look.client.model_versions(look.project_id)
    if hidden := keep_hidden_predictions(look.store, look.project_id, counts):
        look.tell("predictions_hidden", hidden, level="warning")
    seen = [ranking_number(version) for version in counts]
    return max([look.project.ranking_number, *seen]) + 1
