"""The documentation says what the code does: settings, commands, messages, links."""

from __future__ import annotations

import ast
import pkgutil
import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from ml_backend.cli.app import app
from strategies.catalogue import ENTRIES

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*/*.md")])
COMMANDS = typer.main.get_group(app)


def page(name: str) -> str:
    return (ROOT / name).read_text()


# -- settings --------------------------------------------------------------------------------------------------------
def test_the_tables_of_settings_are_those_of_the_code() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "make_configuration_docs.py"))
    written = page("docs/configuration.md")
    assert script["updated"](written) == written, "run: python scripts/make_configuration_docs.py"


def test_the_page_for_annotators_is_that_of_the_docs() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "make_annotating_page.py"))
    made = script["page"](script["SOURCE"].read_text(encoding="utf-8"))
    assert script["TARGET"].read_text(encoding="utf-8") == made, "run: python scripts/make_annotating_page.py"


def test_the_readme_names_every_strategy() -> None:
    rows = [line.split("|")[1] for line in page("README.md").splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == {entry.name for entry in ENTRIES}


def test_every_setting_that_the_pages_name_exists() -> None:
    known = set(re.findall(r"^\| `([A-Z_]+)` \|", page("docs/configuration.md"), flags=re.MULTILINE))
    for path in PAGES:
        named = set(re.findall(r"\bNEXTMASK_[A-Z_]*[A-Z]\b", path.read_text()))
        assert named <= known, path.name


# -- commands --------------------------------------------------------------------------------------------------------
def sections_of_commands() -> dict[str, str]:
    parts = re.split(r"^## nextmask ", page("docs/commands.md"), flags=re.MULTILINE)[1:]
    return {part.partition("\n")[0].strip(): part for part in parts}


def test_every_command_is_documented_and_no_other() -> None:
    assert sections_of_commands().keys() == COMMANDS.commands.keys()


@pytest.mark.parametrize("name", COMMANDS.commands)
def test_every_option_of_a_command_is_documented(name: str) -> None:
    section = sections_of_commands()[name]
    for parameter in COMMANDS.commands[name].params:
        if parameter.param_type_name == "option" and not getattr(parameter, "hidden", False):
            for flag in [*parameter.opts, *parameter.secondary_opts]:
                assert re.search(rf"{flag}\b", section), f"{flag} of {name}"
        elif parameter.param_type_name == "argument":
            example = {"simulate": "sample", "backup": "/backups/", "restore": "/backups/"}.get(name, 7)
            assert f"nextmask {name} {example}" in section


def flags_of(name: str) -> set[str]:
    return {
        flag for parameter in COMMANDS.commands[name].params for flag in [*parameter.opts, *parameter.secondary_opts]
    }


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_pages_use_only_commands_and_options_that_exist(path: Path) -> None:
    for block in re.findall(r"^```bash\n(.*?)^```", path.read_text(), flags=re.MULTILINE | re.DOTALL):
        for name, rest in re.findall(r"^(?:.* exec nextmask )?nextmask ([a-z]+)([^\n#&]*)", block, flags=re.MULTILINE):
            assert name in COMMANDS.commands
            assert set(re.findall(r"--[a-z-]+", rest)) <= flags_of(name), f"nextmask {name}{rest}"


# -- messages --------------------------------------------------------------------------------------------------------
def strings_of_the_code() -> Iterator[str]:
    """Yield every string; where an f-string fills something in, there is a "…"."""
    for path in (ROOT / "ml_backend").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                yield "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_messages_are_quoted_as_the_code_says_them() -> None:
    code = list(strings_of_the_code())
    messages = re.findall(r"^> (.+)$", page("docs/troubleshooting.md"), flags=re.MULTILINE)
    assert len(messages) > 20
    for message in messages:
        pattern = re.compile(".*".join(map(re.escape, message.removesuffix("….").split("…"))), re.DOTALL)
        assert any(pattern.search(string) for string in code), message


# -- links -----------------------------------------------------------------------------------------------------------
def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", path.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_relative_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if not link.startswith(("http://", "https://")):
            target, _, anchor = link.partition("#")
            file = (path.parent / target).resolve() if target else path
            assert file.exists(), link
            assert not anchor or anchor in anchors(file), link


# -- paths and names -------------------------------------------------------------------------------------------------
FOLDERS = "benchmarks|docker|docs|examples|ml_backend|requirements|scripts|strategies|tests"
MADE_BY_USERS = {"docker/.env", "docker/nextmask.env", "docker/secrets", "docker/secrets/BASIC_AUTH_PASS"}
OF_TODAY = [path for path in PAGES if path.name != "CHANGELOG.md"]
"""Pages that name nothing that is gone."""


@pytest.mark.parametrize("path", OF_TODAY, ids=lambda path: path.name)
def test_files_and_folders_that_the_pages_name_exist(path: Path) -> None:
    named = re.findall(rf"(?<![\w/.-])((?:{FOLDERS})/[\w./-]*)(?![\w<])", path.read_text())
    named = [name.rstrip(".") for name in named if not name.endswith("_")]  # test_<name>.py
    assert {name for name in named if not (ROOT / name).exists()} <= MADE_BY_USERS


@pytest.mark.parametrize("path", OF_TODAY, ids=lambda path: path.name)
def test_modules_and_names_in_them_that_the_pages_name_exist(path: Path) -> None:
    for name in re.findall(r"`((?:ml_backend|strategies)(?:\.[A-Za-z]\w*)+)(?:\(|`)", path.read_text()):
        if not name.endswith((".md", ".ipynb")):
            pkgutil.resolve_name(name)
