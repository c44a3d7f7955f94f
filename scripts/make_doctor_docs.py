"""Writes what `nextmask doctor` says into docs/doctor.md: of a healthy installation, and of a broken one.

    python scripts/make_doctor_docs.py                                # starts a Label Studio of its own
    python scripts/make_doctor_docs.py --url http://… --token TOKEN   # uses one that runs, see CONTRIBUTING.md

The examples stand between two markers each; the text around them is written by hand and stays. Ports, folders and the
project's number are replaced by those of the documentation; nothing else is.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import requests

from ml_backend.datasets import label_config, sample_dataset
from ml_backend.demo.label_studio import LabelStudioHost, find_label_studio, free_port
from ml_backend.label_studio import LabelStudio

PAGE = Path(__file__).resolve().parent.parent / "docs" / "doctor.md"
BEGIN = "<!-- {}: made by scripts/make_doctor_docs.py, do not edit by hand -->"
END = "<!-- end of {} -->"
TOKEN = "0123456789abcdef0123456789abcdef01234567"
NO_COLOURS = re.compile(r' background="[^"]*"')
PATIENCE = 300
WORKER_SECONDS = 35


class Installation:
    """A nextmask with its own folder, beside a Label Studio."""

    def __init__(self, folder: Path, url: str, token: str) -> None:
        self.folder, self.url, self.port = folder, url, free_port()
        self.client = LabelStudio(url, token, timeout=120)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("NEXTMASK_")},
            "LABEL_STUDIO_URL": url,
            "LABEL_STUDIO_API_KEY": token,
            "MODEL_DIR": str(folder / "state"),
            "NEXTMASK_PORT": str(self.port),
            "NEXTMASK_IMAGE_CACHE_BYTES": "1000000000",
        }

    def run(self, *arguments: str, **environment: str) -> str:
        """Run a command and return what it prints."""
        command = [sys.executable, "-m", "ml_backend", *arguments]
        variables = {**self.environment, **environment}
        done = subprocess.run(command, env=variables, cwd=self.folder, capture_output=True, text=True, check=False)
        if done.returncode and arguments[0] != "doctor":
            raise SystemExit(f"nextmask {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Let nextmask serve run for the length of a block."""
        command = [sys.executable, "-m", "ml_backend", "serve"]
        with (self.folder / "log").open("wb") as log:
            process = subprocess.Popen(command, env=self.environment, cwd=self.folder, stdout=log, stderr=log)
        try:
            wait(self.answers, "nextmask serve")
            yield
        finally:
            process.terminate()
            process.wait()

    def answers(self) -> bool:
        """Whether the server is up."""
        try:
            return requests.get(f"http://127.0.0.1:{self.port}/health", timeout=10).ok
        except requests.RequestException:
            return False

    def published(self, project: int) -> bool:
        """Whether a project has its queue."""
        status = json.loads(self.run("status", str(project), "--json"))
        return bool(status["version"]) and status["state"] == "waiting"

    def doctor(self, project: int, **environment: str) -> str:
        """Return what it says, with the addresses and numbers of the documentation."""
        text = self.run("doctor", str(project), "--timeout", str(PATIENCE), **environment)
        text = text.replace(self.url, "http://localhost:8080").replace(f":{self.port}", ":9090")
        text = text.replace(str(self.folder / "state"), "/srv/nextmask")
        return re.sub(rf"((?:[Pp]roject|connect|rank) |projects/){project}\b", r"\g<1>7", text).strip()


def wait(done: Callable[[], bool], name: str) -> None:
    """Wait until something has come."""
    until = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > until:
            raise SystemExit(f"{name} did not come within {PATIENCE} s")
        time.sleep(0.5)


def examples(installation: Installation) -> dict[str, str]:
    """Make a project healthy, break it, and return what doctor says of each."""
    client, data = installation.client, sample_dataset()
    project = int(client.create_project(title="Cells", label_config=label_config(data, "BrushLabels"))["id"])
    client.upload_images(project, [sample.image for sample in data.splits["train"][:12]])
    try:
        with installation.serving():
            installation.run("connect", str(project), "--set", "strategy=random")
            installation.run("connect", str(project), "--set", "strategy=null")
            wait(lambda: installation.published(project), "the first queue")
            healthy = installation.doctor(project)
        time.sleep(WORKER_SECONDS)  # until then, the worker that was just stopped may be between two signs of life
        (webhook,) = client.webhooks(project)
        client.update_webhook(webhook["id"], actions=webhook["actions"], headers={})
        bare = NO_COLOURS.sub("", str(client.project(project)["label_config"]))
        client.update_project(project, label_config=bare, sampling="Sequential sampling", maximum_annotations=2)
        client.update_project(project, model_version="nextmask")
        client.import_tasks(project, [{"data": {"image": "/data/local-files/?d=cells/13.png"}}])
        broken = installation.doctor(project, NEXTMASK_DEVICE="cuda", NEXTMASK_INPUT_SIZE="7")
    finally:
        client.transport.json("DELETE", f"/api/projects/{project}/")
    return {"healthy": healthy, "broken": broken}


def updated(page: str, texts: dict[str, str]) -> str:
    """Return the page with these examples in it."""
    for name, text in texts.items():
        begin, end = BEGIN.format(name), END.format(name)
        before, _, rest = page.partition(begin)
        page = f"{before}{begin}\n\n```text\n{text}\n```\n\n{end}{rest.partition(end)[2]}"
    return page


def main() -> None:
    """Make the examples and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="address of a Label Studio that runs; else one is started")
    parser.add_argument("--token", help="token for it", default=TOKEN)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder, url = Path(name), options.url
        if url is None:
            login = {"username": "admin@nextmask.local", "password": "nextmask-password", "token": TOKEN}
            host = LabelStudioHost(find_label_studio(), folder / "studio", free_port(), folder, **login)
            url = stack.enter_context(host.running()).url
        PAGE.write_text(updated(PAGE.read_text(), examples(Installation(folder, url, options.token))))


if __name__ == "__main__":
    main()
