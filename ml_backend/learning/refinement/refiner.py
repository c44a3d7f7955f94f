"""What every refiner does; and what it keeps of images, bounded in bytes."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Final, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ml_backend.errors import OutOfMemory
from ml_backend.learning.networks import is_out_of_memory
from ml_backend.learning.refinement.prompts import Pixels, Prompt, about
from ml_backend.system.memory import release_freed_memory

Image = npt.NDArray[np.uint8]
Size = tuple[int, int]


class Sized(Protocol):
    """Something that knows how many bytes it takes."""

    @property
    def nbytes(self) -> int: ...  # noqa: D102


T = TypeVar("T", bound=Sized)
R = TypeVar("R")

KEPT_BYTES: Final = 128_000_000
"""Of what is kept of images: some thirty of them at the default input size."""


class Refiner(ABC, Generic[T]):
    """Makes the mask that prompts of a person ask for; safe to use from many threads.

    Args:
        most_bytes: of what is kept of images.

    Attributes:
        together: images that are best prepared at a time.
        too_large: what to do where an image does not fit into the memory.
    """

    together = 1
    too_large: str

    def __init__(self, most_bytes: int) -> None:
        self._kept = Kept[T](most_bytes)

    def refine(
        self, image: Image, key: str, target: int, prompts: Sequence[Prompt], drawn: Pixels | None = None
    ) -> Pixels:
        """Return the mask (H,W) of a class that no prompt contradicts at its pixel.

        Args:
            image: (H,W,3) uint8 RGB.
            key: of the image's content: what is computed of an image is kept by it.
            target: the class that is asked for.
            prompts: in the order in which they were made; where two contradict each other, the later one counts.
            drawn: (H,W) what is drawn of the class and is to be mended; None: nothing.

        Raises:
            ImageError: the array is not such an image.
            PromptError: a prompt is no box.
            OutOfMemory: the image is too large for the memory.
        """

        def refined() -> Pixels:
            kept, size = self._of_image(image, key), (image.shape[0], image.shape[1])
            return self._mask(kept, target, about(target, prompts, *size), size, drawn)

        return self._with_room(refined)

    def prepare(self, images: Mapping[str, Image]) -> None:
        """Compute what the first prompt on each image will need, and keep it by its key; errors as in `refine`."""
        new = [key for key in images if key not in self._kept]
        for start in range(0, len(new), self.together):
            self._with_room(partial(self._prepare, {key: images[key] for key in new[start : start + self.together]}))

    def release(self) -> None:
        """Give back the memory of everything that is kept."""
        self._kept.clear()
        release_freed_memory()

    @property
    def nbytes(self) -> int:
        """Bytes of all that is kept of images."""
        return self._kept.nbytes

    @abstractmethod
    def _computed(self, images: Sequence[Image]) -> Sequence[T]:
        """Return what is to be kept of images, computed together."""

    @abstractmethod
    def _mask(self, kept: T, target: int, prompts: list[Prompt], size: Size, drawn: Pixels | None) -> Pixels:
        """Return the mask (H,W) of a class; arguments as of `refine`, prompts of the class and inside the image."""

    def _of_image(self, image: Image, key: str) -> T:
        return self._kept.get(key, lambda: self._computed([image])[0])

    def _prepare(self, images: Mapping[str, Image]) -> None:
        if len(images) == 1:  # a click on it waits for what is computed already
            for key, image in images.items():
                self._of_image(image, key)
            return
        for key, made in zip(images, self._computed(list(images.values())), strict=True):
            self._kept.get(key, partial(_itself, made))

    def _with_room(self, work: Callable[[], R]) -> R:
        """Do some work; where memory runs out, once more after everything that is kept was given back."""
        try:
            return work()
        except (OutOfMemory, MemoryError, RuntimeError) as error:
            if not (isinstance(error, OutOfMemory) or is_out_of_memory(error)):
                raise
        self.release()  # out of the handler, whose traceback keeps what was computed alive
        try:
            return work()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemory(self.too_large) from None


def _itself(made: T) -> T:
    return made


class Kept(Generic[T]):
    """The last used of what was computed of images; each is computed once, however many threads ask for it.

    Args:
        most_bytes: what is used least recently leaves beyond; the newest always stays.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, Future[T]] = OrderedDict()

    def get(self, key: str, compute: Callable[[], T]) -> T:
        """Return what is kept under a key, computed when there is nothing."""
        with self._lock:
            is_new = key not in self._entries
            future = self._entries.setdefault(key, Future())
            self._entries.move_to_end(key)
        if is_new:
            self._fill(key, future, compute)
        return future.result()

    def __contains__(self, key: str) -> bool:
        """Whether something is kept under a key, or computed now."""
        with self._lock:
            return key in self._entries

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()

    @property
    def nbytes(self) -> int:
        """Bytes of all that is kept."""
        with self._lock:
            return sum(self._bytes(entry) for entry in self._entries.values())

    def _fill(self, key: str, future: Future[T], compute: Callable[[], T]) -> None:
        try:
            made = compute()
        except BaseException as error:  # noqa: BLE001 (raised where the result is asked for)
            with self._lock:
                if self._entries.get(key) is future:
                    del self._entries[key]
            future.set_exception(error)
            return
        future.set_result(made)
        with self._lock:
            left = self._most_bytes - sum(map(self._bytes, self._entries.values()))
            for other in [name for name, entry in self._entries.items() if entry.done() and name != key]:
                if left >= 0:
                    break
                left += self._bytes(self._entries.pop(other))

    @staticmethod
    def _bytes(entry: Future[T]) -> int:
        return entry.result().nbytes if entry.done() and entry.exception() is None else 0
