"""Makes the pictures in docs/images/strategies: what each method looks at, and what it chooses of the sample data.

A small U-Net is trained on six labelled slices, dropout makes a committee of it, and every method ranks the other
slices. All of it is real output of `strategies`, the same at every run; three minutes of processor time. matplotlib is
among the development tools:

    .venv/bin/python scripts/make_strategy_pictures.py                  # all pictures
    .venv/bin/python scripts/make_strategy_pictures.py cereals vaal     # some
"""

from __future__ import annotations

import argparse
import io
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from ml_backend.datasets import Dataset, Sample, read_mask, sample_dataset
from ml_backend.learning.checkpoints import Checkpoints
from ml_backend.learning.networks import SegmentationNetwork, build, resize_image
from ml_backend.learning.training import Item, Job, train
from strategies import Batch, Budget, Observation, Ranking, Strategy, create
from strategies.descriptors import as_array, mean_cosine
from strategies.regions import normalised
from strategies.stream import StreamSelection
from strategies.uncertainty import MEASURES

ROOT = Path(__file__).parents[1]
SEED = 0
LABELLED = (4, 6, 8, 10, 12, 14)
"""Numbers of the labelled slices, all from the lower half of the head: the upper half is new to the network."""
INPUT_SIZE = 192
MEMBERS, DROPOUT = 20, 0.25
BATCH = 6
"""Images of a batch, and those that each method may ask for."""

WIDTH, DPI = 9.0, 100
ORANGE, BLUE, GREY = "#D55E00", "#0072B2", "#B0B0B0"  # Okabe and Ito's colours, told apart by colour-blind people
COLOURS = "viridis"
STYLE = {"font.size": 10, "axes.titlesize": 10, "legend.fontsize": 9, "font.family": "DejaVu Sans"}


@dataclass(frozen=True)
class Scene:
    """What all pictures are made from: images and what the committee says about them.

    Attributes:
        pool, labelled: batches of the unlabelled and the labelled slices.
        pixels: id -> slice (H,W) uint8 as in its file.
        palette: class -> colour, (C,3) uint8.
    """

    pool: list[Batch]
    labelled: list[Batch]
    pixels: dict[int, NDArray[np.uint8]]
    palette: NDArray[np.uint8]


@dataclass(frozen=True)
class Choice:
    """What a method made of the scene."""

    strategy: Strategy
    pool: Observation
    ranking: Ranking

    @property
    def first(self) -> tuple[int, ...]:
        """Ids of the batch that it asks for."""
        return self.ranking.ids[:BATCH]

    def position(self, number: int) -> int:
        """Return where an id is in the pool."""
        return self.pool.ids.index(number)


# -- scene -----------------------------------------------------------------------------------------------------------
def number_of(sample: Sample) -> int:
    """Return the number of a slice, counted upwards from the lowest."""
    return int(re.sub(r"\D", "", sample.image.stem))


def trained(dataset: Dataset, samples: Sequence[Sample]) -> SegmentationNetwork:
    """Train the demo's network on these samples, with the dropout that a committee needs."""
    items = tuple(Item(sample.image.stem, sample.image, sample.mask, held_out=False, digest="") for sample in samples)
    with tempfile.TemporaryDirectory() as folder:
        job = Job(
            items=items,
            classes=dataset.classes,
            label_map_digest="",
            data_digest="",
            folder=Path(folder),
            architecture="unet",
            train_encoder=True,
            dropout=DROPOUT,
            input_size=INPUT_SIZE,
            iterations=100,
            batch_size=4,
            device="cpu",
            seed=SEED,
        )
        version = train(job)
        network = build(job.architecture, job.encoder, "none", classes=len(job.classes), dropout=DROPOUT)
        network.load_state_dict(Checkpoints(job.folder).load_state(version))
    return network.eval()


