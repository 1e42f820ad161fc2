"""The values that a bank takes and gives: fingerprint, settings, reports, receipts.

Knows names, numbers and bytes; nothing about files, pages or methods.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields

from latentbank.bank.space import Space
from latentbank.errors import InputError

__all__ = [
    "HISTOGRAM",
    "LEDGERS",
    "AppendReport",
    "BankFingerprint",
    "Footprint",
    "Receipt",
    "Settings",
    "VerifyReport",
]

LEDGERS = ("full", "ids", "none")
HISTOGRAM = "mass"  # a blob of code counts, uint32 [K]; it adds up when banks are merged


@dataclass(frozen=True)
class BankFingerprint:
    """What wrote a bank, such as method "mbc" and backbone "smollm2-135m:ab12"."""

    method: str
    adapter: str
    backbone: str
    tokenizer: str

    def __str__(self) -> str:
        return ", ".join(f"{name} {value!r}" for name, value in asdict(self).items())

    def mismatch(self, name: str, expect: "BankFingerprint") -> str:
        """The sentence for a bank called `name` that has this fingerprint instead of `expect`."""
        wrong = [
            f"{item.name} {getattr(self, item.name)!r} (this model has "
            f"{getattr(expect, item.name)!r})"
            for item in fields(self)
            if getattr(self, item.name) != getattr(expect, item.name)
        ]
        return (
            f"Bank {name} was written with another {' and '.join(wrong)}. "
            f"Open it with {self}, or write a new bank with {expect}."
        )


@dataclass(frozen=True)
class AppendReport:
    """What one append did.

    Attributes:
        stored: number of entries stored.
        duplicates: number of entries whose id was in the bank already, or earlier in the same
            call. They are counted, not stored.
        bytes: bytes of payload and key of the stored entries.
        faded: ids of documents that went down a level to make room, those of this call included.
        forgotten: ids of documents that left the bank to make room, those of this call included.
        stored_ids: in a bank without ids, the id that each stored entry got instead of its own.
        absent: ids to count `again` that the bank did not hold, or no longer.
    """

    stored: int
    duplicates: int
    bytes: int
    faded: tuple[str, ...] = ()
    forgotten: tuple[str, ...] = ()
    stored_ids: Mapping[str, str] = field(default_factory=dict)
    absent: tuple[str, ...] = ()

    def stored_id(self, id: str) -> str:
        """The id under which the bank holds the entry that was given as `id`."""
        return self.stored_ids.get(id, id)


@dataclass(frozen=True)
class Receipt:
    """What one deletion did: the proof to keep.

    Attributes:
        deleted: ids of the documents that the bank held and holds no longer.
        missing: ids that were asked for and that the bank did not hold.
        exact: whether nothing of the deleted documents remains. The bank's own deletion is exact.
            A method that keeps traces elsewhere says so here and in `remains`.
        remains: a sentence that says what the deletion cannot take back; "" if nothing remains.
        before, after: the bank's `root_hash` before and after the deletion, in hex.
        time: when the deletion was done, UTC, ISO 8601.
    """

    deleted: tuple[str, ...]
    missing: tuple[str, ...] = ()
    exact: bool = True
    remains: str = ""
    before: str = ""
    after: str = ""
    time: str = ""


@dataclass(frozen=True)
class Settings:
    """What a bank was made with, as far as its own work depends on it.

    Attributes:
        budget_bytes: the largest sum of the bank's files, or None.
        ledger: "full", "ids" or "none".
        policy: which documents fade first; see `policy.make_policy`.
        span: number of newer documents that lower a document's value by 1; 0: not chosen yet.
        lossless: levels whose next step loses nothing. Every document takes those steps before
            the first one takes another.
    """

    budget_bytes: int | None = None
    ledger: str = "full"
    policy: str = "blend"
    span: float = 0.0
    lossless: tuple[str, ...] = ()

    @property
    def space(self) -> Space:
        """The limits that follow from the budget."""
        return Space(self.budget_bytes)


@dataclass(frozen=True)
class Footprint:
    """Bytes of a bank's file by component; they sum to `total`.

    Attributes:
        codes: payloads.
        codebook: blobs: codebooks, counters, dictionaries.
        keys: retrieval keys of the entries.
        ledger: ids, times, sources, metadata and counts.
        overhead: everything else: lengths, checksums, SQLite's structure, free space.
        total: the file's size after a checkpoint.
        index: what orders documents for fading: age and hits.
        free: the part of `overhead` that is free space within the file.
        state: what a method carries beside the entries; see `MemoryBank.append`.
    """

    codes: int
    codebook: int
    keys: int
    ledger: int
    overhead: int
    total: int
    index: int = 0
    free: int = 0
    state: int = 0

    def __post_init__(self) -> None:
        parts = self.codes + self.codebook + self.keys + self.ledger + self.index
        parts += self.overhead + self.state
        if parts != self.total:
            raise InputError(f"A footprint's components sum to {parts}, not to total={self.total}.")


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` found.

    Attributes:
        ok: whether there is no damage.
        documents: number of documents in whole pages.
        damage: one sentence for each damage, naming the page and its documents.
        damaged_ids: ids of the documents on damaged pages, as far as they can be read.
    """

    ok: bool
    documents: int
    damage: tuple[str, ...]
    damaged_ids: tuple[str, ...]
