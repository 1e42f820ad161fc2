"""Log-likelihoods and continuations of texts with a memory attached, as a harness needs them.

Knows a memory model, token ids and texts; knows no harness and no task.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from latentbank.backbone.prompts import passage_ids
from latentbank.errors import InputError
from latentbank.model import MemoryModel

_ASKED = re.compile(r"^[ \t]*(?:question|query|problem|q)[ \t]*:[ \t]*", re.I | re.M)
_ENDED = re.compile(
    r"^[ \t]*(?:answer|a|choices|options|[A-J][.)]|\([A-J]\)|<\|)[ \t]*:?", re.I | re.M
)


def question_of(context: str) -> str:
    """The question in a prompt.

    It is the text after the last "Question:" or "Q:", up to the line of the answer or the choices.
    Without such a label it is the last line that is not empty.

    >>> question_of("Q: Who was first?\\nA: Ada\\n\\nQ: Who was second?\\nA:")
    'Who was second?'
    """
    starts = list(_ASKED.finditer(context))
    if starts:
        rest = context[starts[-1].end() :]
        end = _ENDED.search(rest, len(rest.split("\n", 1)[0]))
        return " ".join((rest[: end.start()] if end else rest).split())
    lines = [line.strip() for line in context.splitlines() if line.strip()]
    return lines[-1] if lines else ""


class Requests:
    """Answers a harness's requests with a `MemoryModel`.

    The question in a request's context selects the memory, once, before the first token. A method
    that reads text puts the passage before the context. Every text starts with the backbone's start
    token, as in latentbank's own prompts. With `memory` False, or without a context, the adapter's
    low-rank weights are attached and nothing is read.
    """

    def __init__(self, model: MemoryModel, memory: bool = True) -> None:
        self.model, self.memory = model, memory
        self.backbone = model.backbone

    @torch.no_grad()
    def loglikelihoods(
        self,
        contexts: Sequence[str | None],
        heads: Sequence[Sequence[int]],
        tails: Sequence[Sequence[int]],
    ) -> list[tuple[float, bool]]:
        """(sum of log-probabilities of the tail, whether it is the greedy choice) for each row.

        `contexts` [B] select the memory, None for none. `tails` [B] are the token ids to score,
        `heads` [B] those before them. What does not fit is cut off at the left.

        Raises InputError for an empty tail.
        """
        if not all(len(tail) for tail in tails):
            raise InputError("A continuation to score must have at least one token.")
        backbone = self.backbone
        with self._attached(contexts) as starts:
            rows = [
                self._fit([*start, *self._bare(head), *tail], len(tail), 0)
                for start, head, tail in zip(starts, heads, tails, strict=True)
            ]
            ids, mask = backbone.pad([row[:-1] for row in rows])
            hidden = backbone.session(len(rows)).feed(ids, mask)
            scored = []
            for states, row, tail in zip(hidden, rows, tails, strict=True):
                last = len(row) - 1
                scores = backbone.logits(states[last - len(tail) : last]).float().log_softmax(-1)
                wanted = torch.tensor(list(tail), device=scores.device)
                total = scores.gather(1, wanted[:, None]).sum()
                scored.append((float(total), bool((scores.argmax(1) == wanted).all())))
        return scored

    @torch.no_grad()
    def continuations(
        self, contexts: Sequence[str], until: Sequence[str], max_new_tokens: int
    ) -> list[str]:
        """Greedy continuations of a batch of contexts.

        Each ends at the first of the texts `until`, at the end token, or after `max_new_tokens`.
        """
        backbone = self.backbone
        with self._attached(contexts) as starts:
            tokens = backbone.encode(contexts, start=False)
            rows = [
                self._fit([*start, *self._bare(row)], 1, max_new_tokens)
                for start, row in zip(starts, tokens, strict=True)
            ]
            ids, mask = backbone.pad(rows, left=True)
            session = backbone.session(len(rows))
            logits = backbone.logits(session.feed(ids, mask)[:, -1])
            texts, written = [""] * len(rows), [list[int]() for _ in rows]
            waiting = set(range(len(rows)))
            for step in range(max_new_tokens):
                token = logits.argmax(-1)
                for i in sorted(waiting):
                    texts[i], ended = self._take(written[i], int(token[i]), until)
                    if ended:
                        waiting.discard(i)
                if not waiting or step == max_new_tokens - 1:
                    break
                fed = session.feed(
                    token[:, None], torch.ones_like(token[:, None], dtype=torch.bool)
                )
                logits = backbone.logits(fed[:, -1])
        return texts

    def _take(self, written: list[int], token: int, until: Sequence[str]) -> tuple[str, bool]:
        """Adds a token. Returns (text so far, cut at the first stop text; whether it ended)."""
        ended = token == self.backbone.end_id
        if not ended:
            written.append(token)
        text: str = self.backbone.tokenizer.decode(written, skip_special_tokens=True)
        stops = [text.find(stop) for stop in until if stop and stop in text]
        return (text[: min(stops)], True) if stops else (text, ended)

    @contextmanager
    def _attached(self, contexts: Sequence[str | None]) -> Iterator[list[list[int]]]:
        """Attaches the memory of a batch; yields the token ids that stand before each context."""
        method = self.model.method
        asked = [question_of(c) for c in contexts if c is not None and selects(c)]
        if asked and len(asked) < len(contexts):
            raise InputError("A batch must not mix requests with and without a question.")
        reads = self.memory and bool(asked)
        conditioning = method.read(asked) if reads else method.closed_book()
        passages = conditioning.passages or ("",) * len(contexts)
        with conditioning.attach(self.backbone):
            yield passage_ids(self.backbone, passages)

    def _bare(self, tokens: Sequence[int]) -> Sequence[int]:
        """Tokens without a start token of their own."""
        return tokens[1:] if len(tokens) and tokens[0] == self.backbone.start_id else tokens

    def _fit(self, row: list[int], kept: int, room: int) -> list[int]:
        """The row, cut at the left so that it, the memory and `room` more tokens fit."""
        memory = self.backbone.memory
        used = 0 if memory is None else int(memory.start.max())
        limit = self.backbone.geometry.max_positions - used - room
        if limit <= kept:
            raise InputError(
                f"{kept} tokens, {room} new ones and a memory of {used} positions do not fit into "
                f"the {self.backbone.geometry.max_positions} positions of {self.backbone.name}."
            )
        return row[-limit:]


def selects(context: str | None) -> bool:
    """Whether a request's context holds a question that selects memory."""
    return context is not None and bool(question_of(context))
