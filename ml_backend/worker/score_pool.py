"""Puts a project's pool in order: by the strategy once there is a model, as a diverse first batch before."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_backend.annotations.boxes import Box
from ml_backend.learning.checkpoints import Version
from ml_backend.learning.ranking import (
    Observations,
    PoolRanking,
    Pools,
    Preparation,
    make_strategy,
    observed,
    rank_pool,
    recall,
    sees_predictions,
    state_name,
    within_time,
)
from ml_backend.projects.candidates import Candidate, candidates
from ml_backend.projects.folders import project_key
from ml_backend.projects.questions import prices_of
from ml_backend.store import Task
from ml_backend.worker.look import Look
from ml_backend.worker.pool import Pool, Waiting
from ml_backend.worker.ray_scorer import RayScorer
from ml_backend.worker.scorers import LocalScorer, PoolImages, PoolScorer
from strategies import catalogue

if TYPE_CHECKING:
    from strategies import Batch, Budget, Observation, Strategy

logger = logging.getLogger(__name__)

WINDOWS_ALWAYS_SCORED = 10
"""A pool of up to so many windows is scored whole, however long it takes."""
COLD_START_SECONDS = 60.0
"""Before the first labels annotators wait for a diverse first batch no longer than this."""


@dataclass(frozen=True)
class Observer:
    """How arrivals are measured.

    Attributes:
        observe: yields observations of batches, in any order; tasks whose image cannot be had are left out.
        bounds: number of arrivals -> (most, least) to measure now, and seconds after which it ends once the least is
            done.
    """

    observe: Callable[[Sequence[Candidate]], Iterator[Observation]]
    bounds: Callable[[int], tuple[int, int, float]]


class PoolRanker:
    """Ranks one project's pool with one model version.

    Args:
        model: the version that predicts; None before the first training.
    """

    def __init__(self, look: Look, model: Version | None) -> None:
        self._look, self._model, self._label_map = look, model, look.label_map
        self._settings, self._images = look.settings, PoolImages(look)

    def rank(
        self, tasks: Sequence[Task], *, round_number: int, waiting: Waiting | None = None, places: int | None = None
    ) -> PoolRanking:
        """Order the pool: scored tasks first, best first, then those that there was no time to score.

        Tasks whose image cannot be had are left out, and their error says why.

        Args:
            tasks: those of the project that train, or will, of any status: of audit images a strategy sees nothing.
            round_number: how many rounds were ranked before.
            waiting: further tasks, of images that nobody has labelled; they are read as far as they are scored.
            places: how many tasks to put in order at least, where there are so many; others follow behind the ranking.
                None: all.
        """
        if self._model is None:
            return self._cold_start(tasks, waiting, places)
        strategy = self._strategy()
        in_parts = self._asks_for_parts(strategy)
        pool = Pool(candidates(tasks, in_parts=in_parts), waiting, self._settings.seed)
        limit, at_least, seconds = self._sample_bounds(len(pool))
        sample = pool.first(limit)
        labelled = [Candidate(task, (task,)) for task in tasks if task.status == "labelled" and task.mask_file]
        pools = self._pools(strategy, sample, labelled)
        unlabelled, seen = _watched(pools.unlabelled, seconds=seconds, at_least=at_least)
        with self._look.files.working_copy(self._state_key()) as file:
            ranked = rank_pool(
                strategy,
                replace(pools, unlabelled=unlabelled),
                budget=self._budget(strategy, in_parts=in_parts),
                seed=self._settings.seed + round_number,
                round_number=round_number,
                progress=lambda done: self._look.stage("ranking", done, limit),
                preparation=self._preparation(file),
                prices=prices_of(tasks, self._settings),
            )
        ranking = _wanted(PoolRanking.of(ranked), pool, in_parts=in_parts)
        return pool.with_rest(ranking, seen | self._images.failed, places)

    def observer(self) -> Observer | None:
        """Return how arriving tasks are measured: as the strategy observes a pool, with the current model.

        None where the strategy sees nothing without what it learns at its first ranking.
        """
        strategy = self._strategy(can_show=False)  # what arrives is measured, and asked for later
        predicted = sees_predictions(strategy)
        if "examples" in strategy.needs:
            with self._look.files.working_copy(self._state_key()) as file:
                recall(strategy, file)
            if not predicted and not strategy.state_dict():
                return None
        scorer = LocalScorer(self._look, self._images, self._model, strategy.needs)
        return Observer(partial(scorer.observe, strategy), self._sample_bounds)

    def _strategy(self, *, can_show: bool = True) -> Strategy:
        """Make the project's strategy; one that has a choice asks for no points where they cannot be shown."""
        return make_strategy(self._settings.strategy, self._strategy_options(can_show=can_show))

    def _strategy_options(self, *, can_show: bool = True) -> dict[str, Any]:
        s = self._settings
        can_show = can_show and self._label_map.points_control is not None
        instead = {} if can_show else catalogue.described(s.strategy).without_points
        return {**s.strategy_options, **instead}

    def _asks_for_parts(self, strategy: Strategy) -> bool:
        """Whether parts of images are asked for: regions or points, which the labelling configuration can show."""
        if strategy.asks_for_points:
            return self._label_map.points_control is not None
        return strategy.asks_for_regions and self._label_map.query_control is not None

    # -- before the first labels --------------------------------------------------------------------------------------
    def _cold_start(self, tasks: Sequence[Task], waiting: Waiting | None, places: int | None) -> PoolRanking:
        """Choose a diverse first batch: k-centre on what the pretrained encoder makes of the images.

        A strategy that asks for points asks for the first ones itself, by what the encoder makes of places in them.
        """
        pool = Pool(candidates(tasks, in_parts=False), waiting, self._settings.seed)
        nothing, by_points = PoolRanking({}, 0), asks_for_points(self._look)
        if not by_points and (self._settings.encoder_weights == "none" or len(pool) < 2):
            # an encoder that never saw an image tells nothing of likeness
            return pool.with_rest(nothing, set(), places)
        from ml_backend.learning.prediction.predictors import fresh_predictor
        from strategies import Budget

        s = self._settings
        strategy = self._strategy() if by_points else make_strategy("coreset", {})
        predictor = fresh_predictor(s, self._label_map.classes, self._look.device)

        def batches() -> Iterator[Batch]:
            items = self._images.items(pool)
            if by_points:
                return predictor.places(items, batch_size=s.effective_batch_size)
            return predictor.batches(items, features=True, batch_size=s.effective_batch_size)

        unlabelled, seen = _watched(observed(batches), seconds=COLD_START_SECONDS, at_least=0)
        ranked = rank_pool(
            strategy,
            Pools(
                unlabelled,
                observed(lambda: ()),
                lambda: (),
                lambda: (),
                asked=_asked_of(pool.own, strategy),
            ),
            budget=Budget(images=s.queue_window),
            seed=s.seed,
            round_number=0,
            progress=lambda done: self._look.stage("ranking", done, len(pool)),
            prices=prices_of(tasks, s),
        )
        return pool.with_rest(PoolRanking.of(ranked), seen | self._images.failed, places)

    # -- what the strategy is given -----------------------------------------------------------------------------------
    def _pools(self, strategy: Strategy, sample: Pool, labelled: Sequence[Candidate]) -> Pools:
        scorer: PoolScorer
        if self._settings.ray_address:
            scorer = RayScorer(self._look, self._images, self._model, strategy.needs, self._strategy_options())
        else:
            scorer = LocalScorer(self._look, self._images, self._model, strategy.needs)
        return Pools(
            unlabelled=lambda strategy: scorer.observe(strategy, sample),
            labelled=lambda strategy: scorer.observe(strategy, labelled),
            unlabelled_images=lambda: self._images.batches(sample),
            labelled_images=lambda: self._images.batches(labelled),
            asked=_asked_of(sample.own, strategy),
            known=[candidate.task.task_id for candidate in labelled],
        )

    def _budget(self, strategy: Strategy, *, in_parts: bool) -> Budget:
        """Return what to plan for: what is labelled before the next ranking, or all that the queue shows."""
        from strategies import Budget

        s = self._settings
        if in_parts and strategy.asks_for_regions and s.query_images:
            return Budget(images=s.query_images)
        return Budget(images=s.train_after if strategy.plans_one_round else s.queue_window)

    def _preparation(self, file: Path) -> Preparation:
        s = self._settings

        def progress(done: int, total: int) -> None:
            self._look.stage("preparing", done, total)
            self._look.attend()

        return Preparation(file, s.prepare_minutes * 60, progress)

    def _state_key(self) -> str:
        s = self._settings
        options = {**s.strategy_options, "cost_measure": s.cost_measure}  # what was learned in clicks is no seconds
        return f"{project_key(self._look.project_id)}/strategy/{state_name(s.strategy, options)}"

    def _sample_bounds(self, size: int) -> tuple[int, int, float]:
        """Return (most, least) images to score, and the seconds after which scoring ends once the least is done."""
        if self._settings.pool_sample:
            most = min(size, self._settings.pool_sample)
            return most, most, 0.0
        least = min(size, WINDOWS_ALWAYS_SCORED * self._settings.queue_window)
        trained = self._model.record.measures.get("seconds", 0.0) if self._model else 0.0
        return size, least, float(trained)


