"""What people are told of the Ray cluster: that it cannot be used, once, and that it can be used again."""

from __future__ import annotations

from ml_backend.errors import ClusterError
from ml_backend.worker.look import Look


def tell_cluster_fails(look: Look, error: ClusterError, instead: str) -> None:
    """Say once why the cluster cannot be used; the same again says nothing, until it worked in between."""
    text = f"{str(error).strip()} {instead} meanwhile."
    if look.store.value(_failure_key(look)) != error.cause:
        look.store.set_value(_failure_key(look), error.cause)
        look.tell("cluster_fails", text, level="warning")


def told_cluster_works(look: Look) -> None:
    """Note that the cluster worked."""
    if look.store.value(_failure_key(look)):
        look.store.set_value(_failure_key(look), "")
        look.tell("cluster_works", "The Ray cluster can be used again.")


def _failure_key(look: Look) -> str:
    return f"cluster_failed_{look.project_id}"
