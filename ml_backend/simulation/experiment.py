"""One run of a simulation: a strategy and a seed, training and asking round after round.

Killed at any point, a run goes on where it was: what a round asks for is written down before it is trained on, and a
network follows from its labels and its seed alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ml_backend.learning.ranking import sample_order
from ml_backend.simulation.choosing import Budgeted, Choice, Chooser
from ml_backend.simulation.labels import Labels, Pick
from ml_backend.simulation.material import Material
from ml_backend.simulation.plan import Contender, Plan
from ml_backend.simulation.results import FULL, Row
from ml_backend.simulation.training.trainer import Trained, Trainer


class Experiment:
    """Makes the rows of runs, one run after the other.

    Args:
        plan: of the simulation.
        material: its data.
        folder: what killed runs go on from, and what runs share. Of these settings only.
        commit: of the code, for the rows.
    """

    def __init__(self, plan: Plan, material: Material, folder: Path, commit: str) -> None:
        self._plan, self._material, self._folder, self._commit = plan, material, folder, commit
        folder.mkdir(parents=True, exist_ok=True)
        self._trainer = Trainer(plan, material, folder)
        widths = sorted(picture.size[1] for picture in material.pool.values())
        self._width = widths[len(widths) // 2]

    def rows(self, contender: Contender, seed: int, done: int) -> Iterator[Row]:
        """Train, and yield the rows that are missing as they are measured.

        Args:
            done: how many rows of this run there are.
        """
        if contender.name == FULL:
            labels = Labels(self._material.pool, self._material.background)
            labels.add([Pick(number) for number in self._material.pool])
            if not done:
                yield self._row(contender, seed, 0, labels, self._trainer.train(labels, seed), 0.0)
            return
        yield from self._rounds(contender, seed, done)

    def _rounds(self, contender: Contender, seed: int, done: int) -> Iterator[Row]:
        file = self._folder / f"{_file_name(contender.label)}-{seed}.json"
        choices = _read(file)[: done + 1] or [Choice(self._initial(seed))]
        if not choices[-1].picks:
            return  # it ended before the last round: nothing was left to ask for
        labels = Labels(self._material.pool, self._material.background)
        for choice in choices[:-1]:
            labels.add(choice.picks)
        strategy = contender.make(self._width)
        chooser = Chooser(
            strategy,
            self._material.pool,
            self._plan.recipe,
            budget=self._budget(),
            seed=seed,
            file=file.with_suffix(".learned.pt"),
        )
        seconds = 0.0
        trained: Trained | None = None
        for number in range(len(choices) - 1, self._plan.rounds + 1):
            labels.add(choices[number].picks)
            trained = self._train(number, labels, seed, _pseudo_labels(file, number, choices[number]))
            if number >= done:
                yield self._row(contender, seed, number, labels, trained, seconds)
            if number == self._plan.rounds:
                return
            started = time.monotonic()
            committee = self._trainer.committee(strategy, trained, labels, seed)
            choice = chooser.choose(labels, trained.predictor, committee, number)
            seconds = time.monotonic() - started
            if choice.pseudo_labels:
                _keep_pseudo_labels(file, number + 1, self._trainer.masks(trained, choice.pseudo_labels))
            choices.append(choice)
            _write(file, choices)
            if not choice.picks:
                return  # nothing is left to ask for

    def _train(self, number: int, labels: Labels, seed: int, pseudo_labels: dict[int, Tensor]) -> Trained:
        if number == 0:
            return self._trainer.first(labels, seed)
        return self._trainer.train(labels, seed, pseudo_labels)

    def _initial(self, seed: int) -> tuple[Pick, ...]:
        """Draw the initial set of a seed: the same for all strategies."""
        count = self._plan.start.of(len(self._material.pool))
        return tuple(Pick(number) for number in sample_order(sorted(self._material.pool), seed)[:count])

    def _budget(self) -> Budgeted:
        pool = self._material.pool.values()
        totals = {
            "images": len(pool),
            "pixels": sum(picture.area for picture in pool),
            "clicks": sum(picture.outlines.clicks for picture in pool),
        }
        return Budgeted(self._plan.step.of(totals[self._plan.unit]), self._plan.unit)

    def _row(
        self, contender: Contender, seed: int, number: int, labels: Labels, trained: Trained, seconds: float
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
        )


def choices_of(folder: Path, contender: Contender, seed: int) -> list[Choice]:
    """Return what a run has asked for so far: first its initial set, then round by round."""
    return _read(folder / f"{_file_name(contender.label)}-{seed}.json")


def _file_name(label: str) -> str:
    return "".join(one if one.isalnum() or one in "_-." else "_" for one in label)


def _read(file: Path) -> list[Choice]:
    if not file.exists():
        return []
    values: list[Any] = json.loads(file.read_text(encoding="utf-8"))
    return [Choice(tuple(map(Pick.from_json, one["picks"])), tuple(one["pseudo_labels"])) for one in values]


def _keep_pseudo_labels(file: Path, number: int, masks: dict[int, Tensor]) -> None:
    """Keep what a round trains on beside its labels. Each has a file: a killed run may train an earlier one again."""
    temporary = file.with_suffix(".pseudo.part")
    torch.save(masks, temporary)
    temporary.replace(file.with_suffix(f".pseudo-{number}.pt"))


def _pseudo_labels(file: Path, number: int, choice: Choice) -> dict[int, Tensor]:
    if not choice.pseudo_labels:
        return {}
    masks: dict[int, Tensor] = torch.load(file.with_suffix(f".pseudo-{number}.pt"), weights_only=True)
    return masks


def _write(file: Path, choices: list[Choice]) -> None:
    values = [
        {"picks": [pick.to_json() for pick in one.picks], "pseudo_labels": list(one.pseudo_labels)} for one in choices
    ]
    temporary = file.with_suffix(".part")
    temporary.write_text(json.dumps(values), encoding="utf-8")
    temporary.replace(file)
