"""Text to the fewest bytes that counting can reach, and the tables that it counts with.

A text becomes token ids, their probabilities come from `token_counts`, their bytes from `rans`.
What does not survive the tokenizer byte for byte, and what zstd makes shorter, is left to zstd.
Knows nothing about banks or methods.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields

import numpy as np
import numpy.typing as npt
import zstandard
from safetensors import SafetensorError
from safetensors.numpy import load, save

from latentbank.codec.text import ZstdTextCodec
from latentbank.codec.token_counts import CountTables, TokenCounts, most_tokens
from latentbank.errors import BankError

__all__ = ["CountedTextCodec", "pack_tables", "unpack_tables"]

_ZSTD_KINDS = 3  # first bytes below this are `ZstdTextCodec`'s
_COUNTED = b"\x03"  # before a counted text whose own first byte is not above this
_TOGETHER = 1024  # texts decoded side by side
_MAX_TABLE_BYTES = 1 << 28


class CountedTextCodec:
    """Texts and bytes by the counts of tokens.

    Args:
        tokens: texts → token ids of each.
        text: token ids → text.
        tables: counts over the same ids.
        fallback: for what the tokenizer would change.
    """

    def __init__(
        self,
        tokens: Callable[[Sequence[str]], Sequence[Sequence[int]]],
        text: Callable[[Sequence[int]], str],
        tables: CountTables,
        fallback: ZstdTextCodec,
    ) -> None:
        self._tokens, self._text, self._fallback = tokens, text, fallback
        self._counts = TokenCounts(tables)

    def encode_all(self, texts: Sequence[str]) -> list[bytes]:
        """Bytes of each text. Raises InputError as `ZstdTextCodec.encode` does."""
        found = [self._fallback.encode(text) for text in texts]
        rows = self._tokens(texts)
        fit = [
            i
            for i, row in enumerate(rows)
            if len(row) <= most_tokens(1 << 20)
            and max(row, default=0) < self._counts.vocabulary
            and self._text(row) == texts[i]
        ]
        for i, body in zip(fit, self._counts.encode([rows[i] for i in fit]), strict=True):
            counted = body if body[:1] > _COUNTED else _COUNTED + body
            if len(counted) < len(found[i]) and len(rows[i]) <= most_tokens(len(body)):
                found[i] = counted
        return found

    def decode_all(self, payloads: Sequence[bytes]) -> list[str]:
        """Texts of what `encode_all` gave; raises BankError if the bytes are damaged."""
        found = [""] * len(payloads)
        counted: list[int] = []
        for i, data in enumerate(payloads):
            if data[:1] and data[0] >= _ZSTD_KINDS:
                counted.append(i)
            else:
                found[i] = self._fallback.decode(data)
        counted.sort(key=lambda i: len(payloads[i]))
        for at in range(0, len(counted), _TOGETHER):
            part = counted[at : at + _TOGETHER]
            rows = self._counts.decode([payloads[i].removeprefix(_COUNTED) for i in part])
            for i, row in zip(part, rows, strict=True):
                found[i] = self._text(row)
        return found

    def encode(self, text: str) -> bytes:
        """Bytes of one text."""
        return self.encode_all([text])[0]

    def decode(self, data: bytes) -> str:
        """The text of these bytes."""
        return self.decode_all([data])[0]


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