def asks_for_points(look: Look) -> bool:
    """Whether the project's strategy asks for points, and its labelling configuration can show them."""
    return catalogue.described(look.settings.strategy).asks_for_points and look.label_map.points_control is not None


def _watched(unlimited: Observations, *, seconds: float, at_least: int) -> tuple[Observations, set[int]]:
    """Limit the time that measuring takes; the set receives the ids of the images as they are measured."""
    seen: set[int] = set()

    def measured(strategy: Strategy) -> Iterator[Observation]:
        for part in within_time(unlimited(strategy), seconds=seconds, at_least=at_least):
            seen.update(int(task_id) for task_id in part.ids)
            yield part

    return measured, seen


def _asked_of(of: Iterable[Candidate], strategy: Strategy) -> dict[int, tuple[Box, ...]]:
    return {candidate.task.task_id: _asked(candidate, strategy) for candidate in of if candidate.parts}


def _asked(candidate: Candidate, strategy: Strategy) -> tuple[Box, ...]:
    """Return what was asked of an image; a region with answered points in it may still be asked for."""
    return tuple(box for box in candidate.asked if not (box.is_point and strategy.asks_for_regions))


def _wanted(ranking: PoolRanking, pool: Pool, *, in_parts: bool) -> PoolRanking:
    """Leave out labelled images of which nothing more is asked for, and boxes that could not be shown."""
    queries: Mapping[int, object] = ranking.queries if in_parts else {}
    labelled = {candidate.task.task_id for candidate in pool.own if candidate.task.status != "unlabelled"}
    stay = {task: value for task, value in ranking.priorities.items() if task not in labelled or task in queries}
    shown = {task: query for task, query in ranking.queries.items() if task in stay} if in_parts else {}
    return replace(ranking, priorities=stay, scored=len(stay), queries=shown)
