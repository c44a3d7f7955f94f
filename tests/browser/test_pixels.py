"""The same pixels: what a browser shows of an image file, and so of what is labelled, and what is read of it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from image_files import encoded
from PIL import Image
from playwright.sync_api import Browser, Page
from shown_files import CLOUDS, SLOPES, cut_files, mode_files, moving_files, orientation_files

from ml_backend.errors import ImageError
from ml_backend.images.data_uris import data_bytes
from ml_backend.images.decoding import load_image
from ml_backend.images.headers import is_cut_short
from ml_backend.images.references import without_breaks

pytestmark = pytest.mark.browser

Array = npt.NDArray[np.uint8]
# As Label Studio's editor does: an <img>, laid on a page that is white.
SHOW = """async (source) => {
    const image = new Image();
    const shown = new Promise(resolve => { image.onload = () => resolve(true); image.onerror = () => resolve(false); });
    image.src = source;
    if (!await shown) return null;
    const canvas = document.createElement("canvas");
    canvas.width = image.naturalWidth;
    canvas.height = image.naturalHeight;
    const context = canvas.getContext("2d");
    context.fillStyle = "white";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(image, 0, 0);
    const bytes = context.getImageData(0, 0, canvas.width, canvas.height).data;
    let text = "";
    for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
    return [canvas.height, canvas.width, btoa(text)];
}"""


@pytest.fixture(scope="module")
def page(offline_chromium: Browser) -> Iterator[Page]:
    page = offline_chromium.new_page()
    yield page
    page.close()


def shown(page: Page, source: str) -> Array | None:
    """What the browser shows of an address; None where it shows a broken image."""
    answer = page.evaluate(SHOW, source)
    if answer is None:
        return None
    height, width, pixels = answer
    return np.frombuffer(base64.b64decode(pixels), np.uint8).reshape(height, width, 4)[..., :3]


def uri(content: bytes) -> str:
    return f"data:;base64,{base64.b64encode(content).decode()}"


def loaded(tmp_path: Path, content: bytes) -> Array:
    path = tmp_path / "file"
    path.write_bytes(content)
    return load_image(path)


def difference(page: Page, tmp_path: Path, content: bytes) -> npt.NDArray[np.int64]:
    theirs, ours = shown(page, uri(content)), loaded(tmp_path, content)
    assert theirs is not None
    assert ours.shape == theirs.shape
    return np.abs(ours.astype(np.int64) - theirs)


FILES = {
    **{f"orientation: {name}": content for name, content in orientation_files().items()},
    **{f"mode: {name}": content for name, content in mode_files().items()},
    **{f"frames: {name}": content for name, content in moving_files().items()},
}


@pytest.mark.parametrize("name", FILES)
def test_what_is_read_is_what_is_shown(page: Page, tmp_path: Path, name: str) -> None:
    assert difference(page, tmp_path, FILES[name]).max() <= 2


@pytest.mark.parametrize(("name", "content"), cut_files().items(), ids=list(cut_files()))
def test_a_file_that_is_cut_short_is_read_as_it_is_shown(page: Page, tmp_path: Path, name: str, content: bytes) -> None:
    differences = difference(page, tmp_path, content)
    if "progressive" in name:  # the browser smooths what is still coarse in another way
        assert differences.mean() < 0.2
    else:
        assert differences.max() <= 2
    with (tmp_path / "file").open("rb") as file:
        assert is_cut_short(file)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("WEBP", {"lossless": True}),
        ("WEBP", {"quality": 90}),
        ("AVIF", {"quality": 80}),
        ("BMP", {}),
        ("GIF", {}),
    ],
)
def test_other_files_that_are_cut_short_are_refused(tmp_path: Path, kind: str, options: dict[str, object]) -> None:
    content = encoded(CLOUDS, kind, **options)
    with pytest.raises(ImageError, match="cannot be decoded"):
        loaded(tmp_path, content[: len(content) // 2])


@pytest.mark.parametrize("bits", [10, 12])
def test_grey_that_uses_few_of_its_bits_is_brighter_than_shown(page: Page, tmp_path: Path, bits: int) -> None:
    """The exception, on purpose: what a browser shows of such an image is almost black."""
    values = (SLOPES[..., 0].astype(np.uint16) << bits - 8).astype(np.uint16)
    content = encoded(Image.fromarray(values), "PNG")
    theirs = shown(page, uri(content))
    assert theirs is not None
    assert theirs.max() < 2 ** (bits - 8)
    assert loaded(tmp_path, content).max() == 255


PNG = base64.b64encode(encoded(Image.fromarray(SLOPES), "PNG")).decode()
WRITTEN = {
    "lines": f"data:image/png;base64,{chr(10).join(PNG[at : at + 76] for at in range(0, len(PNG), 76))}",
    "carriage returns": f"data:image/png;base64,{chr(13)}{chr(10)}{PNG}{chr(13)}{chr(10)}",
    "tabs": f"data:image/png;base64,\t{PNG[:40]}\t{PNG[40:]}",
    "spaces": f"data:image/png;base64, {PNG[:40]} {PNG[40:]} ",
    "around it": f"  \n data:image/png;base64,{PNG} \n",
    "in its scheme": f"da\nta:image/png;base64,{PNG}",
    "percent": f"data:image/png;base64,{PNG.replace('+', '%2B').replace('/', '%2F').replace('=', '%3D')}",
    "percent of spaces": f"data:image/png;base64,{PNG[:40]}%20%0A{PNG[40:]}",
    "no padding": f"data:image/png;base64,{PNG.rstrip('=')}",
    "charset": f"data:image/png;charset=utf-8;base64,{PNG}",
    "space before base64": f"data:image/png; base64,{PNG}",
    "capitals": f"DATA:IMAGE/PNG;BASE64,{PNG}",
    "no type": f"data:;base64,{PNG}",
    "another type": f"data:image/jpeg;base64,{PNG}",
    "fragment": f"data:image/png;base64,{PNG}#part",
    "one too many": f"data:image/png;base64,{PNG.rstrip('=')[:-1]}===",
    "letters of addresses": f"data:image/png;base64,{PNG[:40]}-_{PNG[42:]}",
    "padding within": f"data:image/png;base64,{PNG[:40]}={PNG[40:]}",
    "space within base64's name": f"data:image/png;base 64,{PNG}",
}


@pytest.mark.parametrize("name", WRITTEN)
def test_images_inside_their_reference_are_read_where_they_are_shown(page: Page, tmp_path: Path, name: str) -> None:
    theirs = shown(page, WRITTEN[name])
    try:
        ours = loaded(tmp_path, data_bytes(without_breaks(WRITTEN[name])))
    except ImageError:
        assert theirs is None
        return
    assert theirs is not None
    np.testing.assert_array_equal(ours, theirs)
