"""Image files of all the kinds that browsers show, by name: for comparing what they show with what is read."""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from image_files import encoded
from PIL import Image, PngImagePlugin

Array = npt.NDArray[np.uint8]
Chunk = tuple[bytes, bytes]
HEIGHT, WIDTH = 24, 40
ROWS, COLUMNS = np.mgrid[0:HEIGHT, 0:WIDTH]
SLOPES = np.stack([COLUMNS * 6, ROWS * 10, (ROWS + COLUMNS) * 4], axis=2).astype(np.uint8)
ALPHA = np.where(COLUMNS < WIDTH // 2, 255, np.where(ROWS < HEIGHT // 2, 0, 128)).astype(np.uint8)
CLOUDS = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)).resize((256, 192))
_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def quarters() -> Image.Image:
    """Four colours, one in each corner: every orientation looks different."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[: HEIGHT // 2, : WIDTH // 2], pixels[: HEIGHT // 2, WIDTH // 2 :] = (250, 20, 20), (20, 250, 20)
    pixels[HEIGHT // 2 :, : WIDTH // 2], pixels[HEIGHT // 2 :, WIDTH // 2 :] = (20, 20, 250), (240, 240, 20)
    return Image.fromarray(pixels)


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


# -- PNG, chunk by chunk ---------------------------------------------------------------------------------------------
def chunks_of(png: bytes) -> Iterator[Chunk]:
    position = 8
    while position < len(png):
        (length,) = struct.unpack(">I", png[position : position + 4])
        yield png[position + 4 : position + 8], png[position + 8 : position + 8 + length]
        position += 12 + length


def png_of(chunks: Iterable[Chunk]) -> bytes:
    joined = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + joined


def raw_png(kind: int, bits: int, rows: Iterable[bytes], *more: Chunk, interlaced: bool = False) -> bytes:
    """A PNG of colour type and depth, with the chunks `more` before its pixels."""
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, kind, 0, 0, interlaced)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return png_of([(b"IHDR", header), *more, (b"IDAT", pixels), (b"IEND", b"")])


def _bytes_of(values: npt.NDArray[np.generic]) -> list[bytes]:
    return [row.tobytes() for row in values]


def _deep(*bands: npt.NDArray[np.generic]) -> list[bytes]:
    return _bytes_of(np.dstack([band.astype(">u2") for band in bands]))


def _packed(values: npt.NDArray[np.generic], bits: int) -> list[bytes]:
    texts = ["".join(format(int(value), f"0{bits}b") for value in row) for row in values]
    return [int(text, 2).to_bytes(len(text) // 8, "big") for text in texts]


def _interlaced(values: npt.NDArray[np.generic]) -> list[bytes]:
    parts = [values[y::down, x::right] for x, y, right, down in _PASSES]
    return [np.ascontiguousarray(row).tobytes() for part in parts if part.size for row in part]


# -- the files -------------------------------------------------------------------------------------------------------
def orientation_files() -> dict[str, bytes]:
    """Orientation where browsers look for it, and where they do not."""
    files = {}
    for number in range(1, 9):
        exif = oriented(number)
        files[f"jpeg {number}"] = encoded(quarters(), "JPEG", quality=95, subsampling=0, exif=exif)
        files[f"png {number}"] = encoded(quarters(), "PNG", exif=exif)
        files[f"webp {number}"] = encoded(quarters(), "WEBP", lossless=True, exif=exif)
        files[f"avif {number}"] = encoded(quarters(), "AVIF", quality=95, exif=exif)
    header, *rest = chunks_of(encoded(quarters(), "PNG"))
    exif_bytes = oriented(6).tobytes()
    text = f"\nexif\n{len(exif_bytes):8d}\n{exif_bytes.hex()}\n".encode()
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", _XMP)
    files["png, behind the pixels"] = png_of([header, *rest[:-1], (b"eXIf", exif_bytes[6:]), rest[-1]])
    files["png, in a text"] = png_of([header, (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text)), *rest])
    files["png, xmp"] = encoded(quarters(), "PNG", pnginfo=info)
    files["jpeg, xmp"] = encoded(quarters(), "JPEG", quality=95, xmp=_XMP.encode())
    files["webp, xmp"] = encoded(quarters(), "WEBP", quality=95, xmp=_XMP.encode())
    files["jpeg, of no meaning"] = encoded(quarters(), "JPEG", quality=95, exif=oriented(9))
    return files


def mode_files() -> dict[str, bytes]:
    """Depths, colours, transparency, layouts."""
    slopes, rgba = Image.fromarray(SLOPES), Image.fromarray(np.dstack([SLOPES, ALPHA]))
    deep, grey = SLOPES.astype(np.uint16) * 257, np.linspace(0, 65535, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    cmyk = encoded(slopes.convert("CMYK"), "JPEG", quality=95, subsampling=0)
    adobe = cmyk.index(b"\xff\xee")
    files = {
        "jpeg": encoded(slopes, "JPEG", quality=95),
        "jpeg 4:2:2": encoded(slopes, "JPEG", quality=90, subsampling=1),
        "jpeg progressive": encoded(slopes, "JPEG", quality=95, progressive=True),
        "jpeg grey": encoded(slopes.convert("L"), "JPEG", quality=95),
        "jpeg rgb": encoded(slopes, "JPEG", quality=95, keep_rgb=True),
        "jpeg cmyk": cmyk,
        "jpeg ycck": cmyk[: adobe + 15] + b"\x02" + cmyk[adobe + 16 :],
        "jpeg cmyk without Adobe's mark": cmyk[:adobe] + cmyk[adobe + 16 :],
        "jpeg with more behind it": encoded(slopes, "JPEG", quality=95) + b"more" * 50,
        "png": encoded(slopes, "PNG"),
        "png rgba": encoded(rgba, "PNG"),
        "png grey, alpha": encoded(Image.merge("LA", (slopes.getchannel(0), rgba.getchannel(3))), "PNG"),
        "png 1": encoded(slopes.convert("1"), "PNG"),
        "png grey 16": raw_png(0, 16, _deep(grey)),
        "png grey 16, alpha": raw_png(4, 16, _deep(grey, ALPHA.astype(np.uint16) * 257)),
        "png rgb 16": raw_png(2, 16, _deep(deep)),
        "png rgba 16": raw_png(6, 16, _deep(deep, ALPHA.astype(np.uint16) * 257)),
        "png interlaced": raw_png(2, 8, _interlaced(SLOPES), interlaced=True),
        "png interlaced 16": raw_png(2, 16, _interlaced(deep.astype(">u2")), interlaced=True),
        "png without its end": encoded(slopes, "PNG")[:-12],
        "png grey 8, one value transparent": raw_png(0, 8, _bytes_of(SLOPES[..., 0]), (b"tRNS", b"\0\x3c")),
        "png rgb 8, one value transparent": raw_png(
            2, 8, _bytes_of(np.asarray(quarters())), (b"tRNS", struct.pack(">HHH", 250, 20, 20))
        ),
        "webp": encoded(slopes, "WEBP", lossless=True),
        "webp lossy": encoded(slopes, "WEBP", quality=80),
        "webp rgba": encoded(rgba, "WEBP", lossless=True),
        "avif": encoded(slopes, "AVIF", quality=95),
        "avif rgba": encoded(rgba, "AVIF", quality=95),
        "gif": encoded(slopes.quantize(64), "GIF"),
        "gif transparent": encoded(slopes.quantize(8), "GIF", transparency=3),
        "bmp": encoded(slopes, "BMP"),
        "bmp rgba": encoded(rgba, "BMP"),
        "bmp palette": encoded(slopes.quantize(16), "BMP"),
        "bmp 1": encoded(slopes.convert("1"), "BMP"),
    }
    for bits in (1, 2, 4):
        rows, colours = _packed((COLUMNS // 3) % (1 << bits), bits), np.arange(3 << bits, dtype=np.uint8) * 5
        palette, alphas = (b"PLTE", colours.tobytes()), (b"tRNS", bytes([0, 128, 255, 60][: 1 << bits]))
        files[f"png grey {bits}"] = raw_png(0, bits, rows)
        files[f"png grey {bits}, one value transparent"] = raw_png(0, bits, rows, (b"tRNS", b"\0\1"))
        files[f"png palette {bits}"] = raw_png(3, bits, rows, palette)
        files[f"png palette {bits}, transparent"] = raw_png(3, bits, rows, palette, alphas)
    return files


def moving_files() -> dict[str, bytes]:
    """Several frames, of which a browser shows the first for a long time."""
    red, blue, green = (Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ("red", "blue", "green"))
    long = {"save_all": True, "duration": 60_000}
    return {
        "gif": encoded(red, "GIF", append_images=[blue], **long),
        "webp": encoded(red, "WEBP", append_images=[blue], lossless=True, **long),
        "avif": encoded(red, "AVIF", append_images=[blue], quality=95, **long),
        "png": encoded(red, "PNG", append_images=[blue], **long),
        "png with another picture before": encoded(green, "PNG", append_images=[red, blue], default_image=True, **long),
        "several JPEGs": encoded(red, "MPO", save_all=True, append_images=[blue]),
    }


def cut_files(shares: Sequence[float] = (0.2, 0.6, 0.95)) -> dict[str, bytes]:
    """Files that end too early, and are read in part."""
    whole = {
        "jpeg": encoded(CLOUDS, "JPEG", quality=90),
        "jpeg 4:4:4": encoded(CLOUDS, "JPEG", quality=90, subsampling=0),
        "jpeg grey": encoded(CLOUDS.convert("L"), "JPEG", quality=90),
        "jpeg cmyk": encoded(CLOUDS.convert("CMYK"), "JPEG", quality=90),
        "jpeg progressive": encoded(CLOUDS, "JPEG", quality=90, progressive=True),
        "png": encoded(CLOUDS, "PNG"),
        "png grey": encoded(CLOUDS.convert("L"), "PNG"),
        "png rgba": encoded(CLOUDS.convert("RGBA"), "PNG"),
    }
    parts = itertools.product(whole.items(), shares)
    files = {f"{name}, {share} of it": data[: int(len(data) * share)] for (name, data), share in parts}
    return files | {f"{name}, two bytes less": data[:-2] for name, data in whole.items() if "jpeg" in name}
