"""Updates: later documents contradict earlier ones, and the newer answer counts.

An update replaces the answer in a document by another answer of the same coarse type (year, number,
name). All originals are written first, then all updates. An answer with the old text is an error
and counted apart. A clean bank without the outdated originals shows what can be answered at all.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from latentbank.bench.record import Metric
from latentbank.bench.scoring import answer_metrics, predictions, rate, suffixed
from latentbank.bench.session import Session, Settings
from latentbank.bench.task import NoOptions, Outcome, Task, register
from latentbank.documents.document import Document
from latentbank.errors import InputError
from latentbank.evaluate.data import QADataset, Question
from latentbank.evaluate.evaluation import Evaluation
from latentbank.evaluate.metrics import contains_answer, exact_match, normalize_answer

TYPES = {
    "year": re.compile(r"1\d{3}|20\d{2}"),
    "number": re.compile(r"[$£€]?\d[\d.,]*(?:\s?(?:%|percent|million|billion|thousand))?"),
    "name": re.compile(r"[A-Z][\w.'’-]*(?: (?:(?:of|the|de|von|van|and) )?[A-Z][\w.'’-]*){0,4}"),
}


def coarse_type(answer: str) -> str:
    """ "1843" → "year", "24" → "number", "Ada Lovelace" → "name"; "" for anything else."""
    return next((name for name, form in TYPES.items() if form.fullmatch(answer.strip())), "")


@dataclass(frozen=True)
class Update:
    """The new version of document `index`, with a question, its new answers and its `old` ones."""

    index: int
    document: Document
    question: Question
    old: tuple[str, ...]


def build_updates(data: QADataset, seed: int) -> list[Update]:
    """An update of each document whose text has an answer of a known type.

    The same data and seed give the same updates.
    """
    draw = random.Random(seed)
    pools: dict[str, list[tuple[str, int]]] = {name: [] for name in TYPES}
    for question in data.questions:
        kind = coarse_type(question.answers[0])
        if kind:
            pools[kind].append((question.answers[0].strip(), question.document))
    latest = max((d.time for d in data.documents if d.time), default=None)
    taken = {document.id for document in data.documents}
    updates = []
    for index, asked in enumerate(data.questions_by_document()):
        for at in asked:
            update = _update(data, index, data.questions[at], pools, draw, latest)
            if update is not None and update.document.id not in taken:
                taken.add(update.document.id)
                updates.append(update)
                break
    return updates


def _update(
    data: QADataset,
    index: int,
    question: Question,
    pools: dict[str, list[tuple[str, int]]],
    draw: random.Random,
    latest: str | None,
) -> Update | None:
    """The update of one document by one question, or None if there is none."""
    document, old = data.documents[index], question.answers[0].strip()
    kind = coarse_type(old)
    span = re.compile(rf"(?<!\w){re.escape(old)}(?!\w)") if kind else None
    if span is None or not span.search(document.text):
        return None
    new = _other(pools[kind], index, document.text, question.answers, draw)
    if new is None:
        return None
    text = span.sub(lambda _: new, document.text)
    fresh = Document(text, time=latest, source=document.source, metadata=document.metadata)
    return Update(index, fresh, replace(question, answers=(new,)), question.answers)


def _other(
    pool: Sequence[tuple[str, int]],
    index: int,
    text: str,
    answers: Sequence[str],
    draw: random.Random,
) -> str | None:
    """An answer about another document that is neither in the text nor among the old answers."""
    old = {normalize_answer(answer) for answer in answers}
    for answer, document in draw.sample(pool, min(len(pool), 50)):
        new = normalize_answer(answer)
        known = any(new in one or one in new for one in old)
        if document != index and new and not known and answer not in text:
            return answer
    return None


@register("updates")
class Updates(Task):
    """Writes documents, then contradicts them; the newer answer counts."""

    Config = NoOptions

    def __init__(self, data: QADataset, settings: Settings, config: NoOptions) -> None:
        super().__init__(data, settings, config)
        self.updates = build_updates(data, settings.seed)
        if not self.updates:
            raise InputError(
                f"No document of {data.name} can be updated: that needs questions whose answer is "
                "a year, a number or a name in the text, and another answer of its kind."
            )
        documents = (*data.documents, *(u.document for u in self.updates))
        first = len(data.documents)
        questions = tuple(
            replace(u.question, document=first + i) for i, u in enumerate(self.updates)
        )
        self.documents = len(documents)
        self.data = replace(data, documents=documents, questions=questions)
        self.questions = self.asked()
        self.old = {u.question.id: u.old for u in self.updates}

    def run(self, session: Session) -> Outcome:
        """Asks a clean bank, then one that holds the originals and the updates."""
        first = self.documents - len(self.updates)
        current = list(self.data.documents[:first])
        for update in self.updates:
            current[update.index] = update.document
        session.fresh_bank(first)
        session.write(current, "writing the clean bank")
        clean = session.ask("clean bank", self.questions)
        session.fresh_bank(self.documents)
        session.write(self.data.documents[:first])
        session.write(self.data.documents[first:], "writing updates")
        evaluation = session.ask("questions", self.questions)
        pairs = [
            (a.text, self.old[q.id])
            for a, q in zip(evaluation.answers, self.questions.questions, strict=True)
        ]
        metrics = {
            **answer_metrics(evaluation),
            "old_exact_match": rate([exact_match(a, old) for a, old in pairs]),
            "old_contains_answer": rate([contains_answer(a, old) for a, old in pairs]),
            **suffixed(answer_metrics(clean), "clean", "exact_match", "f1"),
            **_of_clean(evaluation, clean),
            **session.bank_metrics(self.documents),
        }
        rows = predictions(self.questions, evaluation)
        for row, (_, old), answer in zip(rows, pairs, clean.answers, strict=True):
            row |= {"old_references": list(old), "clean_answer": answer.text}
        return Outcome(metrics, predictions=rows, notes={"updates": len(self.updates)})


def _of_clean(evaluation: Evaluation, clean: Evaluation) -> dict[str, Metric]:
    """The share of the clean bank's exact answers that stay exact; {} if it has none."""
    both = zip(evaluation.exact_match, clean.exact_match, strict=True)
    kept = [after for after, before in both if before]
    return {"exact_match_of_clean": rate(kept)} if kept else {}
