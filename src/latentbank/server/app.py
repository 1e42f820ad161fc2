"""The FastAPI application: its endpoints, its errors, its start and its end.

Knows settings and routes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.responses import Response

from latentbank import __version__
from latentbank.backbone.model import Backbone
from latentbank.errors import LatentbankError
from latentbank.server.failures import Refusal, Stopped, refusal_of
from latentbank.server.guards import Guard, Measures, json_bytes
from latentbank.server.routes import banks, chat, documents, operations, page, responses, stores
from latentbank.server.schemas import ErrorBody
from latentbank.server.service import Service
from latentbank.server.settings import Settings

__all__ = ["create_app"]

_STATUSES = (400, 401, 403, 404, 405, 408, 409, 413, 429, 503, 504)
_SENTENCES = {404: "There is nothing at this address.", 405: "This address has no such method."}


def create_app(
    settings: Settings, loaded: Backbone | None = None, page_too: bool = True
) -> FastAPI:
    """The application. `loaded`: a backbone that is there already, for `settings.backbone`."""
    service = Service(settings, loaded)
    measures = Measures()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with _mounted(app):
            yield
        await service.close()

    app = FastAPI(
        title="latentbank",
        version=__version__,
        description="Bounded memory banks behind OpenAI-compatible endpoints.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        responses={status: {"model": ErrorBody} for status in _STATUSES},
    )
    app.state.service, app.state.measures = service, measures
    parts = [operations, chat, responses, stores, banks, documents]
    for part in parts:
        app.include_router(part.router)
    if page_too:
        page.add_page(app)
    for kind in (Refusal, LatentbankError, OSError, MemoryError, TimeoutError, Stopped):
        app.add_exception_handler(kind, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_middleware(Guard, settings=settings, measures=measures)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


@asynccontextmanager
async def _mounted(app: FastAPI) -> AsyncIterator[None]:
    """Runs what was mounted and has a start and an end of its own."""
    run = getattr(app.state, "mounted_lifespan", None)
    if run is None:
        yield
        return
    async with run():
        yield


def _response(refusal: Refusal) -> Response:
    return Response(json_bytes(refusal.body()), refusal.status, refusal.headers, "application/json")


async def _refused(_: Request, error: Exception) -> Response:
    return _response(refusal_of(error))


async def _invalid(_: Request, error: Exception) -> Response:
    """What does not fit the schema: the first place and the reason, without the value."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if part != "body")[:200]
    if first["type"] == "json_invalid":
        return _response(Refusal(400, "invalid_json", "The body is not JSON."))
    reason = str(first["msg"]).splitlines()[0][:200]
    return _response(Refusal(400, "invalid_value", f"{place or 'body'}: {reason}.", place or None))


async def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    sentence = _SENTENCES.get(error.status_code, str(error.detail))
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
    return _response(Refusal(error.status_code, code, sentence, headers=error.headers))


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The document, with 400 in the place of FastAPI's own 422."""
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        for path in made["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        app.openapi_schema = made
    return app.openapi_schema
