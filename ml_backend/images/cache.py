"""A cache of images on disk: fetched once, verified, and bounded in size.

`decoding` says which formats are read, and how they become RGB.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import threading
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, TypeVar

from ml_backend.errors import DiskFull, ImageError
from ml_backend.images import headers as image_headers
from ml_backend.images.data_uris import data_bytes
from ml_backend.images.decoding import Array, check_header, decoded, load_image, reason_of
from ml_backend.images.formats import DECODING_ERRORS, open_image
from ml_backend.images.references import in_project, is_data, shown_reference
from ml_backend.images.room import Room
from ml_backend.system.ahead import in_order
from ml_backend.system.bounded_folder import BoundedFolder, touch
from ml_backend.system.disk import disk_full, is_full

Fetch = Callable[[str], AbstractContextManager[Iterable[bytes]]]
"""Opens an image by its reference and yields its bytes in chunks; raises ImageError."""

_SUFFIX = ".img"
_ATTEMPTS = 3
_WORKERS = 8
AHEAD_BYTES = 256_000_000
"""Most that images take together which are decoded before they are asked for."""

T = TypeVar("T")


class ImageCache:
    """Images by reference, in a folder that threads and processes may share.

    Args:
        folder: where files are stored; it is made when needed.
        fetch: opens references other than data: URIs.
        max_bytes: when the folder is larger, the files used least recently are deleted.
        max_image_bytes: larger files are not fetched to the end.
        max_pixels: larger images are not decoded.
    """

    def __init__(self, folder: Path, fetch: Fetch, *, max_bytes: int, max_image_bytes: int, max_pixels: int) -> None:
        self._folder = BoundedFolder(folder, suffix=_SUFFIX, max_bytes=max_bytes, in_use=self._in_use)
        self._fetch, self._max_image_bytes, self._max_pixels = fetch, max_image_bytes, max_pixels
        self._lock = threading.Lock()
        self._running: dict[str, Future[Path]] = {}
        self._pinned: Counter[str] = Counter()

    def path(self, reference: str) -> Path:
        """Return the file of an image, after fetching and verifying it when it is not in the cache.

        Another process may delete the file when the cache is full; `load` fetches it again.

        Raises:
            ImageError: it cannot be fetched or decoded.
            DiskFull: there is no room for the file; `load` decodes it in memory.
        """
        return self._had(reference)[0]

    def _had(self, reference: str) -> tuple[Path, Array | None]:
        """Return the file of an image as `path` does, and its pixels where they were decoded to verify it."""
        file, pixels = self._folder.file(_digest(reference)), None
        if touch(file):
            return file, None
        with self._lock:
            running = self._running.get(file.name)
            mine: Future[Path] = Future()
            if running is None:
                self._running[file.name] = mine
        if running is not None:
            return running.result(), None
        try:
            if not touch(file):  # another thread may have finished in between
                pixels = self._obtain(reference, file)
            mine.set_result(file)
        except BaseException as error:
            mine.set_exception(error)
            raise
        finally:
            with self._lock:
                del self._running[file.name]
        return file, pixels

    def load(self, reference: str) -> Array:
        """Return an image as (H,W,3) uint8 RGB.

        Raises:
            ImageError: it cannot be fetched or decoded.
        """
        self._hold(_name(reference))
        try:
            for _ in range(_ATTEMPTS - 1):
                file = self.path(reference)
                with contextlib.suppress(ImageError):
                    return load_image(file)
                # Evicted by another process, or damaged since it was verified: fetch it again.
                file.unlink(missing_ok=True)
            return load_image(self.path(reference))
        except DiskFull:
            return self._load_without_file(reference)
        finally:
            self._release(_name(reference))

    def is_in_part(self, reference: str) -> bool | None:
        """Whether an image in the cache was cut short, and is therefore read in part; None where it is not there."""
        try:
            with self._folder.file(_digest(reference)).open("rb") as file:
                return image_headers.is_cut_short(file)
        except (OSError, ValueError):
            return None

    def forget(self, reference: str) -> None:
        """Remove an image from the cache."""
        self._folder.file(_digest(reference)).unlink(missing_ok=True)

    def _load_without_file(self, reference: str) -> Array:
        """Fetch and decode an image in memory."""
        content = io.BytesIO()
        self._download(reference, content)
        return self._verified(reference, content)

    def arrays(self, references: Iterable[str]) -> Generator[Array | ImageError, None, None]:
        """Yield for each reference, in order, its image (H,W,3) uint8 RGB or the error.

        Images are fetched and decoded ahead in threads, while those decoded ahead take no more than AHEAD_BYTES.
        """
        room = Room(AHEAD_BYTES)

        def decoded_in_turn(turn: int, reference: str) -> tuple[Array, int]:
            pixels, size = None, 0
            try:
                file, pixels = self._had(reference)
                size = _bytes_of(file) if pixels is None else pixels.nbytes
                if size > AHEAD_BYTES // _WORKERS:
                    pixels = None  # all threads may wait here, each with its own
            except DiskFull:
                pass  # it is fetched and decoded in memory
            finally:
                room.enter(turn, size)
            if pixels is not None:
                return pixels, size
            try:
                return self.load(reference), size
            except BaseException:
                room.leave(size)
                raise

        try:
            for _, outcome in self._ahead(references, decoded_in_turn, _WORKERS, stop=room.close):
                if isinstance(outcome, ImageError):
                    yield outcome
                    continue
                pixels, size = outcome
                room.leave(size)
                yield pixels
        finally:
            room.close()

    def prefetch(self, references: Iterable[str], workers: int = _WORKERS) -> Iterator[tuple[str, Path | ImageError]]:
        """Yield each reference, in order, with its file or the error; fetches ahead in parallel.

        At most two images per thread are fetched ahead. This process deletes no file before the caller asks for the
        next.

        Args:
            references: of images.
            workers: number of threads.

        Raises:
            DiskFull: there is no room for a file.
        """
        yield from self._ahead(references, lambda _, reference: self.path(reference), workers)

    def _ahead(
        self,
        references: Iterable[str],
        work: Callable[[int, str], T],
        workers: int,
        stop: Callable[[], None] = lambda: None,
    ) -> Iterator[tuple[str, T | ImageError]]:
        """Yield each reference, in order, with what threads made of it, at most two per thread ahead.

        Args:
            work: is given the number of the reference, from 0, and the reference.
            stop: called when nobody wants the rest.
        """
        held = deque[str]()

        def wanted() -> Iterator[tuple[int, str]]:
            for number, reference in enumerate(references):
                self._hold(_name(reference))
                held.append(reference)
                yield number, reference

        futures = in_order(lambda item: work(*item), wanted(), workers=workers, name="images", stop=stop)
        try:
            with contextlib.closing(futures):
                for future in futures:
                    outcome = _outcome(future)
                    yield held[0], outcome
                    del outcome
                    self._release(_name(held.popleft()))
        finally:
            for reference in held:
                self._release(_name(reference))

    # -- fetching -----------------------------------------------------------------------------------------------------
    def _obtain(self, reference: str, file: Path) -> Array:
        """Fetch an image into a file, and verify it: return its pixels."""
        folder = self._folder.path
        try:
            with self._folder.adding(file) as target:
                self._download(reference, target)
                target.flush()
                return self._verify(reference, Path(target.name))
        except OSError as error:
            if is_full(error):
                raise disk_full(folder.parent) from error
            raise ImageError(
                f"Image {shown_reference(reference)} cannot be kept in {folder}: {error.strerror or error}."
            ) from error

    def _download(self, reference: str, target: IO[bytes]) -> None:
        size = 0
        with self._open_reference(reference) as chunks:
            for chunk in chunks:
                size += len(chunk)
                if size > self._max_image_bytes:
                    raise self._too_large(reference)
                target.write(chunk)

    def _too_large(self, reference: str) -> ImageError:
        return ImageError(
            f"Image {shown_reference(reference)} is larger than {self._max_image_bytes} bytes, the limit set by "
            "NEXTMASK_MAX_IMAGE_BYTES."
        )

    def _open_reference(self, reference: str) -> AbstractContextManager[Iterable[bytes]]:
        if is_data(reference):
            if len(reference) > 4 * self._max_image_bytes:  # longer than the limit in any encoding
                raise self._too_large(reference)
            return contextlib.nullcontext([data_bytes(reference)])
        return self._fetch(reference)

    def _verify(self, reference: str, file: Path) -> Array:
        """Return the pixels of a file, or raise ImageError unless the whole of it decodes; see `_verified`."""
        with file.open("rb") as opened:
            return self._verified(reference, opened)

    def _verified(self, reference: str, opened: IO[bytes]) -> Array:
        """Decode a file after checking its format, its number of pixels, and that decoding costs no more than that."""
        opened.seek(0)
        try:
            check_header(opened)
            image = open_image(opened, shown_reference(reference))
            width, height = image.size
            if width * height > self._max_pixels:
                raise ImageError(
                    f"Image {shown_reference(reference)} has {width} x {height} pixels, more than the "
                    f"{self._max_pixels} set by NEXTMASK_MAX_PIXELS."
                )
            if max(width, height) > image_headers.MAXIMUM_SIDE:
                raise ImageError(
                    f"Image {shown_reference(reference)} has {width} x {height} pixels; no side may be longer than "
                    f"{image_headers.MAXIMUM_SIDE}."
                )
            return decoded(image)
        except DECODING_ERRORS as error:
            raise ImageError(f"Image {shown_reference(reference)} cannot be decoded: {reason_of(error)}.") from error

    # -- files in use -------------------------------------------------------------------------------------------------
    def _in_use(self) -> set[str]:
        with self._lock:
            return {*self._pinned, *self._running}

    def _hold(self, name: str) -> None:
        """Keep this process from deleting a file."""
        with self._lock:
            self._pinned[name] += 1

    def _release(self, name: str) -> None:
        with self._lock:
            self._pinned[name] -= 1
            if not self._pinned[name]:
                del self._pinned[name]


class ProjectImages:
    """The images of a project, by the references of its tasks as they were imported.

    Files in cloud storage are cached separately for each project; see `references`.

    Args:
        cache: of all projects.
        project_id: Label Studio's.
    """

    def __init__(self, cache: ImageCache, project_id: int) -> None:
        self._cache, self._project_id = cache, project_id

    def path(self, reference: str) -> Path:
        """Return the file of an image; see `ImageCache.path`."""
        return self._cache.path(in_project(reference, self._project_id))

    def is_in_part(self, reference: str) -> bool | None:
        """Whether the file of an image is cut short; None where it is not in the cache. See `decoding`."""
        return self._cache.is_in_part(in_project(reference, self._project_id))

    def forget(self, reference: str) -> None:
        """Remove an image from the cache: the next use fetches it anew."""
        self._cache.forget(in_project(reference, self._project_id))

    def load(self, reference: str) -> Array:
        """Return an image as (H,W,3) uint8 RGB; see `ImageCache.load`."""
        return self._cache.load(in_project(reference, self._project_id))

    def arrays(self, references: Iterable[str]) -> Generator[Array | ImageError, None, None]:
        """Yield for each reference its image or the error; see `ImageCache.arrays`."""
        return self._cache.arrays(in_project(reference, self._project_id) for reference in references)

    def prefetch(self, references: Sequence[str], workers: int = _WORKERS) -> Iterator[tuple[str, Path | ImageError]]:
        """Yield each reference with its file or the error; see `ImageCache.prefetch`."""
        paths = (in_project(reference, self._project_id) for reference in references)
        outcomes = self._cache.prefetch(paths, workers)
        for reference, (_, outcome) in zip(references, outcomes, strict=True):
            yield reference, outcome


def _digest(reference: str) -> str:
    return hashlib.sha256(reference.encode("utf-8", "surrogatepass")).hexdigest()[:40]


def _name(reference: str) -> str:
    return _digest(reference) + _SUFFIX


def _bytes_of(file: Path) -> int:
    """Return how many bytes an image takes that is decoded; 0 where its header tells nothing."""
    try:
        with file.open("rb") as opened:
            width, height = open_image(opened, file.name).size
            return 3 * width * height
    except DECODING_ERRORS:
        return 0


def _outcome(future: Future[T]) -> T | ImageError:
    try:
        return future.result()
    except ImageError as error:
        return error
