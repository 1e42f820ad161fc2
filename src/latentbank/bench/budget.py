"""Banks of a fixed size: the grid of budgets, writing until a bank is full, the least useful bank.

Knows `MemoryModel` and the bank's budget; knows no protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from latentbank.bank.space import LARGE_BUDGET, Space
from latentbank.documents.document import Document
from latentbank.errors import BudgetError, InputError, unknown
from latentbank.method import Method, WriteReport
from latentbank.model import MemoryModel, new_bank

GRID = (8, 16, 32, 64, 128, 256, 512, 1024, 4096)
"""Bytes per document that tables and curves are made for."""

UNLIMITED = "float"
WRITE_BATCH = 64  # documents; a full bank makes room batch by batch, so results depend on it


def parse_budgets(text: str) -> tuple[int | None, ...]:
    """ "64,256,float" → (64, 256, None): bytes per document, smallest first, None for no limit.

    `grid` stands for `GRID` and no limit. Raises UnknownNameError for anything else.
    """
    budgets: set[int | None] = set()
    for word in (part.strip() for part in text.split(",")):
        if word == "grid":
            budgets |= {*GRID, None}
        elif word == UNLIMITED:
            budgets.add(None)
        elif word.isdecimal() and word.isascii() and 0 < int(word) < 2**40:
            budgets.add(int(word))
        else:
            names = [*map(str, GRID), UNLIMITED, "grid", "any bytes per document"]
            raise unknown("budget", word, names)
    return tuple(sorted(budgets, key=lambda size: float("inf") if size is None else size))


def budget_label(budget: int | None) -> str:
    """64 → "64", None → "float"."""
    return UNLIMITED if budget is None else str(budget)


def bounded_model(
    method: Method, path: str | Path, budget_bytes: int | None, policy: str = "blend"
) -> MemoryModel:
    """The method with a new bank whose files never exceed `budget_bytes`.

    Its ledger holds ids alone, because no answer needs more. Raises InputError if not even an empty
    bank fits.
    """
    bank = new_bank(path, method, None, budget_bytes, ledger="ids", policy=policy)
    return MemoryModel(method, bank)


def write_fitting(
    model: MemoryModel,
    documents: Sequence[Document],
    advance: Callable[[int], None] = lambda steps: None,
    batch: int = WRITE_BATCH,
) -> tuple[WriteReport, int]:
    """Writes documents in order, without those that the whole bank is too small for.

    Returns (what was written, how many were left out). Raises BankError if the bank cannot be
    written for another reason.
    """
    total, refused = WriteReport(0, 0, 0.0), 0
    for at in range(0, len(documents), batch):
        part = documents[at : at + batch]
        try:
            total = total + model.write(part, batch)
        except BudgetError:
            model.method.bind(model.bank)  # the first documents of the batch may be stored
            for document in part:
                try:
                    stored = document.id in model.bank
                    total = total + (WriteReport(1, 0, 0.0) if stored else model.write([document]))
                except BudgetError:
                    model.method.bind(model.bank)
                    refused += 1
        advance(len(part))
    return total, refused


def least_bytes(method: Method, document: Document) -> int:
    """The smallest budget that holds one document and all that goes with it, such as a codebook.

    0 for a method that stores nothing.
    """
    sizes = (_size_with(method, document, kind) for kind in (LARGE_BUDGET - 1, None))
    size = next((one for one in sizes if one is not None), None)  # a small bank has less overhead
    if not size:
        return 0
    low, high = 0, 2 * size + LARGE_BUDGET
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if Space(middle).file_limit(0) >= size else (middle, high)
    while not holds(method, document, high):
        high += high // 50 + 1
    return high


def holds(method: Method, document: Document, budget_bytes: int) -> bool:
    """Whether a bank of exactly this budget takes the document.

    From `LARGE_BUDGET` on a bank has a write-ahead log. A large codebook may not fit beside it
    though a smaller budget held it.
    """
    return _size_with(method, document, budget_bytes) is not None


def _size_with(method: Method, document: Document, budget_bytes: int | None) -> int | None:
    """Bytes of a bank of one document, 0 if it stores none; None if the budget is too small."""
    try:
        model = bounded_model(method, ":memory:", budget_bytes)
    except InputError:
        return None
    with model:
        done, refused = write_fitting(model, [document])
        if refused or done.forgotten:
            return None
        return model.footprint().total if done.stored else 0
