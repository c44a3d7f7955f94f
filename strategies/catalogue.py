"""The methods and their facts: the only place that knows them by name. Imports no torch.

What a method computes is in its module, `strategies.<name>`; what a name, a person or a program has to know before
that is imported is here. The contract test compares both. Packages of others register methods beside these: see
`strategies.registry`.
"""

from __future__ import annotations

from typing import Final

from strategies.entry import Entry, Words
from strategies.registry import Registry

__all__ = ["ENTRIES", "available", "create", "described", "entry", "importable"]

ENTRIES: Final = (
    Entry(
        name="auto",
        method="strategies.auto:Auto",
        words=Words(
            "images whose points promise most, or images of every class in turn, uncertain and cheap ones sooner",
            "uncertainty",
            "Its uncertainty is {value}, {compared}.",
        ),
        needs=frozenset({"probabilities"}),
        asks_for_points=True,
        without_points={"points": 0},
    ),
    Entry(
        name="bald",
        method="strategies.bald:Bald",
        words=Words(
            "images on which networks that are sure of themselves contradict each other",
            "disagreement",
            "Networks that are each sure of themselves contradict each other here: "
            "their disagreement is {value}, {compared}.",
        ),
        needs=frozenset({"committee"}),
    ),
    Entry(
        name="ceal",
        method="strategies.ceal:Ceal",
        words=Words(
            "images that the model is unsure of; it labels those that it is sure of itself",
            "uncertainty",
            "The model cannot label it by itself: its uncertainty is {value}, {compared}.",
        ),
        needs=frozenset({"probabilities"}),
        presets={
            # Gorriz et al. 2017 (arXiv 1711.09168), for a budget of 35 images and a committee of 20.
            "melanoma": {
                "measure": "var",
                "weighting": "distance",
                "groups": (10, 10, 15),
                "threshold": 1.0,
                "decay": 0.0,
                "confident_from": 5,
                "confident_most": 20,
                "confident_growth": 20,
            }
        },
    ),
    Entry(
        name="cereals",
        method="strategies.cereals:Cereals",
        words=Words(
            "the regions that promise most for the effort that they cost",
            "uncertainty",
            "It holds a region that promises much for the effort that it takes. "
            "The uncertainty of the whole image is {value}, {compared}.",
        ),
        needs=frozenset({"probabilities", "examples"}),
        asks_for_regions=True,
    ),
    Entry(
        name="class_balanced",
        method="strategies.class_balanced:ClassBalanced",
        words=Words(
            "images that give each predicted class its share", why="Drawn by chance: only the predicted classes count."
        ),
        needs=frozenset({"probabilities"}),
    ),
    Entry(
        name="coreset",
        method="strategies.coreset:Coreset",
        words=Words(
            "images that are unlike all that are labelled",
            why="It is unlike all labelled images, and unlike those before it in this list.",
        ),
        needs=frozenset({"features", "labelled"}),
    ),
    Entry(
        name="density",
        method="strategies.density:Density",
        words=Words(
            "images that are uncertain and like many others",
            "uncertainty",
            "Its uncertainty is {value}, {compared}; the more other images it resembles, the sooner it comes.",
        ),
        needs=frozenset({"probabilities", "features"}),
    ),
    Entry(
        name="entropy",
        method="strategies.entropy:Entropy",
        words=Words(
            "images whose pixels have the most uncertain class probabilities",
            "uncertainty",
            "Its pixels could be of several classes: their mean uncertainty is {value}, {compared}.",
        ),
        needs=frozenset({"probabilities"}),
    ),
    Entry(
        name="least_confidence",
        method="strategies.least_confidence:LeastConfidence",
        words=Words(
            "images whose likeliest class is the least likely",
            "uncertainty",
            "Even the likeliest class of its pixels is unlikely: their mean uncertainty is {value}, {compared}.",
        ),
        needs=frozenset({"probabilities"}),
    ),
    Entry(
        name="margin",
        method="strategies.margin:Margin",
        words=Words(
            "images whose two likeliest classes are closest",
            "uncertainty",
            "The two likeliest classes of its pixels are close: their mean uncertainty is {value}, {compared}.",
        ),
        needs=frozenset({"probabilities"}),
    ),
    Entry(
        name="points",
        method="strategies.points:Points",
        words=Words(
            "images with pixels that promise most: the network wavers between two classes there, rare ones sooner",
            "uncertainty",
            "It holds pixels whose answers promise much. The uncertainty of the whole image is {value}, {compared}.",
        ),
        needs=frozenset({"probabilities"}),
        asks_for_points=True,
    ),
    Entry(
        name="power_noise",
        method="strategies.power_noise:PowerNoise",
        words=Words(
            "uncertain images, with some chance, so that they differ",
            "uncertainty",
            "Drawn by chance, uncertain images sooner: its uncertainty is {value}, {compared}.",
        ),
        needs=frozenset({"probabilities"}),
    ),
    Entry(
        name="random",
        method="strategies.random:Random",
        words=Words("images drawn by chance", why="Drawn by chance: nothing was measured."),
        needs=frozenset(),
    ),
    Entry(
        name="random_points",
        method="strategies.random_points:RandomPoints",
        words=Words(
            "images of which the fewest points were asked, drawn by chance as the points are",
            why="Drawn by chance, as its points are: nothing was measured.",
        ),
        needs=frozenset(),
        asks_for_points=True,
    ),
    Entry(
        name="std",
        method="strategies.std:Std",
        words=Words(
            "images on which a committee of networks spreads most",
            "disagreement",
            "The probabilities that a committee of networks gives spread: its disagreement is {value}, {compared}.",
        ),
        needs=frozenset({"committee"}),
    ),
    Entry(
        name="suggestive_annotation",
        method="strategies.suggestive_annotation:SuggestiveAnnotation",
        words=Words(
            "those of the most disputed images that stand for the others best",
            "disagreement",
            "A committee disputes it: the disagreement is {value}, {compared}. "
            "Of the most disputed images, those that stand for many others come first.",
        ),
        needs=frozenset({"committee", "features"}),
        ensemble=True,
    ),
    Entry(
        name="vaal",
        method="strategies.vaal:Vaal",
        words=Words(
            "images that a discriminator finds unlike the labelled ones",
            "unlikeness",
            "A discriminator finds it unlike the labelled images: its unlikeness is {value}, {compared}.",
        ),
        needs=frozenset({"examples"}),
    ),
    Entry(
        name="vote_entropy",
        method="strategies.vote_entropy:VoteEntropy",
        words=Words(
            "images on which a committee of networks votes most differently",
            "disagreement",
            "The members of a committee vote for different classes: their disagreement is {value}, {compared}.",
        ),
        needs=frozenset({"committee"}),
    ),
)
"""The methods of this package."""

_REGISTRY: Final = Registry(ENTRIES, other_names={"sa": "suggestive_annotation"})

available = _REGISTRY.available
importable = _REGISTRY.importable
entry = _REGISTRY.entry
described = _REGISTRY.described
create = _REGISTRY.create
