"""What serving costs beyond the network, and how it answers while a training runs. One run, ratios in it.

    python benchmarks/serving.py [--tasks 32] [--size 384] [--seconds 30] [--json FILE]

A model is trained briefly on the sample data, `nextmask serve` runs as a process of its own, and no Label Studio is
needed. The floor of /predict is a single forward pass over the same images in the same batches; everything above it is
HTTP, reading images from the cache, upsampling, and writing regions.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import requests
import torch

from ml_backend.annotations.label_map import parse_label_config
from ml_backend.annotations.masks import write_result
from ml_backend.datasets import Dataset, label_config, sample_dataset
from ml_backend.demo.label_studio import free_port
from ml_backend.images.decoding import load_image
from ml_backend.learning.checkpoints import Checkpoints
from ml_backend.learning.networks import resize_image
from ml_backend.learning.prediction.predictors import load_predictor
from ml_backend.learning.training import Item, Job
from ml_backend.learning.training import process as training_process
from ml_backend.learning.training.start import rebuild
from ml_backend.projects.services import Services, open_services
from ml_backend.settings import load_settings

PROJECT = 1
AUTH = ("bench", "bench")
EVENT = {"action": "ANNOTATION_CREATED", "project": {"id": PROJECT}, "annotation": {"id": 1, "result": []}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=32)
    parser.add_argument("--size", type=int, default=384, help="NEXTMASK_INPUT_SIZE")
    parser.add_argument("--seconds", type=float, default=30.0, help="load while training runs")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    dataset = sample_dataset()
    with tempfile.TemporaryDirectory() as folder:
        settings = load_settings(
            model_dir=Path(folder),
            port=free_port(),
            label_studio_api_key="0" * 40,
            basic_auth_user=AUTH[0],
            basic_auth_pass=AUTH[1],
            input_size=options.size,
        )
        services = open_services(settings)
        job = make_job(dataset, services.checkpoints(PROJECT), options.size)
        number = training_process.run(job, progress=ignore, heartbeat=ignore)
        publish(services, dataset, number)
        with server(settings):
            results = measure(services, dataset, number, settings.effective_backend_url, options, job)
        services.store.close()
    show(results, options)


def make_job(dataset: Dataset, checkpoints: Checkpoints, size: int) -> Job:
    samples = dataset.splits["train"][:12]
    items = tuple(Item(s.image.stem, s.image, s.mask, False, s.image.stem) for s in samples)
    settings: dict[str, Any] = {"input_size": size, "iterations": 4, "batch_size": 4}
    return Job(
        items=items,
        classes=dataset.classes,
        label_map_digest="bench",
        data_digest="bench",
        folder=checkpoints.folder,
        **settings,
    )


def publish(services: Services, dataset: Dataset, number: int) -> None:
    services.checkpoints(PROJECT).publish(number)
    services.store.wake(PROJECT, label_config=label_config(dataset), published_version=f"nextmask-{number}.1")


@contextmanager
def server(settings: Any) -> Iterator[None]:
    command = [sys.executable, "-m", "ml_backend", "serve", "--no-worker"]
    environment = {**os.environ, **settings.environment(), "LOG_LEVEL": "ERROR"}
    process = subprocess.Popen(command, env=environment)
    try:
        while True:
            try:
                requests.get(f"{settings.effective_backend_url}/health", timeout=2)
                break
            except requests.ConnectionError:
                time.sleep(0.3)
        yield
    finally:
        process.terminate()
        process.wait()


def measure(
    services: Services, dataset: Dataset, number: int, url: str, options: argparse.Namespace, job: Job
) -> dict[str, float]:
    samples = (dataset.splits["train"] * 9)[: options.tasks]
    tasks = [{"id": position + 1, "data": {"image": data_uri(sample.image)}} for position, sample in enumerate(samples)]
    body = {"project": f"{PROJECT}.0", "label_config": label_config(dataset), "tasks": tasks}
    images = [load_image(sample.image) for sample in samples]
    checkpoints = services.checkpoints(PROJECT)
    predictor = load_predictor(checkpoints, checkpoints.get(number), "auto")
    label_map = parse_label_config(label_config(dataset))
    masks = [prediction.mask for prediction in predictor.predict(images)]
    post(url, body)  # loads the network there and fills the image cache
    network = rebuild(checkpoints, checkpoints.get(number)).eval()
    shrunk = [resize_image(image, options.size) / 255 for image in images]
    size = services.settings.effective_batch_size
    batches = [torch.stack(shrunk[start : start + size]) for start in range(0, len(shrunk), size)]
    forward, http = in_turns(lambda: bare_forward(network, batches), lambda: post(url, body))
    results = {
        "tasks": float(options.tasks),
        "forward_s": forward,
        "predict_http_s": http,
        "render_s": median_seconds(lambda: [write_result(mask, label_map, minimum_area=16) for mask in masks]),
    }
    results |= latencies("idle", url, body, options.seconds / 3)
    with training(job):
        results |= latencies("training", url, body, options.seconds)
    return results


def data_uri(path: Path) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(path.read_bytes()).decode()


def bare_forward(network: torch.nn.Module, batches: list[torch.Tensor]) -> None:
    with torch.inference_mode():
        for batch in batches:
            network(batch)


def post(url: str, body: object) -> None:
    answer = requests.post(f"{url}/predict", json=body, auth=AUTH, timeout=600)
    answer.raise_for_status()
    assert all(result["result"] for result in answer.json()["results"])


def in_turns(first: Callable[[], None], second: Callable[[], None], repeats: int = 5) -> tuple[float, float]:
    """Median seconds of two things that are done in turn, so that a machine that slows down slows both."""
    times: tuple[list[float], list[float]] = ([], [])
    first()
    for _ in range(repeats):
        for call, seconds in zip((first, second), times, strict=True):
            seconds.append(timed(call))
    return statistics.median(times[0]), statistics.median(times[1])


def median_seconds(call: Callable[[], object], repeats: int = 5) -> float:
    return statistics.median(timed(call) for _ in range(repeats))


def timed(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


@contextmanager
def training(job: Job) -> Iterator[None]:
    """A training that runs for the length of the block."""
    ended = threading.Event()

    def heartbeat() -> None:
        if ended.is_set():
            raise KeyboardInterrupt

    def run() -> None:
        try:
            long = replace(job, iterations=100_000)
            training_process.run(long, progress=ignore, heartbeat=heartbeat)
        except KeyboardInterrupt:
            return

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(8)  # until it has read its data and computes
    try:
        yield
    finally:
        ended.set()
        thread.join()


def latencies(name: str, url: str, body: dict[str, Any], seconds: float) -> dict[str, float]:
    """Percentiles of /webhook, /setup and one-task /predict, sent in turn for some seconds."""
    single = {**body, "tasks": body["tasks"][:1]}
    calls = {"webhook": EVENT, "setup": {"project": f"{PROJECT}.0", "schema": ""}, "predict": single}
    times: dict[str, list[float]] = {path: [] for path in calls}
    session = requests.Session()
    session.auth = AUTH
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for path, content in calls.items():
            begin = time.perf_counter()
            session.post(f"{url}/{path}", json=content, timeout=60).raise_for_status()
            times[path].append(time.perf_counter() - begin)
            time.sleep(0.02)
    results: dict[str, float] = {}
    for path, values in times.items():
        results[f"{path}_{name}_count"] = float(len(values))
        results[f"{path}_{name}_p50_ms"] = 1000 * statistics.median(values)
        results[f"{path}_{name}_p99_ms"] = 1000 * statistics.quantiles(values, n=100)[98]
    return results


def ignore(*_: object) -> None:
    pass


def show(results: dict[str, float], options: argparse.Namespace) -> None:
    tasks, forward, http = results["tasks"], results["forward_s"], results["predict_http_s"]
    print(f"\n{tasks:.0f} tasks of 320x400, NEXTMASK_INPUT_SIZE {options.size}, {torch.get_num_threads()} threads\n")
    print("| what | seconds | per task, ms | against the forward pass |\n|---|--:|--:|--:|")
    for name, seconds in (("forward pass", forward), ("writing regions", results["render_s"]), ("HTTP /predict", http)):
        print(f"| {name} | {seconds:.3f} | {1000 * seconds / tasks:.1f} | {seconds / forward:.2f} |")
    print("\n| call | idle p50 / p99, ms | while training p50 / p99, ms | calls |\n|---|--:|--:|--:|")
    for path in ("webhook", "setup", "predict"):
        cells = [
            f"{results[f'{path}_{when}_p50_ms']:.1f} / {results[f'{path}_{when}_p99_ms']:.1f}"
            for when in ("idle", "training")
        ]
        count = results[f"{path}_training_count"]
        print(f"| /{path}{' (one task)' if path == 'predict' else ''} | {cells[0]} | {cells[1]} | {count:.0f} |")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
