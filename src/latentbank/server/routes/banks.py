"""`/v1/banks`: make, list, look at, check, copy and delete banks."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import asdict
from datetime import UTC, datetime

from fastapi import APIRouter, Query
from starlette.background import BackgroundTask
from starlette.responses import FileResponse, Response

from latentbank.server.routes.common import Served, Who, reply_json
from latentbank.server.schemas import NewBank
from latentbank.sizes import size_bytes

__all__ = ["router"]

router = APIRouter(prefix="/v1/banks", tags=["banks"])


@router.post("", status_code=201)
async def create(body: NewBank, service: Served, tenant: Who) -> Response:
    """Makes an empty bank with a budget."""
    budget = size_bytes(body.budget)
    service.tenants.writes(tenant)
    kept = {"ledger": body.ledger, "policy": body.policy}
    await asyncio.to_thread(
        lambda: service.banks.create(tenant, body.name, body.method, budget, **kept)
    )
    return reply_json(await service.stats(tenant, body.name), 201)


@router.get("")
async def banks(service: Served, tenant: Who) -> Response:
    """The names of the tenant's banks."""
    names = await asyncio.to_thread(service.banks.names, tenant)
    return reply_json({"object": "list", "data": [{"name": name} for name in names]})


@router.get("/{bank}")
async def stats(bank: str, service: Served, tenant: Who) -> Response:
    """Documents, bytes, budget and levels of a bank."""
    return reply_json(await service.stats(tenant, bank))


@router.delete("/{bank}")
async def remove(bank: str, service: Served, tenant: Who) -> Response:
    """Deletes a bank with everything in it."""
    service.tenants.writes(tenant)
    await asyncio.to_thread(service.banks.remove, tenant, bank)
    return reply_json({"name": bank, "deleted": True})


@router.get("/{bank}/events")
async def events(
    bank: str, service: Served, tenant: Who, limit: int = Query(50, ge=1, le=500)
) -> Response:
    """What was added, faded, was forgotten or deleted since the server opened the bank."""
    found = await service.look(tenant, bank, lambda hosted, _: hosted.events.latest(limit))
    data = [
        {
            "time": datetime.fromtimestamp(one.seconds, UTC).isoformat(timespec="seconds"),
            "kind": one.kind,
            "count": one.count,
            "ids": list(one.ids),
        }
        for one in found
    ]
    return reply_json({"object": "list", "data": data})


@router.post("/{bank}/verify")
async def verify(bank: str, service: Served, tenant: Who) -> Response:
    """Looks for damage in every page of a bank."""
    report = await service.look(tenant, bank, lambda hosted, _: hosted.verify())
    return reply_json(asdict(report))


@router.get(
    "/{bank}/snapshot",
    response_class=FileResponse,
    responses={200: {"content": {"application/vnd.sqlite3": {}}}},
)
async def snapshot(bank: str, service: Served, tenant: Who) -> Response:
    """A consistent copy of the bank's file, while others go on writing."""
    service.tenants.writes(tenant)
    path = await service.snapshot(tenant, bank)
    clean = BackgroundTask(shutil.rmtree, path.parent, ignore_errors=True)
    return FileResponse(
        path, media_type="application/vnd.sqlite3", filename=path.name, background=clean
    )
