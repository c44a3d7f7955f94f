"""Images: decoding of what users have, and the cache with its limits."""

from __future__ import annotations

import base64
import json
import multiprocessing
import os
import struct
import subprocess
import sys
import textwrap
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from bombs import bombs
from image_files import COLOURS, SMOOTH, encoded, png, tiff
from PIL import Image

from ml_backend.errors import ImageError
from ml_backend.images.cache import ImageCache
from ml_backend.images.decoding import Array, load_image

MEGABYTE = 1_000_000


class Source:
    """Gives out files by reference, as Label Studio would, and counts."""

    def __init__(self, **files: bytes) -> None:
        self.files = dict(files)
        self.asked: Counter[str] = Counter()
        self.read = 0
        self.delay = 0.0

    @contextmanager
    def fetch(self, reference: str) -> Iterator[Iterable[bytes]]:
        self.asked[reference] += 1
        time.sleep(self.delay)
        if reference not in self.files:
            raise ImageError(f"Image {reference} cannot be fetched: not found (404).")
        yield self._chunks(self.files[reference])

    def _chunks(self, content: bytes) -> Iterator[bytes]:
        for begin in range(0, len(content), 100):
            self.read += 1
            yield content[begin : begin + 100]


MakeCache = Callable[..., ImageCache]


@pytest.fixture
def make_cache(tmp_path: Path) -> MakeCache:
    def make(source: Source, **limits: int) -> ImageCache:
        limits = {"max_bytes": MEGABYTE, "max_image_bytes": MEGABYTE, "max_pixels": MEGABYTE, **limits}
        return ImageCache(tmp_path / "images", source.fetch, **limits)

    return make


def stored(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "images").iterdir())


