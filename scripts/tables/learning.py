"""The table of learning and forgetting: means over seeds, a row for each setting of a dial.

Knows records of `frontier-learning`; runs nothing.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from latentbank.bench.report.results import MISSING, Result, load_results
from latentbank.errors import InputError
from tables.markdown import table

TASK = "frontier-learning"
COLUMNS = (
    ("gain", "gain_stream"), ("gain, other words", "gain_paraphrase"),
    ("rise, held out", "rise"), ("rise, text", "rise_text"),
)  # fmt: skip
_SCORES = {"exact_match": ("EM", "{:.0f}"), "f1": ("F1", "{:.1f}")}
_SIZE = "bank_bytes"


def rows_of(folder: Path) -> dict[str, list[Result]]:
    """Row name → its records, one for each seed, in the order of the names.

    Raises InputError if there is none.
    """
    found: dict[str, list[Result]] = defaultdict(list)
    for result in load_results(folder, nested=True).results:
        if result.record.task == TASK and result.record.metrics:
            found[result.label].append(result)
    if not found:
        raise InputError(f"{folder} holds no record of {TASK}.")
    return dict(sorted(found.items()))


def over_seeds(results: Sequence[Result], name: str) -> list[float]:
    """A metric of each seed."""
    values = (result.value(name) for result in results)
    return [value for value in values if value is not None]


def learning_table(folder: Path, score: str = "exact_match", runs: str = "seeds") -> str:
    """Markdown: the mean of each metric over `runs`, with the lowest and highest of them.

    `score` is `exact_match` or `f1`. A metric that no record has makes no column. Raises InputError
    if the folder holds no record.
    """
    rows = rows_of(folder)
    title, form = _SCORES[score]
    scores = ((f"{title} before", f"{score}_stream_before"), (f"{title} after", f"{score}_stream"))
    shown = [
        (title, name, form if (title, name) in scores else "{:+.2f}")
        for title, name in (*COLUMNS, *scores)
        if any(over_seeds(results, name) for results in rows.values())
    ]
    lines = []
    for label, results in rows.items():
        sizes = over_seeds(results, _SIZE)
        size = f"{statistics.fmean(sizes) / 1000:,.0f}" if sizes else MISSING
        cells = [_cell(over_seeds(results, name), form) for _, name, form in shown]
        lines.append([label, str(len(results)), *cells, size])
    one = next(iter(rows.values()))[0]
    counts = ", ".join(
        f"{value:,.0f} {name}"
        for name in ("documents", "questions")
        if (value := one.value(name)) is not None
    )
    names = dict.fromkeys(r.record.data.name for results in rows.values() for r in results)
    codes = sorted({r.record.code_revision for results in rows.values() for r in results})
    note = (
        f"*{', '.join(names)}, {counts}; nats for a token, mean over {runs} with the lowest "
        f"and the highest; code {', '.join(codes)}.*"
    )
    head = ["row", runs, *(title for title, _, _ in shown), "bank, kB"]
    return f"{table(head, lines)}\n\n{note}"


def _cell(values: Sequence[float], form: str) -> str:
    if not values:
        return MISSING
    middle, low, high = statistics.fmean(values), min(values), max(values)
    if len(values) == 1:
        return form.format(middle)
    return f"{form.format(middle)} [{form.format(low)}, {form.format(high)}]"


def family(label: str) -> str:
    """`sparse 100 t 500` → `sparse t 500`: what settings share; the first number is the dial."""
    words = label.split(" ")
    dial = next((at for at, word in enumerate(words) if at and word[:1].isdigit()), len(words))
    return " ".join([*words[:dial], *words[dial + 1 :]])
