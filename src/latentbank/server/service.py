"""What the server does for a tenant, whoever asks: the HTTP endpoints, the page or an MCP client.

Turns waiting in threads into awaiting. Knows tenants, banks and questions; knows no HTTP.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from latentbank.answering import QUALITIES
from latentbank.answering.chat import STYLES, ChatAnswer, Citation
from latentbank.answering.chat.citing import snippet_of
from latentbank.backbone.generate import DecodingConfig
from latentbank.backbone.model import Backbone
from latentbank.bank import Receipt
from latentbank.documents.conditions import Conditions
from latentbank.documents.document import Document
from latentbank.documents.identity import document_id
from latentbank.errors import unknown
from latentbank.server.failures import Refusal
from latentbank.server.hosting.bank import Added, HostedBank
from latentbank.server.hosting.banks import Banks
from latentbank.server.hosting.contents import Contents, Kept
from latentbank.server.hosting.questions import SHORT, Answered, Question
from latentbank.server.settings import Settings, Tenant
from latentbank.server.tenants import Tenants

__all__ = ["Found", "Reply", "Service", "Waiting"]

T = TypeVar("T")


@dataclass(frozen=True)
class Found:
    """A document that fits a question, with the text of the entry that does."""

    id: str
    entry: str
    score: float
    title: str | None
    source: str | None
    time: str | None
    text: str


@dataclass(frozen=True)
class Reply:
    """An answer with what it was read from."""

    answered: Answered
    citations: tuple[Citation, ...]

    @property
    def text(self) -> str:
        """The answer's text."""
        return self.answered.answer.text

    def about(self) -> dict[str, Any]:
        """What an answer says beyond its text, as JSON."""
        answer = self.answered.answer
        return {
            "citations": [asdict(one) for one in self.citations],
            "confidence": round(answer.confidence, 4),
            "from_memory": answer.from_memory,
            "superseded": list(answer.superseded),
            "seconds": round(answer.seconds, 4),
        }


@dataclass(frozen=True)
class Waiting:
    """A question that is being answered: its text as it comes, then the reply."""

    pieces: asyncio.Queue[str | None]
    reply: Callable[[], Any]
    stop: Callable[[], None]

    async def text(self) -> AsyncIterator[str]:
        """The pieces of the text; ends with the answer, or raises what went wrong."""
        while (piece := await self.pieces.get()) is not None:
            yield piece


