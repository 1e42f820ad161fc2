"""Online question answering: every document is written once, in order; then come the questions.

The test of CaMeLS (Hu et al. 2023), MAC (Tack et al. 2024), MBC (Katraouras and Rafailidis 2026).
"""

from __future__ import annotations

from typing import Any

from latentbank.bench.hooks import Hooks
from latentbank.bench.measures import answer_metrics, predictions
from latentbank.bench.task import Outcome, Settings, Task, register
from latentbank.evaluate.data import QADataset
from latentbank.method import Method


@register("online-qa")
class OnlineQA(Task):
    """Stream the documents once, then ask."""

    def __init__(self, data: QADataset, settings: Settings, config: Any) -> None:
        super().__init__(data, settings, config)
        self.questions = self.asked()

    def run(self, method: Method, hooks: Hooks) -> Outcome:
        hooks.fresh_bank(self.documents)
        hooks.write(self.data.documents)
        found = hooks.ask("questions", self.questions)
        metrics = {**answer_metrics(found), **hooks.bank_metrics(self.documents)}
        return Outcome(metrics, predictions=predictions(self.questions, found))