class TestCache:
    def test_an_image_is_fetched_once(self, make_cache: MakeCache) -> None:
        source = Source(a=png())
        cache = make_cache(source)
        np.testing.assert_array_equal(cache.load("a"), COLOURS)
        assert cache.path("a").read_bytes() == source.files["a"]
        assert source.asked == {"a": 1}

    def test_another_process_finds_it(self, make_cache: MakeCache) -> None:
        source = Source(a=png())
        assert make_cache(source).path("a") == make_cache(source).path("a")
        assert source.asked == {"a": 1}

    def test_names_tell_nothing_and_cannot_lead_out_of_the_folder(self, make_cache: MakeCache, tmp_path: Path) -> None:
        source = Source(**{"../../etc/x.png": png(), "x" * 5000: png()})
        for reference in source.files:
            assert make_cache(source).path(reference).parent == tmp_path / "images"

    @pytest.mark.parametrize("encoding", ["base64", "percent"])
    def test_images_inside_the_reference(self, make_cache: MakeCache, encoding: str) -> None:
        content = png()
        if encoding == "base64":
            reference = f"data:image/png;base64,{base64.b64encode(content).decode()}"
        else:
            reference = "data:image/png," + "".join(f"%{byte:02x}" for byte in content)
        np.testing.assert_array_equal(make_cache(Source()).load(reference), COLOURS)

    @pytest.mark.parametrize("reference", ["data:image/png;base64", "data:image/png;base64,@@@", "data:,hello"])
    def test_broken_images_inside_the_reference(self, make_cache: MakeCache, reference: str) -> None:
        with pytest.raises(ImageError, match="data:"):
            make_cache(Source()).load(reference)

    @pytest.mark.parametrize(
        ("content", "limits", "reason"),
        [
            (b"<!DOCTYPE html><p>sign in</p>", {}, "not a PNG, JPEG, TIFF, WebP, AVIF, GIF or BMP.*DOCTYPE"),
            (b"", {}, "is empty"),
            (png()[:62], {}, "cut short before its first pixels"),
            (encoded(Image.new("RGB", (64, 64)), "BMP")[:-20], {}, "cannot be decoded: image file is truncated"),
            (
                tiff(np.zeros((4, 4, 5), np.uint8), photometric="minisblack", planarconfig="contig"),
                {},
                "not be decoded",
            ),
            (encoded(Image.new("RGB", (4, 4)), "PPM"), {}, "not a PNG.*P6"),
            (png(), {"max_image_bytes": 200}, "larger than 200 bytes.*NEXTMASK_MAX_IMAGE_BYTES"),
            (png(), {"max_pixels": 125}, "14 x 9 pixels, more than the 125 .*NEXTMASK_MAX_PIXELS"),
        ],
    )
    def test_what_cannot_be_used_is_refused_and_not_kept(
        self, make_cache: MakeCache, tmp_path: Path, content: bytes, limits: dict[str, int], reason: str
    ) -> None:
        cache = make_cache(Source(bad=content), **limits)
        with pytest.raises(ImageError, match=reason) as caught:
            cache.path("bad")
        assert "Image bad " in str(caught.value)
        assert stored(tmp_path) == []

    def test_a_large_file_is_not_read_to_its_end(self, make_cache: MakeCache) -> None:
        source = Source(big=bytes(500_000))
        with pytest.raises(ImageError, match="NEXTMASK_MAX_IMAGE_BYTES"):
            make_cache(source, max_image_bytes=1000).path("big")
        assert source.read == 11

    def test_an_enormous_image_is_not_decoded(self, make_cache: MakeCache) -> None:
        header = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
        chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
        bomb = png()
        bomb = bomb[:8] + chunk + bomb[8 + len(chunk) :]
        with pytest.raises(ImageError, match="30000 x 30000 pixels"):
            make_cache(Source(bomb=bomb)).path("bomb")

    def test_the_reason_of_a_failed_fetch_is_passed_on(self, make_cache: MakeCache) -> None:
        with pytest.raises(ImageError, match=r"not found \(404\)"):
            make_cache(Source()).load("missing")

    def test_signatures_are_not_shown(self, make_cache: MakeCache) -> None:
        with pytest.raises(ImageError, match=r"Image https://host/a\.png is empty|not a PNG") as caught:
            make_cache(Source(**{"https://host/a.png?signature=secret": b""})).path(
                "https://host/a.png?signature=secret"
            )
        assert "secret" not in str(caught.value)

    def test_a_folder_that_cannot_be_written_is_said(self, tmp_path: Path) -> None:
        (tmp_path / "images").write_text("a file")
        cache = ImageCache(
            tmp_path / "images" / "x", Source(a=png()).fetch, max_bytes=99, max_image_bytes=9999, max_pixels=9999
        )
        with pytest.raises(ImageError, match=r"cannot be kept in .*images"):
            cache.path("a")

    def test_a_file_damaged_on_disk_is_fetched_again(self, make_cache: MakeCache) -> None:
        source = Source(a=png())
        cache = make_cache(source)
        cache.path("a").write_bytes(b"")
        np.testing.assert_array_equal(cache.load("a"), COLOURS)
        assert source.asked == {"a": 2}

    def test_a_file_that_another_process_evicts_again_and_again_is_an_error_in_the_end(
        self, make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = Source(a=png())
        cache = make_cache(source)
        find = cache.path
        monkeypatch.setattr(cache, "path", lambda reference: _deleted(find(reference)))
        with pytest.raises(ImageError, match="No such file"):
            cache.load("a")
        assert source.asked == {"a": 3}


class TestBombs:
    def test_small_files_that_ask_for_much(self, tmp_path: Path) -> None:
        """Measured in a process of its own, whose memory nothing else has raised before."""
        expected = {}
        for name, content, reason in bombs():
            (tmp_path / name).write_bytes(content)
            expected[name] = reason
        program = """
            import contextlib, json, resource, sys, warnings
            from pathlib import Path
            from ml_backend.errors import ImageError
            from ml_backend.images.cache import ImageCache
            warnings.simplefilter("ignore")
            folder = Path(sys.argv[1])

            @contextlib.contextmanager
            def fetch(name):
                with (folder / name).open("rb") as file:
                    yield iter(lambda: file.read(65536), b"")

            limits = {"max_bytes": 10**9, "max_image_bytes": 10**8, "max_pixels": 2 * 10**8}
            cache = ImageCache(folder / "cache", fetch, **limits)
            said, before = {}, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            for name in sys.argv[2:]:
                try:
                    said[name] = ""
                    cache.path(name)
                except ImageError as error:
                    said[name] = str(error)
            after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            print(json.dumps([said, (after - before) / 1024]))
        """
        command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path), *expected]
        found = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
        said, megabytes = json.loads(found.stdout)
        for name, reason in expected.items():
            assert reason in said[name], name
            assert bool(reason) == bool(said[name]), (name, said[name])
        assert megabytes < 400  # the largest image that is begun has 9000 x 9000 pixels

    def test_an_image_within_its_reference_is_measured_before_it_is_decoded(self, make_cache: MakeCache) -> None:
        with pytest.raises(ImageError, match="NEXTMASK_MAX_IMAGE_BYTES"):
            make_cache(Source(), max_image_bytes=1000).path("data:image/png;base64," + "A" * 4001)

    @pytest.mark.parametrize(
        "content",
        [
            encoded(Image.fromarray(SMOOTH), "JPEG", progressive=True),
            encoded(Image.fromarray(SMOOTH), "JPEG") + b"\xff\xda\x00\x08 a film" * 99,
            encoded(Image.fromarray(SMOOTH), "JPEG", comment=b"\xff\xda\x00\x08" * 99),
            tiff(COLOURS, photometric="rgb", tile=(16, 16)),
            tiff(COLOURS, photometric="rgb", bigtiff=True),
            tiff(COLOURS, photometric="rgb", bigtiff=True, tile=(256, 256)),
            tiff(COLOURS.astype(np.uint16), photometric="rgb", rowsperstrip=1, byteorder=">"),
        ],
    )
    def test_what_only_looks_like_one(self, make_cache: MakeCache, content: bytes) -> None:
        assert make_cache(Source(a=content)).load("a").shape[2] == 3


