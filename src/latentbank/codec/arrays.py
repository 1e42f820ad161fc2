"""Codes and float arrays to bytes and back: bit packing, float32, float16, int8.

Decoding does not trust its input: damaged bytes raise `BankError`, and no input makes a decoder
allocate more than its stated limit. Knows no bank, method or model.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from latentbank.errors import BankError, InputError, unknown

__all__ = [
    "ARRAY_CODECS",
    "ArrayCodec",
    "Float16Codec",
    "Float32Codec",
    "Int8Codec",
    "array_codec",
    "pack_bits",
    "packed_bytes",
    "unpack_bits",
]

Float32Array = npt.NDArray[np.float32]

_BLOCK_CODES = 1 << 16  # codes per step of (un)packing; a multiple of 8, so steps end on bytes


# ---------------------------------------------------------------------------- codes <-> bits


def packed_bytes(bits: int, count: int) -> int:
    """Bytes that `count` codes of `bits` bits take: ceil(bits * count / 8)."""
    return (bits * count + 7) // 8


def _check_bits(bits: int) -> None:
    if not 1 <= bits <= 16:
        raise InputError(f"Codes are packed with 1 to 16 bits each, got bits={bits}.")


def pack_bits(codes: npt.NDArray[np.integer[Any]], bits: int) -> bytes:
    """Packs integer codes (any shape, in C order) into `packed_bytes(bits, codes.size)` bytes.

    Code i occupies bits i*bits to (i+1)*bits - 1 of a little-endian bit stream. The last byte is
    padded with zero bits.

    Raises:
        InputError: `bits` is not 1..16, the array is not of integers, or a code does not fit.
    """
    _check_bits(bits)
    flat = np.asarray(codes).reshape(-1)
    if flat.size == 0:
        return b""
    if flat.dtype.kind not in "iu":
        raise InputError(f"Codes must be integers, got an array of {flat.dtype}.")
    low, high = int(flat.min()), int(flat.max())
    if low < 0 or high >= 1 << bits:
        raise InputError(
            f"Codes of {bits} bits must lie in 0..{(1 << bits) - 1}, got {low}..{high}."
        )
    if bits == 8:
        return flat.astype(np.uint8).tobytes()
    if bits == 16:
        return flat.astype("<u2").tobytes()
    shifts = np.arange(bits, dtype=np.uint16)
    parts = []
    for start in range(0, flat.size, _BLOCK_CODES):
        block = flat[start : start + _BLOCK_CODES].astype(np.uint16)
        planes = ((block[:, None] >> shifts) & 1).astype(np.uint8)  # (codes, bits)
        parts.append(np.packbits(planes, bitorder="little").tobytes())
    return b"".join(parts)


def unpack_bits(data: bytes, bits: int, count: int) -> npt.NDArray[np.int32]:
    """The `count` codes that `pack_bits` wrote, int32 [count].

    Raises:
        InputError: `bits` is not 1..16.
        BankError: `data` does not have `packed_bytes(bits, count)` bytes, or its padding is not 0.
    """
    _check_bits(bits)
    if count < 0 or len(data) != packed_bytes(bits, count):
        raise BankError(
            f"Packed codes are damaged: {count} codes of {bits} bits take "
            f"{packed_bytes(bits, max(count, 0))} bytes, got {len(data)}."
        )
    if bits == 8:
        return np.frombuffer(data, np.uint8).astype(np.int32)
    if bits == 16:
        return np.frombuffer(data, "<u2").astype(np.int32)
    used = bits * count % 8
    if used and data[-1] >> used:
        raise BankError("Packed codes are damaged: the padding after the last code is not zero.")
    raw = np.frombuffer(data, np.uint8)
    codes = np.zeros(count, np.int32)
    step_bytes = _BLOCK_CODES * bits // 8
    for index, start in enumerate(range(0, len(raw), step_bytes)):
        first = index * _BLOCK_CODES
        size = min(_BLOCK_CODES, count - first)
        planes = np.unpackbits(
            raw[start : start + step_bytes], count=size * bits, bitorder="little"
        ).reshape(size, bits)
        block = codes[first : first + size]
        for bit in range(bits):  # at most 16 steps, each over all codes of the block
            block |= planes[:, bit].astype(np.int32) << bit
    return codes


# --------------------------------------------------------------------------- arrays <-> bytes


class ArrayCodec(Protocol):
    """Float rows [rows, dim] to bytes, and back to float32 [rows, dim]."""

    @property
    def name(self) -> str:
        """The name under which `array_codec` finds this codec."""

    def row_bytes(self, dim: int) -> int:
        """Bytes that one row of `dim` numbers takes."""

    def encode(self, array: npt.NDArray[np.floating[Any]]) -> bytes:
        """Bytes of [rows, dim]; raises `InputError` for another shape or values out of range."""

    def decode(self, data: bytes, dim: int) -> Float32Array:
        """Float32 [rows, dim] of bytes; raises `BankError` if they are not whole rows."""


def _rows(array: npt.NDArray[np.floating[Any]]) -> Float32Array:
    rows = np.asarray(array)
    if rows.ndim != 2 or rows.dtype.kind != "f":
        raise InputError(
            f"An array to encode must be floats of shape [rows, dim], got {rows.dtype} of shape "
            f"{list(rows.shape)}."
        )
    with np.errstate(over="ignore"):
        rows32 = rows.astype(np.float32)
    if not np.isfinite(rows32).all():
        raise InputError("An array to encode must be finite in float32; got NaN or infinity.")
    return rows32


def _row_count(data: bytes, dim: int, row_bytes: int, name: str) -> int:
    if dim < 1 or len(data) % row_bytes:
        raise BankError(
            f"{name} rows are damaged: rows of {dim} numbers take {row_bytes} bytes each, got "
            f"{len(data)} bytes, which is no whole number of rows."
        )
    return len(data) // row_bytes


class Float32Codec:
    """IEEE float32, little-endian, row after row: exact, 4 bytes per number."""

    name = "float32"

    def row_bytes(self, dim: int) -> int:
        """Bytes of one row."""
        return 4 * dim

    def encode(self, array: npt.NDArray[np.floating[Any]]) -> bytes:
        """See `ArrayCodec`."""
        return _rows(array).astype("<f4").tobytes()

    def decode(self, data: bytes, dim: int) -> Float32Array:
        """See `ArrayCodec`."""
        rows = _row_count(data, dim, self.row_bytes(dim), self.name)
        return np.frombuffer(data, "<f4").astype(np.float32).reshape(rows, dim)


class Float16Codec:
    """IEEE float16, little-endian: 2 bytes per number, 11 significant bits, at most ±65504."""

    name = "float16"

    def row_bytes(self, dim: int) -> int:
        """Bytes of one row."""
        return 2 * dim

    def encode(self, array: npt.NDArray[np.floating[Any]]) -> bytes:
        """See `ArrayCodec`; the range is ±65504."""
        rows = _rows(array)
        with np.errstate(over="ignore"):
            half = rows.astype("<f2")
        if not np.isfinite(half).all():
            raise InputError(
                f"float16 holds at most 65504, got {float(np.abs(rows).max()):g}; scale the array "
                "or use float32."
            )
        return half.tobytes()

    def decode(self, data: bytes, dim: int) -> Float32Array:
        """See `ArrayCodec`."""
        rows = _row_count(data, dim, self.row_bytes(dim), self.name)
        return np.frombuffer(data, "<f2").astype(np.float32).reshape(rows, dim)


class Int8Codec:
    """One float16 scale per row and one signed byte per number: dim + 2 bytes a row.

    scale = absmax / 127, rounded up to a float16. So no number is clipped, and the error is at most
    half a scale. Layout: all scales, then all rows.
    """

    name = "int8"

    def row_bytes(self, dim: int) -> int:
        """Bytes of one row."""
        return dim + 2

    def encode(self, array: npt.NDArray[np.floating[Any]]) -> bytes:
        """See `ArrayCodec`; the range is ±8.3 million."""
        rows = _rows(array)
        absmax = np.abs(rows).max(axis=1, initial=0.0)
        with np.errstate(over="ignore"):
            scale = (absmax / 127).astype(np.float16)
            short = scale.astype(np.float32) * 127 < absmax
            scale = np.where(short, np.nextafter(scale, np.float16(np.inf)), scale)
        if not np.isfinite(scale).all():
            raise InputError(
                f"int8 rows hold at most {127 * 65504}, got {float(absmax.max()):g}; scale the "
                "array or use float32."
            )
        divisor = np.where(scale > 0, scale, np.float16(1)).astype(np.float32)[:, None]
        codes = np.rint(rows / divisor).clip(-127, 127).astype(np.int8)
        encoded: bytes = scale.astype("<f2").tobytes() + codes.tobytes()
        return encoded

    def decode(self, data: bytes, dim: int) -> Float32Array:
        """See `ArrayCodec`."""
        rows = _row_count(data, dim, self.row_bytes(dim), self.name)
        scale = np.frombuffer(data, "<f2", count=rows).astype(np.float32)
        codes = np.frombuffer(data, np.int8, offset=2 * rows).astype(np.float32)
        return codes.reshape(rows, dim) * scale[:, None]


ARRAY_CODECS: Mapping[str, ArrayCodec] = MappingProxyType(
    {codec.name: codec for codec in (Float32Codec(), Float16Codec(), Int8Codec())}
)


def array_codec(name: str) -> ArrayCodec:
    """The array codec `name`; raises `UnknownNameError`, which lists the known ones."""
    if name not in ARRAY_CODECS:
        raise unknown("array codec", name, ARRAY_CODECS)
    return ARRAY_CODECS[name]
