"""MCP: a bank as the memory of an agent or an editor, over standard input or HTTP at /mcp.

Tools: remember, recall, answer, forget, stats. Documents are resources. Over HTTP the bearer token
names the tenant, as for every other endpoint. Needs the extra `mcp`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, unquote

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ToolError
from mcp.server.transport_security import TransportSecuritySettings
from mcp.types import ToolAnnotations
from pydantic import Field
from starlette.routing import Route

from latentbank import __version__
from latentbank.documents.conditions import conditions_of
from latentbank.documents.document import Document
from latentbank.errors import InputError
from latentbank.server.failures import Refusal, refusal_of
from latentbank.server.guards import send_refusal
from latentbank.server.hosting.questions import SHORT
from latentbank.server.service import Service
from latentbank.server.settings import Settings, Tenant
from latentbank.sizes import parse_size

__all__ = ["build_mcp", "mount", "run_stdio"]

_MEMORY, _BUDGET = "memory", 8 << 20  # the bank that the first `remember` makes
_INSTRUCTIONS = (
    "A long-term memory of bounded size. Use remember for facts worth keeping, recall to look for "
    "what was kept, answer to have a small local model answer from it, forget to delete for good. "
    "A full memory lets its least valuable documents fade."
)
_READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
_ADDS = ToolAnnotations(
    read_only_hint=False, destructive_hint=False, idempotent_hint=True, open_world_hint=False
)
_DELETES = ToolAnnotations(
    read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
)
Bank = Annotated[str | None, Field(description="The bank; may be left out where there is one.")]


def build_mcp(service: Service) -> MCPServer[Any]:
    """The MCP server over a service."""
    server: MCPServer[Any] = MCPServer(
        "latentbank", instructions=_INSTRUCTIONS, version=__version__
    )
    tools = _Tools(service)
    for work, title, hints in (
        (tools.remember, "Remember a text", _ADDS),
        (tools.recall, "Find what was remembered", _READS),
        (tools.answer, "Answer from memory", _READS),
        (tools.forget, "Delete for good", _DELETES),
        (tools.stats, "Size and contents of the memory", _READS),
    ):
        server.tool(title=title, annotations=hints)(work)
    server.resource(
        "latentbank://{bank}/{id}", name="document", mime_type="text/plain",
        description="The text of a document, as far as the bank still keeps it.",
    )(tools.document)  # fmt: skip
    server.resource(
        "latentbank://{bank}", name="bank", mime_type="application/json",
        description="The newest documents of a bank.",
    )(tools.documents)  # fmt: skip
    return server


def address(bank: str, id: str) -> str:
    """The address of a document as a resource."""
    return f"latentbank://{quote(bank, safe='')}/{quote(id, safe='')}"


class _Tools:
    """What a client may call."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def remember(
        self,
        text: Annotated[str, Field(description="The text to keep, in whole sentences.")],
        ctx: Context[Any, Any],
        source: Annotated[str | None, Field(description="Where it comes from.")] = None,
        time: Annotated[str | None, Field(description="When it holds, as ISO 8601.")] = None,
        bank: Bank = None,
    ) -> dict[str, Any]:
        """Keeps a text in memory. The same text again changes nothing."""
        try:
            tenant = self._tenant(ctx)
            document = Document(text, None, time, source)
            name = await self._bank(tenant, bank, make=True)
            added = await self._service.add(tenant, name, [document])
        except Exception as error:
            raise _tool_error(error) from None
        return {
            "id": document.id,
            "bank": name,
            "uri": address(name, document.id),
            "known": added.known[0],
            "faded": list(added.faded),
            "forgotten": list(added.forgotten),
        }

    async def recall(
        self,
        query: Annotated[str, Field(description="A question or words.")],
        ctx: Context[Any, Any],
        limit: Annotated[int, Field(ge=1, le=50)] = 5,
        bank: Bank = None,
    ) -> dict[str, Any]:
        """Finds the texts in memory that fit a question, best first."""
        try:
            tenant = self._tenant(ctx)
            name = await self._bank(tenant, bank)
            found = await self._service.search(tenant, name, query, limit)
        except Exception as error:
            raise _tool_error(error) from None
        return {
            "documents": [
                {
                    "id": one.id,
                    "uri": address(name, one.id),
                    "text": one.text,
                    "source": one.source,
                    "time": one.time,
                    "score": one.score,
                }
                for one in found
            ]
        }

    async def answer(
        self,
        question: str,
        ctx: Context[Any, Any],
        style: Annotated[str, Field(description="short, sentence or chat")] = SHORT,
        bank: Bank = None,
    ) -> dict[str, Any]:
        """Answers a question from memory with a small local model, and names its sources."""
        try:
            tenant = self._tenant(ctx)
            name = await self._bank(tenant, bank)
            reply = await self._service.answer(tenant, name, question, style=style)
        except Exception as error:
            raise _tool_error(error) from None
        about = reply.about()
        for one in about["citations"]:
            one["uri"] = address(name, one["id"])
        return {"answer": reply.text, **about}

    async def forget(
        self,
        ctx: Context[Any, Any],
        ids: Annotated[list[str] | None, Field(description="Ids of documents.")] = None,
        source: Annotated[str | None, Field(description="Everything from this source.")] = None,
        before: Annotated[str | None, Field(description="Everything before this time.")] = None,
        bank: Bank = None,
    ) -> dict[str, Any]:
        """Deletes documents from memory for good and returns the receipt."""
        try:
            tenant = self._tenant(ctx)
            conditions = conditions_of((), source, None, before, None)
            if not ids and not conditions:
                raise InputError("Name ids, a source or a time.")
            name = await self._bank(tenant, bank)
            receipt = await self._service.delete(tenant, name, ids, conditions)
        except Exception as error:
            raise _tool_error(error) from None
        return {
            "deleted": list(receipt.deleted),
            "exact": receipt.exact,
            "remains": receipt.remains,
            "before": receipt.before,
            "after": receipt.after,
            "time": receipt.time,
        }

    async def stats(self, ctx: Context[Any, Any], bank: Bank = None) -> dict[str, Any]:
        """Documents, bytes, budget and levels of the memory."""
        try:
            tenant = self._tenant(ctx)
            name = await self._bank(tenant, bank)
            return await self._service.stats(tenant, name)
        except Exception as error:
            raise _tool_error(error) from None

    async def document(self, bank: str, id: str, ctx: Context[Any, Any]) -> str:
        """The text of a document."""
        try:
            _, text = await self._service.document(self._tenant(ctx), unquote(bank), unquote(id))
        except Exception as error:
            raise ResourceError(refusal_of(error).sentence) from None
        return text

    async def documents(self, bank: str, ctx: Context[Any, Any]) -> dict[str, Any]:
        """The newest documents of a bank."""
        name = unquote(bank)
        try:
            found, count = await self._service.look(
                self._tenant(ctx), name, lambda _, contents: contents.find()
            )
        except Exception as error:
            raise ResourceError(refusal_of(error).sentence) from None
        rows = [
            {"id": one.id, "uri": address(name, one.id), "source": one.source, "time": one.time}
            for one in found
        ]
        return {"count": count, "documents": rows}

    def _tenant(self, ctx: Context[Any, Any]) -> Tenant:
        """Over standard input: the first tenant, whose processes these are."""
        headers = ctx.headers
        if headers is None:
            return self._service.tenants.all[0]
        kind, _, token = (headers.get("authorization") or "").partition(" ")
        return self._service.tenants.of_token(token.strip() if kind.lower() == "bearer" else None)

    async def _bank(self, tenant: Tenant, bank: str | None, make: bool = False) -> str:
        """The bank that is meant; with `make` the first one is made."""
        if bank is not None:
            return bank
        names = await asyncio.to_thread(self._service.banks.names, tenant)
        if len(names) == 1:
            return names[0]
        if names:
            raise InputError(f"There are several banks; name one of {', '.join(names)}.")
        if not make:
            raise InputError("Nothing has been remembered yet.")
        budget = min(_BUDGET, tenant.budget_bytes or _BUDGET)
        await asyncio.to_thread(self._service.banks.create, tenant, _MEMORY, None, budget)
        return _MEMORY


