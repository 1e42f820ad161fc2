"""Equal bytes: the grid of budgets, and writing until a bank of a fixed size is full.

Knows the contract of a method and the bank's budget; the only place that knows what a full bank
does: it refuses, and what no longer fits is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from latentbank.bank import MemoryBank
from latentbank.document import Document
from latentbank.errors import BankError, unknown
from latentbank.method import Method
from latentbank.model import bank_fingerprint

GRID = (8, 16, 32, 64, 128, 256, 512, 1024, 4096)
"""Bytes per document that tables and curves are made for."""

UNLIMITED = "float"


@dataclass(frozen=True)
class Written:
    """What went into a bank: documents `stored`, `duplicates` of stored ones, and those `refused`
    because the bank was full. `seconds` were spent in `write`.
    """

    stored: int = 0
    duplicates: int = 0
    refused: int = 0
    seconds: float = 0.0

    def __add__(self, other: Written) -> Written:
        return Written(
            self.stored + other.stored,
            self.duplicates + other.duplicates,
            self.refused + other.refused,
            self.seconds + other.seconds,
        )


def parse_budgets(text: str) -> tuple[int | None, ...]:
    """ "64,256,float" → (64, 256, None): bytes per document, smallest first, None for no limit.

    `grid` stands for `GRID` and no limit. Raises UnknownNameError for anything else.
    """
    found: set[int | None] = set()
    for word in (part.strip() for part in text.split(",")):
        if word == "grid":
            found |= {*GRID, None}
        elif word == UNLIMITED:
            found.add(None)
        elif word.isdecimal() and word.isascii() and 0 < int(word) < 2**40:
            found.add(int(word))
        else:
            names = [f"{size:>4}".strip() for size in GRID]
            raise unknown("budget", word, [*names, UNLIMITED, "grid", "any bytes per document"])
    return tuple(sorted(found, key=lambda size: float("inf") if size is None else size))


def budget_label(budget: int | None) -> str:
    """64 → "64", None → "float"."""
    return UNLIMITED if budget is None else str(budget)


def bounded_bank(method: Method, path: str | Path, budget_bytes: int | None) -> MemoryBank:
    """A new bank at `path`, bound to `method`, whose file never exceeds `budget_bytes`.

    Raises InputError if not even an empty bank fits.
    """
    bank = MemoryBank.create(path, bank_fingerprint(method), budget_bytes=budget_bytes)
    method.bind(bank)
    return bank


def least_bytes(method: Method, document: Document) -> int:
    """Bytes of the smallest bank that is of any use: one document and all that goes with it, such
    as a codebook. 0 for a method that stores nothing. The method is bound to nothing useful after.
    """
    bank = bounded_bank(method, ":memory:", None)
    stored = method.write([document]).stored
    size = method.footprint().total if stored else 0
    bank.close()
    return size


def write_within(
    method: Method,
    documents: Sequence[Document],
    budget_bytes: int | None = None,
    batch: int = 64,
    advance: Callable[[int], None] | None = None,
) -> Written:
    """Writes documents in order into the bound bank until one no longer fits; the rest is dropped.

    Where the bank refuses a batch, the longest part of it that fits is found by halving. A bank
    that makes room by itself refuses nothing, and all are written.

    Raises BankError if the bank cannot be written for another reason, or has outgrown the budget.
    """
    total = Written()
    for at in range(0, len(documents), batch):
        part = documents[at : at + batch]
        done = _write_part(method, part)
        total = total + done
        if advance is not None:
            advance(len(part))
        if done.refused:
            left = len(documents) - at - len(part)
            total = total + Written(refused=left)
            if advance is not None:
                advance(left)
            break
    if budget_bytes is not None and (size := method.footprint().total) > budget_bytes:
        raise BankError(f"The bank has {size} bytes, more than its budget of {budget_bytes}.")
    return total


def _write_part(method: Method, documents: Sequence[Document]) -> Written:
    """Writes all of a batch, or as many of its first documents as fit."""
    done = _try(method, documents)
    if done is not None:
        return done
    total, low, high = Written(), 0, len(documents)  # [:low] is written, [:high] does not fit
    while high - low > 1:
        middle = (low + high) // 2
        done = _try(method, documents[low:middle])
        if done is None:
            high = middle
        else:
            total, low = total + done, middle
    return total + Written(refused=len(documents) - low)


def _try(method: Method, documents: Sequence[Document]) -> Written | None:
    """Writes documents, or nothing of them and returns None, if the budget does not hold them."""
    try:
        report = method.write(documents)
    except BankError as error:
        if "budget" in str(error):
            return None
        raise
    return Written(report.stored, report.duplicates, 0, report.seconds)
