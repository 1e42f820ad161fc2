"""Text → features: the backbone's own states at one layer, optionally cached on disk.

Knows the backbone and files; knows no method.
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

    They never carry gradients. `cache` is a folder for float16 features. Texts are looked up by
    content, so several trainings can share one cache.
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
        complete = [row for row in rows if row is not None]
        lengths = [row.shape[0] for row in complete]
        where = complete[0].device
        padded = torch.zeros(len(texts), max(lengths), self.backbone.geometry.width, device=where)
        mask = torch.zeros(len(texts), max(lengths), dtype=torch.bool, device=where)
        for i, row in enumerate(complete):
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

    A row enters the index after its data is written, so a killed run leaves no row without data.
    Only one process may write at a time. Beyond `limit_bytes` of data nothing more is stored. The
    folder may be deleted at any time between two runs.
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
            elif tokens >= 0:  # -1: an earlier run noted that the row is lost
                self._index[key] = (offset, tokens)
        if not line.endswith("\n"):
            self._index_file.write("\n")
        for key in lost:  # later rows will take the place of the lost ones
            self._index_file.write(json.dumps([key, 0, -1]) + "\n")
        self._index_file.flush()

    @staticmethod
    def _key(text: str) -> str:
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()

    def get(self, key: str) -> Tensor | None:
        """The row stored under `key`, float16 [tokens, width], or None."""
        place = self._index.get(self._key(key))
        if place is None:
            return None
        offset, tokens = place
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
        """Stores float16 `row` [tokens, width].

        Skips a row with infinities, and one that the file's limit leaves no room for.
        """
        offset = self._data.seek(0, 2)
        if not np.isfinite(row).all() or offset + row.nbytes > self.limit_bytes:
            return
        self._data.write(np.ascontiguousarray(row).tobytes())
        self._data.flush()
        self._index[self._key(key)] = (offset, row.shape[0])
        self._index_file.write(json.dumps([self._key(key), offset, row.shape[0]]) + "\n")
        self._index_file.flush()