class Service:
    """The server without its protocol."""

    def __init__(self, settings: Settings, loaded: Backbone | None = None) -> None:
        self.settings = settings
        self.tenants = Tenants(settings.tenants)
        self.banks = Banks(settings, loaded)
        self.started = time.time()
        self.counts: dict[str, int] = {}

    async def close(self) -> None:
        """Ends what runs, then closes the banks."""
        await asyncio.to_thread(self.banks.close)

    @property
    def model_name(self) -> str:
        """The name of the model without memory."""
        return Path(self.banks.engine.backbone_name).name

    def count(self, name: str, number: int = 1) -> None:
        """Adds to a figure of /metrics; called in the event loop only."""
        self.counts[name] = self.counts.get(name, 0) + number

    # ---- asking

    async def ask(
        self,
        tenant: Tenant,
        bank: str | None,
        messages: str | Sequence[tuple[str, str]],
        max_tokens: int | None = None,
        quality: str | None = None,
        memory: bool = True,
        style: str = SHORT,
    ) -> Waiting:
        """Starts to answer a question, or the last message of a conversation.

        `bank` None: closed book. Raises Refusal, InputError, UnknownNameError.
        """
        limits = self.settings.limits
        turns = (("user", messages),) if isinstance(messages, str) else tuple(messages)
        if not turns:
            raise Refusal(400, "invalid_input", "There is no message to answer.", "messages")
        if style not in STYLES:
            raise unknown("style", style, STYLES)
        chosen = quality or self.settings.quality
        if chosen not in QUALITIES:
            raise unknown("quality", chosen, QUALITIES)
        length = sum(len(text) for _, text in turns)
        if length > limits.question_characters:
            raise Refusal(
                413,
                "question_too_long",
                f"A conversation may have {limits.question_characters} characters, got {length}.",
            )
        if max_tokens is not None and max_tokens > limits.answer_tokens:
            raise Refusal(
                400,
                "too_many_tokens",
                f"An answer may have {limits.answer_tokens} tokens, asked for {max_tokens}.",
                "max_tokens",
            )
        if bank is not None and not self.banks.exists(tenant, bank):
            raise Refusal(404, "bank_not_found", f"There is no bank {bank[:64]!r}.")
        self.tenants.asks(tenant)
        hosted = None if bank is None else self.banks.take(tenant, bank)
        try:
            return await self._submit(hosted, turns, style, max_tokens, chosen, memory)
        except BaseException:
            if hosted is not None:
                self.banks.give_back(hosted)
            raise

    async def _submit(
        self,
        hosted: HostedBank | None,
        turns: tuple[tuple[str, str], ...],
        style: str,
        tokens: int | None,
        quality: str,
        memory: bool,
    ) -> Waiting:
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[str | None] = asyncio.Queue()
        question = Question(
            hosted if hosted is not None else self.banks.plain,
            turns,
            style,
            None if tokens is None else DecodingConfig(max_new_tokens=tokens, whole_words=True),
            memory and hosted is not None,
            quality,
            time.monotonic() + self.settings.limits.request_seconds,
            lambda piece: _tell(loop, pieces, piece),
        )
        asker = await asyncio.to_thread(self.banks.asker, hosted)
        asker.submit(question)
        self.count("questions")

        def done(_: Future[Answered]) -> None:
            if hosted is not None:
                self.banks.give_back(hosted)
            _tell(loop, pieces, None)

        question.future.add_done_callback(done)

        async def reply() -> Reply:
            answered = await asyncio.wrap_future(question.future)
            self.count("answer_tokens", answered.answer_tokens)
            if hosted is None:
                return Reply(answered, ())
            return await asyncio.to_thread(_reply, hosted, answered)

        return Waiting(pieces, reply, question.gone.set)

    async def answer(self, *args: Any, **options: Any) -> Reply:
        """As `ask`, waiting for the whole answer; a caller that is cancelled stops it."""
        waiting = await self.ask(*args, **options)
        try:
            reply: Reply = await waiting.reply()
        except BaseException:
            waiting.stop()
            raise
        return reply

    async def search(self, tenant: Tenant, bank: str, question: str, top: int) -> list[Found]:
        """The documents that fit a question, best first."""
        if not question.strip():
            raise Refusal(400, "invalid_input", "The question is empty.", "query")
        if len(question) > self.settings.limits.question_characters:
            raise Refusal(413, "question_too_long", "The question is too long.", "query")
        async with self.lease(tenant, bank) as hosted:
            self.tenants.asks(tenant)
            asker = await asyncio.to_thread(self.banks.asker, hosted)
            call = asker.call(lambda: hosted.reader().search(question, top))
            found = await asyncio.wrap_future(call)
            self.count("searches")
            contents = await asyncio.to_thread(hosted.contents)
            return await asyncio.to_thread(lambda: [_found(contents, *one) for one in found])

    # ---- banks and documents

    @asynccontextmanager
    async def lease(self, tenant: Tenant, bank: str) -> AsyncIterator[HostedBank]:
        """A bank of the tenant; Refusal 404 for every other name."""
        hosted = await asyncio.to_thread(self.banks.take, tenant, bank)
        try:
            yield hosted
        finally:
            self.banks.give_back(hosted)

    async def look(self, tenant: Tenant, bank: str, work: Callable[[HostedBank, Contents], T]) -> T:
        """What `work` finds in a bank, in a thread of its own."""
        async with self.lease(tenant, bank) as hosted:
            return await asyncio.to_thread(lambda: work(hosted, hosted.contents()))

    async def add(self, tenant: Tenant, bank: str, documents: Sequence[Document]) -> Added:
        """Writes documents; returns when they are durable."""
        limit = self.settings.limits.document_bytes
        for place, document in enumerate(documents):
            size = len(document.text.encode())
            if size > limit:
                raise Refusal(
                    413,
                    "document_too_long",
                    f"Document {place + 1} has {size} bytes; a text may have {limit}.",
                )
        async with self.lease(tenant, bank) as hosted:
            self.tenants.writes(tenant)
            added = await _shielded(hosted.add(documents))
        self.count("documents_written", len(documents))
        return added

    async def delete(
        self,
        tenant: Tenant,
        bank: str,
        ids: Sequence[str] | None = None,
        conditions: Conditions | None = None,
    ) -> Receipt:
        """Deletes documents by id or by conditions."""
        async with self.lease(tenant, bank) as hosted:
            self.tenants.writes(tenant)
            receipt = await _shielded(hosted.delete(ids, conditions))
        self.count("documents_deleted", len(receipt.deleted))
        return receipt

    async def document(self, tenant: Tenant, bank: str, id: str) -> tuple[Kept, str]:
        """(document, its text). Raises Refusal 404."""

        def find(_: HostedBank, contents: Contents) -> tuple[Kept, str]:
            kept = contents.get(id)
            if kept is None:
                raise Refusal(404, "document_not_found", "There is no such document.")
            return kept, contents.text(kept.entries)

        return await self.look(tenant, bank, find)

    async def stats(self, tenant: Tenant, bank: str) -> dict[str, Any]:
        """Documents, bytes, budget, levels and components of a bank."""
        return await self.look(tenant, bank, _stats)

    async def snapshot(self, tenant: Tenant, bank: str) -> Path:
        """A consistent copy of a bank in a folder of its own; the caller removes both."""

        def copy(hosted: HostedBank, _: Contents) -> Path:
            folder = Path(tempfile.mkdtemp(prefix="latentbank-", dir=hosted.path.parent))
            hosted.snapshot(folder / f"{hosted.name}.bank")
            return folder / f"{hosted.name}.bank"

        return await self.look(tenant, bank, copy)


