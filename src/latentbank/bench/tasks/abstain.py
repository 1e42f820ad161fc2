"""Abstention: half of the documents is written, and questions about both halves are asked.

Measures how well confidence tells the answerable questions from the others: accuracy at fixed rates
of false answers, and the area under the risk-coverage curve (El-Yaniv and Wiener 2010).
"""

from __future__ import annotations

from dataclasses import dataclass

from latentbank.bench.record import Metric, Series
from latentbank.bench.scoring import answer_metrics, predictions
from latentbank.bench.session import Session, Settings
from latentbank.bench.task import Outcome, Task, register
from latentbank.errors import InputError
from latentbank.evaluate.data import QADataset
from latentbank.evaluate.evaluation import Evaluation
from latentbank.evaluate.stream_metrics import accuracy_at_false_answer_rate, risk_coverage

POINTS = 200  # of the curve in the record


@dataclass(frozen=True)
class AbstainConfig:
    """`share` of the documents that is written; `rates` of false answers that are allowed."""

    share: float = 0.5
    rates: tuple[float, ...] = (0.01, 0.05, 0.1, 0.2, 0.5)

    def __post_init__(self) -> None:
        if not self.rates or not all(0 <= rate <= 1 for rate in self.rates):
            raise InputError(f"rates must lie between 0 and 1, got {list(self.rates)}")


@register("abstain")
class Abstain(Task):
    """Asks about written and unwritten documents and scores the confidence."""

    Config = AbstainConfig

    def __init__(self, data: QADataset, settings: Settings, config: AbstainConfig) -> None:
        super().__init__(data, settings, config)
        written, unwritten = self.halves(config.share)
        self.stream = [data.documents[i] for i in written]
        self.documents = len(self.stream)
        self.answerable, self.unanswerable = self.asked(written), self.asked(unwritten)

    def run(self, session: Session) -> Outcome:
        """Writes the stream; asks answerable and unanswerable questions."""
        session.fresh_bank(self.documents)
        session.write(self.stream)
        known = session.ask("answerable", self.answerable)
        unknown = session.ask("unanswerable", self.unanswerable)
        metrics = {**answer_metrics(known), **session.bank_metrics(self.documents)}
        doubt, curve = self._doubt(known, unknown)
        rows = [
            *predictions(self.answerable, known, "answerable"),
            *predictions(self.unanswerable, unknown, "unanswerable"),
        ]
        return Outcome({**metrics, **doubt}, {"risk": curve}, rows)

    def _doubt(self, known: Evaluation, unknown: Evaluation) -> tuple[dict[str, Metric], Series]:
        """Metrics of the confidence. Any answer to an unanswerable question is wrong."""
        confidence = [a.confidence for a in (*known.answers, *unknown.answers)]
        correct = [*known.exact_match, *(0.0 for _ in unknown.answers)]
        answerable = [*(True for _ in known.answers), *(False for _ in unknown.answers)]
        risk = risk_coverage(confidence, correct)
        rates = self.config.rates
        accuracies = accuracy_at_false_answer_rate(confidence, correct, answerable, rates)
        metrics = {
            f"accuracy_at_{100 * rate:g}_percent_false": Metric(100 * float(value), "percent")
            for rate, value in zip(rates, accuracies, strict=True)
        }
        metrics["risk_coverage_area"] = Metric(float(risk.area), "fraction")
        metrics["unanswerable_questions"] = Metric(len(unknown.answers), "questions")
        step = max(1, len(risk.coverage) // POINTS)
        curve = Series(
            x=tuple(100 * float(v) for v in risk.coverage[::step]),
            y=tuple(100 * float(v) for v in risk.risk[::step]),
            x_name="coverage",
            x_unit="percent",
            y_name="risk",
            y_unit="percent",
        )
        return metrics, curve
