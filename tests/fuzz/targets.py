"""What is fuzzed: one function per kind of input, driven by hypothesis (`test_targets`) and by atheris (`run`).

Each takes bytes as they come from outside and returns nothing. It raises when a property does not hold: only errors of
our tree come out, their messages stay short, and what is read can be written and read again.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from wiring import PROJECT, make_settings

from ml_backend.annotations import brush, masks
from ml_backend.annotations.config_edits import (
    labels_without_colours,
    with_palette,
    with_points_control,
    with_query_control,
)
from ml_backend.annotations.label_map import IGNORE_INDEX, LabelMap, parse_label_config
from ml_backend.errors import (
    BrushError,
    CheckpointError,
    ConfigurationError,
    ImageError,
    LabelConfigError,
    MaskError,
    NextmaskError,
)
from ml_backend.images.cache import ImageCache
from ml_backend.learning.checkpoints import Checkpoints

Target = Callable[[bytes], None]

ALL_CONTROLS = """<View><Image name="image" value="$image"/>
<BrushLabels name="brush" toName="image"><Label value="cell"/><Label value="nucleus"/></BrushLabels>
<BitmaskLabels name="bitmask" toName="image"><Label value="cell"/></BitmaskLabels>
<PolygonLabels name="polygon" toName="image"><Label value="cell"/><Label value="nucleus"/></PolygonLabels>
<EllipseLabels name="ellipse" toName="image"><Label value="cell"/></EllipseLabels>
<RectangleLabels name="rectangle" toName="image"><Label value="nucleus"/></RectangleLabels>
<VectorLabels name="vector" toName="image"><Label value="cell"/></VectorLabels>
<RectangleLabels name="query" toName="image"><Label value="Please label"/></RectangleLabels>
<KeyPointLabels name="points" toName="image"><Label value="nucleus"/><Label value="background"/></KeyPointLabels>
</View>"""
LABEL_MAP = parse_label_config(ALL_CONTROLS)
LONGEST_MESSAGE = 2_000
MAX_PIXELS = 1_000_000
MAX_IMAGE_BYTES = 1_000_000
UPDATED = "2026-01-01T00:00:00.000000Z"
ROUTES = (
    ("POST", "/setup"),
    ("POST", "/predict"),
    ("POST", "/webhook"),
    ("POST", "/versions"),
    ("GET", "/versions"),
    ("GET", "/health"),
)


@contextmanager
def expected(kind: type[NextmaskError]) -> Iterator[None]:
    """Let an error of one kind pass, if people can read it."""
    try:
        yield
    except kind as error:
        if not 0 < len(str(error)) < LONGEST_MESSAGE:
            raise AssertionError(f"a message of {len(str(error))} characters") from error


def brush_rle(data: bytes) -> None:
    """Height, width and a switch of one byte each, then the stream; by the switch, the stream's size is made to fit."""
    if len(data) < 3:
        return
    height, width, stream = data[0], data[1], data[3:]
    if data[2] & 1:
        stream = (4 * height * width).to_bytes(4, "big") + stream[4:]
    if data[2] & 2:
        stream = stream[:4] + (7 << 3 | stream[4] & 7).to_bytes(1, "big") + stream[5:] if len(stream) > 4 else stream
    with expected(BrushError):
        alpha = brush.decode(stream, height, width)
        assert (alpha.shape, alpha.dtype) == ((height, width), np.uint8)
        painted = np.where(alpha >= 128, 255, 0).astype(np.uint8)
        assert np.array_equal(brush.decode(brush.encode(painted), height, width), painted)


def results(data: bytes) -> None:
    """The JSON of an annotation's result."""
    result = _json(data)
    if not isinstance(result, list):
        return
    with expected(MaskError):
        reading = masks.read_result(result, LABEL_MAP)
        assert reading.mask.dtype == np.uint8
        assert ((reading.mask < len(LABEL_MAP.classes)) | (reading.mask == IGNORE_INDEX)).all()
        assert all(0 < len(problem) < LONGEST_MESSAGE for problem in reading.problems)
        written = masks.write_result(reading.mask, LABEL_MAP, minimum_area=0)
        if written:
            known = reading.mask != IGNORE_INDEX  # what could not be understood is not written
            assert np.array_equal(masks.read_result(written, LABEL_MAP).mask[known], reading.mask[known])


