"""The contract of a memory method, its registry, and what training hands to it.

Knows documents, banks, the backbone and conditioning; knows no method by name. A method is one file
with a frozen dataclass `Config` and a class that calls `@register("name")`; packages may add theirs
through the entry-point group `latentbank.methods`.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from latentbank.backbone.encoder import BackboneEncoder
from latentbank.backbone.lora import LoraWeights
from latentbank.backbone.model import Backbone
from latentbank.backbone.prompts import answer_ids, prompt_ids
from latentbank.backbone.transports import Conditioning
from latentbank.bank import AppendReport, Entry, Footprint, MemoryBank
from latentbank.documents.document import Document
from latentbank.errors import AdapterError, InputError, unknown
from latentbank.parts.retrieval.selection import QuestionGain, Selected

ENTRY_POINTS = "latentbank.methods"

EXACT_DELETE = "exact_delete"
EMPTY_IS_PLAIN = "empty_is_plain"
CALLS_ADD_UP = "calls_add_up"
"""Claims that the contract suite checks: a deleted document leaves no trace; an empty bank equals
the plain model with the same adapter; N documents in one call equal N calls."""


@dataclass(frozen=True)
class WriteReport:
    """What a `write` did. `seconds` covers encoding and storing; `faded` and `forgotten` count the
    documents that went down a level or left the bank to make room.
    """

    stored: int
    duplicates: int
    seconds: float
    faded: int = 0
    forgotten: int = 0

    @classmethod
    def of(cls, report: AppendReport, seconds: float) -> WriteReport:
        """From what the bank reports."""
        fates = len(report.faded), len(report.forgotten)
        return cls(report.stored, report.duplicates, seconds, *fates)

    def __add__(self, other: WriteReport) -> WriteReport:
        return WriteReport(
            self.stored + other.stored,
            self.duplicates + other.duplicates,
            self.seconds + other.seconds,
            self.faded + other.faded,
            self.forgotten + other.forgotten,
        )


@dataclass(frozen=True)
class Batch:
    """One training step: D documents and Q questions; `owner` [Q] indexes the documents."""

    documents: tuple[Document, ...]
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    owner: tuple[int, ...]
    step: int = 0


@dataclass(frozen=True)
class Loss:
    """`total` is a scalar that carries gradients; `parts` are plain numbers for the log."""

    total: Tensor
    parts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank weights trained with a method. `rank` 0 means none.

    `targets`: `kv` (MBC) or `attention`; `layer` is the first layer that carries them.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    targets: str = "attention"
    layer: int = 0

    def build(self, backbone: Backbone) -> LoraWeights | None:
        """Wraps the backbone's projections, switched off."""
        if self.rank == 0:
            return None
        if not 0 <= self.layer < backbone.geometry.layers:
            raise InputError(
                f"lora.layer must be below the backbone's {backbone.geometry.layers} layers, "
                f"got {self.layer}"
            )
        return LoraWeights(backbone, self.layer, self.rank, self.alpha, self.dropout, self.targets)


