"""Key features of triples to bytes and back: what a bank may keep beside the text of a triple.

`text` keeps nothing: features are encoded again on opening. `float16` and `int8` keep the numbers,
`vq` one code and `rvq` one code for each residual codebook of 256 words. Knows tensors and codecs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from latentbank.codec.arrays import array_codec
from latentbank.codec.quantizer import Codebook, CodebookConfig, nearest_codes
from latentbank.errors import BankError

__all__ = ["KEPT", "WORDS", "KeyBooks", "decode_keys", "encode_keys"]

KEPT = ("text", "float16", "int8", "vq", "rvq")
WORDS = 256


class KeyBooks(nn.Module):
    """Residual codebooks [stages, 256, P]: a key is near the sum of a word of each."""

    words: Tensor

    def __init__(self, stages: int, width: int) -> None:
        super().__init__()
        self.register_buffer("words", torch.zeros(stages, WORDS, width))

    @torch.no_grad()
    def fit(self, keys: Tensor, seed: int = 0) -> None:
        """Sets the words by k-means on keys [N, P], stage after stage; N is at least 256."""
        left = keys.float()
        for stage in range(len(self.words)):
            book = Codebook(keys.shape[1], CodebookConfig(codes=WORDS))
            book.fit(left, seed=seed + stage)
            self.words[stage] = book.weight
            left = left - book.decode(book.nearest(left))

    def encode(self, keys: Tensor, stages: int) -> Tensor:
        """Codes [N, stages] of keys [N, P]."""
        left, codes = keys.float(), []
        for words in self.words[:stages]:
            codes.append(nearest_codes(left, words))
            left = left - words[codes[-1]]
        return torch.stack(codes, 1)

    def decode(self, codes: Tensor) -> Tensor:
        """Keys [N, P] of codes [N, stages]."""
        found = [words[codes[:, i]] for i, words in enumerate(self.words[: codes.shape[1]])]
        return torch.stack(found).sum(0)


def encode_keys(kind: str, keys: Tensor, books: KeyBooks | None) -> list[bytes]:
    """The bytes of each key of [N, P]; empty for `text`."""
    if kind == "text":
        return [b""] * len(keys)
    if books is not None and kind in ("vq", "rvq"):
        codes = books.encode(keys, 1 if kind == "vq" else len(books.words))
        return [row.tobytes() for row in codes.numpy().astype(np.uint8)]
    codec = array_codec(kind)
    return [codec.encode(row[None].float().numpy()) for row in keys]


def decode_keys(
    kind: str, stored: Sequence[bytes], width: int, books: KeyBooks | None
) -> Tensor | None:
    """Keys [N, P] of what `encode_keys` gave; None where nothing is stored.

    Raises BankError for bytes of another length.
    """
    if kind == "text" or not stored:
        return None
    if books is not None and kind in ("vq", "rvq"):
        stages = 1 if kind == "vq" else len(books.words)
        if any(len(row) != stages for row in stored):
            raise BankError(f"A stored key has other than {stages} codes.")
        codes = np.frombuffer(b"".join(stored), np.uint8).reshape(-1, stages)
        return books.decode(torch.from_numpy(codes.astype(np.int64)))
    codec = array_codec(kind)
    return torch.from_numpy(np.concatenate([codec.decode(row, width) for row in stored]))
