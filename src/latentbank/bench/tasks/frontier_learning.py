"""Learning and forgetting: what a stream of documents teaches, and what it costs elsewhere.

Learned: how far the loss of the stream's answers falls. Forgotten: how far the loss of held-out
answers and of other text rises, and how far their F1 falls. Lin et al., 2025,
https://arxiv.org/abs/2510.15103, draw one against the other. A dial, such as the rate, is set in
the rows: `--methods 'slow=finetune,rate=0.0001' --methods 'fast=finetune,rate=0.001'`.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from latentbank.bench.losses import answer_losses, mean, text_losses
from latentbank.bench.record import Metric
from latentbank.bench.scoring import answer_metrics, predictions, suffixed
from latentbank.bench.session import Session, Settings
from latentbank.bench.task import Outcome, Task, register
from latentbank.config import require_at_least, setting
from latentbank.evaluate.closed_book import load_questions
from latentbank.evaluate.data import QADataset, load_sample
from latentbank.evaluate.evaluation import Evaluation
from latentbank.evaluate.facts.wordings import held_out_text, is_paraphrase, with_other_words
from latentbank.evaluate.metrics import paired_bootstrap
from latentbank.method import NAMED_ONLY, Method

SCORES = ("exact_match", "f1", "contains_answer")
NATS = "nats/token"


@dataclass(frozen=True)
class FrontierConfig:
    """What is held out, beside the stream."""

    closed_book: tuple[str, ...] = setting((), "Files of questions and answers; none: the sample.")
    held_out: int = setting(100, "Questions of each of them.")
    answered: int = setting(20, "Of these, questions that are answered; the rest give losses only.")
    text: str = setting("", "Text for the perplexity; empty: the sample's paragraphs.")
    text_tokens: int = setting(4096, "Tokens of it.")

    def __post_init__(self) -> None:
        require_at_least(self, 1, "held_out")
        require_at_least(self, 0, "answered", "text_tokens")


@register("frontier-learning")
class FrontierLearning(Task):
    """Measures before and after the stream; reports both and the difference."""

    Config = FrontierConfig
    takes_gold = False

    def __init__(self, data: QADataset, settings: Settings, config: FrontierConfig) -> None:
        super().__init__(data, settings, config)
        asked = with_other_words(self.asked())
        self.parts = {
            name: replace(asked, questions=tuple(q for q in asked.questions if chosen(q)))
            for name, chosen in (
                ("stream", lambda q: not is_paraphrase(q)), ("paraphrase", is_paraphrase),
            )
        }  # fmt: skip
        self.parts = {name: part for name, part in self.parts.items() if part.questions}
        found = [load_questions(Path(path)) for path in config.closed_book]
        for one in found or [_sample_questions(data)]:
            drawn = one
            if len(one.questions) > config.held_out:
                drawn = one.sample_questions(config.held_out, settings.seed)
            self.parts[f"held_out_{re.sub(r'[^A-Za-z0-9]+', '_', one.name)}"] = drawn
        self.text = held_out_text(config.text)
        hashes = "".join(part.hash for part in self.parts.values()) + self.text
        self.extra_hash = hashlib.blake2b(hashes.encode(), digest_size=16).hexdigest()

    def refuses(self, method: Method) -> str:
        """Refuses a method that reads only the documents it is told."""
        if NAMED_ONLY in method.claims:
            return "it reads only a document that it is told, and held-out questions have none"
        return ""

    def run(self, session: Session) -> Outcome:
        """Measures, writes the stream, and measures again."""
        session.fresh_bank(self.documents)
        before, text_before = self._losses(session)
        scores_before = self._answers(session, "before")
        session.write(self.data.documents)
        after, text_after = self._losses(session)
        metrics: dict[str, Metric] = {}
        rows = []
        for name, (data, evaluation) in self._answers(session, "after").items():
            metrics |= suffixed(answer_metrics(evaluation), name, *SCORES)
            old = scores_before[name][1]
            metrics |= suffixed(answer_metrics(old), f"{name}_before", *SCORES)
            rows += predictions(data, evaluation, name)
            if name == "stream":
                metrics |= answer_metrics(evaluation)
        seed = self.settings.seed
        for name in self.parts:
            metrics[f"loss_{name}_before"] = Metric(mean(before[name]), NATS)
            metrics[f"loss_{name}"] = Metric(mean(after[name]), NATS)
            lower = not name.startswith("held_out")
            pair = (before, after) if lower else (after, before)
            metrics[f"{'gain' if lower else 'rise'}_{name}"] = _change(
                pair[0][name], pair[1][name], seed
            )
        held = [name for name in self.parts if name.startswith("held_out")]
        metrics["rise"] = _change(
            [loss for name in held for loss in after[name]],
            [loss for name in held for loss in before[name]],
            seed,
        )
        if self.config.answered:
            pairs = [(metrics[f"f1_{n}_before"].value, metrics[f"f1_{n}"].value) for n in held]
            fall = mean([before - after for before, after in pairs])
            metrics["forgotten_f1"] = Metric(fall, "percent points")
        if text_after:
            metrics["perplexity_before"] = Metric(float(np.exp(mean(text_before))), "perplexity")
            metrics["perplexity"] = Metric(float(np.exp(mean(text_after))), "perplexity")
            metrics["rise_text"] = _change(text_after, text_before, seed)
        return Outcome({**metrics, **session.bank_metrics(self.documents)}, predictions=rows)

    def _losses(self, session: Session) -> tuple[dict[str, list[float]], list[float]]:
        losses = {name: answer_losses(session, part) for name, part in self.parts.items()}
        return losses, text_losses(session, self.text, self.config.text_tokens)

    def _answers(self, session: Session, phase: str) -> dict[str, tuple[QADataset, Evaluation]]:
        """Part → (questions, answers with their scores); of held-out parts only some questions."""
        found = {}
        for name, part in self.parts.items():
            count = self.config.answered if name.startswith("held_out") else len(part.questions)
            if count:
                few = replace(part, questions=part.questions[:count])
                found[name] = few, session.ask(f"{name}, {phase}", few)
        return found


def _change(high: list[float], low: list[float], seed: int) -> Metric:
    """The mean of high − low with its 95 % interval."""
    found = paired_bootstrap(high, low, seed=seed)
    return Metric(found.difference, NATS, found.low, found.high)


def _sample_questions(data: QADataset) -> QADataset:
    """The packaged sample's questions without documents; none about a text of the stream."""
    sample, stream = load_sample(), {document.text for document in data.documents}
    kept = tuple(
        replace(question, document=0)
        for question in sample.questions
        if sample.documents[question.document].text not in stream
    )
    return QADataset("sample", (), kept)
