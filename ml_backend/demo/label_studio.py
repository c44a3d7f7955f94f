"""A Label Studio of our own: started, watched and stopped as a child process.

Needs a POSIX system. The child has a process group and a data folder of its own; the folder keeps users, projects
and annotations between starts.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import IO

from ml_backend.errors import ConfigurationError, LabelStudioUnavailable
from ml_backend.label_studio.client import TESTED_RELEASE

ENVIRONMENT = ".venv-label-studio"
LOG_NAME = "label-studio.log"
_LOOPBACK = "127.0.0.1"
_LEASH = Path(__file__).with_name("leash.py")
_LOCK_SECONDS = 3.0
_POLL_SECONDS = 0.25
GRACE_SECONDS = 5.0
"""Label Studio has so long to end before it is killed."""
_TAIL_LINES = 15

# Label Studio reads more than a hundred variables, among them bare names such as HOST, PORT, DEBUG and LOG_LEVEL,
# and a proxy would come between it and nextmask: these are passed on, and nothing else.
_INHERITED = (
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR"),
    *("LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR"),
)


class LabelStudioHost:
    """One Label Studio process.

    Start it from a thread that lives as long as Label Studio shall: on Linux the kernel ends it with the thread that
    started it, which is what leaves no orphan even after kill -9.

    Attributes:
        url: where it answers.
        log: file with what it has written since its last start.
    """

    def __init__(
        self,
        command: Path,
        folder: Path,
        port: int,
        document_root: Path,
        *,
        username: str,
        password: str,
        token: str,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Remembers how to start it.

        Args:
            command: the label-studio program, see `find_label_studio`.
            folder: its data; a folder that was used before brings its users and projects back.
            port: a free port on this machine, see `free_port`.
            document_root: folder below which tasks may name local files.
            username: e-mail address of the user who is made at the first start.
            password: of that user.
            token: legacy token of that user, 40 hexadecimal digits.
            environment: variables of Label Studio that differ from what the demo needs.
        """
        self.command, self.folder, self.port, self.document_root = command, folder.absolute(), port, document_root
        self.username, self._password, self._token = username, password, token
        self._changes = dict(environment or {})
        self.url = f"http://localhost:{port}"
        self.log = self.folder / LOG_NAME
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, timeout: float = 300.0) -> None:
        """Starts Label Studio and returns when it answers: after 10 to 40 s, longer at the first start.

        Args:
            timeout: seconds after which to give up.

        Raises:
            ConfigurationError: the port or the folder is in use, or the command cannot be run.
            LabelStudioUnavailable: it ended, or did not answer in time; the message has the end of its log.
        """
        if self._process is not None:
            raise ConfigurationError(f"Label Studio at {self.url} is running already: stop it first")
        if port_in_use(self.port):
            raise ConfigurationError(f"port {self.port} is in use: stop the program that uses it or take another port")
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._lock_folder(log)
            log.truncate(0)
            _keep_secret_key(self.folder / ".env")
            self._process = self._launch(log)
        try:
            self._wait_until_healthy(self._process, timeout)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends Label Studio and all it has started, within 10 s; does nothing when it is not running."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            _signal_group(process, signal.SIGTERM)
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            pass  # it gets the signal that it cannot ignore
        finally:
            _signal_group(process, signal.SIGKILL)
            process.wait()

    @contextlib.contextmanager
    def running(self, *, timeout: float = 300.0) -> Iterator[LabelStudioHost]:
        """Starts it for the length of a block, and stops it however the block ends, SIGTERM included.

        Raises:
            ConfigurationError: as `start`.
            LabelStudioUnavailable: as `start`.
        """
        with sigterm_as_exit():
            self.start(timeout=timeout)
            try:
                yield self
            finally:
                self.stop()

    @property
    def pid(self) -> int | None:
        """The process id of Label Studio, which leads the group of all that it started; None where it does not run."""
        return self._process.pid if self._process else None

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def log_tail(self, lines: int = _TAIL_LINES) -> str:
        """Returns the last lines of the log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def _lock_folder(self, log: IO[bytes]) -> None:
        """Locks the log file: the child inherits the lock and holds it for life, even when we are killed."""
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError as error:
                # A Label Studio that was just stopped may have children that still run.
                if time.monotonic() > deadline:
                    raise ConfigurationError(
                        f"another Label Studio uses the folder {self.folder}: stop it or take another folder"
                    ) from error
                time.sleep(_POLL_SECONDS)

    def _launch(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        if not os.access(self.command, os.X_OK):
            raise ConfigurationError(f"{self.command} is not a program that can be run: {_how_to_install()}")
        leash = [sys.executable, "-I", str(_LEASH), str(os.getpid())]
        command = [str(self.command.absolute()), "start", "--no-browser"]
        address = ["--internal-host", _LOOPBACK, "--port", str(self.port)]
        return subprocess.Popen(  # noqa: S603 - an argument list; the program that the user chose
            [*leash, *command, *address],
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def environment(self) -> dict[str, str]:
        """Returns the variables of the child: ours, and of the user's only those of the machine and the locale."""
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        return inherited | {
            "LABEL_STUDIO_BASE_DATA_DIR": str(self.folder),
            # In the environment, not on the command line, which every user of the machine can read.
            "LABEL_STUDIO_USERNAME": self.username,
            "LABEL_STUDIO_PASSWORD": self._password,
            "LABEL_STUDIO_USER_TOKEN": self._token,
            "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
            "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
            "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(self.document_root.absolute()),
            # A backend on this machine is refused without both.
            "ML_BLOCK_LOCAL_IP": "false",
            "SSRF_PROTECTION_ENABLED": "false",
            # Importing predictions takes time in proportion to the whole project without it.
            "fflag_fix_back_4620_memory_efficient_predictions_import_08012025_short": "true",
            # Nothing is sent anywhere.
            "COLLECT_ANALYTICS": "false",
            "LATEST_VERSION_CHECK": "false",
            "SENTRY_DSN": "",
            "FRONTEND_SENTRY_DSN": "",
            "PYTHONUNBUFFERED": "1",
            "PYTHONSAFEPATH": "1",  # nothing is imported from the folder of its data
            **self._changes,
        }

    def _wait_until_healthy(self, process: subprocess.Popen[bytes], timeout: float) -> None:
        begin = time.monotonic()
        while not _healthy(self.port):
            seconds = time.monotonic() - begin
            if process.poll() is not None:
                raise LabelStudioUnavailable(self._failure(f"ended with exit code {process.returncode}"))
            if seconds > timeout:
                raise LabelStudioUnavailable(self._failure(f"did not answer at {self.url} within {timeout:.0f} s"))
            time.sleep(_POLL_SECONDS)

    def _failure(self, what: str) -> str:
        tail = self.log_tail() or "(it wrote nothing)"
        return f"Label Studio {what}; see {self.log}, which ends with:\n{tail}"


