"""Where fuzzing starts from: real payloads, files of every format, and inputs that once went wrong or might."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from fuzz.targets import ALL_CONTROLS, ROUTES, image_file
from PIL import Image
from wiring import PAYLOADS, XML

from ml_backend.annotations import brush

SIZE = {"original_width": 32, "original_height": 24, "image_rotation": 0, "to_name": "image"}
DEEP = 5_000
"""Levels of nesting, beyond what Python's recursion carries."""


def seeds(target: str) -> list[bytes]:
    """Inputs of one target."""
    return list(_SEEDS[target]())


def region(kind: str, **value: Any) -> dict[str, Any]:
    """One region of an annotation."""
    labels = {kind: ["cell"]} if kind.endswith("labels") else {}
    return {"id": f"r-{kind}", "from_name": kind.removesuffix("labels"), "type": kind, "value": value | labels, **SIZE}


def bitmask_url(width: int = 32, height: int = 24, data: bytes | None = None) -> str:
    """A PNG as a data: address; `data` are the compressed pixels, in place of true ones."""
    return "data:image/png;base64," + base64.b64encode(png_file(width, height, data)).decode()


def png_file(width: int, height: int, data: bytes | None = None) -> bytes:
    """A PNG whose header says a size, whatever its pixels are."""
    if data is None:
        buffer = io.BytesIO()
        Image.fromarray(np.full((height, width, 4), 255, np.uint8)).save(buffer, "PNG")
        return buffer.getvalue()
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def regions() -> list[dict[str, Any]]:
    """One region of each kind that is read, and of some that are not."""
    mask = np.zeros((24, 32), np.uint8)
    mask[4:12, 5:20] = 255
    corners = [[10, 10], [80, 15], [50, 90]]
    vertices = [{"id": str(at), "prevPointId": str(at - 1), "x": x, "y": y} for at, (x, y) in enumerate(corners)]
    curved = [{**vertex, "isBezier": True, "controlPoint1": {"x": 5, "y": 5}} for vertex in vertices]
    box = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 15}
    return [
        region("brushlabels", format="rle", rle=list(brush.encode(mask))),
        region("bitmasklabels", imageDataURL=bitmask_url()),
        region("polygonlabels", points=corners, closed=True),
        region("vectorlabels", vertices=vertices, closed=True),
        region("vectorlabels", vertices=curved, closed=True),
        region("ellipselabels", x=50, y=50, radiusX=10, radiusY=20, rotation=30),
        region("rectanglelabels", **box) | {"from_name": "rectangle"},
        region("rectanglelabels", **box) | {"from_name": "query"},
        region("keypointlabels", x=50, y=100, width=0.8) | {"from_name": "points"},
        {"type": "relation", "from_id": "r-brushlabels", "to_id": "r-bitmasklabels", "direction": "right"},
        {"type": "choices", "from_name": "choice", "to_name": "image", "value": {"choices": ["a"]}},
        {"type": "textarea", "from_name": "text", "to_name": "image", "value": {"text": ["a"]}},
    ]


def nested(levels: int = DEEP, inner: str = "1") -> str:
    """JSON of lists in lists."""
    return "[" * levels + inner + "]" * levels


def _brush() -> Iterator[bytes]:
    for stream in (brush.encode(np.zeros((24, 32), np.uint8)), brush.encode(np.full((24, 32), 255, np.uint8))):
        yield bytes([24, 32, 3]) + stream
    yield bytes([24, 32, 3]) + b"\xff" * 40
    yield bytes([255, 255, 0]) + b"\xff\xff\xff\xff" + b"\x39\x1b\xfd" + b"\xff" * 20


def _results() -> Iterator[bytes]:
    for one in regions():
        yield json.dumps([one]).encode()
    yield json.dumps(regions()).encode()
    for recorded in _recorded("webhook_annotation*.json"):
        for annotation in _of(recorded, "annotation"):
            yield json.dumps(annotation["result"]).encode()
    yield json.dumps([region("bitmasklabels", imageDataURL=bitmask_url(30_000, 30_000, b""))]).encode()
    yield json.dumps([region("polygonlabels", points=[[float("nan"), float("inf")], [1e308, -1e308], [0, 0]])]).encode()


