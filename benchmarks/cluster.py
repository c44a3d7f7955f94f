"""Scoring on a Ray cluster of some nodes on this machine, against scoring in one process: from which size it pays.

    python benchmarks/cluster.py [--images 250 1000] [--nodes 2] [--threads 2]

Needs pip install 'nextmask[ray]'. Photographs of 640 x 480 pixels are made up, and given as data: addresses: nothing is
fetched. The network is the default one of a CPU, untrained, which takes as long. Nodes have one CPU each.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import pickle
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ADDRESS = "127.0.0.2"  # Ray takes 127.0.0.1 for a machine that others cannot reach, and puts another in its place


def reference(number: int) -> str:
    """Return a made-up photograph as a data: address."""
    chance = np.random.default_rng(number)
    coarse = Image.fromarray(chance.integers(0, 255, (12, 16, 3), dtype=np.uint8)).resize((640, 480), Image.BICUBIC)
    grain = chance.normal(0, 6, (480, 640, 3))
    buffer = io.BytesIO()
    Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def scoring(folder: Path) -> Any:
    """Make a version, and what nodes need to score with it."""
    import torch

    from ml_backend.cluster.rows import Scoring
    from ml_backend.cluster.versions import versions
    from ml_backend.learning.checkpoints import Checkpoints, VersionRecord
    from ml_backend.learning.networks import build
    from ml_backend.learning.networks.recipe import network_of
    from ml_backend.learning.ranking import make_strategy
    from ml_backend.settings import load_settings
    from ml_backend.worker.ray_scorer import _SETTINGS

    torch.manual_seed(0)
    s = load_settings(device="cpu")
    architecture, options = network_of(s)
    network = build(architecture, s.encoder, s.encoder_weights, classes=4, dropout=s.dropout, options=options)
    own = {"architecture": architecture, "encoder": s.encoder, "network_options": options, "dropout": s.dropout}
    record = VersionRecord(
        classes=("a", "b", "c", "d"),
        label_map_digest="",
        data_digest="",
        parent=None,
        labels={},
        settings={**own, "encoder_weights": "none", "input_size": s.input_size, "train_encoder": False},
    )
    checkpoints = Checkpoints(folder)
    version = checkpoints.create(record, network.state_dict())
    values = {"device": "cpu", **{name: getattr(s, name) for name in _SETTINGS}}
    return Scoring(
        s.effective_batch_size,
        values,
        (),
        pickle.dumps(make_strategy("auto", {"points": 0})),
        b"",
        checkpoints.files_of(version.number),
        version.number,
        s.input_size,
        versions(),
    )


def local(given: Any, rows: list[Any]) -> tuple[float, dict[int, float]]:
    """Score in this process; return the seconds, and task id -> what was measured."""
    from ml_backend.cluster.node import WholeStage

    began, found = time.monotonic(), dict[int, float]()
    stage = WholeStage(given)
    for start in range(0, len(rows), 64):
        scored = pickle.loads(stage({"rows": [pickle.dumps(rows[start : start + 64])]})["scored"][0])
        found |= measured(scored)
    return time.monotonic() - began, found


def clustered(given: Any, rows: list[Any], address: str) -> tuple[float, float, dict[int, float]]:
    """Score on the cluster; return the seconds until the first block, until the end, and what was measured."""
    from ml_backend.cluster.process import Work, messages

    began, first, found = time.monotonic(), 0.0, dict[int, float]()
    for scored in messages(Work(address, "cpu", "score", given), [rows], heartbeat=lambda: None):
        first = first or time.monotonic() - began
        found |= measured(scored)
    return first, time.monotonic() - began, found


def measured(scored: Any) -> dict[int, float]:
    """Return task id -> what was measured."""
    if scored.failure:
        raise scored.failure
    return dict(zip(map(int, scored.observation.ids), scored.observation.information.tolist(), strict=True))


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[250, 1000])
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of the single process")
    arguments = parser.parse_args()
    import torch
    from ray.cluster_utils import Cluster

    from ml_backend.cluster.rows import Row

    torch.set_num_threads(arguments.threads)
    os.environ |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "RAY_USAGE_STATS_ENABLED": "0"}
    options = {"node_ip_address": ADDRESS, "include_dashboard": False, "object_store_memory": 300_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **options})
    try:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["MODEL_DIR"] = f"{folder}/node"
            for _ in range(arguments.nodes):
                cluster.add_node(num_cpus=1, **options)
            print(
                f"| images | one process, {arguments.threads} threads, s | {arguments.nodes} nodes, s | to the first |"
            )
            print("|--:|--:|--:|--:|")
            for count in arguments.images:
                given = scoring(Path(folder) / f"model-{count}")
                rows = [Row(number, reference(number)) for number in range(count)]
                local(given, rows[:8])  # what is imported and built once
                alone, here = local(given, rows)
                first, together, there = clustered(given, rows, cluster.address)
                same = "" if here == there else " (not the same)"
                print(f"| {count} | {alone:.1f} | {together:.1f} | {first:.1f} |{same}", flush=True)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