def _keep_secret_key(file: Path) -> None:
    """Gives Label Studio a key that it can read again, so that sessions and tokens outlive its next start.

    Of the keys that it makes itself one in fifty begins with a dollar sign. At each start it takes such a key for
    the name of another variable, finds none and makes a new key (1.23.2), which signs everybody out.
    """
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    keys = [line.partition("=")[2] for line in lines if line.startswith("SECRET_KEY=")]
    if not keys or keys[-1].startswith("$"):
        file.touch(mode=0o600)
        with file.open("a", encoding="utf-8") as appended:
            appended.write(f"\nSECRET_KEY={secrets.token_urlsafe(48)}\n")


def find_label_studio(option: Path | None = None) -> Path:
    """Returns the label-studio program.

    Looks at the option `--label-studio`, then for the environment `.venv-label-studio` in the working directory or
    beside the environment that runs nextmask, then in PATH.

    Raises:
        ConfigurationError: it is in none of these places; the message has the commands that install it.
    """
    if option is not None:
        if not option.is_file() or not os.access(option, os.X_OK):
            raise ConfigurationError(f"--label-studio {option} is not a program that can be run: {_how_to_install()}")
        return option.absolute()
    for place in (Path.cwd(), Path(sys.prefix).parent):
        program = place / ENVIRONMENT / "bin" / "label-studio"
        if program.is_file() and os.access(program, os.X_OK):
            return program
    in_path = shutil.which("label-studio")
    if in_path is None:
        raise ConfigurationError(f"Label Studio is not installed: {_how_to_install()}")
    return Path(in_path).absolute()


def free_port() -> int:
    """Returns a port of this machine that no program uses now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((_LOOPBACK, 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def sigterm_as_exit() -> Iterator[None]:
    """Makes SIGTERM raise SystemExit in the block, so that `finally` runs; does so in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    previous = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _how_to_install() -> str:
    return (
        "install it into an environment of its own with these two commands, or name it with --label-studio:\n"
        f"    python3 -m venv {ENVIRONMENT}\n"
        f"    {ENVIRONMENT}/bin/pip install label-studio=={TESTED_RELEASE}"
    )


def port_in_use(port: int) -> bool:
    """Returns whether a program listens on the port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((_LOOPBACK, port)) == 0


def _healthy(port: int) -> bool:
    connection = http.client.HTTPConnection(_LOOPBACK, port, timeout=5.0)
    with contextlib.closing(connection):
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # all gone; macOS says the latter of zombies
        os.killpg(process.pid, number)
