"""From an image's file to the mask that an annotator is shown: images per second of each stage, and of the whole.

    python benchmarks/pipeline.py [--images 24] [--before CHECKOUT] [--out benchmarks/results/pipeline.csv]

A small model is trained on drawn scenes of 2048 x 1024 pixels and 19 classes, saved as JPEG. Each stage runs alone,
one image after the other: `decode`, `network` (shrinking, forward pass, upsampling), `render` (regions of the mask and
its PNG), `JSON`. The whole is the renderer of the product, with cold images (fetched, verified, decoded) and with
images in the cache. It cannot take less time than the processor time of its stages spread over the cores, nor than the
network alone; the last column is this floor over the time that it took. `--before` measures another checkout of the
project in the same run, in turns.
"""

from __future__ import annotations

import argparse
import base64
import csv
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

HEIGHT, WIDTH, CLASSES = 1024, 2048, 19
CONTROLS = ("BrushLabels", "BitmaskLabels", "PolygonLabels")
FIELDS = ("code", "control", "stage", "images", "seconds", "processor_seconds", "images_per_second")
TURNS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--before", type=Path, help="another checkout of the project")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/pipeline.csv"))
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # of the child that measures
    options = parser.parse_args()
    if options.folder:
        print(json.dumps(measured(options.folder)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_scenes(folder, options.images)
        train(folder)
        codes = {"now": Path.cwd()} | ({"before": options.before.absolute()} if options.before else {})
        rows = [
            {"code": code, **row} for _ in range(TURNS) for code, path in codes.items() for row in child(folder, path)
        ]
    rows = medians(rows)
    with options.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    report(rows)


# -- scenes and a model ------------------------------------------------------------------------------------------------
def make_scenes(folder: Path, count: int) -> None:
    """Draw scenes of smooth regions, a colour for each class, with noise."""
    palette = np.random.default_rng(7).integers(0, 255, (CLASSES, 3))
    for number in range(count):
        rng = np.random.default_rng(number)
        low = rng.standard_normal((CLASSES, HEIGHT // 128, WIDTH // 128)).astype(np.float32)
        truth = np.stack([cv2.resize(each, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) for each in low]).argmax(0)
        image = palette[truth] + rng.normal(0, 12, (HEIGHT, WIDTH, 3))
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.jpg", quality=90)
        Image.fromarray(truth.astype(np.uint8)).save(folder / f"{number}.png")


def train(folder: Path) -> None:
    """Train a version for a short time, so that its masks are no noise."""
    from ml_backend.learning.checkpoints import Checkpoints
    from ml_backend.learning.training import Item, Job, process

    files = sorted(folder.glob("*.jpg"))[:8]
    items = tuple(Item(file.stem, file, file.with_suffix(".png"), False, file.stem) for file in files)
    settings: dict[str, Any] = {"input_size": 384, "iterations": 120, "batch_size": 4}
    names = tuple(f"class {number}" for number in range(CLASSES))
    model = folder / "model" / "project-1"
    job = Job(items=items, classes=names, label_map_digest="", data_digest="", folder=model, **settings)
    Checkpoints(model).publish(process.run(job, progress=lambda _: None, heartbeat=lambda: None))


# -- measuring ---------------------------------------------------------------------------------------------------------
def child(folder: Path, code: Path) -> list[dict[str, Any]]:
    """Measure a checkout in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(code)}
    command = [sys.executable, __file__, "--folder", str(folder)]
    done = subprocess.run(command, env=environment, cwd=code, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    rows: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return rows


def measured(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of the code that is imported."""
    from ml_backend.annotations.label_map import parse_label_config
    from ml_backend.annotations.masks import png_bytes, translated, write_result
    from ml_backend.images.decoding import load_image
    from ml_backend.learning.checkpoints import Checkpoints
    from ml_backend.learning.prediction.predictors import load_predictor
    from ml_backend.projects.audit import AuditSet
    from ml_backend.projects.services import open_services
    from ml_backend.projects.shown_masks import MaskRenderer
    from ml_backend.settings import load_settings

    files = sorted(folder.glob("*.jpg"))
    checkpoints = Checkpoints(folder / "model" / "project-1")
    version = checkpoints.get(1)
    predictor = load_predictor(checkpoints, version, "auto")
    rows: list[dict[str, Any]] = []

    def timed(control: str, stage: str, work: Callable[[], Any]) -> Any:
        began, processor = time.perf_counter(), time.process_time()
        result = work()
        seconds, processor = time.perf_counter() - began, time.process_time() - processor
        rows.append({"control": control, "stage": stage, "images": len(files), "seconds": seconds})
        rows[-1]["processor_seconds"] = processor
        return result

    predictor.predict([load_image(files[0])])  # what the first pass sets up
    images = timed("", "decode", lambda: [load_image(file) for file in files])
    predictions = timed("", "network", lambda: [each for image in images for each in predictor.predict([image])])
    references = [f"data:image/jpeg;base64,{base64.b64encode(file.read_bytes()).decode()}" for file in files]
    for control in CONTROLS:
        xml = label_config(control)
        label_map = parse_label_config(xml)

        def rendered(label_map: Any = label_map) -> list[Any]:
            masks = [translated(each.mask, predictor.classes, label_map) for each in predictions]
            return [(write_result(mask, label_map, minimum_area=16), png_bytes(mask)) for mask in masks]

        regions = timed(control, "render", rendered)
        timed(control, "JSON", lambda regions=regions: [json.dumps(each) for each, _ in regions])
        with tempfile.TemporaryDirectory() as state:
            settings = load_settings(model_dir=Path(state), label_studio_api_key="0" * 40, minimum_area=16)
            services = open_services(settings)
            renderer = MaskRenderer(
                settings,
                services.store,
                1,
                label_map,
                images=services.images_of(1),
                predictor=lambda: predictor,
                audit=AuditSet(0, 0),
            )
            for stage in ("whole, cold", "whole"):
                shown = timed(control, stage, lambda renderer=renderer: list(renderer.show(references)))
                check(shown, regions)
            services.store.close()
    return rows


def check(shown: Sequence[Any], regions: Sequence[tuple[Any, bytes]]) -> None:
    """Exit unless the whole made what its stages made, but for a few pixels: batches are of another size."""
    for one, (_, png) in zip(shown, regions, strict=True):
        same = np.asarray(Image.open(io.BytesIO(one.png))) == np.asarray(Image.open(io.BytesIO(png)))
        if same.mean() < 0.999:
            sys.exit(f"The whole made another mask: {same.mean():.4f} of its pixels are the same.")


def label_config(control: str) -> str:
    labels = "".join(f'<Label value="class {number}"/>' for number in range(CLASSES))
    return (
        f'<View><Image name="image" value="$image"/><{control} name="mask" toName="image">{labels}</{control}></View>'
    )


# -- what the rows say -------------------------------------------------------------------------------------------------
def medians(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each code, control and stage, with the medians of its turns."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["code"], row["control"], row["stage"]), []).append(row)
    made = []
    for turns in groups.values():
        seconds = statistics.median(row["seconds"] for row in turns)
        processor = statistics.median(row["processor_seconds"] for row in turns)
        figures = {"seconds": round(seconds, 3), "processor_seconds": round(processor, 3)}
        made.append({**turns[0], **figures, "images_per_second": round(turns[0]["images"] / seconds, 2)})
    return made


def report(rows: Sequence[dict[str, Any]]) -> None:
    """Print processor milliseconds of an image by stage, and the whole against what its stages allow."""
    cores = len(os.sched_getaffinity(0))
    print("| code | control | stage | processor, ms an image | images/s | floor |\n|---|---|---|--:|--:|--:|")
    for row in rows:
        share = ""
        if row["stage"] == "whole":
            stages = [r for r in rows if r["code"] == row["code"] and r["control"] in ("", row["control"])]
            processor = sum(r["processor_seconds"] for r in stages if r["stage"] in ("decode", "network", "render"))
            network = next(r["seconds"] for r in stages if r["stage"] == "network")
            share = f"{max(processor / cores, network) / row['seconds']:.2f}"
        milliseconds = 1000 * row["processor_seconds"] / row["images"]
        rate = f"{milliseconds:.0f} | {row['images_per_second']:.1f} | {share}"
        print(f"| {row['code']} | {row['control']} | {row['stage']} | {rate} |")


if __name__ == "__main__":
    main()
