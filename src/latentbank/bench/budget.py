"""Equal bytes: the grid of budgets, and writing a stream into a bank of a fixed size.

Knows the contract of a method and the bank's budget; the only place that knows what a full bank
does: it makes room, and refuses only a document that it could not hold alone. What counts is what
the bank holds at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from latentbank.bank import MemoryBank
from latentbank.bank.space import LARGE_BUDGET, Space
from latentbank.capabilities import lossless_levels
from latentbank.documents.document import Document
from latentbank.errors import BankError, InputError, unknown
from latentbank.method import Method
from latentbank.model import bank_fingerprint

GRID = (8, 16, 32, 64, 128, 256, 512, 1024, 4096)
"""Bytes per document that tables and curves are made for."""

UNLIMITED = "float"


@dataclass(frozen=True)
class Written:
    """What went into a bank: documents `stored`, `duplicates` of stored ones, and those `refused`
    because the whole bank is too small for them; how often a document was `forgotten` or `faded` by
    a level to make room. `seconds` were spent in `write`.
    """

    stored: int = 0
    duplicates: int = 0
    refused: int = 0
    seconds: float = 0.0
    forgotten: int = 0
    faded: int = 0

    def __add__(self, other: Written) -> Written:
        return Written(
            self.stored + other.stored,
            self.duplicates + other.duplicates,
            self.refused + other.refused,
            self.seconds + other.seconds,
            self.forgotten + other.forgotten,
            self.faded + other.faded,
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


def bounded_bank(
    method: Method, path: str | Path, budget_bytes: int | None, policy: str = "blend"
) -> MemoryBank:
    """A new bank at `path`, bound to `method`, whose file never exceeds `budget_bytes`; `policy`
    says which documents fade first.

    Its ledger holds ids alone: what no answer needs is not paid for. Documents come in the order of
    their times, so the newest is the one written last.

    Raises InputError if not even an empty bank fits.
    """
    bank = MemoryBank.create(
        path,
        bank_fingerprint(method),
        budget_bytes=budget_bytes,
        ledger="ids",
        policy=policy,
        lossless=lossless_levels(method),
    )
    method.bind(bank)
    return bank


def least_bytes(method: Method, document: Document) -> int:
    """The smallest budget that is of any use: one document and all that goes with it, such as a
    codebook. 0 for a method that stores nothing. The method is bound to nothing useful after.
    """
    for kind in (LARGE_BUDGET - 1, None):  # a small bank has a smaller structure
        size = _size_with(method, document, kind)
        if size is not None:
            break
    if not size:
        return 0
    low, high = 0, 2 * size + LARGE_BUDGET
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if Space(middle).file_limit(0) >= size else (middle, high)
    while _size_with(method, document, high) is None:
        high += high // 50 + 1
    return high


def holds(method: Method, document: Document, budget_bytes: int) -> bool:
    """Whether a bank of exactly this budget takes the document. From `LARGE_BUDGET` on a bank has a
    write-ahead log, beside which a large codebook may not fit that a smaller budget held.
    """
    return _size_with(method, document, budget_bytes) is not None


def _size_with(method: Method, document: Document, budget_bytes: int | None) -> int | None:
    """Bytes of a bank of one document, 0 if it stores none; None if the budget does not hold it."""
    try:
        bank = bounded_bank(method, ":memory:", budget_bytes)
    except InputError:
        return None
    try:
        done = _try(method, [document])
        kept = None if done is None or done.forgotten else done.stored
        return kept and method.require_bank().footprint().total
    finally:
        bank.close()


def write_within(
    method: Method,
    documents: Sequence[Document],
    budget_bytes: int | None = None,
    batch: int = 64,
    advance: Callable[[int], None] | None = None,
) -> Written:
    """Writes documents in order into the bound bank, which lets others fade where it is full.

    A document that the whole bank is too small for is left out.

    Raises BankError if the bank cannot be written for another reason, or has outgrown the budget.
    """
    total = Written()
    for at in range(0, len(documents), batch):
        part = documents[at : at + batch]
        total = total + _write_part(method, part)
        if advance is not None:
            advance(len(part))
    if (
        budget_bytes is not None
        and (size := method.require_bank().footprint().total) > budget_bytes
    ):
        raise BankError(f"The bank has {size} bytes, more than its budget of {budget_bytes}.")
    return total


def _write_part(method: Method, documents: Sequence[Document]) -> Written:
    """Writes a batch; if it is refused, each of its documents that the bank holds, one by one."""
    done = _try(method, documents)
    if done is not None:
        return done
    bank, total = method.require_bank(), Written()
    method.bind(bank)  # documents of the batch may have been stored before the one that was refused
    for document in documents:
        if document.id in bank:
            total = total + Written(stored=1)
            continue
        total = total + (_try(method, [document]) or Written(refused=1))
        if total.refused:
            method.bind(bank)
    return total


def _try(method: Method, documents: Sequence[Document]) -> Written | None:
    """Writes documents, or returns None if one of them is too large for the budget."""
    try:
        report = method.write(documents)
    except BankError as error:
        if "budget" in str(error):
            return None
        raise
    fates = report.forgotten, report.faded
    return Written(report.stored, report.duplicates, 0, report.seconds, *fates)
