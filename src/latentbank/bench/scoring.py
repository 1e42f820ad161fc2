"""Writes a dataset into a bank, asks its questions and measures: for `eval`, `demo` and scripts.

Knows methods through their contract. Imports torch, so that commands import it when they run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from latentbank.backbone.generate import DecodingConfig
from latentbank.bank import MemoryBank
from latentbank.bench.measures import answer_metrics, predictions
from latentbank.bench.record import Metric
from latentbank.evaluate.data import QADataset
from latentbank.evaluate.evaluation import Evaluation, ask_data
from latentbank.method import Method
from latentbank.model import MemoryModel

__all__ = ["Score", "measure", "predictions"]


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
    model = MemoryModel(method, bank)
    task = bar.add_task(f"{label}: writing", total=len(data.documents), note="")
    report = model.write(data.documents, on_batch=lambda _, read: bar.update(task, completed=read))
    footprint = model.footprint()
    size = footprint.total if footprint.total > footprint.overhead else 0  # an empty file is none
    bar.update(task, note=f"bank {size:,} bytes")
    asking = bar.add_task(f"{label}: asking", total=len(data.questions), note="")
    found = ask_data(model, data, gold, decoding, lambda count: bar.advance(asking, count))
    summary = found.summary()
    bar.update(asking, note=f"EM {summary['exact_match']:.1f} F1 {summary['f1']:.1f}")
    return Score(found, _metrics(found, len(data.documents), size, report.seconds))


def _metrics(found: Evaluation, documents: int, size: int, seconds: float) -> dict[str, Metric]:
    metrics = {
        **answer_metrics(found),
        "bank_bytes": Metric(size, "bytes"),
        "bytes_per_document": Metric(size / documents, "bytes"),
        "documents": Metric(documents, "documents"),
    }
    if seconds:  # else nothing was written, so there is no speed of writing
        metrics["write_documents_per_second"] = Metric(documents / seconds, "documents/s")
    return metrics
