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
import struct
import threading
import zlib
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote_to_bytes

import numpy as np
import numpy.typing as npt
from PIL import BmpImagePlugin, Image, ImageOps, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin
from PIL.ImageFile import ImageFile

from ml_backend.errors import DiskFull, ImageError
from ml_backend.images import headers as image_headers
from ml_backend.images.references import in_project, shown
from ml_backend.system.bounded_folder import BoundedFolder, touch
from ml_backend.system.disk import disk_full, is_full

Array = npt.NDArray[np.uint8]
Fetch = Callable[[str], AbstractContextManager[Iterable[bytes]]]

SNIFFED_BYTES = 16
"""Of a file's beginning, which tell its format."""
_SUFFIX = ".img"
_ATTEMPTS = 3
_WORKERS = 8
_PERCENTILES = (0.1, 99.9)
_STRIP_PIXELS = 1 << 20
_LARGE_PIXELS = 25_000_000
_LARGE = threading.Lock()
"""Held while a larger image is decoded, one at a time: each may take a gigabyte, and several threads fetch ahead."""
_DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")

# Opened by their classes, not by PIL.Image.open: that one's limit on pixels is a global variable, ours is a setting.
_FORMATS: tuple[tuple[bytes, type[ImageFile]], ...] = (
    (b"\x89PNG\r\n\x1a\n", PngImagePlugin.PngImageFile),
    (b"\xff\xd8\xff", JpegImagePlugin.JpegImageFile),
    (b"II*\x00", TiffImagePlugin.TiffImageFile),
    (b"MM\x00*", TiffImagePlugin.TiffImageFile),
    (b"II+\x00", TiffImagePlugin.TiffImageFile),
    (b"MM\x00+", TiffImagePlugin.TiffImageFile),
    (b"RIFF", WebPImagePlugin.WebPImageFile),
    (b"BM", BmpImagePlugin.BmpImageFile),
)
# What Pillow's decoders raise on files that are not what they claim to be.
_DECODING_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    EOFError,
    MemoryError,
    Image.DecompressionBombError,  # of Pillow's WebP reader, which has its own limit
    struct.error,
    zlib.error,
)


def load_image(path: Path) -> Array:
    """Decode an image file to (H, W, 3) uint8 RGB; see the module's rules.

    Raises:
        ImageError: it cannot be read or decoded.
    """
    try:
        with path.open("rb") as file:
            return _decoded(_open(file, path.name))
    except _DECODING_ERRORS as error:
        raise ImageError(f"Image file {path} cannot be decoded: {_words(error)}.") from error


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
                f"Image {shown(reference)} cannot be kept in {folder}: {error.strerror or error}."
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
            f"Image {shown(reference)} is larger than {self._max_image_bytes} bytes, the limit set by "
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
            _check_header(opened)
            image = _open(opened, shown(reference))
            width, height = image.size
            if width * height > self._max_pixels:
                raise ImageError(
                    f"Image {shown(reference)} has {width} x {height} pixels, more than the {self._max_pixels} "
                    "set by NEXTMASK_MAX_PIXELS."
                )
            if max(width, height) > image_headers.MAXIMUM_SIDE:
                raise ImageError(
                    f"Image {shown(reference)} has {width} x {height} pixels; no side may be longer than "
                    f"{image_headers.MAXIMUM_SIDE}."
                )
            return _decoded(image)
        except _DECODING_ERRORS as error:
            raise ImageError(f"Image {shown(reference)} cannot be decoded: {_words(error)}.") from error

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
        raise ImageError(f"Image {shown(reference)} is a data: URI without a comma, hence without data.")
    data = unquote_to_bytes(body)
    if not header.lower().endswith(";base64"):
        return data
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise ImageError(f"Image {shown(reference)} is a data: URI with invalid base64: {error}.") from error


def _open(file: IO[bytes], name: str) -> ImageFile:
    """Read the header. The file must stay open until the image is decoded."""
    head = file.read(SNIFFED_BYTES)
    file.seek(0)
    return kind_of(head, name)(file, name)


def kind_of(head: bytes, name: str) -> type[ImageFile]:
    """Return what reads a file that begins with these bytes, SNIFFED_BYTES of them.

    Raises:
        ImageError: nothing does.
    """
    for magic, kind in _FORMATS:
        if head.startswith(magic) and (magic != b"RIFF" or head[8:12] == b"WEBP"):
            return kind
    what = "is empty" if not head else f"starts with {head[:12]!r}"
    raise ImageError(f"Image {name} is not a PNG, JPEG, TIFF, WebP or BMP file: it {what}.")


def _check_header(file: IO[bytes]) -> None:
    head = file.read(4)
    if head.startswith(b"\xff\xd8"):
        image_headers.check_jpeg(file)
    elif head[:2] in (b"II", b"MM"):
        image_headers.check_tiff(file)
    file.seek(0)


def _decoded(image: ImageFile) -> Array:
    with _LARGE if image.size[0] * image.size[1] > _LARGE_PIXELS else contextlib.nullcontext():
        return _to_rgb(_upright(image))


def _upright(image: ImageFile) -> Image.Image:
    image.load()
    with contextlib.suppress(*_DECODING_ERRORS):  # broken EXIF: browsers, too, show such an image as it is stored
        ImageOps.exif_transpose(image, in_place=True)  # without a copy where there is nothing to turn
    return image


def _to_rgb(image: Image.Image) -> Array:
    """Turn a decoded image of any mode into (H, W, 3) uint8, in strips: what is held beside it stays small."""
    width, height = image.size
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    deep = _Stretch.of(np.asarray(image)) if image.mode in _DEEP_MODES else None
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        if deep is not None:
            pixels[top:bottom] = deep.grey(slice(top, bottom))[:, :, None]
        else:
            pixels[top:bottom] = np.asarray(_opaque(image.crop((0, top, width, bottom)), image))
    return pixels


def _opaque(strip: Image.Image, whole: Image.Image) -> Image.Image:
    """Turn a strip of an image into RGB, over white where it is transparent."""
    if whole.mode not in ("RGBA", "LA", "PA") and "transparency" not in whole.info:
        return strip.convert("RGB")
    strip.info = whole.info
    strip = strip.convert("RGBA")
    white = Image.new("RGBA", strip.size, "white")
    white.alpha_composite(strip)
    return white.convert("RGB")


@dataclass(frozen=True)
class _Stretch:
    """Values (H, W) of any numeric type, and which of them become black and white."""

    values: npt.NDArray[Any]
    low: float
    high: float

    @classmethod
    def of(cls, values: npt.NDArray[Any]) -> _Stretch:
        """Look at the values: percentile to percentile; those that are not finite do not count."""
        finite = values if values.dtype.kind in "iu" else values[np.isfinite(values)]
        if not finite.size:
            return cls(values, 0.0, 0.0)
        low, high = np.percentile(finite, _PERCENTILES)
        if high <= low:  # almost one value everywhere: the few others are what there is to see
            low, high = finite.min(), finite.max()
        return cls(values, float(low), float(high))

    def grey(self, rows: slice) -> Array:
        """Return some rows as uint8; values that are not finite become 0."""
        if self.high <= self.low:
            return np.zeros(self.values[rows].shape, dtype=np.uint8)
        numbers = self.values[rows].astype(np.float64)
        known = np.where(np.isfinite(numbers), numbers, self.low)
        scaled = np.clip((known - self.low) * (255.0 / (self.high - self.low)), 0, 255)
        grey: Array = np.rint(scaled).astype(np.uint8)
        return grey


def _words(error: BaseException) -> str:
    return (str(error) or type(error).__name__).rstrip(".")
