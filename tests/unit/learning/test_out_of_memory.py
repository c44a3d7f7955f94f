"""Memory runs out, really: in trainings and predictions of processes that are given too little of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_training import ROOT, noise_items, once_under_way, run, small_job

from ml_backend.errors import TrainingError
from ml_backend.learning.checkpoints import Checkpoints
from ml_backend.learning.training import Job

ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    # What is limited is address space, of which glibc holds more than is in use: several arenas, and freed tensors.
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "1000000",
}

LIMITED = """
import json, resource, sys
from pathlib import Path
import torch

def limit(megabytes):
    \"\"\"Allow this process so much more address space than it has now: an allocation beyond it fails.\"\"\"
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + megabytes * 1_000_000
    resource.setrlimit(resource.RLIMIT_AS, (most, most))

torch.set_num_threads(1)
"""

TRAINS = (
    LIMITED
    + """
from ml_backend.learning.training import process as training_process
from ml_backend.learning.training import Job, loop
job = Job.from_json(sys.stdin.read())
fit = loop.fit
def limited_fit(*arguments, **options):
    limit(int(sys.argv[1]))
    return fit(*arguments, **options)
loop.fit = limited_fit  # what comes before has its memory already: libraries, data, the network
messages = []
training_process.serve(job.to_json(), messages.append)
print(json.dumps(messages[-1]))
"""
)


def large_job(folder: Path, batch_size: int) -> Job:
    """Images of 160 x 160 pixels: a batch of sixteen takes several times what its parts of two do."""
    job = small_job(folder, batch_size=batch_size, input_size=160, iterations=2)
    return replace(job, items=noise_items(folder, 4, side=160))


def run_limited(script: str, megabytes: int, standard_input: str = "") -> dict[str, Any]:
    """Run a script that limits its own memory to so many megabytes beyond its libraries'; return its last message."""
    done = subprocess.run(
        [sys.executable, "-c", script, str(megabytes)],
        input=standard_input,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=ENVIRONMENT,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    message: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return message


def test_a_batch_that_does_not_fit_is_trained_in_parts(tmp_path: Path) -> None:
    job = large_job(tmp_path, batch_size=16)
    message = run_limited(TRAINS, 600, job.to_json())
    assert "version" in message, message
    measures = Checkpoints(job.folder).get(message["version"]).record.measures
    assert 2 <= measures["images_at_once"] < 16
    assert measures["iterations"] == 2


def test_a_training_for_which_two_images_are_too_many_says_what_to_do(tmp_path: Path) -> None:
    job = large_job(tmp_path, batch_size=4)
    message = run_limited(TRAINS, 60, job.to_json())
    assert "out of memory" in message["error"]
    assert "NEXTMASK_INPUT_SIZE" in message["error"]
    assert Checkpoints(job.folder).versions() == []


# -- the kernel's own way ----------------------------------------------------------------------------------------------
@pytest.fixture
def memory_group() -> Iterator[Path]:
    """A control group of the kernel (version 1 or 2) whose processes it kills beyond 150 MB."""
    name = f"nextmask-test-{os.getpid()}"
    kinds = {Path("/sys/fs/cgroup/memory"): "memory.limit_in_bytes", Path("/sys/fs/cgroup"): "memory.max"}
    for root, limit in kinds.items():
        with suppress(OSError):
            (root / name).mkdir()
            try:
                (root / name / limit).write_text("150000000")
                yield root / name
            finally:
                (root / name).rmdir()
            return
    pytest.skip("no control group can be made here; it takes root")


def test_a_training_that_the_kernel_kills_is_reported_as_such(tmp_path: Path, memory_group: Path) -> None:
    def confine(child: int) -> None:
        (memory_group / "cgroup.procs").write_text(str(child))

    job = large_job(tmp_path, batch_size=16)
    with pytest.raises(
        TrainingError, match=r"was ended by SIGKILL, most likely by the system for want of memory.*lower"
    ):
        run(job, progress=once_under_way(confine))
    assert Checkpoints(job.folder).versions() == []
    assert run(small_job(tmp_path)) == 1, "the next one, with more memory, is none the worse for it"


# -- serving -----------------------------------------------------------------------------------------------------------
PREDICTS = (
    LIMITED
    + """
import numpy as np
from ml_backend.errors import OutOfMemory
from ml_backend.learning.prediction.predictor import Predictor
from ml_backend.learning.networks import build
network = build("unet", "mobilenet_v2", "none", classes=9, dropout=0.0, options={})
predictor = Predictor(network, [str(n) for n in range(9)], 160, torch.device("cpu"))
random = np.random.default_rng(0)
images = [random.integers(0, 255, (160, 160, 3), np.uint8) for _ in range(8)]
whole = predictor.predict(images)
huge = np.zeros((20000, 20000, 3), np.uint8)  # its mask alone takes 400 MB
limit(int(sys.argv[1]))
found = predictor.predict_each([*images[:5], huge, *images[5:]])
kinds = ["memory" if isinstance(one, OutOfMemory) else "mask" for one in found]
masks = [one.mask for one in found if not isinstance(one, OutOfMemory)]
same = all((one == other.mask).mean() > 0.999 for one, other in zip(masks, whole, strict=True))
print(json.dumps({"kinds": kinds, "same": same, "again": len(predictor.predict(images))}))
"""
)


def test_an_image_that_does_not_fit_costs_no_other_its_mask() -> None:
    said = run_limited(PREDICTS, 250)
    assert said == {"kinds": ["mask"] * 5 + ["memory"] + ["mask"] * 3, "same": True, "again": 8}
