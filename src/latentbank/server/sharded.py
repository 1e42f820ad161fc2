"""One bank in several parts behind Ray Serve: each part finds documents, one replica reads them.

A question goes to every part at once. Their best documents compete in a small bank in memory, where
a word is as rare as in all parts together; so the answer is that of one bank. Knows banks and
questions; knows no tenants.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from latentbank.adapter import normalised_overrides
from latentbank.answering.asking import QUALITY
from latentbank.answering.chat import STYLES, as_messages, resolved
from latentbank.backbone.generate import DecodingConfig
from latentbank.bank import MemoryBank
from latentbank.capabilities import Retrieving
from latentbank.documents.document import Document
from latentbank.errors import InputError, unknown
from latentbank.integrations.common import Passage, passages
from latentbank.integrations.ray_ingest import start_ray
from latentbank.model import MemoryModel
from latentbank.parts.retrieval.lexical import SharedWords
from latentbank.server.failures import Refusal, refusal_of
from latentbank.server.guards import json_bytes
from latentbank.server.hosting.questions import Answered
from latentbank.server.routes.chat import completion
from latentbank.server.schemas import ChatRequest
from latentbank.server.service import Reply
from latentbank.server.settings import Limits

__all__ = ["QUALITY", "Door", "Found", "Part", "Reader", "application", "parts_of", "serve_parts"]

TOP = 32  # documents that a part sends for a question; 16 of all are reranked
_KEPT = 800  # documents that a reader keeps between questions; below `LEAST_COLLECTION`


@dataclass(frozen=True)
class Found:
    """What a part has for a question.

    `documents`: the best, in the order of writing. `counts`: how many of the part's `size` texts
    hold each content word of the question.
    """

    documents: tuple[Passage, ...]
    size: int
    counts: dict[str, int]


class Part:
    """A read-only bank that finds documents."""

    def __init__(self, bank: str) -> None:
        self._model = MemoryModel.open(bank, read_only=True, quick=True)
        if not isinstance(self._model.method, Retrieving):
            raise InputError(
                f"The method {self._model.method.name!r} keeps no texts to find; banks in parts "
                "need one that retrieves."
            )

    def find(self, query: str) -> Found:
        """The `TOP` documents that fit a question."""
        model = self._model
        assert isinstance(model.method, Retrieving)
        with model.backbone.exclusive():
            found = passages(model, query, TOP)
            found.sort(key=lambda one: model.bank.age(one.id))
            texts = model.method.retriever.texts
            return Found(tuple(found), len(texts), texts.counts(query))


class Reader:
    """A replica that reads what the parts find; it answers one question at a time."""

    def __init__(self, bank: str, parts: Sequence[Any]) -> None:
        """`bank`: one of the parts, for its adapter; `parts`: handles of `Part`."""
        with MemoryBank.open(bank, read_only=True) as one:
            self._model = MemoryModel.from_pretrained(
                str(one.get_meta("adapter")),
                backbone=str(one.get_meta("backbone")),
                overrides=normalised_overrides(one),
                quick=True,
            )
        self._parts = parts
        self._reading = asyncio.Lock()

    async def answer(
        self, turns: Sequence[tuple[str, str]], style: str, tokens: int | None, quality: str
    ) -> Reply:
        """The answer to the last message of a conversation."""
        if style not in STYLES:
            raise unknown("style", style, STYLES)
        messages = [{"role": role, "content": text} for role, text in turns]
        query = resolved(as_messages(messages)).query
        found = await asyncio.gather(*(part.find.remote(query) for part in self._parts))
        async with self._reading:
            return await asyncio.to_thread(self._read, messages, found, style, tokens, quality)

    def _read(
        self,
        messages: list[dict[str, str]],
        found: Sequence[Found],
        style: str,
        tokens: int | None,
        quality: str,
    ) -> Reply:
        ids = self._take(found)
        model, retriever = self._model, self._retriever
        decoding = None
        if tokens is not None:
            decoding = DecodingConfig(max_new_tokens=tokens, whole_words=True)
        with model.backbone.exclusive():
            retriever.only = ids
            try:
                answer = model.chat(
                    messages,
                    style=style,
                    decoding=decoding,
                    read_documents=1 if style == "short" else 3,
                    quality=quality,
                )
            finally:
                retriever.only = None
        asked = "\n".join(message["content"] for message in messages)
        return Reply(
            Answered(answer, *model.backbone.count_tokens([asked, answer.text])), answer.citations
        )

    @property
    def _retriever(self) -> Any:
        assert isinstance(self._model.method, Retrieving)
        return self._model.method.retriever

    def _take(self, found: Sequence[Found]) -> frozenset[str]:
        """Puts documents into the bank in memory; their ids."""
        documents = {one.id: one for part in found for one in part.documents}
        if len(self._model.bank) + len(documents) > _KEPT:
            self._model.close()
            self._model = MemoryModel(self._model.method)  # begins with an empty bank
        if not isinstance(self._retriever.texts, SharedWords):
            self._retriever.texts = SharedWords()
        counts: dict[str, int] = {}
        for part in found:
            for word, count in part.counts.items():
                counts[word] = counts.get(word, 0) + count
        self._retriever.texts.tell(sum(part.size for part in found), counts)
        self._model.write_pieces(
            [
                Document(one.text, id, one.time, one.source, one.metadata)
                for id, one in documents.items()
                if id not in self._model.bank
            ]
        )
        return frozenset(documents)


def parts_of(banks: Sequence[str | Path]) -> tuple[str, list[str]]:
    """(name, files) of a bank in parts: its files, or the folder that they are in.

    Raises:
        InputError: there is none.
    """
    files: list[Path] = []
    for one in map(Path, banks):
        files += sorted(one.glob("*.bank")) if one.is_dir() else [one]
    missing = [file for file in files if not file.is_file()]
    if not files or missing:
        raise InputError(f"There is no bank at {(missing or [Path(*banks[:1])])[0]}.")
    name = Path(banks[0]).name.removesuffix(".parts").removesuffix(".bank")
    return name, [str(file.absolute()) for file in files]


class Door:
    """Answers HTTP in OpenAI's form; `reader` is a handle of `Reader`."""

    def __init__(self, reader: Any, name: str, style: str, quality: str) -> None:
        self._reader, self._name = reader, name
        self._style, self._quality = style, quality

    async def __call__(self, request: Request) -> Response:
        """The response to any request."""
        try:
            return _json(await self._said(request))
        except Exception as error:
            cause = getattr(error, "cause", None)  # of an error in another process
            refusal = refusal_of(cause if isinstance(cause, Exception) else error)
            return _json(refusal.body(), refusal.status, refusal.headers)

    async def _said(self, request: Request) -> dict[str, Any]:
        asked = request.method, request.url.path
        if asked == ("GET", "/healthz"):
            return {"status": "ok"}
        if asked == ("GET", "/v1/models"):
            model = {"id": self._name, "object": "model", "created": 0, "owned_by": "latentbank"}
            return {"object": "list", "data": [model]}
        if asked == ("POST", "/v1/chat/completions"):
            return await self._chat(await request.body())
        raise Refusal(404, "not_found", "There is nothing at this address.")

    async def _chat(self, given: bytes) -> dict[str, Any]:
        """The completion that answers the last message of the user."""
        if len(given) > Limits().body_bytes:
            raise Refusal(413, "body_too_large", "The body is too large.")
        try:
            body = ChatRequest.model_validate_json(given)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))[:200] or "body"
            raise Refusal(400, "invalid_value", f"{place}: {first['msg'][:200]}.") from None
        if body.model != self._name:
            raise Refusal(404, "model_not_found", f"There is no bank {body.model[:64]!r}.")
        if body.stream:
            raise Refusal(400, "no_stream", "A bank in parts does not stream answers.")
        turns = [(message.role, message.text()) for message in body.messages]
        tokens = body.max_completion_tokens or body.max_tokens
        reply = await self._reader.answer.remote(
            turns, body.style or self._style, tokens, body.quality or self._quality
        )
        return completion(self._name, reply, int(time.time()), body.stop)


