"""Rows as a simulation writes them, drawn from known curves: what a strategy is worth is put in, not learned."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np

from ml_backend.simulation.results import FULL, Row

TOTALS = {"images": 400, "pixels": 40_000_000, "clicks": 60_000.0}
SETTINGS = json.dumps({"network": "unet", "iterations": 1500, "rounds": 6, "per_round": 16})


def row(strategy: str, seed: int, round_: int, miou: float, **changes: object) -> Row:
    """One row with 10 more images, 1000 more pixels and 100 more clicks in each round, where not said otherwise."""
    values: dict[str, object] = {
        "dataset": "glas",
        "strategy": strategy,
        "seed": seed,
        "round": round_,
        "images": 10 * (round_ + 1),
        "pixels": 1000 * (round_ + 1),
        "clicks": 100.0 * (round_ + 1),
        "miou": miou,
        "dice": miou,
        "object_f1": None,
        "object_dice": None,
        "seconds_train": 30.0,
        "seconds_select": 2.0 if round_ else 0.0,
        "settings": SETTINGS,
        "commit": "0123abc",
        **changes,
    }
    return Row(**values)  # type: ignore[arg-type]


def simulated(
    effects: Mapping[str, float],
    *,
    dataset: str = "glas",
    seeds: Sequence[int] = range(5),
    rounds: int = 6,
    noise: float = 0.006,
    full: bool = True,
    draw: int = 0,
) -> list[Row]:
    """Draw curves that rise towards 0.8.

    Args:
        effects: for each strategy how many times faster than random it learns, as a natural logarithm.
        noise: standard deviation of a measured mIoU; each seed has a common one of the same size, from its images.
    """
    random = np.random.default_rng([draw, len(effects)])
    rows = []
    for seed in seeds:
        start = random.normal(0, noise)
        for strategy, effect in effects.items():
            for number in range(rounds):
                images = 16 + 16 * number
                clicks = images * 150 * (1 + 0.1 * random.uniform())
                learned = 1 - np.exp(-(16 + (images - 16) * np.exp(effect)) / 45)
                miou = 0.35 + 0.45 * learned + start + random.normal(0, noise)
                rows.append(
                    row(
                        strategy,
                        seed,
                        number,
                        float(miou),
                        dataset=dataset,
                        images=images,
                        pixels=images * 100_000,
                        clicks=float(clicks),
                        seconds_select=0.0 if number == 0 else 1.5,
                    )
                )
        if full:
            rows.append(row(FULL, seed, 0, 0.8 + start + random.normal(0, noise), dataset=dataset, **TOTALS))
    return rows
