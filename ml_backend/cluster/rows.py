"""What goes to the nodes to be scored, and what comes back. Imports neither Ray nor torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ml_backend.errors import ImageError, NextmaskError
from ml_backend.projects.labelled_images import Labels

if TYPE_CHECKING:
    from strategies import Observation


@dataclass(frozen=True)
class Row:
    """An image to be scored.

    Attributes:
        task_id: of its task.
        reference: the address that it is fetched from; see `images.references.in_project`.
        labels: what is labelled of it already, or why that cannot be read.
    """

    task_id: int
    reference: str
    labels: Labels | ImageError = field(default_factory=Labels)


@dataclass(frozen=True)
class Scoring:
    """What a node needs to score, besides images. No secret is among it: nodes have their own.

    Attributes:
        batch_size: images of a forward pass.
        settings: name -> value of the settings that decide what is measured.
        public_urls: addresses that Label Studio has in people's browsers.
        strategy: the strategy itself, pickled, with the chance that it has drawn; empty where it has learned something.
        state: what it has learned, as `torch.save` writes it; empty where it learns nothing.
        files: of the version that predicts and its committee, by key in the project's checkpoints; none where the
            strategy looks at images alone.
        number: of that version.
        input_size: longest image side that is looked at, in pixels.
        versions: of nextmask and torch that the worker has; see `versions`.
    """

    batch_size: int
    settings: Mapping[str, Any]
    public_urls: tuple[str, ...]
    strategy: bytes
    state: bytes
    files: Mapping[str, bytes]
    number: int
    input_size: int
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Scored:
    """What came of some images.

    Attributes:
        observation: of those that could be had; None of none.
        errors: task id -> (why it could not be had, whether it is the image and not its labels).
        failure: what keeps the node from scoring at all.
    """

    observation: Observation | None
    errors: Mapping[int, tuple[str, bool]] = field(default_factory=dict)
    failure: NextmaskError | None = None

    @property
    def ids(self) -> list[int]:
        """Tasks that this says something of."""
        return [*self.errors, *(int(one) for one in (self.observation.ids if self.observation else ()))]


def device_on_node(device: str) -> str:
    """Return NEXTMASK_DEVICE for a process of a node: Ray shows it the one GPU that it was given.

    >>> device_on_node("cuda:3"), device_on_node("cuda:all"), device_on_node("auto")
    ('cuda', 'cuda', 'auto')
    """
    return device.partition(":")[0]
