"""The driver's connection to a cluster: what its nodes have, and why it cannot be used, each in a sentence.

Ray 2.60 has no types for half of what is called here; they are kept in this package.
"""

from __future__ import annotations

import logging
import platform
import socket
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ml_backend.cluster.versions import difference, versions
from ml_backend.errors import ClusterError, NextmaskError, shown
from ml_backend.settings import load_settings

logger = logging.getLogger(__name__)

_CONNECT_SECONDS = 5.0
_ATTEMPTS = 3
_PAUSE_SECONDS = 2.0
_EXAMINE_SECONDS = 120.0
"""Nodes start a process each, and import nextmask: seconds, where they are not busy."""
MOST_CPUS = 4
"""CPUs of one process that scores or trains: more threads gain little on images of a network's size."""


@dataclass(frozen=True)
class Cluster:
    """What can be asked for in a cluster.

    Attributes:
        nodes: number of nodes with CPUs.
        cpus: CPUs of one process that computes without a GPU.
        processes: how many of those there is room for.
        gpus: GPUs in all; 0 where none is to be used.
    """

    nodes: int
    cpus: int
    processes: int
    gpus: int

    @property
    def resources(self) -> dict[str, float]:
        """What Ray reserves for one process that computes."""
        return {"num_cpus": 1, "num_gpus": 1} if self.gpus else {"num_cpus": self.cpus}


def connect(address: str, device: str, *, fetches: bool) -> Cluster:
    """Connect this process to a cluster, and examine its nodes.

    Args:
        address: auto, HOST:PORT or ray://HOST:PORT.
        device: auto, cpu, cuda, cuda:N or cuda:all, as NEXTMASK_DEVICE has it here.
        fetches: whether nodes have to fetch images.

    Raises:
        ClusterError: it cannot be used; the message says why, and what to do.
    """
    _reach(address)
    _join(address)
    alive = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    if not alive:
        raise ClusterError(
            f"The Ray cluster at {shown(address)} has no node with a CPU.", "Add one: ray start --address=HEAD:6379."
        )
    _examine(alive, fetches=fetches)
    gpus = 0 if device == "cpu" else sum(int(node["Resources"].get("GPU", 0)) for node in alive)
    if device.startswith("cuda") and not gpus:
        raise ClusterError(
            f"NEXTMASK_DEVICE = {shown(device)}, but the Ray cluster at {shown(address)} has no GPU.",
            "Add a node with one, or set NEXTMASK_DEVICE to auto.",
        )
    cpus = [max(1, int(node["Resources"]["CPU"])) for node in alive]
    each = max(1, min(MOST_CPUS, *cpus))
    processes = sum(own // each for own in cpus)
    return Cluster(len(alive), each, processes, gpus)


def _join(address: str) -> None:
    # What nodes print stays in their logs: it would be taken for the driver's messages.
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
    for left in reversed(range(_ATTEMPTS)):
        try:
            ray.init(address=address, namespace="nextmask", **options)
        except (ConnectionError, TimeoutError, RuntimeError, ValueError, RayError) as error:
            # The head starts a process for each client, and where it is busy now and then takes it for dead at once.
            if not left or "Initialization failure" not in str(error):
                raise _not_let_in(address, error) from error
            logger.warning("the cluster's head could not start a process for this one; once more")
            ray.shutdown()
            time.sleep(_PAUSE_SECONDS)
        else:
            return


def _reach(address: str) -> None:
    """Try the port first: Ray itself waits for minutes where nobody answers."""
    if address == "auto":
        return
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 10001), _CONNECT_SECONDS):
            pass
    except (OSError, ValueError) as error:
        raise _refused(address, error) from error


def _refused(address: str, error: Exception) -> ClusterError:
    why = first_line(error) or type(error).__name__
    return ClusterError(
        f"No Ray cluster can be used at NEXTMASK_RAY_ADDRESS = {shown(address)} ({why.rstrip('.')}).",
        "Start one (ray start --head), or correct the address.",
    )


def _not_let_in(address: str, error: Exception) -> ClusterError:
    """Say why Ray could not join what answers; of a wrong token it says no more than of another program."""
    text = str(error)
    if "ersion mismatch" in text:
        found = f"here are Ray {ray.__version__} and Python {platform.python_version()}: {first_line(text)}"
        return ClusterError(
            f"The Ray cluster at {shown(address)} runs other versions; {found}.",
            "Install the same Ray and Python on all machines.",
        )
    why = first_line(error) or type(error).__name__
    return ClusterError(
        f"What answers at NEXTMASK_RAY_ADDRESS = {shown(address)} lets nobody into a Ray cluster ({why.rstrip('.')}).",
        "Give nextmask the token of the cluster (RAY_AUTH_MODE=token, RAY_AUTH_TOKEN_PATH=…), or correct the address.",
    )


def cause_of(error: RayError) -> BaseException:
    """Return what befell a task: what befell an argument of it comes as the cause of its own failure."""
    cause: BaseException = error.cause if isinstance(error, RayTaskError) else error
    return cause


def first_line(error: object) -> str:
    """Return the first line of an error's text: Ray's go on for pages."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")[:200]


# -- what nodes have -------------------------------------------------------------------------------------------------
def examine_node() -> dict[str, Any]:
    """Return what a node has: its name, versions, whether it has a token; and what is wrong with its settings."""
    facts: dict[str, Any] = {"name": socket.gethostname(), "versions": versions(), "problem": "", "token": False}
    try:
        facts["token"] = bool(load_settings().label_studio_api_key.get_secret_value())
    except NextmaskError as error:
        facts["problem"] = str(error)
    return facts


def _examine(nodes: list[dict[str, Any]], *, fetches: bool) -> None:
    """Compare nextmask on all nodes with nextmask here.

    Raises:
        ClusterError: a node cannot be used; the message names it.
    """
    asked = {
        ray.remote(examine_node)
        .options(
            num_cpus=0,
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False),
        )
        .remote(): node
        for node in nodes
    }
    for reference, node in asked.items():
        name = f"Node {node['NodeManagerAddress']} of the Ray cluster"
        try:
            facts = ray.get(reference, timeout=_EXAMINE_SECONDS)
        except GetTimeoutError:
            raise ClusterError(
                f"{name} did not answer within {_EXAMINE_SECONDS:g} s.", "`ray status` says what it does."
            ) from None
        except (RayError, ModuleNotFoundError) as error:
            if "No module named" in str(error):
                raise ClusterError(
                    f"{name} has no nextmask.", "Install the release of the worker there: pip install 'nextmask[ray]'."
                ) from None
            if not is_alive(node["NodeID"]):
                continue  # it left meanwhile; the others do its work
            raise ClusterError(f"{name} cannot run nextmask: {first_line(error)}") from None
        name = f"Node {facts['name']} ({node['NodeManagerAddress']}) of the Ray cluster"
        if other := difference(versions(), facts["versions"]):
            raise ClusterError(f"{name} has {other}.", "Install the same versions on all machines.")
        if facts["problem"]:
            raise ClusterError(f"{name} has a setting that cannot be used: {facts['problem']}")
        if fetches and not facts["token"]:
            raise ClusterError(
                f"{name} has no token of Label Studio, which images are fetched with.",
                "Set LABEL_STUDIO_API_KEY in the environment that `ray start` is run in there, or put it into"
                " /run/secrets.",
            )


def is_alive(node_id: str) -> bool:
    """Whether a node still belongs to the cluster."""
    return any(node["Alive"] for node in ray.nodes() if node["NodeID"] == node_id)