@torch.no_grad()
def batch_of(network: SegmentationNetwork, samples: Sequence[Sample], *, labelled: bool) -> Batch:
    """Let the committee, the network with different channels dropped, predict some slices of the same size."""
    files = [np.array(Image.open(sample.image).convert("RGB")) for sample in samples]
    images = torch.stack([resize_image(file, INPUT_SIZE) for file in files]) / 255  # (B,3,h,w)
    height, width = images.shape[-2:]
    decoded, features = network.decode(images)  # once: the members differ in the head only
    network.dropout.train()
    logits = [network.classify(network.dropout(decoded), height, width) for _ in range(MEMBERS)]
    network.dropout.eval()
    everywhere = torch.full((len(samples), height, width), labelled)
    clicks = torch.stack([clicks_in(read_mask(sample.mask), (height, width)) for sample in samples])
    return Batch(
        ids=tuple(map(number_of, samples)),
        images=images,
        probabilities=torch.stack(logits).softmax(dim=2),  # (M,B,C,h,w)
        features=features,
        labelled=everywhere,
        cost=clicks if labelled else None,
        size=torch.tensor([file.shape[:2] for file in files]),
    )


def clicks_in(mask: NDArray[np.uint8], size: tuple[int, int]) -> torch.Tensor:
    """Count the corners of the polygons that a mask (H,W) could be drawn with, per pixel of a map of that size."""
    clicks = torch.zeros(size)
    for value in range(1, int(mask.max()) + 1):
        outlines, _ = cv2.findContours((mask == value).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        for outline in outlines:
            for column, row in cv2.approxPolyDP(outline, 1.5, closed=True)[:, 0]:
                clicks[row * size[0] // mask.shape[0], column * size[1] // mask.shape[1]] += 1
    return clicks


def make_scene() -> Scene:
    """Train, and let the committee predict everything."""
    dataset = sample_dataset()
    samples = sorted(dataset.splits["train"], key=number_of)
    known = [sample for sample in samples if number_of(sample) in LABELLED]
    rest = [sample for sample in samples if number_of(sample) not in LABELLED]
    network = trained(dataset, known)
    torch.manual_seed(SEED)  # of the dropout
    return Scene(
        pool=[batch_of(network, rest[start : start + 8], labelled=False) for start in range(0, len(rest), 8)],
        labelled=[batch_of(network, known, labelled=True)],
        pixels={number_of(sample): np.array(Image.open(sample.image).convert("L")) for sample in samples},
        palette=np.array(dataset.palette, np.uint8),
    )


def choose(scene: Scene, name: str, *, budget: Budget | None = None, **options: Any) -> Choice:
    """Let a method prepare, observe and rank."""
    strategy = create(name, **options)
    generator = torch.Generator().manual_seed(SEED)
    strategy.prepare(scene.labelled, scene.pool, generator=generator)
    pool = Observation.concatenate(map(strategy.observe, scene.pool))
    labelled = Observation.concatenate(map(strategy.observe, scene.labelled))
    ranking = strategy.rank(pool, labelled, budget=budget or Budget(images=BATCH), generator=generator)
    return Choice(strategy, pool, ranking)


def committee_on(scene: Scene, number: int) -> torch.Tensor:
    """Return the committee's probabilities for a slice: (M,1,C,h,w)."""
    batch = next(batch for batch in scene.pool if number in batch.ids)
    position = batch.ids.index(number)
    assert batch.probabilities is not None
    return batch.probabilities[:, position : position + 1]


# -- parts of pictures -----------------------------------------------------------------------------------------------
def show(axes: Axes, picture: NDArray[Any], title: str, **options: Any) -> Any:
    """Show a slice or a map without ticks."""
    drawn = axes.imshow(picture, **({"cmap": "gray", "vmin": 0, "vmax": 255} | options))
    axes.set_title(title)
    axes.set_axis_off()
    return drawn


def prediction(scene: Scene, number: int) -> NDArray[np.uint8]:
    """Return the predicted classes in their colours: (h,w,3)."""
    classes = committee_on(scene, number).mean(dim=0)[0].argmax(dim=0).numpy()
    return scene.palette[classes]


def plane_of(scene: Scene) -> dict[int, NDArray[np.float64]]:
    """Project all descriptors on their first two principal components: id -> (2)."""
    batches = [*scene.pool, *scene.labelled]
    descriptors = torch.cat([batch.features for batch in batches if batch.features is not None]).double().numpy()
    descriptors = unit(descriptors)  # most methods compare by angle
    centred = descriptors - descriptors.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    signs = np.sign(axes[:2, np.abs(axes[:2]).argmax(axis=1)].diagonal())  # the sign of an axis is arbitrary
    ids = [number for batch in batches for number in batch.ids]
    return dict(zip(ids, centred @ (axes[:2] * signs[:, None]).T, strict=True))


def scatter(
    figure: Figure,
    axes: Axes,
    scene: Scene,
    choice: Choice,
    *,
    colour: tuple[str, NDArray[np.float64]] | None = None,
    ringed: tuple[str, Sequence[int]] | None = None,
) -> None:
    """Draw the pool in two dimensions with the labelled slices and the batch, numbered in its order.

    Args:
        colour: name and values (N) of what the points are coloured by.
        ringed: name and ids of other points to mark.
    """
    plane = plane_of(scene)
    points = np.stack([plane[number] for number in choice.pool.ids])
    known = np.stack([plane[number] for batch in scene.labelled for number in batch.ids])
    chosen = np.stack([plane[number] for number in choice.first])
    if colour is None:
        axes.scatter(*points.T, s=34, color=GREY, label="pool")
    else:
        drawn = axes.scatter(*points.T, s=34, c=colour[1], cmap=COLOURS, label="pool")
        figure.colorbar(drawn, ax=axes, label=colour[0], fraction=0.05, pad=0.02)
    if ringed is not None:
        marked = np.stack([plane[number] for number in ringed[1]])
        axes.scatter(*marked.T, s=95, marker="s", facecolor="none", edgecolor=BLUE, linewidth=1.4, label=ringed[0])
    axes.scatter(*known.T, s=46, marker="x", color="black", linewidth=1.6, label="labelled")
    axes.scatter(*chosen.T, s=130, facecolor="none", edgecolor=ORANGE, linewidth=2.2, label="chosen")
    axes.set(xlabel="first principal component", ylabel="second principal component", xticks=[], yticks=[])
    axes.margins(0.14)
    axes.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1), ncols=4, frameon=False, handletextpad=0.1, columnspacing=0.9
    )
    number_points(figure, axes, points, chosen)


