"""Codes, float arrays and texts to bytes and back. Knows no bank and no method."""

from latentbank.codec.arrays import (
    ARRAY_CODECS,
    ArrayCodec,
    Float16Codec,
    Float32Codec,
    Int8Codec,
    array_codec,
    pack_bits,
    packed_bytes,
    unpack_bits,
)
from latentbank.codec.text import MAX_TEXT_BYTES, ZstdTextCodec, train_dictionary

__all__ = [
    "ARRAY_CODECS",
    "MAX_TEXT_BYTES",
    "ArrayCodec",
    "Float16Codec",
    "Float32Codec",
    "Int8Codec",
    "ZstdTextCodec",
    "array_codec",
    "pack_bits",
    "packed_bytes",
    "train_dictionary",
    "unpack_bits",
]
