"""Speed and memory of the strategies, beside plain implementations and other libraries, as one Markdown table.

    python benchmarks/selection.py [maps coreset density suggestive_annotation cereals] [--full] [--json FILE]

All is timed in the same run, after it is checked that the results agree. Sizes are small by default; --full takes those
that the project promises (minutes each, 10 GB), and every size has an option of its own. Descriptors are mapped from a
file, and in memory before the clock starts. Memory is the process's high-water mark above what it held before (Linux).

The peers are baal, scikit-activeml and scikit-learn, of the dev extra. Plain greedy choice is timed for --plain-picks
picks and scaled up to all of them: each costs the same.
"""

import argparse
import ctypes
import gc
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from baal.active import heuristics
from skactiveml.pool import CoreSet
from sklearn.metrics import pairwise_distances_argmin_min
from sklearn.metrics.pairwise import euclidean_distances

from strategies import Budget, Observation, Ranking, create
from strategies.descriptors import chunks
from strategies.facility_location import FacilityLocation, similarities, unit_steps
from strategies.regions import Windows
from strategies.uncertainty import MEASURES, bald, entropy, pixel_maps

Result = TypeVar("Result")
Row = dict[str, Any]
Measured = tuple[Any, float, float]
"""A result, the seconds it took, and the megabytes."""
MEGABYTE = 2**20
SIZES = {  # small, full
    "members": (20, 20),
    "images": (2, 2),
    "classes": (19, 19),
    "height": (64, 512),
    "width": (128, 1024),
    "dimensions": (256, 256),
    "coreset": (10_000, 100_000),
    "coreset_picks": (100, 1000),
    "pool": (20_000, 1_000_000),
    "table": (2000, 4000),
    "candidates": (64, 256),
    "picks": (32, 128),
    "plain_picks": (4, 2),
    "scenes": (60, 3000),
}


def status(field: str) -> int:
    """Bytes that Linux reports for this process; 0 elsewhere."""
    path = Path("/proc/self/status")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":")), 0)


def measured(run: Callable[[], Result]) -> tuple[Result, float, float]:
    """Return the result, the seconds it took, and the megabytes it needed at its height."""
    gc.collect()
    if hasattr(ctypes.CDLL(None), "malloc_trim"):
        ctypes.CDLL(None).malloc_trim(0)  # else what was freed before would be used again, and not counted
    reset = Path("/proc/self/clear_refs")
    if reset.exists():
        reset.write_text("5")  # the high-water mark starts again from here
    before, start = status("VmRSS"), time.perf_counter()
    result = run()
    return result, time.perf_counter() - start, (status("VmHWM") - before) / MEGABYTE


def row(what: str, size: str, ours: Measured, peer: str, other: tuple[float, float]) -> Row:
    seconds, megabytes = other
    given = {"what": what, "size": size, "seconds": ours[1], "megabytes": ours[2]}
    return given | {"peer": peer, "peer_seconds": seconds, "peer_megabytes": megabytes, "ratio": seconds / ours[1]}


def observation(descriptors: np.ndarray, first: int = 0, information: np.ndarray | None = None) -> Observation:
    count = len(descriptors)
    return Observation(
        ids=tuple(range(first, first + count)),
        information=torch.zeros(count) if information is None else torch.from_numpy(information),
        descriptors=torch.from_numpy(descriptors),
        size=torch.full((count, 2), 512),
    )


def clusters(made: np.ndarray, seed: int = 0) -> None:
    """Descriptors like an encoder's after its rectifier: groups of alike images, no number negative."""
    generator = np.random.default_rng(seed)
    middles = np.maximum(generator.standard_normal((100, made.shape[1]), dtype=np.float32), 0)
    for rows in chunks(len(made)):
        part = made[rows]
        noise = generator.standard_normal(part.shape, dtype=np.float32)
        np.maximum(middles[generator.integers(100, size=len(part))] + 0.5 * noise, 0, out=part)


def noise(made: np.ndarray, seed: int = 0) -> None:
    """Descriptors without any structure: the worst case."""
    generator = np.random.default_rng(seed)
    for rows in chunks(len(made)):
        generator.standard_normal(dtype=np.float32, out=made[rows])