def number_points(figure: Figure, axes: Axes, points: NDArray[np.float64], chosen: NDArray[np.float64]) -> None:
    """Write 1, 2, 3 ... beside the chosen points, pushed off all points and off each other."""
    figure.draw_without_rendering()  # fixes the layout, and with it where a point is
    fixed = axes.transData.transform(points) / DPI * 72  # in typographic points, as below
    anchors = axes.transData.transform(chosen) / DPI * 72
    places = anchors + 14 * unit(anchors - fixed.mean(axis=0))
    for _ in range(200):
        push = np.zeros_like(places)
        for others, reach in ((fixed, 13.0), (anchors, 15.0), (places, 14.0)):
            apart = places[:, None] - others[None]  # (numbers,others,2)
            distance = np.linalg.norm(apart, axis=-1, keepdims=True)
            close = (distance > 0) & (distance < reach)
            push += np.where(close, apart / np.maximum(distance, 1e-6) * (reach - distance), 0).sum(axis=1)
        places += 0.2 * push + 0.02 * (anchors - places)
    for number, (place, anchor, offset) in enumerate(zip(chosen, anchors, places, strict=True), start=1):
        axes.annotate(
            str(number),
            place,
            xytext=tuple(offset - anchor),
            textcoords="offset points",
            ha="center",
            va="center",
            color=ORANGE,
            weight="bold",
            arrowprops={"arrowstyle": "-", "color": ORANGE, "linewidth": 0.8, "shrinkA": 5, "shrinkB": 6},
        )


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale vectors (N,2) to length 1."""
    length: NDArray[np.float64] = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(length, 1e-9)


# -- pictures --------------------------------------------------------------------------------------------------------
def picture_of_map(scene: Scene, name: str) -> Figure:
    """Show the map of a pixel measure for the slices ranked first and last."""
    choice = choose(scene, name)
    first, last = choice.ranking.ids[0], choice.ranking.ids[-1]
    maps = [MEASURES[name](committee_on(scene, number))[0].numpy() for number in (first, last)]
    scores = [float(choice.pool.information[choice.position(number)]) for number in (first, last)]
    figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
    axes = figure.subplots(1, 4)
    most = float(np.quantile(maps[0], 0.999))
    scale = {"cmap": COLOURS, "vmin": 0, "vmax": most, "interpolation": "nearest"}
    show(axes[0], scene.pixels[first], f"slice {first}, ranked first")
    show(axes[1], prediction(scene, first), "its prediction")
    drawn = show(axes[2], maps[0], f"its map, mean {scores[0]:.3g}", **scale)
    show(axes[3], maps[1], f"slice {last}, last: mean {scores[1]:.3g}", **scale)
    figure.colorbar(drawn, ax=axes, fraction=0.02, pad=0.01, label=name.replace("_", " "))
    return figure


def picture_of_batch(
    scene: Scene,
    choice: Choice,
    *,
    colour: tuple[str, NDArray[np.float64]] | None = None,
    ringed: tuple[str, Sequence[int]] | None = None,
) -> Figure:
    """Show the chosen batch among the descriptors, and its images."""
    figure, left, right = two_halves()
    scatter(figure, left, scene, choice, colour=colour, ringed=ringed)
    for place, (axes, number) in enumerate(zip(right, choice.first, strict=True), start=1):
        show(axes, scene.pixels[number], f"{place}: slice {number}")
    return figure


def two_halves() -> tuple[Figure, Axes, list[Axes]]:
    """Return a figure, its left half, and six places in its right half."""
    figure = Figure(figsize=(WIDTH, 3.7), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.06)
    left, right = figure.subfigures(1, 2, width_ratios=[1.25, 1])
    return figure, left.subplots(), list(right.subplots(2, 3).flat)


def density(scene: Scene) -> Figure:
    """Show the batch beside what entropy alone would choose."""
    choice = choose(scene, "density", beta=2.0)
    likeness = mean_cosine(as_array(choice.pool, "density"), np.arange(len(choice.pool.ids)))
    return picture_of_batch(
        scene,
        choice,
        colour=("mean similarity to the pool", likeness),
        ringed=("entropy's choice", choose(scene, "entropy").first),
    )


def coreset(scene: Scene) -> Figure:
    """Show the batch over the distances that it starts from."""
    choice = choose(scene, "coreset")
    known = torch.cat([batch.features for batch in scene.labelled if batch.features is not None])
    descriptors = torch.from_numpy(as_array(choice.pool, "coreset"))
    return picture_of_batch(
        scene, choice, colour=("distance to labelled", torch.cdist(descriptors, known).amin(dim=1).numpy())
    )


def suggestive_annotation(scene: Scene) -> Figure:
    """Show the batch among its candidates."""
    choice = choose(scene, "suggestive_annotation", candidates=14, picks=BATCH)
    uncertain = choose(scene, "std").ranking.ids[:14]
    information = choice.pool.information.numpy()
    return picture_of_batch(scene, choice, colour=("std", information), ringed=("14 candidates", uncertain))


def class_balanced(scene: Scene) -> Figure:
    """Show the batch over the share of the rarest class."""
    choice = choose(scene, "class_balanced", share=1.0)
    assert choice.pool.class_fraction is not None
    shares = choice.pool.class_fraction.numpy()
    rarest = int(shares.sum(axis=0).argmin())
    name = sample_dataset().classes[rarest]
    return picture_of_batch(scene, choice, colour=(f"predicted share of {name}", shares[:, rarest]))


def auto(scene: Scene) -> Figure:
    """Show the batch over the effort that is expected, beside what entropy alone would choose."""
    choice = choose(scene, "auto", points=0)
    assert choice.pool.descriptors is not None
    ringed = ("entropy's choice", choose(scene, "entropy").first)
    return picture_of_batch(
        scene, choice, colour=("length of predicted boundaries", choice.pool.descriptors[:, -2].numpy()), ringed=ringed
    )


def power_noise(scene: Scene) -> Figure:
    """Show the batch over the entropies, beside what entropy alone would choose."""
    choice = choose(scene, "power_noise", beta=4.0)
    ringed = ("entropy's choice", choose(scene, "entropy").first)
    return picture_of_batch(scene, choice, colour=("entropy", choice.pool.information.numpy()), ringed=ringed)


def vaal(scene: Scene) -> Figure:
    """Show the batch over the discriminator's opinion."""
    choice = choose(scene, "vaal", width=16, epochs=60, batch_size=16)
    return picture_of_batch(scene, choice, colour=("unlike labelled, -logit D", choice.pool.information.numpy()))


