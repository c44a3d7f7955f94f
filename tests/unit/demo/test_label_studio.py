"""The life of the Label Studio process, with a small program in its place; the real one is started in
tests/live/test_demo.py."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ml_backend.demo.label_studio import LOG_NAME, LabelStudioHost, find_label_studio, free_port, sigterm_as_exit
from ml_backend.errors import ConfigurationError, LabelStudioUnavailable

SERVES = """
import http.server, json, os, subprocess, sys
print("starting", flush=True)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
told = {"environment": dict(os.environ), "arguments": sys.argv[1:], "pid": os.getpid(), "child": child.pid}
with open("seen.json", "w") as file:
    json.dump(told, file)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""
IGNORES_SIGTERM = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SERVES
DIES = "import sys\nprint('no such table: projects')\nsys.exit(3)\n"
NEVER_ANSWERS = "import time\nprint('Initializing database..', flush=True)\ntime.sleep(60)\n"

Start = Callable[[str], LabelStudioHost]


@pytest.fixture
def host(tmp_path: Path) -> Start:
    """Makes a host whose program is the given script."""

    def make(script: str) -> LabelStudioHost:
        program = tmp_path / "label-studio"
        program.write_text(f"#!{sys.executable}\n{script}")
        program.chmod(0o755)
        return LabelStudioHost(
            program,
            tmp_path / "data",
            free_port(),
            tmp_path,
            username="a@b.co",
            password="secret-password",
            token="0" * 40,
        )

    return make


