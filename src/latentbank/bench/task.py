"""The contract of a bench protocol, its registry, and what goes in and comes out.

Knows data, metrics and the contract of a method; knows no protocol, no command line and no files.
A protocol is one file in `bench/tasks` with a frozen dataclass `Config` and a class that calls
`@register("name")`.
"""

from __future__ import annotations

import importlib
import pkgutil
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from latentbank.backbone.generate import DecodingConfig
from latentbank.bank.policy import make_policy
from latentbank.bench.record import Metric, Series
from latentbank.errors import InputError, LatentbankError, unknown
from latentbank.evaluate.data import QADataset

if TYPE_CHECKING:
    from latentbank.bench.hooks import Hooks
    from latentbank.method import Method


class CannotDo(LatentbankError):
    """A method cannot do what a protocol asks of it; the sentence goes into the record."""


@dataclass(frozen=True)
class Settings:
    """What every protocol takes. `questions` None asks all; `gold` names each question's document
    to the method instead of letting it select. `policy`: which documents of a full bank fade first.
    """

    questions: int | None = None
    seed: int = 0
    gold: bool = False
    batch: int = 16
    decoding: DecodingConfig = DecodingConfig()
    policy: str = "blend"

    def __post_init__(self) -> None:
        make_policy(self.policy)

    def identity(self) -> dict[str, Any]:
        """What a record names of them; the default policy is left out, as in older records."""
        found = asdict(self)
        if self.policy == Settings.policy:
            del found["policy"]
        return found


@dataclass(frozen=True)
class Outcome:
    """What a run found. `notes` are plain JSON values that go into the record's config."""

    metrics: Mapping[str, Metric]
    series: Mapping[str, Series] = field(default_factory=dict)
    predictions: Sequence[Mapping[str, Any]] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NoOptions:
    """The config of a protocol that has none of its own."""


class Task(ABC):
    """A protocol over one dataset.

    The constructor makes the stream and the questions from the data and a seed alone, and refuses
    data that does not fit with an InputError; `run` then takes one method through it, always
    through `hooks`. `documents` is the number that a budget per document is multiplied by.
    """

    name: ClassVar[str]
    Config: ClassVar[type[Any]] = NoOptions
    takes_budget: ClassVar[bool] = True
    takes_gold: ClassVar[bool] = True

    documents: int
    extra_hash: str = ""
    """Hash of what the config's paths hold, if it names any."""

    def __init__(self, data: QADataset, settings: Settings, config: Any) -> None:
        self.data, self.settings, self.config = data, settings, config
        self.documents = len(data.documents)

    def refuses(self, method: Method) -> str:
        """Why this method cannot be taken through this protocol, or ""."""
        return ""

    @abstractmethod
    def run(self, method: Method, hooks: Hooks) -> Outcome:
        """Streams, asks and measures.

        Raises CannotDo if it turns out that the method cannot do it.
        """

    def asked(self, documents: Collection[int] | None = None) -> QADataset:
        """The data with the questions to ask: about `documents` (indices; None: all), sampled.

        Raises InputError if there is no question.
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


T = TypeVar("T", bound=type[Task])
_REGISTRY: dict[str, type[Task]] = {}


def register(name: str) -> Callable[[T], T]:
    """Class decorator that makes a protocol known as `name`."""

    def decorate(cls: T) -> T:
        cls.name = name
        _REGISTRY[name] = cls
        return cls

    return decorate


def tasks() -> dict[str, type[Task]]:
    """Every known protocol, by name."""
    package = importlib.import_module("latentbank.bench.tasks")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"latentbank.bench.tasks.{module.name}")
    return dict(sorted(_REGISTRY.items()))


def task_class(name: str) -> type[Task]:
    """Raises UnknownNameError that lists the known protocols."""
    known = tasks()
    if name not in known:
        raise unknown("bench task", name, known)
    return known[name]
