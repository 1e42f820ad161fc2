"""Capacity: bits that a memory gives back for each byte that it takes.

A stream of invented facts is written once and asked exactly. The values are drawn from known
distributions (see `evaluate.invented`), so each exact answer shows how many bits were kept. What is
guessed counts too, as much as chance allows: 0.1 bits a fact at most.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from latentbank.bench.record import Metric
from latentbank.bench.scoring import answer_metrics, curves, predictions
from latentbank.bench.session import Session, Settings
from latentbank.bench.task import Outcome, Task, register
from latentbank.errors import InputError
from latentbank.evaluate.data import QADataset, Question
from latentbank.evaluate.invented import KINDS, kind_of


@dataclass(frozen=True)
class CapacityConfig:
    """`sizes`: facts in the bank at each measurement; none above the data's number."""

    sizes: tuple[int, ...] = (100, 1_000, 10_000)

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 1 or list(self.sizes) != sorted(set(self.sizes)):
            raise InputError(f"sizes must be rising numbers from 1, got {list(self.sizes)}")


@register("capacity")
class Capacity(Task):
    """Writes N facts into a fresh bank, asks them, and counts bits."""

    Config = CapacityConfig

    def __init__(self, data: QADataset, settings: Settings, config: CapacityConfig) -> None:
        super().__init__(data, settings, config)
        if any(kind_of(question) is None for question in data.questions):
            raise InputError(
                f"capacity needs invented facts, whose bits are known; got {data.name}. "
                "Use --data invented:1000."
            )
        self.sizes = [n for n in config.sizes if n <= len(data.documents)] or [len(data.documents)]
        self.documents = self.sizes[-1]

    def run(self, session: Session) -> Outcome:
        """For each size, writes so many facts into a fresh bank and asks about them."""
        points, rows = [], []
        for size in self.sizes:
            facts = self.data.take(size)
            questions = facts
            if self.settings.questions is not None:
                questions = facts.sample_questions(self.settings.questions, self.settings.seed)
            session.fresh_bank(size)
            session.write(facts.documents, f"writing {size} facts")
            evaluation = session.ask(f"{size} facts", questions)
            metrics = {**answer_metrics(evaluation), **session.bank_metrics(size)}
            points.append(
                metrics | _bits(questions.questions, evaluation.exact_match, metrics, size)
            )
            rows += predictions(questions, evaluation, f"{size} facts")
        series = curves([float(n) for n in self.sizes], "facts", "facts", points)
        return Outcome(points[-1], series, rows)


def _bits(
    questions: Sequence[Question],
    exact: Sequence[float],
    metrics: dict[str, Metric],
    size: int,
) -> dict[str, Metric]:
    """Bits that were written and given back, for all `size` facts, and by kind in percent."""
    written = kept = 0.0
    right: dict[str, list[float]] = defaultdict(list)
    for question, score in zip(questions, exact, strict=True):
        kind = question.id.rpartition("-")[2]
        written += KINDS[kind].bits
        kept += score * KINDS[kind].bits
        right[kind].append(score)
    scale = size / max(1, len(questions))
    stored = metrics["bank_bytes"].value
    bits = {
        "bits_written": Metric(scale * written, "bits"),
        "bits_recovered": Metric(scale * kept, "bits"),
    }
    if stored:
        bits["bits_per_100_bytes"] = Metric(100 * scale * kept / stored, "bits")
    for kind, scores in right.items():
        bits[f"exact_{kind}"] = Metric(100 * sum(scores) / len(scores), "percent")
    return bits
