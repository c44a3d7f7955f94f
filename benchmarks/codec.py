"""Speed of the brush RLE codecs on masks of 2048 x 1024: ours, the SDK's, and label-studio-brush-rle-rs.

    python benchmarks/codec.py [--json FILE]

All are timed in the same run, on the same data, after it is checked that they agree. Encoding starts from the (H, W)
mask, decoding from the list of integers that JSON gives, and ends with the (H, W) alpha channel.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2
import label_studio_brush_rle_rs as rust
import numpy as np
from label_studio_sdk.converter import brush as sdk

from ml_backend.annotations import brush

HEIGHT, WIDTH = 1024, 2048
FIELD_BITS = [3, 4, 8, 16]
REPEATS = 9
SLOW_SECONDS = 0.5  # what takes longer than this is timed once


def ellipses(rng: np.random.Generator) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for _ in range(25):
        centre = int(rng.integers(WIDTH)), int(rng.integers(HEIGHT))
        axes = int(rng.integers(20, 160)), int(rng.integers(20, 160))
        cv2.ellipse(mask, centre, axes, float(rng.integers(360)), 0, 360, 255, -1)
    return mask


def ragged(rng: np.random.Generator) -> np.ndarray:
    """Blobs a few pixels wide: smoothed noise, cut at its mean."""
    noise = rng.standard_normal((HEIGHT, WIDTH)).astype(np.float32)
    return np.where(cv2.GaussianBlur(noise, (0, 0), 3) > 0, 255, 0).astype(np.uint8)


def salt(rng: np.random.Generator) -> np.ndarray:
    return np.where(rng.random((HEIGHT, WIDTH)) < 0.5, 255, 0).astype(np.uint8)


MASKS = {"25 ellipses": ellipses, "ragged": ragged, "salt noise": salt}

# name: encoder of a mask, decoder of a list of integers
CODECS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "ours": (brush.encode, lambda rle: brush.decode(rle, HEIGHT, WIDTH)),
    "sdk": (sdk.mask2rle, lambda rle: alpha(sdk.decode_rle(rle))),
    "rust": (
        lambda mask: rust.encode_rle(np.repeat(mask.ravel(), 4), 8, FIELD_BITS),
        lambda rle: alpha(rust.decode_rle(rle, False)),
    ),
}


def alpha(values: np.ndarray) -> np.ndarray:
    return values.reshape(HEIGHT, WIDTH, 4)[:, :, 3].copy()


def median_seconds(run: Callable[[], object]) -> float:
    seconds: list[float] = []
    while len(seconds) < REPEATS and not (seconds and seconds[0] > SLOW_SECONDS):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def check(mask: np.ndarray, rle: list[int]) -> None:
    """Ours must agree with the SDK's on this mask; the SDK's slow decoder is left to the tests."""
    assert list(brush.encode(mask)) == rle
    assert np.array_equal(brush.decode(rle, HEIGHT, WIDTH), mask)


def measure() -> Iterator[dict[str, Any]]:
    for seed, (name, draw) in enumerate(MASKS.items()):
        mask = draw(np.random.default_rng(seed))
        rle = sdk.mask2rle(mask)
        check(mask, rle)
        for direction, place, argument in (("encode", 0, mask), ("decode", 1, rle)):
            seconds = {codec: median_seconds(partial(pair[place], argument)) for codec, pair in CODECS.items()}
            yield {"mask": name, "direction": direction, "bytes": len(rle), **seconds}


def report(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| mask, 2048 x 1024 | bytes | | ours, s | SDK, s | Rust, s | SDK / ours | Rust / ours |",
        "|---|--:|---|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        times = " | ".join(f"{row[codec]:.4f}" for codec in CODECS)
        ratios = " | ".join(f"{row[codec] / row['ours']:.2f}" for codec in ("sdk", "rust"))
        lines.append(f"| {row['mask']} | {row['bytes']} | {row['direction']} | {times} | {ratios} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of the brush RLE codecs, as a Markdown table.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the medians, in seconds, to this file, too")
    arguments = parser.parse_args()
    rows = list(measure())
    print(report(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
