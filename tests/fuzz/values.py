"""What hypothesis sends to the fuzz targets: values near those that are right, as bytes."""

from __future__ import annotations

import json
from random import Random
from typing import Any
from xml.sax.saxutils import quoteattr

from fuzz.mutation import ODD, changed
from fuzz.seeds import bitmask_url, region, regions, seeds
from fuzz.targets import ROUTES
from hypothesis import strategies as st

text = st.text(st.characters(), max_size=8)
numbers = st.integers(-(2**70), 2**70) | st.floats() | st.sampled_from([0, 50, 100, 1e308, 10**400])
scalars = st.none() | st.booleans() | numbers | text | st.sampled_from(ODD)
anything = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=3))
points = st.lists(st.tuples(numbers, numbers), max_size=8)
shapes = st.fixed_dictionaries(
    {},
    optional={
        "rle": st.lists(st.integers(0, 255), max_size=60) | anything,
        "format": st.sampled_from(["rle", "png"]) | anything,
        "imageDataURL": st.builds(bitmask_url, st.integers(1, 40), st.integers(1, 40), st.none() | st.binary())
        | anything,
        "points": points | anything,
        "vertices": st.lists(
            st.dictionaries(st.sampled_from(["x", "y", "id", "prevPointId", "isBezier", "controlPoint1"]), scalars)
        )
        | anything,
        **dict.fromkeys(("x", "y", "width", "height", "radiusX", "radiusY", "rotation"), numbers | anything),
        "closed": st.booleans() | anything,
        **{
            name: st.lists(st.sampled_from(["cell", "nucleus"]) | text, max_size=2)
            for name in ("brushlabels", "keypointlabels")
        },
    },
)
tags = st.sampled_from(["brushlabels", "polygonlabels", "rectanglelabels", "ellipselabels", "vectorlabels"])
seeded = st.sampled_from(regions())


@st.composite
def one_region(draw: st.DrawFn) -> Any:
    """A region: an odd shape under a right label, or a right one with a place changed."""
    if draw(st.booleans()):
        return changed(draw(seeded), Random(draw(st.integers(0, 2**32))))
    tag = draw(tags)
    made = region(tag, **draw(shapes))
    point = {**made, "from_name": "points", "type": "keypointlabels"}
    return draw(st.sampled_from([made, {**made, "from_name": "query"}, point, made["value"]]))


result = st.lists(one_region() | anything, max_size=4)


@st.composite
def label_config(draw: st.DrawFn) -> str:
    """XML of tags that are known, with odd names, targets and nesting."""
    names = st.sampled_from(["image", "tag", "query", "points", "", "a,b"]) | text
    known = [
        "View",
        "Image",
        "Label",
        "BrushLabels",
        "PolygonLabels",
        "Labels",
        "Brush",
        "RectangleLabels",
        "KeyPointLabels",
        "x:y",
    ]
    keys = st.sampled_from(["name", "toName", "value", "alias", "background", "predicted_values", "valueList"])
    values = names | st.sampled_from(["$image", "$a.b", "#fff", "cell", "background"])

    def element(level: int) -> str:
        tag = draw(st.sampled_from(known))
        attributes = draw(st.dictionaries(keys, values, max_size=4))
        written = "".join(f" {key}={quoteattr(value)}" for key, value in attributes.items())
        inner = "".join(element(level + 1) for _ in range(draw(st.integers(0, 3 if level < 3 else 0))))
        return f"<{tag}{written}>{inner}</{tag}>"

    return element(0)


def _dumped(values: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    return values.map(json.dumps).map(str.encode)


def _mutated(target: str) -> st.SearchStrategy[bytes]:
    """A seed with some bytes replaced: what files look like that broke on their way."""

    @st.composite
    def mutated(draw: st.DrawFn) -> bytes:
        data = bytearray(draw(st.sampled_from(seeds(target))))
        for place in draw(st.lists(st.integers(0, max(len(data) - 1, 0)), max_size=6)):
            data[place % max(len(data), 1)] = draw(st.integers(0, 255))
        return bytes(data[: draw(st.integers(0, len(data)) | st.just(len(data)))])

    return mutated()


_task = st.fixed_dictionaries(
    {"data": st.dictionaries(st.sampled_from(["image", "patient"]) | text, anything, max_size=3), "result": result},
    optional={"shown": result | anything, "lead_time": numbers | anything},
)
_settings = st.dictionaries(
    st.sampled_from(["strategy", "strategy_options", "train_after", "NEXTMASK_SEED", "model_dir", "network_options"])
    | text,
    st.sampled_from(["entropy", "cereals", "vaal"]) | anything,
    max_size=4,
)
_body = _dumped(
    st.fixed_dictionaries(
        {}, optional={"project": anything, "tasks": st.lists(anything | _task, max_size=3), "action": anything}
    )
    | anything
)
INPUTS: dict[str, st.SearchStrategy[bytes]] = {
    "brush": st.binary(max_size=80) | _mutated("brush"),
    "results": _dumped(result),
    "tasks": _dumped(_task),
    "label_configs": label_config().map(lambda xml: xml.encode("utf-8", "surrogatepass")) | _mutated("label_configs"),
    "images": _mutated("images"),
    "extra_params": _dumped(_settings) | _mutated("extra_params"),
    "checkpoints": _mutated("checkpoints"),
    "environment": st.binary(max_size=60) | _mutated("environment"),
    "requests": st.builds(
        lambda route, query, body: bytes([route]) + query + b"\0" + body,
        st.integers(0, len(ROUTES) - 1),
        st.sampled_from([b"", b"project=65"]) | st.binary(max_size=12).map(lambda raw: raw.replace(b"\0", b"")),
        _body,
    ),
}
"""Target -> inputs."""
