"""Retention: questions about the first documents are repeated while more documents are written.

Gives the curve of their scores over the documents written, its area, and the backward transfer
(Lopez-Paz and Ranzato 2017) from the first asking to the last.
"""

from __future__ import annotations

from dataclasses import dataclass

from latentbank.bench.record import Metric
from latentbank.bench.scoring import answer_metrics, curves, predictions
from latentbank.bench.session import Session, Settings
from latentbank.bench.task import Outcome, Task, register
from latentbank.errors import InputError
from latentbank.evaluate.data import QADataset
from latentbank.evaluate.stream_metrics import backward_transfer, retention_area

SCORES = ("exact_match", "f1")


@dataclass(frozen=True)
class RetentionConfig:
    """`first`: documents that are asked about. `every`: documents written between two askings."""

    first: int = 200
    every: int = 200

    def __post_init__(self) -> None:
        if self.first < 1 or self.every < 1:
            raise InputError("first and every must be at least 1")


@register("retention")
class Retention(Task):
    """Asks about the first documents again as the stream goes on."""

    Config = RetentionConfig

    def __init__(self, data: QADataset, settings: Settings, config: RetentionConfig) -> None:
        super().__init__(data, settings, config)
        if self.documents <= config.first:
            raise InputError(
                f"retention writes more than the {config.first} documents that it asks about; the "
                f"data has {self.documents}. Lower them with -o first=… -o every=…"
            )
        self.questions = self.asked(range(config.first))
        self.stops = [*range(config.first, self.documents, config.every), self.documents]

    def run(self, session: Session) -> Outcome:
        """Writes in steps and asks about the first documents after each."""
        session.fresh_bank(self.documents)
        evaluations, points, begin = [], [], 0
        for stop in self.stops:
            session.write(self.data.documents[begin:stop], f"writing up to {stop}")
            evaluations.append(session.ask(f"after {stop}", self.questions))
            points.append({**answer_metrics(evaluations[-1]), **session.bank_metrics(stop)})
            begin = stop
        first, last = evaluations[0], evaluations[-1]
        metrics = {**points[-1]}
        for name in SCORES:
            heights = [point[name].value for point in points]
            area = retention_area([float(x) for x in self.stops], heights)
            metrics[f"retention_area_{name}"] = Metric(area, "percent")
            moved = backward_transfer(getattr(first, name), getattr(last, name))
            metrics[f"backward_transfer_{name}"] = Metric(100 * moved, "percent points")
        rows = [
            row
            for stop, item in zip(self.stops, evaluations, strict=True)
            for row in predictions(self.questions, item, f"after {stop}")
        ]
        series = curves([float(x) for x in self.stops], "documents written", "documents", points)
        return Outcome(metrics, series, rows)
