"""The example notebook runs from top to bottom, and shows what it showed when it was stored."""

from __future__ import annotations

import ast
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[3]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
ALLOWED = {"matplotlib", "numpy", "strategies", "torch"}


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(cell: NotebookNode) -> list[tuple[str, tuple[str, ...]]]:
    """Return of what kind a cell's outputs are; numbers and pixels may differ between machines."""
    return [(output.output_type, tuple(sorted(output.get("data", {})))) for output in cell.outputs]


def imported(cell: NotebookNode) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(cell.source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return {name.partition(".")[0] for name in names}


def read(path: Path) -> NotebookNode:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def test_there_is_an_example() -> None:
    assert [path.name for path in NOTEBOOKS] == ["strategies.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_the_example_imports_nothing_of_the_backend(path: Path) -> None:
    assert set().union(*map(imported, code_cells(read(path)))) == ALLOWED


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_the_example_runs_and_was_stored_after_a_whole_run(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    stored, run = read(path), read(path)
    for cell in code_cells(run):
        cell.outputs, cell.execution_count = [], None
    NotebookClient(run, timeout=600, kernel_name="python3", resources={"metadata": {"path": path.parent}}).execute()
    assert [cell.execution_count for cell in code_cells(stored)] == list(range(1, len(code_cells(stored)) + 1))
    assert list(map(kinds, code_cells(stored))) == list(map(kinds, code_cells(run)))
    assert all(output.output_type != "error" for cell in code_cells(stored) for output in cell.outputs)
