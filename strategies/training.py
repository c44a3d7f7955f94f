"""Training that methods with networks of their own share: seeded, resumable, within a deadline.

The random numbers of a step depend on the run's seed and the step's number alone. A run that was interrupted,
saved and continued by another process therefore ends like an uninterrupted run.
"""

from __future__ import annotations

import hashlib
import heapq
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from strategies.base import Progress, Strategy

_Value = TypeVar("_Value")
_Learned = TypeVar("_Learned", bound="Learned")
_Build = TypeVar("_Build", bound=nn.Module)
_FIELDS = {"kind", "settings", "seed", "data", "step", "restarts", "modules", "optimizers"}


class Sample(Generic[_Value]):
    """A bounded random sample of values, which depends on the keys offered, not on their order.

    The values whose keys have the smallest hashes stay.

    >>> kept = [Sample(2), Sample(2)]
    >>> for key in "abcdef":
    ...     kept[0].offer(key, key)
    >>> for key in "fbdace":
    ...     kept[1].offer(key, key)
    >>> kept[0].values() == kept[1].values(), len(kept[0].values())
    (True, 2)
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._heap: list[tuple[int, str]] = []  # the largest hash on top
        self._values: dict[str, _Value] = {}

    def offer(self, key: str, value: _Value) -> None:
        """Keep the value, if the hash of its key is among the smallest so far."""
        entry = (-stable_hash(key), key)
        if len(self._heap) < self._capacity:
            heapq.heappush(self._heap, entry)
        elif entry > self._heap[0]:
            del self._values[heapq.heapreplace(self._heap, entry)[1]]
        else:
            return
        self._values[key] = value

    def values(self) -> list[_Value]:
        """Return what has been kept, in the order of the hashes."""
        return [self._values[key] for _, key in sorted(self._heap, reverse=True)]


class Run:
    """The training of some networks by Adam: where it stands, and all it takes to go on.

    Args:
        kind: whose networks they are.
        settings: options that the networks' shapes and their training follow from.
        seed: all randomness follows from it and the number of the step.
        data: digest of what is trained on.
        modules: each gets an optimiser of its own.

    Attributes:
        step: steps done on this data.
        restarts: how often the data changed under the same networks.
    """

    def __init__(
        self,
        *,
        kind: str,
        settings: Mapping[str, float],
        seed: int,
        data: str,
        modules: Sequence[nn.Module],
        learning_rate: float,
    ) -> None:
        self.data = data
        self.step = self.restarts = 0
        self._kind, self._settings, self._seed = kind, dict(settings), seed
        self._modules = tuple(modules)
        self._learning_rate = learning_rate
        self._optimizers = self._new_optimizers()
        self._train(False)

    def to(self, device: torch.device) -> None:
        """Move the networks, and what their optimisers remember."""
        for module, optimizer in zip(self._modules, self._optimizers, strict=True):
            if next(module.parameters()).device != device:
                module.to(device)
                optimizer.load_state_dict(optimizer.state_dict())  # casts to the parameters' device

    def restart(self, *, seed: int, data: str) -> None:
        """Go on with the networks as they are on other data, with new optimisers and steps counted anew."""
        self._seed, self.data, self.step = seed, data, 0
        self._optimizers = self._new_optimizers()
        self.restarts += 1

    def until(
        self,
        steps: int,
        step: Callable[[torch.Generator], None],
        *,
        progress: Progress | None = None,
        deadline: float | None = None,
    ) -> None:
        """Do the steps that are missing, or as many as the deadline allows, in training mode."""
        self._train(True)
        while self.step < steps and not is_past(deadline):
            step(torch.Generator().manual_seed(self._seed + self.step))
            self.step += 1
            if progress is not None:
                progress(self.step, steps)
        self._train(False)

    def descend(self, index: int, loss: Tensor) -> None:
        """Take a step of the optimiser of that module."""
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self._optimizers[index].step()

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of everything on the CPU, made of tensors and plain values."""
        return {
            "kind": self._kind,
            "settings": dict(self._settings),
            "seed": self._seed,
            "data": self.data,
            "step": self.step,
            "restarts": self.restarts,
            "modules": [_copy(module.state_dict()) for module in self._modules],
            "optimizers": [_copy(optimizer.state_dict()) for optimizer in self._optimizers],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned of a run of the same kind and settings.

        Raises:
            ValueError: it is of another kind, or was made with other settings.
        """
        if set(state) != _FIELDS or state["kind"] != self._kind:
            raise ValueError(f"{self._kind}: expected a state of its own, received one with {sorted(state)}")
        if state["settings"] != self._settings:
            raise ValueError(f"{self._kind}: expected a state of {self._settings}, received one of {state['settings']}")
        for module, values in zip(self._modules, state["modules"], strict=True):
            module.load_state_dict(values)
        for optimizer, values in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(_copy(values))
        self._seed, self.data, self.step = state["seed"], state["data"], state["step"]
        self.restarts = state["restarts"]

    def _new_optimizers(self) -> list[torch.optim.Adam]:
        return [torch.optim.Adam(module.parameters(), lr=self._learning_rate) for module in self._modules]

    def _train(self, mode: bool) -> None:
        for module in self._modules:
            module.train(mode)


class Learned(Protocol):
    """Networks of a method with the run that trains them."""

    @property
    def run(self) -> Run:
        """Where their training stands."""


class Learner(Strategy, Generic[_Learned]):
    """A method with networks of its own, whose state is the run that trains them."""

    _learned: _Learned | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the networks, their optimisers and how far they are; empty before anything is trained."""
        return {} if self._learned is None else self._learned.run.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned of the same method with the same options.

        Raises:
            ValueError: the state is another method's, or of other options.
        """
        learned = self._start(0, "") if state else None
        if learned is not None:
            learned.run.load_state_dict(state)
        self._learned = learned

    @abstractmethod
    def _start(self, seed: int, data: str) -> _Learned:
        """Return new networks whose weights follow from the seed, to be trained on the data of that digest."""


def stable_hash(key: str) -> int:
    """Return 48 bits that follow from the text alone, in every process."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=6).digest(), "big")


def digest(tensors: Iterable[Tensor]) -> str:
    """Return a digest of the values of tensors on any device, in order."""
    total = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        total.update(repr((tensor.dtype, tuple(tensor.shape))).encode())
        total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def draw_seed(generator: torch.Generator) -> int:
    """Draw the seed of a run."""
    return int(torch.randint(2**48, (1,), generator=generator, device=generator.device))


def is_past(deadline: float | None) -> bool:
    """Say whether a time on `time.monotonic`'s clock has come; None never does."""
    return deadline is not None and time.monotonic() >= deadline


def before(deadline: float | None, batches: Iterable[_Value]) -> Iterator[_Value]:
    """Yield until the deadline, and the first in any case."""
    for batch in batches:
        yield batch
        if is_past(deadline):
            return


def drawn(build: Callable[[], _Build], seed: int) -> _Build:
    """Build a network with weights that follow from the seed, leaving torch's own generator as it was."""
    state = torch.random.get_rng_state()
    try:
        torch.default_generator.manual_seed(seed)
        return build()
    finally:
        torch.random.set_rng_state(state)


def picked(values: Sequence[_Value], count: int, generator: torch.Generator) -> list[_Value]:
    """Draw that many of the values, with replacement."""
    return [values[index] for index in torch.randint(len(values), (count,), generator=generator).tolist()]


def _copy(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, Mapping):
        return {key: _copy(part) for key, part in value.items()}
    return [_copy(part) for part in value] if isinstance(value, (list, tuple)) else value
