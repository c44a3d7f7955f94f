"""brush.py against the SDK's codec, against streams written here bit by bit, and against hostile ones."""

import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from label_studio_sdk.converter import brush as sdk

from ml_backend.annotations import brush
from ml_backend.errors import BrushError, MaskError

DEFAULT = (3, 4, 8, 16)

# Written by @thi.ng/rle-pack 3.2.12, the encoder in Label Studio's editor: a crimson disc with a smoothed edge.
EDITOR_HEIGHT, EDITOR_WIDTH = 10, 12
EDITOR_STREAM = bytes.fromhex(
    "000001e0391bfe3b00427b829fe0fb829fef1b829ff5fb829ff43b829fea385c00cee0a7f8cee0a7fe9ee0a43fe0ee0a43fe0ee0a43f"
    "e0ee0a43fe1ee0a7fc6e1300177053fe8770521ff0770521ff0770521ff0770521ff0770521ff0770521ff0f7053fd16f800bb829ffe"
    "3b8290ff83b8290ff83b8290ff83b8290ff83b8290ff83b8290ff87b829ff1b7c005dc14fff9dc1487fc1dc1487fc1dc1487fc1dc148"
    "7fc1dc1487fc1dc1487fc3dc14ff94be002ee0a7fdb6e0a43fe0ee0a43fe0ee0a43fe0ee0a43fe0ee0a43fe0ee0a43fe1ee0a7fac5f0"
    "033b829fe71b829fff3b8290ff83b8290ff83b8290ff83b8290ff87b829ff5f85c0109ee0a7f996e0a7fd46e0a7ff16e0a7fe9ee0a7f"
    "bfe3f000"
)


@dataclass(frozen=True)
class Record:
    """One record of a stream: `values` as they stand, or the one value `repeat` times."""

    field: int
    values: bytes
    repeat: int = 0

    @property
    def count(self) -> int:
        return self.repeat or len(self.values)

    def flat(self) -> bytes:
        return self.values * self.repeat if self.repeat else self.values

    def bits(self, field_bits: Sequence[int]) -> str:
        head = f"{int(bool(self.repeat))}{self.field:02b}{self.count - 1:0{field_bits[self.field]}b}"
        return head + "".join(f"{value:08b}" for value in self.values)


def write(records: Sequence[Record], field_bits: Sequence[int] = DEFAULT, *, claim: int | None = None) -> bytes:
    """The reference encoder: exactly these records, whatever sense they make."""
    count = sum(record.count for record in records) if claim is None else claim
    bits = f"{count:032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in field_bits)
    bits += "".join(record.bits(field_bits) for record in records)
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")


def sdk_alpha(rle: Sequence[int], height: int, width: int) -> np.ndarray:
    return sdk.decode_rle(rle).reshape(height, width, 4)[:, :, 3]


def mask_of_runs(lengths: Sequence[int], first: int) -> np.ndarray:
    values = np.where(np.arange(len(lengths)) % 2 == first, 255, 0).astype(np.uint8)
    return np.repeat(values, lengths).reshape(1, -1)


