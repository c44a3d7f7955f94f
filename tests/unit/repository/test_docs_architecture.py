"""docs/architecture.md names what is there: packages, layers, paths and functions."""

from __future__ import annotations

import ast
import configparser
import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "architecture.md"
PRODUCT = ROOT / "ml_backend"
LINK = re.compile(r"\[`?([^`\]]+)`?\]\(([^)\s]+)\)")


def text() -> str:
    return PAGE.read_text()


def block(language: str) -> list[str]:
    found = re.search(rf"^```{language}\n(.*?)^```$", text(), flags=re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1].splitlines()


def is_package(folder: Path) -> bool:
    return (folder / "__init__.py").exists()


# -- the drawing -----------------------------------------------------------------------------------------------------
def drawn(arrow: str) -> list[list[list[str]]]:
    """Return the lines of the drawing with an arrow: for each, the groups of packages that it joins."""
    lines = [line.strip() for line in block("mermaid") if f" {arrow} " in line]
    return [[group.split(" & ") for group in line.split(f" {arrow} ")] for line in lines]


def layers() -> list[set[str]]:
    """Return the packages that may import each other downwards only, as the import rules list them."""
    rules = configparser.ConfigParser()
    rules.read(ROOT / "setup.cfg")
    lines = rules["importlinter:contract:packages"]["layers"].split("\n")
    return [set(line.split(" | ")) for line in lines if line]


@cache
def imported(package: str) -> set[str]:
    """Return the packages that a package of ml_backend imports, others of ml_backend without that prefix."""
    folder = PRODUCT / package
    files = list(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    modules = set[str]()
    for node in (node for file in files for node in ast.walk(ast.parse(file.read_text()))):
        if isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
        elif isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
    return {module.removeprefix("ml_backend.").partition(".")[0] for module in modules}


def test_the_rows_of_the_drawing_are_the_layers_of_the_import_rules() -> None:
    joined = drawn("~~~")
    assert [[set(one), set(other)] for one, other in joined] == list(map(list, pairwise(layers())))


def test_every_arrow_of_the_drawing_is_an_import() -> None:
    arrows = [
        (one, other) for line in drawn("-->") for ones, others in pairwise(line) for one in ones for other in others
    ]
    assert len(arrows) > 10
    assert [(one, other) for one, other in arrows if other not in imported(one)] == []


# -- the tree --------------------------------------------------------------------------------------------------------
def tree() -> Iterator[Path]:
    """Yield the files and folders of the tree."""
    above: list[Path] = []
    for line in block("text"):
        depth, name = (len(line) - len(line.lstrip())) // 2, line.split()[0]
        above = [*above[:depth], (above[depth - 1] if depth else ROOT) / name]
        yield above[-1]


def test_the_tree_has_every_package_and_module_at_the_top_and_nothing_that_is_not_there() -> None:
    named = list(tree())
    assert [path for path in named if not path.exists()] == []
    there = {path for path in PRODUCT.iterdir() if is_package(path) or path.suffix == ".py"}
    assert {path for path in named if path.parent == PRODUCT} == there - {PRODUCT / "__init__.py"}
    assert PRODUCT in named
    assert ROOT / "strategies" in named


def test_the_tree_has_the_packages_inside_packages() -> None:
    inner = {path for package in PRODUCT.iterdir() if package.is_dir() for path in package.iterdir() if path.is_dir()}
    small = {PRODUCT / "store" / "migrations"}  # written by a tool, and named in the package's line
    assert {path for path in tree() if path.parent.parent == PRODUCT} == {*filter(is_package, inner)} - small


# -- paths and names -------------------------------------------------------------------------------------------------
def places(passage: str) -> list[tuple[str, Path]]:
    """Return the links of a passage to files here: what they are called, and where they lead."""
    return [(name, (PAGE.parent / target.partition("#")[0]).resolve()) for name, target in LINK.findall(passage)]


def passages() -> list[str]:
    """Return the steps of the two ways and the questions, each with its paths."""
    steps = re.findall(r"^\d+\. .*?(?=^\d+\. |^$)", text(), flags=re.MULTILINE | re.DOTALL)
    return steps + questions()


def questions() -> list[str]:
    rows = re.findall(r"^\| .*\|$", text().partition("## Where do I change")[2], flags=re.MULTILINE)
    return rows[1:]


def defined(file: Path) -> set[str]:
    """Return the names of a module, of the modules of a package, and of their classes."""
    files = file.glob("*.py") if file.is_dir() else [file] if file.suffix == ".py" else []
    names = set[str]()
    for node in (node for one in files for node in ast.walk(ast.parse(one.read_text()))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


def test_a_link_is_called_by_the_path_that_it_leads_to() -> None:
    paths = [(name, place) for name, place in places(text()) if "/" in name or name.endswith(".py")]
    assert len(paths) > 40
    for name, place in paths:
        assert place.exists(), name
        shown = place.parent if place.name == "__init__.py" and name.endswith("/") else place
        assert str(shown.relative_to(ROOT)).endswith(name.rstrip("/")), name


def test_every_path_in_the_text_is_that_of_a_link() -> None:
    linked = {name for name, _ in places(text())}
    spans = set(
        re.findall(r"`([^`\n]+(?:/|\.py))`", re.sub(r"^```.*?^```$", "", text(), flags=re.MULTILINE | re.DOTALL))
    )
    assert spans <= linked


@pytest.mark.parametrize("passage", passages(), ids=lambda passage: " ".join(re.findall(r"\w+", passage)[:6]))
def test_every_name_of_a_passage_is_defined_where_it_leads(passage: str) -> None:
    names = set(re.findall(r"`([A-Za-z_]+)`", passage)) - {"MODEL_DIR"}
    known = {name for _, place in places(passage) for name in defined(place)}
    assert names <= known


def test_there_are_ten_steps_each_way_and_fifteen_questions() -> None:
    ways = re.findall(r"^## The way of .*?(?=^## )", text(), flags=re.MULTILINE | re.DOTALL)
    assert [re.findall(r"^(\d+)\. ", way, flags=re.MULTILINE) for way in ways] == [list(map(str, range(1, 11)))] * 2
    assert len(questions()) >= 15
    assert [row for row in questions() if not places(row)] == []
