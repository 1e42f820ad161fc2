"""Dense keys: the network that makes them, and their search by cosine.

Knows ids and vectors; knows no bank, no backbone and no words.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from latentbank.parts.retrieval.key_index import KeyIndex, load_faiss
from latentbank.parts.retrieval.lexical import Ranking

__all__ = ["INDEX_FROM", "DenseKeys", "DenseSelector"]

INDEX_FROM = 16_384  # documents; a flat search of so many 64-byte keys takes about 0.5 ms
_CANDIDATES = 64  # least number of rows that the index returns for a question
_DEAD_ROWS = 1024  # removed keys that may stay in the matrix, or an eighth of all


class DenseSelector(nn.Module):
    """Two linear attention-pooling encoders, questions and documents → unit keys [B, key_width].

    Trained with an in-batch contrastive loss. A queue of earlier document keys gives further
    negatives; with `queue` 0 there are only those of the batch.
    """

    def __init__(self, width: int, key_width: int = 128, queue: int = 2048) -> None:
        super().__init__()
        self.score = nn.ModuleList([nn.Linear(width, 1) for _ in range(2)])
        self.project = nn.ModuleList([nn.Linear(width, key_width, bias=False) for _ in range(2)])
        # Both sides start equal, so that a dot product is a similarity from the first step.
        self.score[1].load_state_dict(self.score[0].state_dict())
        self.project[1].load_state_dict(self.project[0].state_dict())
        self.log_scale = nn.Parameter(torch.tensor(3.0))
        self.queue_size = queue
        self._queue: Tensor | None = None

    def _keys(self, side: int, states: Tensor, mask: Tensor) -> Tensor:
        score = self.score[side](states).squeeze(-1)
        score = score.masked_fill(~mask, torch.finfo(score.dtype).min)
        weight = torch.softmax(score, 1) * mask  # without tokens the key is zero, not NaN
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
        """Keys [N, K] of earlier documents, newest first; a resumed run needs them."""
        return self._queue

    @queue.setter
    def queue(self, keys: Tensor) -> None:
        self._queue = keys.to(self.log_scale.device)


class DenseKeys:
    """int8 document keys and their search by cosine.

    A key costs `width` bytes: unit vectors are scaled by 127 / max. Up to `INDEX_FROM` documents,
    or without faiss (the extra `scale`), a search is one exact matrix product over all keys. Beyond
    that an index in memory names candidates, and their cosines are exact. It is built at the first
    search.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self._ids: list[str] = []
        self._place: dict[str, int] = {}
        self._keys = np.zeros((0, width), np.int8)  # spare rows follow the first len(_ids)
        self._matrix: Tensor | None = None
        self._dead: set[int] = set()  # rows whose documents were removed
        self._index: KeyIndex | None = None
        self._numbers = np.zeros(0, np.int64)  # the index's numbers of the first rows, ascending
        self._indexed = 0  # how many rows the index holds

    @staticmethod
    def encode(keys: Tensor) -> list[bytes]:
        """int8 bytes of unit keys [B, width]."""
        scaled = keys / keys.abs().amax(1, keepdim=True).clamp_min(1e-6) * 127
        return [row.tobytes() for row in scaled.round().to(torch.int8).cpu().numpy()]

    def add(self, ids: Sequence[str], keys: Sequence[bytes]) -> None:
        """Adds documents; the ids must be new."""
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
        """Removes documents; unknown ids are ignored.

        Rows are freed only when many are dead, because freeing copies the whole matrix.
        """
        gone = [row for id in ids if (row := self._place.pop(id, None)) is not None]
        self._dead.update(gone)
        self._pass_over(gone)
        if len(self._dead) > max(_DEAD_ROWS, len(self._ids) // 8):
            self._free()

    def _free(self) -> None:
        """Frees the rows of removed documents."""
        kept = np.ones(len(self._ids), bool)
        kept[list(self._dead)] = False
        stays = kept[: self._indexed]
        self._numbers, self._indexed = self._numbers[: self._indexed][stays], int(stays.sum())
        self._keys = self._keys[: len(self._ids)][kept]
        self._ids = [id for id, stays in zip(self._ids, kept, strict=True) if stays]
        self._place = {id: row for row, id in enumerate(self._ids)}
        self._matrix, self._dead = None, set()

    def __len__(self) -> int:
        return len(self._place)

    def search(self, asked: Tensor, top: int) -> list[Ranking]:
        """For each question key [B, width] the `top` (id, cosine), best first."""
        if not self._place:
            return [[] for _ in range(len(asked))]
        asked, top = asked.detach().float().cpu(), min(top, len(self._place))
        candidates = self._candidates(asked, max(_CANDIDATES, 4 * top))
        if candidates is None or bool(((candidates >= 0).sum(1) < top).any()):
            return self._search_all(asked, top)
        rows = torch.from_numpy(candidates)
        scores = torch.einsum("bcw,bw->bc", self._unit_keys(candidates), asked)
        best = scores.masked_fill(rows < 0, -torch.inf).topk(top, dim=1)
        return self._named(rows.gather(1, best.indices), best.values)

    def cosines(self, asked: Tensor, rows: Sequence[Sequence[str]]) -> list[list[float]]:
        """The cosines of question keys [B, width] with the documents named for each."""
        asked = asked.detach().float().cpu()
        places = [np.array([self._place[id] for id in row], np.int64) for row in rows]
        return [(self._unit_keys(at) @ asked[i]).tolist() for i, at in enumerate(places)]

    def _search_all(self, asked: Tensor, top: int) -> list[Ranking]:
        """The exact search: all cosines of question keys [B, width]."""
        if self._matrix is None:
            self._matrix = self._unit_keys(np.arange(len(self._ids)))
        scores = asked @ self._matrix.T
        if self._dead:
            scores[:, list(self._dead)] = -torch.inf
        best = scores.topk(top, dim=1)
        return self._named(best.indices, best.values)

    def _named(self, rows: Tensor, scores: Tensor) -> list[Ranking]:
        pairs = zip(rows.tolist(), scores.tolist(), strict=True)
        return [
            [(self._ids[i], float(s)) for i, s in zip(row, values, strict=True)]
            for row, values in pairs
        ]

    def _candidates(self, asked: Tensor, reach: int) -> npt.NDArray[np.int64] | None:
        """Rows [B, reach] that the index returns, -1 for none; None without an index."""
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
        """Adds the rows to the index that it does not hold yet."""
        known, count = self._indexed, len(self._ids)
        if count > len(self._numbers):
            larger = np.zeros(len(self._keys), np.int64)
            larger[:known] = self._numbers[:known]
            self._numbers = larger
        self._numbers[known:count] = index.add(self._keys[known:count])
        self._indexed = count
        self._pass_over([row for row in self._dead if row >= known])

    def _pass_over(self, rows: Sequence[int]) -> None:
        """Removes dead rows from the index, if it holds them."""
        known = [row for row in rows if row < self._indexed]
        if self._index is not None and known:
            self._index.remove(self._numbers[known])

    def _unit_keys(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """Unit keys [..., width] of rows [...], float32."""
        chosen = torch.from_numpy(self._keys[rows].astype(np.float32))
        return nn.functional.normalize(chosen, dim=-1)
