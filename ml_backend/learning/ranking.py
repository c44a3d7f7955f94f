"""Ranking: let a strategy observe the pool, batch by batch, and order it.

The map step (`observe`) sees a batch at a time, so memory does not grow with the pool beyond the strategy's own small
arrays; the reduce step (`rank`) orders them. What a strategy learns for itself (`prepare`) is kept in a file, so that
a killed ranking continues and the next round starts from it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ml_backend.annotations.boxes import Box, Query
from ml_backend.errors import ConfigurationError, shown
from ml_backend.system.chance import draw

if TYPE_CHECKING:
    from strategies import Batch, Budget, Observation, Pick, Point, Prices, Ranking, Region, Strategy

logger = logging.getLogger(__name__)

MOST_BOXES = 100
"""Boxes that a task is shown with; the next ranking asks for others. An image of 10,000 x 8,000 pixels has room for
thousands of windows of CEREALS, which neither the editor nor its user copes with."""
_KEEP_SECONDS = 30.0
"""Time between two writes of what a strategy has learned so far, while it learns."""


@dataclass(frozen=True)
class PoolRanking:
    """The order of a pool of tasks.

    Attributes:
        priorities: task id -> priority in (0, 1], higher = label sooner.
        scored: number of tasks that the strategy scored; the others come after these, in random order.
        behind: number of tasks that come after all of these, in random order, and are not among them; the first of
            them has the number `after` + 1 by chance, or a larger one.
        queries: task id -> the parts of its image that are asked for. Where there are any, a task without an entry is
            not asked for now; where there are none, all tasks are, as wholes.
        pseudo_labels: ids of tasks whose prediction may train the next version in place of a label.
        information: task id -> what the strategy measured, of the scored tasks. It says why a task is where it is;
            the order need not be that of these numbers.
        picks: task id -> what more is known of its place: the class whose turn it was, the outlines to draw.
        points: task id -> the points that are asked for, each with why.
        reason: why points or masks are asked for; empty where there was no choice.
    """

    priorities: Mapping[int, float]
    scored: int
    queries: Mapping[int, Query] = field(default_factory=dict)
    pseudo_labels: tuple[int, ...] = ()
    information: Mapping[int, float] = field(default_factory=dict)
    picks: Mapping[int, Pick] = field(default_factory=dict)
    points: Mapping[int, Sequence[Point]] = field(default_factory=dict)
    reason: str = ""
    behind: int = 0
    after: int = -1

    @classmethod
    def of(cls, ranked: Ranked | None) -> PoolRanking:
        """Return what a strategy ranked, by task id; empty where it ranked nothing."""
        if ranked is None:
            return cls({}, 0)
        ranking, pool = ranked.ranking, ranked.pool
        priorities = {int(task): float(priority) for task, priority in zip(ranking.ids, ranking.priority, strict=True)}
        queries = {int(task): _query(regions) for task, regions in ranking.regions.items()}
        points = {int(task): drawn[:MOST_BOXES] for task, drawn in ranking.points.items() if drawn}
        queries |= {task: _query_of_points(drawn) for task, drawn in points.items()}
        information = {int(task): value for task, value in zip(pool.ids, pool.information.tolist(), strict=True)}
        picks = {int(task): pick for task, pick in ranking.picks.items()}
        pseudo = tuple(map(int, ranking.pseudo_labels))
        return cls(priorities, len(priorities), queries, pseudo, information, picks, points, ranking.reason)


@dataclass(frozen=True, eq=False)
class Ranked:
    """What a strategy answers: its ranking, and the observations of the pool that it was made from."""

    ranking: Ranking
    pool: Observation


Batches = Callable[[], "Iterable[Batch]"]
"""Gives some batches, read anew by every call."""


Observations = Callable[["Strategy"], "Iterable[Observation]"]
"""Measures some images as a strategy does, a few at a time, each once; anew by every call."""


class _HasIds(Protocol):
    @property
    def ids(self) -> tuple[Any, ...]: ...


_Part = TypeVar("_Part", bound=_HasIds)


@dataclass(frozen=True)
class Pools:
    """The images of a project as a strategy is given them.

    Attributes:
        unlabelled, labelled: measured by the strategy, wherever that is done.
        unlabelled_images, labelled_images: the images alone, with their cost where it is known, for `prepare`.
        asked: image id -> boxes of it that are labelled already; nothing there is asked for again.
        known: ids of all labelled images.
    """

    unlabelled: Observations
    labelled: Observations
    unlabelled_images: Batches
    labelled_images: Batches
    asked: Mapping[int, Sequence[Box]] = field(default_factory=dict)
    known: Sequence[int] = ()


@dataclass(frozen=True)
class Preparation:
    """How a strategy may learn.

    Attributes:
        file: keeps what it has learned.
        seconds: time that it has to learn.
        progress: called with (steps done, steps in total); an exception that it raises ends the ranking.
    """

    file: Path
    seconds: float
    progress: Callable[[int, int], None]


def make_strategy(name: str, options: Mapping[str, Any]) -> Strategy:
    """Return a strategy by its registered name.

    Args:
        options: its options; `preset` stands for options that a paper gives, which the others are laid over.

    Raises:
        ConfigurationError: unknown name, option or preset; the message lists the valid ones.
    """
    from strategies import create

    try:
        return create(name, **options)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(
            f"NEXTMASK_STRATEGY = {shown(name)}, NEXTMASK_STRATEGY_OPTIONS = {shown(dict(options))}: "
            f"{str(error)[:1000]}"
        ) from error


def state_name(name: str, options: Mapping[str, Any]) -> str:
    """Return the name of the file in which a strategy with these options keeps what it has learned."""
    digest = hashlib.sha256(json.dumps(dict(options), sort_keys=True, default=str).encode()).hexdigest()[:12]
    return f"{name}-{digest}.pt"


def sample_order(task_ids: Sequence[int], seed: int) -> list[int]:
    """Return the tasks in a random order that depends on the seed and the ids only."""
    return sorted(task_ids, key=lambda task: (draw(seed, task), task))


def within_time(parts: Iterable[_Part], *, seconds: float, at_least: int) -> Iterator[_Part]:
    """Yield batches, or observations of them, until `seconds` are over, but at least `at_least` images."""
    deadline, passed = time.monotonic() + seconds, 0
    for part in parts:
        yield part
        passed += len(part.ids)
        if passed >= at_least and time.monotonic() >= deadline:
            return


def observed(batches: Batches) -> Observations:
    """Let a strategy observe batches here and now, one after the other."""
    return lambda strategy: map(strategy.observe, batches())


def rank_pool(
    strategy: Strategy,
    pools: Pools,
    *,
    budget: Budget,
    seed: int,
    round_number: int,
    progress: Callable[[int], None],
    preparation: Preparation | None = None,
    prices: Prices | None = None,
) -> Ranked | None:
    """Let a strategy learn, observe a pool and order it.

    Args:
        budget: how much is labelled before the next ranking; set-aware strategies are set-aware up to it.
        seed: of all random numbers of the strategy.
        round_number: number of rankings before this.
        progress: called with the number of images observed so far.
        preparation: how the strategy learns; None: it learns as long as it wants, and nothing is kept.
        prices: what answering took so far; None: it is not known.

    Returns:
        None where the pool is empty, or the strategy had nothing to learn from.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    _prepare(strategy, pools, generator, preparation)
    if _knows_nothing(strategy):
        logger.warning("%s had nothing to learn from: the order is left to chance", strategy.name)
        return None
    pool = _joined(pools.unlabelled(strategy), progress)
    if pool is None:
        return None
    labelled = _joined(pools.labelled(strategy), lambda _: None) if "labelled" in strategy.needs else None
    excluded = tuple(tuple(map(_region, pools.asked.get(int(image), ()))) for image in pool.ids)
    ranking = strategy.rank(
        replace(pool, excluded=excluded),
        labelled,
        budget=budget,
        round=round_number,
        known=pools.known,
        prices=prices,
        generator=generator,
    )
    return Ranked(ranking, pool)


