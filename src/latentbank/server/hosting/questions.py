"""One thread answers the questions of all banks on one backbone, those that fit together at once.

A question alone is streamed and can be stopped at any token; several of one bank are a batch. What
would begin too late is refused. Knows models, answers and clocks; knows no HTTP.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from latentbank.answering import Answer, AnswerStream, check_questions
from latentbank.answering.chat import ChatAnswer, ChatStream
from latentbank.answering.chat.sentences import asks_fact
from latentbank.backbone.generate import DecodingConfig
from latentbank.server.failures import Refusal, Stopped
from latentbank.server.hosting.engine import ServedBackbone, ServedModel
from latentbank.server.settings import Limits

__all__ = ["Answered", "Asked", "Asker", "Pace", "Question"]

SHORT = "short"  # the style of `ask`
_DECAY = 0.9  # weight of the batches before the last one
_GATHER, _LONGEST = 0.03, 0.25  # seconds to wait for one more question, and for all of them
_RETRY = 30.0  # seconds, the longest that a refused question is sent away for


class Asked(Protocol):
    """A bank that is asked."""

    def reader(self) -> ServedModel:
        """The model that answers from it; called in the asker's thread only."""

    def note_answer(self, answer: Answer | ChatAnswer) -> None:
        """Hears which documents answered."""


@dataclass(frozen=True)
class Answered:
    """An answer with the tokens of question and answer."""

    answer: Answer | ChatAnswer
    question_tokens: int
    answer_tokens: int


