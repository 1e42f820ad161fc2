"""A conversation and documents as the token ids of one prompt that fits into the model's context.

The documents stand right before the last question. Knows messages, texts and chat templates; knows
no method and no bank.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from latentbank.answering.chat.messages import Message
from latentbank.backbone.model import Backbone
from latentbank.backbone.prompts import COMPLETION, PLAIN, Template, chat_text, disarmed, end_id_of
from latentbank.errors import InputError

__all__ = ["Fitted", "Passage", "Prompt", "build_prompt", "content_of", "fitted"]

F = TypeVar("F")
_MARK = "<<documents>>"
_NUMBER = re.compile(r"\s*\[\d+\]")
_BEGIN = {"user": "Question: ", "assistant": "Answer: ", "system": ""}


@dataclass(frozen=True)
class Passage:
    """The text of an entry, and what is said of it above the text: its title, its time."""

    entry: str
    text: str
    heading: str = ""

    def __str__(self) -> str:
        return f"{self.heading}\n{self.text}" if self.heading else self.text


@dataclass(frozen=True)
class Fitted:
    """A prompt that fits.

    Attributes:
        passages: the documents in it.
        trimmed: messages of the conversation that were left out.
        template: cuts an answer, where the model does not end it itself.
    """

    passages: tuple[Passage, ...]
    trimmed: int = 0
    template: Template = PLAIN


@dataclass(frozen=True)
class Prompt(Fitted):
    """The tokens of a prompt, in two parts.

    Attributes:
        head: tokens up to the end of the documents; these are the same for other questions.
        tail: the question, and what begins the answer.
        end_id: the token that ends an answer.
    """

    head: list[int] = field(default_factory=list)
    tail: list[int] = field(default_factory=list)
    end_id: int = 0

    @property
    def ids(self) -> list[int]:
        """All tokens."""
        return [*self.head, *self.tail]


def build_prompt(
    backbone: Backbone,
    messages: Sequence[Message],
    passages: Sequence[Passage],
    instruction: str,
    answer_tokens: int,
) -> Prompt:
    """The tokens of a conversation's prompt; see `fitted`."""

    def make(kept: Sequence[Message], read: Sequence[Passage], trimmed: int) -> tuple[Prompt, int]:
        prompt = _prompt(backbone, kept, read, instruction, trimmed)
        return prompt, len(prompt.ids)

    return fitted(backbone, messages, passages, answer_tokens, make)


def fitted(
    backbone: Backbone,
    messages: Sequence[Message],
    passages: Sequence[Passage],
    answer_tokens: int,
    make: Callable[[Sequence[Message], Sequence[Passage], int], tuple[F, int]],
) -> F:
    """The prompt that `make` makes of what fits; the oldest messages are left out first.

    Then the last passages go. The system's messages and the last question stay. `make` gets
    messages, passages and the number of messages that were left out; it gives a prompt and its
    tokens.

    Raises:
        InputError: the last question alone does not fit.
    """
    room = backbone.geometry.max_positions - answer_tokens
    kept, read, trimmed = list(messages), list(passages), 0
    while True:
        prompt, tokens = make(kept, read, trimmed)
        over = tokens - room
        if over <= 0:
            return prompt
        older = [i for i, one in enumerate(kept[:-1]) if one.role != "system"]
        if older:
            dropped = _oldest(backbone, kept, older, over)
            trimmed += len(dropped)
            kept = [one for i, one in enumerate(kept) if i not in dropped]
        elif read:
            read.pop()
        else:
            asked = backbone.count_tokens([kept[-1].content])[0]
            raise InputError(
                f"The question has {asked} tokens; with {answer_tokens} for the answer it does "
                f"not fit into the {backbone.geometry.max_positions} of {backbone.name}. "
                "Shorten it."
            )


def _oldest(
    backbone: Backbone, messages: Sequence[Message], older: Sequence[int], over: int
) -> set[int]:
    """The oldest messages that have `over` tokens; an answer goes with its question."""
    counts = backbone.count_tokens([messages[i].content for i in older])
    dropped: set[int] = set()
    freed = 0
    for place, (i, count) in enumerate(zip(older, counts, strict=True)):
        follows = messages[i].role == "assistant" and place == len(dropped)
        if freed >= over and not follows:
            break
        dropped.add(i)
        freed += count
    return dropped


def _prompt(
    backbone: Backbone,
    messages: Sequence[Message],
    passages: Sequence[Passage],
    instruction: str,
    trimmed: int,
) -> Prompt:
    rows = [{"role": one.role, "content": content_of(one)} for one in messages]
    asked = rows[-1]["content"] + (f"\n{instruction}" if instruction else "")
    rows[-1] = {"role": "user", "content": f"{_MARK}{asked}"}
    found = chat_text(backbone, _alternating(rows))
    if found is None:
        text, template = _plain(_alternating(rows)), COMPLETION
    else:
        text, template = found
    before, mark, after = text.rpartition(_MARK)
    if not mark:
        raise InputError(
            f"The chat template of {backbone.name} changes what the user says, so documents cannot "
            "be put before a question; ask with style 'short'."
        )
    texts = "".join(f"{disarmed(str(one))}\n\n" for one in passages)
    head, tail = backbone.encode([before + texts, after], start=False)
    if head[:1] != [backbone.start_id]:
        head = [backbone.start_id, *head]
    return Prompt(tuple(passages), trimmed, template, head, tail, end_id_of(backbone, template))


def content_of(message: Message) -> str:
    """The text of a message; an earlier answer without the numbers of its sources."""
    text = message.content.strip()
    return disarmed(_NUMBER.sub("", text) if message.role == "assistant" else text)


def _alternating(rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Messages of one role after another become one: templates want user and assistant in turn."""
    joined: list[dict[str, str]] = []
    for row in rows:
        if joined and joined[-1]["role"] == row["role"]:
            content = f"{joined[-1]['content']}\n\n{row['content']}"
            joined[-1] = {"role": row["role"], "content": content}
        else:
            joined.append(row)
    if joined and joined[0]["role"] == "assistant":  # its question was left out
        joined = joined[1:]
    return joined


def _plain(rows: Sequence[dict[str, str]]) -> str:
    """The conversation for a model without a chat template."""
    lines = []
    for row in rows:
        if _MARK in row["content"]:
            before, _, after = row["content"].partition(_MARK)
            lines.append(f"{before}{_MARK}{_BEGIN['user']}{after}")
        else:
            lines.append(f"{_BEGIN[row['role']]}{row['content']}")
    return "\n".join([*lines, "Answer:"])
