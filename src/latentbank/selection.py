"""Which documents to read for a question: a lexical index over words, and dense keys.

Knows ids, words and vectors; knows no bank and no backbone.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

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
        asked = dict.fromkeys(word.lower() for word in WORD.findall(question))
        words = [word for word in asked if word not in COMMON] or list(asked)
        if not words or not self._rows:
            return []
        query = " OR ".join(f'"{word}"' for word in words)
        found = self._db.execute(
            "SELECT rowid, -bm25(words) FROM words WHERE words MATCH ? ORDER BY rank LIMIT ?",
            (query, top),
        )
        return [(self._ids[row - 1], float(score)) for row, score in found]


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
    """int8 document keys and their search: one matrix product per batch of questions.

    A key costs `width` bytes: unit vectors are scaled by 127 / max and compared by cosine.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self._ids: list[str] = []
        self._place: dict[str, int] = {}
        self._blocks: list[np.ndarray] = []
        self._matrix: Tensor | None = None
        self._dead: set[int] = set()  # rows whose documents were removed

    @staticmethod
    def encode(keys: Tensor) -> list[bytes]:
        """int8 bytes of unit keys [B, width]."""
        scaled = keys / keys.abs().amax(1, keepdim=True).clamp_min(1e-6) * 127
        return [row.tobytes() for row in scaled.round().to(torch.int8).cpu().numpy()]

    def add(self, ids: Sequence[str], keys: Sequence[bytes]) -> None:
        """Adds documents; the caller sees to it that ids are new."""
        if ids:
            self._place.update(
                zip(ids, range(len(self._ids), len(self._ids) + len(ids)), strict=True)
            )
            self._ids.extend(ids)
            self._blocks.append(np.frombuffer(b"".join(keys), np.int8).reshape(-1, self.width))
            self._matrix = None

    def remove(self, ids: Sequence[str]) -> None:
        """Removes documents; unknown ids are ignored. Their rows are freed now and then, so that
        a removal costs nothing like the whole matrix.
        """
        gone = [row for name in ids if (row := self._place.pop(name, None)) is not None]
        self._dead.update(gone)
        if len(self._dead) > max(_DEAD_ROWS, len(self._ids) // 8):
            kept = np.array([row not in self._dead for row in range(len(self._ids))], bool)
            block = np.concatenate(self._blocks)[kept]
            self._ids = [name for name, stays in zip(self._ids, kept, strict=True) if stays]
            self._place = {name: row for row, name in enumerate(self._ids)}
            self._blocks, self._matrix, self._dead = [block], None, set()

    def __len__(self) -> int:
        return len(self._place)

    def search(self, asked: Tensor, top: int) -> list[list[tuple[str, float]]]:
        """For each question key [B, width] the `top` (id, cosine), best first."""
        if not self._place:
            return [[] for _ in range(len(asked))]
        scores = asked.float().cpu() @ self._unit_keys().T
        if self._dead:
            scores[:, list(self._dead)] = -torch.inf
        best = scores.topk(min(top, len(self._place)), dim=1)
        return [
            [(self._ids[i], float(s)) for i, s in zip(row, values, strict=True)]
            for row, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def cosines(self, asked: Tensor, rows: Sequence[Sequence[str]]) -> list[list[float]]:
        """The cosines of question keys [B, width] with the documents named for each."""
        keys, asked = self._unit_keys(), asked.float().cpu()
        return [
            (keys[[self._place[name] for name in row]] @ asked[i]).tolist() if row else []
            for i, row in enumerate(rows)
        ]

    def _unit_keys(self) -> Tensor:
        """Unit keys [N, width] of all documents, float32."""
        if self._matrix is None:
            block = np.concatenate(self._blocks or [np.zeros((0, self.width), np.int8)])
            self._blocks = [block]
            self._matrix = nn.functional.normalize(torch.from_numpy(block.astype(np.float32)))
        return self._matrix
