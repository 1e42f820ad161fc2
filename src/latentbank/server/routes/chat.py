"""`/v1/chat/completions`, `/v1/completions` and `/v1/models`, as OpenAI's clients expect them.

A bank is a model. What an answer says beyond OpenAI's fields stands under `latentbank`.
"""

from __future__ import annotations

import re
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from latentbank.server.failures import Refusal, refusal_of
from latentbank.server.guards import json_bytes
from latentbank.server.hosting.questions import SHORT
from latentbank.server.routes.common import (
    Served,
    Who,
    bank_of,
    connected,
    reply_json,
)
from latentbank.server.schemas import ChatRequest, CompletionRequest
from latentbank.server.service import Reply, Service, Waiting

__all__ = ["Ends", "cited_addresses", "completion", "event", "router", "usage"]

router = APIRouter(tags=["OpenAI"])
_END = b"data: [DONE]\n\n"


class Ends:
    """Cuts a growing text at the first of some stop texts."""

    def __init__(self, stop: str | list[str] | None) -> None:
        self._stops = [one for one in ([stop] if isinstance(stop, str) else stop or ()) if one]
        self._held = max((len(one) for one in self._stops), default=1) - 1
        self._text, self._sent, self.found = "", 0, False

    def take(self, piece: str, last: bool = False) -> str:
        """The next part of the text that can be shown."""
        self._text += piece
        places = [at for one in self._stops if (at := self._text.find(one)) >= 0]
        if places:
            self._text, self.found = self._text[: min(places)], True
        end = len(self._text) if last or self.found else max(0, len(self._text) - self._held)
        shown, self._sent = self._text[self._sent : end], max(self._sent, end)
        return shown


@router.get("/v1/models")
async def models(service: Served, tenant: Who) -> Response:
    """The banks of the tenant, and the model without memory."""
    names = [*service.banks.names(tenant), service.model_name]
    return reply_json({"object": "list", "data": [_model(service, name) for name in names]})


@router.get("/v1/models/{model}")
async def model(model: str, service: Served, tenant: Who) -> Response:
    """One of them."""
    if model != service.model_name and not service.banks.exists(tenant, model):
        raise Refusal(404, "model_not_found", f"There is no bank {model[:64]!r}.", "model")
    return reply_json(_model(service, model))


def _model(service: Service, name: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": int(service.started),
        "owned_by": "latentbank",
    }


@router.post("/v1/chat/completions")
async def chat(body: ChatRequest, request: Request, service: Served, tenant: Who) -> Response:
    """Answers the last message of the user from a bank."""
    bank = bank_of(service, tenant, body)
    turns = [(message.role, message.text()) for message in body.messages]
    tokens = body.max_completion_tokens or body.max_tokens
    style = body.style or service.settings.style
    waiting = await service.ask(tenant, bank, turns, tokens, body.quality, body.memory, style)
    form = _Chat(body.model, bank, int(time.time()))
    if body.stream:
        counted = bool(body.stream_options and body.stream_options.include_usage)
        return await _streamed(request, waiting, form, Ends(body.stop), counted)
    reply = await connected(request, waiting.reply(), waiting.stop)
    return reply_json(form.whole([reply], [_cut(reply, body.stop)]))


@router.post("/v1/completions")
async def complete(
    body: CompletionRequest, request: Request, service: Served, tenant: Who
) -> Response:
    """Answers a prompt, or each of several, from a bank."""
    bank = bank_of(service, tenant, body)
    prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
    if not 1 <= len(prompts) <= service.settings.limits.together:
        most = service.settings.limits.together
        raise Refusal(400, "invalid_value", f"prompt: expected 1 to {most} texts.", "prompt")
    if body.stream and len(prompts) > 1:
        raise Refusal(400, "invalid_value", "A stream has one prompt.", "prompt")
    form = _Text(body.model, bank, int(time.time()))
    begun: list[Waiting] = []
    try:
        for text in prompts:
            style = body.style or SHORT
            begun.append(
                await service.ask(
                    tenant, bank, text, body.max_tokens, body.quality, body.memory, style
                )
            )
    except BaseException:
        for one in begun:
            one.stop()
        raise
    if body.stream:
        counted = bool(body.stream_options and body.stream_options.include_usage)
        return await _streamed(request, begun[0], form, Ends(body.stop), counted)

    def stop() -> None:
        for one in begun:
            one.stop()

    replies = [await connected(request, one.reply(), stop) for one in begun]
    return reply_json(form.whole(replies, [_cut(reply, body.stop) for reply in replies]))


def completion(
    name: str, reply: Reply, created: int, stop: str | list[str] | None = None
) -> dict[str, Any]:
    """A whole chat completion of the bank `name`."""
    return _Chat(name, name, created).whole([reply], [_cut(reply, stop)])


