"""Label Studio's brush RLE: masks to bit streams and back, vectorised.

The stream holds the 8-bit values of the image flattened as RGBA; a mask is painted into all four channels alike. Bits,
most significant first:

    32      number of values, 4 * height * width
    5       word size - 1; images always have 8-bit words
    4 x 4   width in bits of each of the four length fields, minus 1
    then records until that number of values is reached:
        1       1 = a repeated value, 0 = literal values
        2       which of the four length fields follows
        width   number of values - 1
        8       the repeated value, or 8 bits for each literal value

`encode` writes the bytes that `label_studio_sdk.converter.brush.mask2rle` writes: length fields of 3, 4, 8 and 16 bits,
repeats only, always at least one bit of padding. `decode` reads any field widths and literals, hence what the
editor in the browser writes, too.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import SupportsIndex

import numpy as np
import numpy.typing as npt

from ml_backend.errors import BrushError

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

_CHANNELS = 4
_WORD_BITS = 8
_FIELD_BITS = (3, 4, 8, 16)
_HEADER_BITS = 32 + 5 + 4 * 4
_MAX_VALUES = 2**32 - 1  # what the 32-bit count can say

CHUNK_BYTES = 1 << 15
"""Bytes of the stream decoded at a time: bounds the scratch memory and stays in the processor's cache."""
_WINDOW_BYTES = 8  # every field is read out of 64 bits that begin at its byte


def encode(mask: Bytes) -> bytes:
    """Encode a mask as brush RLE, bit-identical to the SDK's encoder.

    Args:
        mask: (H, W) uint8, 0 = not painted, 255 = painted.

    Returns:
        The stream; Label Studio wants it as a list of integers: `list(encode(mask))`. A mask without pixels gives a
        header without records.

    Raises:
        BrushError: another dtype or number of axes, a value besides 0 and 255, or 2**30 pixels or more.
    """
    _check_mask(mask)
    values, lengths = _repeats(mask.ravel())
    records, bits = _records(values, lengths)
    header = np.array([_header(mask.size * _CHANNELS)], np.uint64)
    return _pack(np.concatenate([header, records]), np.concatenate([[_HEADER_BITS], bits]))


def decode(rle: bytes | Sequence[int], height: int, width: int) -> Bytes:
    """Decode brush RLE of any field widths.

    Like the SDK's converters this returns the alpha channel as it stands and ignores red, green and blue. The editor
    smooths edges, so alpha may lie between 0 and 255 there; in Label Studio every pixel with alpha > 0 is painted.
    Bytes after the last value are ignored.

    Memory is bounded by the sizes of the stream and of the mask, whatever the header of the stream says.

    Args:
        rle: the stream as bytes or as a sequence of integers, 0 to 255.
        height: of the image, in pixels.
        width: of the image, in pixels.

    Returns:
        (height, width) uint8, alpha.

    Raises:
        BrushError: it is no stream of bytes, truncated, of another image size or word size, or a record ends outside
            the image.
    """
    shape = _check_size(height), _check_size(width)
    stream = _Stream.open(_to_bytes(rle))
    if stream.values != _CHANNELS * shape[0] * shape[1]:
        raise BrushError(
            f"brush RLE holds {stream.values} values, but an image of height {shape[0]} and width {shape[1]} has "
            f"4 * {shape[0]} * {shape[1]}: the region belongs to another image size, check original_width and "
            "original_height"
        )
    pieces = list(_alpha(stream))
    return np.concatenate([np.empty(0, np.uint8), *pieces]).reshape(shape)  # (H, W)


# Encoding


def _check_mask(mask: object) -> None:
    if not isinstance(mask, np.ndarray) or mask.dtype != np.uint8 or mask.ndim != 2:
        got = f"{mask.dtype} of shape {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
        raise BrushError(f"a brush mask is a (H, W) array of uint8, got {got}: convert it first")
    if mask.size * _CHANNELS > _MAX_VALUES:
        raise BrushError(
            f"a mask of shape {mask.shape} is too large for brush RLE, which counts to {_MAX_VALUES} values"
        )


def _repeats(pixels: Bytes) -> tuple[Bytes, Integers]:
    """Value and length, in pixels, of every run of equal pixels."""
    if pixels.size == 0:
        return pixels, np.empty(0, np.int64)
    starts = np.concatenate([[0], np.flatnonzero(pixels[1:] != pixels[:-1]) + 1])
    values = pixels[starts]
    strange = values[(values != 0) & (values != 255)]
    if strange.size:
        raise BrushError(
            f"a brush mask holds 0 and 255 only, not {strange[0]}: a 0/1 mask is invisible in Label Studio's editor, "
            "write 255 where it is painted"
        )
    return values, np.diff(starts, append=pixels.size)