def append_unscored(ranking: PoolRanking, rest: Sequence[int], *, behind: int = 0, after: int = -1) -> PoolRanking:
    """Put tasks that were not scored behind the scored tasks, in the order given.

    Priorities of scored tasks move to the upper half of the interval and keep their order; without other tasks they
    stay as they are.

    Args:
        behind, after: as of `PoolRanking`: how many more follow, and where they begin.
    """
    if not rest and not behind:
        return ranking
    upper = {task: 0.5 + value / 2 for task, value in ranking.priorities.items()}
    total = len(rest) + behind
    lower = {task: 0.5 * (1 - (position + 1) / (total + 1)) for position, task in enumerate(rest)}
    return replace(ranking, priorities=upper | lower, behind=behind, after=after)


def _prepare(strategy: Strategy, pools: Pools, generator: Any, preparation: Preparation | None) -> None:
    labelled, unlabelled = _Reread(pools.labelled_images), _Reread(pools.unlabelled_images)
    if preparation is None:
        strategy.prepare(labelled, unlabelled, generator=generator)
        return
    recall(strategy, preparation.file)
    kept_at = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal kept_at
        preparation.progress(done, total)
        if time.monotonic() - kept_at > _KEEP_SECONDS:
            _keep(strategy, preparation.file)
            kept_at = time.monotonic()

    deadline = time.monotonic() + preparation.seconds
    strategy.prepare(labelled, unlabelled, generator=generator, progress=progress, deadline=deadline)
    _keep(strategy, preparation.file)


