"""One S3 server for all tests that want an object store, started once; each test gets a prefix of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
import requests
from processes import wait_for

from ml_backend.demo.label_studio import free_port

PROGRAM = Path(".venv-cloud", "bin", "moto_server")
_BUCKET = "nextmask-files"


@dataclass(frozen=True)
class ObjectStore:
    """An S3 server on this machine that lets everybody in.

    Attributes:
        url: its address.
    """

    url: str

    def make_bucket(self, name: str) -> None:
        assert requests.put(f"{self.url}/{name}", timeout=30).ok

    def prefix(self) -> str:
        """Return the address of an empty place in its bucket."""
        return f"s3://{_BUCKET}/{uuid4().hex}"

    def keys(self, address: str) -> set[str]:
        """Return the keys below an address, without nextmask's help."""
        bucket, _, prefix = address.removeprefix("s3://").partition("/")
        answer = requests.get(f"{self.url}/{bucket}", params={"prefix": f"{prefix}/", "list-type": "2"}, timeout=30)
        parts = answer.text.split("<Key>")[1:]
        return {part.partition("</Key>")[0].removeprefix(f"{prefix}/") for part in parts}

    def environment(self) -> dict[str, str]:
        """Return the variables with which Amazon's libraries find it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "nextmask",
            "AWS_SECRET_ACCESS_KEY": "not-a-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """An S3 server on this machine."""
    program = Path.cwd() / PROGRAM
    if not program.is_file():
        pytest.fail("The S3 server is not installed; run: make .venv-cloud/.installed")
    port = free_port()
    log = tmp_path_factory.mktemp("s3") / "moto.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, "-H", "127.0.0.1", "-p", str(port)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={"PATH": os.environ["PATH"]},
        )
    store = ObjectStore(f"http://127.0.0.1:{port}")
    try:
        wait_for(lambda: _answers(store.url), name=f"the S3 server; log: {log}")
        store.make_bucket(_BUCKET)
        yield store
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def bucket_url(s3: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty place in an object store, which this process and its children may use."""
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    return s3.prefix()


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).status_code < 500
    except requests.ConnectionError:
        return False
