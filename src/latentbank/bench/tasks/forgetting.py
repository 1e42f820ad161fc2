"""Forgetting: what writing costs on closed-book questions that have nothing to do with the stream.

The questions come from files such as NQ-open, TriviaQA or WebQuestions (`--closed-book`). They are
asked three times: of the bare backbone, of the method with an empty bank, and after the stream.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from latentbank.bench.record import Metric
from latentbank.bench.scoring import answer_metrics, joined, predictions, suffixed
from latentbank.bench.session import Reader, Session, Settings
from latentbank.bench.task import Outcome, Task, register
from latentbank.errors import InputError
from latentbank.evaluate.closed_book import load_questions
from latentbank.evaluate.data import QADataset
from latentbank.evaluate.evaluation import Evaluation
from latentbank.evaluate.stream_metrics import forgetting
from latentbank.method import NAMED_ONLY, Method

SCORES = ("exact_match", "f1", "contains_answer")


@dataclass(frozen=True)
class ForgettingConfig:
    """`closed_book`: files of questions and answers."""

    closed_book: tuple[str, ...] = ()


@register("forgetting")
class Forgetting(Task):
    """Asks closed-book questions before and after the stream."""

    Config = ForgettingConfig
    takes_gold = False

    def __init__(self, data: QADataset, settings: Settings, config: ForgettingConfig) -> None:
        super().__init__(data, settings, config)
        if not config.closed_book:
            raise InputError(
                "forgetting asks closed-book questions; name a file of them with --closed-book."
            )
        self.sets: dict[str, QADataset] = {}
        for path in config.closed_book:
            data_set = load_questions(Path(path))
            if data_set.name in self.sets:
                raise InputError(f"Two files of closed-book questions are named {data_set.name}.")
            if settings.questions is not None:
                data_set = data_set.sample_questions(settings.questions, settings.seed)
            self.sets[data_set.name] = data_set
        hashes = "".join(data_set.hash for data_set in self.sets.values())
        self.extra_hash = hashlib.blake2b(hashes.encode(), digest_size=16).hexdigest()

    def refuses(self, method: Method) -> str:
        """Refuses a method that reads only the documents it is told."""
        if NAMED_ONLY in method.claims:
            return "it reads only a document that it is told, and closed-book questions have none"
        return ""

    def run(self, session: Session) -> Outcome:
        """Asks closed-book questions of the backbone, and before and after writing."""
        session.fresh_bank(self.documents)
        phases = {
            "backbone": self._ask(session, "backbone"),
            "before": self._ask(session, "before"),
        }
        session.write(self.data.documents)
        phases["after"] = self._ask(session, "after")
        metrics = {
            **answer_metrics(joined(list(phases["after"].values()))),
            **session.bank_metrics(self.documents),
        }
        rows = []
        for name, data in self.sets.items():
            label = re.sub(r"\W+", "_", name)
            for phase, evaluations in phases.items():
                scores = answer_metrics(evaluations[name])
                metrics |= suffixed(scores, f"{phase}_{label}", *SCORES)
                rows += predictions(data, evaluations[name], f"{name}, {phase}")
            lost = forgetting(phases["before"][name].f1, phases["after"][name].f1)
            metrics[f"forgetting_f1_{label}"] = Metric(100 * float(lost), "percent points")
        return Outcome(metrics, predictions=rows)

    def _ask(self, session: Session, phase: str) -> dict[str, Evaluation]:
        """Every set of questions, by name."""
        reader: Reader = "backbone" if phase == "backbone" else "memory"
        return {name: session.ask(f"{name}, {phase}", d, reader) for name, d in self.sets.items()}
