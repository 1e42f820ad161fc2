"""What endpoints share: who asks, which bank is meant, waiting for a client that may go away.

Knows requests and the service.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request
from starlette.responses import Response

from latentbank.server.failures import Refusal
from latentbank.server.guards import json_bytes
from latentbank.server.schemas import Asking
from latentbank.server.service import Service
from latentbank.server.settings import Tenant

__all__ = ["Served", "Who", "bank_of", "connected", "reply_json", "token_of"]

T = TypeVar("T")


def token_of(request: Request) -> str | None:
    """The bearer token of a request."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" and token.strip() else None


def service_of(request: Request) -> Service:
    """The service behind the application."""
    service: Service = request.app.state.service
    return service


async def tenant_of(request: Request) -> Tenant:
    """Who asks. Raises Refusal 401."""
    tenant = service_of(request).tenants.of_token(token_of(request))
    request.state.tenant = tenant.name
    return tenant


Served = Annotated[Service, Depends(service_of)]
Who = Annotated[Tenant, Depends(tenant_of)]


def bank_of(service: Service, tenant: Tenant, body: Asking) -> str | None:
    """The bank that a request means; None for the model's own name.

    Raises:
        Refusal: 404, in OpenAI's words, for a bank that the tenant does not have.
    """
    name = body.bank or body.model.removeprefix("latentbank/")
    if body.bank is None and name == service.model_name:
        return None
    if not service.banks.exists(tenant, name):
        raise Refusal(404, "model_not_found", f"There is no bank {name[:64]!r}.", "model")
    return name


async def connected(request: Request, work: Awaitable[T], stop: Callable[[], None]) -> T:
    """What `work` gives; `stop` is called when the client goes away first."""
    task: asyncio.Future[T] = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        waited: set[asyncio.Future[Any]] = {task, gone}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            stop()
            raise Refusal(499, "client_closed_request", "The client went away.")
        return task.result()
    finally:
        gone.cancel()
        if not task.done():
            stop()
            task.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def reply_json(value: Any, status: int = 200) -> Response:
    """A JSON response."""
    return Response(json_bytes(value), status, media_type="application/json")