def mapped(kind: Callable[[np.ndarray], None], count: int, dimensions: int) -> np.ndarray:
    """Write descriptors to a file that goes with the process, and map it into memory."""
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        kind(np.lib.format.open_memmap(file.name, "w+", np.float32, (count, dimensions)))
        x = np.load(file.name, mmap_mode="c")
    for rows in chunks(count):
        x[rows].max()  # now it is in memory, and counts as held before
    return x


def maps(arguments: argparse.Namespace) -> Iterator[Row]:
    shape = (arguments.members, arguments.images, arguments.classes, arguments.height, arguments.width)
    probabilities = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    probabilities /= probabilities.sum(dim=2, keepdim=True)
    size = f"{shape}, {probabilities.nbytes / MEGABYTE:.0f} MB"
    pixel_maps(probabilities[..., :2, :])  # what the first call loads is not timed
    ours = measured(partial(pixel_maps, probabilities))
    yield row("all 7 pixel maps", size, ours, "ours, one by one", measured(partial(maps_one_by_one, probabilities))[1:])
    common = measured(partial(pixel_maps, probabilities, ["bald", "entropy", "margin", "least_confidence", "var"]))
    expected = bald(probabilities), entropy(probabilities)
    theirs = probabilities.permute(1, 2, 3, 4, 0).contiguous().numpy()  # its own layout, not timed
    del probabilities
    other = measured(partial(maps_of_baal, theirs))
    for values, (name, witness) in zip(expected, other[0].items(), strict=False):
        assert np.allclose(values.numpy() * math.log(arguments.classes), witness, atol=1e-4), name
    yield row("all 7 pixel maps", size, ours, "baal, its 5", other[1:])
    yield row("the 5 maps of both", size, common, "baal", other[1:])


def maps_one_by_one(probabilities: torch.Tensor) -> list[torch.Tensor]:
    return [measure(probabilities) for measure in MEASURES.values()]


def maps_of_baal(probabilities: np.ndarray) -> dict[str, np.ndarray]:
    names = ("BALD", "Entropy", "Margin", "Certainty", "Variance")
    return {name: getattr(heuristics, name)().compute_score(probabilities) for name in names}


