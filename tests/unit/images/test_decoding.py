"""Decoding of the images that users have: depths, channels, orientation, files of other kinds and damaged ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_files import COLOURS, SMOOTH, encoded, png, tiff
from PIL import Image
from shown_files import HEIGHT, WIDTH, raw_png

from ml_backend.errors import ImageError
from ml_backend.images.decoding import load_image

GENERATOR = np.random.default_rng(0)


class TestDecoding:
    def decode(self, tmp_path: Path, content: bytes) -> npt.NDArray[np.uint8]:
        path = tmp_path / "file"
        path.write_bytes(content)
        image = load_image(path)
        assert image.dtype == np.uint8
        assert image.flags.c_contiguous
        assert image.ndim == 3
        assert image.shape[2] == 3
        return image

    @pytest.mark.parametrize(
        ("kind", "options"),
        [
            ("PNG", {}),
            ("BMP", {}),
            ("WEBP", {"lossless": True}),
            ("TIFF", {}),
            ("TIFF", {"compression": "tiff_lzw"}),
            ("TIFF", {"compression": "tiff_adobe_deflate"}),
            ("TIFF", {"compression": "packbits"}),
        ],
    )
    def test_lossless_files_come_back_exactly(self, tmp_path: Path, kind: str, options: dict[str, object]) -> None:
        content = encoded(Image.fromarray(COLOURS), kind, **options)
        np.testing.assert_array_equal(self.decode(tmp_path, content), COLOURS)

    @pytest.mark.parametrize(
        ("kind", "options"),
        [("JPEG", {"quality": 95}), ("WEBP", {"quality": 95}), ("TIFF", {"compression": "jpeg", "quality": 95})],
    )
    def test_lossy_files_come_back_nearly(self, tmp_path: Path, kind: str, options: dict[str, object]) -> None:
        decoded = self.decode(tmp_path, encoded(Image.fromarray(SMOOTH), kind, **options))
        assert np.abs(decoded.astype(int) - SMOOTH).mean() < 4

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"tile": (16, 16)},
            {"bigtiff": True},
            {"byteorder": ">"},
            {"compression": "zlib", "predictor": True},
            {"compression": "lzma"},
        ],
    )
    def test_layouts_of_tiff(self, tmp_path: Path, options: dict[str, object]) -> None:
        decoded = self.decode(tmp_path, tiff(COLOURS, photometric="rgb", **options))
        np.testing.assert_array_equal(decoded, COLOURS)
        planes = np.ascontiguousarray(COLOURS.transpose(2, 0, 1))
        separate = tiff(planes, photometric="rgb", planarconfig="separate", **options)
        np.testing.assert_array_equal(self.decode(tmp_path, separate), COLOURS)

    @pytest.mark.parametrize(
        ("kind", "modes"),
        [
            ("PNG", "1 L LA P RGB RGBA I;16"),
            ("JPEG", "1 L RGB CMYK YCbCr"),
            ("TIFF", "1 L LA P RGB RGBA CMYK YCbCr I;16 I F"),
            ("WEBP", "RGB RGBA"),
            ("AVIF", "L LA RGB RGBA"),
            ("GIF", "1 L P RGB RGBA"),
            ("BMP", "1 L P RGB RGBA"),
        ],
    )
    def test_every_mode_that_a_format_can_hold(self, tmp_path: Path, kind: str, modes: str) -> None:
        for mode in modes.split():
            assert self.decode(tmp_path, encoded(Image.new(mode, (5, 4)), kind)).shape == (4, 5, 3), mode

    def test_cmyk_jpeg(self, tmp_path: Path) -> None:
        red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
        assert self.decode(tmp_path, encoded(red, "JPEG"))[4, 4].tolist() == pytest.approx([255, 0, 0], abs=6)

    @pytest.mark.parametrize("bits", [8, 16])
    @pytest.mark.parametrize("planes", ["contig", "separate"])
    @pytest.mark.parametrize("options", [{}, {"tile": (16, 16)}, {"compression": "zlib"}, {"byteorder": ">"}])
    @pytest.mark.parametrize("bands", [3, 4])
    def test_colour_in_tiff(
        self, tmp_path: Path, bits: int, planes: str, options: dict[str, object], bands: int
    ) -> None:
        values = np.dstack([COLOURS, np.full(COLOURS.shape[:2], 255, np.uint8)])[:, :, :bands]
        if bits == 16:
            values = values.astype(np.uint16) * 257
        stored = values if planes == "contig" else np.ascontiguousarray(values.transpose(2, 0, 1))
        more = {"extrasamples": ["unassalpha"]} if bands == 4 else {}
        content = tiff(stored, photometric="rgb", planarconfig=planes, **options, **more)
        np.testing.assert_array_equal(self.decode(tmp_path, content), COLOURS)

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}])
    def test_orientation_of_tiff(self, tmp_path: Path, orientation: int, options: dict[str, object]) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        jpeg = encoded(Image.fromarray(SMOOTH), "JPEG", quality=98, subsampling=0, exif=exif)
        content = encoded(Image.fromarray(SMOOTH), "TIFF", exif=exif, **options)
        ours, theirs = self.decode(tmp_path, content).astype(int), self.decode(tmp_path, jpeg)
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).mean() < 4

    @pytest.mark.parametrize(
        ("values", "options", "reason"),
        [
            (np.zeros((2, 9, 14), np.uint8), {"planarconfig": "separate"}, "grey in 2 planes.*save it as grey or RGB"),
            (np.zeros((5, 9, 14), np.uint16), {"planarconfig": "separate"}, "grey in 5 planes"),
            (np.zeros((9, 14, 2), np.uint16), {"planarconfig": "contig"}, "kind of pixels is not read: save it as"),
            (np.zeros((9, 14, 3), np.float32), {"photometric": "rgb"}, "kind of pixels is not read"),
        ],
    )
    @pytest.mark.parametrize("compression", [None, "zlib"])
    def test_tiff_that_would_be_read_wrongly_is_refused(
        self,
        tmp_path: Path,
        values: npt.NDArray[np.generic],
        options: dict[str, object],
        reason: str,
        compression: str | None,
    ) -> None:
        options = {"photometric": "minisblack", "compression": compression, **options}
        with pytest.raises(ImageError, match=reason):
            self.decode(tmp_path, tiff(values, **options))

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "AVIF"])
    def test_orientation_is_applied(self, tmp_path: Path, kind: str) -> None:
        pixels = np.zeros((16, 24, 3), dtype=np.uint8)
        pixels[:, :12] = 255  # the left half is white
        image = Image.fromarray(pixels)
        exif = image.getexif()
        exif[0x0112] = 6  # shown turned a quarter clockwise: left becomes top
        decoded = self.decode(tmp_path, encoded(image, kind, exif=exif))
        assert decoded.shape == (24, 16, 3)
        assert decoded[:10].mean() > 250
        assert decoded[14:].mean() < 5

    @pytest.mark.filterwarnings("ignore:Corrupt EXIF")
    def test_broken_exif_does_not_lose_the_image(self, tmp_path: Path) -> None:
        content = encoded(Image.fromarray(COLOURS), "PNG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
        np.testing.assert_array_equal(self.decode(tmp_path, content), COLOURS)

    def test_transparent_pixels_lie_over_white(self, tmp_path: Path) -> None:
        pixels = np.zeros((2, 2, 4), dtype=np.uint8)
        pixels[0, 0] = (10, 20, 30, 255)
        pixels[0, 1] = (10, 20, 30, 0)
        pixels[1, 0] = (0, 0, 0, 128)
        decoded = self.decode(tmp_path, encoded(Image.fromarray(pixels), "PNG"))
        assert decoded[0].tolist() == [[10, 20, 30], [255, 255, 255]]
        assert decoded[1, 0].tolist() == pytest.approx([127, 127, 127], abs=1)

    def test_palette_with_transparency(self, tmp_path: Path) -> None:
        image = Image.new("P", (2, 1))
        image.putpalette([200, 100, 50, 1, 2, 3])
        image.putpixel((1, 0), 1)
        decoded = self.decode(tmp_path, encoded(image, "PNG", transparency=1))
        assert decoded[0].tolist() == [[200, 100, 50], [255, 255, 255]]

    @pytest.mark.parametrize("bits", [10, 12, 16])
    @pytest.mark.parametrize("kind", ["PNG", "TIFF", "big-endian TIFF"])
    def test_deep_grey_is_stretched_to_its_own_range(self, tmp_path: Path, bits: int, kind: str) -> None:
        ramp = np.linspace(0, 2**bits - 1, 256 * 16).reshape(64, 64).astype(np.uint16)
        if kind == "PNG":
            content = encoded(Image.fromarray(ramp), "PNG")
        else:
            content = tiff(ramp, byteorder=">" if "big" in kind else "<", photometric="minisblack")
        decoded = self.decode(tmp_path, content)
        expected = ramp.astype(float) * 255 / (2**bits - 1)
        assert np.abs(decoded[:, :, 0] - expected).max() <= 1.5
        assert (decoded[:, :, 0] == decoded[:, :, 2]).all()

    def test_deep_grey_with_alpha_is_stretched_by_what_is_seen(self, tmp_path: Path) -> None:
        ramp = np.linspace(1000, 4000, WIDTH * HEIGHT).reshape(HEIGHT, WIDTH).astype(np.uint16)
        alpha = np.full(ramp.shape, 65535, np.uint16)
        ramp[:4], alpha[:4] = 0, 0
        rows = [row.tobytes() for row in np.dstack([ramp, alpha]).astype(">u2")]
        decoded = self.decode(tmp_path, raw_png(4, 16, rows))
        expected = self.decode(tmp_path, encoded(Image.fromarray(ramp[4:]), "PNG"))
        assert (decoded[:4] == 255).all()
        np.testing.assert_array_equal(decoded[4:], expected)

    def test_a_deep_value_that_is_transparent_is_white(self, tmp_path: Path) -> None:
        ramp = np.linspace(0, 65535, WIDTH * HEIGHT).reshape(HEIGHT, WIDTH).astype(np.uint16)
        ramp[5:9] = 30_000
        content = raw_png(0, 16, [row.tobytes() for row in ramp.astype(">u2")], (b"tRNS", (30_000).to_bytes(2, "big")))
        decoded = self.decode(tmp_path, content)
        assert (decoded[5:9] == 255).all()
        assert decoded[0, 0, 0] == 0

    def test_a_hot_pixel_does_not_darken_the_rest(self, tmp_path: Path) -> None:
        image = GENERATOR.integers(100, 200, (64, 64)).astype(np.uint16)
        image[5, 5] = 65535
        assert self.decode(tmp_path, encoded(Image.fromarray(image), "PNG")).mean() > 100

    def test_a_few_bright_pixels_on_black_are_seen(self, tmp_path: Path) -> None:
        image = np.zeros((64, 64), dtype=np.uint16)
        image[5, 5] = 4000
        decoded = self.decode(tmp_path, encoded(Image.fromarray(image), "PNG"))
        assert decoded[5, 5, 0] == 255
        assert np.count_nonzero(decoded) == 3

    @pytest.mark.parametrize("value", [0, 700, 65535])
    def test_one_value_everywhere_is_no_division_by_zero(self, tmp_path: Path, value: int) -> None:
        flat = np.full((4, 4), value, dtype=np.uint16)
        assert np.ptp(self.decode(tmp_path, encoded(Image.fromarray(flat), "PNG"))) == 0

    def test_floating_point_with_gaps(self, tmp_path: Path) -> None:
        values = np.linspace(-1, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
        values[3, 3], values[4, 4] = np.nan, np.inf
        decoded = self.decode(tmp_path, tiff(values, photometric="minisblack"))[:, :, 0]
        assert decoded[3, 3] == decoded[4, 4] == 0
        assert decoded[0, 0] == 0
        assert decoded[-1, -1] == 255

    def test_sixteen_bit_colour_keeps_the_upper_bits(self, tmp_path: Path) -> None:
        deep = COLOURS.astype(np.uint16) * 256 + 17
        np.testing.assert_array_equal(self.decode(tmp_path, tiff(deep, photometric="rgb")), COLOURS)

    def test_the_first_of_several_pages(self, tmp_path: Path) -> None:
        pages = np.stack([np.full((4, 5), value, dtype=np.uint8) for value in (7, 8, 9)])
        assert (self.decode(tmp_path, tiff(pages, photometric="minisblack")) == 7).all()
        frames = [Image.new("RGB", (5, 4), colour) for colour in ("red", "blue")]
        moving = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
        assert self.decode(tmp_path, moving)[0, 0].tolist() == [255, 0, 0]

    def test_pillows_own_limit_does_not_interfere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
        np.testing.assert_array_equal(self.decode(tmp_path, encoded(Image.fromarray(COLOURS), "PNG")), COLOURS)

    def test_a_missing_file_is_an_image_error(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match=r"nowhere\.png cannot be decoded"):
            load_image(tmp_path / "nowhere.png")

    @given(content=st.binary(max_size=64))
    def test_rubbish_is_an_image_error(self, tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
        path = tmp_path_factory.getbasetemp() / "rubbish"
        path.write_bytes(content)
        with pytest.raises(ImageError):
            load_image(path)

    @given(tail=st.binary(max_size=300))
    def test_rubbish_instead_of_pixels(self, tmp_path_factory: pytest.TempPathFactory, tail: bytes) -> None:
        """Rows that can be made out are shown, as in browsers."""
        path = tmp_path_factory.getbasetemp() / "rubbish"
        path.write_bytes(png()[:60] + tail)
        try:
            assert load_image(path).shape == (9, 14, 3)
        except ImageError as error:
            assert "cannot be decoded" in str(error)  # noqa: PT017 (both are right)
