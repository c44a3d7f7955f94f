"""A run of a simulation: a strategy and a seed, which trains and chooses round after round.

Killed at any point, a run continues where it was: the choice of a round is written to disk before it is trained on, and
a network depends on its labels and its seed only.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ml_backend.simulation.choices import Choices
from ml_backend.simulation.choosing import Budgeted, Choice, Chooser, initial_choice
from ml_backend.simulation.labels import Labels, Pick
from ml_backend.simulation.material import Material
from ml_backend.simulation.plan import Contender, Plan
from ml_backend.simulation.results import FULL, Row
from ml_backend.simulation.training.trainer import Trained, Trainer
from strategies import Strategy


@dataclass(frozen=True)
class Rest:
    """The images without a mask: their number, and the clicks that mending their predicted masks takes."""

    images: int
    mended: int


class Experiment:
    """Makes the rows of runs, one run at a time.

    Args:
        plan: of the simulation.
        material: its data.
        folder: keeps what killed runs continue from, and what runs share; of these settings only.
        commit: of the code, for the rows.
    """

    def __init__(self, plan: Plan, material: Material, folder: Path, commit: str) -> None:
        self._plan, self._material, self._folder, self._commit = plan, material, folder, commit
        folder.mkdir(parents=True, exist_ok=True)
        self._trainer = Trainer(plan, material, folder)

    def rows(self, contender: Contender, seed: int, done: int) -> Iterator[Row]:
        """Train, and yield the rows that are missing as they are measured.

        Args:
            done: number of rows of this run that are written already.
        """
        if contender.name == FULL:
            labels = self._labels()
            labels.add([Pick(number) for number in self._material.pool])
            if not done:
                yield self._row(contender, seed, 0, labels, self._trainer.train(labels, seed), 0.0, Rest(0, 0))
            return
        yield from self._rounds(contender, seed, done)

    def _rounds(self, contender: Contender, seed: int, done: int) -> Iterator[Row]:
        file = Choices(self._folder, contender, seed)
        strategy = contender.make()
        chooser = Chooser(
            strategy,
            self._material.pool,
            self._plan.recipe,
            budget=self._budget(),
            seed=seed,
            file=file.learned,
        )
        choices = file.read()[: done + 1] or [self._initial(chooser, strategy, seed)]
        if not choices[-1].picks:
            return  # it ended before the last round: nothing was left to choose
        labels = self._labels()
        for choice in choices[:-1]:
            labels.add(choice.picks, choice.mending)
        seconds = 0.0
        trained: Trained | None = None
        for number in range(len(choices) - 1, self._plan.rounds + 1):
            labels.add(choices[number].picks, choices[number].mending)
            masks = file.masks(number) if choices[number].pseudo_labels else {}
            is_shared = number == 0 and not strategy.asks_for_points  # all others start with the same masks
            trained = self._trainer.first(labels, seed) if is_shared else self._trainer.train(labels, seed, masks)
            if number >= done:
                rest = self._rest(labels, trained) if number == self._plan.rounds else None
                yield self._row(contender, seed, number, labels, trained, seconds, rest)
            if number == self._plan.rounds:
                return
            started = time.monotonic()
            committee = self._trainer.committee(strategy, trained, labels, seed)
            choice = chooser.choose(labels, trained.predictor, committee, number)
            seconds = time.monotonic() - started
            whole = [pick.number for pick in choice.picks if pick.is_whole]
            choice = replace(choice, mending=self._trainer.mending(trained, whole))
            if choice.pseudo_labels:
                file.keep_masks(number + 1, self._trainer.masks(trained, choice.pseudo_labels))
            choices.append(choice)
            file.write(choices)
            if not choice.picks:
                return  # nothing is left to choose

    def _rest(self, labels: Labels, trained: Trained) -> Rest:
        """Return what is left to do until every image has its mask."""
        numbers = [number for number in self._material.pool if not labels.is_whole(number)]
        return Rest(len(numbers), sum(self._trainer.mending(trained, numbers).values()))

    def _labels(self) -> Labels:
        return Labels(self._material.pool, self._material.background, self._plan.tariff)

    def _initial(self, chooser: Chooser, strategy: Strategy, seed: int) -> Choice:
        """Draw the first images, the same for all strategies; those that ask for points do so of the same images."""
        whole = initial_choice(self._material.pool, self._plan.start.of(len(self._material.pool)), seed)
        if not strategy.asks_for_points:
            return whole
        return chooser.first_points([pick.number for pick in whole.picks], self._trainer.untrained(seed))

    def _budget(self) -> Budgeted:
        pool = self._material.pool.values()
        totals = {
            "images": len(pool),
            "pixels": sum(picture.area for picture in pool),
            "clicks": sum(picture.outlines.clicks for picture in pool),
        }
        return Budgeted(self._plan.step.of(totals[self._plan.unit]), self._plan.unit, self._plan.growth)

    def _row(
        self,
        contender: Contender,
        seed: int,
        number: int,
        labels: Labels,
        trained: Trained,
        seconds: float,
        rest: Rest | None,
    ) -> Row:
        return Row(
            dataset=self._material.dataset,
            strategy=contender.label,
            seed=seed,
            round=number,
            images=len(labels),
            pixels=labels.pixels,
            clicks=labels.clicks,
            miou=trained.measured.miou,
            dice=trained.measured.dice,
            object_f1=trained.measured.object_f1,
            object_dice=trained.measured.object_dice,
            seconds_train=trained.seconds,
            seconds_select=seconds,
            settings=self._plan.settings_text(),
            commit=self._commit,
            points=labels.points,
            opened=labels.opened,
            drawn=labels.drawn,
            mended=labels.mended,
            rest=rest.images if rest else None,
            rest_mended=rest.mended if rest else None,
        )
