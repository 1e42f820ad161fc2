"""Text to bytes by predicting its tokens.

A tokenizer turns the text into ids, a model gives their probabilities, and an entropy coder turns
these into bytes. zstd codes a text that the tokenizer would change, or that zstd makes shorter.
Knows no bank and no method.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from latentbank.codec.text import ZstdTextCodec

__all__ = ["TokenModel", "TokenTextCodec"]

_ZSTD_KINDS = 3  # first bytes below this are `ZstdTextCodec`'s
_CODED = b"\x03"  # put before a coded text whose first byte is not above this
_HOPELESS = 1.5  # 2 of 6,853 texts took 3 bytes more than with zstd tried on all
_TOGETHER = 1024  # texts decoded side by side


class TokenModel(Protocol):
    """Token ids to bytes and back, by the probabilities of a model."""

    vocabulary: int

    def encode(self, texts: Sequence[Sequence[int]]) -> list[bytes]:
        """Bytes of each text of token ids."""

    def decode(self, streams: Sequence[bytes]) -> list[list[int]]:
        """Token ids of each stream; raises BankError for damaged bytes."""

    def most_tokens(self, size_bytes: int) -> int:
        """The most tokens that so many bytes may hold; bounds the time for damaged bytes."""


class TokenTextCodec:
    """Texts to bytes and back, by the probabilities of their tokens.

    Args:
        tokens: texts → token ids of each.
        text: token ids → text.
        model: codes the same ids.
        fallback: codes texts that the tokenizer would change.
    """

    def __init__(
        self,
        tokens: Callable[[Sequence[str]], Sequence[Sequence[int]]],
        text: Callable[[Sequence[int]], str],
        model: TokenModel,
        fallback: ZstdTextCodec,
    ) -> None:
        self._tokens, self._text, self._fallback = tokens, text, fallback
        self._quick = ZstdTextCodec(fallback.dictionary, level=8)
        self._model = model

    def encode_all(self, texts: Sequence[str]) -> list[bytes]:
        """Bytes of each text. Raises InputError as `ZstdTextCodec.encode` does."""
        rows = self._tokens(texts)
        fit = [
            i
            for i, row in enumerate(rows)
            if len(row) <= self._model.most_tokens(1 << 20)
            and max(row, default=0) < self._model.vocabulary
            and self._text(row) == texts[i]
        ]
        payloads: list[bytes | None] = [None] * len(texts)
        for i, body in zip(fit, self._model.encode([rows[i] for i in fit]), strict=True):
            if len(rows[i]) <= self._model.most_tokens(len(body)):
                payloads[i] = body if body[:1] > _CODED else _CODED + body
        return [self._shorter(*pair) for pair in zip(texts, payloads, strict=True)]

    def _shorter(self, text: str, coded: bytes | None) -> bytes:
        """What takes fewer bytes: `coded`, or zstd's bytes of the text.

        zstd's quick level tells whether its best one can come near: it takes a seventh of the time.
        """
        if coded is not None and len(self._quick.encode(text)) > _HOPELESS * len(coded):
            return coded
        plain = self._fallback.encode(text)
        return plain if coded is None or len(plain) <= len(coded) else coded

    def decode_all(self, payloads: Sequence[bytes]) -> list[str]:
        """Texts of what `encode_all` gave; raises BankError if the bytes are damaged."""
        texts = [""] * len(payloads)
        coded: list[int] = []
        for i, data in enumerate(payloads):
            if data[:1] and data[0] >= _ZSTD_KINDS:
                coded.append(i)
            else:
                texts[i] = self._fallback.decode(data)
        coded.sort(key=lambda i: len(payloads[i]))
        for at in range(0, len(coded), _TOGETHER):
            part = coded[at : at + _TOGETHER]
            rows = self._model.decode([payloads[i].removeprefix(_CODED) for i in part])
            for i, row in zip(part, rows, strict=True):
                texts[i] = self._text(row)
        return texts

    def encode(self, text: str) -> bytes:
        """Bytes of one text."""
        return self.encode_all([text])[0]

    def decode(self, data: bytes) -> str:
        """The text of these bytes."""
        return self.decode_all([data])[0]
