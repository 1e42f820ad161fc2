"""Writes a dataset into a bank, asks its questions and measures: what `eval` and `demo` share.

Knows methods through their contract. Imported inside the commands, because it imports torch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from latentbank.bank import MemoryBank
from latentbank.bench.measures import answer_metrics, predictions
from latentbank.bench.record import Metric
from latentbank.data import QADataset
from latentbank.evaluation import Evaluation, ask_all, write_all
from latentbank.generation import DecodingConfig
from latentbank.method import Method
from latentbank.model import bank_fingerprint

__all__ = ["Score", "measure", "new_bank", "predictions"]


@dataclass(frozen=True)
class Score:
    """The answers of one method and its numbers, each with its unit."""

    evaluation: Evaluation
    metrics: dict[str, Metric]

    def value(self, name: str) -> float:
        """The plain number of a metric."""
        return self.metrics[name].value


def new_bank(path: Path, method: Method, meta: dict[str, Any]) -> MemoryBank:
    """An empty bank for `method` with the metadata that `MemoryModel.open` needs.

    `meta`: `adapter`, `backbone`, `overrides` and whatever else should be kept.
    """
    meta = {"overrides": {}, "config": asdict(method.config), **meta}
    return MemoryBank.create(path, bank_fingerprint(method), meta=meta)


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
    size = method.footprint().total if len(bank) else 0
    bar.update(task, note=f"bank {size:,} bytes")
    asking = bar.add_task(f"{label}: asking", total=len(data.questions), note="")
    found = ask_all(method, data, gold, decoding=decoding, advance=lambda n: bar.advance(asking, n))
    summary = found.summary()
    bar.update(asking, note=f"EM {summary['exact_match']:.1f} F1 {summary['f1']:.1f}")
    return Score(found, _metrics(found, len(data.documents), size, seconds))


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