def tasks(data: bytes) -> None:
    """JSON of what people put into a task: `data`, `result`, `shown` (the prediction's result), `lead_time`."""
    made = _json(data)
    if not isinstance(made, dict) or not isinstance(made.get("data"), dict):
        return
    annotation = {"id": 1, "created_at": UPDATED, "parent_prediction": 2, **_chosen(made, "result", "lead_time")}
    prediction = {"id": 2, "model_version": "nextmask-1.1", "result": made.get("shown")}
    item = {"id": 1, "updated_at": UPDATED, "data": made["data"]}
    reader, store, folder = _task_reader()
    try:
        task = reader.read(PROJECT, {**item, "annotations": [annotation], "predictions": [prediction]})
        store.put_tasks([task])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert task.status in {"labelled", "broken"}
    assert (task.status == "labelled") == bool(task.mask_file)
    assert task.status != "broken" or 0 < len(task.error) < 20 * LONGEST_MESSAGE


def label_configs(data: bytes) -> None:
    """The XML of a labelling configuration."""
    xml = _text(data)
    with expected(LabelConfigError):
        coloured = with_palette(xml)
        assert not labels_without_colours(coloured)
        label_map = parse_label_config(xml)
        _check_label_map(label_map)
        assert parse_label_config(coloured).digest == label_map.digest
        with suppress(LabelConfigError):  # its name may be taken
            assert parse_label_config(with_query_control(xml)).query_control == "query"
        with_points = parse_label_config(with_points_control(xml))
        assert with_points.points_control is not None
        assert with_points.training_digest == label_map.training_digest


def images(data: bytes) -> None:
    """The bytes of an image file."""
    reference = f"data:;base64,{base64.b64encode(data).decode()}"
    cache, folder = _image_cache()
    try:
        with expected(ImageError):
            pixels = cache.load(reference)
            assert pixels.dtype == np.uint8
            assert pixels.ndim == 3
            assert pixels.shape[2] == 3
            assert 0 < pixels.shape[0] * pixels.shape[1] <= MAX_PIXELS
    finally:
        for file in folder.glob("*.img"):
            file.unlink()


def extra_params(data: bytes) -> None:
    """The text that is entered as a project's settings, from Label Studio or as JSON of a request."""
    from ml_backend.learning.ranking import make_strategy
    from ml_backend.settings import params_text

    text = _text(data)
    with expected(ConfigurationError):
        settings = _settings().for_project(params_text(text))
        assert settings.model_dir == _settings().model_dir
        make_strategy(settings.strategy, settings.strategy_options)
    with expected(ConfigurationError):
        _settings().for_project(params_text(_json(data)))


def checkpoints(data: bytes) -> None:
    """A version's record and weights as they may lie on a damaged disk: the record, a zero byte, the weights.

    In the record, `"SIZE"` and `"SHA256"` stand for those of the weights.
    """
    from torch import Tensor

    record, _, weights = data.partition(b"\0")
    digest = hashlib.sha256(weights).hexdigest()
    record = record.replace(b'"SIZE"', str(len(weights)).encode()).replace(b"SHA256", digest.encode())
    with tempfile.TemporaryDirectory(dir=_memory()) as name:
        folder = Path(name)
        version = folder / "versions" / "1"
        version.mkdir(parents=True)
        (version / "version.json").write_bytes(record)
        (version / "weights.safetensors").write_bytes(weights)
        (folder / "current").write_text("1")
        found = Checkpoints(folder)
        with expected(CheckpointError):
            found.current()
            assert len(found.versions()) + len(found.damaged()) == 1
            state = found.load_state(found.get(1))
            assert all(isinstance(tensor, Tensor) for tensor in state.values())


def environment(data: bytes) -> None:
    """A `.env` file."""
    import os

    from ml_backend.settings import load_settings

    with tempfile.TemporaryDirectory(dir=_memory()) as name:
        Path(name, ".env").write_bytes(data)
        before = Path.cwd()
        os.chdir(name)
        try:
            with expected(ConfigurationError):
                load_settings()
        finally:
            os.chdir(before)