@st.composite
def records_of(draw: st.DrawFn, field_bits: Sequence[int]) -> Record:
    field = draw(st.integers(0, 3))
    count = draw(st.integers(1, min(1 << field_bits[field], 70)))
    if draw(st.booleans()):
        return Record(field, bytes([draw(st.integers(0, 255))]), repeat=count)
    return Record(field, draw(st.binary(min_size=count, max_size=count)))


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A valid stream of any field widths, and the values that it stands for; a whole number of pixels."""
    field_bits = draw(st.tuples(*[st.integers(1, 16)] * 4))
    records = draw(st.lists(records_of(field_bits), max_size=25))
    missing = -sum(record.count for record in records) % 4
    records += [Record(0, bytes([value])) for value in range(100, 100 + missing)]
    return write(records, field_bits), b"".join(record.flat() for record in records)


masks = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=24), elements=st.sampled_from([0, 255]))


# encode


def test_encode_one_painted_pixel_by_hand() -> None:
    # 4 values | words of 8 bits | fields of 3, 4, 8, 16 bits | repeat, field 0, 4 times, 255 | padding
    # 00..0100 | 00111           | 0010 0011 0111 1111        | 1 00 011 11111111          | 00000
    assert brush.encode(np.full((1, 1), 255, np.uint8)) == bytes([0, 0, 0, 4, 0x39, 0x1B, 0xFC, 0x7F, 0xE0])


@given(masks)
def test_encode_is_bit_identical_to_the_sdk(mask: np.ndarray) -> None:
    assert list(brush.encode(mask)) == sdk.mask2rle(mask)


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from([1, 2, 3, 4, 5, 63, 64, 65, 16383, 16384, 16385, 32768, 40000]), min_size=1, max_size=9),
    st.integers(0, 1),
)
@example([2], 0)  # 8 values: the longest run of the first field
@example([65], 0)  # 80 bits: a whole byte of padding
@example([16384], 1)  # 2**16 values
@example([16385, 1], 0)  # the rest of a long run is short
@example([65536], 0)
def test_encode_splits_runs_like_the_sdk(lengths: list[int], first: int) -> None:
    mask = mask_of_runs(lengths, first)
    assert list(brush.encode(mask)) == sdk.mask2rle(mask)


def test_a_stream_that_fills_its_last_byte_gets_another_one() -> None:
    assert len(brush.encode(np.zeros((1, 65), np.uint8))) == (53 + 27) // 8 + 1


@pytest.mark.parametrize("order", ["transposed", "flipped", "strided"])
def test_encode_reads_pixels_in_row_order_whatever_the_memory_layout(order: str) -> None:
    mask = np.where(np.random.default_rng(0).random((20, 30)) < 0.5, 255, 0).astype(np.uint8)
    view = {"transposed": mask.T, "flipped": mask[::-1], "strided": mask[:, ::3]}[order]
    assert list(brush.encode(view)) == sdk.mask2rle(view)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.eye(3, dtype=np.uint8), "not 1: a 0/1 mask is invisible"),
        (np.full((2, 2), 1, np.uint8), "not 1: a 0/1 mask is invisible"),
        (np.array([[0, 254]], np.uint8), "not 254"),
        (np.zeros((2, 2), bool), "bool"),
        (np.zeros((2, 2), np.int64), "int64"),
        (np.zeros((2, 2, 4), np.uint8), r"\(2, 2, 4\)"),
        (np.zeros(4, np.uint8), r"\(4,\)"),
        ([[0, 255]], "got list"),
        (np.broadcast_to(np.uint8(0), (1 << 15, 1 << 15)), "too large"),
    ],
)
def test_encode_refuses_what_is_no_brush_mask(mask: np.ndarray, message: str) -> None:
    with pytest.raises(BrushError, match=message):
        brush.encode(mask)


# decode


@given(masks)
def test_round_trip(mask: np.ndarray) -> None:
    rle = brush.encode(mask)
    for form in (rle, bytearray(rle), list(rle), tuple(rle)):
        decoded = brush.decode(form, *mask.shape)
        assert decoded.dtype == np.uint8
        assert np.array_equal(decoded, mask)


@pytest.mark.parametrize("shape", [(0, 0), (0, 7), (7, 0)])
def test_a_mask_without_pixels_is_a_header(shape: tuple[int, int]) -> None:
    rle = brush.encode(np.zeros(shape, np.uint8))
    assert sdk.decode_rle(rle).size == 0
    assert brush.decode(rle, *shape).shape == shape


@settings(max_examples=200)
@given(streams(), st.sampled_from([1 << 15, 7]))
def test_decode_agrees_with_the_sdk_on_any_field_widths(stream: tuple[bytes, bytes], chunk: int) -> None:
    rle, values = stream
    expected = np.frombuffer(values, np.uint8).reshape(1, -1, 4)[:, :, 3]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(brush, "CHUNK_BYTES", chunk)  # the small one puts chunk borders everywhere
        decoded = brush.decode(rle, 1, len(values) // 4)
    assert np.array_equal(decoded, expected)
    assert np.array_equal(decoded, sdk_alpha(rle, 1, len(values) // 4))


@pytest.mark.parametrize("field_bits", [DEFAULT, (16, 1, 9, 5), (16, 16, 16, 16)])
def test_decode_long_literals_across_chunks(field_bits: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    widest = field_bits.index(16)
    records = [Record(widest, rng.bytes(count)) for count in (65536, 1, 257, 40000)]
    records += [Record(widest, b"\x07", repeat=65536), Record(widest, rng.bytes(2))]
    rle, values = write(records, field_bits), b"".join(record.flat() for record in records)
    height = len(values) // 4
    assert np.array_equal(brush.decode(rle, height, 1).ravel(), np.frombuffer(values, np.uint8)[3::4])


def test_decode_returns_alpha_and_ignores_colours() -> None:
    pixels = bytes([255, 0, 9, 0, 1, 2, 3, 128, 0, 0, 0, 255])
    assert brush.decode(write([Record(3, pixels)]), 1, 3).tolist() == [[0, 128, 255]]


def test_decode_a_stream_of_the_editors_encoder() -> None:
    decoded = brush.decode(EDITOR_STREAM, EDITOR_HEIGHT, EDITOR_WIDTH)
    assert np.array_equal(decoded, sdk_alpha(EDITOR_STREAM, EDITOR_HEIGHT, EDITOR_WIDTH))
    assert decoded[4].tolist() == [0, 0, 241, 255, 255, 255, 255, 255, 255, 141, 0, 0]


def test_decode_ignores_what_follows_the_last_value() -> None:
    mask = mask_of_runs([3, 4, 5], 0)
    for tail in (b"\0" * 100_000, b"\xff" * 100_000):
        assert np.array_equal(brush.decode(brush.encode(mask) + tail, *mask.shape), mask)


def test_decoded_masks_can_be_written_to() -> None:
    assert brush.decode(brush.encode(np.zeros((2, 2), np.uint8)), 2, 2).flags.writeable


# Hostile streams

GOOD = brush.encode(np.zeros((2, 3), np.uint8))


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        (b"", "0 bytes do not hold its header"),
        ([], "0 bytes do not hold its header"),
        (GOOD[:6], "6 bytes do not hold its header"),
        (GOOD[:7], "a record ends at bit 72, the stream at bit 56"),
        (GOOD[:8], "a record ends at bit 72, the stream at bit 64"),
        (write([Record(2, b"\0", repeat=20), Record(0, b"\1")], claim=24)[:9], "it ends after 20 of 24 values"),
        (write([], claim=2**32 - 1), "holds 4294967295 values"),
        (write([], claim=24), "truncated"),
        (write([Record(0, b"\0", repeat=8)]), "holds 8 values"),
        (write([Record(3, b"\0", repeat=65536)], claim=24), "ends at value 65536 of an image of 24"),
        (write([Record(2, bytes(25))], claim=24), "ends at value 25 of an image of 24"),
        (GOOD[:4] + bytes([GOOD[4] ^ 0b11111000]) + GOOD[5:], "this one says 25"),
        ([*GOOD[:-1], 256], "element 9 is 256"),
        ([-1, *GOOD], "element 0 is -1"),
        ([0, 1.0], "element 1 is a float"),
        ([0, "1"], "element 1 is a str"),
        ([0, None], "element 1 is a NoneType"),
        ([[0]], "element 0 is a list"),
        ("AAAA", "got a str"),
        (None, "got a NoneType"),
        (7, "got a int"),
        ({"0": 1}, "got a dict"),
        (np.frombuffer(GOOD, np.uint8).astype(np.int64), "got a ndarray"),
    ],
)
def test_decode_refuses_a_faulty_stream(rle: object, message: str) -> None:
    with pytest.raises(BrushError, match=message):
        brush.decode(rle, 2, 3)


@pytest.mark.parametrize(
    ("height", "width", "message"),
    [
        (3, 3, "holds 24 values, but an image of height 3 and width 3"),
        (-2, -3, "got -2"),
        (2.0, 3, "got a float"),
        (2, "3", "got a str"),
        (None, 3, "got a NoneType"),
    ],
)
def test_decode_refuses_another_image_size(height: int, width: int, message: str) -> None:
    with pytest.raises(BrushError, match=message):
        brush.decode(GOOD, height, width)


def test_integers_that_python_refuses_to_print() -> None:
    with pytest.raises(BrushError, match="element 0 is an integer of 16610 bits"):
        brush.decode([10**5000], 2, 3)
    with pytest.raises(BrushError, match="got an integer of 16610 bits"):
        brush.decode(GOOD, 10**5000, 3)


def test_brush_errors_are_value_errors() -> None:
    assert issubclass(BrushError, ValueError)
    assert issubclass(BrushError, MaskError)


HUGE = 30_000


@pytest.mark.parametrize(
    ("rle", "side"),
    [
        pytest.param(write([], claim=2**32 - 1), 10, id="claims 4 GiB, image small"),
        pytest.param(write([Record(3, b"\0", repeat=1)], claim=4 * HUGE**2), HUGE, id="claims 3.6 GB, is truncated"),
        pytest.param(write([Record(3, b"\0", repeat=65536)] * 2000, claim=400), 10, id="repeats beyond the end"),
        pytest.param(write([Record(3, bytes(65536))], claim=400)[:12], 10, id="long literal without its values"),
        pytest.param(write([], claim=400) + b"\xff" * 100_000, 10, id="ones"),
    ],
)
def test_hostile_streams_take_little_memory(rle: bytes, side: int) -> None:
    brush.decode(GOOD, 2, 3)  # imports and caches are not the stream's doing
    tracemalloc.start()
    try:
        with pytest.raises(BrushError):
            brush.decode(rle, side, side)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


def test_a_good_stream_takes_memory_in_proportion_to_mask_and_stream() -> None:
    mask = np.where(np.random.default_rng(2).random((700, 700)) < 0.5, 255, 0).astype(np.uint8)
    rle = brush.encode(mask)
    tracemalloc.start()
    try:
        assert np.array_equal(brush.decode(rle, 700, 700), mask)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * mask.size + 2 * len(rle) + (8 << 20)


@settings(max_examples=300)
@given(streams(), st.data())
def test_mutated_streams_raise_only_brush_errors(stream: tuple[bytes, bytes], data: st.DataObject) -> None:
    mutant = bytearray(stream[0])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(mutant) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "insert", "delete"])):
            case "flip":
                mutant[place] ^= 1 << data.draw(st.integers(0, 7))
            case "cut":
                del mutant[max(place, 1) :]
            case "insert":
                mutant[place:place] = data.draw(st.binary(max_size=4))
            case "delete" if len(mutant) > 1:
                del mutant[place]
    width = len(stream[1]) // 4
    try:
        decoded = brush.decode(bytes(mutant), 1, width)
    except BrushError:
        return
    assert np.array_equal(decoded, sdk_alpha(mutant, 1, width))


@given(st.binary(max_size=60), st.integers(0, 20), st.integers(0, 20))
def test_noise_behind_a_plausible_header_raises_only_brush_errors(noise: bytes, height: int, width: int) -> None:
    header = (4 * height * width).to_bytes(4, "big") + bytes([0x39])
    try:
        decoded = brush.decode(header + noise, height, width)
    except BrushError:
        return
    assert np.array_equal(decoded, sdk_alpha(header + noise, height, width))


@given(st.lists(st.one_of(st.integers(-300, 300), st.floats(), st.none(), st.text(max_size=2)), max_size=20))
def test_lists_of_anything_raise_only_brush_errors(rle: list[int]) -> None:
    with pytest.raises(BrushError):
        brush.decode(rle, 1000, 1)
