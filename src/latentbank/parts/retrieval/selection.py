"""Which documents to read for a question: a lexical index over words, and dense keys.

Knows ids, words and vectors; knows no bank and no backbone.
"""

from __future__ import annotations

import math
import re
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from latentbank.parts.retrieval.key_index import KeyIndex, load_faiss

INDEX_FROM = 16_384  # documents; a flat search of so many 64-byte keys takes about 0.5 ms
_CANDIDATES = 64  # that the index names for a question, at least
LEAST_COLLECTION = 1000  # texts that a word's rarity is reckoned among, in a small index
_DEAD_ROWS = 1024  # removed keys that may stay in the matrix, or an eighth of all
WORD = re.compile(r"\w+")
# English function words: in nearly every text, so they tell documents apart by chance only
COMMON = frozenset(
    WORD.findall(
        "a an and are as at be been but by can did do for from had has have he her his how i if in "
        "into is it its not of on or she so than that the their them then there these they this to "
        "was we were what when where which who why will with would you"
    )
)


Selected = list[tuple[str, float]]  # documents of one question with their scores, best first


class LexicalIndex:
    """BM25 over document texts: SQLite's FTS5 with Porter stemming, in memory, incremental.

    Holds the inverted index only, not the texts.
    """

    def __init__(self) -> None:
        self._db = sqlite3.connect(":memory:", check_same_thread=False)
        self._db.execute(
            "CREATE VIRTUAL TABLE words USING fts5(text, content='', contentless_delete=1, "
            "tokenize='porter unicode61')"
            if sqlite3.sqlite_version_info >= (3, 43)
            else "CREATE VIRTUAL TABLE words USING fts5(text, tokenize='porter unicode61')"
        )
        self._ids: list[str] = []
        self._rows: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, ids: Sequence[str], texts: Sequence[str]) -> None:
        """Indexes documents; an id that is already there is left as it is."""
        rows = []
        for name, text in zip(ids, texts, strict=True):
            if name not in self._rows:
                self._ids.append(name)
                self._rows[name] = len(self._ids)
                rows.append((len(self._ids), text))
        self._db.executemany("INSERT INTO words(rowid, text) VALUES (?, ?)", rows)

    def remove(self, ids: Sequence[str]) -> None:
        """Removes documents; unknown ids are ignored."""
        rows = [(self._rows.pop(name),) for name in ids if name in self._rows]
        self._db.executemany("DELETE FROM words WHERE rowid = ?", rows)

    def search(self, question: str, top: int) -> list[tuple[str, float]]:
        """The `top` best (id, BM25 score), best first; fewer where fewer share a word.

        Function words count only in a question of nothing else.
        """
        words = _content(question)
        if not words or not self._rows:
            return []
        query = " OR ".join(f'"{word}"' for word in words)
        found = self._db.execute(
            "SELECT rowid, -bm25(words) FROM words WHERE words MATCH ? ORDER BY rank LIMIT ?",
            (query, top),
        )
        return [(self._ids[row - 1], float(score)) for row, score in found]

    def matches(self, question: str, ids: Sequence[str]) -> list[float]:
        """For each document the share of the question's words that it holds, each word weighing
        its inverse document frequency: 0 no word, 1 all. Unknown ids hold none.
        """
        size = max(len(self._rows), LEAST_COLLECTION)
        held, total = [0.0] * len(ids), 0.0
        for word in _content(question):
            (count,) = self._db.execute(
                "SELECT count(*) FROM words WHERE words MATCH ?", (f'"{word}"',)
            ).fetchone()
            weight = math.log(1 + (size - count + 0.5) / (count + 0.5))
            total += weight
            for i, name in enumerate(ids):
                if count and self._holds(word, name):
                    held[i] += weight
        return [one / total if total else 0.0 for one in held]

    def _holds(self, word: str, name: str) -> bool:
        found = self._db.execute(
            "SELECT 1 FROM words WHERE words MATCH ? AND rowid = ?",
            (f'"{word}"', self._rows.get(name, 0)),
        )
        return found.fetchone() is not None


