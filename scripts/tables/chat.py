"""The table of conversations: what scripts/measure_chat.py and fit_calibration.py measured.

Knows their records; runs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from latentbank.bench.record import Metric, Record, read_record
from tables.markdown import table

__all__ = ["chat_table"]

# file → (what was asked, (metric, its name in the table) …)
_PARTS: Mapping[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    "history": (
        "conversations",
        (
            ("right document first, alone", "right document first, the last question alone"),
            ("right document first, all turns", "… with all turns"),
            ("right document first, resolved", "… resolved by the turns before"),
        ),
    ),
    "sentences": (
        "questions",
        (
            ("one whole sentence", "style `sentence`: one whole sentence"),
            ("sentence contains the answer", "… contains the answer"),
            ("short answer contains the answer", "style `short`: contains the answer"),
        ),
    ),
    "summaries": (
        "entities",
        (
            ("two facts or more", "a summary mentions two facts or more"),
            ("right document read", "… reads the right document"),
        ),
    ),
    "several": (
        "questions",
        (
            ("F1, reading 1", "F1 of short answers, reading one document"),
            ("F1, reading 3", "… up to three"),
        ),
    ),
    "babi": (
        "questions",
        (
            ("right, one document", "two facts (bAbI 2), reading one document"),
            ("right, several documents", "… reading several in the order of time"),
        ),
    ),
    "calibration": (
        "questions",
        (
            ("expected_calibration_error", "expected calibration error"),
            ("false_answers_percent", "unanswerable questions answered at `--abstain-at 0.05`"),
            ("right_still_answered_percent", "right answers still given then"),
            (
                "right_still_answered_at_the_rate_percent",
                "… where exactly 5 % of the unanswerable get an answer",
            ),
        ),
    ),
}


def chat_table(folder: Path) -> str:
    """Markdown: a line for each measure; parts without a record are left out."""
    rows, codes = [], set()
    for name, (noun, metrics) in _PARTS.items():
        file = folder / f"{name}.json"
        if not file.exists():
            continue
        record = read_record(file)
        codes.add(record.code_revision)
        for metric, title in metrics:
            rows.append((title, _value(record.metrics[metric]), _of(record, noun)))
    source = f"code {', '.join(sorted(codes))}"
    return table(("measure", "value", "of"), rows, words=1) + f"\n\n*{source}.*"


def _value(metric: Metric) -> str:
    if metric.unit != "percent":
        return f"{metric.value:.3f}"
    if metric.low is None or metric.high is None:
        return f"{metric.value:.1f} %"
    return f"{metric.value:.1f} % [{metric.low:.0f}, {metric.high:.0f}]"


def _of(record: Record, noun: str) -> str:
    return f"{record.metrics[noun].value:.0f} {noun}, {record.data.name}"
