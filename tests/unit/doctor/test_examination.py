"""doctor without Label Studio: what it says of settings, packages, devices, disk, state database, server and worker."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from postgresql import set_database_clock
from sam_weights import small_folder
from servers import answering
from wiring import NOBODY, PROJECT, execute, make_services, make_settings

from ml_backend.doctor import examine, torch_setup
from ml_backend.doctor.findings import Finding, ok, problem
from ml_backend.doctor.installation.database import check_database, open_store, schema_at
from ml_backend.doctor.installation.disk import check_folder
from ml_backend.doctor.installation.environment import check_settings
from ml_backend.doctor.installation.sam import check_sam
from ml_backend.doctor.installation.server import check_server
from ml_backend.doctor.installation.worker import check_worker
from ml_backend.doctor.label_studio.address import ask, check_address, check_clock, clock_offset
from ml_backend.doctor.label_studio.release import check_release
from ml_backend.doctor.label_studio.token import check_rights
from ml_backend.doctor.running import Checks, Missing
from ml_backend.errors import StoreError
from ml_backend.projects.signs_of_life import WorkerSign
from ml_backend.settings import inspect_environment
from ml_backend.store import Store
from ml_backend.store.database import look_at_schema
from ml_backend.store.migrate import upgrade

SLOW = 300.0
TORCH = {"part": "torch", "value": {"version": "2.15.0+cu132", "cuda": "13.2", "threads": 4}}


def doctor(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does."""
    usual = {"MODEL_DIR": str(folder), "LABEL_STUDIO_URL": NOBODY, "LABEL_STUDIO_API_KEY": "0" * 40}
    return subprocess.run(
        [sys.executable, "-m", "ml_backend", "doctor", *arguments, "--timeout", "200"],
        env={**os.environ, **usual, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def only(findings: Iterator[Finding], check: str) -> Finding:
    (finding,) = [finding for finding in findings if finding.check == check]
    return finding


# -- the command -----------------------------------------------------------------------------------------------------
def test_broken_packages_and_misspelt_settings_are_reported_by_a_command_that_lives(tmp_path: Path) -> None:
    # A torchvision built for another torch fails like this when timm imports it.
    broken = tmp_path / "packages" / "timm"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text('raise RuntimeError("operator torchvision::nms does not exist")')
    secret = "hush-hush-password"
    done = doctor(
        tmp_path,
        "--json",
        PYTHONPATH=str(broken.parent),
        NEXTMASK_STRATGEY="entropy",
        NEXTMASK_INPUT_SIZE="7",
        BASIC_AUTH_USER="someone",
        BASIC_AUTH_PASS=secret,
        NEXTMASK_DATABASE_URL=f"sqlite:///{tmp_path}/{secret}/state.sqlite3",
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert secret not in done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert not report["healthy"]
    by_check: dict[str, list[Mapping[str, str]]] = {}
    for row in report["findings"]:
        by_check.setdefault(row["check"], []).append(row)
    settings = [row["found"] for row in by_check["settings"]]
    assert any("NEXTMASK_STRATGEY" in text and "Did you mean NEXTMASK_STRATEGY?" in text for text in settings)
    assert any("NEXTMASK_INPUT_SIZE = '7'" in text for text in settings)
    package, *_ = by_check["packages"]  # others that import it follow
    assert "timm" in package["found"]
    assert "torchvision::nms" in package["found"]
    assert by_check["network"][0]["level"] == "skipped"
    # What needs Label Studio says why it was not looked at.
    assert by_check["address"][0]["level"] == "problem"
    assert {row["level"] for row in by_check["token"] + by_check["rights"]} == {"skipped"}


def test_without_torch_the_command_still_says_so(tmp_path: Path) -> None:
    broken = tmp_path / "packages"
    broken.mkdir()
    (broken / "torch.py").write_text('raise ImportError("libcudart.so.13: cannot open shared object file")')
    done = doctor(tmp_path, PYTHONPATH=str(broken))
    assert done.returncode == 1, done.stderr
    assert "libcudart.so.13" in done.stdout
    assert "problem" in done.stdout
    assert "skipped: device" in done.stdout


# -- settings --------------------------------------------------------------------------------------------------------
def test_invalid_settings_are_replaced_by_defaults_and_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("NEXTMASK_DROPOUT=2\nNEXTMASK_WINDOW=5\nLABEL_STUDIO_URL=localhost:8080\n")
    monkeypatch.setenv("NEXTMASK_QUEUE_WINDOW", "17")
    settings, complaints = inspect_environment()
    assert (settings.queue_window, settings.dropout, settings.label_studio_url) == (17, 0.1, "http://localhost:8080")
    assert len(complaints) == 2
    assert "NEXTMASK_WINDOW" in complaints[0]
    assert "NEXTMASK_DROPOUT = '2'" in complaints[1]
    assert "LABEL_STUDIO_URL = 'localhost:8080'" in complaints[1]


def test_a_server_that_would_not_start_is_told(tmp_path: Path) -> None:
    (finding,) = check_settings(make_settings(tmp_path, host="0.0.0.0"), [])
    assert finding.level == "problem"
    assert "open to the network" in finding.message
    (finding,) = check_settings(make_settings(tmp_path, basic_auth_user="someone"), [])
    assert "belong together" in finding.message


def test_sam_2_is_looked_at_where_it_is_asked_for(tmp_path: Path) -> None:
    assert list(check_sam("")) == []
    (finding,) = check_sam(str(tmp_path / "sam2.1_hiera_tiny.pt"))
    assert (finding.level, finding.why) == ("problem", "The project's own network answers smart tools in its place.")
    assert "is not there" in finding.message
    assert finding.remedy.startswith("Set it to a checkpoint of SAM 2")
    (finding,) = check_sam(str(small_folder(tmp_path)))
    assert finding.level == "ok"


# -- side by side ----------------------------------------------------------------------------------------------------
def test_checks_that_fail_or_hang_leave_the_others_alone() -> None:
    checks, never = Checks(1.0), threading.Event()

    def crashes() -> Iterator[Finding]:
        yield ok("crashes", "so far so good")
        raise ZeroDivisionError("by zero")

    def hangs() -> Iterator[Finding]:
        never.wait()
        yield ok("hangs", "never")

    slow = checks.share("the answer", lambda: never.wait())
    failed = checks.share("another one", lambda: 1 // 0)
    checks.start("A", "hangs", hangs)
    checks.start("A", "crashes", crashes)
    checks.start("B", "fine", lambda: [ok("fine", "yes")])
    checks.start("B", "needs it", lambda: [ok("needs it", str(slow.get()))])
    checks.start("B", "needs another", lambda: [ok("needs another", str(failed.get()))])
    began = time.monotonic()
    first, second = checks.sections()
    assert time.monotonic() - began < 60
    never.set()
    assert [(finding.check, finding.level) for finding in first.findings] == [
        ("hangs", "skipped"),
        ("crashes", "ok"),
        ("crashes", "problem"),
    ]
    assert "no answer within 1 s" in first.findings[0].message
    assert "ZeroDivisionError" in first.findings[2].message
    assert [(finding.check, finding.level) for finding in second.findings] == [
        ("fine", "ok"),
        ("needs it", "skipped"),
        ("needs another", "skipped"),
    ]


def test_secrets_are_blotted_out_of_whatever_a_check_says() -> None:
    finding = problem("x", "the password is abc-def", "abc-defg", "curl -H abc").without({"abc", "abc-defg", ""})
    assert finding == Finding("x", "problem", "the password is …-def", "…", "curl -H …")


# -- devices: what torch would say stands in, since the machine that tests has no GPU --------------------------------
def answers_of(**devices: Any) -> dict[str, Any]:
    usual = {"driver": "", "nodes": [], "warnings": [], "built_for": ["sm_75", "sm_90"], "usable": []}
    return {"torch": TORCH, "devices": {"part": "devices", "value": {**usual, **devices}}}


HARDWARE = {"driver": "NVRM version: NVIDIA UNIX x86_64 Kernel Module 470.1", "nodes": ["nvidia0"]}
GPU = {"name": "NVIDIA A10G", "capability": "8.6", "free": 20e9, "total": 24e9}
TOO_OLD = "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040)."


@pytest.mark.parametrize(
    ("devices", "wanted", "level", "words"),
    [
        ({}, "auto", "note", "no NVIDIA device"),
        ({}, "cuda", "problem", "NEXTMASK_DEVICE = 'cuda' is not available"),
        ({**HARDWARE, "warnings": [TOO_OLD]}, "auto", "warning", "too old"),
        ({**HARDWARE, "warnings": [TOO_OLD]}, "cuda:0", "problem", "too old"),
        ({**HARDWARE}, "cpu", "note", "cannot use"),
        ({**HARDWARE, "usable": [GPU]}, "auto", "ok", "20.0 GB of 24.0 GB free"),
        ({**HARDWARE, "usable": [GPU | {"free": 1e9}]}, "auto", "warning", "1.0 GB of 24.0 GB free"),
        ({**HARDWARE, "usable": [GPU]}, "cuda:1", "problem", "cuda:1"),
        (
            {**HARDWARE, "usable": [GPU | {"capability": "3.7", "error": "no kernel image is available"}]},
            "auto",
            "problem",
            "compute capability 3.7 cannot be computed on: no kernel image",
        ),
    ],
)
def test_what_is_said_of_devices(devices: dict[str, Any], wanted: str, level: str, words: str) -> None:
    finding = next(torch_setup.check_device(answers_of(**devices), wanted))
    assert finding.level == level, finding
    assert words in finding.message
    assert bool(finding.remedy) == (level in ("warning", "problem"))


def test_a_build_of_torch_without_cuda_is_told_where_there_is_a_gpu() -> None:
    answers = answers_of(**HARDWARE)
    answers["torch"] = {"part": "torch", "value": {"version": "2.15.0+cpu", "cuda": None, "threads": 4}}
    (finding,) = torch_setup.check_device(answers, "auto")
    assert finding.level == "warning"
    assert "built without CUDA" in finding.message
    assert "pytorch.org" in finding.remedy


def test_the_probe_of_this_machine_and_weights_that_cannot_be_had(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, encoder="resnet18", encoder_weights="imagenet")
    # No site answers there: what a machine without the internet sees.
    answers = torch_setup.probe(settings, SLOW, {"HTTPS_PROXY": NOBODY, "HTTP_PROXY": NOBODY, "HF_HOME": str(tmp_path)})
    assert only(torch_setup.check_packages(answers), "packages").level == "ok"
    assert next(torch_setup.check_device(answers, "cpu")).level in ("ok", "note")
    (weights,) = torch_setup.check_network(answers, settings)
    assert weights.level == "problem"
    assert "NEXTMASK_ENCODER_WEIGHTS = 'imagenet' cannot be had for NEXTMASK_ENCODER = 'resnet18'" in weights.message
    assert "NEXTMASK_ENCODER_WEIGHTS=bundled" in weights.remedy


def test_names_that_do_not_exist_are_told(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, strategy="entropie")
    (finding,) = torch_setup.check_network(torch_setup.probe(settings, SLOW), settings)
    assert finding.level == "problem"
    assert "entropie" in finding.message


def test_a_probe_that_hangs_tells_what_it_got_to(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("import time\ntime.sleep(600)")
    answers = torch_setup.probe(make_settings(tmp_path), 5.0, {"PYTHONPATH": str(tmp_path)})
    (package,) = torch_setup.check_packages(answers)
    # A slow machine looks the same, and is no fault.
    assert package.level == "skipped"
    assert "still being tried (torch) after 5 s" in package.message
    assert "--timeout" in package.remedy
    with pytest.raises(Missing):
        list(torch_setup.check_device(answers, "auto"))


# -- disk ------------------------------------------------------------------------------------------------------------
def test_room_is_compared_with_what_versions_and_images_will_take(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, image_cache_bytes=10_000_000)
    assert [finding.level for finding in check_folder(settings)] == ["ok"]
    free = shutil.disk_usage(tmp_path).free
    (cache,) = check_folder(make_settings(tmp_path, image_cache_bytes=2 * free))
    assert cache.level == "warning"
    assert "NEXTMASK_IMAGE_CACHE_BYTES" in cache.remedy
    # A sparse file: it says that it is large, and takes nothing.
    version = tmp_path / "projects" / "7" / "model" / "1"
    version.mkdir(parents=True)
    with (version / "weights.safetensors").open("wb") as file:
        file.truncate(free)
    (room,) = check_folder(settings)
    assert (room.check, room.level) == ("disk", "problem")
    assert "the next model version takes" in room.message


FULL = """
import sys
from pathlib import Path
from ml_backend.doctor.installation.disk import check_folder
from ml_backend.settings import load_settings
for finding in check_folder(load_settings(model_dir=Path(sys.argv[1]))):
    print(finding.check, finding.level, finding.message)
"""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("size=64k", "No space left on device"),
        ("size=64k,nr_inodes=2", "inodes of its disk are used"),
        ("ro", "Read-only file system"),
    ],
)
def test_a_disk_that_is_full_or_read_only(tmp_path: Path, options: str, words: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    fill = "" if "ro" in options else f"touch {disk}/a 2>/dev/null; head -c 1000000 /dev/zero >{disk}/b 2>/dev/null; "
    script = f"mount -t tmpfs -o {options} none {disk} && {{ {fill}exec {sys.executable} -c '{FULL}' {disk}; }}"
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, check=False)
    if done.returncode and "unshare" in done.stderr + done.stdout:
        pytest.skip(f"no disk of its own can be mounted here: {done.stderr}")
    assert "problem" in done.stdout, done.stderr
    assert words in done.stdout


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    (finding,) = check_folder(make_settings(tmp_path / "state"))
    assert finding.level == "problem"
    assert "is a file" in finding.message


# -- state database --------------------------------------------------------------------------------------------------
@pytest.fixture
def database(tmp_path: Path) -> Path:
    settings = make_settings(tmp_path)
    Store(settings.effective_database_url).close()
    return tmp_path / "nextmask.sqlite3"


def database_finding(folder: Path) -> Finding:
    (finding,) = check_database(make_settings(folder))
    return finding


def test_the_database_is_looked_at_and_left_as_it_is(tmp_path: Path) -> None:
    assert database_finding(tmp_path).level == "note"
    assert not list(tmp_path.iterdir())
    writing = make_services(tmp_path).store
    writing.wake(7)
    writing.close()  # not when it is collected, which writes to the file, too
    before = (tmp_path / "nextmask.sqlite3").read_bytes()
    assert database_finding(tmp_path).level == "ok"
    assert (tmp_path / "nextmask.sqlite3").read_bytes() == before
    store = open_store(make_settings(tmp_path))
    assert [project.id for project in store.projects()] == [7]
    store.close()


def test_a_locked_database(database: Path) -> None:
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        finding = database_finding(database.parent)
    assert finding.level == "problem"
    assert "locked" in finding.message


def test_a_damaged_database(database: Path) -> None:
    content = bytearray(database.read_bytes())
    content[4096:] = b"\x5a" * (len(content) - 4096)
    database.write_bytes(content)
    finding = database_finding(database.parent)
    assert finding.level == "problem", finding
    assert "move" in finding.remedy
    database.write_bytes(b"not a database at all" * 500)
    assert database_finding(database.parent).level == "problem"


def test_databases_of_other_releases(database: Path) -> None:
    schema = schema_at(database)
    table, column = ("alembic_version", "version_num") if schema.get("alembic_version") else ("meta", "value")
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(f"UPDATE {table} SET {column} = '9999'")
        connection.commit()
    finding = database_finding(database.parent)
    assert finding.level == "problem"
    assert "9999" in finding.message
    with pytest.raises(Missing):
        open_store(make_settings(database.parent))


def of_postgresql(folder: Path, url: str) -> Finding:
    (finding,) = check_database(make_settings(folder, database_url=url))
    return finding


def test_postgresql_is_looked_at_and_left_as_it_is(
    tmp_path: Path, postgresql_url: str, empty_postgresql_url: str
) -> None:
    assert of_postgresql(tmp_path, postgresql_url).level == "ok"
    assert "database-password" not in of_postgresql(tmp_path, postgresql_url).message
    open_store(make_settings(tmp_path, database_url=postgresql_url)).close()

    finding = of_postgresql(tmp_path, empty_postgresql_url)
    assert (finding.level, "no tables yet" in finding.message) == ("note", True)
    with pytest.raises(Missing, match="no tables yet"):
        open_store(make_settings(tmp_path, database_url=empty_postgresql_url))
    engine = sa.create_engine(empty_postgresql_url)
    with engine.begin() as connection:
        assert upgrade(connection, None, "0005")
    engine.dispose()
    finding = of_postgresql(tmp_path, empty_postgresql_url)
    assert (finding.level, "(schema 0005)" in finding.message, "pg_dump" in finding.remedy) == ("note", True, True)
    assert look_at_schema(empty_postgresql_url) == "0005"
    execute(empty_postgresql_url, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreError, match="schema 9999"):
        of_postgresql(tmp_path, empty_postgresql_url)


@pytest.mark.parametrize(("ahead", "words"), [(300.0, "300 s ahead of"), (-300.0, "300 s behind")])
def test_a_clock_of_postgresql_that_is_wrong(tmp_path: Path, postgresql_url: str, ahead: float, words: str) -> None:
    set_database_clock(postgresql_url, ahead=ahead)
    finding = of_postgresql(tmp_path, postgresql_url)
    assert (finding.level, words in finding.message, "NTP" in finding.remedy) == ("warning", True, True)


# -- server ----------------------------------------------------------------------------------------------------------
@pytest.fixture
def other_program() -> Iterator[str]:
    """A web server that is neither Label Studio nor nextmask."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>It works!</html>")

        def log_message(self, *_arguments: object) -> None:
            pass

    with answering(Handler) as address:
        yield address


def test_a_server_that_is_not_there_or_is_another_program(tmp_path: Path, other_program: str) -> None:
    absent = list(check_server(make_settings(tmp_path, backend_url=NOBODY, port=9), None, ""))
    assert [finding.level for finding in absent] == ["problem"]
    assert "nextmask serve" in absent[0].remedy
    (other,) = check_server(make_settings(tmp_path, backend_url=other_program), None, "")
    assert "not nextmask" in other.message
    dotless = next(check_server(make_settings(tmp_path, backend_url="http://ml-backend:9"), None, ""))
    assert (dotless.check, dotless.level) == ("backend address", "problem")
    assert "nextmask.local" in dotless.remedy


def test_another_program_at_the_address_of_label_studio(tmp_path: Path, other_program: str) -> None:
    settings = make_settings(tmp_path, label_studio_url=other_program)
    finding = check_address(settings, ask(other_program))
    assert finding.level == "problem"
    assert "(200) is not Label Studio" in finding.message


# -- worker ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("silence", "lease", "level", "words"),
    [
        (10.0, None, "ok", "box:7 gave a sign of life 10 s ago"),
        (900.0, None, "problem", "a sign of life for 15 min"),
        (900.0, "box:7:ab", "problem", "(box:7:ab) ended while it worked on project 65"),
        (None, None, "problem", "No worker runs"),
    ],
)
def test_signs_of_life_of_a_worker(
    tmp_path: Path, silence: float | None, lease: str | None, level: str, words: str
) -> None:
    services = make_services(tmp_path)
    services.store.wake(PROJECT, lease_owner=lease)
    signs = [] if silence is None else [WorkerSign("box:7", 1000.0, silence)]
    finding = check_worker(services.store.projects(), signs)
    assert finding.level == level, finding
    assert words.casefold() in finding.message.casefold()
    assert check_worker([], []).level == "skipped"


def test_of_several_workers_the_silent_ones_are_named() -> None:
    signs = [WorkerSign("a:1", 99.0, 1.0), WorkerSign("b:1", 98.0, 2.0), WorkerSign("b:2", 0.0, 600.0)]
    finding = check_worker([], signs)
    assert (finding.level, finding.message) == (
        "ok",
        "2 run; a:1 gave a sign of life 1 s ago; silent: b:2 for 10 min",
    )


# -- Label Studio ----------------------------------------------------------------------------------------------------
def test_releases_are_compared_as_numbers() -> None:
    assert check_release("1.23.2").level == "ok"
    assert check_release("1.9.2").level == "warning"
    assert check_release("1.23.10").level == "note"
    assert check_release("2.0.0.dev1+abc").level == "note"


def test_clocks_that_are_apart() -> None:
    assert check_clock(-59.0).level == "ok"
    assert "90 s ahead" in check_clock(90.0).message
    assert "3600 s behind" in check_clock(-3600.0).message
    assert clock_offset("Fri, 27 Nov 2026 12:00:00 GMT", 1795780800.2, 1795780800.4) == 0.0
    assert clock_offset("Fri, 27 Nov 2026 12:05:00 GMT", 1795780800.2, 1795780800.4) == pytest.approx(299.6)


def test_rights_that_a_host_lists() -> None:
    assert check_rights({"email": "a@b.c"}).level == "ok"
    finding = check_rights({"email": "a@b.c", "permissions": ["projects.view", "tasks.view"]})
    assert finding.level == "problem"
    assert "projects.change" in finding.message


def test_a_report_without_projects_or_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_setup, "probe", lambda *_: answers_of())
    report = examine(make_settings(tmp_path), [], 7, seconds=60)
    titles = [section.title for section in report.sections]
    assert titles == ["nextmask on this machine", "Label Studio", "Project 7"]
    levels = {finding.check: finding.level for section in report.sections for finding in section.findings}
    assert (levels["address"], levels["token"], levels["project"], levels["images"]) == ("problem", *["skipped"] * 3)
    assert not report.healthy
    assert not (tmp_path / "nextmask.sqlite3").exists()
