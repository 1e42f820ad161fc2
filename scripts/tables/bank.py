"""The table of the bank: what was measured, and what must be reached.

Knows the records of scripts/measure_bank.py, scripts/measure_words.py and the long tests; no bank.
"""

from __future__ import annotations

from pathlib import Path

from tables.goals import Row, goals_table

_ROWS: tuple[Row, ...] = (
    ("store", "stores in batches", ("≥", 20_000)),
    ("store", "stores in batches, by processor time", None),
    ("store", "fsyncs of 4 KiB", None),
    ("store", "single writes", ("≥", 300)),
    ("store", "single writes, by processor time", None),
    ("store", "single writes in a full bank", None),
    ("store", "overhead for a document", ("≤", 24)),
    ("open", "documents", None),
    ("open", "open", ("≤", 0.5)),
    ("open", "peak memory of the process", ("≤", 200 << 20)),
    ("read", "search and 8 documents of 1,000", None),
    ("read", "search and 8 documents of 1,000,000", None),
    ("read", "search and reading, ratio", ("≤", 2)),
    ("read", "search and reading, processor, ratio", None),
    ("read", "flat search of 1,000,000 keys", None),
    ("read", "index, made in", None),
    ("read", "index, memory", None),
    ("read", "index, recall at 8", None),
    ("read", "search by words of 1,000,000 sketches", None),
    ("read", "search by words, ratio", ("≤", 2)),
    ("words", "write, 1,000,000 documents", ("≥", 2_000)),
    ("words", "write, 20,000 documents into a full bank", ("≥", 1_000)),
    ("words", "write, 100,000 documents", None),
    ("words", "find, p95, 1,000 documents", None),
    ("words", "find, p95, 10,000 documents", None),
    ("words", "find, p95, 100,000 documents", None),
    ("words", "open, 100,000 documents", None),
    ("words", "index, 1,000,000 documents", None),
    ("words", "open, 1,000,000 documents", ("≤", 0.5)),
    ("words", "find, median, 1,000 documents", None),
    ("words", "find, median, 1,000,000 documents", None),
    ("words", "find, p95, 1,000,000 documents", ("≤", 20)),
    ("words", "find, ratio", ("≤", 3)),
    ("words", "memory of finding, 1,000,000 documents", ("≤", 400_000_000)),
    ("words", "memory of writing, 1,000,000 documents", ("≤", 400_000_000)),
    ("words", "delete, 10,000 of 1,000,000 documents", ("≤", 5)),
    ("delete", "10,000 of 1,000,000, written one after another", ("≤", 2)),
    ("delete", "10,000 of 1,000,000, from all over the bank", ("≤", 2)),
    ("delete", "10,000 of 1,000,000, from all over the bank, processor", None),
    ("delete", "10,000 of 100,000, from all over the bank", ("≤", 2)),
    ("size", "stores in a full bank", None),
    ("size", "written", None),
    ("size", "budget", None),
    ("size", "largest sum of all files", None),
    ("size", "smallest file once full", None),
    ("size", "largest file once full", None),
    ("long-crash", "kills", ("≥", 2000)),
    ("long-crash", "lost", ("≤", 0)),
    ("long-crash", "half stored", ("≤", 0)),
    ("long-fuzz", "cases", ("≥", 100_000)),
    ("long-fuzz", "crashes", ("≤", 0)),
    ("long-fuzz", "hangs", ("≤", 0)),
    ("long-threads", "runs", ("≥", 20)),
    ("long-threads", "lost", ("≤", 0)),
    ("long-threads", "mixed", ("≤", 0)),
    ("long-product", "steps", ("≥", 20_000)),
    ("long-product", "failures", ("≤", 0)),
    ("long-readers", "interleavings", ("≥", 1_000)),
    ("long-readers", "stale", ("≤", 0)),
    ("long-reader-fuzz", "files", ("≥", 10_000)),
    ("long-reader-fuzz", "failures", ("≤", 0)),
)


def bank_table(folder: Path) -> str:
    """Markdown: a row for each figure that has a record. Raises InputError for a bad record."""
    return goals_table(folder, _ROWS)