def _records(values: Bytes, pixels: Integers) -> tuple[Words, Integers]:
    """Records of the runs, right-aligned, and their numbers of bits.

    The widest length field counts to 2**16; a longer run becomes full records and a rest, and the rest keeps the
    widest field however short it is.
    """
    lengths = pixels * _CHANNELS
    field = np.searchsorted([1 << bits for bits in _FIELD_BITS[:-1]], lengths).astype(np.int64)
    longest = 1 << _FIELD_BITS[-1]
    parts = (lengths - 1) // longest + 1
    if lengths.size and parts.max() > 1:
        rests = lengths - (parts - 1) * longest
        last = np.cumsum(parts) - 1
        values, field = np.repeat(values, parts), np.repeat(field, parts)
        lengths = np.full(field.size, longest, np.int64)
        lengths[last] = rests
    field_bits = np.array(_FIELD_BITS, np.int64)[field]
    repeat_of_field = 4 + field  # the flag in front of the 2-bit index
    records = (((repeat_of_field << field_bits) + lengths - 1) << _WORD_BITS) + values
    return records.astype(np.uint64), 3 + field_bits + _WORD_BITS


def _header(values: int) -> int:
    header = (values << 5) | (_WORD_BITS - 1)
    for bits in _FIELD_BITS:
        header = (header << 4) | (bits - 1)
    return header


