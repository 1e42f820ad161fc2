"""The tables of a file of questions, and of `mbc` at the papers' own shapes.

Knows the records of scripts/bench_speed.py and scripts/measure_papers.py; times nothing.
"""

from __future__ import annotations

from pathlib import Path

from tables.goals import Row, goals_table

_FILE: tuple[Row, ...] = (
    ("file", "file of questions, as it ships", None),
    ("file", "file of questions, before", None),
    ("file", "file of questions, speed-up", ("≥", 5)),
)
_PAPERS: tuple[Row, ...] = (
    ("papers", "documents", None),
    ("papers", "trained parameters", None),
    ("papers", "indices: first question", ("≤", 0.3)),
    ("papers", "first question over a slot for every code", None),
    ("papers", "indices: reading", None),
    ("papers", "indices: greedy answer", ("≤", 0.3)),
    ("papers", "indices: 12 beams", ("≤", 1.2)),
    ("papers", "histogram: greedy answer", None),
    ("papers", "histogram: 12 beams", None),
    ("papers", "writing", None),
    ("papers", "writing over padded", ("≤", 0.5)),
)


def file_table(folder: Path) -> str:
    """Markdown: `ask --file` beside an earlier version."""
    return goals_table(folder, _FILE)


def papers_table(folder: Path) -> str:
    """Markdown: `mbc` with T5-small on DistilGPT2's shape."""
    return goals_table(folder, _PAPERS)