def _tell(loop: asyncio.AbstractEventLoop, pieces: asyncio.Queue[Any], piece: str | None) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(pieces.put_nowait, piece)


async def _shielded(future: Future[T]) -> T:
    """Waits; a caller that goes away does not undo a write that is under way."""
    return await asyncio.shield(asyncio.wrap_future(future))


def _reply(hosted: HostedBank, answered: Answered) -> Reply:
    answer, contents = answered.answer, hosted.contents()
    if isinstance(answer, ChatAnswer):
        return Reply(answered, answer.citations)
    cited = []
    for number, (entry, _) in enumerate(answer.documents, start=1):
        one = _found(contents, entry, 0.0)
        snippet = snippet_of(one.text, answer.text)
        cited.append(
            Citation(number, one.id, entry, one.title, one.source, one.time, snippet, True)
        )
    return Reply(answered, tuple(cited))


def _found(contents: Contents, entry: str, score: float) -> Found:
    said = contents.describe(entry)
    title = said["metadata"].get("title")
    return Found(
        document_id(entry),
        entry,
        round(score, 4),
        title if isinstance(title, str) else None,
        said["source"],
        said["time"],
        contents.text([entry]),
    )


def _stats(hosted: HostedBank, contents: Contents) -> dict[str, Any]:
    bank = contents.bank
    footprint = asdict(bank.footprint())
    size = sum(
        os.stat(file).st_size
        for tail in ("", "-wal")
        if (file := hosted.path.with_name(hosted.path.name + tail)).exists()
    )
    return {
        "name": hosted.name,
        "method": bank.fingerprint.method,
        "model": bank.fingerprint.backbone.split(":")[0],
        "documents": len(contents.documents()),
        "entries": len(bank),
        "bytes": size,
        "budget_bytes": bank.budget_bytes,
        "ledger": bank.settings.ledger,
        "policy": bank.settings.policy,
        "levels": contents.levels(),
        "footprint": footprint,
        "root_hash": bank.root_hash(),
    }
