"""Metrics, curves and prediction rows made from scored answers; `measure` for one bank.

Knows `MemoryModel`, scores and their units; knows no file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from latentbank.backbone.generate import DecodingConfig
from latentbank.bank import MemoryBank
from latentbank.bench.record import Metric, Series
from latentbank.evaluate.data import QADataset
from latentbank.evaluate.evaluation import Evaluation, ask_data
from latentbank.evaluate.metrics import mean_interval
from latentbank.evaluate.stream import chunked
from latentbank.method import Method
from latentbank.model import MemoryModel

TIME_UNITS = frozenset({"ms", "s", "documents/s", "percent of time"})
"""Metrics in these units and the peak of memory differ from run to run; all others do not."""


def rate(values: Sequence[float]) -> Metric:
    """Mean of scores in [0, 1] in percent, with its 95 % interval."""
    interval = mean_interval(values)
    return Metric(100 * interval.value, "percent", 100 * interval.low, 100 * interval.high)


def answer_metrics(evaluation: Evaluation) -> dict[str, Metric]:
    """Scores in percent with their intervals, and times for a question."""
    scores = {
        "exact_match": evaluation.exact_match,
        "f1": evaluation.f1,
        "contains_answer": evaluation.contains,
        "prefix_match": evaluation.prefix_match,
        "gold_selected": evaluation.selected,
    }
    first = float(np.mean([a.first_token_seconds for a in evaluation.answers]))
    seconds = float(np.mean([a.seconds for a in evaluation.answers]))
    return {
        **{name: rate(values) for name, values in scores.items()},
        "milliseconds": Metric(1000 * seconds, "ms"),
        "first_token_milliseconds": Metric(1000 * first, "ms"),
        "questions": Metric(len(evaluation.answers), "questions"),
    }


def joined(parts: Sequence[Evaluation]) -> Evaluation:
    """Several evaluations as one."""
    names = [item.name for item in fields(Evaluation)]
    return Evaluation(*(tuple(v for e in parts for v in getattr(e, name)) for name in names))


def suffixed(metrics: Mapping[str, Metric], suffix: str, *names: str) -> dict[str, Metric]:
    """The metrics `names` as NAME_SUFFIX, for a second group of questions."""
    return {f"{name}_{suffix}": metrics[name] for name in names}


def curve(
    x: Sequence[float], x_name: str, x_unit: str, points: Sequence[Metric], y_name: str
) -> Series:
    """A curve of metrics of one name and unit over x."""
    known = all(p.low is not None and p.high is not None for p in points)
    return Series(
        x=tuple(float(value) for value in x),
        y=tuple(float(p.value) for p in points),
        x_name=x_name,
        x_unit=x_unit,
        y_name=y_name,
        y_unit=points[0].unit,
        low=tuple(float(p.low or 0.0) for p in points) if known else None,
        high=tuple(float(p.high or 0.0) for p in points) if known else None,
    )


def curves(
    x: Sequence[float],
    x_name: str,
    x_unit: str,
    points: Sequence[Mapping[str, Metric]],
    names: Sequence[str] = ("exact_match", "f1", "bank_bytes", "documents_kept"),
) -> dict[str, Series]:
    """A curve for each of `names` that every point has."""
    return {
        name: curve(x, x_name, x_unit, [point[name] for point in points], name)
        for name in names
        if all(name in point for point in points)
    }


def predictions(data: QADataset, evaluation: Evaluation, phase: str = "") -> list[dict[str, Any]]:
    """A JSON row for each question: answer, references, documents read, scores."""
    rows = []
    for i, (question, answer) in enumerate(zip(data.questions, evaluation.answers, strict=True)):
        row = {
            "id": question.id,
            "question": question.text,
            "answer": answer.text,
            "references": list(question.answers),
            "gold": data.documents[question.document].id if data.documents else None,
            "documents": [name for name, _ in answer.documents],
            "confidence": round(answer.confidence, 4),
            "exact_match": evaluation.exact_match[i],
            "f1": round(evaluation.f1[i], 4),
        }
        rows.append({"phase": phase, **row} if phase else row)
    return rows


# ---- one bank


@dataclass(frozen=True)
class Score:
    """The answers of one method and its numbers. `data` has long documents in chunks."""

    data: QADataset
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

    A chunk of a long document counts as a document, as in the bench. `bar` is a rich progress bar
    with a field `note`.
    """
    data = chunked(data, method.backbone.count_tokens, method.chunk_tokens)
    model = MemoryModel(method, bank)
    task = bar.add_task(f"{label}: writing", total=len(data.documents), note="")
    report = model.write(data.documents, on_batch=lambda _, read: bar.update(task, completed=read))
    footprint = model.footprint()
    size = footprint.total if footprint.total > footprint.overhead else 0  # an empty file is none
    bar.update(task, note=f"bank {size:,} bytes")
    asking = bar.add_task(f"{label}: asking", total=len(data.questions), note="")
    evaluation = ask_data(model, data, gold, decoding, lambda count: bar.advance(asking, count))
    summary = evaluation.summary()
    bar.update(asking, note=f"EM {summary['exact_match']:.1f} F1 {summary['f1']:.1f}")
    return Score(data, evaluation, _metrics(evaluation, len(data.documents), size, report.seconds))


def _metrics(
    evaluation: Evaluation, documents: int, size: int, seconds: float
) -> dict[str, Metric]:
    metrics = {
        **answer_metrics(evaluation),
        "bank_bytes": Metric(size, "bytes"),
        "bytes_per_document": Metric(size / documents, "bytes"),
        "documents": Metric(documents, "documents"),
    }
    if seconds:  # else nothing was written, so there is no speed of writing
        metrics["write_documents_per_second"] = Metric(documents / seconds, "documents/s")
    return metrics
