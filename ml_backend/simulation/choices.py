"""The file of a run's choices: written before they are trained on, so that a killed run continues from it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ml_backend.simulation.choosing import Choice
from ml_backend.simulation.labels import Pick
from ml_backend.simulation.plan import Contender


class Choices:
    """What a run has chosen so far, on disk: its initial set, then round by round.

    Args:
        folder: of the simulation's settings; see `processes.work_folder`.
        contender: the strategy of the run.
        seed: of the run.

    Attributes:
        learned: file in which the strategy keeps what it learns from round to round.
    """

    def __init__(self, folder: Path, contender: Contender, seed: int) -> None:
        name = "".join(letter if letter.isalnum() or letter in "_-." else "_" for letter in contender.label)
        self._file = folder / f"{name}-{seed}.json"
        self.learned = self._file.with_suffix(".learned.pt")

    def read(self) -> list[Choice]:
        """Return the choices; none before the first is written."""
        if not self._file.exists():
            return []
        values: list[Any] = json.loads(self._file.read_text(encoding="utf-8"))
        return [_choice(value) for value in values]

    def write(self, choices: Sequence[Choice]) -> None:
        """Replace the choices; a reader sees the old or the new."""
        values = [
            {
                "picks": [pick.to_json() for pick in choice.picks],
                "pseudo_labels": list(choice.pseudo_labels),
                "mending": [*choice.mending.items()],
            }
            for choice in choices
        ]
        temporary = self._file.with_suffix(".part")
        temporary.write_text(json.dumps(values), encoding="utf-8")
        temporary.replace(self._file)

    def keep_masks(self, number: int, masks: dict[int, Tensor]) -> None:
        """Keep the pseudo-labels of a round, each round in its own file: a killed run may train an earlier round again.

        Args:
            number: of the round.
            masks: picture number -> predicted mask (h,w) uint8.
        """
        temporary = self._file.with_suffix(".pseudo.part")
        torch.save(masks, temporary)
        temporary.replace(self._masks_file(number))

    def masks(self, number: int) -> dict[int, Tensor]:
        """Return the pseudo-labels that were kept for a round.

        Raises:
            OSError: none were kept.
        """
        masks: dict[int, Tensor] = torch.load(self._masks_file(number), weights_only=True)
        return masks

    def _masks_file(self, number: int) -> Path:
        return self._file.with_suffix(f".pseudo-{number}.pt")


def _choice(value: Mapping[str, Any]) -> Choice:
    """Read a choice; files of earlier releases say nothing of mending."""
    picks, mending = tuple(map(Pick.from_json, value["picks"])), dict(value.get("mending", ()))
    return Choice(picks, tuple(value["pseudo_labels"]), mending)
