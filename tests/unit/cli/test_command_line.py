"""The command line without Label Studio: usage errors, what is printed, and the waiting for a reconcile."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from command_line import Command, Ended
from memory_studio import MemoryStudio
from wiring import NOBODY, PROJECT, XML, give_project, make_settings, open_installation, task_of

from ml_backend import __version__
from ml_backend.annotations.boxes import Box, Query
from ml_backend.annotations.config_edits import with_query_control
from ml_backend.cli import console, projects
from ml_backend.cli import installation as installed
from ml_backend.cli import serve as running
from ml_backend.cli.console import in_background, reconcile_now
from ml_backend.cli.projects import parse_settings
from ml_backend.errors import ConfigurationError, LabelStudioUnavailable, NextmaskError
from ml_backend.learning.measuring.words import measure_text, recorded
from ml_backend.projects.services import Services
from ml_backend.store import Decision

pytestmark = pytest.mark.studio(4)

TOKEN = "5ec2e7" * 6 + "abcd"


@pytest.fixture(autouse=True)
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings for a Label Studio that cannot be reached."""
    for name, value in make_settings(tmp_path / "state", label_studio_api_key=TOKEN).environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def run(nextmask: Command) -> Command:
    """Run a command, whose errors come in one line; it never prints the token."""

    def go(*arguments: object) -> Ended:
        ended = nextmask(*arguments)
        assert TOKEN not in ended.out + ended.err
        return ended.in_one_line()

    return go


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    """The state that the commands find."""
    with open_installation(tmp_path / "state") as services:
        yield services


