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
from support import Nextmask, Studio

from ml_backend.cli.app import main
from ml_backend.datasets import Dataset
from ml_backend.demo.label_studio import free_port
from ml_backend.label_studio import LabelStudio

pytestmark = pytest.mark.live

SETTINGS = {"input_size": 64, "iterations": 6, "train_after": 4, "audit_share": 0}
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
        ("disconnect 999999", 1, "sees no project 999999"),
        ("connect 999999", 1, "sees no project 999999"),
        ("connect {project} --backend-url http://ml-backend:9090", 2, "nextmask.local"),
        ("connect {project} --set nonsense=1", 2, "not one of: "),
        ("connect {project} --set strategy", 2, "KEY=VALUE"),
        ("connect {project} --set train_after=0", 2, "NEXTMASK_TRAIN_AFTER = 0"),
        ("connect {project} --set strategy=nonsense", 2, "unknown strategy 'nonsense'; available: "),
        ("connect {project} --set encoder=nonsense", 2, "NEXTMASK_ENCODER = 'nonsense'"),
        ("annotate {project} --masks /no/such/folder", 2, "/no/such/folder"),
        ("annotate {project}", 2, "--masks"),
        ("rollback 999999", 2, "Run: nextmask connect 999999"),
        ("connect abc", 2, "is no project: give its number"),
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


# -- what goes wrong -------------------------------------------------------------------------------------------------
def test_a_project_is_named_by_its_address_and_a_wrong_one_is_answered_with_those_there_are(
    shell: Shell, studio: Studio, make_project: Callable[..., int], shapes: Dataset
) -> None:
    project = make_project(images=1, dataset=shapes)
    page = f"{studio.url}/projects/{project}"
    assert "is not connected here" in shell("status", f"{page}/data?tab=3", code=2)
    for command in (["connect"], ["disconnect"], ["annotate", "--masks", masks_of(shapes)]):
        said = shell(command[0], project + 100_000, *command[1:], code=1)
        assert f"sees no project {project + 100_000}. Use the number of one that it sees: " in said
        assert f"{project} (nextmask live test, {page})" in said
        assert said.count("/projects/") <= 10
    other = shell("connect", f"https://elsewhere.example.org/projects/{project}", code=2)
    assert f"give the project's number, {project}" in other


def test_a_port_that_serve_was_given_is_found_by_the_other_commands(
    make_nextmask: Callable[..., Nextmask],
    make_project: Callable[..., int],
    shapes: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    project, wrong, right = make_project(images=2, dataset=shapes), free_port(), free_port()
    nextmask = make_nextmask()
    nextmask.stop()
    shell = Shell(nextmask, monkeypatch, capsys)
    refused = shell("connect", project, code=1)
    assert f"nextmask serve does not answer at {nextmask.url}: connection refused" in refused
    assert "NEXTMASK_PORT" in refused
    assert len(refused.splitlines()) == 1
    assert not any(word in refused for word in ("HTTPConnection", "Errno", "urllib3", "token"))

    nextmask.settings = nextmask.settings.model_copy(update={"port": right})
    nextmask.start()
    nextmask.settings = nextmask.settings.model_copy(update={"port": wrong})
    shell = Shell(nextmask, monkeypatch, capsys)
    assert f"registered the backend http://127.0.0.1:{right}" in shell("connect", project)
    nextmask.wait_settled(project)
    rows = shell.process("doctor", project, "--json", "--timeout", "200")
    found = {row["check"]: row for row in json.loads(rows)["findings"]}
    assert found["server"]["found"].endswith(f"answers at http://127.0.0.1:{right}")
    assert found["backend"]["level"] == "ok"
    assert found["protection"]["found"].endswith(f"http://127.0.0.1:{right}")


def test_status_and_versions_need_neither_token_nor_label_studio(shell: Shell) -> None:
    for arguments in (["status"], ["status", "--json"]):
        shell.process(*arguments, LABEL_STUDIO_API_KEY="", LABEL_STUDIO_URL="http://127.0.0.1:9")
