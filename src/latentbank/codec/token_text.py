"""Text to the fewest bytes that predicting its tokens can reach.

A text becomes token ids, a model tells their probabilities, an entropy coder turns them to bytes.
What does not survive the tokenizer byte for byte, and what zstd makes shorter, is left to zstd.
Knows nothing about banks or methods.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from latentbank.codec.text import ZstdTextCodec

__all__ = ["TokenModel", "TokenTextCodec"]

_ZSTD_KINDS = 3  # first bytes below this are `ZstdTextCodec`'s
_CODED = b"\x03"  # before a coded text whose own first byte is not above this
_TOGETHER = 1024  # texts decoded side by side


class TokenModel(Protocol):
    """How likely each next token of a text is, and token ids to bytes by it.

    `encode` gives the bytes of each text, `decode` the ids of each, raising BankError where bytes
    are damaged; `most_tokens`: what so many bytes may hold, which bounds the time that damaged
    bytes take.
    """

    vocabulary: int

    def encode(self, texts: Sequence[Sequence[int]]) -> list[bytes]: ...

    def decode(self, streams: Sequence[bytes]) -> list[list[int]]: ...

    def most_tokens(self, size_bytes: int) -> int: ...


class TokenTextCodec:
    """Texts and bytes by the probabilities of tokens.

    Args:
        tokens: texts → token ids of each.
        text: token ids → text.
        model: probabilities over the same ids.
        fallback: for what the tokenizer would change.
    """

    def __init__(
        self,
        tokens: Callable[[Sequence[str]], Sequence[Sequence[int]]],
        text: Callable[[Sequence[int]], str],
        model: TokenModel,
        fallback: ZstdTextCodec,
    ) -> None:
        self._tokens, self._text, self._fallback = tokens, text, fallback
        self._model = model

    def encode_all(self, texts: Sequence[str]) -> list[bytes]:
        """Bytes of each text. Raises InputError as `ZstdTextCodec.encode` does."""
        found = [self._fallback.encode(text) for text in texts]
        rows = self._tokens(texts)
        fit = [
            i
            for i, row in enumerate(rows)
            if len(row) <= self._model.most_tokens(1 << 20)
            and max(row, default=0) < self._model.vocabulary
            and self._text(row) == texts[i]
        ]
        for i, body in zip(fit, self._model.encode([rows[i] for i in fit]), strict=True):
            coded = body if body[:1] > _CODED else _CODED + body
            if len(coded) < len(found[i]) and len(rows[i]) <= self._model.most_tokens(len(body)):
                found[i] = coded
        return found

    def decode_all(self, payloads: Sequence[bytes]) -> list[str]:
        """Texts of what `encode_all` gave; raises BankError if the bytes are damaged."""
        found = [""] * len(payloads)
        coded: list[int] = []
        for i, data in enumerate(payloads):
            if data[:1] and data[0] >= _ZSTD_KINDS:
                coded.append(i)
            else:
                found[i] = self._fallback.decode(data)
        coded.sort(key=lambda i: len(payloads[i]))
        for at in range(0, len(coded), _TOGETHER):
            part = coded[at : at + _TOGETHER]
            rows = self._model.decode([payloads[i].removeprefix(_CODED) for i in part])
            for i, row in zip(part, rows, strict=True):
                found[i] = self._text(row)
        return found

    def encode(self, text: str) -> bytes:
        """Bytes of one text."""
        return self.encode_all([text])[0]

    def decode(self, data: bytes) -> str:
        """The text of these bytes."""
        return self.decode_all([data])[0]