def ceal(scene: Scene) -> Figure:
    """Show what people are asked for, and below it what the network labels itself."""
    choice = choose(scene, "ceal", threshold=0.2, confident_most=BATCH)
    figure, left, right = two_halves()
    pseudo = choice.ranking.pseudo_labels
    ringed = ("pseudo-labels", pseudo)
    scatter(figure, left, scene, choice, colour=("entropy", choice.pool.information.numpy()), ringed=ringed)
    for axes, number in zip(right[:3], choice.first[:3], strict=True):
        show(axes, scene.pixels[number], f"ask: slice {number}")
    for axes, number in zip(right[3:], pseudo[:3], strict=True):
        show(axes, prediction(scene, number), f"trust: slice {number}")
    return figure


def cereals(scene: Scene) -> Figure:
    """Show chosen windows on four slices, and what they were chosen by on the first of these."""
    choice = choose(scene, "cereals", budget=Budget(pixels=30 * 64**2), window=64, stride=8, iterations=200)
    figure = Figure(figsize=(WIDTH, 6.0), layout="constrained")
    top, bottom = figure.subplots(2, 4)
    for axes, number in zip(top, choice.ranking.ids, strict=False):
        show(axes, scene.pixels[number], f"slice {number}: {len(choice.ranking.regions.get(number, ()))} windows")
        for box in choice.ranking.regions.get(number, ()):
            axes.add_patch(
                Rectangle((box.left, box.top), box.width, box.height, fill=False, edgecolor=ORANGE, linewidth=2)
            )
    assert choice.pool.regions is not None
    first = choice.ranking.ids[0]
    position = choice.position(first)
    information, cost = (
        normalised([grid[kind].numpy() for grid in choice.pool.regions], constant=0)[position] for kind in (0, 1)
    )
    entropy = MEASURES["entropy"](committee_on(scene, first))[0].numpy()
    scale = {"cmap": COLOURS, "vmin": 0, "vmax": 1, "interpolation": "nearest"}
    show(bottom[0], entropy, f"slice {first}: entropy", **scale)
    show(bottom[1], information, "windows: information I", **scale)
    show(bottom[2], cost, "windows: expected cost C", **scale)
    drawn = show(bottom[3], (1 - cost) * information, "windows: (1 - C) · I", **scale)
    figure.colorbar(drawn, ax=bottom, fraction=0.02, pad=0.01)
    return figure


