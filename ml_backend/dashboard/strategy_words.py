"""What strategies look for, in words for people who never heard of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class StrategyWords:
    """A strategy in plain words.

    Attributes:
        order: what comes first, as the end of "First come …".
        value: name of what it measures of one image; empty where a single image has no value of its own.
        alone: whether that value alone decides the order.
    """

    order: str
    value: str = ""
    alone: bool = False


WORDS: Final = {
    "auto": StrategyWords(
        "images of every class in turn, drawn so that uncertain and cheap ones come sooner", "uncertainty"
    ),
    "bald": StrategyWords(
        "images on which networks that are sure of themselves contradict each other", "disagreement", True
    ),
    "ceal": StrategyWords(
        "images that the model is unsure of; it labels those that it is sure of itself", "uncertainty"
    ),
    "cereals": StrategyWords("the regions that promise most for the effort that they cost", "uncertainty"),
    "class_balanced": StrategyWords("images that give each predicted class its share"),
    "coreset": StrategyWords("images that are unlike all that are labelled"),
    "density": StrategyWords("images that are uncertain and like many others", "uncertainty"),
    "entropy": StrategyWords("images whose pixels have the most uncertain class probabilities", "uncertainty", True),
    "least_confidence": StrategyWords("images whose likeliest class is the least likely", "uncertainty", True),
    "margin": StrategyWords("images whose two likeliest classes are closest", "uncertainty", True),
    "power_noise": StrategyWords("uncertain images, with some chance, so that they differ", "uncertainty"),
    "random": StrategyWords("images drawn by chance"),
    "std": StrategyWords("images on which a committee of networks spreads most", "disagreement", True),
    "suggestive_annotation": StrategyWords(
        "those of the most disputed images that stand for the others best", "disagreement"
    ),
    "vaal": StrategyWords("images that a discriminator finds unlike the labelled ones", "unlikeness", True),
    "vote_entropy": StrategyWords(
        "images on which a committee of networks votes most differently", "disagreement", True
    ),
}
"""By the strategy's name; `suggestive_annotation` is also known as `sa`."""


def words_of(strategy: str) -> StrategyWords:
    """Return a strategy in words."""
    name = "suggestive_annotation" if strategy == "sa" else strategy
    return WORDS.get(name, StrategyWords(f"what {name} ranks first"))