def _tool_error(error: Exception) -> ToolError:
    return ToolError(refusal_of(error).sentence)


class _Gate:
    """Lets only requests with a valid token through."""

    def __init__(self, app: Any, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serves one request."""
        given = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
        kind, _, token = given.partition(" ")
        try:
            self._service.tenants.of_token(token.strip() if kind.lower() == "bearer" else None)
        except Refusal as refusal:
            await send_refusal(refusal, send)
            return
        await self._app(scope, receive, send)


def mount(app: Any) -> None:
    """Adds MCP over HTTP to the server's application at /mcp."""
    service: Service = app.state.service
    server = build_mcp(service)
    made = server.streamable_http_app(
        stateless_http=True,
        json_response=True,
        # hosts and origins are checked for all endpoints alike
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
    for route in made.routes:
        if isinstance(route, Route):
            app.router.routes.append(Route(route.path, _Gate(route.app, service)))
    app.state.mounted_lifespan = server.session_manager.run


def run_stdio(settings: Settings, missing: Mapping[Path, str]) -> None:
    """Serves over standard input and output; `missing`: banks to make, with their budgets."""
    service = Service(settings)
    for path, budget in missing.items():
        service.banks.engine.create(path, None, parse_size(budget))
    server = build_mcp(service)

    async def run() -> None:
        async with _closing(service):
            await server.run_stdio_async()

    asyncio.run(run())


@asynccontextmanager
async def _closing(service: Service) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await service.close()
