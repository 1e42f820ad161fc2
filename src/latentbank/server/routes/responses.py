"""`/v1/responses`, as OpenAI's clients expect it; nothing is stored between two calls."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from latentbank.server.failures import refusal_of
from latentbank.server.guards import json_bytes
from latentbank.server.routes.chat import usage
from latentbank.server.routes.common import (
    Served,
    Who,
    bank_of,
    connected,
    reply_json,
)
from latentbank.server.schemas import ResponseRequest
from latentbank.server.service import Reply, Waiting

__all__ = ["router"]

router = APIRouter(tags=["OpenAI"])


@router.post("/v1/responses")
async def respond(
    body: ResponseRequest, request: Request, service: Served, tenant: Who
) -> Response:
    """Answers the last message of the user from a bank."""
    bank = bank_of(service, tenant, body)
    turns = [("system", body.instructions)] if body.instructions else []
    if isinstance(body.input, str):
        turns.append(("user", body.input))
    else:
        turns += [(item.role, item.text()) for item in body.input]
    style, tokens = body.style or service.settings.style, body.max_output_tokens
    waiting = await service.ask(tenant, bank, turns, tokens, body.quality, body.memory, style)
    made = _Made(body)
    if body.stream:
        first = await connected(request, waiting.pieces.get(), waiting.stop)
        if first is None:
            await waiting.reply()
        return StreamingResponse(_events(made, waiting, first), media_type="text/event-stream")
    reply = await connected(request, waiting.reply(), waiting.stop)
    return reply_json(made.response("completed", reply))


class _Made:
    """A response under way."""

    def __init__(self, body: ResponseRequest) -> None:
        self.model, self.instructions = body.model, body.instructions
        self.id, self.message = f"resp_{uuid.uuid4().hex}", f"msg_{uuid.uuid4().hex}"
        self.created = int(time.time())
        self.given = {"temperature": body.temperature, "top_p": body.top_p}

    def part(self, reply: Reply | None) -> dict[str, Any]:
        """The text of the answer with the documents that it was read from."""
        text = "" if reply is None else reply.text
        cited = () if reply is None else reply.citations
        return {
            "type": "output_text",
            "text": text,
            "annotations": [
                {
                    "type": "file_citation",
                    "file_id": one.id,
                    "filename": one.title or one.source or one.id,
                    "index": len(text),
                }
                for one in cited
            ],
            "logprobs": [],
        }

    def item(self, status: str, reply: Reply | None = None) -> dict[str, Any]:
        """The message of the answer."""
        content = [] if reply is None else [self.part(reply)]
        return {
            "id": self.message,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": content,
        }

    def response(self, status: str, reply: Reply | None = None) -> dict[str, Any]:
        """The whole response."""
        counts = None
        if reply is not None:
            used = usage([reply])
            counts = {
                "input_tokens": used["prompt_tokens"],
                "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                "output_tokens": used["completion_tokens"],
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": used["total_tokens"],
            }
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "model": self.model,
            "instructions": self.instructions,
            "output": [] if reply is None else [self.item("completed", reply)],
            "error": None,
            "incomplete_details": None,
            "metadata": {},
            "parallel_tool_calls": False,
            "tool_choice": "none",
            "tools": [],
            "usage": counts,
            **self.given,
            **({} if reply is None else {"latentbank": reply.about()}),
        }


async def _events(made: _Made, waiting: Waiting, first: str | None) -> AsyncIterator[bytes]:
    number = 0

    def sent(kind: str, **values: Any) -> bytes:
        nonlocal number
        value = {"type": kind, "sequence_number": number, **values}
        number += 1
        return b"event: " + kind.encode() + b"\ndata: " + json_bytes(value) + b"\n\n"

    where = {"item_id": made.message, "output_index": 0, "content_index": 0}
    try:
        yield sent("response.created", response=made.response("in_progress"))
        yield sent("response.in_progress", response=made.response("in_progress"))
        yield sent("response.output_item.added", output_index=0, item=made.item("in_progress"))
        yield sent("response.content_part.added", **where, part=made.part(None))
        piece = first
        while piece is not None:
            yield sent("response.output_text.delta", **where, delta=piece, logprobs=[])
            piece = await waiting.pieces.get()
        reply: Reply = await waiting.reply()
        yield sent("response.output_text.done", **where, text=reply.text, logprobs=[])
        yield sent("response.content_part.done", **where, part=made.part(reply))
        item = made.item("completed", reply)
        yield sent("response.output_item.done", output_index=0, item=item)
        yield sent("response.completed", response=made.response("completed", reply))
    except Exception as error:
        said = refusal_of(error)
        yield sent("error", code=said.code, message=said.sentence, param=said.param)
    finally:
        waiting.stop()