def _deleted(path: Path) -> Path:
    path.unlink()
    return path


class TestRoom:
    SIZE = len(png(0, (40, 40)))

    def source(self, count: int) -> Source:
        return Source(**{f"i{n}": png(n, (40, 40)) for n in range(count)})

    def test_the_limit_is_kept_and_the_least_recently_used_go(self, make_cache: MakeCache, tmp_path: Path) -> None:
        source = self.source(12)
        cache = make_cache(source, max_bytes=5 * self.SIZE + 100)
        for n in range(12):
            cache.path(f"i{n}")
            cache.path("i0")
            assert sum(path.stat().st_size for path in stored(tmp_path)) <= 5 * self.SIZE + 100
        assert source.asked["i0"] == 1
        assert cache.path("i11").exists()

    def test_an_image_larger_than_the_limit_is_still_usable(self, make_cache: MakeCache) -> None:
        cache = make_cache(self.source(2), max_bytes=10)
        assert cache.load("i0").shape == cache.load("i1").shape == (40, 40, 3)

    def test_what_another_process_adds_is_counted(self, make_cache: MakeCache, tmp_path: Path) -> None:
        limit = 40 * self.SIZE
        first, second = make_cache(self.source(40), max_bytes=limit), make_cache(self.source(80), max_bytes=limit)
        first.path("i0")
        for n in range(1, 40):
            first.path(f"i{n}")
            second.path(f"i{n + 40}")
        assert sum(path.stat().st_size for path in stored(tmp_path)) <= 1.1 * limit

    def test_what_dead_processes_left_is_removed(self, make_cache: MakeCache, tmp_path: Path) -> None:
        cache = make_cache(self.source(1))
        (tmp_path / "images").mkdir()
        old, new = tmp_path / "images" / "old.part", tmp_path / "images" / "new.part"
        old.touch()
        new.touch()
        os.utime(old, (0, 0))
        cache.path("i0")
        assert not old.exists()
        assert new.exists()

    def test_threads_load_while_files_are_evicted(self, make_cache: MakeCache) -> None:
        cache = make_cache(self.source(10), max_bytes=3 * self.SIZE)
        with ThreadPoolExecutor(8) as pool:
            shapes = set(pool.map(lambda n: cache.load(f"i{n * 7 % 10}").shape, range(200)))
        assert shapes == {(40, 40, 3)}


class TestTogether:
    def test_threads_that_want_the_same_image_share_one_fetch(self, make_cache: MakeCache) -> None:
        source = Source(a=png())
        source.delay = 0.1
        cache = make_cache(source)
        with ThreadPoolExecutor(8) as pool:
            paths = set(pool.map(lambda _: cache.path("a"), range(8)))
        assert len(paths) == 1
        assert source.asked == {"a": 1}

    def test_threads_that_want_the_same_image_share_its_failure(self, make_cache: MakeCache) -> None:
        source = Source()
        source.delay = 0.1
        cache = make_cache(source)
        with ThreadPoolExecutor(8) as pool:
            futures = [pool.submit(cache.path, "a") for _ in range(8)]
        assert {str(future.exception()) for future in futures} == {"Image a cannot be fetched: not found (404)."}
        assert source.asked == {"a": 1}
        with pytest.raises(ImageError):
            cache.path("a")  # the failure is not remembered
        assert source.asked == {"a": 2}

    def test_processes_share_a_folder(self, tmp_path: Path) -> None:
        context = multiprocessing.get_context("spawn")
        with context.Pool(2) as pool:
            results = pool.map(_load_many, [tmp_path / "images"] * 2)
        assert results == [60, 60]
        assert all(path.suffix == ".img" for path in stored(tmp_path))


def _load_many(folder: Path) -> int:
    source = Source(**{f"i{n}": png(n, (40, 40)) for n in range(20)})
    cache = ImageCache(folder, source.fetch, max_bytes=15_000, max_image_bytes=MEGABYTE, max_pixels=MEGABYTE)
    return sum(1 for n in range(60) if cache.load(f"i{n % 20}").shape == (40, 40, 3))


