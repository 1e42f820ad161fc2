"""An approximate index over many document keys: inverted lists of faiss.

Lives in memory only. faiss is an optional extra: `load_faiss` gives None where it is not installed,
and callers then search all keys. Knows vectors and their numbers; knows no ids, bank or words.
"""

from __future__ import annotations

import math
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["KeyIndex", "load_faiss"]

_TRAINING_ROWS = 40  # keys for each list that its centre is learned from
_ROUNDS = 6  # of k-means
_PROBED = 24  # a search probes one list in 24
_LEAST_PROBED = 32
_GROWTH = 1.5
_SEED = 1234
_BLOCK_ROWS = 65_536

Floats = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]


@cache
def load_faiss() -> Any:
    """The library of the extra `scale`, or None where it is not installed."""
    try:
        return import_module("faiss")
    except ImportError:
        return None


def unit_rows(keys: npt.NDArray[np.int8]) -> Floats:
    """int8 keys [N, width] as unit vectors, float32 [N, width]; a key of zeros stays zero."""
    rows = keys.astype(np.float32)
    rows /= np.maximum(np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None], 1e-12)
    return rows


class KeyIndex:
    """Inverted lists over product-quantised unit keys. A search returns candidates, not results.

    There are about 2√N lists; a search probes the nearest 24th of them. A key takes a quarter of
    its width in bytes, and 8 bytes for its number. The lists are learned once. Later keys are added
    to them, and removed keys are skipped (faiss 1.15 mixes up codes that are added after
    `remove_ids`). So the caller makes a new index when `outgrown` says so. Equal keys give an equal
    index.

    Needs faiss: call `load_faiss` first.
    """

    def __init__(self, keys: npt.NDArray[np.int8]) -> None:
        """Learns the lists from keys [N, width] and takes them, numbered 0 to N - 1."""
        faiss = load_faiss()
        count, width = keys.shape
        lists = 2 << max(2, round(math.log2(math.sqrt(count))))
        parts = width // 2 if width % 2 == 0 else width
        index = faiss.index_factory(width, f"IVF{lists},PQ{parts}x4fs", faiss.METRIC_INNER_PRODUCT)
        index.cp.niter, index.cp.seed = _ROUNDS, _SEED
        index.cp.max_points_per_centroid = _TRAINING_ROWS
        index.nprobe = max(_LEAST_PROBED, lists // _PROBED)
        chosen = np.linspace(0, count - 1, min(count, lists * _TRAINING_ROWS)).astype(np.int64)
        index.train(unit_rows(keys[chosen]))
        self._index: Any = index
        self._learned = count
        self._live = np.zeros(0, np.uint8)  # one bit for each number, lowest bit first
        self._removed = 0
        self.add(keys)

    def __len__(self) -> int:
        return int(self._index.ntotal) - self._removed

    @property
    def size_bytes(self) -> int:
        """Bytes of the index as it would be written out."""
        return len(load_faiss().serialize_index(self._index)) + len(self._live)

    def outgrown(self, more: int) -> bool:
        """Whether the lists no longer fit the keys, once `more` keys are added.

        That is so when the keys are 1.5 times as many as the lists were learned from, or when three
        quarters of those are gone.
        """
        taken = int(self._index.ntotal) + more
        return bool(taken > _GROWTH * self._learned or 4 * (len(self) + more) < self._learned)

    def add(self, keys: npt.NDArray[np.int8]) -> Numbers:
        """Adds keys [N, width]; returns their numbers [N], larger than all before."""
        first = int(self._index.ntotal)
        last = first + len(keys)
        if last > 8 * len(self._live):
            grown = np.full(max(last // 8 + 1, 2 * len(self._live)), 0xFF, np.uint8)
            grown[: len(self._live)] = self._live
            self._live = grown
        for at in range(0, len(keys), _BLOCK_ROWS):
            self._index.add(unit_rows(keys[at : at + _BLOCK_ROWS]))
        return np.arange(first, last, dtype=np.int64)

    def remove(self, numbers: Numbers) -> None:
        """Skips these keys from now on; numbers [N] come from `add` and are not removed yet."""
        bits = np.left_shift(1, numbers & 7).astype(np.uint8)
        np.bitwise_and.at(self._live, numbers >> 3, ~bits)
        self._removed += len(numbers)

    def search(self, asked: Floats, reach: int) -> Numbers:
        """Numbers [B, reach] of keys that are likely nearest to unit vectors [B, width].

        -1 where the probed lists hold fewer keys.
        """
        options = None
        if self._removed:
            faiss = load_faiss()
            chosen = faiss.IDSelectorBitmap(self._live)
            options = faiss.SearchParametersIVF(sel=chosen, nprobe=self._index.nprobe)
        numbers: Numbers = self._index.search(asked, reach, params=options)[1]
        return numbers