def _json(
    value: dict[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    return Response(json_bytes(value), status, headers, "application/json")


def application(name: str, banks: Sequence[str], replicas: int, style: str, quality: str) -> Any:
    """The application for `ray.serve.run`: a `Part` for each bank, `replicas` readers, one door."""
    serve: Any = import_module("ray.serve")

    def deployed(kind: type, label: str, cores: int, copies: int = 1) -> Any:
        made = serve.deployment(kind)
        options = {"num_replicas": copies, "ray_actor_options": {"num_cpus": cores}}
        return made.options(name=label, **options)

    parts = [deployed(Part, f"part-{i}", 0).bind(bank) for i, bank in enumerate(banks)]
    reader = deployed(Reader, "reader", 1, replicas).bind(banks[0], parts)
    return deployed(Door, "door", 0).bind(reader, name, style, quality)


def serve_parts(
    banks: Sequence[str],
    host: str,
    port: int,
    replicas: int,
    started: Callable[[str], None],
    *,
    address: str | None = None,
    style: str = "chat",
    quality: str = QUALITY,
    until: Callable[[], None] | None = None,
) -> None:
    """Serves a bank in parts until Ctrl-C, or until `until` returns; `started` gets the address.

    `address` names a running Ray cluster.

    Raises:
        InputError: Ray is not installed, or there is no bank.
    """
    name, files = parts_of(banks)
    ray = start_ray(replicas, address)
    serve: Any = import_module("ray.serve")
    serve.start(http_options={"host": host, "port": port})
    serve.run(application(name, files, replicas, style, quality), name=name, route_prefix="/")
    try:
        started(f"http://{host}:{port}")
        (until or _forever)()
    finally:
        serve.shutdown()
        if address is None:
            ray.shutdown()


def _forever() -> None:
    while True:
        time.sleep(3600)
