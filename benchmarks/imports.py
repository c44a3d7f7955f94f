"""What commands and processes take before they do anything: processor time and memory, against `import torch`.

    python benchmarks/imports.py [--rounds N]

Each is a process of its own, and all of them run in turn in every round: other work on the machine meets all alike.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = "from ml_backend.settings import load_settings; settings = load_settings()"
SERVICES = f"{SETTINGS}; from ml_backend.projects.services import open_services; services = open_services(settings)"
CASES = {
    "`import torch`": ["-c", "import torch"],
    "`nextmask --help`": ["-m", "ml_backend", "--help"],
    "`nextmask status`": ["-m", "ml_backend", "status"],
    "the server before its first model": [
        "-c",
        f"{SETTINGS}; from ml_backend.server.app import create_app; create_app(settings)",
    ],
    "the worker before its first project": [
        "-c",
        f"{SERVICES}; from ml_backend.worker.worker import Worker; Worker(services)",
    ],
}


def measure(arguments: list[str], folder: Path) -> tuple[float, float, float]:
    """Return seconds by the clock, seconds of processor time, and the largest memory in MB."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "MODEL_DIR": str(folder),
        "LABEL_STUDIO_URL": "http://127.0.0.1:9",
        "LABEL_STUDIO_API_KEY": "0" * 40,
    }
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{arguments} ended with code {process.returncode}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    measured: dict[str, list[tuple[float, float, float]]] = {name: [] for name in CASES}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds + 1):
            for name, arguments in CASES.items():
                measured[name].append(measure(arguments, Path(folder)))
    medians = {
        name: [statistics.median(column) for column in zip(*rows[1:], strict=True)]  # the first reads from the disk
        for name, rows in measured.items()
    }
    reference = medians["`import torch`"]
    print("| what | seconds | processor, s | against torch | memory, MB | against torch |\n|---|--:|--:|--:|--:|--:|")
    for name, (seconds, processor, memory) in medians.items():
        print(
            f"| {name} | {seconds:.2f} | {processor:.2f} | {processor / reference[1]:.2f} "
            f"| {memory:.0f} | {memory / reference[2]:.2f} |"
        )


if __name__ == "__main__":
    main()
