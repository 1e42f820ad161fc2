"""Noise: unrelated documents are mixed into the stream while the bank keeps its size.

At 100 % there are as many unrelated documents as related ones. They come from other data (`noise`).
Without it the second half of the data is the noise, and the first half is asked about.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from latentbank.bench.scoring import answer_metrics, curves, predictions
from latentbank.bench.session import Session, Settings
from latentbank.bench.task import Outcome, Task, register
from latentbank.config import require_rising
from latentbank.documents.document import Document
from latentbank.errors import InputError
from latentbank.evaluate.data import QADataset, load_dataset


@dataclass(frozen=True)
class NoiseConfig:
    """`levels`: unrelated documents for each 100 related ones.

    `noise`: a file of documents, or a folder with its `split`; "" takes half of the data.
    """

    levels: tuple[int, ...] = (0, 25, 50, 75, 100)
    noise: str = ""
    split: str = ""

    def __post_init__(self) -> None:
        require_rising(self, "levels", 0)


@register("noise")
class Noise(Task):
    """Mixes unrelated documents into the stream."""

    Config = NoiseConfig

    def __init__(self, data: QADataset, settings: Settings, config: NoiseConfig) -> None:
        super().__init__(data, settings, config)
        if config.noise:
            other = load_dataset(config.noise, config.split or None)
            self.extra_hash = other.hash
            own = {document.id for document in data.documents}
            self.related: Sequence[Document] = data.documents
            self.unrelated = [d for d in other.documents if d.id not in own]
        else:
            half = (len(data.documents) + 1) // 2
            self.related, self.unrelated = data.documents[:half], list(data.documents[half:])
        self.documents = len(self.related)
        needed = self._count(config.levels[-1])
        if len(self.unrelated) < needed and config.noise:
            raise InputError(
                f"noise at {config.levels[-1]} % needs {needed} unrelated documents, "
                f"{config.noise} has {len(self.unrelated)}; ask about fewer with --documents."
            )
        if needed - len(self.unrelated) > 1 or not self.unrelated:
            raise InputError(
                f"noise at {config.levels[-1]} % needs {needed} unrelated documents, the half of "
                f"the data has {len(self.unrelated)}; name others with --noise-data."
            )
        self.questions = self.asked(range(self.documents))

    def _count(self, level: int) -> int:
        return round(level * len(self.related) / 100)

    def stream(self, level: int) -> list[Document]:
        """The related documents in order, with unrelated ones at random places between them."""
        noise = self.unrelated[: self._count(level)]
        total = len(self.related) + len(noise)
        places = set(random.Random(self.settings.seed).sample(range(total), len(noise)))
        related, unrelated = iter(self.related), iter(noise)
        return [next(unrelated if i in places else related) for i in range(total)]

    def run(self, session: Session) -> Outcome:
        """Writes the related documents among more and more noise; asks at each level."""
        points, rows = [], []
        for level in self.config.levels:
            documents = self.stream(level)
            session.fresh_bank(self.documents)
            session.write(documents, f"writing, {level} % noise")
            evaluation = session.ask(f"noise {level} %", self.questions)
            points.append({**answer_metrics(evaluation), **session.bank_metrics(len(documents))})
            rows += predictions(self.questions, evaluation, f"noise {level} %")
        x = [float(level) for level in self.config.levels]
        return Outcome(points[-1], curves(x, "unrelated documents", "percent", points), rows)
