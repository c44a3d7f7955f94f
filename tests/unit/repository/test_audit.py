"""make audit: what it finds, what docs/dependencies.md explains, and that the explanations are true."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "dependencies.md").read_text()


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", ROOT / "scripts" / "audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def answer(name: str, *ids: str) -> dict[str, Any]:
    found = [{"id": ids[0], "aliases": list(ids[1:]), "fix_versions": ["9.9"]}] if ids else []
    skipped = {"name": "left-out", "skip_reason": "not found"}
    return {"dependencies": [{"name": name, "version": "1.0", "vulns": found}, skipped]}


def test_advisories_that_nobody_explained_are_problems(audit: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    known = audit.explained(PAGE, "advisory")
    assert len(known) > 10
    assert audit.unexplained(answer("flask"), known) == []
    assert "not looked up: left-out" in capsys.readouterr().out
    assert audit.unexplained(answer("flask", "PYSEC-2023-62", "CVE-2023-30861", "GHSA-m2qf-hxjv-5gpq"), known) == []
    (problem,) = audit.unexplained(answer("flask", "CVE-2099-1"), known)
    assert problem.startswith("flask 1.0: CVE-2099-1, mended in 9.9. Upgrade, or explain")
    assert audit.unexplained(answer("starlette", "CVE-2023-30861"), known), "explained for another package"


@pytest.mark.parametrize("service", ["", "No connection", '{"dependencies": [{"name": "a", "skip_reason": "b"}]}'])
def test_where_nothing_was_looked_up_it_says_so_loudly(
    service: str, audit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """pip-audit itself ends with "No known vulnerabilities found" when it could ask about no package at all."""
    run = subprocess.CompletedProcess([], 0, stdout=service)
    monkeypatch.setattr(audit.subprocess, "run", lambda *_, **__: run)
    assert audit.advisories([]) == []
    assert "NO ADVISORY WAS LOOKED UP" in capsys.readouterr().out
    (problem,) = audit.advisories([], online=True)
    assert problem.startswith("NO ADVISORY WAS LOOKED UP")


@pytest.mark.parametrize(
    ("licence", "fine"),
    [
        *((text, True) for text in ("MIT", "BSD License", "Apache Software License", "Apache-2.0 OR BSD-2-Clause")),
        *((text, True) for text in ("ISC License (ISCL)", "Mozilla Public License 2.0 (MPL 2.0)", "MIT AND PSF-2.0")),
        *((text, True) for text in ("Apache Software License; MIT License", "GPL-3.0 OR MIT", "BSD-3-Clause AND TCL")),
        *((text, False) for text in ("GPL-3.0", "UNKNOWN", "AGPL-3.0-only", "MIT AND GPL-2.0", "Proprietary", "")),
        *((text, False) for text in ("BSD License; GNU General Public License v3 (GPLv3)", "LGPL-2.1", "CC-BY-NC-4.0")),
    ],
)
def test_licences(licence: str, fine: bool, audit: ModuleType) -> None:
    assert audit.is_allowed(licence) == fine
    rows = [{"Name": "some-package", "Version": "1", "License": licence}]
    assert bool(audit.forbidden(rows, [])) != fine
    assert audit.forbidden(rows, ["some-*"]) == []


def test_the_pins_are_those_of_label_studio_ml() -> None:
    asked = importlib.metadata.requires("label-studio-ml") or []
    found = [re.match(r"([\w.-]+) ?\(?==([\d.]+)", line) for line in asked]
    pins = {one[1].lower(): one[2] for one in found if one}
    assert len(pins) == 5
    table = PAGE.partition("| package | pin |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    assert {row[0].lower(): row[1] for row in rows} == pins


def test_the_server_loads_none_of_what_it_does_not_use(tmp_path: Path) -> None:
    code = (
        "import sys; from ml_backend.server.app import create_app; from ml_backend.settings import load_settings;"
        "create_app(load_settings(model_dir=sys.argv[1], label_studio_api_key='0' * 40));"
        "unused = ('flask', 'werkzeug', 'itsdangerous', 'label_studio_ml', 'redis', 'rq', 'torch', 'matplotlib');"
        "print([name for name in unused if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_templates_use_nothing_that_an_advisory_names() -> None:
    templates = [path for path in (ROOT / "ml_backend").rglob("templates/**/*") if path.is_file()]
    assert len(templates) > 3
    code = list((ROOT / "ml_backend").rglob("*.py"))
    for path in (*templates, *code):
        text = path.read_text()
        assert "xmlattr" not in text, path
        assert "SandboxedEnvironment" not in text, path
    for path in code:
        assert not re.search(r"(env\w*|made)\.from_string\(", path.read_text()), path
    for path in code:
        if "jinja2" in (text := path.read_text()):
            assert "autoescape=True" in text or "select_autoescape" in text or "Environment(" not in text, path
