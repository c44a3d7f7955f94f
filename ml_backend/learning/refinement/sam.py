"""The refiner on SAM 2, where a team has its weights. It knows no classes: a mask is of the class of its prompts.

SAM 2 makes the mask of one object of some clicks on it, some beside it, a box around it, and of its mask before. So
prompts are sorted by what they are about: each box; each connected part of what is drawn that is too large; and
all clicks on what is not drawn, together. What is drawn and no click is on stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from ml_backend.errors import ImageError
from ml_backend.learning.refinement.agreement import connected
from ml_backend.learning.refinement.prompts import Pixels, Prompt, elsewhere, numbered
from ml_backend.learning.refinement.refiner import KEPT_BYTES, Image, Refiner, Size
from ml_backend.learning.refinement.sam_network import Embedding, SamNetwork

Map = npt.NDArray[np.float32]

_SURE = 10.0
"""Logit of a pixel that is drawn."""
_TOGETHER = {"cpu": 1, "cuda": 4}
"""Images that are embedded at a time, by device: processors gain nothing by more, and a click would wait for them."""


@dataclass
class Part:
    """An object that SAM 2 is asked for.

    Attributes:
        clicks: on it, and beside it. box: around it.
        drawn: (H,W) what is drawn of it; None: nothing.
    """

    clicks: list[Prompt] = field(default_factory=list)
    box: Prompt | None = None
    drawn: Pixels | None = None

    @property
    def is_anywhere(self) -> bool:
        """Whether something says where it is."""
        return self.box is not None or any(click.is_positive for click in self.clicks)

    def asked(self, size: tuple[int, int], side: int) -> tuple[Map, list[int]]:
        """Return points (N,2), x and y in the square that SAM 2 sees an image as, and their labels."""
        edges = [(self.box.left, self.box.top), (self.box.right, self.box.bottom)] if self.box else []
        middles = [((click.left + click.right) / 2, (click.top + click.bottom) / 2) for click in self.clicks]
        points = np.array([*edges, *middles], np.float32).reshape(-1, 2) * (side / size[1], side / size[0])
        return points.astype(np.float32), [*((2, 3) if self.box else ()), *(int(c.is_positive) for c in self.clicks)]

    def logits(self, coarse: int) -> Map | None:
        """Return what is drawn of it as SAM 2 takes a mask, (coarse,coarse)."""
        if self.drawn is None:
            return None
        share = cv2.resize(self.drawn.astype(np.float32), (coarse, coarse), interpolation=cv2.INTER_AREA)
        logits: Map = (share * 2 - 1) * np.float32(_SURE)
        return logits


class SamRefiner(Refiner[Embedding]):
    """Makes masks of prompts by SAM 2. One serves all projects.

    Args:
        most_bytes: of the embeddings that are kept; each has 8 MB.
    """

    too_large = "The image does not fit into memory beside SAM 2. Take a smaller SAM 2, or unset NEXTMASK_SAM."

    def __init__(self, network: SamNetwork, *, most_bytes: int = 2 * KEPT_BYTES) -> None:
        super().__init__(most_bytes)
        self._network = network
        self.together = _TOGETHER.get(network.device.type, 1)

    def _computed(self, images: Sequence[Image]) -> list[Embedding]:
        return self._network.embeddings([_checked(image) for image in images])

    def _mask(
        self,
        kept: Embedding,
        target: int,  # noqa: ARG002 (it knows no classes)
        prompts: list[Prompt],
        size: Size,
        drawn: Pixels | None,
    ) -> Pixels:
        mask = np.zeros(size, np.bool_) if drawn is None else drawn.copy()
        for part in parts_of(prompts, size, drawn):
            if part.drawn is not None:
                mask &= ~part.drawn
            if part.is_anywhere:
                mask |= self._object(kept, part, size)
        return connected(mask, prompts, drawn)

    def _object(self, embedding: Embedding, part: Part, size: Size) -> Pixels:
        side = self._network.side
        logits = self._network.logits(embedding, *part.asked(size, side), part.logits(side // 4))
        large = cv2.resize(logits, size[::-1], interpolation=cv2.INTER_LINEAR).reshape(size)
        mask: Pixels = large > 0
        if part.box is not None:
            within = np.zeros(size, np.bool_)
            within[part.box.area] = True
            mask &= within
        return mask


def parts_of(prompts: Sequence[Prompt], size: tuple[int, int], drawn: Pixels | None = None) -> list[Part]:
    """Return the objects that prompts are about.

    Args:
        prompts: of a class, inside an image of that size (`about`).
        drawn: (H,W) what is drawn of the class; None: nothing.
    """
    boxes = [Part(box=prompt) for prompt in prompts if prompt.is_positive and not prompt.is_point]
    clicks = [_as_click(prompt) for prompt in prompts if prompt.is_point or not prompt.is_positive]
    numbers = np.zeros(size, np.int32) if drawn is None else numbered(drawn)
    new, by_number = Part(), dict[int, Part]()
    for click in clicks:
        around = [part for part in boxes if part.box is not None and part.box.holds(click)]
        for part in around:
            part.clicks.append(click)
        if not around:
            number = int(numbers[click.centre])
            (by_number.setdefault(number, Part()) if number else new).clicks.append(click)
    found = [*boxes, new] if new.is_anywhere else boxes
    for number, part in by_number.items():
        if not all(click.is_positive for click in part.clicks):
            part.drawn = numbers == number
            if not part.is_anywhere and (place := elsewhere(part.drawn, part.clicks)) is not None:
                part.clicks.append(Prompt.click(part.clicks[0].klass, *place))
            found.append(part)
    return found


def _as_click(prompt: Prompt) -> Prompt:
    return Prompt.click(prompt.klass, *prompt.centre, is_positive=prompt.is_positive)


def _checked(image: Image) -> Image:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ImageError(f"The image must be (height, width, 3) uint8, not {image.shape} {image.dtype}.")
    return image
