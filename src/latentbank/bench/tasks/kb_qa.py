"""kb-qa: questions about a knowledge base of triples as it grows, a part of them unanswerable.

At each size some triples are withheld, other triples of their entities are not. Questions about the
withheld ones have no answer. Measured: right answers by class of value, whether the first source is
the right triple, and refusals. A method that reads only what it is told gets the whole knowledge
base as one text in the prompt.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from latentbank.answering import Answer
from latentbank.bench.record import Metric, Series
from latentbank.bench.scoring import answer_metrics, curve, predictions, rate
from latentbank.bench.session import CannotDo, Session, Settings
from latentbank.bench.task import Outcome, Task, register
from latentbank.config import require_rising
from latentbank.documents.document import Document
from latentbank.errors import InputError
from latentbank.evaluate.data import QADataset
from latentbank.evaluate.kb.data import class_of
from latentbank.evaluate.kb.world import REFUSAL
from latentbank.method import NAMED_ONLY

WITHHELD = 4  # one triple of so many is withheld at most


@dataclass(frozen=True)
class KbQaConfig:
    """`sizes`: triples in the bank at each measurement; those above the data's number are left out.

    `asked`: answerable questions at each, if the settings name no number. There are up to half as
    many unanswerable ones.
    """

    sizes: tuple[int, ...] = (10, 100, 1_000, 10_000)
    asked: int = 64

    def __post_init__(self) -> None:
        require_rising(self, "sizes", 1)


@register("kb-qa")
class KbQa(Task):
    """Writes knowledge bases of several sizes and asks about each."""

    Config = KbQaConfig

    def __init__(self, data: QADataset, settings: Settings, config: KbQaConfig) -> None:
        super().__init__(
            data, replace(settings, questions=settings.questions or config.asked), config
        )
        if any(class_of(question) is None for question in data.questions):
            raise InputError(
                f"kb-qa needs triples with questions; got {data.name}. Use --data kb:1000 or "
                "--data kb:FILE."
            )
        held = len(data.documents)
        self.sizes = [n for n in config.sizes if n + self._withheld(n) <= held]
        if not self.sizes:
            size = held * WITHHELD // (WITHHELD + 1)
            self.sizes = [max(1, min(size, config.sizes[0]))]
        self.documents = self.sizes[-1]

    def _withheld(self, size: int) -> int:
        return min((self.settings.questions or 0) // 2, max(1, size // WITHHELD))

    def run(self, session: Session) -> Outcome:
        """For each size, writes so many triples into a fresh bank and asks about them."""
        points: dict[int, dict[str, Metric]] = {}
        rows, stopped = [], ""
        for size in self.sizes:
            known, unknown = self._parts(size)
            session.fresh_bank(size)
            try:
                self._write(session, known)
                right = session.ask(f"{size} triples", self._named(session, known))
                missing = session.ask(f"{size} triples, missing", self._named(session, unknown))
            except CannotDo as error:
                if not points:
                    raise
                stopped = f"{size:,} triples: {error}"
                break
            wanted = [known.documents[q.document].id for q in known.questions]
            classes = [str(class_of(q)) for q in known.questions]
            points[size] = {
                **answer_metrics(right),
                **_by_class(classes, right.exact_match),
                **_found(wanted, right.answers),
                **_refusals(right.answers, missing.answers),
                **session.bank_metrics(size),
            }
            rows += predictions(known, right, f"{size} triples")
            rows += predictions(unknown, missing, f"{size} triples, missing")
        notes = {"stopped": stopped} if stopped else {}
        return Outcome(points[max(points)], _series(points), rows, notes)

    def _parts(self, size: int) -> tuple[QADataset, QADataset]:
        """(the triples of a size with questions about them, questions about withheld triples)."""
        count = self._withheld(size)
        data = self.data.take(size + count)
        draw = random.Random(f"{self.settings.seed}/{size}")
        gone = set(draw.sample(range(len(data.documents)), min(count, len(data.documents) - 1)))
        number = {
            i: n for n, i in enumerate(i for i in range(len(data.documents)) if i not in gone)
        }
        documents = tuple(data.documents[i] for i in number)
        asked = tuple(
            replace(q, document=number[q.document]) for q in data.questions if q.document in number
        )
        known = QADataset(data.name, documents, asked)
        known = known.sample_questions(self.settings.questions or 1, self.settings.seed)
        missing = tuple(q for q in data.questions if q.document in gone)
        return known, QADataset(data.name, data.documents, missing)

    def _write(self, session: Session, known: QADataset) -> None:
        if NAMED_ONLY in session.method.claims:
            session.write([_whole(known.documents)], "writing")
        else:
            session.write(known.documents, f"writing {len(known.documents):,} triples")

    def _named(self, session: Session, asked: QADataset) -> QADataset:
        """The questions; where a method is told what to read, about the text of all triples."""
        if NAMED_ONLY not in session.method.claims:
            return asked
        stored = next(iter(session.bank.entries()), None)
        if stored is None:
            raise CannotDo("the text of all triples was not kept")
        text = Document("the knowledge base", stored.id)
        questions = tuple(replace(q, document=0) for q in asked.questions)
        return QADataset(asked.name, (text,), questions)


def _whole(documents: Sequence[Document]) -> Document:
    return Document("\n".join(f"{document.text}." for document in documents))


def _by_class(classes: Sequence[str], right: Sequence[float]) -> dict[str, Metric]:
    """Exact answers of each class of value, where there are several."""
    found: dict[str, list[float]] = defaultdict(list)
    for name, score in zip(classes, right, strict=True):
        found[name].append(score)
    return {f"exact_{name}": rate(scores) for name, scores in sorted(found.items())}


def _found(wanted: Sequence[str], answers: Sequence[Answer]) -> dict[str, Metric]:
    """How often the first source is the right triple."""
    first = [float(a.documents[:1] != () and a.documents[0][0] == id)
             for id, a in zip(wanted, answers, strict=True)]  # fmt: skip
    return {"first_source_right": rate(first)}


def refused(answer: Answer) -> bool:
    """Whether an answer says that nothing is known: a refusal, no text, or the closed book."""
    return REFUSAL in answer.text.lower() or not answer.text.strip() or not answer.from_memory


def _refusals(known: Sequence[Answer], missing: Sequence[Answer]) -> dict[str, Metric]:
    """Recall of refusals, their precision, and answerable questions that were refused."""
    wrong, right = [refused(a) for a in known], [refused(a) for a in missing]
    metrics = {
        "refusal_recall": rate([float(v) for v in right]),
        "false_refusals": rate([float(v) for v in wrong]),
        "unanswerable_questions": Metric(len(missing), "questions"),
    }
    all_refused = [1.0] * sum(right) + [0.0] * sum(wrong)
    return metrics | ({"refusal_precision": rate(all_refused)} if all_refused else {})


def _series(points: Mapping[int, Mapping[str, Metric]]) -> dict[str, Series]:
    """A curve over the number of triples for each metric, where it was measured."""
    names = dict.fromkeys(name for point in points.values() for name in point)
    series = {}
    for name in names:
        sizes = [size for size in points if name in points[size]]
        values = [points[size][name] for size in sizes]
        series[name] = curve([float(s) for s in sizes], "triples", "triples", values, name)
    return series