@pytest.fixture
def hosted(tmp_path: Path, studio: MemoryStudio, monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    """A host in memory behind the commands."""
    with open_installation(tmp_path / "state", studio, queue_window=2) as services:
        monkeypatch.setattr(installed, "open_services", lambda settings: services)
        yield services


# -- what is wrong before anything begins ----------------------------------------------------------------------------
def test_the_version(run: Command) -> None:
    assert run("--version") == Ended(0, f"{__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["frobnicate"], "frobnicate"),
        (["status", "seven"], "project"),
        (["status", "0"], "project"),
        (["rank"], "project"),
        (["connect", "7", "--set", "strategy"], "'strategy' is not of the form KEY=VALUE"),
        (["connect", "7", "--backend-url", "backend:9090"], "NEXTMASK_BACKEND_URL = 'backend:9090'"),
        (["connect", "7", "--backend-url", "http://backend:9090"], "nextmask.local"),
        (["status", "7"], "Run: nextmask connect 7"),
        (["train", "7"], "Run: nextmask connect 7"),
        (["rank", "7"], "Run: nextmask connect 7"),
        (["versions", "7"], "Run: nextmask connect 7"),
        (["rollback", "7"], "Run: nextmask connect 7"),
        (["annotate", "7", "--masks", "/no/such/folder"], "/no/such/folder"),
        (["demo", "--images", "/no/such/folder"], "--images and --masks together"),
    ],
)
def test_wrong_usage_is_code_2(run: Command, arguments: list[str], message: str) -> None:
    ended = run(*arguments)
    assert ended.code == 2
    assert message in ended.err.lower() if message.islower() else message in ended.err
    assert ended.out == ""


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"NEXTMASK_INPUT_SIZE": "8"}, "NEXTMASK_INPUT_SIZE = '8'"),
        ({"NEXTMASK_STRATEGI": "x"}, "Did you mean NEXTMASK_STRATEGY?"),
        ({"NEXTMASK_HOST": "0.0.0.0"}, "set BASIC_AUTH_USER and BASIC_AUTH_PASS"),
        ({"BASIC_AUTH_PASS": "word"}, "BASIC_AUTH_USER"),
        ({"BASIC_AUTH_USER": "me"}, "BASIC_AUTH_PASS"),
        ({"LABEL_STUDIO_API_KEY": ""}, "LABEL_STUDIO_API_KEY is not set"),
        ({"LABEL_STUDIO_URL": "studio:8080"}, "LABEL_STUDIO_URL = 'studio:8080'"),
        ({"NEXTMASK_STRATEGY": "clairvoyance"}, "NEXTMASK_STRATEGY = 'clairvoyance'"),
        ({"NEXTMASK_STRATEGY_OPTIONS": "{"}, "NEXTMASK_STRATEGY_OPTIONS = '{'"),
        ({"NEXTMASK_DATABASE_URL": "no address"}, "NEXTMASK_DATABASE_URL"),
        # what is wrong with SAM 2 is told, and is no reason not to start
        (
            {"NEXTMASK_SAM": "/nowhere", "NEXTMASK_DATABASE_URL": "no address"},
            "NEXTMASK_SAM = '/nowhere' is not there.",
        ),
    ],
)
def test_serve_does_not_start_with_settings_that_cannot_work(
    run: Command, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("it started")

    monkeypatch.setattr(uvicorn.Server, "run", started)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    ended = run("serve", "--port", "0")
    assert ended.code in (1, 2)
    assert message in ended.err


def test_an_unusable_state_folder_is_code_1(run: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MODEL_DIR", str(tmp_path / "file" / "below"))
    ended = run("status")
    assert ended.code == 1
    assert "The state database" in ended.err
    assert "Check MODEL_DIR" in ended.err


def test_a_host_that_does_not_answer_is_code_1(run: Command) -> None:
    ended = run("connect", 7, "--backend-url", "http://127.0.0.1:9090")
    assert ended.code == 1
    assert f"LABEL_STUDIO_URL = {NOBODY} does not answer: connection refused" in ended.err


def test_ctrl_c_is_code_130(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(installed, "open_services", interrupted)
    assert run("rank", 7).code == 130


# -- status and versions ---------------------------------------------------------------------------------------------
def test_status_without_projects(run: Command) -> None:
    assert "No project is connected. Run: nextmask connect PROJECT" in run("status").out
    assert json.loads(run("status", "--json").out) == []


def test_status_of_projects(run: Command, services: Services) -> None:
    give_project(services, title="Cells", reconciled_at=1.0)
    services.store.put_tasks([task_of(1, status="labelled"), task_of(2), task_of(3, status="skipped")])
    services.store.wake(70, title="Roads")
    printed = run("status").out
    for word in ("65 Cells", "70 Roads", "nextmask-1.1", "auto", "waiting", "held-out mIoU"):
        assert word in printed
    shown = json.loads(run("status", PROJECT, "--json").out)
    assert (shown["project"], shown["labels"], shown["pool"], shown["skipped"]) == (PROJECT, 1, 1, 1)
    assert [one["project"] for one in json.loads(run("status", "--json").out)] == [PROJECT, 70]


def test_status_says_what_labelling_brings_and_what_a_config_change_dropped(run: Command, services: Services) -> None:
    give_project(services, notice="The labelling configuration changed: 'tumour' was removed.")
    printed = run("status").out
    assert "65: The labelling configuration changed: 'tumour' was removed." in printed
    assert "65: It is too early to say what the last labels brought" in printed
    shown = json.loads(run("status", PROJECT, "--json").out)
    assert shown["notice"] in printed
    assert shown["advice"]["held_out"] == 2


def test_status_says_what_points_take_and_how_many_guesses_were_right(run: Command, services: Services) -> None:
    give_project(services)
    answers = {"boxes": "[[3, 4], [5, 6]]", "lead_time": 5.0, "effort": 2.0, "points": 2, "guesses": 2}
    services.store.put_tasks([task_of(1, status="labelled", **answers, right_guesses=1)])
    printed = run("status").out
    assert "65: Points: 2 answers in 1 label, 1.0 clicks and 2.5 s each." in printed
    assert "65: Guesses at points that the answers found right: 1 of 2 (50 %)." in printed


def test_status_says_when_nothing_is_left_to_label(run: Command, services: Services) -> None:
    services.store.wake(PROJECT, reconciled_at=1.0)
    assert "waiting (nothing left to label)" in run("status").out


def test_status_shows_how_far_it_is(run: Command, services: Services) -> None:
    services.store.wake(PROJECT, state="training", stage="training", stage_done=3, stage_total=9)
    assert "training (3/9)" in run("status").out


def test_status_shows_ten_errors_and_counts_the_rest(run: Command, services: Services) -> None:
    services.store.wake(PROJECT, error="Label Studio did not answer")
    services.store.put_tasks([task_of(one, error=f"no image {one}") for one in range(1, 13)])
    ended = run("status")
    assert "65, project: Label Studio did not answer" in ended.err
    assert "65, task 9: no image 9" in ended.err
    assert "no image 10" not in ended.err
    assert "… and 3 more (--json lists all)" in ended.err


@pytest.mark.parametrize("text", ["[/red] ends nothing", "[bold]Cells[/bold]", "[link=http://x]here", "100 [%]"])
def test_texts_of_others_are_printed_as_they_are(run: Command, services: Services, text: str) -> None:
    services.store.wake(PROJECT, title=text, error=text)
    ended = run("status")
    assert ended.code == 0
    assert text in ended.out
    assert text in ended.err


def test_versions_are_listed_with_their_measures(run: Command, services: Services) -> None:
    give_project(services)
    versions = services.checkpoints(PROJECT)
    versions.create(versions.get(1).record, versions.load_state(versions.get(1)))
    (versions.folder / "versions" / "2" / "weights.safetensors").write_bytes(b"")
    printed = run("versions", PROJECT).out
    miou = versions.get(1).record.measures["miou"]
    assert set(measure_text(recorded(versions.get(1).record, "miou")).split()) <= set(printed.split())
    assert "damage" in printed  # a narrow terminal breaks texts, which the JSON has whole
    first, second = json.loads(run("versions", PROJECT, "--json").out)
    assert (first["number"], first["serves"], first["labels"], first["held_out"]) == (1, True, 6, 2)
    assert ("pseudo" in printed, first["pseudo_labels"]) == (True, 0)
    assert first["measures"]["miou"] == miou
    assert second["number"] == 2
    assert "0 bytes" in second["damaged"]


def test_a_rollback_without_an_earlier_version_is_code_1(run: Command, services: Services) -> None:
    give_project(services)
    ended = run("rollback", PROJECT)
    assert (ended.code, "There is no earlier accepted version" in ended.err) == (1, True)
    assert "there is no such version" in run("rollback", PROJECT, 9).err


# -- commands that reconcile -----------------------------------------------------------------------------------------
def test_rank_publishes_the_queue(run: Command, hosted: Services, studio: MemoryStudio) -> None:
    give_project(hosted)
    ended = run("rank", PROJECT)
    assert (ended.code, ended.out) == (0, "nextmask-1.1 is published.\n")
    assert len(studio.queue()) == 2
    assert run("rank", PROJECT).out == "nextmask-1.2 is published.\n"  # anew, asked for


@pytest.mark.parametrize("command", ["train", "rank"])
def test_without_label_studio_they_end_with_what_doctor_finds(run: Command, services: Services, command: str) -> None:
    services.store.wake(PROJECT, manage=True)
    ended = run(command, PROJECT)
    assert ended.code == 1
    assert "does not answer: connection refused: nothing listens there" in ended.err


def test_train_without_a_label_is_code_1(run: Command, hosted: Services) -> None:
    hosted.store.wake(PROJECT)
    ended = run("train", PROJECT)
    assert (ended.code, "No version was trained" in ended.err) == (1, True)


def test_rollback_serves_the_earlier_version(run: Command, hosted: Services, studio: MemoryStudio) -> None:
    give_project(hosted)
    versions = hosted.checkpoints(PROJECT)
    versions.create(versions.get(1).record, versions.load_state(versions.get(1)))
    versions.publish(2)
    hosted.store.update_project(PROJECT, decided_model=2)
    ended = run("rollback", PROJECT)
    assert ended.code == 0
    assert ended.out.startswith("Version 1 serves again: 6 labels, held-out mIoU 0.")
    assert studio.fields["model_version"] == "nextmask-1.1"


def test_connect_and_disconnect_report(run: Command, hosted: Services, studio: MemoryStudio) -> None:
    printed = run("connect", PROJECT, "--set", "train_after=3").out
    assert "• registered the backend http://127.0.0.1:9090" in printed
    assert studio.backends[0]["extra_params"]["train_after"] == 3
    assert "Everything was in place." in run("connect", PROJECT).out
    assert "• removed the webhook" in run("disconnect", PROJECT).out


def test_connect_offers_the_control_that_regions_need(
    run: Command, hosted: Services, studio: MemoryStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = ("connect", PROJECT, "--set", "strategy=cereals")
    ended = run(*connect)
    assert ended.code == 0
    assert f"nextmask connect {PROJECT} --add-query-control" in ended.out
    assert 'name="query"' not in studio.xml
    for answer in (False, True):
        monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
        monkeypatch.setattr(projects.typer, "confirm", lambda *_, answer=answer, **__: answer)
        assert run(*connect).code == 0
        assert ('name="query"' in studio.xml) is answer
    monkeypatch.setattr(projects.typer, "confirm", None)  # there is nothing to ask for any more
    assert run(*connect).code == 0


def test_connect_adds_the_control_when_told_to(run: Command, hosted: Services, studio: MemoryStudio) -> None:
    ended = run("connect", PROJECT, "--add-query-control", "--set", "strategy=cereals")
    assert "added the control 'query'" in ended.out
    assert ended.err == ""


def test_status_shows_effort_and_hints(run: Command, services: Services) -> None:
    services.store.wake(PROJECT, label_config=XML, extra_params='{"strategy": "cereals"}')
    box = Box(0, 0, 1, 1)
    services.store.put_queries(PROJECT, "nextmask-1.1", {1: Query((box,), 4.0)})
    answered = task_of(1, status="labelled", boxes="[[0, 0, 1, 1]]", effort=6.0, shown_version="nextmask-1.1")
    services.store.put_tasks([answered])
    out = " ".join(run("status", PROJECT).out.split())
    assert "4.0 clicks predicted, 6.0 actual (1 task)" in out
    assert f"nextmask connect {PROJECT} --add-query-control" in out
    shown = json.loads(run("status", PROJECT, "--json").out)
    assert shown["effort"]["predicted_mean"] == 4
    services.store.update_project(PROJECT, label_config=with_query_control(XML))
    assert json.loads(run("status", PROJECT, "--json").out)["hints"] == []


def test_a_change_is_printed_as_it_is(run: Command, hosted: Services) -> None:
    run("connect", PROJECT)
    ended = run("connect", PROJECT, "--set", "audit_group=[/patient]")
    assert ended.code == 0
    assert "[/patient]" in ended.out


# -- waiting for a reconcile -----------------------------------------------------------------------------------------
def test_it_is_done_here_when_nobody_works_on_it(hosted: Services, studio: MemoryStudio) -> None:
    hosted.store.wake(PROJECT)
    reconcile_now(hosted, PROJECT)
    assert len(studio.queue()) == 2


def test_a_worker_that_is_at_it_is_waited_for(hosted: Services, studio: MemoryStudio) -> None:
    hosted.store.wake(PROJECT)
    lease = hosted.store.acquire("the worker", lease_seconds=60, interval=1)
    assert lease is not None
    thread = threading.Thread(target=lambda: (time.sleep(0.6), hosted.store.release(lease, handled=True)))
    thread.start()
    reconcile_now(hosted, PROJECT)
    thread.join()
    project = hosted.store.project(PROJECT)
    assert project is not None
    assert project.wakes_handled == project.wakes


def test_an_error_is_raised_here(hosted: Services, studio: MemoryStudio, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_: int) -> Any:
        raise LabelStudioUnavailable("Label Studio did not answer")

    hosted.store.wake(PROJECT)
    monkeypatch.setattr(studio, "ml_backends", away)
    with pytest.raises(NextmaskError, match="does not answer"):
        reconcile_now(hosted, PROJECT)


def test_ctrl_c_stops_the_work_and_leaves_the_project_due(
    hosted: Services, studio: MemoryStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosted.store.wake(PROJECT)
    began = threading.Event()
    backends = studio.ml_backends

    def slowly(project_id: int) -> Any:
        began.set()
        time.sleep(0.5)
        return backends(project_id)

    def interrupted(*_: object) -> None:
        began.wait(60)
        raise KeyboardInterrupt

    monkeypatch.setattr(studio, "ml_backends", slowly)
    monkeypatch.setattr(console, "watch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        reconcile_now(hosted, PROJECT)
    project = hosted.store.project(PROJECT)
    assert project is not None
    assert (project.wakes_handled, project.lease_owner) == (0, None)
    assert studio.imports == []


def test_work_in_the_background_hands_over_what_it_returns_or_raises() -> None:
    thread, outcome = in_background(lambda: 7)
    thread.join()
    assert outcome == [7]
    thread, outcome = in_background(lambda: 1 // 0)
    thread.join()
    assert [type(one) for one in outcome] == [ZeroDivisionError]


# -- settings on the command line ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        ("iterations=50", {"iterations": 50}),
        ("dropout=0.25", {"dropout": 0.25}),
        ("strategy=entropy", {"strategy": "entropy"}),
        ("strategy_options={}", {"strategy_options": {}}),
        ('strategy_options={"a": [1, 2]}', {"strategy_options": {"a": [1, 2]}}),
        ("audit_group=a=b", {"audit_group": "a=b"}),
        ("audit_group=", {"audit_group": ""}),
        ('audit_group="7"', {"audit_group": "7"}),
    ],
)
def test_values_are_json_where_they_can_be(pair: str, expected: dict[str, Any]) -> None:
    assert parse_settings([pair]) == expected


def test_several_pairs_and_a_bad_one() -> None:
    assert parse_settings(["seed=1", "seed=2", "dropout=0"]) == {"seed": 2, "dropout": 0}
    with pytest.raises(ConfigurationError, match="'seed' is not of the form KEY=VALUE"):
        parse_settings(["dropout=0", "seed"])


def test_the_log_is_one_line_per_event(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    running.configure_logging(make_settings(tmp_path, log_level="INFO"))
    logging.getLogger("ml_backend.anything").info("project=%s done", 7)
    logging.getLogger("ml_backend.anything").debug("unseen")
    logging.getLogger("urllib3").info("unseen")
    (line,) = capsys.readouterr().err.splitlines()
    assert "INFO ml_backend.anything" in line
    assert line.endswith("project=7 done")


def test_keep_returns_tasks_that_a_stream_passed_over(run: Command, hosted: Services, studio: MemoryStudio) -> None:
    store = hosted.store
    store.wake(PROJECT)
    store.put_tasks([task_of(1), task_of(2, status="passed"), task_of(3, status="passed")])
    passed = [Decision(task, keep=False, score=0.5, threshold=0.7, decided_at=0.0) for task in (2, 3)]
    kept = Decision(1, keep=True, score=0.9, threshold=None, decided_at=0.0)
    store.put_decisions(PROJECT, [kept, *passed], state=(f"stream_{PROJECT}", '{"baseline": 0, "threshold": 0.7}'))
    assert "kept 1, passed over 2, returned 0, threshold 0.7" in run("status", PROJECT).out
    refused = run("keep", PROJECT, 2, 1)
    assert (refused.code, f"Not passed over in project {PROJECT}: task 1." in refused.err) == (2, True)
    assert run("keep", PROJECT, 2, 3) == Ended(0, "Returned to the pool: 2.\n", "")
    assert [task.status for task in store.tasks(PROJECT)] == ["unlabelled"] * 3
    assert "kept 1, passed over 0, returned 2" in run("status", PROJECT).out
