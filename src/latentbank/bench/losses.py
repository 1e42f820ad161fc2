"""Losses of answers and of text under what a method reads, beside the answers themselves.

Knows methods through their contract; knows no protocol and no files.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from latentbank.answering import question_batches
from latentbank.backbone.prompts import answer_ids
from latentbank.bench.session import Session
from latentbank.evaluate.data import QADataset

__all__ = ["answer_losses", "text_losses"]

WINDOW = 256  # tokens of text that are scored together


@torch.no_grad()
def answer_losses(session: Session, data: QADataset, batch: int = 8) -> list[float]:
    """Nats per token of each question's first answer, given what the method reads for it.

    A method with several candidates reads the best of them.
    """
    method, backbone = session.method, session.method.backbone
    asked = [question.text for question in data.questions]
    found: dict[int, float] = {}
    session.progress.start("answer losses", len(asked))
    for part in question_batches(asked, None, batch):
        questions = [asked[i] for i in part]
        answers = answer_ids(backbone, [data.questions[i].answers[0] for i in part])
        with session.in_method(), backbone.exclusive():
            read = method.read(questions)
            prompts = read.prompts(backbone, questions)
            with read.attach(backbone):
                total, tokens = backbone.answer_loss(prompts, answers)
        found.update(zip(part, (total / tokens).tolist(), strict=True))
        session.progress.advance(len(part))
    return [found[i] for i in range(len(asked))]


@torch.no_grad()
def text_losses(session: Session, text: str, tokens: int) -> list[float]:
    """Nats per token of each window of the first `tokens` tokens of a text.

    A window is read for like a question. A passage that the method puts into the prompt comes
    before the window and is not scored.
    """
    method, backbone = session.method, session.method.backbone
    ids = backbone.encode([text], start=False)[0][:tokens]
    windows = [ids[at : at + WINDOW] for at in range(0, len(ids), WINDOW)]
    windows = [window for window in windows if len(window) > 1]
    found = []
    session.progress.start("text losses", len(windows))
    for window in windows:
        with session.in_method(), backbone.exclusive():
            read = method.read([backbone.tokenizer.decode(window)])
            heads = read.passages[0] if read.passages else ""
            prompt = backbone.encode([f"{heads}\n\n" if heads else ""])[0]
            with read.attach(backbone):
                total, scored = backbone.answer_loss([prompt], [window])
        found.append(float(total[0] / scored[0]))
        session.progress.advance(1)
    return found


def mean(values: Sequence[float]) -> float:
    """The mean of some numbers; 0 of none."""
    return sum(values) / len(values) if values else 0.0
