"""The command line, as a person or a script uses it, beside a running server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import Nextmask

from ml_backend.cli.app import main
from ml_backend.datasets import Dataset
from ml_backend.label_studio import LabelStudio

pytestmark = pytest.mark.live

SETTINGS = {"input_size": 64, "iterations": 6, "train_after": 4, "held_out_share": 0}
STATUS_KEYS = {
    *("project", "state", "strategy", "version", "labels", "trained_labels", "held_out_miou", "pool", "queue"),
    *("skipped", "errors"),
}


class Shell:
    """Runs nextmask's commands with the settings of a server."""

    def __init__(self, nextmask: Nextmask, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._environment = {**os.environ, **nextmask.settings.environment()}
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: object, code: int = 0) -> str:
        """Run a command that is to end with `code`, in this process, where it starts sooner; return what it prints."""
        with self._monkeypatch.context() as context:
            context.setattr(os, "environ", self._environment)
            context.setattr(sys, "argv", ["nextmask", *map(str, arguments)])
            with pytest.raises(SystemExit) as ended:
                main()
        printed = self._capsys.readouterr()
        return self._checked(arguments, ended.value.code or 0, code, printed.out, printed.err)

    def process(self, *arguments: object, code: int = 0, **environment: str) -> str:
        """Run a command in a process of its own."""
        command = [sys.executable, "-m", "ml_backend", *map(str, arguments)]
        environment = self._environment | environment
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        return self._checked(arguments, ended.returncode, code, ended.stdout, ended.stderr)

    def json(self, *arguments: object) -> Any:
        return json.loads(self(*arguments, "--json"))

    @staticmethod
    def _checked(arguments: tuple[object, ...], code: object, wanted: int, out: str, err: str) -> str:
        assert code == wanted, f"{arguments} ended with {code}:\n{out}\n{err}"
        assert "Traceback" not in err
        return err if wanted else out


@pytest.fixture
def shell(serving: Nextmask, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(serving, monkeypatch, capsys)


def masks_of(dataset: Dataset) -> Path:
    return dataset.splits["train"][0].mask.parent


def test_from_connect_to_disconnect(
    shell: Shell,
    serving: Nextmask,
    label_studio: LabelStudio,
    make_project: Callable[..., int],
    shapes: Dataset,
) -> None:
    project = make_project(images=7, dataset=shapes)
    options = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
    assert f"registered the backend {serving.url}" in shell("connect", project, *options)
    assert "Everything was in place." in shell("connect", project)
    serving.wait_settled(project)
    assert shell.json("versions", project) == []

    labelled = shell.json("annotate", project, "--masks", masks_of(shapes), "--count", 4)
    assert labelled["submitted"] == 4
    assert [row["error"] for row in labelled["tasks"]] == [""] * 4
    serving.wait_for_version(project, 1)
    status = shell.json("status", project)
    assert set(status) >= STATUS_KEYS
    expected = {"state": "waiting", "strategy": "auto", "version": "nextmask-1.2", "labels": 4, "errors": {}}
    counts = {"trained_labels": 4, "pool": 3, "queue": 3, "skipped": 0, "project": project}
    assert {key: status[key] for key in [*expected, *counts]} == expected | counts
    assert project in [one["project"] for one in shell.json("status")]
    assert "nextmask-1.2" in shell("status", project)

    assert "Version 2: 4 labels" in shell.process("train", project)
    assert shell.json("status", project)["version"] == "nextmask-2.3"
    assert "Version 1 serves again" in shell("rollback", project)
    assert [(row["number"], row["serves"]) for row in shell.json("versions", project)] == [(1, True), (2, False)]
    assert "yes" in shell("versions", project)
    assert shell.json("status", project)["version"] == "nextmask-1.4"
    assert "nextmask-1.5 is published" in shell("rank", project)
    assert label_studio.project(project)["model_version"] == "nextmask-1.5"
    assert "Version 2 serves again" in shell("rollback", project, 2)

    printed = shell("annotate", project, "--masks", masks_of(shapes), "--count", 99)
    assert "Submitted 3 of 99 masks, mean IoU of pre-annotation and mask" in printed
    assert "Label Studio has no task left." in printed
    serving.wait_settled(project)
    assert "nothing left to label" in shell("status", project)

    assert f"removed the backend {serving.url}" in shell("disconnect", project)
    assert "There was nothing to put back." in shell("disconnect", project)
    for command in ("train", "rank", "rollback"):
        assert f"Run: nextmask connect {project}" in shell(command, project, code=2)
    assert label_studio.ml_backends(project) == []


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ("status 999999", 2, "Run: nextmask connect 999999"),
        ("disconnect 999999", 1, "404"),
        ("connect 999999", 1, "404"),
        ("connect {project} --backend-url http://ml-backend:9090", 2, "nextmask.local"),
        ("connect {project} --set nonsense=1", 2, "not one of: "),
        ("connect {project} --set strategy", 2, "KEY=VALUE"),
        ("connect {project} --set iterations=0", 2, "NEXTMASK_ITERATIONS = 0"),
        ("connect {project} --set strategy=nonsense", 2, "unknown strategy 'nonsense'; available: "),
        ("connect {project} --set encoder=nonsense", 2, "NEXTMASK_ENCODER = 'nonsense'"),
        ("annotate {project} --masks /no/such/folder", 2, "/no/such/folder"),
        ("annotate {project}", 2, "--masks"),
        ("rollback 999999", 2, "Run: nextmask connect 999999"),
        ("connect abc", 2, "integer"),
        ("frobnicate", 2, "frobnicate"),
    ],
)
def test_errors(command: str, code: int, message: str, shell: Shell, empty_project: int) -> None:
    assert message in " ".join(shell(*command.format(project=empty_project).split(), code=code).split())


@pytest.fixture(scope="module")
def empty_project(make_module_project: Callable[..., int], shapes: Dataset) -> int:
    return make_module_project(images=0, dataset=shapes)


def test_nothing_to_train_on_is_a_failure(shell: Shell, empty_project: int) -> None:
    shell("connect", empty_project)
    assert "no usable label" in shell("train", empty_project, code=1)


def test_a_configuration_without_masks_is_refused(
    shell: Shell, make_project: Callable[..., int], label_studio: LabelStudio
) -> None:
    choices = '<Choices name="c" toName="image"><Choice value="a"/></Choices>'
    xml = f'<View><Image name="image" value="$image"/>{choices}</View>'
    project = make_project(images=0, xml=xml)
    printed = shell("connect", project, code=1)
    assert "choices" in printed
    assert "BrushLabels" in printed
    assert label_studio.ml_backends(project) == []


def test_serve_refuses_to_start_without_what_it_needs(shell: Shell) -> None:
    def refusal(**environment: str) -> str:
        return shell.process("serve", code=2, **environment)

    assert "BASIC_AUTH_USER" in refusal(BASIC_AUTH_USER="", NEXTMASK_HOST="0.0.0.0")
    assert "LABEL_STUDIO_API_KEY is not set" in refusal(LABEL_STUDIO_API_KEY="")
    assert "unknown strategy 'nonsense'; available: " in refusal(NEXTMASK_STRATEGY="nonsense")
    assert "NEXTMASK_ENCODER = 'nonsense'" in refusal(NEXTMASK_ENCODER="nonsense")
    assert "Did you mean NEXTMASK_STRATEGY?" in refusal(NEXTMASK_STRATEGI="entropy")
