"""The commands of docker/compose.scale.yaml, run as the file has them: the bucket is made, Ray's head and node start.

Names of services become 127.0.0.2 and folders temporary ones, and ports and the object store are those of a test.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from object_store import ObjectStore
from processes import is_running, wait_for, with_descendants
from ray_cluster import ADDRESS, STORE_BYTES, TOKEN, missing

from ml_backend.demo.label_studio import free_port

ROOT = Path(__file__).resolve().parents[3]
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "docker" / "compose.scale.yaml").read_text())["services"]
BIN = Path(sys.executable).parent
COUNT = """
import sys
from ml_backend.cluster.connection import connect
print(connect(sys.argv[1], "cpu", fetches=True).nodes)
"""


def command(service: str, *more: str, **replaced: str) -> list[str]:
    """Return a service's command with some of its options replaced, which it must have, and others added."""
    program, *words = SERVICES[service]["command"]
    options = {f"--{name.replace('_', '-')}": value for name, value in replaced.items()}
    assert options.keys() <= {word.partition("=")[0] for word in words}
    changed = [f"{name}={options[name]}" if (name := word.partition("=")[0]) in options else word for word in words]
    return [str(BIN / program), *changed, *more]


def environment(service: str, **changed: str) -> dict[str, str]:
    """Return the environment of a service, and nothing of this process's but where programs are."""
    kept = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
    return {**kept, "PATH": f"{BIN}:{os.environ['PATH']}", **SERVICES[service].get("environment", {}), **changed}


def test_the_bucket_is_made_and_made_again(s3: ObjectStore, tmp_path: Path) -> None:
    credentials = tmp_path / "AWS_CREDENTIALS"
    credentials.write_text("[default]\naws_access_key_id = nextmask\naws_secret_access_key = not-a-secret\n")
    given = environment("bucket", AWS_ENDPOINT_URL=s3.url, AWS_SHARED_CREDENTIALS_FILE=str(credentials))
    name = SERVICES["worker"]["environment"]["MODEL_DIR"].split("/")[2]
    assert requests.head(f"{s3.url}/{name}", timeout=30).status_code == 404
    for _ in range(2):
        subprocess.run(command("bucket"), env=given, check=True, timeout=120)
        assert requests.head(f"{s3.url}/{name}", timeout=30).ok


@contextmanager
def running(words: list[str], given: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command until the block ends; then it ends as a container does, with all below it."""
    with log.open("wb") as output:
        process = subprocess.Popen(words, env=given, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield process
        below = with_descendants(process.pid)
        process.terminate()
        process.wait(30)
        wait_for(lambda: not any(map(is_running, below)), seconds=30, name="the end of all processes")
    finally:
        for pid in with_descendants(process.pid) if process.poll() is None else []:
            os.kill(pid, 9)
        process.wait(30)


def answers(port: int) -> bool:
    try:
        socket.create_connection((ADDRESS, port), 5).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(bool(missing()) and not os.environ.get("CI"), reason=missing())
def test_head_and_node_start_are_reached_and_end(tmp_path: Path) -> None:
    port, client, store = free_port(), free_port(), str(STORE_BYTES)
    token = tmp_path / "RAY_TOKEN"
    token.write_text(TOKEN["RAY_AUTH_TOKEN"])
    everywhere = {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "RAY_AUTH_TOKEN_PATH": str(token)}
    folder = tempfile.mkdtemp(prefix="ray-")  # Ray's sockets lie in it: their paths may have 107 characters
    here = (f"--node-ip-address={ADDRESS}", f"--temp-dir={folder}")
    shared = {"object_store_memory": store, "object_spilling_directory": str(tmp_path)}
    head = command("ray-head", *here, port=str(port), ray_client_server_port=str(client), **shared)
    node = command("ray-node", *here, address=f"{ADDRESS}:{port}", **shared)
    of_node = environment("ray-node", LABEL_STUDIO_API_KEY="token-of-the-node", **everywhere)
    try:
        with running(head, environment("ray-head", **everywhere), tmp_path / "head.log") as of_head:
            wait_for(lambda: of_head.poll() is not None or answers(client), seconds=240, name="Ray's head")
            assert of_head.poll() is None, (tmp_path / "head.log").read_text()
            with running(node, of_node, tmp_path / "node.log") as of_the_node:
                said = (tmp_path / "node.log").read_text
                wait_for(
                    lambda: of_the_node.poll() is not None or "Ray runtime started" in said(),
                    seconds=240,
                    name="Ray's node",
                )
                assert of_the_node.poll() is None, said()
                asked = [sys.executable, "-c", COUNT, f"ray://{ADDRESS}:{client}"]
                count = subprocess.run(asked, env=environment("worker", MODEL_DIR=str(tmp_path), **everywhere),
                                       capture_output=True, text=True, timeout=240)  # fmt: skip
                assert (count.stdout.strip(), count.returncode) == ("1", 0), count.stderr
    finally:
        shutil.rmtree(folder, ignore_errors=True)