def gone(pid: int, seconds: float = 10.0) -> bool:
    """Whether a process ends within some seconds; a zombie has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except ProcessLookupError:
            return True
        except FileNotFoundError:
            pass  # ended just now, or a system without /proc: the next signal tells
        time.sleep(0.05)
    return False


def seen(host: LabelStudioHost) -> dict[str, dict[str, str]]:
    return json.loads((host.folder / "seen.json").read_text())


def test_starts_and_stops_with_all_its_children(host: Start) -> None:
    label_studio = host(SERVES)
    with label_studio.running() as running:
        assert running.alive
        pid, child = seen(running)["pid"], seen(running)["child"]
        with pytest.raises(ConfigurationError, match="running already"):
            running.start()
    assert gone(pid)
    assert gone(child)
    assert not label_studio.alive
    label_studio.stop()  # a second time does nothing


def test_the_environment_of_the_user_does_not_reach_it(host: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LABEL_STUDIO_HOST", "DJANGO_DB", "PYTHONPATH", "VIRTUAL_ENV", "HOST", "http_proxy", "DATABASE_URL"):
        monkeypatch.setenv(name, "disturbs")
    label_studio = host(SERVES)
    with label_studio.running():
        environment, arguments = seen(label_studio)["environment"], seen(label_studio)["arguments"]
    assert "disturbs" not in environment.values()
    assert environment["PATH"] == os.environ["PATH"]
    assert environment["LABEL_STUDIO_BASE_DATA_DIR"] == str(label_studio.folder)
    assert environment["LABEL_STUDIO_USER_TOKEN"] == "0" * 40
    assert environment["ML_BLOCK_LOCAL_IP"] == environment["SSRF_PROTECTION_ENABLED"] == "false"
    assert arguments[:2] == ["start", "--no-browser"]
    assert "secret-password" not in arguments  # everybody can read the command line of a process


def test_one_that_ignores_sigterm_is_killed(host: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ml_backend.demo.label_studio.GRACE_SECONDS", 0.5)
    label_studio = host(IGNORES_SIGTERM)
    label_studio.start()
    begin = time.monotonic()
    label_studio.stop()
    assert 0.5 < time.monotonic() - begin < 5
    assert gone(seen(label_studio)["pid"])


def test_death_is_reported_with_the_log(host: Start) -> None:
    label_studio = host(DIES)
    with pytest.raises(LabelStudioUnavailable, match=r"(?s)exit code 3; see .*no such table: projects"):
        label_studio.start()
    assert not label_studio.alive


def test_silence_is_reported_with_the_log(host: Start) -> None:
    label_studio = host(NEVER_ANSWERS)
    with pytest.raises(LabelStudioUnavailable, match=r"(?s)within 1 s; see .*Initializing database"):
        label_studio.start(timeout=1)
    assert not label_studio.alive


def test_a_port_in_use(host: Start) -> None:
    label_studio = host(SERVES)
    in_use = pytest.raises(ConfigurationError, match=f"port {label_studio.port} is in use")
    with socket.create_server(("127.0.0.1", label_studio.port)), in_use:
        label_studio.start()
    assert not (label_studio.folder / LOG_NAME).exists()


def test_a_folder_in_use(host: Start) -> None:
    first, second = host(SERVES), host(SERVES)
    with first.running():
        with pytest.raises(ConfigurationError, match="another Label Studio uses the folder"):
            second.start()
        assert first.log_tail()  # its log is still there
    with second.running():
        assert second.alive


def test_an_interrupted_start_leaves_nothing(host: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    label_studio = host(NEVER_ANSWERS)
    processes = []

    def interrupt(_seconds: float) -> None:
        processes.append(label_studio.pid)
        raise KeyboardInterrupt

    with monkeypatch.context() as waiting:
        waiting.setattr("ml_backend.demo.label_studio.time.sleep", interrupt)  # Ctrl-C while it waits
        with pytest.raises(KeyboardInterrupt):
            label_studio.start()
    assert gone(processes[0])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_orphan_when_we_are_ended(host: Start, tmp_path: Path, number: signal.Signals) -> None:
    if number == signal.SIGKILL and sys.platform != "linux":
        pytest.skip("only Linux ends a child with its parent")
    label_studio = host(SERVES)
    script = f"""
    import pathlib, signal, time
    from ml_backend.demo.label_studio import LabelStudioHost
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it, and so would we
    host = LabelStudioHost(pathlib.Path({str(label_studio.command)!r}), pathlib.Path({str(label_studio.folder)!r}),
                           {label_studio.port}, pathlib.Path("."), username="a", password="b", token="c")
    with host.running():
        print("up", flush=True)
        time.sleep(60)
    """
    owner = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "up\n"
        owner.send_signal(number)
        assert owner.wait(10) != 0
    assert gone(seen(label_studio)["pid"])


def test_sigterm_runs_finally_and_the_old_handler_comes_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped, sigterm_as_exit():
        signal.raise_signal(signal.SIGTERM)
    assert stopped.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_find_prefers_the_option(tmp_path: Path) -> None:
    program = tmp_path / "label-studio"
    program.touch(mode=0o755)
    assert find_label_studio(program) == program
    with pytest.raises(ConfigurationError, match=r"--label-studio .*nowhere is not a program"):
        find_label_studio(tmp_path / "nowhere")


def test_find_looks_into_the_working_directory_then_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "elsewhere" / ".venv"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(ConfigurationError, match=r"python3 -m venv \.venv-label-studio\n.*pip install label-studio=="):
        find_label_studio()
    for folder in ("bin", "elsewhere/.venv-label-studio/bin", ".venv-label-studio/bin"):
        program = tmp_path / folder / "label-studio"
        program.parent.mkdir(parents=True)
        program.touch(mode=0o755)
        assert find_label_studio() == program


def keys(file: Path) -> list[str]:
    return [line.partition("=")[2] for line in file.read_text().splitlines() if line.startswith("SECRET_KEY=")]


@pytest.mark.parametrize("kept", ["", "OTHER=1\nSECRET_KEY=letters-1234\n"])
def test_the_secret_key_outlives_starts(host: Start, kept: str) -> None:
    label_studio = host(SERVES)
    file = label_studio.folder / ".env"
    file.parent.mkdir()
    if kept:
        file.write_text(kept)
    for _ in range(2):
        with label_studio.running():
            pass
    (key,) = keys(file)
    assert key == "letters-1234" if kept else (len(key) >= 50 and key[0] != "$")
    assert kept or file.stat().st_mode & 0o777 == 0o600


def test_a_secret_key_that_label_studio_would_lose_is_replaced(host: Start) -> None:
    label_studio = host(SERVES)
    file = label_studio.folder / ".env"
    file.parent.mkdir()
    file.write_text("SECRET_KEY=$5n+ra&u")
    for _ in range(2):
        with label_studio.running():
            pass
    lost, kept = keys(file)  # of two lines the last counts
    assert lost == "$5n+ra&u"
    assert len(kept) >= 50
