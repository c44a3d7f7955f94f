"""Speed and memory of the strategies, beside plain implementations and other libraries, as one Markdown table.

    python benchmarks/selection.py [maps coreset density suggestive_annotation] [--json FILE] [--…-size options]

All is timed in this one run, after it is checked that the results agree. The peers, scikit-activeml and baal, are
measured where they are installed. Memory is the process's high-water mark above what it held before (Linux).
Defaults are small; the sizes that the project promises:

    --height 512 --width 1024 --coreset 100000 --coreset-picks 1000 --pool 1000000 --candidates 256 --picks 128

Plain greedy choice is timed for --plain-picks picks and scaled up to all of them: each costs the same.
"""

import argparse
import importlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from strategies import Budget, Observation, create
from strategies.descriptors import chunks
from strategies.facility_location import FacilityLocation, _integers
from strategies.uncertainty import MEASURES, bald, entropy, pixel_maps

Result = TypeVar("Result")
Row = dict[str, Any]
MEGABYTE = 2**20


def status(field: str) -> int:
    """Bytes that Linux reports for this process; 0 elsewhere."""
    path = Path("/proc/self/status")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":")), 0)


def measured(run: Callable[[], Result]) -> tuple[Result, float, float]:
    """Return the result, the seconds it took, and the megabytes it needed at its height."""
    reset = Path("/proc/self/clear_refs")
    if reset.exists():
        reset.write_text("5")  # the high-water mark starts again from here
    before, start = status("VmRSS"), time.perf_counter()
    result = run()
    return result, time.perf_counter() - start, (status("VmHWM") - before) / MEGABYTE


def row(
    what: str, size: str, ours: tuple[Any, float, float], peer: str = "", other: tuple[float, float] | None = None
) -> Row:
    seconds, megabytes = other or (math.nan, math.nan)
    given = {"what": what, "size": size, "seconds": ours[1], "megabytes": ours[2]}
    return given | {"peer": peer, "peer_seconds": seconds, "peer_megabytes": megabytes, "ratio": seconds / ours[1]}


