"""Entries that hold pooled states: how they are made and read.

A payload is a sketch of the text's words, then float16 states [k, D] in standardised units; the key
is the text's dense key. Knows states, pooling and keys; knows no bank and no backbone.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
import torch
from torch import Tensor

from latentbank.bank import Entry
from latentbank.codec import array_codec
from latentbank.documents.document import Document
from latentbank.errors import BankError
from latentbank.parts.batch import Batch
from latentbank.parts.pooling import SegmentPooler
from latentbank.parts.retrieval.dense import DenseKeys, DenseSelector
from latentbank.parts.retrieval.sketch import join_sketch, sketches, split_sketch

__all__ = ["PooledEntries"]

_ENCODED_TOGETHER = 16  # documents


class PooledEntries:
    """Makes entries of documents, and reads them again."""

    def __init__(
        self,
        standard_states: Callable[[Sequence[str]], tuple[Tensor, Tensor]],
        pooler: SegmentPooler,
        selector: DenseSelector,
        width: int,
    ) -> None:
        """`standard_states` gives (states [B, T, D], mask [B, T]) of texts; `width` is D."""
        self._states, self._pooler, self._selector = standard_states, pooler, selector
        self._width = width

    @torch.no_grad()
    def encode(self, documents: Sequence[Document], level: str, segments: int) -> list[Entry]:
        """An entry of up to `segments` states for each document."""
        words = dict(
            zip((d.id for d in documents), sketches([d.text for d in documents]), strict=True)
        )
        entries: dict[str, Entry] = {}
        order = sorted(documents, key=lambda d: len(d.text))
        for at in range(0, len(order), _ENCODED_TOGETHER):
            part = order[at : at + _ENCODED_TOGETHER]
            states, mask = self._states([d.text for d in part])
            keys = DenseKeys.encode(self._selector.documents(states, mask))
            pooled, kept = self._pooler(states, mask, segments)
            for i, d in enumerate(part):
                body = pooled[i, kept[i]].half().cpu().numpy().tobytes()
                entries[d.id] = Entry.of(d, level, join_sketch(words[d.id], body), keys[i])
        return [entries[d.id] for d in documents]

    def matching(self, batch: Batch, states: Tensor, mask: Tensor) -> Tensor:
        """Contrastive loss of the keys, from the documents' standardised states [D, T, .]."""
        with torch.no_grad():
            asked = self._states(batch.questions)
        return self._selector.loss(
            self._selector.questions(*asked),
            self._selector.documents(states, mask),
            torch.tensor(batch.owner, device=states.device),
        )

    @staticmethod
    def content(entry: Entry) -> frozenset[Hashable]:
        """The hashes of its text's words, as its sketch holds them."""
        return frozenset(np.frombuffer(split_sketch(entry.payload)[0], "<u2").tolist())

    def decode(self, entry: Entry, key_width: int) -> tuple[bytes, Tensor]:
        """(sketch, standardised states [k, D]) of an entry; BankError if it is none."""
        sketch, body = split_sketch(entry.payload)
        if len(entry.key) != key_width:
            raise BankError(f"A key of {len(entry.key)} bytes is none of this adapter's.")
        return sketch, torch.from_numpy(array_codec("float16").decode(body, self._width))