def requests(data: bytes) -> None:
    """A request to the server: one byte chooses the route, a zero byte ends the query, the rest is the body."""
    method, path = ROUTES[data[0] % len(ROUTES)] if data else ROUTES[0]
    query, _, body = data[1:].partition(b"\0")
    status, headers, answer = call(_application(), method, path, query=query, body=body)
    assert 200 <= status < 500, f"{method} {path} answers {status}: {answer[:200]!r}"
    assert headers[b"content-type"] == b"application/json"
    shown = json.loads(answer)
    assert b"Traceback" not in answer
    if path == "/predict" and status == 200:
        assert len(shown["results"]) == len(json.loads(body)["tasks"])
    if status >= 400:
        assert len(answer) < LONGEST_MESSAGE


TARGETS: dict[str, Target] = {
    "brush": brush_rle,
    "results": results,
    "tasks": tasks,
    "label_configs": label_configs,
    "images": images,
    "extra_params": extra_params,
    "checkpoints": checkpoints,
    "environment": environment,
    "requests": requests,
}


def call(
    application: Any,
    method: str,
    path: str,
    *,
    query: bytes = b"",
    body: bytes = b"",
    headers: tuple[tuple[bytes, bytes], ...] = ((b"content-type", b"application/json"),),
) -> tuple[int, dict[bytes, bytes], bytes]:
    """Send one request to an ASGI application, without a socket; returns status, headers and body."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "root_path": "",
        "headers": [(b"host", b"127.0.0.1"), *headers],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 9090),
    }
    return _loop().run_until_complete(_call(application, scope, body))


async def _call(application: Any, scope: dict[str, Any], body: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
    sent: list[Any] = []
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        return waiting.pop() if waiting else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    with suppress(Exception):  # the server's error handler answers, and raises on for the log
        await application(scope, receive, send)
    content = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], dict(sent[0]["headers"]), content


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _text(data: bytes) -> str:
    """Text as JSON carries it: halves of surrogate pairs among it."""
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("utf-8", "replace")


def _chosen(values: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}


def _check_label_map(label_map: LabelMap) -> None:
    assert len(set(label_map.classes)) == len(label_map.classes) <= IGNORE_INDEX
    assert label_map.unpainted_index == IGNORE_INDEX or label_map.unpainted_index < len(label_map.classes)
    for index, name in enumerate(label_map.classes):
        assert label_map.index_of(name) == index
        label_map.writer_of(index)
    label_map.image_reference({"image": "a"})


# -- made once per process -------------------------------------------------------------------------------------------
@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


@cache
def _memory() -> str | None:
    """A folder in memory, where there is one: files are written and dropped thousands of times."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(dir=_memory())


@cache
def _settings() -> Any:
    return make_settings(Path(_folder().name) / "state")


@cache
def _task_reader() -> tuple[Any, Any, Path]:
    from ml_backend.store import Store
    from ml_backend.system.files import Folder
    from ml_backend.worker.read_task import TaskReader

    folder = Path(_folder().name) / "masks"
    files = Folder(folder.parent)
    store = Store(f"sqlite:///{_folder().name}/tasks.sqlite3")
    store.put_published(PROJECT, "nextmask-1.1", [(1, 0.5, masks.png_bytes(np.ones((24, 32), np.uint8)))])
    settings, size_of = _settings(), lambda _: (24, 32)
    reader = TaskReader(store, settings, LABEL_MAP, files=files, folder="masks", size_of=size_of, config_change=None)
    return reader, store, folder


@cache
def _image_cache() -> tuple[ImageCache, Path]:
    folder = Path(_folder().name) / "images"
    limits = {"max_bytes": 10**8, "max_image_bytes": MAX_IMAGE_BYTES, "max_pixels": MAX_PIXELS}
    return ImageCache(folder, partial(_refuse, None), **limits), folder


def _refuse(_client: object, reference: str) -> Any:
    raise ImageError(f"Nothing is fetched here: {reference[:40]}.")


@cache
def _application() -> Any:
    from wiring import give_project, make_services

    from ml_backend.label_studio import LabelStudio
    from ml_backend.server.app import create_app

    settings = make_settings(Path(_folder().name) / "served")
    give_project(make_services(settings.model_dir))
    with patch.object(LabelStudio, "fetch", _refuse):  # nobody is there, and trying again takes seconds
        return create_app(settings)


def image_file(kind: str, **options: Any) -> bytes:
    """A small valid image file of one format."""
    from PIL import Image

    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (9, 11, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()
