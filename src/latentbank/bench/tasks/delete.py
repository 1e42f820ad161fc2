"""Delete: answers about deleted documents must fall to the level of closed book.

All documents are written and half of them deleted. Closed book is the same model with the method's
low-rank weights and without memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from latentbank.bench.record import Metric
from latentbank.bench.scoring import answer_metrics, predictions, suffixed
from latentbank.bench.session import Session, Settings
from latentbank.bench.task import Outcome, Task, register
from latentbank.evaluate.data import QADataset
from latentbank.evaluate.metrics import paired_bootstrap
from latentbank.method import EXACT_DELETE

SCORES = ("exact_match", "f1", "contains_answer")


@dataclass(frozen=True)
class DeleteConfig:
    """`share` of the documents that is deleted."""

    share: float = 0.5


@register("delete")
class Delete(Task):
    """Writes all documents, deletes half, asks about both halves."""

    Config = DeleteConfig

    def __init__(self, data: QADataset, settings: Settings, config: DeleteConfig) -> None:
        super().__init__(data, settings, config)
        self.gone, self.left = self.halves(config.share)
        self.about_gone, self.about_left = self.asked(self.gone), self.asked(self.left)

    def run(self, session: Session) -> Outcome:
        """Writes everything, deletes some documents, and asks about them before and after."""
        session.fresh_bank(self.documents)
        session.write(self.data.documents)
        before = session.ask("before deletion", self.about_gone)
        closed = session.ask("closed book", self.about_gone, reader="weights")
        ids = [self.data.documents[i].id for i in self.gone]
        removed = session.delete(ids)
        deleted = session.ask("deleted", self.about_gone)
        left = session.ask("left", self.about_left)
        gone = set(ids)
        named = sum(any(name in gone for name, _ in a.documents) for a in deleted.answers)
        leak = paired_bootstrap(deleted.f1, closed.f1, seed=self.settings.seed)
        metrics = {
            **answer_metrics(left),
            **suffixed(answer_metrics(before), "before_deletion", *SCORES),
            **suffixed(answer_metrics(deleted), "deleted", *SCORES),
            **suffixed(answer_metrics(closed), "closed_book", *SCORES),
            "leak_f1": Metric(
                100 * leak.difference, "percent points", 100 * leak.low, 100 * leak.high
            ),
            "deleted_documents": Metric(removed, "documents"),
            **session.bank_metrics(self.documents),
        }
        if not session.gold:  # with gold every answer names its document, deleted or not
            metrics["answers_from_deleted"] = Metric(named, "questions")
        notes = {"claims_exact_delete": EXACT_DELETE in session.method.claims}
        rows = [
            *predictions(self.about_gone, before, "before deletion"),
            *predictions(self.about_gone, closed, "closed book"),
            *predictions(self.about_gone, deleted, "deleted"),
            *predictions(self.about_left, left, "left"),
        ]
        return Outcome(metrics, predictions=rows, notes=notes)
