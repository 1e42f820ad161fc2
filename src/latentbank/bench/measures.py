"""Metrics, curves and prediction rows made from scored answers.

Knows scores and their units; no method, no bank and no file.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from latentbank.bench.record import Metric, Series
from latentbank.evaluate.data import QADataset
from latentbank.evaluate.evaluation import Evaluation
from latentbank.evaluate.metrics import mean_interval

TIME_UNITS = frozenset({"ms", "s", "documents/s", "percent of time"})
"""Metrics in these units, and `peak_memory_bytes`, differ from run to run; all others do not."""

PEAK = "peak_memory_bytes"


def rate(values: Sequence[float]) -> Metric:
    """Mean of scores in [0, 1] in percent, with its 95 % interval."""
    found = mean_interval(values)
    return Metric(100 * found.value, "percent", 100 * found.low, 100 * found.high)


def answer_metrics(found: Evaluation) -> dict[str, Metric]:
    """Scores in percent with their intervals, and times for a question."""
    scores = {
        "exact_match": found.exact_match,
        "f1": found.f1,
        "contains_answer": found.contains,
        "prefix_match": found.prefix_match,
        "gold_selected": found.selected,
    }
    first = float(np.mean([a.first_token_seconds for a in found.answers]))
    seconds = float(np.mean([a.seconds for a in found.answers]))
    return {
        **{name: rate(values) for name, values in scores.items()},
        "milliseconds": Metric(1000 * seconds, "ms"),
        "first_token_milliseconds": Metric(1000 * first, "ms"),
        "questions": Metric(len(found.answers), "questions"),
    }


def joined(found: Sequence[Evaluation]) -> Evaluation:
    """Several evaluations as one, in order."""
    names = [item.name for item in fields(Evaluation)]
    return Evaluation(*(tuple(v for e in found for v in getattr(e, name)) for name in names))


def suffixed(metrics: Mapping[str, Metric], suffix: str, *names: str) -> dict[str, Metric]:
    """Some metrics under NAME_SUFFIX: those of a second group of questions."""
    return {f"{name}_{suffix}": metrics[name] for name in names}


def curve(
    x: Sequence[float], x_name: str, x_unit: str, points: Sequence[Metric], y_name: str
) -> Series:
    """Metrics of one name, in one unit, over x."""
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
    """One series for each of `names` that every point has."""
    return {
        name: curve(x, x_name, x_unit, [point[name] for point in points], name)
        for name in names
        if all(name in point for point in points)
    }


def predictions(data: QADataset, found: Evaluation, phase: str = "") -> list[dict[str, Any]]:
    """One JSON row for each question: answer, references, documents read and scores."""
    rows = []
    for i, (question, answer) in enumerate(zip(data.questions, found.answers, strict=True)):
        row = {
            "id": question.id,
            "question": question.text,
            "answer": answer.text,
            "references": list(question.answers),
            "gold": data.documents[question.document].id if data.documents else None,
            "documents": [name for name, _ in answer.documents],
            "confidence": round(answer.confidence, 4),
            "exact_match": found.exact_match[i],
            "f1": round(found.f1[i], 4),
        }
        rows.append({"phase": phase, **row} if phase else row)
    return rows


def peak_memory_bytes() -> int | None:
    """The most memory that this process held since `reset_peak_memory`; None where unknown."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def reset_peak_memory() -> bool:
    """Starts the measurement anew; False where the system has no way to, and it covers all."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True
