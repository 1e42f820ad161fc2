"""`/v1/banks/{bank}/documents`: write, list, read and delete documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from latentbank.bank import Receipt
from latentbank.documents.conditions import conditions_of
from latentbank.documents.document import Document
from latentbank.documents.ends import clip
from latentbank.documents.identity import document_id
from latentbank.server.failures import Refusal
from latentbank.server.hosting.bank import Added, HostedBank
from latentbank.server.hosting.contents import Contents, Kept
from latentbank.server.routes.common import Served, Who, reply_json
from latentbank.server.schemas import DeleteRequest, DocumentBody, DocumentsBody

__all__ = ["receipt_json", "router"]

_SNIPPET = 100  # characters

router = APIRouter(prefix="/v1/banks/{bank}/documents", tags=["documents"])


@router.post("", status_code=201)
async def add(bank: str, body: DocumentBody, service: Served, tenant: Who) -> Response:
    """Writes a document. The same text again changes nothing; the response says what faded."""
    document = body.document()
    added = await service.add(tenant, bank, [document])
    return reply_json(_added([document], added), 200 if added.known[0] else 201)


@router.post("/batch", status_code=201)
async def add_batch(bank: str, body: DocumentsBody, service: Served, tenant: Who) -> Response:
    """Writes documents together."""
    most = service.settings.limits.batch_documents
    if len(body.documents) > most:
        raise Refusal(413, "too_many_documents", f"One request may write {most} documents.")
    documents = [one.document() for one in body.documents]
    added = await service.add(tenant, bank, documents)
    return reply_json(_added(documents, added), 201)


def _added(documents: Sequence[Document], added: Added) -> dict[str, Any]:
    report = added.report
    return {
        "documents": [
            {"id": document.id, "known": known}
            for document, known in zip(documents, added.known, strict=True)
        ],
        "stored": report.stored,
        "duplicates": report.duplicates,
        "replaced": report.replaced,
        "faded": list(added.faded),
        "forgotten": list(added.forgotten),
        "seconds": round(report.seconds, 4),
    }


@router.get("")
async def documents(
    bank: str,
    service: Served,
    tenant: Who,
    q: str = Query("", max_length=256, description="Words in id, source, metadata or text."),
    source: str | None = Query(None, max_length=4096),
    before: int | None = Query(None, ge=0, le=2**40, description="`next` of the page before."),
    limit: int = Query(50, ge=1, le=500),
) -> Response:
    """The documents of a bank, the newest first."""

    def find(_: HostedBank, contents: Contents) -> tuple[list[Kept], list[str], int]:
        found, count = contents.find(q, source, before, limit + 1)
        begins = [contents.text(one.entries[:1], slow=False) for one in found]
        return found, begins, count

    found, begins, count = await service.look(tenant, bank, find)
    page = found[:limit]
    return reply_json(
        {
            "object": "list",
            "data": [
                {**_document(one), "snippet": clip(" ".join(text.split()), _SNIPPET)}
                for one, text in zip(page, begins, strict=False)
            ],
            "count": count,
            "next": page[-1].order if len(found) > limit else None,
        }
    )


def _document(one: Kept) -> dict[str, Any]:
    return {
        "id": one.id,
        "level": one.levels[0],
        "chunks": len(one.entries),
        "bytes": one.bytes,
        "time": one.time,
        "source": one.source,
        "metadata": dict(one.metadata),
    }


@router.post("/delete")
async def delete_some(bank: str, body: DeleteRequest, service: Served, tenant: Who) -> Response:
    """Deletes documents by id, source, time or other conditions; returns the receipt."""
    conditions = conditions_of(body.where or (), body.source, body.since, body.before, None)
    if not body.ids and not conditions:
        raise Refusal(400, "invalid_value", "Name ids or a condition; DELETE the bank for all.")
    return reply_json(receipt_json(await service.delete(tenant, bank, body.ids, conditions)))


@router.get("/{id:path}")
async def document(bank: str, id: str, service: Served, tenant: Who) -> Response:
    """A document with its text, as far as the bank still keeps it."""
    kept, text = await service.document(tenant, bank, id)
    return reply_json({**_document(kept), "text": text})


@router.delete("/{id:path}")
async def delete(bank: str, id: str, service: Served, tenant: Who) -> Response:
    """Deletes a document with all of its chunks; returns the receipt."""
    receipt = await service.delete(tenant, bank, [id])
    if not receipt.deleted:
        raise Refusal(404, "document_not_found", "There is no such document.")
    return reply_json(receipt_json(receipt))


def receipt_json(receipt: Receipt) -> dict[str, Any]:
    """A receipt with the ids of documents beside those of entries."""
    documents = list(dict.fromkeys(document_id(id) for id in receipt.deleted))
    return {**asdict(receipt), "documents": documents}