@dataclass(eq=False)
class Question:
    """A question that waits for its answer: (role, text) of each message of a conversation.

    `on_piece` gets the text as it grows, in the asker's thread. `deadline` by `time.monotonic`.
    """

    bank: Asked
    messages: tuple[tuple[str, str], ...]
    style: str
    decoding: DecodingConfig | None
    memory: bool
    quality: str
    deadline: float
    on_piece: Callable[[str], None] | None = None
    future: Future[Answered] = field(default_factory=Future)
    gone: threading.Event = field(default_factory=threading.Event)
    arrived: float = field(default_factory=time.monotonic)

    @property
    def text(self) -> str:
        """The last message."""
        return self.messages[-1][1]

    @property
    def is_plain(self) -> bool:
        """Whether it has no history and wants a few words."""
        return self.style == SHORT and len(self.messages) == 1

    @property
    def is_single(self) -> bool:
        """Whether it has no history and asks for a fact: such questions are answered together."""
        fact = self.style in (SHORT, "sentence") or asks_fact(self.text)
        return len(self.messages) == 1 and fact

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for questions that may be answered together."""
        own = 0 if self.is_single else id(self)
        return own, self.style, id(self.bank), self.decoding, self.memory, self.quality

    @property
    def is_over(self) -> bool:
        """Whether nobody waits any more."""
        return self.gone.is_set() or time.monotonic() > self.deadline

    def fail(self, error: BaseException) -> None:
        """Ends with an error."""
        with suppress(InvalidStateError):  # the caller has cancelled
            self.future.set_exception(error)

    def answer(self, answered: Answered) -> None:
        """Ends with an answer."""
        with suppress(InvalidStateError):
            self.future.set_result(answered)


class Pace:
    """Seconds that a batch takes by its size: a line through the last ones, newer ones first."""

    def __init__(self) -> None:
        self._sums = [0.0] * 5  # weight, sizes, seconds, sizes², sizes·seconds

    def note(self, size: int, seconds: float) -> None:
        """Takes in a batch that is done."""
        new = (1.0, size, seconds, size * size, size * seconds)
        self._sums = [_DECAY * old + one for old, one in zip(self._sums, new, strict=True)]

    def seconds(self, size: int) -> float:
        """The expected seconds of a batch; 0 before the first one."""
        weight, x, y, xx, xy = self._sums
        if not weight:
            return 0.0
        mean, spread = x / weight, xx / weight - (x / weight) ** 2
        if spread < 0.01:
            return y / weight * max(1.0, size / mean)
        slope = max(0.0, (xy / weight - mean * y / weight) / spread)
        return max(y / weight * 0.1, y / weight + slope * (size - mean))

    @property
    def each(self) -> float:
        """Seconds for one question of the last batches; 0 before the first one."""
        _, sizes, seconds, _, _ = self._sums
        return seconds / sizes if sizes else 0.0


class Asker:
    """The thread that answers. `submit` questions, or `call` other work on the models."""

    def __init__(self, view: ServedBackbone, limits: Limits) -> None:
        self.pace = Pace()
        self._view, self._limits = view, limits
        self._waiting: list[Question] = []
        self._calls: list[tuple[Callable[[], Any], Future[Any]]] = []
        self._changed = threading.Condition()
        self._stopping = False
        self._busy_until = 0.0
        self._promised = 0.0  # when the question that was refused last may come back
        self._busy = 0
        self._last = 1  # questions of the last batch
        self.batches: dict[int, int] = {}  # size → how many batches
        self._thread = threading.Thread(target=self._work, name="latentbank-asker", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Questions that wait."""
        return len(self._waiting)

    @property
    def is_busy(self) -> bool:
        """Whether a batch is being answered."""
        return self._busy > 0

    # ---- from other threads

    def submit(self, question: Question) -> None:
        """Queues a question.

        Raises:
            Refusal: 429 where it would begin too late, 503 while the server stops.
        """
        with self._changed:
            if self._stopping:
                raise Refusal(503, "stopping", "The server is stopping.")
            delay = self._delay()
            late = delay > self._limits.first_token_seconds
            if len(self._waiting) >= self._limits.waiting_questions or late:
                seconds = self._appointment(delay - self._limits.first_token_seconds)
                raise Refusal(
                    429,
                    "overloaded",
                    f"Too many questions wait; try again in {seconds} s.",
                    headers={"Retry-After": str(seconds)},
                )
            self._waiting.append(question)
            self._changed.notify()

    def call(self, work: Callable[[], Any]) -> Future[Any]:
        """Runs `work` in the asker's thread before the next batch."""
        future: Future[Any] = Future()
        with self._changed:
            if self._stopping:
                raise Refusal(503, "stopping", "The server is stopping.")
            self._calls.append((work, future))
            self._changed.notify()
        return future

    def close(self, seconds: float) -> None:
        """Takes no more; ends what still runs after `seconds`."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(seconds)
        with self._changed:
            for question in self._waiting:
                question.gone.set()
        self._view.stop = lambda: True
        self._thread.join(10)
        self._view.stop = None

    def _delay(self) -> float:
        """Seconds until an answer to one more question would begin; 0 for an idle server."""
        if not self._busy and not self._waiting:
            return 0.0
        together = self._limits.together
        full, rest = divmod(len(self._waiting), together)
        left = max(0.0, self._busy_until - time.monotonic()) if self._busy else 0.0
        return left + full * self.pace.seconds(together) + self.pace.seconds(rest + 1)

    def _appointment(self, least: float) -> int:
        """Whole seconds, `least` or more, after which a refused question may come back.

        Each is given a time of its own, so that those who wait as they are told come back one after
        another, about as fast as they can be answered.
        """
        now = time.monotonic()
        self._promised = max(self._promised, now + max(least, 0.0)) + self.pace.each
        self._promised = min(self._promised, now + _RETRY)
        return max(1, math.ceil(self._promised - now - 0.01))

    # ---- in its thread

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (self._waiting or self._calls or self._stopping):
                    self._changed.wait()
                self._gather()
                calls, self._calls = self._calls, []
                batch = self._take()
                if not batch and not calls and self._stopping:
                    return
                self._busy = len(batch)
                self._busy_until = time.monotonic() + self.pace.seconds(len(batch) or 1)
            for work, future in calls:
                _run(work, future)
            if batch:
                self._answer(batch)
                self._last = len(batch)
            self._busy = 0

    def _gather(self) -> None:
        """Waits a moment for those whose last questions were answered together to ask again.

        Else the first of them would be answered alone while the others wait.
        """
        last, self._last = self._last, 1
        end = time.monotonic() + _LONGEST
        while last > 1 and len(self._waiting) < self._limits.together:
            came = self._comes(min(_GATHER, max(0.0, end - time.monotonic())))
            if not came or self._calls or self._stopping:
                return

    def _comes(self, seconds: float) -> bool:
        """Whether one more question, or something else to do, comes within `seconds`."""
        count = len(self._waiting)
        return self._changed.wait_for(
            lambda: len(self._waiting) > count or bool(self._calls) or self._stopping, seconds
        )

    def _take(self) -> list[Question]:
        """The oldest question and those that are answered with it."""
        for question in [one for one in self._waiting if one.is_over]:
            self._waiting.remove(question)
            question.fail(Stopped())
        if not self._waiting:
            return []
        first = self._waiting[0]
        left = first.arrived + self._limits.first_token_seconds - time.monotonic()
        batch = [first]
        for question in self._waiting[1:]:
            too_long = self.pace.seconds(len(batch) + 1) > left
            if len(batch) >= self._limits.together or too_long:
                break
            if question.key == first.key:
                batch.append(question)
        self._waiting = [one for one in self._waiting if one not in batch]
        return batch

    def _answer(self, batch: Sequence[Question]) -> None:
        began = time.monotonic()
        try:
            model = batch[0].bank.reader()
        except BaseException as error:
            for question in batch:
                question.fail(error)
            return
        asked = [question for question in batch if self._can_be_asked(model, question)]
        self._view.take_threads(len(asked))
        try:
            with self._view.until(lambda: all(question.is_over for question in asked)):
                if len(asked) == 1:
                    self._stream(model, asked[0])
                elif asked:
                    self._together(model, asked)
        except BaseException as error:
            for question in asked:
                question.fail(error.with_traceback(None) if question.gone.is_set() else error)
            return
        self.pace.note(len(batch), time.monotonic() - began)
        self.batches[len(batch)] = self.batches.get(len(batch), 0) + 1

    def _can_be_asked(self, model: ServedModel, question: Question) -> bool:
        try:
            if question.is_single:
                check_questions(model.backbone, [question.text], question.decoding)
        except Exception as error:
            question.fail(error)
            return False
        return True

    def _stream(self, model: ServedModel, one: Question) -> None:
        growing: AnswerStream | ChatStream
        if one.is_plain:
            growing = model.stream(one.text, one.decoding, one.memory, one.quality)
        else:
            growing = model.chat(
                [{"role": role, "content": text} for role, text in one.messages],
                stream=True,
                style=one.style,
                decoding=one.decoding,
                memory=one.memory,
                quality=one.quality,
            )
        with closing(growing):  # it holds the backbone, and only this thread can let go of it
            for piece in growing:
                if one.is_over:
                    raise Stopped
                if one.on_piece is not None:
                    one.on_piece(piece)
        assert growing.answer is not None
        self._done(model, [one], [growing.answer])

    def _together(self, model: ServedModel, asked: Sequence[Question]) -> None:
        first, texts = asked[0], [question.text for question in asked]
        if not first.is_plain:
            options = {"style": first.style, "decoding": first.decoding}
            chats = model.chats(texts, memory=first.memory, quality=first.quality, **options)  # type: ignore[arg-type]
            with closing(chats):
                for question, one in zip(asked, chats, strict=True):
                    self._told(question, one)
                    self._done(model, [question], [one])
            return
        answers = model.ask_many(
            texts, first.decoding, first.memory, None, len(asked), first.quality
        )
        for question, answer in zip(asked, answers, strict=True):
            self._told(question, answer)
        self._done(model, asked, answers)

    def _told(self, question: Question, answer: Answer | ChatAnswer) -> None:
        if question.on_piece is not None and answer.text:
            question.on_piece(answer.text)

    def _done(
        self,
        model: ServedModel,
        asked: Sequence[Question],
        answers: Sequence[Answer | ChatAnswer],
    ) -> None:
        texts = ["\n".join(text for _, text in one.messages) for one in asked]
        counts = model.backbone.count_tokens(texts + [one.text for one in answers])
        for place, (question, answer) in enumerate(zip(asked, answers, strict=True)):
            question.bank.note_answer(answer)
            question.answer(Answered(answer, counts[place], counts[len(asked) + place]))


def _run(work: Callable[[], Any], future: Future[Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(error)