def _content(question: str) -> list[str]:
    """The words that select, each once: without function words, unless there are no others."""
    asked = dict.fromkeys(word.lower() for word in WORD.findall(question))
    return [word for word in asked if word not in COMMON] or list(asked)


def supported(
    chosen: Sequence[Selected], matches: Sequence[Sequence[float]], least: float
) -> tuple[list[Selected], tuple[float, ...]]:
    """(what to read for each question, the best match of each): a question whose best document
    matches less than `least` reads nothing.
    """
    support = tuple(max(row, default=0.0) for row in matches)
    kept = [row if fit >= least else [] for row, fit in zip(chosen, support, strict=True)]
    return kept, support


def weighed(
    chosen: Selected, matches: Sequence[float], least: float, closed: float = 0.0
) -> Selected:
    """The documents of a question, best first, with the weight of an answer from each: how much of
    the question it holds, times the square of its score as a share of the best one's (LOG.md has
    the alternatives). Then, unless `closed` is 0, the model without memory (""), with that weight.
    Where no document holds `least`: the latter alone, with the weight of the best.
    """
    if not chosen or max(matches) < least:
        return [("", max(matches, default=0.0))]
    top = max(chosen[0][1], 1e-9)
    found = [
        (name, fit * min(1.0, max(score, 0.0) / top) ** 2)
        for (name, score), fit in zip(chosen, matches, strict=True)
    ]
    return [*found, ("", closed)] if closed else found


@dataclass(frozen=True)
class QuestionGain:
    """What an answer counts by how much likelier its document makes the question than no memory
    does: σ((gain − half) / scale), the gain and both settings in nats.

    Query likelihood (Ponte and Croft 1998) with the model that answers.
    """

    half: float
    scale: float

    @classmethod
    def of(cls, half: float, scale: float) -> QuestionGain | None:
        """None where `scale` is 0: answers count alike."""
        return cls(half, scale) if scale else None

    def weight(self, gain: float) -> float:
        """From 0 to 1; 0.5 at a gain of `half`."""
        return 0.5 + 0.5 * math.tanh((gain - self.half) / self.scale / 2)


def shares(row: Sequence[tuple[str, float]]) -> tuple[tuple[str, float], ...]:
    """Selection scores of one question as shares that sum to 1."""
    total = sum(max(score, 0.0) for _, score in row) or 1.0
    return tuple((name, max(score, 0.0) / total) for name, score in row)


class DenseSelector(nn.Module):
    """Two linear attention-pooling encoders, questions and documents → unit keys [B, key_width].

    Trained with an in-batch contrastive loss plus a queue of earlier document keys as negatives;
    `queue` 0 keeps to the batch.
    """

    def __init__(self, width: int, key_width: int = 128, queue: int = 2048) -> None:
        super().__init__()
        self.score = nn.ModuleList([nn.Linear(width, 1) for _ in range(2)])
        self.project = nn.ModuleList([nn.Linear(width, key_width, bias=False) for _ in range(2)])
        # equal at the start: the two sides then compare like with like from the first step
        self.score[1].load_state_dict(self.score[0].state_dict())
        self.project[1].load_state_dict(self.project[0].state_dict())
        self.log_scale = nn.Parameter(torch.tensor(3.0))
        self.queue_size = queue
        self._queue: Tensor | None = None

    def _keys(self, side: int, states: Tensor, mask: Tensor) -> Tensor:
        score = self.score[side](states).squeeze(-1)
        score = score.masked_fill(~mask, torch.finfo(score.dtype).min)
        weight = torch.softmax(score, 1) * mask  # no tokens, no key: zero and not NaN
        pooled = (weight[..., None] * states).sum(1)
        return nn.functional.normalize(self.project[side](pooled), dim=-1)

    def questions(self, states: Tensor, mask: Tensor) -> Tensor:
        """Unit keys [B, K] of standardised question states [B, T, D], without the start token."""
        return self._keys(0, states, mask)

    def documents(self, states: Tensor, mask: Tensor) -> Tensor:
        """Unit keys [B, K] of standardised document states [B, T, D]."""
        return self._keys(1, states, mask)

    def loss(self, asked: Tensor, stored: Tensor, owner: Tensor) -> Tensor:
        """Contrastive loss of question keys [Q, K] against document keys [D, K]; owner [Q]."""
        keys = stored if self._queue is None else torch.cat([stored, self._queue])
        loss = nn.functional.cross_entropy(asked @ keys.T * self.log_scale.exp(), owner)
        if self.training:
            kept = (
                stored.detach()
                if self._queue is None
                else torch.cat([stored.detach(), self._queue])
            )
            self._queue = kept[: self.queue_size]
        return loss

    @property
    def queue(self) -> Tensor | None:
        """Keys [N, K] of earlier documents, newest first: what a resumed run continues with."""
        return self._queue

    @queue.setter
    def queue(self, keys: Tensor) -> None:
        self._queue = keys.to(self.log_scale.device)


