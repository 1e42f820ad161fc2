"""The contract of a bench protocol, its registry, and what a run of one gives.

A protocol is one file in `bench/tasks` with a frozen dataclass `Config` and a class that calls
`@register("name")`. Knows data and sessions; knows no protocol, no command line and no files.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

from latentbank.bench.record import Metric, Series
from latentbank.bench.session import Session, Settings
from latentbank.errors import InputError
from latentbank.evaluate.data import QADataset
from latentbank.method import Method
from latentbank.registry import Registry


@dataclass(frozen=True)
class Outcome:
    """What a run found. `notes` are plain JSON values for the record's config."""

    metrics: Mapping[str, Metric]
    series: Mapping[str, Series] = field(default_factory=dict)
    predictions: Sequence[Mapping[str, Any]] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NoOptions:
    """The config of a protocol without options of its own."""


class Task(ABC):
    """A protocol over one dataset.

    The constructor makes the stream and the questions from the data and a seed alone. It refuses
    data that does not fit with an InputError. `run` takes one method through the protocol.
    `documents` is the number that a budget per document is multiplied by.
    """

    name: ClassVar[str]
    Config: ClassVar[type[Any]] = NoOptions
    takes_budget: ClassVar[bool] = True
    takes_gold: ClassVar[bool] = True

    documents: int
    extra_hash: str = ""
    """Hash of the data that the config's paths name, if it names any."""

    def __init__(self, data: QADataset, settings: Settings, config: Any) -> None:
        self.data, self.settings, self.config = data, settings, config
        self.documents = len(data.documents)

    def refuses(self, method: Method) -> str:
        """Why this method cannot be taken through this protocol, or ""."""
        return ""

    @abstractmethod
    def run(self, session: Session) -> Outcome:
        """Streams, asks and measures.

        Raises CannotDo if it turns out that the method cannot do it.
        """

    def asked(self, documents: Collection[int] | None = None) -> QADataset:
        """The data with the questions to ask, sampled as the settings say.

        `documents`: indices of the documents that are asked about; None: all. Raises InputError if
        there is no question.
        """
        data = self.data
        if documents is not None:
            wanted = frozenset(documents)
            kept = tuple(q for q in data.questions if q.document in wanted)
            data = replace(data, questions=kept)
        if not data.questions:
            raise InputError(
                f"The data {self.data.name} has no question for {self.name}; it needs rows with "
                "a question and its answers."
            )
        if self.settings.questions is None:
            return data
        return data.sample_questions(self.settings.questions, self.settings.seed)

    def halves(self, share: float) -> tuple[list[int], list[int]]:
        """Indices of a random share of the documents, and of the others, each in stream order.

        Raises InputError if one of the two would be empty.
        """
        count = len(self.data.documents)
        size = round(share * count)
        if not 0 < size < count:
            raise InputError(
                f"{self.name} parts the documents in two; {count} of them and a share of {share} "
                "leave one part empty."
            )
        chosen = set(random.Random(self.settings.seed).sample(range(count), size))
        return sorted(chosen), [i for i in range(count) if i not in chosen]


TASKS: Registry[type[Task]] = Registry("bench task", "latentbank.bench.tasks")
T = TypeVar("T", bound=type[Task])


def register(name: str) -> Callable[[T], T]:
    """A class decorator that makes a protocol known as `name`."""
    return TASKS.register_class(name)