def _cut(reply: Reply, stop: str | list[str] | None) -> str:
    return Ends(stop).take(reply.text, last=True)


def usage(replies: Sequence[Reply]) -> dict[str, int]:
    """Tokens of questions and answers; passages that were read are not counted."""
    asked = sum(one.answered.question_tokens for one in replies)
    said = sum(one.answered.answer_tokens for one in replies)
    return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}


def cited_addresses(reply: Reply, bank: str | None, text: str) -> list[dict[str, Any]]:
    """The documents of an answer as OpenAI's citations of addresses on this server.

    A number in the text, such as "[1]", is where its citation stands; else it is the whole text.
    """
    made = []
    for one in reply.citations:
        mark = f"[{one.number}]"
        places = [(at, at + len(mark)) for at in _all_places(text, mark)]
        for start, end in places or [(0, len(text))]:
            address = f"/v1/banks/{quote(bank or '', safe='')}/documents/{quote(one.id, safe='')}"
            citation = {
                "start_index": start,
                "end_index": end,
                "title": one.title or one.source or one.id,
                "url": address,
            }
            made.append({"type": "url_citation", "url_citation": citation})
    return made


def _all_places(text: str, part: str) -> list[int]:
    return [match.start() for match in re.finditer(re.escape(part), text)]


class _Form(ABC):
    """How a kind of completion looks."""

    kind, chunk, start = "", "", ""

    def __init__(self, model: str, bank: str | None, created: int) -> None:
        self.model, self.bank, self.created = model, bank, created
        self.id = f"{self.start}{uuid.uuid4().hex}"

    def outer(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }

    def whole(self, replies: Sequence[Reply], texts: Sequence[str]) -> dict[str, Any]:
        """A complete response."""
        choices = [
            {
                "index": place,
                "finish_reason": "stop",
                "logprobs": None,
                **self.choice(reply, text),
            }
            for place, (reply, text) in enumerate(zip(replies, texts, strict=True))
        ]
        made = self.outer(self.kind, choices)
        return {**made, "usage": usage(replies), "latentbank": replies[0].about()}

    def piece(self, text: str | None, first: bool = False) -> dict[str, Any]:
        """One chunk of a stream; None: the last one."""
        done = "stop" if text is None else None
        choice = {"index": 0, "finish_reason": done, "logprobs": None, **self.delta(text, first)}
        return self.outer(self.chunk, [choice])

    @abstractmethod
    def choice(self, reply: Reply, text: str) -> dict[str, Any]:
        """The whole answer as a choice."""

    @abstractmethod
    def delta(self, text: str | None, first: bool) -> dict[str, Any]:
        """What a chunk of a stream adds; None: the last one."""


class _Chat(_Form):
    kind, chunk, start = "chat.completion", "chat.completion.chunk", "chatcmpl-"

    def choice(self, reply: Reply, text: str) -> dict[str, Any]:
        cited = cited_addresses(reply, self.bank, text)
        message = {"role": "assistant", "content": text, "refusal": None, "annotations": cited}
        return {"message": message}

    def delta(self, text: str | None, first: bool) -> dict[str, Any]:
        role = {"role": "assistant"} if first else {}
        return {"delta": role if text is None else {**role, "content": text}}


class _Text(_Form):
    kind, chunk, start = "text_completion", "text_completion", "cmpl-"

    def choice(self, reply: Reply, text: str) -> dict[str, Any]:
        return {"text": text}

    def delta(self, text: str | None, first: bool) -> dict[str, Any]:
        return {"text": text or ""}


def event(value: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + json_bytes(value) + b"\n\n"


async def _streamed(
    request: Request, waiting: Waiting, form: _Form, ends: Ends, counted: bool
) -> Response:
    """A stream of chunks. What fails before the first text is an error with its own status."""
    first = await connected(request, waiting.pieces.get(), waiting.stop)
    if first is None:
        await waiting.reply()  # raises what went wrong; an empty answer goes on

    async def chunks() -> AsyncIterator[bytes]:
        try:
            yield event(form.piece("", first=True))
            piece = first
            while piece is not None:
                if shown := ends.take(piece):
                    yield event(form.piece(shown))
                if ends.found:
                    waiting.stop()
                piece = await waiting.pieces.get()
            if rest := ends.take("", last=True):
                yield event(form.piece(rest))
            last = form.piece(None)
            if not ends.found:
                reply: Reply = await waiting.reply()
                last["latentbank"] = reply.about()
                if counted:
                    last["usage"] = usage([reply])
            yield event(last)
        except Exception as error:
            yield event(refusal_of(error).body())
        finally:
            waiting.stop()
        yield _END

    return StreamingResponse(chunks(), media_type="text/event-stream")
