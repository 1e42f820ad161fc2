"""The bank: entries in one SQLite file, bounded, durable and checked. docs/bank.md describes it.

`bank` holds the class that everybody uses. `entry`, `reports`, `ladder`, `policy` and `space` are
its values; `append`, `delete`, `fading` and `write` change it; `following` notices
changes; `store` is its file; `admin` works on whole banks. Nothing here knows models or methods.
"""

from latentbank.bank.bank import MemoryBank
from latentbank.bank.entry import Entry
from latentbank.bank.following import Follower
from latentbank.bank.reports import (
    HISTOGRAM,
    AppendReport,
    BankFingerprint,
    Footprint,
    Receipt,
    VerifyReport,
)
from latentbank.bank.store.pages import Page

__all__ = [
    "HISTOGRAM",
    "AppendReport",
    "BankFingerprint",
    "Entry",
    "Follower",
    "Footprint",
    "MemoryBank",
    "Page",
    "Receipt",
    "VerifyReport",
]
