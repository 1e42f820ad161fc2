"""Conversations with a model behind a server: messages with the documents in the last one.

Knows messages, passages and the client; knows no tokens of a model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from latentbank.answering.chat.messages import Message
from latentbank.answering.chat.prompting import Fitted, Passage, content_of, fitted
from latentbank.backbone.endpoint import EndpointBackbone
from latentbank.backbone.generate import DecodingConfig, Generation
from latentbank.bank import MemoryBank

__all__ = ["RemotePrompt", "RemoteReader"]

_FRAME = 8  # tokens around a message, about


@dataclass(frozen=True)
class RemotePrompt(Fitted):
    """The messages that the server gets."""

    rows: list[dict[str, str]] = field(default_factory=list)


class RemoteReader:
    """Sends conversations to the server. As `PromptReader`, which runs them here."""

    def __init__(self, backbone: EndpointBackbone) -> None:
        self._backbone = backbone

    def keep(self, bank: MemoryBank) -> None:
        """Nothing is kept between turns."""

    def clear(self) -> None:
        """Nothing is kept between turns."""

    def prompt(
        self,
        messages: Sequence[Message],
        passages: Sequence[Passage],
        instruction: str,
        answer_tokens: int,
    ) -> RemotePrompt:
        """The messages that fit, by an estimate of their tokens."""

        def make(
            kept: Sequence[Message], read: Sequence[Passage], trimmed: int
        ) -> tuple[RemotePrompt, int]:
            rows = [{"role": one.role, "content": content_of(one)} for one in kept]
            texts = "".join(f"{one}\n\n" for one in read)
            said = f"\n{instruction}" if instruction else ""
            rows[-1]["content"] = f"{texts}{rows[-1]['content']}{said}"
            counts = self._backbone.count_tokens([row["content"] for row in rows])
            made = RemotePrompt(tuple(read), trimmed, rows=rows)
            return made, sum(counts) + _FRAME * len(rows)

        return fitted(self._backbone, messages, passages, answer_tokens, make)

    def stream(self, prompt: Fitted, decoding: DecodingConfig) -> Iterator[tuple[Generation, int]]:
        """(answer so far, 0) after each piece."""
        assert isinstance(prompt, RemotePrompt)
        for said in self._backbone.client.stream(prompt.rows, decoding.max_new_tokens):
            sure = 1.0 if said.confidence is None else said.confidence
            yield Generation(said.text, sure, 0.0, said.finished), 0