class DenseKeys:
    """int8 document keys and their search by cosine.

    A key costs `width` bytes: unit vectors are scaled by 127 / max. Up to `INDEX_FROM` documents,
    or where faiss (the extra `scale`) is not installed, a search is one matrix product over all
    keys and exact. Beyond, an index names candidates, whose cosines are then the exact ones; it is
    made at the first search, in memory.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self._ids: list[str] = []
        self._place: dict[str, int] = {}
        self._keys = np.zeros((0, width), np.int8)  # with room for more; the first len(_ids) count
        self._matrix: Tensor | None = None
        self._dead: set[int] = set()  # rows whose documents were removed
        self._index: KeyIndex | None = None
        self._numbers = np.zeros(0, np.int64)  # of the first rows in the index, ascending
        self._indexed = 0  # how many rows that are

    @staticmethod
    def encode(keys: Tensor) -> list[bytes]:
        """int8 bytes of unit keys [B, width]."""
        scaled = keys / keys.abs().amax(1, keepdim=True).clamp_min(1e-6) * 127
        return [row.tobytes() for row in scaled.round().to(torch.int8).cpu().numpy()]

    def add(self, ids: Sequence[str], keys: Sequence[bytes]) -> None:
        """Adds documents; the caller sees to it that ids are new."""
        if ids:
            first, last = len(self._ids), len(self._ids) + len(ids)
            if last > len(self._keys):
                larger = np.zeros((max(last, 2 * len(self._keys)), self.width), np.int8)
                larger[:first] = self._keys[:first]
                self._keys = larger
            self._keys[first:last] = np.frombuffer(b"".join(keys), np.int8).reshape(-1, self.width)
            self._place.update(zip(ids, range(first, last), strict=True))
            self._ids.extend(ids)
            self._matrix = None

    def remove(self, ids: Sequence[str]) -> None:
        """Removes documents; unknown ids are ignored. Their rows are freed now and then, so that
        a removal costs nothing like the whole matrix.
        """
        gone = [row for name in ids if (row := self._place.pop(name, None)) is not None]
        self._dead.update(gone)
        self._pass_over(gone)
        if len(self._dead) > max(_DEAD_ROWS, len(self._ids) // 8):
            self._free()

    def _free(self) -> None:
        """Gives up the rows of removed documents."""
        kept = np.ones(len(self._ids), bool)
        kept[list(self._dead)] = False
        stays = kept[: self._indexed]
        self._numbers, self._indexed = self._numbers[: self._indexed][stays], int(stays.sum())
        self._keys = self._keys[: len(self._ids)][kept]
        self._ids = [name for name, stays in zip(self._ids, kept, strict=True) if stays]
        self._place = {name: row for row, name in enumerate(self._ids)}
        self._matrix, self._dead = None, set()

    def __len__(self) -> int:
        return len(self._place)

    def search(self, asked: Tensor, top: int) -> list[list[tuple[str, float]]]:
        """For each question key [B, width] the `top` (id, cosine), best first."""
        if not self._place:
            return [[] for _ in range(len(asked))]
        asked, top = asked.detach().float().cpu(), min(top, len(self._place))
        found = self._candidates(asked, max(_CANDIDATES, 4 * top))
        if found is None or bool(((found >= 0).sum(1) < top).any()):
            return self._search_all(asked, top)
        rows = torch.from_numpy(found)
        scores = torch.einsum("bcw,bw->bc", self._unit_keys(found), asked)
        best = scores.masked_fill(rows < 0, -torch.inf).topk(top, dim=1)
        return self._named(rows.gather(1, best.indices), best.values)

    def cosines(self, asked: Tensor, rows: Sequence[Sequence[str]]) -> list[list[float]]:
        """The cosines of question keys [B, width] with the documents named for each."""
        asked = asked.detach().float().cpu()
        places = [np.array([self._place[name] for name in row], np.int64) for row in rows]
        return [(self._unit_keys(at) @ asked[i]).tolist() for i, at in enumerate(places)]

    def _search_all(self, asked: Tensor, top: int) -> list[list[tuple[str, float]]]:
        """The exact search: all cosines of question keys [B, width]."""
        if self._matrix is None:
            self._matrix = self._unit_keys(np.arange(len(self._ids)))
        scores = asked @ self._matrix.T
        if self._dead:
            scores[:, list(self._dead)] = -torch.inf
        best = scores.topk(top, dim=1)
        return self._named(best.indices, best.values)

    def _named(self, rows: Tensor, scores: Tensor) -> list[list[tuple[str, float]]]:
        pairs = zip(rows.tolist(), scores.tolist(), strict=True)
        return [
            [(self._ids[i], float(s)) for i, s in zip(row, values, strict=True)]
            for row, values in pairs
        ]

    def _candidates(self, asked: Tensor, reach: int) -> npt.NDArray[np.int64] | None:
        """Rows [B, reach] that the index finds, -1 for none; None without an index."""
        if len(self._place) < INDEX_FROM or load_faiss() is None:
            return None
        more = len(self._ids) - self._indexed
        if self._index is None or self._index.outgrown(more):
            self._index, self._indexed = None, 0
            self._free()
            self._index = KeyIndex(self._keys[: len(self._ids)])
            self._numbers = np.arange(len(self._ids), dtype=np.int64)
            self._indexed = len(self._ids)
        elif more:
            self._catch_up(self._index)
        numbers = self._index.search(asked.numpy(), reach)
        rows = np.searchsorted(self._numbers[: self._indexed], numbers)
        return np.where(numbers < 0, -1, rows)

    def _catch_up(self, index: KeyIndex) -> None:
        """Puts the rows into the index that came since."""
        known, count = self._indexed, len(self._ids)
        if count > len(self._numbers):
            larger = np.zeros(len(self._keys), np.int64)
            larger[:known] = self._numbers[:known]
            self._numbers = larger
        self._numbers[known:count] = index.add(self._keys[known:count])
        self._indexed = count
        self._pass_over([row for row in self._dead if row >= known])

    def _pass_over(self, rows: Sequence[int]) -> None:
        """Tells the index of rows that are dead, as far as it has them."""
        known = [row for row in rows if row < self._indexed]
        if self._index is not None and known:
            self._index.remove(self._numbers[known])

    def _unit_keys(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """Unit keys [..., width] of rows [...], float32."""
        chosen = torch.from_numpy(self._keys[rows].astype(np.float32))
        return nn.functional.normalize(chosen, dim=-1)
