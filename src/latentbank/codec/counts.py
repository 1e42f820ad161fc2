"""The tables that the counts of tokens are kept in, small enough to ship.

Knows nothing about banks or methods.
"""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import numpy.typing as npt
import zstandard
from safetensors import SafetensorError
from safetensors.numpy import load, save

from latentbank.codec.token_counts import CountTables
from latentbank.errors import BankError

__all__ = ["pack_tables", "unpack_tables"]

_MAX_TABLE_BYTES = 1 << 28


def pack_tables(tables: CountTables) -> bytes:
    """Tables in about 2 bytes a count: ids as differences, bytes sorted by place, zstd."""
    planes = {}
    for field in fields(tables):
        values = getattr(tables, field.name)
        if field.name.endswith("_tokens"):
            values = _differences(getattr(tables, field.name.replace("_tokens", "_rows")), values)
        wide = values.astype("<u4").view(np.uint8).reshape(len(values), 4)
        planes[field.name] = np.ascontiguousarray(wide.T)
    return zstandard.ZstdCompressor(level=19).compress(save(planes))


def unpack_tables(data: bytes) -> CountTables:
    """What `pack_tables` packed. Raises BankError if the bytes are damaged."""
    try:
        found = load(zstandard.ZstdDecompressor().decompress(data, _MAX_TABLE_BYTES))
        values = {
            field.name: _whole(found[field.name]).astype(np.int64) for field in fields(CountTables)
        }
        for kind in ("pair", "triple"):
            rows, steps = values[f"{kind}_rows"], values[f"{kind}_tokens"]
            values[f"{kind}_tokens"] = _sums(rows, steps)
    except (zstandard.ZstdError, SafetensorError, KeyError, ValueError, IndexError) as error:
        raise BankError(f"The tables of counts are damaged: {error}.") from error
    return CountTables(**values)


def _whole(planes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    return np.ascontiguousarray(planes.T).view("<u4")[:, 0]


def _firsts(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Where the rows that hold something begin."""
    return (np.cumsum(rows) - rows)[rows > 0]


def _differences(
    rows: npt.NDArray[np.int64], tokens: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Ids of each row after the first as the step from the one before."""
    steps = np.diff(tokens, prepend=0)
    steps[_firsts(rows)] = tokens[_firsts(rows)]
    return steps


def _sums(rows: npt.NDArray[np.int64], steps: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    running, first = np.cumsum(steps), _firsts(rows)
    before = running[first] - steps[first]
    return running - np.repeat(before, rows[rows > 0])