class Method(ABC):
    """How documents are written into a bank and read from it, and what is trained.

    `network` holds the trained modules (may be empty), `lora` the low-rank weights or None,
    `closed_lora` those that answer without memory; None: `lora` does. `question_gain`: what answers
    of the shortlist count by how likely their document makes the question, or None: all alike.
    Subclasses keep in memory whatever `read` needs; `bind` rebuilds it from a bank. `claims` are
    the class's; an instance whose config cannot keep one of them sets its own, smaller set.
    """

    name: ClassVar[str]
    Config: ClassVar[type[Any]]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    claims: frozenset[str] = frozenset()
    needs_gold: ClassVar[bool] = False
    """Reads only the documents it is told: a ceiling for benchmarks."""

    def __init__(self, config: Any, backbone: Backbone) -> None:
        self.config, self.backbone = config, backbone
        self.network = nn.ModuleDict()
        self.lora: LoraWeights | None = None
        self.closed_lora: LoraWeights | None = None
        self.question_gain: QuestionGain | None = None
        self.encoder: BackboneEncoder | None = None
        self.bank: MemoryBank | None = None
        self.replaced_rows: list[tuple[Tensor, Tensor]] = []

    # ---- the bank

    @abstractmethod
    def bind(self, bank: MemoryBank) -> None:
        """Takes `bank` for writing and rebuilds the working state from what it holds."""

    @abstractmethod
    def write(self, documents: Sequence[Document]) -> WriteReport:
        """Stores documents (each at most one chunk long) durably; equal ids count once."""

    @abstractmethod
    def read(
        self, questions: Sequence[str], documents: Sequence[str] | None = None
    ) -> Conditioning:
        """The conditioning for B questions; `documents` [B]: ids to read instead of selecting."""

    def shortlist(self, questions: Sequence[str]) -> list[Selected] | None:
        """For each of B questions the documents to read one by one, best first, with the weight in
        [0, 1] of an answer from each: the answer of most confidence times weight counts. A name of
        "" is the model without memory. None: `read` chooses.
        """
        return None

    def fade(self, entry: Entry) -> Entry | None:
        """One entry at its next level, with fewer bytes, or None: the bank forgets it. Called by a
        full bank for the documents of least value; `write` hands it on as `append(..., fade=)`, and
        takes what the report names as faded or forgotten into the working state.
        """
        return None

    @property
    def lossless(self) -> tuple[str, ...]:
        """The levels that `fade` takes an entry down from without loss; see `MemoryBank.create`."""
        return ()

    def helped(self, sources: Sequence[Sequence[tuple[str, float]]]) -> None:
        """Notes which documents B questions were answered from (`Conditioning.sources`): those
        with at least half the share of the best one. A bank with a budget keeps them longer.
        """
        if self.bank is None or not any(sources):
            return
        best = [max((share for _, share in row), default=0.0) for row in sources]
        self.bank.note_hits(
            name
            for row, top in zip(sources, best, strict=True)
            for name, share in row
            if share > 0 and share >= top / 2
        )

    def read_nothing(self) -> Conditioning:
        """The plain model with the adapter's low-rank weights: what `--no-memory` answers with."""
        weights = self.lora if self.closed_lora is None else self.closed_lora
        return Conditioning(() if weights is None else (weights,))

    def delete(self, ids: Sequence[str]) -> int:
        """Removes documents and their influence; returns how many were there."""
        bank = self.require_bank()
        removed = len(bank.delete(ids).deleted)
        self.bind(bank)
        return removed

    def footprint(self) -> Footprint:
        """Bytes of the bank by component."""
        return self.require_bank().footprint()

    def telemetry(self) -> dict[str, float]:
        """Health of what the bound bank holds, by name: whatever the method can tell about itself.

        Names start with the part that they describe, such as `codebook_perplexity`.
        """
        return {}

    def require_bank(self) -> MemoryBank:
        """The bound bank. Raises InputError when there is none."""
        if self.bank is None:
            raise InputError(f"method '{self.name}' has no bank yet; call bind() first")
        return self.bank

    def features(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(states [B, T, D], mask [B, T] bool) of the method's encoder, start token first."""
        if self.encoder is None:
            raise InputError(f"method '{self.name}' encodes no text")
        return self.encoder.features(texts)

    # ---- training

    def loss(self, batch: Batch) -> Loss:
        """Answer loss and method terms of one step."""
        raise InputError(f"method '{self.name}' has nothing to train")

    def trainable(self) -> dict[str, nn.Parameter]:
        """Name → parameter that training changes; none of them belongs to the backbone."""
        found = {f"network.{k}": p for k, p in self.network.named_parameters() if p.requires_grad}
        for kind, weights in self._low_rank().items():
            found |= {f"{kind}.{k}": p for k, p in weights.parameters.items()}
        return found

    def _low_rank(self) -> dict[str, LoraWeights]:
        both = {"lora": self.lora, "closed_lora": self.closed_lora}
        return {kind: weights for kind, weights in both.items() if weights is not None}

    def train(self, mode: bool = True) -> None:
        """Dropout on or off in everything trained."""
        self.network.train(mode)
        for weights in self._low_rank().values():
            weights.train(mode)

    def _network_state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """(tensors of the network, each once; name → the name that it is kept under)."""
        kept: dict[str, Tensor] = {}
        first: dict[int, str] = {}  # T5 has its embedding under three names
        names = {}
        for name, value in self.network.state_dict(keep_vars=True).items():
            names[name] = first.setdefault(id(value), name)
            kept[names[name]] = value.detach()
        return kept, names

    def state(self) -> dict[str, Tensor]:
        """Every trained tensor and buffer, by name, once: the content of an adapter."""
        found = {f"network.{k}": v for k, v in self._network_state()[0].items()}
        for kind, weights in self._low_rank().items():
            found |= {f"{kind}.{k}": v for k, v in weights.state().items()}
        return found

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes what `state` gave.

        Raises:
            AdapterError: names or shapes do not fit this method and backbone.
        """
        own = {k.removeprefix("network."): v for k, v in state.items() if k.startswith("network.")}
        expected, names = self._network_state()
        wrong = [
            k
            for k in expected.keys() | own.keys()
            if k not in own or k not in expected or own[k].shape != expected[k].shape
        ]
        if wrong:
            raise AdapterError(
                f"the adapter does not fit method '{self.name}' on {self.backbone.name}: "
                f"tensor {sorted(wrong)[0]} is missing or has another shape"
            )
        self.network.load_state_dict({k: own[n].to(expected[n].dtype) for k, n in names.items()})
        for kind, weights in self._low_rank().items():
            start = f"{kind}."
            weights.load_state(
                {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}
            )

    def prepare(self, documents: Sequence[Document], questions: Sequence[str] = ()) -> None:  # noqa: B027
        """Called once before training, with some documents and questions: statistics, codebooks."""

    def after_step(self, batch: Batch) -> None:  # noqa: B027
        """Called after each optimiser step; codebooks are reset here.

        `replaced_rows` then lists (parameter, rows) whose optimiser moments the trainer clears.
        """

    def training_state(self) -> dict[str, Tensor]:
        """What a resumed training needs beside `state`, and no adapter: queues and the like."""
        return {}

    def load_training_state(self, state: Mapping[str, Tensor]) -> None:  # noqa: B027
        """Takes what `training_state` gave."""

    def answer_terms(self, batch: Batch) -> Tensor:
        """Mean answer loss per token with what is attached to the backbone now; a scalar."""
        nll, tokens = self.backbone.answer_loss(
            prompt_ids(self.backbone, batch.questions), answer_ids(self.backbone, batch.answers)
        )
        return nll.sum() / tokens.sum()


M = TypeVar("M", bound=type[Method])
_REGISTRY: dict[str, type[Method]] = {}


def register(name: str) -> Callable[[M], M]:
    """Class decorator that makes a method known as `name`."""

    def decorate(cls: M) -> M:
        cls.name = name
        _REGISTRY[name] = cls
        return cls

    return decorate


def methods() -> dict[str, type[Method]]:
    """Every known method: the package's own files and those of installed entry points."""
    package = importlib.import_module("latentbank.methods")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"latentbank.methods.{module.name}")
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        if point.name not in _REGISTRY:
            point.load()
    return dict(sorted(_REGISTRY.items()))


