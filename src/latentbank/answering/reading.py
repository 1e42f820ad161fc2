"""A batch of questions with what is read for them: prompts run, answers decoded or streamed.

Knows conditionings and prompts; knows no candidates.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from latentbank.answering.growing_text import TextStream
from latentbank.backbone.generate import DecodingConfig, Generation, PromptRun
from latentbank.backbone.prompts import end_id_of, prompt_ids
from latentbank.backbone.transports import Conditioning
from latentbank.documents.ends import finish, whole_characters
from latentbank.method import Method

__all__ = ["Answer", "AnswerStream", "Reading"]

_HELD = 8  # last tokens before the limit: a word that begins there is shown when it is whole


@dataclass(frozen=True)
class Answer:
    """An answer and the documents that it was read from, as (id, share).

    `confidence` in [0, 1] is the mean probability of the answer's tokens, times the candidate's
    weight or the support of what was read, where the method gives one. `seconds` is the time of the
    batch divided by its questions. With several candidates the first token is known when the winner
    is. Without `from_memory` nothing was read: the model answered closed book. `superseded` are the
    ids of older versions of what was read, newest first, for which it stood in.

    `probability` in [0, 1] is how often an answer of this confidence is right, where the adapter
    has a calibration. `abstained`: the answer was not sure enough, so there is none; the text is
    empty.
    """

    text: str
    documents: tuple[tuple[str, float], ...]
    confidence: float
    seconds: float
    first_token_seconds: float
    from_memory: bool = True
    superseded: tuple[str, ...] = ()
    probability: float | None = None
    abstained: bool = False


AnswerStream = TextStream[Answer]
"""An answer as it grows."""


class Reading:
    """A batch of questions with what is read for them. Runs and answers while `attached`."""

    def __init__(
        self,
        method: Method,
        questions: Sequence[str],
        read: Conditioning,
        decoding: DecodingConfig | None,
    ) -> None:
        self.questions, self.read = questions, read
        self._backbone, self._decoding = method.backbone, decoding
        self._began = time.perf_counter()
        self._prompts: PromptRun

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Attaches what was read for the length of the block."""
        with self.read.attach(self._backbone):
            yield

    def run(self) -> None:
        """Runs the prompts."""
        prompts = self.read.prompts(self._backbone, self.questions)
        # the tokens of the question with its labels, without those of a passage
        asked = prompt_ids(self._backbone, self.questions, None, self.read.template, begun=True)
        counts = [len(row) for row in asked]
        split = 0 if self.read.passages else self.read.layer
        end_id = end_id_of(self._backbone, self.read.template)
        contrast = self.read.contrast
        self._ran(
            PromptRun(self._backbone, prompts, self._decoding, contrast, counts, split, end_id)
        )

    def run_over(self, other: Reading, places: Sequence[int]) -> None:
        """As `run`, from the layer where memory enters.

        `other` ran the same questions with another memory or none; `places` are their positions in
        it.
        """
        self._ran(other._prompts.repeat(places))

    def shares_lower_layers(self, other: Reading) -> bool:
        """Whether this reading, attached, computes what `other` does below the memory."""
        memory = self._backbone.memory
        layers = {self.read.layer, other.read.layer, *([memory.layer] if memory else [])}
        plain = (one.read.passages is None and not one.read.contrast for one in (self, other))
        return all(plain) and len(layers) == 1 and layers.pop() > 0

    def _ran(self, prompts: PromptRun) -> None:
        self._prompts = prompts
        self._seconds = time.perf_counter() - self._began

    def likelihoods(self, rows: Sequence[int] | None = None) -> list[float]:
        """The log-likelihoods, in nats, of the questions `rows` or of all; after `run`."""
        return self._prompts.likelihoods(rows)

    def first_token_probabilities(self) -> list[float]:
        """How sure [B] the first token of each answer is; after `run`, before `answers`."""
        return self._prompts.first_token_probabilities()

    def answers(self, rows: Sequence[int], drafts: Sequence[str] = ()) -> list[Answer]:
        """Answers to the questions `rows`; can be asked for once. Their `seconds` are not set.

        `drafts` are likely answers: a draft that is right saves steps and changes nothing.
        """
        quotable = self._quotable(rows, drafts)
        generated = self._prompts.answers(rows, quotable)
        config = self._decoding or DecodingConfig()
        return [
            self._answer(i, one, self.read.template.cut(_ended(one, config)))
            for i, one in zip(rows, generated, strict=True)
        ]

    def stream(self, row: int) -> Iterator[Answer]:
        """The answer to the question `row` as it grows; the last one is the whole answer.

        Can be asked for once, and not with beams. A text never ends in half a character and is
        never taken back. An answer that reaches the limit of tokens ends behind a word.
        """
        limit, text = (self._decoding or DecodingConfig()).max_new_tokens, ""
        for found, count in self._prompts.stream(row, self._quotable([row])):
            longer = found.text if found.finished else whole_characters(found.text).rstrip()
            if not found.finished and count > limit - _HELD:
                longer = longer[: max(len(text), longer.rfind(" "))]
            longer = self.read.template.cut(longer)
            if longer.startswith(text):
                text = longer
            yield self._answer(row, found, text)

    def _quotable(self, rows: Sequence[int], drafts: Sequence[str] = ()) -> list[list[int]]:
        """Tokens that the answers to `rows` may quote."""
        texts = self.read.quotable or self.read.passages or ("",) * len(self.questions)
        quotable = [f" {texts[i]}" for i in rows]
        if drafts:
            pairs = zip(drafts, quotable, strict=True)
            quotable = [f" {draft}{text}" if draft else text for draft, text in pairs]
        return self._backbone.encode(quotable, start=False)

    def _answer(self, row: int, found: Generation, text: str) -> Answer:
        sources, support = self.read.named_sources(), self.read.support
        confidence = found.confidence * (support[row] if support else 1.0)
        return Answer(text, sources[row] if sources else (), confidence, 0.0, self._seconds)


def _ended(found: Generation, config: DecodingConfig) -> str:
    """The text of an answer; one that reached the limit has no half character at its end."""
    if found.finished:
        return found.text
    return finish(found.text) if config.whole_words else whole_characters(found.text).rstrip()
