"""The tables of docs/benchmarks.md on clicks, and their curves."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from clicking import MOST_CLICKS

Row = Mapping[str, str]
LEVELS = (0.8, 0.85, 0.9)
NAMES = {
    "refiner": "network and clicks",
    "untrained": "before the first training",
    "grab_cut": "GrabCut",
    "random_walker": "random walker",
}
TITLES = {"icbm152": "sample data", "glas": "GlaS", "camvid": "CamVid"}
RESAMPLES = 2000


def report(clicks: Sequence[Row], latency: Sequence[Row], picture: Path | None) -> None:
    """Print the tables; draw the curves into a file."""
    shared = with_all_methods([row for row in clicks if row["method"] in NAMES])
    print_clicks(shared)
    print_contrasts(shared)
    print_alone(clicks)
    print_mending(clicks)
    print_latency(latency)
    if picture is not None:
        draw(shared, picture)


def with_all_methods(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of objects that every method clicked on."""
    methods = defaultdict(set)
    for row in rows:
        methods[row["dataset"], row["object"]].add(row["method"])
    every = set.union(*methods.values())
    return [row for row in rows if methods[row["dataset"], row["object"]] == every]


def needed(row: Row, level: float) -> int:
    """Return the clicks until IoU is at least `level`; 20 where it never is."""
    ious = [float(value) for value in row["ious"].split()]
    return next((number for number, iou in enumerate(ious, 1) if iou >= level), MOST_CLICKS)


def print_clicks(rows: Sequence[Row]) -> None:
    print("| data | method | objects | NoC@80 | NoC@85 | NoC@90 | never 85 % | IoU after 1 | after 3 |")
    print("|---|---|--:|--:|--:|--:|--:|--:|--:|")
    for dataset in TITLES:
        for method, name in NAMES.items():
            own = [row for row in rows if (row["dataset"], row["method"]) == (dataset, method)]
            if not own:
                continue
            found = " | ".join(interval(own, lambda row, level=level: needed(row, level)) for level in LEVELS)
            never = statistics.fmean(max(map(float, row["ious"].split())) < 0.85 for row in own)
            after = [statistics.fmean(iou_after(row, count) for row in own) for count in (1, 3)]
            print(
                f"| {TITLES[dataset]} | {name} | {len(own)} | {found} | {never:.0%} | {after[0]:.2f} | {after[1]:.2f} |"
            )
    print()


def print_contrasts(rows: Sequence[Row]) -> None:
    """Print how many clicks fewer than without a network, as a share of those."""
    print("| data | method | against | clicks to 85 % fewer by |")
    print("|---|---|---|--:|")
    by = {(row["dataset"], row["object"], row["method"]): row for row in rows}
    for dataset in (*TITLES, None):
        for method in ("refiner", "untrained"):
            for other in ("grab_cut", "random_walker"):
                pairs = [
                    (row, by[row["dataset"], row["object"], other])
                    for row in rows
                    if row["method"] == method and dataset in (None, row["dataset"])
                    if (row["dataset"], row["object"], other) in by
                ]
                if pairs:
                    title = "all" if dataset is None else TITLES[dataset]
                    print(f"| {title} | {NAMES[method]} | {NAMES[other]} | {share_saved(pairs)} |")
    print()


def print_alone(rows: Sequence[Row]) -> None:
    print("| data | objects | network alone: IoU | at least 80 % | 85 % | 90 % |")
    print("|---|--:|--:|--:|--:|--:|")
    for dataset, title in TITLES.items():
        alone = [float(row["alone"]) for row in rows if row["dataset"] == dataset and row["method"] == "refiner"]
        if alone:
            shares = " | ".join(f"{statistics.fmean(iou >= level for iou in alone):.0%}" for level in LEVELS)
            print(f"| {title} | {len(alone)} | {statistics.fmean(alone):.2f} | {shares} |")
    print()


def print_mending(rows: Sequence[Row]) -> None:
    """Print what mending to 90 % takes; where it never gets there, its clicks and the outline after all."""
    print("| data | objects | clicks that mend | to draw the outlines | mending takes fewer |")
    print("|---|--:|--:|--:|--:|")
    for dataset, title in TITLES.items():
        own = [row for row in rows if row["dataset"] == dataset and row["method"] == "refiner"]
        if own:
            fewer = statistics.fmean(mending(row) < int(row["outline"]) for row in own)
            outlines = interval(own, lambda row: int(row["outline"]))
            print(f"| {title} | {len(own)} | {interval(own, mending)} | {outlines} | {fewer:.0%} |")
    print()