def points(scene: Scene) -> Figure:
    """Show points over the uncertainty of three slices, and what is drawn of the third where that does not count."""
    choice, anywhere = choose(scene, "points"), choose(scene, "points", power=0.0, rarity=0.0)
    figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    first = choice.ranking.ids[:3]
    shown = [*((choice, number) for number in first), (anywhere, first[-1])]
    for axes, (own, number) in zip(figure.subplots(1, 4), shown, strict=True):
        show_points(axes, scene, own, number, MEASURES["margin"](committee_on(scene, number))[0].numpy())
    axes.set_title(f"slice {first[-1]}, power=0")
    return figure


def random_points(scene: Scene) -> Figure:
    """Show points that were drawn by chance."""
    choice = choose(scene, "random_points")
    figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    for axes, number in zip(figure.subplots(1, 4), choice.ranking.ids, strict=False):
        show_points(axes, scene, choice, number)
    return figure


def show_points(axes: Axes, scene: Scene, choice: Choice, number: int, below: NDArray[Any] | None = None) -> None:
    """Show the points of a slice over it, or over a map of it, in the colours of the guessed classes."""
    height, width = scene.pixels[number].shape
    if below is None:
        show(axes, scene.pixels[number], f"slice {number}")
    else:
        show(
            axes, below, f"slice {number}", cmap="gray", vmin=0, vmax=1, extent=(-0.5, width - 0.5, height - 0.5, -0.5)
        )
    asked = choice.ranking.points.get(number, ())
    colours = [scene.palette[point.guess or 0] / 255 for point in asked]
    axes.scatter(
        [point.column for point in asked],
        [point.row for point in asked],
        s=42,
        c=colours,
        edgecolor="white",
        linewidth=1,
    )


