"""Earlier documents that are learned again beside a new one, within a number of bytes.

Knows documents; knows no model and no bank.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from hashlib import blake2b

import torch
from torch import Tensor

from latentbank.errors import BankError

__all__ = ["Replay"]


class Replay:
    """An even sample of the documents so far, of at most `most_bytes` of UTF-8.

    Each document has a random rank, made from its id. The lowest ranks stay. So the sample does not
    depend on how documents are divided into writes.
    """

    def __init__(self, most_bytes: int, texts: Sequence[tuple[str, str]] = ()) -> None:
        self.most_bytes = most_bytes
        self.texts = dict(texts)

    def copy(self) -> Replay:
        """A sample that does not change with this one."""
        return Replay(self.most_bytes, tuple(self.texts.items()))

    def add(self, id: str, text: str) -> None:
        """Takes a document in; others leave where the bytes do not hold all."""
        size, kept = 0, {}
        for one in sorted({**self.texts, id: text}, key=_rank):
            found = text if one == id else self.texts[one]
            size += len(found.encode()) + len(one)
            if size > self.most_bytes:
                break
            kept[one] = found
        self.texts = kept

    def remove(self, ids: Sequence[str]) -> None:
        """Forgets documents."""
        for id in ids:
            self.texts.pop(id, None)

    def draw(self, count: int, id: str) -> list[str]:
        """Up to `count` texts, drawn by the id of the document that they are learned with."""
        others = [one for one in self.texts if one != id]
        chosen = random.Random(id).sample(others, min(count, len(others)))
        return [self.texts[one] for one in chosen]

    def tensor(self) -> Tensor:
        """The sample as uint8 numbers."""
        raw = json.dumps(list(self.texts.items()), ensure_ascii=False).encode()
        return torch.frombuffer(bytearray(raw), dtype=torch.uint8)

    def load(self, numbers: Tensor) -> None:
        """Takes what `tensor` gave. Raises BankError for anything else."""
        try:
            pairs = json.loads(numbers.to(torch.uint8).numpy().tobytes())
            self.texts = {str(id): str(text) for id, text in pairs}
        except (ValueError, TypeError) as error:
            raise BankError(f"the bank's replayed documents are damaged: {error}") from error


def _rank(id: str) -> bytes:
    return blake2b(id.encode(), digest_size=8).digest()
