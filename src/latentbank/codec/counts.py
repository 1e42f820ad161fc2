"""Packs tables of token counts into few bytes, so that they can be shipped with the package.

Knows no bank and no method.
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
    """Bytes of tables, about 2 for each count.

    Ids are stored as differences. The bytes of all numbers are grouped by significance and
    compressed with zstd.
    """
    planes = {}
    for field in fields(tables):
        values = getattr(tables, field.name)
        if field.name.endswith("_tokens"):
            values = _differences(getattr(tables, field.name.replace("_tokens", "_rows")), values)
        wide = values.astype("<u4").view(np.uint8).reshape(len(values), 4)
        planes[field.name] = np.ascontiguousarray(wide.T)
    return zstandard.ZstdCompressor(level=19).compress(save(planes))


def unpack_tables(data: bytes) -> CountTables:
    """The tables that `pack_tables` packed. Raises BankError if the bytes are damaged."""
    try:
        planes = load(zstandard.ZstdDecompressor().decompress(data, _MAX_TABLE_BYTES))
        values = {
            field.name: _whole(planes[field.name]).astype(np.int64) for field in fields(CountTables)
        }
        for kind in ("pair", "triple"):
            rows, steps = values[f"{kind}_rows"], values[f"{kind}_tokens"]
            values[f"{kind}_tokens"] = _sums(rows, steps)
    except (zstandard.ZstdError, SafetensorError, KeyError, ValueError, IndexError) as error:
        raise BankError(f"The tables of counts are damaged: {error}.") from error
    return CountTables(**values)


def _whole(planes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    """Numbers [N] from their bytes [4, N]."""
    return np.ascontiguousarray(planes.T).view("<u4")[:, 0]


def _firsts(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Index of the first item of each row that is not empty."""
    return (np.cumsum(rows) - rows)[rows > 0]


def _differences(
    rows: npt.NDArray[np.int64], tokens: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """The ids of each row as steps: the first id, then the difference to the id before."""
    steps = np.diff(tokens, prepend=0)
    steps[_firsts(rows)] = tokens[_firsts(rows)]
    return steps


def _sums(rows: npt.NDArray[np.int64], steps: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The inverse of `_differences`."""
    running, first = np.cumsum(steps), _firsts(rows)
    before = running[first] - steps[first]
    return running - np.repeat(before, rows[rows > 0])
