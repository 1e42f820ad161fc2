"""The bank: entries in one SQLite file, bounded, durable and checked. docs/bank.md tells the whole.

`memory_bank` holds the class that everybody uses; the other files are its parts, which know pages,
files and budgets but nothing about models or methods.
"""

from latentbank.bank.delete import Selection
from latentbank.bank.entry import Entry
from latentbank.bank.items import (
    AppendReport,
    BankFingerprint,
    Footprint,
    Receipt,
    VerifyReport,
)
from latentbank.bank.memory_bank import MemoryBank
from latentbank.bank.pages import Page

__all__ = [
    "AppendReport",
    "BankFingerprint",
    "Entry",
    "Footprint",
    "MemoryBank",
    "Page",
    "Receipt",
    "Selection",
    "VerifyReport",
]
