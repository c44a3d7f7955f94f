"""Every benchmark can be imported: a name that has moved is seen before somebody wants to measure."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[3] / "benchmarks"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py"))
EXTRAS = {"gevent": "load_users", "skimage": "superpixels"}
"""What only a benchmark needs -> the benchmark."""


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_benchmark_can_be_imported(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    before = set(sys.modules)
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if EXTRAS.get(package) != name:
            raise
        pytest.skip(f"{package} is not installed")
    finally:
        for module in (set(sys.modules) - before) & set(SCRIPTS):
            del sys.modules[module]