def sees_predictions(strategy: Strategy) -> bool:
    """Whether a strategy needs the network's predictions or descriptors of an image."""
    return bool(strategy.needs & {"probabilities", "committee", "features"})


def _knows_nothing(strategy: Strategy) -> bool:
    """Whether a strategy that scores by what it has learned has learned nothing: no label can be read (any more)."""
    return "examples" in strategy.needs and not sees_predictions(strategy) and not strategy.state_dict()


def recall(strategy: Strategy, file: Path) -> None:
    """Load what a strategy had learned into it, unless the file is missing or damaged: then it learns anew."""
    import torch

    if not file.exists():
        return
    try:
        strategy.load_state_dict(torch.load(file, weights_only=True))
    except (pickle.UnpicklingError, OSError, EOFError, RuntimeError, ValueError, TypeError, KeyError) as error:
        logger.warning("%s cannot be used, the strategy learns anew: %s", file.name, error)


def _keep(strategy: Strategy, file: Path) -> None:
    import torch

    state = strategy.state_dict()
    if not state:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".part")
    torch.save(state, temporary)
    temporary.replace(file)


def _joined(observations: Iterable[Observation], progress: Callable[[int], None]) -> Observation | None:
    from strategies import Observation

    parts, seen = [], 0
    for part in observations:
        parts.append(part)
        seen += len(part.ids)
        progress(seen)
    return Observation.concatenate(parts) if parts else None


def _query(regions: Sequence[Region]) -> Query:
    regions = regions[:MOST_BOXES]  # the best come first
    boxes = tuple(Box(region.left, region.top, region.width, region.height) for region in regions)
    costs = [region.cost for region in regions if region.cost is not None]
    return Query(boxes, sum(costs) if costs and len(costs) == len(regions) else None)


def _query_of_points(points: Sequence[Point]) -> Query:
    return Query(tuple(Box.point(point.row, point.column) for point in points))


def _region(box: Box) -> Region:
    from strategies import Region

    return Region(top=box.top, left=box.left, height=box.height, width=box.width, score=0.0)


class _Reread:
    """Batches that can be iterated over any number of times."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._batches())
