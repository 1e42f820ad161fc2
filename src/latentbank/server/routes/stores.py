"""`/v1/vector_stores/{id}/search`: what a bank holds that fits a question, without an answer."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from latentbank.server.failures import Refusal
from latentbank.server.routes.common import Served, Who, reply_json
from latentbank.server.schemas import SearchRequest

__all__ = ["router"]

router = APIRouter(tags=["OpenAI"])


@router.post("/v1/vector_stores/{store}/search")
async def search(store: str, body: SearchRequest, service: Served, tenant: Who) -> Response:
    """The documents of a bank that fit a question, best first."""
    if body.filters is not None:
        raise Refusal(400, "not_supported", "filters are not supported; leave them out.", "filters")
    queries = [body.query] if isinstance(body.query, str) else body.query
    if not 1 <= len(queries) <= 8:
        raise Refusal(400, "invalid_value", "query: expected 1 to 8 texts.", "query")
    found: dict[str, dict[str, Any]] = {}
    for query in queries:
        for one in await service.search(tenant, store, query, body.max_num_results):
            if one.entry in found and found[one.entry]["score"] >= one.score:
                continue
            found[one.entry] = {
                "file_id": one.id,
                "filename": one.title or one.source or one.id,
                "score": one.score,
                "attributes": {"source": one.source or "", "time": one.time or ""},
                "content": [{"type": "text", "text": one.text}],
            }
    if len(queries) > 1:  # one query's own order is the better one
        found = dict(sorted(found.items(), key=lambda pair: -pair[1]["score"]))
    return reply_json(
        {
            "object": "vector_store.search_results.page",
            "search_query": queries,
            "data": list(found.values())[: body.max_num_results],
            "has_more": False,
            "next_page": None,
        }
    )
