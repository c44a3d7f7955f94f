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
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from typing import IO

from ml_backend.errors import DiskFull, ImageError
from ml_backend.images import headers as image_headers
from ml_backend.images.data_uris import data_bytes
from ml_backend.images.decoding import Array, check_header, decoded, load_image, reason_of
from ml_backend.images.formats import DECODING_ERRORS, open_image
from ml_backend.images.references import in_project, is_data, shown_reference
from ml_backend.system.bounded_folder import BoundedFolder, touch
from ml_backend.system.disk import disk_full, is_full

Fetch = Callable[[str], AbstractContextManager[Iterable[bytes]]]
"""Opens an image by its reference and yields its bytes in chunks; raises ImageError."""

_SUFFIX = ".img"
_ATTEMPTS = 3
_WORKERS = 8


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
        file = self._folder.file(_digest(reference))
        if touch(file):
            return file
        with self._lock:
            running = self._running.get(file.name)
            mine: Future[Path] = Future()
            if running is None:
                self._running[file.name] = mine
        if running is not None:
            return running.result()
        try:
            if not touch(file):  # another thread may have finished in between
                self._obtain(reference, file)
            mine.set_result(file)
        except BaseException as error:
            mine.set_exception(error)
            raise
        finally:
            with self._lock:
                del self._running[file.name]
        return file

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
        """Yield for each reference, in order, its image (H,W,3) uint8 RGB or the error; fetches ahead in parallel."""
        for reference, path in self._prefetch(references, _WORKERS):
            try:
                yield path if isinstance(path, ImageError) else self.load(reference)
            except ImageError as error:
                yield error

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
        for reference, outcome in self._prefetch(references, workers):
            if isinstance(outcome, DiskFull):
                raise outcome
            yield reference, outcome

    def _prefetch(self, references: Iterable[str], workers: int) -> Iterator[tuple[str, Path | ImageError | DiskFull]]:
        waiting: deque[tuple[str, Future[Path]]] = deque()
        remaining = iter(references)
        pool = ThreadPoolExecutor(workers, thread_name_prefix="images")

        def look_ahead() -> None:
            for reference in islice(remaining, 2 * workers - len(waiting)):
                self._hold(_name(reference))
                waiting.append((reference, pool.submit(self.path, reference)))

        try:
            look_ahead()
            while waiting:
                reference, future = waiting[0]
                yield reference, _outcome(future)
                waiting.popleft()
                self._release(_name(reference))
                look_ahead()
        finally:
            pool.shutdown(cancel_futures=True)
            for reference, _ in waiting:
                self._release(_name(reference))

    # -- fetching -----------------------------------------------------------------------------------------------------
    def _obtain(self, reference: str, file: Path) -> None:
        folder = self._folder.path
        try:
            with self._folder.adding(file) as target:
                self._download(reference, target)
                target.flush()
                self._verify(reference, Path(target.name))
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

    def _verify(self, reference: str, file: Path) -> None:
        """Raise ImageError unless the whole file decodes; see `_verified`."""
        with file.open("rb") as opened:
            self._verified(reference, opened)

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

    def arrays(self, references: Sequence[str]) -> Generator[Array | ImageError, None, None]:
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


def _outcome(future: Future[Path]) -> Path | ImageError | DiskFull:
    try:
        return future.result()
    except (ImageError, DiskFull) as error:
        return error