def peer(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def observation(descriptors: np.ndarray, first: int = 0, information: np.ndarray | None = None) -> Observation:
    count = len(descriptors)
    return Observation(
        ids=tuple(range(first, first + count)),
        information=torch.zeros(count) if information is None else torch.from_numpy(information),
        descriptors=torch.from_numpy(descriptors),
        size=torch.full((count, 2), 512),
    )


def clusters(count: int, dimensions: int, seed: int = 0) -> np.ndarray:
    """Descriptors like an encoder's after its rectifier: groups of alike images, no number negative."""
    generator = np.random.default_rng(seed)
    middles = np.maximum(generator.standard_normal((100, dimensions), dtype=np.float32), 0)
    made = np.empty((count, dimensions), dtype=np.float32)
    for rows in chunks(count):
        length = rows.stop - rows.start
        noise = generator.standard_normal((length, dimensions), dtype=np.float32)
        np.maximum(middles[generator.integers(100, size=length)] + 0.5 * noise, 0, out=made[rows])
    return made


def noise(count: int, dimensions: int, seed: int = 0) -> np.ndarray:
    """Descriptors without any structure: the worst case."""
    return np.random.default_rng(seed).standard_normal((count, dimensions), dtype=np.float32)


def maps(arguments: argparse.Namespace) -> Iterator[Row]:
    shape = (arguments.members, arguments.images, arguments.classes, arguments.height, arguments.width)
    probabilities = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    probabilities /= probabilities.sum(dim=2, keepdim=True)
    size = f"{shape}, {probabilities.nbytes / MEGABYTE:.0f} MB"
    pixel_maps(probabilities[..., :2, :])  # what the first call loads is not timed
    ours = measured(lambda: pixel_maps(probabilities))
    one_by_one = measured(lambda: [measure(probabilities) for measure in MEASURES.values()])
    yield row("all pixel maps", size, ours, "ours, one by one", one_by_one[1:])
    heuristics = peer("baal.active.heuristics")
    if heuristics is None:
        return
    theirs = np.ascontiguousarray(probabilities.permute(1, 2, 3, 4, 0).numpy())  # its own layout, not timed
    names = ["BALD", "Entropy", "Margin", "Certainty", "Variance"]
    common = ["bald", "entropy", "margin", "least_confidence", "var"]
    ours = measured(lambda: pixel_maps(probabilities, common))
    other = measured(lambda: [getattr(heuristics, name)().compute_score(theirs) for name in names])
    for measure, values in ((bald, other[0][0]), (entropy, other[0][1])):
        assert np.allclose(measure(probabilities).numpy() * math.log(arguments.classes), values, atol=1e-4)
    yield row("the five maps of both", size, ours, "baal", other[1:])


def coreset(arguments: argparse.Namespace) -> Iterator[Row]:
    module = peer("skactiveml.pool")
    for count in (arguments.coreset // 4, arguments.coreset):
        x, labels = clusters(count, arguments.dimensions), 10
        pool, labelled = observation(x[labels:], labels), observation(x[:labels])
        picks = min(arguments.coreset_picks, count - labels)
        budget, generator = Budget(images=picks), torch.Generator()
        ours = measured(lambda: create("coreset").rank(pool, labelled, budget=budget, generator=generator))  # noqa: B023
        size = f"N = {count}, D = {arguments.dimensions}, {picks} picks"
        if module is None:
            yield row("coreset", size, ours)
            continue
        known = np.where(np.arange(count) < labels, 0, np.nan)
        query = module.CoreSet(random_state=0).query
        other = measured(lambda: query(X=x, y=known, batch_size=picks))  # noqa: B023
        assert list(ours[0].ids[:picks]) == other[0].tolist()
        yield row("coreset", size, ours, "scikit-activeml", other[1:])


def density(arguments: argparse.Namespace) -> Iterator[Row]:
    x = clusters(arguments.pool, arguments.dimensions)
    pool = observation(x, information=np.random.default_rng(0).random(len(x)))
    generator = torch.Generator()
    ours = measured(lambda: create("density").rank(pool, None, budget=Budget(images=100), generator=generator))
    size = f"N = {len(x)}, D = {x.shape[1]}, {x.nbytes / MEGABYTE:.0f} MB"
    few = x[: arguments.table].astype(np.float64)

    def table() -> float:
        unit = few / np.linalg.norm(few, axis=1, keepdims=True)
        return float((unit @ unit.T).mean())

    _, seconds, megabytes = measured(table)
    growth = (len(x) / len(few)) ** 2
    yield row("density", size, ours, f"N x N table, scaled up from {len(few)}", (seconds * growth, megabytes * growth))


def plain_greedy(x: np.ndarray, candidates: np.ndarray, picks: int) -> list[int]:
    """Every pick compares all candidates with the whole pool, in single precision and in the same chunks."""
    lengths = np.linalg.norm(x[candidates], axis=1, keepdims=True)
    units, coverage, chosen = x[candidates] / lengths, np.zeros((len(x), 1), dtype=np.float32), []
    for _ in range(picks):
        gains = np.zeros(len(candidates))
        for rows in chunks(len(x)):
            part = x[rows] / np.linalg.norm(x[rows], axis=1, keepdims=True)
            gains += (np.maximum(part @ units.T, coverage[rows]) - coverage[rows]).sum(axis=0, dtype=np.float64)
        gains[chosen] = -1
        chosen.append(int(np.argmax(gains)))
        for rows in chunks(len(x)):
            part = x[rows] / np.linalg.norm(x[rows], axis=1, keepdims=True)
            coverage[rows] = np.maximum(coverage[rows], (part @ units[chosen[-1]])[:, None])
    return candidates[chosen].tolist()


def suggestive_annotation(arguments: argparse.Namespace) -> Iterator[Row]:
    for kind in (clusters, noise):
        x = kind(arguments.pool, arguments.dimensions)
        information = np.random.default_rng(1).random(len(x))
        pool, budget, generator = (
            observation(x, information=information),
            Budget(images=arguments.picks),
            torch.Generator(),
        )
        method = create("sa", candidates=arguments.candidates, picks=arguments.picks)
        ours = measured(lambda: method.rank(pool, None, budget=budget, generator=generator))  # noqa: B023
        most = np.argsort(-information, kind="stable")[: arguments.candidates]
        few = min(arguments.plain_picks, arguments.picks)
        size = f"N = {len(x)}, D = {x.shape[1]}, K = {arguments.candidates}, k = {arguments.picks}, {kind.__name__}"
        exact = measured(lambda: exact_plain_greedy(x, most, few))  # noqa: B023
        assert list(ours[0].ids[:few]) == exact[0]
        single = measured(lambda: plain_greedy(x, most, few))  # noqa: B023
        same_value(x, list(ours[0].ids[:few]), single[0])
        for name, other in (("same arithmetic", exact), ("single precision", single)):
            scaled = other[1] * arguments.picks / few, other[2]
            yield row("suggestive_annotation", size, ours, f"plain greedy, {name}, scaled up from {few} picks", scaled)


def exact_plain_greedy(x: np.ndarray, candidates: np.ndarray, picks: int) -> list[int]:
    """Likewise, but in the fixed-point arithmetic of ours: the result is equal to the last bit."""
    location, chosen = FacilityLocation(x), []
    units = _integers(x[candidates])
    for _ in range(picks):
        gains = location._gains(units)
        gains[chosen] = -1
        chosen.append(int(np.argmax(gains)))
        next(location.picks(candidates[chosen[-1:]]))  # raises the coverage
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


BENCHMARKS = {one.__name__: one for one in (maps, coreset, density, suggestive_annotation)}


def report(rows: list[Row]) -> str:
    lines = [
        "| what | size | s | MB | beside it | s | MB | times faster |",
        "|---|---|--:|--:|---|--:|--:|--:|",
    ]
    for one in rows:
        other = (
            f"{one['peer_seconds']:.2f} | {one['peer_megabytes']:.0f} | {one['ratio']:.1f}" if one["peer"] else "| |"
        )
        head = f"| {one['what']} | {one['size']} | {one['seconds']:.2f} | {one['megabytes']:.0f}"
        lines.append(f"{head} | {one['peer']} | {other} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed and memory of the strategies, as a Markdown table.")
    parser.add_argument("which", nargs="*", choices=[[], *BENCHMARKS], help="which to run; all when none is named")
    sizes = {"members": 20, "images": 2, "classes": 19, "height": 64, "width": 128, "dimensions": 256}
    sizes |= {"pool": 20_000, "candidates": 64, "picks": 32, "plain_picks": 4, "table": 2000}
    sizes |= {"coreset": 10_000, "coreset_picks": 100}
    for name, default in sizes.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default, help=f"default {default}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file, too")
    arguments = parser.parse_args()
    rows = [one for name in arguments.which or BENCHMARKS for one in BENCHMARKS[name](arguments)]
    print(report(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