def _tasks() -> Iterator[bytes]:
    data = {"image": "/data/upload/1.png", "patient": "a"}
    yield json.dumps({"data": data, "result": regions(), "shown": regions(), "lead_time": 3.5}).encode()
    for one in regions():
        yield json.dumps({"data": data, "result": [one], "shown": [one], "lead_time": 1}).encode()


def _label_configs() -> Iterator[bytes]:
    yield from (XML.encode(), ALL_CONTROLS.encode())
    yield b'<?xml version="1.0" encoding="utf-16"?><View a="&lt;&#9731;"><!-- c --><![CDATA[x]]></View>'
    yield b'<!DOCTYPE a [<!ENTITY b "c"><!ENTITY d SYSTEM "file:///etc/passwd">]><View>&b;&d;</View>'
    yield b'<x:View xmlns:x="urn:a"><x:Image name="image" value="$image"/></x:View>'


def _images() -> Iterator[bytes]:
    options: dict[str, list[dict[str, Any]]] = {
        "PNG": [{}, {"optimize": True}],
        "JPEG": [{}, {"progressive": True}],
        "TIFF": [{}, {"compression": "tiff_lzw"}, {"compression": "tiff_adobe_deflate"}],
        "WEBP": [{}, {"lossless": True}],
        "BMP": [{}],
    }
    for kind, several in options.items():
        for one in several:
            yield image_file(kind, **one)
    for mode in ("I;16", "F", "LA", "P", "1", "CMYK"):
        buffer = io.BytesIO()
        Image.new(mode, (7, 5)).save(buffer, "TIFF" if mode in ("F", "CMYK") else "PNG")
        yield buffer.getvalue()
    yield png_file(100_000, 100_000, zlib.compress(b"\0" * 1000))


def _extra_params() -> Iterator[bytes]:
    yield b'{"strategy": "entropy", "train_after": 3}'
    yield b'{"strategy": "cereals", "strategy_options": {"window": 128, "preset": "melanoma"}}'
    yield b'{"NEXTMASK_QUEUE_WINDOW": "50", "network_options": "{}", "model_dir": "/", "max_pixels": 1e400}'
    for recorded in _recorded("setup.json"):
        yield json.dumps(recorded.get("extra_params")).encode()


def _checkpoints() -> Iterator[bytes]:
    weights = b"\x40\0\0\0\0\0\0\0" + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(64) + b"\0\0\0\0"
    record = {"classes": ["background", "cell"], "label_map_digest": "a", "data_digest": "b", "number": 1}
    about = {"size": "SIZE", "sha256": "SHA256"}
    yield json.dumps({"format": 1, "record": record, "weights": about}).encode() + b"\0" + weights
    yield json.dumps({"format": 1, "record": {**record, "measures": {"miou": 0.5}}, "weights": about}).encode() + b"\0"


def _environment() -> Iterator[bytes]:
    yield b"NEXTMASK_STRATEGY=entropy\nLABEL_STUDIO_API_KEY='abc'\nNEXTMASK_PORT=9090 # a\n"
    yield b'export NEXTMASK_STRATEGY_OPTIONS={"a": 1}\nNEXTMASK_SEED="${NEXTMASK_PORT:-3}"\n\xff\0'


def _requests() -> Iterator[bytes]:
    for recorded in map(json.loads, (path.read_text() for path in PAYLOADS.glob("*.json"))):
        route = ROUTES.index((recorded["method"], recorded["path"].partition("?")[0]))
        body = b"" if recorded["body"] is None else json.dumps(recorded["body"]).encode()
        yield bytes([route]) + b"project=65\0" + body


_SEEDS: dict[str, Callable[[], Iterator[bytes]]] = {
    "brush": _brush,
    "results": _results,
    "tasks": _tasks,
    "label_configs": _label_configs,
    "images": _images,
    "extra_params": _extra_params,
    "checkpoints": _checkpoints,
    "environment": _environment,
    "requests": _requests,
}


def _recorded(pattern: str) -> Iterator[Any]:
    for path in sorted(Path(PAYLOADS).glob(pattern)):
        yield json.loads(path.read_text(encoding="utf-8"))["body"]


def _of(payload: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = payload.get(name)
    return [found] if isinstance(found, dict) and "result" in found else []


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
