"""The table of the server: under load, killed, with many questions at once, and fuzzed.

Knows the records of scripts/load_server.py and scripts/fuzz_server.py; starts no server.
"""

from __future__ import annotations

from pathlib import Path

from tables.goals import Row, goals_table

_ROWS: tuple[Row, ...] = (
    ("load", "clients", ("≥", 64)),
    ("load", "seconds", ("≥", 600)),
    ("load", "answers", None),
    ("load", "writes acknowledged", None),
    ("load", "refused with 429", None),
    ("load", "other errors", ("≤", 0)),
    ("load", "first token, one client, median", None),
    ("load", "first token, p50", None),
    ("load", "first token, p95", None),
    ("load", "p95 beside one client's median", ("≤", 4)),
    ("load", "acknowledged writes lost", ("≤", 0)),
    ("load", "damages", ("≤", 0)),
    ("kill", "kills", ("≥", 50)),
    ("kill", "clients", None),
    ("kill", "writes acknowledged", None),
    ("kill", "acknowledged writes lost", ("≤", 0)),
    ("kill", "damages", ("≤", 0)),
    ("batch", "clients", None),
    ("batch", "one at a time", None),
    ("batch", "at once", None),
    ("batch", "at once beside one at a time", ("≥", 3)),
    ("batch", "documents not read before: at once beside one at a time", None),
    ("fuzz-schema", "requests", ("≥", 10_000)),
    ("fuzz-schema", "errors 500 and hangs", ("≤", 0)),
    ("fuzz-schema", "slowest", None),
    ("fuzz-tenants", "steps", ("≥", 5_000)),
    ("fuzz-tenants", "leaks", ("≤", 0)),
    ("fuzz-tenants", "answers that the model does not foresee", ("≤", 0)),
)


def server_table(folder: Path) -> str:
    """Markdown: a row for each figure that has a record. Raises InputError for a bad record."""
    return goals_table(folder, _ROWS)
