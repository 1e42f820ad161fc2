"""One turn of a conversation: documents for its question, and an answer with sources.

A method with trained weights answers facts shortly; the sentence of the document that says so is
the answer then. Any other model answers in its own chat format. Knows methods through their
contract.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from latentbank.answering import Answer, answer_batch, check_questions, stream_answer
from latentbank.answering.chat.citing import ChatAnswer, Citation, cited, snippet_of
from latentbank.answering.chat.growing import Growing
from latentbank.answering.chat.messages import Asked, Message, resolved
from latentbank.answering.chat.prompting import Fitted, Passage
from latentbank.answering.chat.reading import (
    Found,
    PromptReader,
    find_passages,
    is_short,
    passage_of,
)
from latentbank.answering.chat.remote import RemoteReader
from latentbank.answering.chat.sentences import (
    as_sentence,
    asks_fact,
    parts_of,
    saying,
    sentences_asked,
)
from latentbank.answering.reading import Reading
from latentbank.backbone.endpoint import EndpointBackbone
from latentbank.backbone.generate import DecodingConfig
from latentbank.capabilities import Retrieving, Trained
from latentbank.documents.identity import document_id
from latentbank.errors import unknown
from latentbank.method import Method

__all__ = ["STYLES", "Chat", "Turn"]

STYLES = ("short", "sentence", "chat")
"""How an answer is said. `short`: a few words. `sentence`: one whole sentence. `chat`: as long as
it takes."""
NOT_IN_MEMORY = "Not in memory."
TOKENS = {"short": 48, "sentence": 64, "chat": 256}
_INSTRUCTIONS = {"short": "", "sentence": "Answer in one full sentence.", "chat": ""}


@dataclass(frozen=True)
class Turn:
    """A turn: its messages, and how it is to be answered; see `Asking.chat`."""

    messages: Sequence[Message]
    style: str = "chat"
    decoding: DecodingConfig | None = None
    memory: bool = True
    read_documents: int = 3
    quality: str = "fast"
    least_confidence: float | None = None
    """Below it the answer is "Not in memory."; None: every answer is given."""

    def __post_init__(self) -> None:
        if self.style not in STYLES:
            raise unknown("style", self.style, STYLES)

    def limit(self, positions: int) -> DecodingConfig:
        """How to decode: at most a quarter of the model's positions where nothing is said."""
        most = min(TOKENS[self.style], max(1, positions // 4))
        return self.decoding or DecodingConfig(max_new_tokens=most, whole_words=True)


class Chat:
    """Answers turns from a method's memory. Keeps the documents of the last turns ready."""

    def __init__(self, method: Method) -> None:
        self._method, self._backbone = method, method.backbone
        self._reader: PromptReader | RemoteReader = (
            RemoteReader(method.backbone)
            if isinstance(method.backbone, EndpointBackbone)
            else PromptReader(method.backbone)
        )
        self._ready: dict[tuple[str, str], Answer] = {}  # (question, quality) → short answer

    def forget(self) -> None:
        """Forgets what was read lately."""
        self._reader.clear()

    def answer(self, turn: Turn) -> Iterator[ChatAnswer]:
        """The answer as it grows; the last one is whole, and no text is taken back.

        Raises:
            InputError: the question does not fit into the model's context.
            UnknownNameError: no such quality.
        """
        began, first = time.perf_counter(), 0.0
        asked = resolved(turn.messages)
        self._reader.keep(self._method.require_bank())
        for one in self._answers(turn, asked):
            first = first or time.perf_counter() - began
            taken = time.perf_counter() - began
            yield replace(one, seconds=taken, first_token_seconds=first)

    def answers(self, turns: Sequence[Turn]) -> Iterator[ChatAnswer]:
        """The whole answers to turns of several conversations, in their order.

        The short answers that their sentences are looked for with come from one batch.
        """
        self._ready = self._short_answers(turns)
        try:
            for turn in turns:
                *_, answer = self.answer(turn)
                yield answer
        finally:
            self._ready = {}

    def _short_answers(self, turns: Sequence[Turn]) -> dict[tuple[str, str], Answer]:
        """What `_best` would ask for, where no earlier turn chooses the documents."""
        if not isinstance(self._method, Retrieving) or not _answers_shortly(self._method):
            return {}
        wanted: dict[str, dict[str, None]] = {}
        for turn in turns:
            asked = resolved(turn.messages)
            if turn.memory and turn.style != "short" and self._is_fact(turn, asked):
                parts = parts_of(asked.question)
                if len(parts) > 1 or asked.query == asked.question:
                    wanted.setdefault(turn.quality, {}).update(dict.fromkeys(parts))
        found: dict[tuple[str, str], Answer] = {}
        decoding = Turn((), "short").limit(self._positions)
        for quality, questions in wanted.items():
            check_questions(self._backbone, list(questions), decoding)
            answers = answer_batch(self._method, list(questions), None, decoding, True, quality)
            found |= {(q, quality): one for q, one in zip(questions, answers, strict=True)}
        return found

    def _answers(self, turn: Turn, asked: Asked) -> Iterator[ChatAnswer]:
        method = self._method
        retrieves = isinstance(method, Retrieving)
        if turn.style == "short" or (turn.memory and not retrieves):
            yield from self._short(turn, asked)
        elif turn.memory and _answers_shortly(method) and self._is_fact(turn, asked):
            yield from self._sentences(turn, asked)
        else:
            found = Found()
            if turn.memory and isinstance(method, Retrieving):
                found = find_passages(method, asked, turn.read_documents)
                if found.passages and not any(one.text for one in found.passages):
                    yield from self._short(turn, asked)  # states, which no prompt can show
                    return
            yield from self._generated(turn, asked, found)

    def _is_fact(self, turn: Turn, asked: Asked) -> bool:
        return turn.style == "sentence" or asks_fact(asked.question)

    # ---- a few words

    def _short(self, turn: Turn, asked: Asked) -> Iterator[ChatAnswer]:
        decoding = turn.limit(self._positions)
        check_questions(self._backbone, [asked.question], decoding)
        told = turn.least_confidence is not None or turn.read_documents > 1
        if told or (asked.query != asked.question and isinstance(self._method, Retrieving)):
            one = self._best(turn, asked, decoding)
            doubtful = self._doubtful(turn, one)
            yield _unknown(asked) if doubtful else self._of(one, asked, one.text)
            return
        for one in stream_answer(self._method, asked.question, decoding, turn.memory, turn.quality):
            yield self._of(one, asked, one.text)

    def _doubtful(self, turn: Turn, answer: Answer) -> bool:
        """Whether an answer is not sure enough to be given."""
        least = turn.least_confidence
        return turn.memory and least is not None and answer.confidence < least

    def _of(self, answer: Answer, asked: Asked, text: str) -> ChatAnswer:
        ids = [id for id, _ in answer.documents]
        return ChatAnswer(
            text,
            self._citations(self._passages(ids), answer.text, ()),
            answer.from_memory,
            answer.confidence,
            asked.question,
            superseded=answer.superseded,
        )

    # ---- the sentence that says it

    def _sentences(self, turn: Turn, asked: Asked) -> Iterator[ChatAnswer]:
        """A sentence for each question in the question."""
        parts = parts_of(asked.question)
        whole: ChatAnswer | None = None
        for part in parts:
            one = self._sentence(turn, Asked(part, asked.query if len(parts) == 1 else part))
            whole = one if whole is None else _joined(whole, one)
            yield replace(whole, question=asked.question)

    def _sentence(self, turn: Turn, asked: Asked) -> ChatAnswer:
        """The sentence of a document that holds the short answer, or one of the model's."""
        decoding = replace(turn, style="short", decoding=None).limit(self._positions)
        check_questions(self._backbone, [asked.question], decoding)
        answer = self._best(turn, asked, decoding)
        if self._doubtful(turn, answer):
            return _unknown(asked)
        own = replace(turn, style="sentence")
        if not answer.from_memory or not answer.text:
            return list(self._generated(own, asked, Found()))[-1]
        passages = self._passages([id for id, _ in answer.documents])
        said = saying(answer.text, asked.question, [one.text for one in passages])
        if said is None:  # the answer is not in the words of a document
            found = Found(tuple(passages), support=1.0)
            written = list(self._generated(own, asked, found))[-1].text
            holds = saying(answer.text, asked.question, [written]) is not None
            said = (written if holds else as_sentence(answer.text)), 0
        sentence, place = said
        marked = f"{sentence} [{place + 1}]" if turn.style == "chat" else sentence
        base = self._of(answer, asked, marked)
        numbers = (place + 1,) if turn.style == "chat" else ()
        return replace(base, citations=self._citations(passages, sentence, numbers))

    def _best(self, turn: Turn, asked: Asked, decoding: DecodingConfig) -> Answer:
        """The surest short answer: of one document, or of several short ones read together.

        Where earlier turns say what is asked for, their words choose the documents.
        """
        method = self._method
        if not turn.memory or not isinstance(method, Retrieving):
            options = None, decoding, turn.memory, turn.quality
            return answer_batch(method, [asked.question], *options)[0]
        found = Found()
        if asked.query != asked.question or turn.read_documents > 1:
            found = find_passages(method, asked, turn.read_documents)
        if asked.query == asked.question:
            options = None, decoding, True, turn.quality
            ready = self._ready.get((asked.question, turn.quality))
            best = ready or answer_batch(method, [asked.question], *options)[0]
        elif found.passages:
            best = self._of_each(asked, found, decoding)
        else:
            return answer_batch(method, [asked.question], None, decoding, False)[0]
        together = self._together(asked, found, decoding)
        return together if together and together.confidence > best.confidence else best

    def _of_each(self, asked: Asked, found: Found, decoding: DecodingConfig) -> Answer:
        """The surest answer of the documents that were found, each read alone."""
        ids = [one.entry for one in found.passages]
        answers = answer_batch(self._method, [asked.question] * len(ids), ids, decoding)
        sure = [one.confidence * w for one, w in zip(answers, found.weights, strict=True)]
        best = max(range(len(ids)), key=lambda i: sure[i])
        return replace(answers[best], confidence=sure[best])

    def _together(self, asked: Asked, found: Found, decoding: DecodingConfig) -> Answer | None:
        """The answer of several short documents, one after the other in the order of time."""
        method, texts = self._method, [one.text for one in found.passages]
        if len(texts) < 2 or not all(map(is_short, texts)) or not isinstance(method, Trained):
            return None
        if isinstance(self._backbone, EndpointBackbone):
            return None
        began = time.perf_counter()
        share = 1.0 / len(texts)
        sources = (tuple((one.entry, share) for one in found.passages),)
        read = replace(
            method.reading(),
            passages=(" ".join(texts),),
            sources=sources,
            support=(found.support,),
        )
        reading = Reading(method, [asked.question], read, decoding)
        with reading.attached():
            reading.run()
            [answer] = reading.answers([0])
        return replace(answer, seconds=time.perf_counter() - began)

    @property
    def _positions(self) -> int:
        return self._backbone.geometry.max_positions

    # ---- the model's own words

    def _generated(self, turn: Turn, asked: Asked, found: Found) -> Iterator[ChatAnswer]:
        if turn.memory and turn.least_confidence is not None and not found.passages:
            yield _unknown(asked)
            return
        decoding = turn.limit(self._positions)
        prompt = self._reader.prompt(
            turn.messages, found.passages, _INSTRUCTIONS[turn.style], decoding.max_new_tokens
        )
        texts = [one.text for one in prompt.passages]
        growing = Growing(
            (lambda sentence: cited(sentence, texts)) if turn.style == "chat" else None,
            sentences=1 if turn.style == "sentence" else sentences_asked(asked.question),
        )
        confidence, text = 0.0, ""
        for one, count in self._reader.stream(prompt, decoding):
            confidence = one.confidence * (found.support if texts else 1.0)
            near = not one.finished and count > decoding.max_new_tokens - 8
            text = growing.take(prompt.template.cut(one.text), one.finished, near)
            yield self._grown(prompt, asked, text, growing, confidence)
            if growing.ended:
                break
        if not growing.ended:
            text = growing.close()
            yield self._grown(prompt, asked, text, growing, confidence)

    def _grown(
        self, prompt: Fitted, asked: Asked, text: str, growing: Growing, confidence: float
    ) -> ChatAnswer:
        return ChatAnswer(
            text,
            self._citations(prompt.passages, text, tuple(growing.numbers)),
            bool(prompt.passages),
            confidence,
            asked.question,
            prompt.trimmed,
            finished=growing.ended,
        )

    # ---- sources

    def _passages(self, ids: Sequence[str]) -> list[Passage]:
        method, bank = self._method, self._method.require_bank()
        if isinstance(method, Retrieving):
            return [passage_of(method, bank, id) for id in ids]
        return [Passage(id, "") for id in ids]

    def _citations(
        self, passages: Sequence[Passage], answer: str, numbers: Sequence[int]
    ) -> tuple[Citation, ...]:
        bank = self._method.require_bank()
        rows = []
        for number, passage in enumerate(passages, start=1):
            entry = bank.get(passage.entry)
            title = None if entry is None else entry.metadata.get("title")
            rows.append(
                Citation(
                    number,
                    document_id(passage.entry),
                    passage.entry,
                    None if title is None else str(title),
                    None if entry is None else entry.source,
                    None if entry is None else entry.time,
                    snippet_of(passage.text, answer),
                    number in numbers,
                )
            )
        return tuple(rows)


def _answers_shortly(method: Method) -> bool:
    """Whether trained low-rank weights answer: they were trained on answers of a few words."""
    return isinstance(method, Trained) and bool(method.reading().transports)


def _unknown(asked: Asked) -> ChatAnswer:
    """What is said where the memory does not tell."""
    return ChatAnswer(NOT_IN_MEMORY, (), False, 0.0, asked.question, abstained=True)


def _joined(one: ChatAnswer, two: ChatAnswer) -> ChatAnswer:
    """Two answers as one; the documents of the second that the first has keep their numbers."""
    known = {citation.entry: citation.number for citation in one.citations}
    citations, text = list(one.citations), two.text
    for citation in reversed(two.citations):
        number = known.get(citation.entry)
        if number is None:
            number = len(one.citations) + sum(
                other.entry not in known for other in two.citations[: citation.number]
            )
        text = text.replace(f" [{citation.number}]", f" [\0{number}]")
    text = text.replace("\0", "")
    for citation in two.citations:
        if citation.entry in known:
            at = known[citation.entry] - 1
            citations[at] = replace(citations[at], cited=citations[at].cited or citation.cited)
        else:
            citations.append(replace(citation, number=len(citations) + 1))
    return replace(
        one,
        text=f"{one.text} {text}",
        citations=tuple(citations),
        from_memory=one.from_memory or two.from_memory,
        confidence=min(one.confidence, two.confidence),
        superseded=(*one.superseded, *two.superseded),
        abstained=one.abstained and two.abstained,
    )
