"""Writes a dataset into a bank, asks its questions and measures: for `eval`, `demo` and scripts.

Knows methods through their contract. Imports torch, so that commands import it when they run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from latentbank.bank import MemoryBank
from latentbank.bench.record import Metric
from latentbank.data import QADataset
from latentbank.evaluation import Evaluation, ask_all, write_all
from latentbank.generation import DecodingConfig
from latentbank.method import Method
from latentbank.metrics import mean_interval


@dataclass(frozen=True)
class Score:
    """The answers of one method and its numbers, each with its unit."""

    evaluation: Evaluation
    metrics: dict[str, Metric]

    def value(self, name: str) -> float:
        """The plain number of a metric."""
        return self.metrics[name].value


def measure(
    method: Method,
    bank: MemoryBank,
    data: QADataset,
    bar: Any,
    label: str,
    gold: bool = False,
    decoding: DecodingConfig | None = None,
) -> Score:
    """Writes every document of `data` into `bank`, asks every question, and scores the answers.

    `bar` is a rich progress bar with a field `note`.
    """
    method.bind(bank)
    task = bar.add_task(f"{label}: writing", total=len(data.documents), note="")
    seconds = write_all(method, data, advance=lambda n: bar.advance(task, n))
    footprint = method.footprint()
    size = footprint.total if footprint.total > footprint.overhead else 0  # an empty file is none
    bar.update(task, note=f"bank {size:,} bytes")
    asking = bar.add_task(f"{label}: asking", total=len(data.questions), note="")
    found = ask_all(method, data, gold, decoding=decoding, advance=lambda n: bar.advance(asking, n))
    summary = found.summary()
    bar.update(asking, note=f"EM {summary['exact_match']:.1f} F1 {summary['f1']:.1f}")
    return Score(found, _metrics(found, summary, len(data.documents), size, seconds))


def _metrics(
    found: Evaluation, summary: dict[str, float], documents: int, size: int, seconds: float
) -> dict[str, Metric]:
    rates = {
        "exact_match": found.exact_match,
        "f1": found.f1,
        "contains_answer": found.contains,
        "prefix_match": found.prefix_match,
        "gold_selected": found.selected,
    }
    metrics = {}
    for name, values in rates.items():
        interval = mean_interval(values)
        metrics[name] = Metric(summary[name], "percent", 100 * interval.low, 100 * interval.high)
    first = float(np.mean([a.first_token_seconds for a in found.answers]))
    plain = {
        "bank_bytes": (size, "bytes"),
        "bytes_per_document": (size / documents, "bytes"),
        "milliseconds": (summary["milliseconds"], "ms"),
        "first_token_milliseconds": (1000 * first, "ms"),
        "write_documents_per_second": (documents / max(seconds, 1e-9), "documents/s"),
        "documents": (documents, "documents"),
        "questions": (len(found.answers), "questions"),
    }
    if not seconds:  # nothing was written, so there is no speed of writing
        del plain["write_documents_per_second"]
    return {**metrics, **{name: Metric(value, unit) for name, (value, unit) in plain.items()}}


def predictions(data: QADataset, found: Evaluation) -> list[dict[str, Any]]:
    """One JSON row for each question: answer, references, documents read and scores."""
    rows = []
    for i, (question, answer) in enumerate(zip(data.questions, found.answers, strict=True)):
        rows.append(
            {
                "id": question.id,
                "question": question.text,
                "answer": answer.text,
                "references": list(question.answers),
                "gold": data.documents[question.document].id,
                "documents": [name for name, _ in answer.documents],
                "confidence": round(answer.confidence, 4),
                "exact_match": found.exact_match[i],
                "f1": round(found.f1[i], 4),
            }
        )
    return rows
