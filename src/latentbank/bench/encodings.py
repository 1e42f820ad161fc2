"""Documents encoded once for all rows, budgets and phases of a bench.

Files keep what `BackboneEncoder` computed, by layer and exact batch of texts. The same batch is
read back bit for bit, so that results do not depend on it. Payloads of texts that the backbone's
predictions coded are kept too. Knows the encoder and the codecs of texts; knows no protocol.
"""

from __future__ import annotations

import functools
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentbank.backbone.encoder import BackboneEncoder
from latentbank.capabilities import Encoding
from latentbank.codec.token_text import TokenTextCodec
from latentbank.method import Method
from latentbank.parts.text_levels import TextLevels

LIMIT_BYTES = 4 << 30


@dataclass(frozen=True)
class _Kept:
    """Where a batch lies: its file, shape and lengths, and how long computing it took."""

    path: Path
    shape: tuple[int, ...]
    lengths: tuple[int, ...]
    seconds: float


class SharedEncodings:
    """States of batches that were encoded already, for one backbone.

    `folder` takes at most `limit_bytes` of files; what comes after that is not kept.
    `saved_seconds` is the time that reading back has saved. Sessions add it to the time of a write,
    so that its speed is that of a write that encodes.
    """

    def __init__(self, folder: Path, limit_bytes: int = LIMIT_BYTES) -> None:
        self.folder, self.limit_bytes = folder, limit_bytes
        self.saved_seconds = 0.0
        self.bytes = 0
        self._kept: dict[str, _Kept] = {}
        self._coded: dict[str, tuple[bytes, float]] = {}

    @contextmanager
    def lent_to(self, method: Method) -> Iterator[None]:
        """Within the block the method's encoder and its codec by predictions take from here.

        Encoders of other kinds stay as they are.
        """
        with self._states_lent_to(method), self._texts_lent_to(getattr(method, "texts", None)):
            yield

    @contextmanager
    def _texts_lent_to(self, levels: Any) -> Iterator[None]:
        if not isinstance(levels, TextLevels):
            yield
            return
        own = levels.__dict__.pop("predictor", None)
        levels.predictor = _Predictor(levels, self)
        try:
            yield
        finally:
            del levels.predictor  # made anew when asked for
            if own is not None:
                levels.predictor = own

    def coded(self, codec: Callable[[], TokenTextCodec], texts: Sequence[str]) -> list[bytes]:
        """Payloads of texts, coded now or before."""
        for text in texts:
            began = time.perf_counter()
            if text not in self._coded:
                payload = codec().encode(text)
                self._coded[text] = payload, time.perf_counter() - began
            else:
                self.saved_seconds += self._coded[text][1]
        return [self._coded[text][0] for text in texts]

    @contextmanager
    def _states_lent_to(self, method: Method) -> Iterator[None]:
        if not isinstance(method, Encoding):
            yield
            return
        own = method.encoder
        if type(own) is not BackboneEncoder or own.cache is not None:
            yield
            return
        method.encoder = _Encoder(own, self)
        try:
            yield
        finally:
            method.encoder = own

    def get(self, encoder: BackboneEncoder, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(states [B, T, D] float32, mask [B, T] bool), read back or computed and kept."""
        key = _key(encoder.layer, texts)
        began = time.perf_counter()
        row = self._kept.get(key)
        if row is not None:
            states = torch.from_numpy(np.fromfile(row.path, np.float32).reshape(row.shape))
            places = torch.arange(row.shape[1])
            mask = places[None] < torch.tensor(row.lengths)[:, None]
            device = encoder.backbone.device
            result = states.to(device), mask.to(device)
            self.saved_seconds += row.seconds - (time.perf_counter() - began)
            return result
        states, mask = BackboneEncoder.features(encoder, texts)
        self._keep(key, states, mask, time.perf_counter() - began)
        return states, mask

    def _keep(self, key: str, states: Tensor, mask: Tensor, seconds: float) -> None:
        """Writes a batch to a file if there is room and the padding is on the right."""
        lengths = mask.sum(1)
        right = torch.arange(mask.shape[1], device=mask.device)[None] < lengths[:, None]
        size = states.numel() * 4
        if self.bytes + size > self.limit_bytes or not torch.equal(mask, right):
            return
        path = self.folder / f"{key}.f32"
        states.detach().cpu().numpy().tofile(path)
        self.bytes += size
        self._kept[key] = _Kept(path, tuple(states.shape), tuple(lengths.tolist()), seconds)


class _Encoder(BackboneEncoder):
    """An encoder that takes states from the shared encodings."""

    def __init__(self, own: BackboneEncoder, shared: SharedEncodings) -> None:
        super().__init__(own.backbone, own.layer)
        self._own, self._shared = own, shared

    def features(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """See `BackboneEncoder`."""
        return self._shared.get(self._own, texts)


class _Predictor(TokenTextCodec):
    """A codec by predictions that takes payloads from the shared encodings."""

    def __init__(self, levels: TextLevels, shared: SharedEncodings) -> None:
        self._own, self._shared = functools.cache(levels.make_predictor), shared

    def encode_all(self, texts: Sequence[str]) -> list[bytes]:
        """See `TokenTextCodec`."""
        return self._shared.coded(self._own, texts)

    def decode_all(self, payloads: Sequence[bytes]) -> list[str]:
        """See `TokenTextCodec`."""
        return self._own().decode_all(payloads)


def _key(layer: int, texts: Sequence[str]) -> str:
    """The same for the same layer and texts in the same order."""
    text = json.dumps([layer, *texts])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
