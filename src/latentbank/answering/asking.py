"""The only loop that asks: questions and conversations, answered from a bank.

`MemoryModel` is an `Asking`. Knows methods through their contract; knows no files and no adapters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal, overload

from latentbank.answering import (
    ASKED_TOGETHER,
    Answer,
    AnswerStream,
    answer_batch,
    check_questions,
    question_batches,
    stream_answer,
)
from latentbank.answering.chat import Chat, ChatAnswer, ChatStream, Turn, as_messages
from latentbank.arguments import as_count, as_questions
from latentbank.backbone.generate import DecodingConfig, generate
from latentbank.backbone.model import Backbone
from latentbank.backbone.transports import Sources
from latentbank.bank import MemoryBank
from latentbank.capabilities import Knowledge, Retrieving
from latentbank.documents.conditions import Conditions
from latentbank.documents.ends import whole_characters
from latentbank.documents.facts import Triple
from latentbank.errors import InputError
from latentbank.method import Method

__all__ = ["ANSWERS", "QUALITY", "Asking"]

QUALITY = "fast"  # of `answering.QUALITIES`
ANSWERS = DecodingConfig(max_new_tokens=48, whole_words=True)  # where nothing else is asked for


class Asking(ABC):
    """Asks `method`, which reads `bank` for `backbone`."""

    method: Method
    backbone: Backbone
    bank: MemoryBank
    _conversation: Chat | None = None

    @overload
    def chat(
        self,
        messages: Sequence[Mapping[str, Any]] | str,
        *,
        stream: Literal[False] = False,
        style: str = ...,
        decoding: DecodingConfig | None = ...,
        memory: bool = ...,
        read_documents: int = ...,
        quality: str = ...,
        abstain_at: float | None = ...,
    ) -> ChatAnswer: ...

    @overload
    def chat(
        self,
        messages: Sequence[Mapping[str, Any]] | str,
        *,
        stream: Literal[True],
        style: str = ...,
        decoding: DecodingConfig | None = ...,
        memory: bool = ...,
        read_documents: int = ...,
        quality: str = ...,
        abstain_at: float | None = ...,
    ) -> ChatStream: ...

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]] | str,
        *,
        style: str = "chat",
        stream: bool = False,
        decoding: DecodingConfig | None = None,
        memory: bool = True,
        read_documents: int = 3,
        quality: str = QUALITY,
        abstain_at: float | None = None,
    ) -> ChatAnswer | ChatStream:
        """The answer to the last message of a conversation, with numbered sources.

        `messages`: [{"role": "user", "content": "…"}, …] as in OpenAI's API; a text is one message.
        The question is resolved against the turns before it: "And where does she live?" is
        retrieved with the name that was spoken of.

        `style`: "short" is a few words, as `ask` answers. "sentence" is one whole sentence. "chat"
        is as long as it takes, with "[1]" behind what a document says; up to `read_documents`
        documents are read together, in the order of their times. Without `decoding` an answer has
        at most 48, 64 or 256 tokens, and a quarter of the model's context.

        With `stream` the result is a `ChatStream`: its pieces are the text as it comes, its
        `answer` is whole after the last piece. Other threads wait until then. Messages that do not
        fit into the model's context are left out, the oldest first; `trimmed` counts them.
        `abstain_at` as for `answers`; the text is then "Not in memory."

        Raises:
            UnknownNameError: an unknown style or quality.
            InputError: messages that cannot be read, or a question longer than the context.
        """
        if abstain_at is not None and self.method.calibration is not None:
            quality = self.method.calibration.quality
        turn = Turn(
            as_messages(messages),
            style,
            decoding,
            memory,
            as_count(read_documents, "read_documents"),
            quality,
            None if abstain_at is None else self._least_confidence(abstain_at),
        )
        growing = ChatStream(self._chatting(turn))
        if stream:
            return growing
        for _ in growing:
            pass
        assert growing.answer is not None
        return growing.answer

    def _chatting(self, turn: Turn) -> Generator[ChatAnswer, None, None]:
        with self.backbone.exclusive():
            self._follow()
            if self._conversation is None:
                self._conversation = Chat(self.method)
            for answer in self._conversation.answer(turn):
                yield answer
            self._note_hits([[(one.entry, 1.0) for one in answer.citations]])

    def chats(
        self,
        conversations: Sequence[Sequence[Mapping[str, Any]] | str],
        *,
        style: str = "chat",
        decoding: DecodingConfig | None = None,
        memory: bool = True,
        quality: str = QUALITY,
    ) -> Generator[ChatAnswer, None, None]:
        """The answers to several conversations, in their order; see `chat`.

        What they have in common is computed together, so it takes less time than one by one.
        """
        turns = [
            Turn(as_messages(messages), style, decoding, memory, quality=quality)
            for messages in conversations
        ]
        with self.backbone.exclusive():
            self._follow()
            if self._conversation is None:
                self._conversation = Chat(self.method)
            for answer in self._conversation.answers(turns):
                self._note_hits([[(one.entry, 1.0) for one in answer.citations]])
                yield answer

    @abstractmethod
    def _follow(self, own: bool = False) -> None:
        """Takes in what others wrote to the bank since the last look."""

    def ask(
        self,
        question: str,
        decoding: DecodingConfig | None = None,
        memory: bool = True,
        quality: str = QUALITY,
        abstain_at: float | None = None,
    ) -> Answer:
        """The answer to one question, with the documents that it was read from; see `answers`."""
        options = {"quality": quality, "abstain_at": abstain_at}
        return self.ask_many([question], decoding, memory, **options)[0]  # type: ignore[arg-type]

    def stream(
        self,
        question: str,
        decoding: DecodingConfig | None = None,
        memory: bool = True,
        quality: str = QUALITY,
    ) -> AnswerStream:
        """The answer to one question as text that comes piece by piece; see `ask`.

        Other threads wait until the stream has come to its end or is closed.
        """
        return AnswerStream(self._growing(question, decoding or ANSWERS, memory, quality))

    def _growing(
        self, question: str, decoding: DecodingConfig, memory: bool, quality: str
    ) -> Generator[Answer, None, None]:
        [text] = as_questions([question])
        with self.backbone.exclusive():
            check_questions(self.backbone, [text], decoding)
            self._follow()
            for answer in stream_answer(self.method, text, decoding, memory, quality):
                yield self._judged(answer, 0.0) if memory and self._judges(quality) else answer
            self._note_hits([answer.documents])

    def ask_many(
        self,
        questions: Sequence[str],
        decoding: DecodingConfig | None = None,
        memory: bool = True,
        documents: Sequence[str] | None = None,
        batch: int = ASKED_TOGETHER,
        quality: str = QUALITY,
        abstain_at: float | None = None,
    ) -> list[Answer]:
        """Answers to questions, in their order; see `answers`."""
        questions = as_questions(questions)
        answers: dict[int, Answer] = {}
        for answered in self.answers(
            questions, decoding, memory, documents, batch, quality, abstain_at
        ):
            answers.update(answered)
        return [answers[i] for i in range(len(questions))]

    def answers(
        self,
        questions: Sequence[str],
        decoding: DecodingConfig | None = None,
        memory: bool = True,
        documents: Sequence[str] | None = None,
        batch: int = ASKED_TOGETHER,
        quality: str = QUALITY,
        abstain_at: float | None = None,
    ) -> Iterator[dict[int, Answer]]:
        """Answers as they come, batch by batch: position of the question → answer.

        `documents` names the document to read for each question; without it the method retrieves.
        With `memory` False the backbone answers closed book. Without `decoding` an answer has at
        most 48 tokens and ends at a word. Questions that read the same document
        or have a like length are asked together.

        `quality`: what decides between several documents that may hold the answer. "fast": how well
        they fit the question and how sure the first token is. "best": how sure the whole answer is;
        it takes longer.

        `abstain_at`: the share of unanswerable questions that may get an answer, such as 0.05. An
        answer that is not sure enough for that is empty and has `abstained`. The quality is then
        that of the adapter's calibration; only there an answer has a `probability`.

        Raises:
            UnknownNameError: `quality` is neither of the two.
            InputError: a question that is empty or does not fit into the backbone's context;
                `abstain_at` for an adapter without a calibration.
        """
        least = self._least_confidence(abstain_at)
        if abstain_at is not None and self.method.calibration is not None:
            quality = self.method.calibration.quality
        questions, decoding = as_questions(questions), decoding or ANSWERS
        if documents is not None and len(documents) != len(questions):
            raise InputError(
                f"expected one document for each of the {len(questions)} questions, "
                f"got {len(documents)}"
            )
        with self.backbone.exclusive():
            check_questions(self.backbone, questions, decoding)
        batch = as_count(batch, "batch")
        near = self._places(questions) if memory and documents is None else None
        for part in question_batches(questions, documents, batch, near):
            given = None if documents is None else [documents[i] for i in part]
            asked = [questions[i] for i in part]
            with self.backbone.exclusive():
                self._follow()
                answers = answer_batch(self.method, asked, given, decoding, memory, quality)
                if memory and documents is None and self._judges(quality):
                    answers = [self._judged(one, least) for one in answers]
                self._note_hits([one.documents for one in answers])
            yield dict(zip(part, answers, strict=True))

    def _places(self, questions: Sequence[str]) -> list[tuple[int, ...]] | None:
        """Where the first document of each question stands in the bank."""
        method = self.method
        if len(questions) <= ASKED_TOGETHER or not isinstance(method, Retrieving):
            return None
        with self.backbone.exclusive():
            self._follow()
            rows = method.retriever.rank(questions, 1)
            return [self.bank.age(row[0][0])[1:] if row else () for row in rows]

    def _least_confidence(self, abstain_at: float | None) -> float:
        """The confidence to answer from; 0 where every answer is given."""
        if abstain_at is None:
            return 0.0
        calibration = self.method.calibration
        if calibration is None:
            raise InputError(
                f"the adapter of method '{self.method.name}' has no calibration, so it is not "
                "known where to abstain; fit one with scripts/fit_calibration.py"
            )
        return calibration.threshold(abstain_at)

    def _judges(self, quality: str) -> bool:
        """Whether the adapter's calibration is of this quality."""
        calibration = self.method.calibration
        return calibration is not None and calibration.quality == quality

    def _judged(self, answer: Answer, least: float) -> Answer:
        """The answer with its probability; without text where it is not sure enough."""
        calibration = self.method.calibration
        if calibration is not None:
            answer = replace(answer, probability=calibration.of(answer.confidence))
        if answer.confidence >= least:
            return answer
        return replace(
            answer, text="", documents=(), from_memory=False, superseded=(), abstained=True
        )

    def search(self, question: str, top: int = 10) -> list[tuple[str, float]]:
        """(entry, score) of the `top` entries that fit a question, best first.

        The score is the share of the question's words that the text holds, in [0, 1].

        Raises:
            InputError: the method does not retrieve.
        """
        method = self.method
        if not isinstance(method, Retrieving):
            raise InputError(f"The method {method.name!r} has no index to search.")
        with self.backbone.exclusive():
            self._follow()
            ids = [id for id, _ in method.retriever.rank([question], top)[0]]
            return list(zip(ids, method.retriever.matches([question], [ids])[0], strict=True))

    @contextmanager
    def within(self, conditions: Conditions) -> Iterator[int]:
        """Answers inside the block come only from documents that meet the conditions.

        Gives the number of entries that are meant. Raises InputError for a method that does not
        retrieve, and for a bank without a full ledger.
        """
        if not isinstance(self.method, Retrieving):
            raise InputError(
                f"method '{self.method.name}' reads all documents together; only methods that "
                "retrieve can be kept to some of them"
            )
        with self.backbone.exclusive():  # other threads ask of all documents
            retriever, chosen = self.method.retriever, self.bank.select(conditions)
            before, retriever.only = retriever.only, frozenset(chosen)
            try:
                yield len(chosen)
            finally:
                retriever.only = before

    def _note_hits(self, sources: Sources | Sequence[Any]) -> None:
        """Tells the bank which documents answered: those with at least half of the best share.

        A bank with a budget keeps them longer.
        """
        if self.method.bank is None or not any(sources):
            return
        best = [max((share for _, share in row), default=0.0) for row in sources]
        self.method.bank.note_hits(
            id
            for row, top in zip(sources, best, strict=True)
            for id, share in row
            if share > 0 and share >= top / 2
        )

    def generate(self, prompt: str, decoding: DecodingConfig | None = None) -> str:
        """Continues a prompt with the memory that `prompt` itself retrieves; no question template.

        Raises:
            InputError: the prompt is empty.
        """
        if not prompt.strip():
            raise InputError("The prompt is empty.")
        with self.backbone.exclusive():
            self._follow()
            conditioning = self.method.read([prompt])
            passage = conditioning.passages[0] if conditioning.passages else ""
            ids = self.backbone.encode([f"{passage}\n\n{prompt}" if passage else prompt])
            with conditioning.attach(self.backbone):
                found = generate(self.backbone, ids, decoding)[0]
            return found.text if found.finished else whole_characters(found.text)

    def text(self, id: str) -> str:
        """The text of an entry that an answer names, as it was read; empty where none is kept."""
        with self.backbone.exclusive():
            if isinstance(self.method, Knowledge):
                entity, property, value = self.method.fact(id) or ("", "", "")
                return Triple(entity, property, value).text if entity else value
            return self.method.text(id) if isinstance(self.method, Retrieving) else ""

    def prompt(self, question: str) -> str:
        """The text that the backbone sees for a question, memory aside."""
        with self.backbone.exclusive():
            self._follow()
            ids = self.method.read([question]).prompts(self.backbone, [question])[0]
            text: str = self.backbone.tokenizer.decode(ids)
        return text