class TestPrefetch:
    def test_order_is_kept_and_failures_are_in_it(self, make_cache: MakeCache) -> None:
        source = Source(**{f"i{n}": png(n) for n in range(20)})
        source.files["i7"] = b"no image"
        del source.files["i3"]
        found = list(make_cache(source).prefetch([f"i{n}" for n in range(20)], workers=4))
        assert [reference for reference, _ in found] == [f"i{n}" for n in range(20)]
        errors = {reference: str(outcome) for reference, outcome in found if isinstance(outcome, ImageError)}
        assert errors.keys() == {"i3", "i7"}
        assert "404" in errors["i3"]
        assert all(outcome.exists() for _, outcome in found if isinstance(outcome, Path))

    def test_it_is_parallel(self, make_cache: MakeCache) -> None:
        source = Source(**{f"i{n}": png(n) for n in range(16)})
        source.delay = 0.1
        begin = time.perf_counter()
        assert len(list(make_cache(source).prefetch(source.files, workers=8))) == 16
        assert time.perf_counter() - begin < 0.8

    def test_it_looks_ahead_no_further_than_told(self, make_cache: MakeCache, tmp_path: Path) -> None:
        asked = 0

        def references() -> Iterator[str]:
            nonlocal asked
            for n in range(1000):
                asked += 1
                yield f"i{n}"

        room = 3 * TestRoom.SIZE
        cache = make_cache(Source(**{f"i{n}": png(n, (40, 40)) for n in range(20)}), max_bytes=room)
        stream = cache.prefetch(references(), workers=2)
        assert len(list(islice(stream, 5))) == 5
        assert asked <= 5 + 4
        stream.close()  # type: ignore[attr-defined]  # a generator, though only promised as an iterator
        for n in range(10, 20):
            cache.path(f"i{n}")
        assert sum(path.stat().st_size for path in stored(tmp_path)) <= room, "what was fetched ahead is in the way"
        assert threading.active_count() < 50

    def test_what_was_fetched_ahead_stays_until_it_is_asked_for(self, make_cache: MakeCache) -> None:
        source = Source(**{f"i{n}": png(n, (40, 40)) for n in range(12)})
        cache = make_cache(source, max_bytes=2 * TestRoom.SIZE)
        for _, path in cache.prefetch(source.files, workers=2):
            assert isinstance(path, Path)
            time.sleep(0.02)
            assert load_image(path).shape == (40, 40, 3)

    def test_the_same_image_twice(self, make_cache: MakeCache) -> None:
        source = Source(a=png())
        assert len(list(make_cache(source).prefetch(["a"] * 30))) == 30
        assert source.asked == {"a": 1}


class TestArrays:
    def test_they_are_those_of_load_in_order_with_failures_among_them(self, make_cache: MakeCache) -> None:
        source = Source(**{f"i{n}": png(n, (30 + n, 40)) for n in range(40)})
        source.files["i7"] = b"no image"
        del source.files["i3"]
        cache = make_cache(source)
        for _ in ("cold", "from the cache"):
            for n, image in enumerate(cache.arrays([f"i{n}" for n in range(40)])):
                assert isinstance(image, ImageError) == (n in (3, 7))
                assert isinstance(image, ImageError) or (image == cache.load(f"i{n}")).all()
        assert source.asked["i8"] == 1

    def test_an_image_is_decoded_once(self, make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch) -> None:
        opened = list[str]()

        def counted(path: Path) -> Array:
            opened.append(path.name)
            return load_image(path)

        monkeypatch.setattr("ml_backend.images.cache.load_image", counted)
        cache = make_cache(Source(**{f"i{n}": png(n) for n in range(20)}))
        assert len(list(cache.arrays([f"i{n}" for n in range(20)]))) == 20
        assert not opened  # what verified them decoded them
        assert len(list(cache.arrays([f"i{n}" for n in range(20)]))) == 20
        assert len(opened) == 20

    def test_images_that_are_large_together_come_as_well(
        self, make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("ml_backend.images.cache.AHEAD_BYTES", 3 * 40 * 40 + 10)
        cache = make_cache(Source(**{f"i{n}": png(n, (40, 40)) for n in range(40)}))
        for _ in ("cold", "from the cache"):
            images = list(cache.arrays([f"i{n}" for n in range(40)]))
            assert [image.shape for image in images if not isinstance(image, ImageError)] == [(40, 40, 3)] * 40

    def test_nothing_goes_on_when_nobody_wants_the_rest(
        self, make_cache: MakeCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("ml_backend.images.cache.AHEAD_BYTES", 1)
        cache = make_cache(Source(**{f"i{n}": png(n, (40, 40)) for n in range(100)}), max_bytes=2 * TestRoom.SIZE)
        images = cache.arrays([f"i{n}" for n in range(100)])
        next(images)
        images.close()
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("images")]
        for n in range(10):
            cache.path(f"i{n}")
        assert sum(path.stat().st_size for path in stored(tmp_path)) <= 2 * TestRoom.SIZE
