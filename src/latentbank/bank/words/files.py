"""Named arrays in a file, with checksums: read whole, or slice by slice when they are needed.

Layout: a magic, the length and CRC-32 of a JSON header, the header, the arrays. The header names
each array with its type, length, place and checksums. A file is written under another name first.
Knows arrays; knows no words and no banks.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["DamagedFile", "FileColumn", "read_arrays", "write_arrays"]

_MAGIC = b"LBWORDS1"
_HEAD_BYTES = 16  # magic, length and CRC of the header
_CHUNK_BYTES = 1 << 16  # each has a checksum of its own, so that a slice can be checked
_MOST_HEADER = 64 << 20
_KEPT_BYTES = 1 << 20  # of a column: slices that one question asks for again and again

Array = npt.NDArray[Any]


class DamagedFile(Exception):
    """A file is not what was written: cut off, changed, or none of ours."""


class FileColumn:
    """An array in a file. A slice is read when it is asked for and checked at the first time."""

    def __init__(self, file: _Open, at: int, count: int, kind: np.dtype[Any], sums: Array) -> None:
        self._file, self._at, self._count, self._kind, self._sums = file, at, count, kind, sums
        self._checked = np.zeros(len(sums), bool)
        self._kept: dict[tuple[int, int], Array] = {}  # slices that were read lately
        self._kept_bytes = 0

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, part: slice) -> Array:
        """The elements start to stop, [n]. Raises `DamagedFile` if their bytes have changed."""
        key = part.start, part.stop
        found = self._kept.get(key)
        if found is None:
            found = self._read(*key)
            if self._kept_bytes + found.nbytes > _KEPT_BYTES:
                self._kept, self._kept_bytes = {}, 0
            if found.nbytes <= _KEPT_BYTES:
                self._kept[key] = found
                self._kept_bytes += found.nbytes
        return found

    def pieces(self, starts: Sequence[int], stops: Sequence[int]) -> list[bytes]:
        """The bytes of many short slices. Raises `DamagedFile` as `__getitem__` does."""
        width, at, read = self._kind.itemsize, self._at, self._file.read
        if self._checked.all():
            return [
                read(at + one * width, (two - one) * width) if two > one else b""
                for one, two in zip(starts, stops, strict=True)
            ]
        return [self._read(*pair).tobytes() for pair in zip(starts, stops, strict=True)]

    def _read(self, begin: int, end: int) -> Array:
        width = self._kind.itemsize
        start, stop = begin * width, end * width
        one, two = start // _CHUNK_BYTES, -(-stop // _CHUNK_BYTES)
        if self._checked[one:two].all():
            return np.frombuffer(self._file.read(self._at + start, stop - start), self._kind)
        whole = min(two * _CHUNK_BYTES, self._count * width)
        first = one * _CHUNK_BYTES
        data = memoryview(self._file.read(self._at + first, whole - first))
        for chunk in range(one, two):
            piece = data[chunk * _CHUNK_BYTES - first : (chunk + 1) * _CHUNK_BYTES - first]
            if zlib.crc32(piece) != int(self._sums[chunk]):
                raise DamagedFile(f"{self._file.path.name}: a checksum does not match")
        self._checked[one:two] = True
        return np.frombuffer(data[start - first : stop - first], self._kind)


class _Open:
    """A file that stays open as long as a column needs it, also when its name is gone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._number = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))

    def read(self, at: int, size: int) -> bytes:
        data = os.pread(self._number, size, at)
        if len(data) != size:
            raise DamagedFile(f"{self.path.name} is cut off")
        return data

    def __del__(self) -> None:
        with suppress(AttributeError, OSError):
            os.close(self._number)


def write_arrays(path: Path, values: Mapping[str, Any], arrays: Mapping[str, Array]) -> int:
    """Write JSON values and arrays; `path` then has the whole file, or none. Returns its bytes."""
    places, blobs, at = {}, [], 0
    for name, array in arrays.items():
        data = np.ascontiguousarray(array)
        raw = data.view(np.uint8).data
        sums = [zlib.crc32(raw[i : i + _CHUNK_BYTES]) for i in range(0, len(raw), _CHUNK_BYTES)]
        places[name] = [data.dtype.str, len(data), at, sums]
        blobs.append(raw)
        at += len(raw)
    header = json.dumps({"values": dict(values), "arrays": places}).encode()
    head = len(header).to_bytes(4, "little") + zlib.crc32(header).to_bytes(4, "little")
    draft = path.with_name(path.name + ".new")
    try:
        with draft.open("wb") as file:
            file.write(_MAGIC + head + header)
            for raw in blobs:
                file.write(raw)
        os.replace(draft, path)
    except BaseException:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
    return _HEAD_BYTES + len(header) + at


def read_arrays(
    path: Path, later: frozenset[str] = frozenset()
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(values, arrays) of a file; those named in `later` as `FileColumn`, the others checked.

    Raises `DamagedFile` if it is cut off, changed or no such file, `OSError` if it is not there.
    """
    file = _Open(path)
    head = file.read(0, _HEAD_BYTES)
    length = int.from_bytes(head[8:12], "little")
    if head[:8] != _MAGIC or length > _MOST_HEADER:
        raise DamagedFile(f"{path.name} is no file of a word index")
    header = file.read(_HEAD_BYTES, length)
    if zlib.crc32(header) != int.from_bytes(head[12:], "little"):
        raise DamagedFile(f"{path.name}: the header's checksum does not match")
    found = json.loads(header)
    arrays: dict[str, Any] = {}
    for name, (kind, count, at, sums) in found["arrays"].items():
        place = _HEAD_BYTES + length + at
        column = FileColumn(file, place, count, np.dtype(kind), np.array(sums, np.uint32))
        arrays[name] = column if name in later else column[0:count]
    last = max(
        (at + n * np.dtype(k).itemsize for k, n, at, _ in found["arrays"].values()), default=0
    )
    if os.stat(path).st_size < _HEAD_BYTES + length + last:
        raise DamagedFile(f"{path.name} is cut off")
    return found["values"], arrays
