"""The example package is installed, and its strategy is then everywhere where ours are; nothing here knows its name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "examples" / "own_strategy"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables of a process that has the example installed."""
    folder = tmp_path_factory.mktemp("installed")
    source = shutil.copytree(EXAMPLE, folder / "source")  # building leaves files beside the source
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *offline, "--target", str(folder / "site"), str(source)]
    subprocess.run(command, check=True, timeout=300)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder / "site"), str(ROOT)])}


def run(environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def answers(environment: dict[str, str], program: str) -> dict[str, Any]:
    """Run a program that prints a JSON object last."""
    found: dict[str, Any] = json.loads(run(environment, "-c", program).splitlines()[-1])
    return found


def test_it_is_short() -> None:
    """About 40 lines, the docstring of the module not counted."""
    _, _, code = (EXAMPLE / "nextmask_tsallis.py").read_text().split('"""', 2)
    assert len([line for line in code.splitlines() if line.strip()]) <= 40


def test_its_name_is_known_before_its_module_is_imported(environment: dict[str, str]) -> None:
    found = answers(
        environment,
        """
import json, sys, strategies
names = strategies.available()
print(json.dumps({"names": names, "imported": sorted({"torch", "nextmask_tsallis"} & sys.modules.keys())}))
""",
    )
    assert "tsallis" in found["names"]
    assert found["names"] == sorted(found["names"])
    assert found["imported"] == []


def test_it_is_taken_by_settings_dashboard_ranking_and_simulation(environment: dict[str, str]) -> None:
    found = answers(
        environment,
        """
import json, logging
import torch
from ml_backend.datasets import sample_dataset
from ml_backend.errors import ConfigurationError
from ml_backend.learning.ranking import PoolRanking, Pools, make_strategy, observed, rank_pool
from ml_backend.settings import load_settings
from ml_backend.simulation.checks import check
from ml_backend.simulation.plan import Contender
from ml_backend.simulation.presets import plan_of
from strategies import Batch, Budget
from strategies.catalogue import described, importable

settings = load_settings(strategy="tsallis", strategy_options={"q": 3})
strategy = make_strategy(settings.strategy, settings.strategy_options)
try:
    make_strategy("tsallis", {"p": 3})
except ConfigurationError as error:
    refusal = str(error)
sure, unsure = torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.5])
probabilities = torch.stack([sure, unsure])[None, :, :, None, None]
batches = lambda: [Batch(ids=(1, 2), images=torch.zeros(2, 3, 1, 1), probabilities=probabilities)]
pools = Pools(observed(batches), observed(list), list, list)
ranked = rank_pool(strategy, pools, budget=Budget(images=1), seed=0, round_number=0, progress=lambda _: None)
ranking = PoolRanking.of(ranked)
plan = plan_of("quick", {"strategies": (Contender.parse('tsallis:{"q": 3}'),), "device": "cpu"}, {})
check(plan, sample_dataset())
print(json.dumps({
    "committee": settings.effective_committee,
    "refusal": refusal,
    "words": described("tsallis").words.order,
    "package": described("tsallis").package,
    "order": sorted(ranking.priorities, key=ranking.priorities.get, reverse=True),
    "all": "tsallis" in importable(),
}))
""",
    )
    assert found == {
        "committee": "mc_dropout",
        "refusal": found["refusal"],
        "words": "images on which the likely classes are closest to each other",
        "package": "nextmask-tsallis 1.0",
        "order": [2, 1],
        "all": True,
    }
    assert "unknown option 'p' of strategy 'tsallis'; valid: q" in found["refusal"]


def test_it_passes_the_contract(environment: dict[str, str]) -> None:
    module = Path(environment["PYTHONPATH"].split(os.pathsep)[0]) / "nextmask_tsallis.py"
    output = run(
        {**environment, "OMP_NUM_THREADS": "1"},
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "tsallis"),
        *("tests/strategies/test_contract.py", str(module)),
    )
    passed = int(output.rpartition(" passed")[0].split()[-1])
    assert passed > 30
    assert "failed" not in output
    assert "skipped" not in output
