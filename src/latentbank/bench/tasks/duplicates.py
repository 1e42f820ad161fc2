"""Duplicates: the stream is written k times. Neither the bank nor its answers should change."""

from __future__ import annotations

from dataclasses import dataclass

from latentbank.bench.record import Metric
from latentbank.bench.scoring import answer_metrics, curves, predictions
from latentbank.bench.session import Session, Settings
from latentbank.bench.task import Outcome, Task, register
from latentbank.config import require_rising
from latentbank.evaluate.data import QADataset


@dataclass(frozen=True)
class DuplicatesConfig:
    """`copies`: how often each document is written; one run for each number."""

    copies: tuple[int, ...] = (1, 2, 4)

    def __post_init__(self) -> None:
        require_rising(self, "copies", 1)


@register("duplicates")
class Duplicates(Task):
    """Writes each document several times."""

    Config = DuplicatesConfig

    def __init__(self, data: QADataset, settings: Settings, config: DuplicatesConfig) -> None:
        super().__init__(data, settings, config)
        self.questions = self.asked()

    def run(self, session: Session) -> Outcome:
        """Writes the documents 1, 2, … times and asks after each count."""
        points, rows = [], []
        for copies in self.config.copies:
            session.fresh_bank(self.documents)
            for copy in range(copies):
                session.write(self.data.documents, f"writing, copy {copy + 1} of {copies}")
            evaluation = session.ask(f"{copies} copies", self.questions)
            points.append({**answer_metrics(evaluation), **session.bank_metrics(self.documents)})
            rows += predictions(self.questions, evaluation, f"{copies} copies")
        first, last = (point["bank_bytes"].value for point in (points[0], points[-1]))
        growth = 100 * (last - first) / first if first else 0.0
        metrics = {**points[-1], "bank_growth": Metric(growth, "percent")}
        x = [float(copies) for copies in self.config.copies]
        return Outcome(metrics, curves(x, "copies of each document", "copies", points), rows)
