"""A real Ray cluster of several nodes on this machine, started once for all tests that want one.

Its nodes are processes, each with one CPU, and see none of this process's settings; Ray is driven as on many machines.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ml_backend.demo.label_studio import free_port

ADDRESS = "127.0.0.2"  # Ray takes 127.0.0.1 for a machine that others cannot reach, and puts another in its place
STORE_BYTES = 100_000_000
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}
"""For all that talks to the cluster; by itself Ray makes a token in the home folder, or takes none."""
_HERE = Path(__file__).parent


def missing() -> str:
    """Say what this machine lacks for tests with Ray; "" where all is there."""
    names = [name for name in ("ray", "grpc") if importlib.util.find_spec(name) is None]
    return f"{' and '.join(names)} not installed: pip install 'nextmask[ray]'" if names else ""


@dataclass
class RayCluster:
    """A cluster; its head has no CPU, so that work is done by the other nodes."""

    folder: Path
    killing: str = ""
    client_port: int = field(default_factory=free_port)
    _cluster: Any = None
    nodes: list[Any] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Address of its head, for workers that are nodes."""
        return str(self._cluster.address)

    @property
    def client_address(self) -> str:
        """Address for workers outside."""
        return f"ray://{ADDRESS}:{self.client_port}"

    def start(self, nodes: int = 2) -> None:
        """Start the head and some nodes."""
        from ray.cluster_utils import Cluster

        with self._environment():
            self._cluster = Cluster(
                initialize_head=True,
                head_node_args={"num_cpus": 0, "ray_client_server_port": self.client_port, **self._options},
            )
        for _ in range(nodes):
            self.add_node()

    def add_node(self, **resources: Any) -> Any:
        """Start another node, which joins whatever goes on."""
        with self._environment():
            node = self._cluster.add_node(num_cpus=1, wait=False, **resources, **self._options)
        self.nodes.append(node)
        return node

    def kill_node(self, node: Any = None) -> None:
        """Kill a node with all its processes, as a machine that loses its power."""
        node = node or self.nodes[0]
        self.nodes.remove(node)
        self._cluster.remove_node(node, allow_graceful=False)

    def stop(self) -> None:
        """End all of it."""
        if self._cluster is not None:
            self._cluster.shutdown()

    @property
    def _options(self) -> dict[str, Any]:
        return {"node_ip_address": ADDRESS, "include_dashboard": False, "object_store_memory": STORE_BYTES}

    @contextmanager
    def _environment(self) -> Iterator[None]:
        """What the machine of a node has in its environment."""
        before = dict(os.environ)
        path = [str(_HERE / "ray_nodes"), str(_HERE.parent), *filter(None, sys.path)]
        os.environ |= {
            "PYTHONPATH": os.pathsep.join(path),
            "MODEL_DIR": str(self.folder / "node"),
            "LABEL_STUDIO_API_KEY": "token-of-the-node",
            "KILLING_IMAGE": self.killing,
            "OMP_NUM_THREADS": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            **TOKEN,
        }
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


@pytest.fixture(scope="session")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory, killing_file: str) -> Iterator[RayCluster]:
    """The cluster; tests that kill its nodes start others."""
    if what := missing():
        if os.environ.get("CI"):
            raise AssertionError(what)
        pytest.skip(what)
    cluster = RayCluster(tmp_path_factory.mktemp("ray"), killing_file)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in TOKEN.items():
            patch.setenv(name, value)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()
