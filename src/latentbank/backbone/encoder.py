"""Text → features: the backbone's own states at one layer, cached on disk when asked.

Knows the backbone and files; knows nothing about what a method does with the features.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from latentbank.backbone.model import Backbone

CACHE_BYTES = 8 << 30  # of states on disk; SQuAD's split `train` takes about 7 GB at width 576


class BackboneEncoder:
    """States that enter layer `layer` of the frozen backbone, for texts with a start token.

    Without gradients always. `cache` is a folder for float16 features, filled as texts are met; a
    text is looked up by content, so several trainings share one cache.
    """

    def __init__(self, backbone: Backbone, layer: int, cache: Path | None = None) -> None:
        self.backbone, self.layer = backbone, layer
        self.cache: StateCache | None = None
        if cache is not None:
            self.cache = FeatureCache(cache, backbone.geometry.width)
        self._prefix = f"{backbone.fingerprint}/{layer}/"

    def features(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(states [B, T, D] float32, mask [B, T] bool), right-padded; the start token is first."""
        if self.cache is None:
            return self._compute(texts)
        keys = [self._prefix + text for text in texts]
        rows = [self.cache.get(key) for key in keys]
        missing = [i for i, row in enumerate(rows) if row is None]
        if missing:
            states, mask = self._compute([texts[i] for i in missing])
            for at, i in enumerate(missing):
                rows[i] = self.cache.keep(keys[i], states[at, mask[at]])
        found = [row for row in rows if row is not None]
        lengths = [row.shape[0] for row in found]
        where = found[0].device
        padded = torch.zeros(len(texts), max(lengths), self.backbone.geometry.width, device=where)
        mask = torch.zeros(len(texts), max(lengths), dtype=torch.bool, device=where)
        for i, row in enumerate(found):
            padded[i, : lengths[i]] = row.float()
            mask[i, : lengths[i]] = True
        return padded.to(self.backbone.device), mask.to(self.backbone.device)

    def _compute(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        ids, mask = self.backbone.pad(self.backbone.encode(texts))
        return self.backbone.states(ids, mask, self.layer).float(), mask


class StateCache(Protocol):
    """Keeps float16 rows [tokens, width] by key."""

    def get(self, key: str) -> Tensor | None:
        """The row stored under `key`, or None."""

    def keep(self, key: str, row: Tensor) -> Tensor:
        """Stores `row` and returns what `get` will give; `row` itself beyond float16's range."""


class MemoryCache:
    """Rows in the memory of the device that computes them; gone with the process."""

    def __init__(self) -> None:
        self._rows: dict[str, Tensor] = {}

    def get(self, key: str) -> Tensor | None:
        """The row stored under `key`, or None."""
        return self._rows.get(key)

    def keep(self, key: str, row: Tensor) -> Tensor:
        """Stores `row` as float16 and returns that; `row` itself beyond float16's range."""
        half = row.half()
        if not bool(half.isfinite().all()):
            return row
        self._rows[key] = half
        return half


class FeatureCache:
    """Append-only float16 rows [tokens, width] on disk: one data file, one index of json lines.

    A row is listed in the index after its data is written, so that a killed run leaves no row that
    points at nothing. Not for several writers at once. Beyond `limit_bytes` of data nothing more is
    stored; the folder may be deleted at any time between two runs.
    """

    def __init__(self, folder: Path, width: int, limit_bytes: int = CACHE_BYTES) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.width, self.limit_bytes = width, limit_bytes
        self._data = (folder / f"features-{width}.f16").open("ab+")
        self._index_file = (folder / f"features-{width}.jsonl").open("a+")
        self._index: dict[str, tuple[int, int]] = {}
        size = self._data.seek(0, 2)
        self._index_file.seek(0)
        line = "\n"
        lost: set[str] = set()
        for line in self._index_file:
            try:
                key, offset, tokens = json.loads(line)
            except ValueError:  # the last line of a killed run
                continue
            self._index.pop(key, None)
            lost.discard(key)
            if offset + tokens * width * 2 > size:
                lost.add(key)
            elif tokens >= 0:  # -1: an earlier run has found it lost
                self._index[key] = (offset, tokens)
        if not line.endswith("\n"):
            self._index_file.write("\n")
        for key in lost:  # later rows will lie where the lost ones were: take back what was said
            self._index_file.write(json.dumps([key, 0, -1]) + "\n")
        self._index_file.flush()

    @staticmethod
    def _key(text: str) -> str:
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()

    def get(self, key: str) -> Tensor | None:
        """The row stored under `key`, float16 [tokens, width], or None."""
        found = self._index.get(self._key(key))
        if found is None:
            return None
        offset, tokens = found
        self._data.seek(offset)
        raw = self._data.read(tokens * self.width * 2)
        return torch.from_numpy(np.frombuffer(raw, np.float16).reshape(tokens, self.width).copy())

    def keep(self, key: str, row: Tensor) -> Tensor:
        """Stores `row` as float16 and returns that; `row` itself beyond float16's range."""
        whole = row.detach().cpu()
        half = whole.half()
        self.put(key, half.numpy())
        return half if bool(half.isfinite().all()) else whole

    def put(self, key: str, row: np.ndarray) -> None:
        """Stores float16 `row` [tokens, width]; a row beyond float16's range, or beyond the limit
        of the file, is left out.
        """
        offset = self._data.seek(0, 2)
        if not np.isfinite(row).all() or offset + row.nbytes > self.limit_bytes:
            return
        self._data.write(np.ascontiguousarray(row).tobytes())
        self._data.flush()
        self._index[self._key(key)] = (offset, row.shape[0])
        self._index_file.write(json.dumps([self._key(key), offset, row.shape[0]]) + "\n")
        self._index_file.flush()
