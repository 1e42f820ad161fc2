"""Token ids to bytes by the predictions of a language model, and back.

Delétang et al., "Language Modeling Is Compression", 2023 (https://arxiv.org/abs/2309.10668): the
better a model predicts a text, the fewer bytes it takes. Encoding runs the model once over a text.
Decoding runs it token by token, for many texts side by side. Every text begins after the start
token; a long text begins again at each window. A cache holds the predictions of recent texts, so
that coding their leading part needs no model. Knows token ids; knows no text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from latentbank.codec import rans
from latentbank.errors import BankError

__all__ = ["NextTokenModel", "TokenPredictions"]

IntArray = npt.NDArray[np.int64]

_TOGETHER, _PLACES = 64, 1 << 14  # texts decoded side by side, and tokens of all of them
_ROWS = 64  # distributions held at once
_KNOWN_TOKENS = 1 << 19  # size of the cache of predictions in tokens, about 50 bytes each
_HEAD = 16  # first tokens of a text, its key in the cache


class NextTokenModel(Protocol):
    """A model whose results do not depend on how its work is batched; see `IntegerLM`."""

    vocabulary: int
    context: int

    def cache(self) -> Any:
        """An empty cache; its `keep(rows)` drops all other rows."""
        ...

    def feed(self, ids: Tensor, cache: Any) -> Tensor:
        """States [B, T, width] of ids [B, T] that follow what the cache holds; adds them to it."""
        ...

    def masses(self, states: Tensor, total: int) -> Tensor:
        """Whole numbers [N, V] of states [N, width]: each at least 1, with sums up to `total`."""
        ...


class TokenPredictions:
    """The `TokenModel` of a language model. `start`, the id before every text, is not coded."""

    def __init__(self, model: NextTokenModel, start: int) -> None:
        self.vocabulary = model.vocabulary
        self._model, self._start = model, start
        self._known: dict[tuple[int, ...], tuple[list[int], IntArray]] = {}
        self._known_tokens = 0

    def most_tokens(self, size_bytes: int) -> int:
        """The most tokens that so many bytes may hold."""
        return min(1 << 12, 16 * (size_bytes + 1))

    def encode(self, texts: Sequence[Sequence[int]]) -> list[bytes]:
        """Bytes of each text of token ids below the vocabulary."""
        streams = []
        for text in texts:
            lower, width = self._intervals(list(text))
            streams += rans.encode(lower[None], width[None], [len(text)])
        return streams

    def _intervals(self, text: list[int]) -> IntArray:
        """(lower, width) [2, T] of the tokens of a text."""
        head = tuple(text[:_HEAD])
        longer, intervals = self._known.get(head, ([], np.zeros((2, 0), np.int64)))
        if text != longer[: len(text)]:
            parts = [
                self._window(text[at : at + self._model.context])
                for at in range(0, len(text), self._model.context)
            ]
            intervals = np.concatenate(parts, 1)
            self._remember(head, text, intervals)
        return intervals[:, : len(text)]

    def _remember(self, head: tuple[int, ...], text: list[int], intervals: IntArray) -> None:
        self._known_tokens += len(text) - len(self._known.pop(head, ([],))[0])
        self._known[head] = text, intervals
        while self._known_tokens > _KNOWN_TOKENS:
            self._known_tokens -= len(self._known.pop(next(iter(self._known)))[0])

    def _window(self, text: Sequence[int]) -> IntArray:
        """(lower, width) [2, T] of the tokens of one window."""
        ids = torch.tensor([[self._start, *text[:-1]]])
        states, tokens = self._model.feed(ids, self._model.cache())[0], torch.tensor(text)
        windows = []
        for part, token in zip(torch.split(states, _ROWS), torch.split(tokens, _ROWS), strict=True):
            masses = self._model.masses(part, rans.TOTAL - 1)
            width = masses.gather(1, token[:, None])[:, 0]
            upper = masses.cumsum(1).gather(1, token[:, None])[:, 0]
            windows.append(torch.stack([1 + upper - width, width]).long().numpy())
        intervals: IntArray = np.concatenate(windows, 1)
        return intervals

    def decode(self, streams: Sequence[bytes]) -> list[list[int]]:
        """Token ids of each stream; raises BankError where the bytes are damaged."""
        texts: list[list[int]] = []
        at = 0
        while at < len(streams):
            # Most texts have fewer than two tokens for each byte.
            longest = max(len(data) for data in streams[at : at + _TOGETHER])
            places = max(1, min(2 * longest, self._model.context))
            count = max(1, min(_TOGETHER, _PLACES // places))
            texts += self._decode(streams[at : at + count])
            at += count
        return texts

    def _decode(self, streams: Sequence[bytes]) -> list[list[int]]:
        source = rans.Decoder(streams)
        limits = [self.most_tokens(len(data)) for data in streams]
        texts: list[list[int]] = [[] for _ in streams]
        rows = held = source.unfinished()  # `held` are in the cache, including finished ones
        cache: Any = None
        step = 0
        while len(rows):
            if step % self._model.context == 0:
                held, cache = rows, self._model.cache()
                last = [self._start] * len(held)
            else:
                if 2 * len(rows) <= len(held):
                    cache.keep(torch.from_numpy(np.searchsorted(held, rows)))
                    held = rows
                last = [texts[row][-1] for row in held.tolist()]
            states = self._model.feed(torch.tensor(last)[:, None], cache)[:, 0]
            here = torch.from_numpy(np.searchsorted(held, rows))
            masses = self._model.masses(states[here], rans.TOTAL - 1)
            ends = masses.cumsum(1).long().numpy()
            lower, width, tokens = self._find(ends, source.points(rows))
            if any(step >= limits[row] for row in rows.tolist()):
                raise BankError("A stored text is damaged: it holds too many tokens for its bytes.")
            source.advance(rows, lower, width)
            for row, token in zip(rows.tolist(), tokens, strict=True):
                texts[row].append(token)
            step += 1
            rows = source.unfinished()
        return texts

    def _find(self, ends: IntArray, points: IntArray) -> tuple[IntArray, IntArray, list[int]]:
        """(lower, width, token) of the intervals that hold `points` [N].

        `ends` [N, V] are the cumulative sums of the masses.
        """
        tokens = [
            int(np.searchsorted(row, point - 1, side="right"))
            for row, point in zip(ends, points.tolist(), strict=True)
        ]
        if (points < 1).any() or max(tokens) >= self.vocabulary:
            raise BankError("A stored text is damaged: it holds an unknown token.")
        at = np.arange(len(tokens))
        upper = 1 + ends[at, tokens]
        lower = np.where(np.array(tokens) > 0, 1 + ends[at, np.maximum(tokens, 1) - 1], 1)
        return lower, upper - lower, tokens