def mending(row: Row) -> int:
    """Return the clicks that mend an object of the network's mask to 90 %."""
    if float(row["alone"]) >= 0.9:
        return 0
    reached = max(map(float, row["ious"].split())) >= 0.9
    return needed(row, 0.9) + (0 if reached else int(row["outline"]))


def print_latency(rows: Sequence[Row]) -> None:
    print("| training | maps kept | clicks | median, ms | p95, ms | processor, ms | load |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for training in ("no", "yes"):
        for kept in ("yes", "no"):
            own = [row for row in rows if (row["training"], row["kept"]) == (training, kept)]
            if own:
                times = [float(row["ms"]) for row in own]
                worked = statistics.median(float(row["processor_ms"]) for row in own)
                load = statistics.fmean(float(row["load"]) for row in own)
                print(
                    f"| {training} | {kept} | {len(own)} | {np.median(times):.0f} | {np.percentile(times, 95):.0f} "
                    f"| {worked:.0f} | {load:.1f} |"
                )
    print()


def iou_after(row: Row, count: int) -> float:
    """Return IoU after some clicks; where fewer were enough, the last."""
    ious = [float(value) for value in row["ious"].split()]
    return ious[min(count, len(ious)) - 1]


def interval(rows: Sequence[Row], measure: Callable[[Row], float]) -> str:
    """Return the mean and its 95 % interval, of the bootstrap over images."""
    groups = list(_by_image(rows, measure).values())
    low, high = _bounds(groups, lambda values: float(np.concatenate(values).mean()))
    return f"{statistics.fmean(map(measure, rows)):.1f} ({low:.1f} to {high:.1f})"


def share_saved(pairs: Sequence[tuple[Row, Row]]) -> str:
    """Return by which share clicks to 85 % are fewer in the first of two rows, with its interval."""
    groups = defaultdict(list)
    for one, other in pairs:
        groups[one["dataset"], one["image"]].append((needed(one, 0.85), needed(other, 0.85)))
    values = [np.array(group, float) for group in groups.values()]

    def saved(drawn: Sequence[np.ndarray]) -> float:
        mean = np.concatenate(drawn).mean(0)
        return float(1 - mean[0] / mean[1])

    low, high = _bounds(values, saved)
    return f"{saved(values):.0%} ({low:.0%} to {high:.0%})"


def _by_image(rows: Sequence[Row], measure: Callable[[Row], float]) -> dict[str, np.ndarray]:
    groups = defaultdict(list)
    for row in rows:
        groups[row["image"]].append(measure(row))
    return {image: np.array(values, float) for image, values in groups.items()}


def _bounds(groups: Sequence[np.ndarray], measure: Callable[[Sequence[np.ndarray]], float]) -> tuple[float, float]:
    random = np.random.default_rng(0)
    drawn = [measure([groups[at] for at in random.integers(0, len(groups), len(groups))]) for _ in range(RESAMPLES)]
    return float(np.percentile(drawn, 2.5)), float(np.percentile(drawn, 97.5))


def draw(rows: Sequence[Row], file: Path) -> None:
    """Draw mean IoU by clicks: a curve for each method, a plot for each data set."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "clicks", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot

    present = [dataset for dataset in TITLES if any(row["dataset"] == dataset for row in rows)]
    figure, plots = pyplot.subplots(1, len(present), figsize=(9, 3), sharey=True, squeeze=False)
    colours = dict(zip(NAMES, ("#1b6ca8", "#7fb3d9", "#d1622b", "#7a7a7a"), strict=True))
    for plot, dataset in zip(plots[0], present, strict=True):
        for method, name in NAMES.items():
            own = [row for row in rows if (row["dataset"], row["method"]) == (dataset, method)]
            counts = range(1, MOST_CLICKS + 1)
            means = [statistics.fmean(iou_after(row, count) for row in own) for count in counts]
            plot.plot(counts, means, color=colours[method], label=name)
        plot.axhline(0.85, color="#bbbbbb", linewidth=0.8, linestyle=":")
        plot.set(title=TITLES[dataset], xlabel="clicks", xlim=(1, MOST_CLICKS), ylim=(0, 1), xticks=(1, 5, 10, 15, 20))
        plot.spines[["top", "right"]].set_visible(False)
    plots[0][0].set_ylabel("IoU")
    plots[0][-1].legend(frameon=False, fontsize=8, loc="lower right")
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