def method_class(name: str) -> type[Method]:
    """Raises UnknownNameError that lists the known methods."""
    known = methods()
    if name not in known:
        raise unknown("method", name, known)
    return known[name]


def build_config(cls: type[Any], values: Mapping[str, Any]) -> Any:
    """A config dataclass from plain JSON values, nested dataclasses included.

    Raises:
        UnknownNameError: an unknown field, with the known ones.
        InputError: a plain value in the place of a group.
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}
    built: dict[str, Any] = {}
    for key, value in values.items():
        if key not in fields:
            raise unknown(f"{cls.__qualname__} field", key, fields)
        default = fields[key].default
        if dataclasses.is_dataclass(default) and not isinstance(value, type(default)):
            if not isinstance(value, Mapping):
                names = ", ".join(f"{key}.{f.name}" for f in dataclasses.fields(default))
                raise InputError(f"{key} is a group; set one of {names}, got {value!r}")
            value = build_config(type(default), value)
        elif isinstance(value, list):
            value = tuple(value)
        built[key] = value
    return cls(**built)


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes`; a mapping changes the fields of the group that it names, no others."""
    found = dict(base)
    for name, value in changes.items():
        old = found.get(name)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            value = merged(old, value)
        found[name] = value
    return found


def build_method(
    name: str,
    backbone: Backbone,
    config: Mapping[str, Any] | None = None,
    preset: str | None = None,
    seed: int = 0,
) -> Method:
    """A method on a backbone, its parameters initialised from `seed`.

    `config` changes the preset's values, group by group: see `merged`.

    Raises:
        UnknownNameError: unknown method, preset or config field.
    """
    cls = method_class(name)
    if preset is not None and preset not in cls.presets:
        raise unknown(f"preset of '{name}'", preset, cls.presets)
    values = merged({} if preset is None else cls.presets[preset], config or {})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return cls(build_config(cls.Config, values), backbone)
