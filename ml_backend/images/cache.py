"""Images: fetched once, verified, decoded the same way everywhere, bounded on disk.

Decoding gives (H, W, 3) uint8 RGB with the EXIF orientation applied, whatever the file holds:

- more than 8 bits of grey (and floating point): stretched so that the 0.1th and 99.9th percentile become 0 and 255.
  Sensors put 10 or 12 bits into 16, so dividing by 256 would leave such images almost black.
- more than 8 bits per colour: the upper 8 bits, as browsers show them.
- transparent pixels: laid over white, as the page behind the editor is.
- several pages or frames: the first.

Formats are PNG, JPEG, TIFF, WebP and BMP, all decoded by Pillow.
"""

from __future__ import annotations

import base64
import binascii
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
from urllib.parse import unquote_to_bytes

from ml_backend.errors import DiskFull, ImageError
from ml_backend.images import headers as image_headers
from ml_backend.images.decoding import DECODING_ERRORS, Array, check_header, decoded, load_image, open_image, reason_of
from ml_backend.images.references import in_project, shown_reference
from ml_backend.system.bounded_folder import BoundedFolder, touch
from ml_backend.system.disk import disk_full, is_full

Fetch = Callable[[str], AbstractContextManager[Iterable[bytes]]]

_SUFFIX = ".img"
_ATTEMPTS = 3
_WORKERS = 8


class ImageCache:
    """Images by reference, kept in one folder that several processes may use at a time.

    Args:
        folder: where files are kept; made when needed.
        fetch: opens a reference and yields its bytes in chunks; raises ImageError. data: URIs do not get there.
        max_bytes: files used least recently are deleted beyond this many bytes.
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
        """Return the file of an image, fetched and verified if it is not there yet.

        Another process may delete it when the cache is full; `load` copes with that.

        Raises:
            ImageError: with the reason.
            DiskFull: it cannot be kept; `load` copes with that, too.
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
        """Return an image as (H, W, 3) uint8 RGB.

        Raises:
            ImageError: with the reason.
        """
        self._hold(_name(reference))
        try:
            for _ in range(_ATTEMPTS - 1):
                file = self.path(reference)
                with contextlib.suppress(ImageError):
                    return load_image(file)
                # Evicted by another process, or damaged since it was verified: get it anew.
                file.unlink(missing_ok=True)
            return load_image(self.path(reference))
        except DiskFull:
            return self._load_without_file(reference)
        finally:
            self._release(_name(reference))

    def _load_without_file(self, reference: str) -> Array:
        """Fetch and decode an image in memory."""
        content = io.BytesIO()
        self._download(reference, content)
        return self._verified(reference, content)

    def arrays(self, references: Iterable[str]) -> Generator[Array | ImageError, None, None]:
        """Fetch (ahead, in parallel) and decode images: one answer per reference, in order."""
        for reference, path in self._prefetch(references, _WORKERS):
            try:
                yield path if isinstance(path, ImageError) else self.load(reference)
            except ImageError as error:
                yield error

    def prefetch(self, references: Iterable[str], workers: int = _WORKERS) -> Iterator[tuple[str, Path | ImageError]]:
        """Yield each reference with its file, or with the error, in the order given; fetches ahead in parallel.

        Not more than two images per worker are fetched ahead. This process evicts none of them until the caller asks
        for the next one.

        Raises:
            DiskFull: one cannot be kept.
        """
        for reference, found in self._prefetch(references, workers):
            if isinstance(found, DiskFull):
                raise found
            yield reference, found

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
        if reference[:5].lower() == "data:":
            if len(reference) > 4 * self._max_image_bytes:  # longer than the limit in any encoding
                raise self._too_large(reference)
            return contextlib.nullcontext([_data_bytes(reference)])
        return self._fetch(reference)

    def _verify(self, reference: str, file: Path) -> None:
        """Check the format, the number of pixels, that decoding is in proportion, and that all of it decodes."""
        with file.open("rb") as opened:
            self._verified(reference, opened)

    def _verified(self, reference: str, opened: IO[bytes]) -> Array:
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

    # -- room ---------------------------------------------------------------------------------------------------------
    def _in_use(self) -> set[str]:
        with self._lock:
            return {*self._pinned, *self._running}

    def _hold(self, name: str) -> None:
        """Keep a file from being evicted by this process."""
        with self._lock:
            self._pinned[name] += 1

    def _release(self, name: str) -> None:
        with self._lock:
            self._pinned[name] -= 1
            if not self._pinned[name]:
                del self._pinned[name]


class ProjectImages:
    """The images of one project, by the references of its tasks as they were imported.

    Files in cloud storage are cached for each project apart; see `references`.
    """

    def __init__(self, cache: ImageCache, project_id: int) -> None:
        self._cache, self._project_id = cache, project_id

    def path(self, reference: str) -> Path:
        """Return the file of an image; see `ImageCache.path`."""
        return self._cache.path(in_project(reference, self._project_id))

    def load(self, reference: str) -> Array:
        """Return an image as (H, W, 3) uint8 RGB; see `ImageCache.load`."""
        return self._cache.load(in_project(reference, self._project_id))

    def arrays(self, references: Sequence[str]) -> Generator[Array | ImageError, None, None]:
        """Fetch and decode images; see `ImageCache.arrays`."""
        return self._cache.arrays(in_project(reference, self._project_id) for reference in references)

    def prefetch(self, references: Sequence[str], workers: int = 8) -> Iterator[tuple[str, Path | ImageError]]:
        """Yield each reference with its file, or with the error; see `ImageCache.prefetch`."""
        fetched = self._cache.prefetch((in_project(one, self._project_id) for one in references), workers)
        for reference, (_, found) in zip(references, fetched, strict=True):
            yield reference, found


def _digest(reference: str) -> str:
    return hashlib.sha256(reference.encode("utf-8", "surrogatepass")).hexdigest()[:40]


def _name(reference: str) -> str:
    return _digest(reference) + _SUFFIX


def _outcome(future: Future[Path]) -> Path | ImageError | DiskFull:
    try:
        return future.result()
    except (ImageError, DiskFull) as error:
        return error


def _data_bytes(reference: str) -> bytes:
    header, comma, body = reference.partition(",")
    if not comma:
        raise ImageError(f"Image {shown_reference(reference)} is a data: URI without a comma, hence without data.")
    data = unquote_to_bytes(body)
    if not header.lower().endswith(";base64"):
        return data
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise ImageError(f"Image {shown_reference(reference)} is a data: URI with invalid base64: {error}.") from error