def stream(scene: Scene) -> Figure:
    """Show which slices are kept as they arrive, and the threshold."""
    observed = choose(scene, "entropy").pool
    arriving = torch.randperm(len(observed.ids), generator=torch.Generator().manual_seed(SEED)).tolist()
    selection = StreamSelection(rate=0.25)
    decisions = []
    for position in arriving:
        single = slice(position, position + 1)
        decisions.append(
            selection.decide(
                Observation(
                    ids=observed.ids[single], information=observed.information[single], size=observed.size[single]
                )
            )
        )
    figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    axes = figure.subplots()
    place = np.arange(1, len(decisions) + 1)
    kept = np.array([decision.keep for decision in decisions])
    scores = np.array([decision.score for decision in decisions])
    thresholds = np.array([decision.threshold for decision in decisions])
    shown = np.where(np.isfinite(thresholds), thresholds, np.nan)
    axes.scatter(place[~kept], scores[~kept], s=34, color=GREY, label="passed over")
    axes.scatter(place[kept], scores[kept], s=70, marker="D", color=ORANGE, label="kept")
    axes.hlines(shown, place - 0.45, place + 0.45, color=BLUE, linewidth=2, label="threshold")
    for wait in place[~np.isfinite(thresholds)]:
        axes.axvspan(wait - 0.5, wait + 0.5, color="0.92", linewidth=0, zorder=0)
    axes.set(xlabel="images in the order of their arrival", ylabel="entropy", xlim=(0.4, len(place) + 0.6))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.18), ncols=3, frameon=False)
    return figure


MAPS = ("least_confidence", "margin", "entropy", "vote_entropy", "bald", "std")
PICTURES: dict[str, Callable[[Scene], Figure]] = (
    {name: partial(picture_of_map, name=name) for name in MAPS}
    | {"random": lambda scene: picture_of_batch(scene, choose(scene, "random"))}
    | {
        draw.__name__: draw
        for draw in (
            auto,
            density,
            coreset,
            suggestive_annotation,
            class_balanced,
            power_noise,
            vaal,
            ceal,
            cereals,
            points,
            random_points,
            stream,
        )
    }
)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a small PNG, without the time or the version in it."""
    written = io.BytesIO()
    figure.savefig(written, dpi=DPI, facecolor="white", format="png")
    Image.open(written).convert("RGB").save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def main() -> None:
    """Write the pictures asked for, or all."""
    parser = argparse.ArgumentParser(description="Make the pictures of docs/strategies.md.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of: {', '.join(PICTURES)}")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images" / "strategies", help="their folder")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(PICTURES)
    if unknown:
        parser.error(f"no picture {sorted(unknown)[0]!r}; there are {', '.join(PICTURES)}")
    arguments.output.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    scene = make_scene()
    print(f"trained and predicted in {time.monotonic() - started:.0f} s")
    with mpl.rc_context(STYLE):
        for name in arguments.names or PICTURES:
            save(PICTURES[name](scene), arguments.output / f"{name}.png")
    print(f"{time.monotonic() - started:.0f} s in all")


if __name__ == "__main__":
    main()