def _pack(records: Words, bits: Integers) -> bytes:
    """Concatenate right-aligned bit strings of fewer than 64 bits; pad with 1 to 8 zero bits to whole bytes.

    Every record is shorter than a 64-bit word, so at least one record begins in each word. A word is the records that
    begin in it, joined, and the bits that the last record of the word before spills into it.
    """
    ends = np.cumsum(bits)
    word, offset = np.divmod(ends - bits, 64)
    room = 64 - offset - bits  # bits left in the word after the record; negative: spilled
    spilled = np.maximum(-room, 0).astype(np.uint64)
    inside = (records << np.maximum(room, 0).astype(np.uint64)) >> spilled
    first = np.concatenate([[0], np.flatnonzero(np.diff(word)) + 1])
    last = np.concatenate([first[1:] - 1, [records.size - 1]])
    words = np.zeros(first.size + 1, np.uint64)
    words[:-1] = np.bitwise_or.reduceat(inside, first)
    # in two steps, because a shift by 64 is undefined
    words[1:] |= (records[last] << (np.uint64(63) - spilled[last])) << np.uint64(1)
    return words.astype(">u8").tobytes()[: int(ends[-1]) // 8 + 1]


# Decoding


def _check_size(size: int) -> int:
    try:
        pixels = operator.index(size)
    except TypeError:
        raise BrushError(f"height and width of an image are integers, got a {type(size).__name__}") from None
    if not 0 <= pixels <= _MAX_VALUES:
        raise BrushError(f"height and width of an image lie between 0 and {_MAX_VALUES}, got {_shown(pixels)}")
    return pixels


def _to_bytes(rle: object) -> bytes:
    if isinstance(rle, (bytes, bytearray)):
        return bytes(rle)
    if not isinstance(rle, Sequence) or isinstance(rle, str):
        raise BrushError(f"brush RLE is bytes or a list of integers, got a {type(rle).__name__}")
    try:
        return bytes(rle if isinstance(rle, list) else list(rle))  # bytes(array) would read its memory
    except (TypeError, ValueError):
        raise BrushError(f"brush RLE is a list of integers from 0 to 255, but {_first_fault(rle)}") from None


def _first_fault(elements: Sequence[object]) -> str:
    for place, element in enumerate(elements):
        if not isinstance(element, SupportsIndex):
            return f"element {place} is a {type(element).__name__}"
        if not 0 <= (value := operator.index(element)) <= 255:
            return f"element {place} is {_shown(value)}"
    return "it changed while it was read"


def _shown(value: int) -> str:
    """The value for a message; Python refuses to print integers of thousands of digits."""
    return str(value) if value.bit_length() <= 64 else f"an integer of {value.bit_length()} bits"


@dataclass(frozen=True)
class _Stream:
    """A stream whose header has been read.

    Attributes:
        data: the stream and enough zero bytes after it to read a window anywhere.
        bits: length of the stream without those.
        values: number of values, by its header.
        field_bits: widths of the four length fields.
    """

    data: bytes
    bits: int
    values: int
    field_bits: tuple[int, ...]

    @classmethod
    def open(cls, data: bytes) -> _Stream:
        bits = 8 * len(data)
        if bits < _HEADER_BITS:
            raise BrushError(f"brush RLE is truncated: {len(data)} bytes do not hold its header of {_HEADER_BITS} bits")
        header = int.from_bytes(data[:8].ljust(8, b"\0"), "big")
        word_bits = ((header >> 27) & 31) + 1
        if word_bits != _WORD_BITS:
            raise BrushError(f"brush RLE of an image has words of {_WORD_BITS} bits, this one says {word_bits}")
        field_bits = tuple(((header >> shift) & 15) + 1 for shift in (23, 19, 15, 11))
        return cls(data + bytes(2 * _WINDOW_BYTES), bits, header >> 32, field_bits)

    def windows(self, positions: Integers) -> Words:
        """The 57 bits and more that begin at each position, left-aligned in 64 bits."""
        every_byte: Words = np.ndarray((len(self.data) - _WINDOW_BYTES + 1,), ">u8", self.data, strides=(1,))
        words: Words = every_byte[positions >> 3].astype(np.uint64)
        return words << (positions & 7).astype(np.uint64)


def _alpha(stream: _Stream) -> Iterator[Bytes]:
    """The alpha channel in pieces. All memory used is in proportion to the part of the stream that has been read."""
    position, done = _HEADER_BITS, 0
    table = _step_table(stream.field_bits)
    while done < stream.values:
        if position >= stream.bits:
            raise BrushError(f"brush RLE is truncated: it ends after {done} of {stream.values} values")
        starts = _walk(stream, position, table)  # the last position is the beginning of the next chunk
        repeated, lengths, places = _read_records(stream, starts[:-1])
        ends = done + np.cumsum(lengths)
        used = min(
            int(np.searchsorted(ends, stream.values)) + 1, ends.size
        )  # up to the record that completes the image
        _check_end(stream, int(starts[used]), int(ends[used - 1]))
        yield _paint(stream, done, repeated[:used], lengths[:used], places[:used])
        position, done = int(starts[used]), int(ends[used - 1])


def _check_end(stream: _Stream, bit: int, values: int) -> None:
    if bit > stream.bits:
        raise BrushError(f"brush RLE is truncated: a record ends at bit {bit}, the stream at bit {stream.bits}")
    if values > stream.values:
        raise BrushError(f"brush RLE is damaged: a record ends at value {values} of an image of {stream.values}")


def _step_table(field_bits: tuple[int, ...]) -> bytes:
    """Record length in bits by the record's first 8 bits; 0 where these do not tell, or it is beyond a byte."""
    steps = bytearray(256)
    for head in range(256):
        bits = field_bits[(head >> 5) & 3]
        if head & 128:
            steps[head] = 3 + bits + _WORD_BITS
        elif bits <= 5:
            count = ((head >> (5 - bits)) & ((1 << bits) - 1)) + 1
            step = 3 + bits + _WORD_BITS * count
            steps[head] = step if step < 256 else 0
    return bytes(steps)


def _walk(stream: _Stream, position: int, table: bytes) -> Integers:
    """Starts of the records from a position to the end of a chunk, and then that of the record after them.

    The beginning of a record is known only after the record before it is read. This is the only loop over records; to
    keep it short, it looks the length up in a table that is computed for every bit of the chunk at once.
    """
    origin = position & ~7
    chunk = stream.data[origin >> 3 : (origin >> 3) + CHUNK_BYTES + 1]
    steps = _eight_bits(chunk).tobytes().translate(table)
    stop = min(len(steps), stream.bits - origin)
    seen = bytearray(stop)
    here = position - origin
    while here < stop:
        seen[here] = 1
        here += steps[here] or _long_literal(stream, origin + here)
    starts = np.flatnonzero(np.frombuffer(seen, np.bool_))
    return np.append(starts, here).astype(np.int64) + origin


def _eight_bits(data: bytes) -> Bytes:
    """The 8 bits that begin at each bit."""
    single = np.unpackbits(np.frombuffer(data, np.uint8))
    two = (single[:-1] << np.uint8(1)) | single[1:]
    four = (two[:-2] << np.uint8(2)) | two[2:]
    return (four[:-4] << np.uint8(4)) | four[4:]


def _long_literal(stream: _Stream, position: int) -> int:
    """Length in bits of a literal record that the table leaves out."""
    head = int.from_bytes(stream.data[position >> 3 : (position >> 3) + 4], "big")
    tail_bits = 32 - (position & 7) - 3  # after flag and index
    bits = stream.field_bits[(head >> tail_bits) & 3]
    count = ((head >> (tail_bits - bits)) & ((1 << bits) - 1)) + 1
    return 3 + bits + _WORD_BITS * count


def _read_records(stream: _Stream, starts: Integers) -> tuple[npt.NDArray[np.bool_], Integers, Integers]:
    """Of each record: whether it repeats a value, its number of values, and the bit where its first value begins."""
    windows = stream.windows(starts)
    kind = (windows >> np.uint64(61)).astype(np.intp)  # flag and field index
    bits = np.array(stream.field_bits * 2, np.int64)[kind]
    lengths = ((windows << np.uint64(3)) >> (64 - bits).astype(np.uint64)).astype(np.int64) + 1
    return kind >= 4, lengths, starts + 3 + bits


def _paint(stream: _Stream, done: int, repeated: npt.NDArray[np.bool_], lengths: Integers, places: Integers) -> Bytes:
    """Alpha of the pixels whose fourth value these records hold; `done` values come before them."""
    if not repeated.all():
        counts = np.where(repeated, 1, lengths)
        first = np.cumsum(counts) - counts
        within = np.arange(counts.sum()) - np.repeat(first, counts)
        places = np.repeat(places, counts) + _WORD_BITS * within
        lengths = np.repeat(np.where(repeated, lengths, 1), counts)
    values = (stream.windows(places) >> np.uint64(56)).astype(np.uint8)
    pixels = (done + np.cumsum(lengths)) // _CHANNELS  # alpha is the last of a pixel's four values
    return np.repeat(values, np.diff(pixels, prepend=done // _CHANNELS))
