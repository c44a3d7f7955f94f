"""The pixels of held-out labels, by class: all that measures are made of, label by label.

A record keeps them as text, a label a line: "0:900,880,850 3:100,120,70" are 900 pixels of class 0 and 100 of class 3;
880 and 120 were predicted to be of these classes, 850 and 70 of them rightly. Classes without a pixel are left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.int64]
"""(..., C, 3): how many pixels are truly of a class, were predicted to be, and are both."""
TRUE, PREDICTED, HIT = 0, 1, 2

_GROUP_DIGITS = 12


@dataclass(frozen=True, eq=False)
class Counts:
    """The pixels of N held-out labels.

    Attributes:
        classes: C names.
        labels: id of each.
        groups: what each is of, such as a video: labels of a group are alike, and count as one piece of evidence.
        pixels: (N,C,3).
    """

    classes: tuple[str, ...]
    labels: tuple[str, ...]
    groups: tuple[str, ...]
    pixels: Pixels

    @classmethod
    def from_texts(cls, texts: Mapping[str, str], groups: Mapping[str, str], classes: Sequence[str]) -> Counts:
        """Read what `text` wrote.

        Args:
            texts: by id of the label.
            groups: likewise; a label that has none is a group of its own.

        Raises:
            ValueError, IndexError: a text is of another form.
        """
        pixels = np.zeros((len(texts), len(classes), 3), np.int64)
        for row, text in zip(pixels, texts.values(), strict=True):
            for part in text.split():
                index, _, numbers = part.partition(":")
                row[int(index)] = [int(number) for number in numbers.split(",")]
        return cls(tuple(classes), tuple(texts), tuple(groups.get(label) or label for label in texts), pixels)

    def __len__(self) -> int:
        return len(self.labels)

    def texts(self) -> dict[str, str]:
        """Return the pixels of each label as `from_texts` reads them."""
        return {label: text(pixels) for label, pixels in zip(self.labels, self.pixels, strict=True)}

    def known_groups(self) -> dict[str, str]:
        """Return the group of each label that is not a group of its own."""
        return {label: group for label, group in zip(self.labels, self.groups, strict=True) if group != label}

    def only(self, labels: Sequence[str]) -> Counts:
        """Return those of some of the labels, in that order."""
        at = {label: index for index, label in enumerate(self.labels)}
        places = [at[label] for label in labels]
        return Counts(self.classes, tuple(labels), tuple(self.groups[place] for place in places), self.pixels[places])

    def by_group(self) -> Pixels:
        """Return the pixels of all labels of a group together: (G,C,3), in the order of their first labels."""
        order = {group: at for at, group in enumerate(dict.fromkeys(self.groups))}
        together = np.zeros((len(order), *self.pixels.shape[1:]), np.int64)
        np.add.at(together, [order[group] for group in self.groups], self.pixels)
        return together


def pixels_of(confusion: NDArray[np.int64]) -> Pixels:
    """Return the pixels (C,3) of a confusion matrix (C,C), whose rows are the truth."""
    return np.stack([confusion.sum(axis=1), confusion.sum(axis=0), confusion.diagonal()], axis=-1)


def text(pixels: Pixels) -> str:
    """Write the pixels (C,3) of a label.

    >>> text(np.array([[900, 880, 850], [0, 0, 0], [0, 20, 0]]))
    '0:900,880,850 2:0,20,0'
    """
    there = np.flatnonzero(pixels.any(axis=-1))
    return " ".join(f"{index}:{','.join(map(str, pixels[index].tolist()))}" for index in there.tolist())


def group_digest(group: str) -> str:
    """Return what stands for a group in records: its name may be long, and is nobody else's business.

    >>> group_digest("patient 7"), group_digest("")
    ('380e1c6279a5', '')
    """
    return hashlib.sha256(group.encode()).hexdigest()[:_GROUP_DIGITS] if group else ""