def coreset(arguments: argparse.Namespace) -> Iterator[Row]:
    for count in (arguments.coreset // 4, arguments.coreset // 2, arguments.coreset):
        x, labels = mapped(clusters, count, arguments.dimensions), 10
        picks = min(arguments.coreset_picks, count - labels)
        pool, labelled = observation(x[labels:], labels), observation(x[:labels])
        ours = measured(partial(ranked, "coreset", pool, picks, labelled))
        size = f"N = {count}, D = {arguments.dimensions}, {picks} picks"
        known = np.where(np.arange(count) < labels, 0, np.nan)
        query = CoreSet(random_state=0).query
        for name, run in (
            ("scikit-activeml", partial(query, X=x, y=known, batch_size=picks)),
            ("k-centre on scikit-learn", partial(plain_k_centre, x, labels, picks)),
        ):
            other = measured(run)
            same_radius(x, labels, list(ours[0].ids[:picks]), list(other[0]))
            yield row("coreset", size, ours, name, other[1:])


def same_radius(x: np.ndarray, labels: int, ours: list[int], theirs: list[int]) -> None:
    """The picks are the same, but for images whose distances single precision cannot tell apart."""
    if ours != theirs:
        radii = [pairwise_distances_argmin_min(x, x[[*range(labels), *picks]])[1].max() for picks in (ours, theirs)]
        assert math.isclose(*radii, rel_tol=1e-5), radii


def plain_k_centre(x: np.ndarray, labels: int, picks: int) -> list[int]:
    """Farthest first from the first so many images, by scikit-learn's distances; the lengths are computed once."""
    squares = np.einsum("nd,nd->n", x, x)[:, None]
    nearest, chosen = pairwise_distances_argmin_min(x, x[:labels])[1], []
    nearest[:labels] = -1
    for _ in range(picks):
        pick = int(np.argmax(nearest))
        chosen.append(pick)
        distance = euclidean_distances(x, x[pick : pick + 1], X_norm_squared=squares)[:, 0]
        np.minimum(nearest, distance, out=nearest)
        nearest[pick] = -1
    return chosen


def density(arguments: argparse.Namespace) -> Iterator[Row]:
    x = mapped(clusters, arguments.pool, arguments.dimensions)
    pool = observation(x, information=np.random.default_rng(0).random(len(x)))
    ours = measured(partial(ranked, "density", pool, 100))
    size = f"N = {len(x)}, D = {x.shape[1]}, {x.nbytes / MEGABYTE:.0f} MB"
    few = x[: arguments.table].astype(np.float64)

    def table() -> float:
        unit = few / np.linalg.norm(few, axis=1, keepdims=True)
        return float((unit @ unit.T).mean())

    _, seconds, megabytes = measured(table)
    growth = (len(x) / len(few)) ** 2
    yield row("density", size, ours, f"N x N table, scaled up from {len(few)}", (seconds * growth, megabytes * growth))


def ranked(name: str, pool: Observation, images: int, labelled: Observation | None = None, **options: Any) -> Ranking:
    budget, generator = Budget(images=images), torch.Generator()
    return create(name, **options).rank(pool, labelled, budget=budget, generator=generator)


def suggestive_annotation(arguments: argparse.Namespace) -> Iterator[Row]:
    for kind in (clusters, noise):
        yield from greedy(kind, max(arguments.pool // 200, 2 * arguments.candidates), arguments.picks, arguments)
        yield from greedy(kind, arguments.pool, arguments.plain_picks, arguments)


def greedy(kind: Callable[[np.ndarray], None], count: int, few: int, arguments: argparse.Namespace) -> Iterator[Row]:
    """Compare all picks of ours with a few plain ones, in the same arithmetic and in single precision."""
    x, picks = mapped(kind, count, arguments.dimensions), arguments.picks
    information = np.random.default_rng(1).random(count)
    candidates = np.argsort(-information, kind="stable")[: arguments.candidates]
    pool = observation(x, information=information)
    ours = measured(partial(ranked, "sa", pool, picks, candidates=arguments.candidates, picks=picks))
    exact = measured(partial(exact_plain_greedy, x, candidates, few))
    assert list(ours[0].ids[:few]) == exact[0]
    unit = np.empty(x.shape, dtype=np.float32)
    for rows in chunks(count):
        unit[rows] = x[rows] / np.linalg.norm(x[rows], axis=1, keepdims=True)  # not timed
    single = measured(partial(plain_greedy, unit, candidates, few))
    same_value(x, list(ours[0].ids[:few]), single[0])
    size = f"N = {count}, D = {x.shape[1]}, K = {arguments.candidates}, k = {picks}, {kind.__name__}"
    scaled = "" if few == picks else f", scaled up from {few} picks"
    for name, other in (("same arithmetic", exact), ("single precision", single)):
        seconds = other[1] * picks / few
        yield row("suggestive_annotation", size, ours, f"plain greedy, {name}{scaled}", (seconds, other[2]))


def plain_greedy(unit: np.ndarray, candidates: np.ndarray, picks: int) -> list[int]:
    """Every pick compares all candidates with the whole pool (N,D), of unit length and in single precision."""
    directions, coverage, chosen = unit[candidates], np.zeros((len(unit), 1), dtype=np.float32), []
    for _ in range(picks):
        gains = np.zeros(len(candidates))
        for rows in chunks(len(unit)):
            covered = coverage[rows]
            more = np.maximum(unit[rows] @ directions.T, covered) - covered
            gains += more.sum(axis=0, dtype=np.float64)
        gains[chosen] = -1
        chosen.append(int(np.argmax(gains)))
        for rows in chunks(len(unit)):
            similar = (unit[rows] @ directions[chosen[-1]])[:, None]
            coverage[rows] = np.maximum(coverage[rows], similar)
    return candidates[chosen].tolist()


def exact_plain_greedy(x: np.ndarray, candidates: np.ndarray, picks: int) -> list[int]:
    """Likewise, but in the fixed-point arithmetic of ours: the result is equal to the last bit."""
    directions, coverage, chosen = unit_steps(x[candidates]), np.zeros((len(x), 1), dtype=np.int32), []
    for _ in range(picks):
        gains = np.zeros(len(candidates), dtype=np.int64)
        for rows in chunks(len(x)):
            covered = coverage[rows]
            more = np.maximum(similarities(x[rows], directions), covered) - covered
            gains += more.sum(axis=0, dtype=np.int64)
        gains[chosen] = -1
        chosen.append(int(np.argmax(gains)))
        for rows in chunks(len(x)):
            similar = similarities(x[rows], directions[chosen[-1:]])
            coverage[rows] = np.maximum(coverage[rows], similar)
    return candidates[chosen].tolist()


def same_value(x: np.ndarray, ours: list[int], plain: list[int]) -> None:
    """The picks are the same, but for candidates whose gains single precision cannot tell apart."""
    values = []
    for picks in (ours, plain):
        location = FacilityLocation(x)
        for pick in picks:
            next(location.picks(np.array([pick])))
        values.append(location.value)
    assert ours == plain or math.isclose(*values, rel_tol=1e-5), values


def cereals(arguments: argparse.Namespace) -> Iterator[Row]:
    pool, windows = scenes(arguments.scenes), Windows(window=128, stride=32)
    count = sum(grid[0].numel() for grid in pool.regions or ())
    for images in (max(arguments.scenes // 60, 1), max(arguments.scenes // 6, 1)):
        ours = measured(partial(ranked, "cereals", pool, images))
        size = f"{arguments.scenes} images of 1024 x 2048, {count} windows, budget {images} images"
        other = measured(partial(plain_windows, pool, windows, Budget(images=images).in_pixels(pool.size)))
        assert {image: [(box.top, box.left) for box in boxes] for image, boxes in ours[0].regions.items()} == other[0]
        yield row("cereals", size, ours, "sort of all windows", other[1:])


def scenes(count: int) -> Observation:
    """What CEREALS observes of so many street scenes: sums of smooth maps over its windows."""
    windows, size, generator = Windows(window=128, stride=32), (1024, 2048), torch.Generator().manual_seed(0)
    grids = []
    for _ in range(count):
        coarse = torch.rand((1, 2, 16, 32), generator=generator)
        both = torch.nn.functional.interpolate(coarse, scale_factor=4, mode="bilinear")[0]
        grids.append(torch.stack([windows.sums(values, size) for values in both]))
    return Observation(
        ids=tuple(range(count)),
        information=torch.rand(count, generator=generator),
        size=torch.tensor([size] * count),
        regions=tuple(grids),
    )


def plain_windows(pool: Observation, windows: Windows, area: int) -> dict[int, list[tuple[int, int]]]:
    """Sort all windows of the pool by score, and walk down: upper left corners by image, up to the area."""
    table = torch.stack(pool.regions or ()).numpy()  # (N,2,rows,columns), of images of the same size
    least, most = table.min(axis=(0, 2, 3), keepdims=True), table.max(axis=(0, 2, 3), keepdims=True)
    information, cost = ((table - least) / (most - least)).round(12).swapaxes(0, 1)
    score = (1 - cost) * information
    top, left = (windows.starts(length) for length in (1024, 2048))
    chosen: dict[int, list[tuple[int, int]]] = {}
    for place in np.argsort(-score, axis=None, kind="stable"):
        image, row, column = np.unravel_index(place, score.shape)
        y, x = int(top[row]), int(left[column])
        if all(abs(y - other) >= 128 or abs(x - beside) >= 128 for other, beside in chosen.get(int(image), ())):
            area -= 128 * 128
            if area < 0:
                break
            chosen.setdefault(int(image), []).append((y, x))
    return chosen


BENCHMARKS = {benchmark.__name__: benchmark for benchmark in (maps, coreset, density, suggestive_annotation, cereals)}


def report(rows: list[Row]) -> str:
    lines = ["| what | size | s | MB | beside it | s | MB | times faster |", "|---|---|--:|--:|---|--:|--:|--:|"]
    for result in rows:
        head = f"| {result['what']} | {result['size']} | {result['seconds']:.2f} | {result['megabytes']:.0f}"
        other = f"{result['peer_seconds']:.2f} | {result['peer_megabytes']:.0f} | {result['ratio']:.1f}"
        lines.append(f"{head} | {result['peer']} | {other} |")
    return "\n".join(lines)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Speed and memory of the strategies, as a Markdown table.")
    parser.add_argument("which", nargs="*", choices=[[], *BENCHMARKS], help="which to run; all when none is named")
    parser.add_argument("--full", action="store_true", help="the sizes that the project promises")
    for name, (small, full) in SIZES.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, help=f"default {small}, in full {full}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file as they come")
    arguments = parser.parse_args()
    for name, sizes in SIZES.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, sizes[arguments.full])
    return arguments


def main() -> None:
    arguments, rows = options(), []
    for name in arguments.which or BENCHMARKS:
        for result in BENCHMARKS[name](arguments):
            rows.append(result)
            if arguments.json:
                arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    print(report(rows))


if __name__ == "__main__":
    main()
