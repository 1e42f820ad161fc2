"""`/healthz` and `/metrics`: for those who run the server."""

from __future__ import annotations

import hmac
import time

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from latentbank.server.failures import Refusal
from latentbank.server.guards import Measures
from latentbank.server.routes.common import Served, reply_json, token_of
from latentbank.server.service import Service
from latentbank.server.settings import hash_token

__all__ = ["router"]

router = APIRouter(tags=["operations"])


@router.get("/healthz")
async def health() -> Response:
    """Says that the server answers."""
    return reply_json({"status": "ok"})


@router.get("/metrics", responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request, service: Served) -> Response:
    """Figures of the whole server for Prometheus; with tokens, only for the operator's own."""
    wanted = service.settings.metrics_token
    if not service.settings.is_open:
        digest = hash_token(token_of(request) or "")
        if not wanted or not hmac.compare_digest(wanted, digest):
            raise Refusal(
                401,
                "invalid_api_key",
                "The token of the metrics is needed: Authorization: Bearer TOKEN.",
                headers={"WWW-Authenticate": "Bearer"},
            )
    measures: Measures = request.app.state.measures
    text = generate_latest(measures.registry).decode() + "\n".join(_lines(service)) + "\n"
    return Response(text, media_type=CONTENT_TYPE_LATEST)


def _lines(service: Service) -> list[str]:
    """Figures that are kept elsewhere."""
    askers = service.banks.askers()
    batches: dict[int, int] = {}
    for asker in askers:
        for size, count in list(asker.batches.items()):
            batches[size] = batches.get(size, 0) + count
    lines = [f"latentbank_{name}_total {value}" for name, value in sorted(service.counts.items())]
    lines.append(f"latentbank_waiting_questions {sum(asker.waiting for asker in askers)}")
    lines.append(f"latentbank_up_seconds {time.monotonic() - service.banks.started:.0f}")
    lines += [
        f'latentbank_batches_total{{size="{size}"}} {count}'
        for size, count in sorted(batches.items())
    ]
    return lines
