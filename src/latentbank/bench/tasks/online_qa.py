"""Online question answering: each document is written once, in order, then all questions come.

The test of CaMeLS (Hu et al. 2023), MAC (Tack et al. 2024), MBC (Katraouras and Rafailidis 2026).
"""

from __future__ import annotations

from typing import Any

from latentbank.bench.scoring import answer_metrics, predictions
from latentbank.bench.session import Session, Settings
from latentbank.bench.task import Outcome, Task, register
from latentbank.evaluate.data import QADataset


@register("online-qa")
class OnlineQA(Task):
    """Writes the stream once, then asks."""

    def __init__(self, data: QADataset, settings: Settings, config: Any) -> None:
        super().__init__(data, settings, config)
        self.questions = self.asked()

    def run(self, session: Session) -> Outcome:
        """Writes the documents and asks every question."""
        session.fresh_bank(self.documents)
        session.write(self.data.documents)
        evaluation = session.ask("questions", self.questions)
        metrics = {
            **answer_metrics(evaluation),
            **session.answers_kept(self.questions),
            **session.bank_metrics(self.documents),
        }
        return Outcome(metrics, predictions=predictions(self.questions, evaluation))
