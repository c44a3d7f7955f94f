"""Every fuzz target with a few inputs; `--fuzz-examples 20000` sends more, `run.py` looks for them by coverage."""

from __future__ import annotations

import pytest
from fuzz.seeds import seeds
from fuzz.targets import TARGETS
from fuzz.values import INPUTS
from hypothesis import HealthCheck, given, settings

FEW = 60


@pytest.mark.parametrize("target", TARGETS)
def test_seeds(target: str) -> None:
    for seed in seeds(target):
        TARGETS[target](seed)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow, about damaged files
@pytest.mark.parametrize("target", TARGETS)
def test_target(target: str, request: pytest.FixtureRequest) -> None:
    examples = request.config.getoption("--fuzz-examples") or FEW

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=examples == FEW,
        suppress_health_check=list(HealthCheck),
    )
    @given(data=INPUTS[target])
    def check(data: bytes) -> None:
        TARGETS[target](data)

    check()
