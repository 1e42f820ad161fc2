"""The contract of a memory method, and the registry of methods.

A method is one file with a frozen dataclass `Config` and a class that calls `@register("name")`.
The core below is what every method has. The optional parts are in `capabilities`: training, a state
of constant size, fading, candidates. Other packages add methods through the entry-point group
`latentbank.methods`. Knows no method by name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any, ClassVar, TypeVar

from latentbank.backbone.model import Backbone
from latentbank.backbone.transports import Conditioning
from latentbank.bank import AppendReport, MemoryBank, Receipt
from latentbank.documents.document import Document
from latentbank.errors import InputError
from latentbank.parts.calibration import Calibration
from latentbank.registry import Registry

EXACT_DELETE = "exact_delete"
EMPTY_IS_PLAIN = "empty_is_plain"
CALLS_ADD_UP = "calls_add_up"
CONSTANT_SIZE = "constant_size"
NAMES_SOURCES = "names_sources"
NAMED_ONLY = "named_only"
CLAIMS = {
    EXACT_DELETE: "A deleted document leaves no trace.",
    EMPTY_IS_PLAIN: "An empty bank answers like the plain model with the same adapter.",
    CALLS_ADD_UP: "N documents in one write equal N writes of one document.",
    CONSTANT_SIZE: "The bank's payload does not grow with the documents; only the ledger does.",
    NAMES_SOURCES: "An answer names the documents that it was read from.",
    NAMED_ONLY: "Reads only documents that it is told: a ceiling for benchmarks.",
}
"""What a method may claim. The contract suite checks each claim."""


@dataclass(frozen=True)
class WriteReport:
    """What a `write` did.

    `seconds` covers encoding and storing. `faded` and `forgotten` count the documents that went
    down a level or left the bank to make room. `replaced` and `kept` count the documents of which
    the bank held another version: the old version went, or it stayed and the new one was left out.
    """

    stored: int
    duplicates: int
    seconds: float
    faded: int = 0
    forgotten: int = 0
    replaced: int = 0
    kept: int = 0

    @classmethod
    def of(cls, report: AppendReport, seconds: float) -> WriteReport:
        """From what the bank reports."""
        fates = len(report.faded), len(report.forgotten)
        return cls(report.stored, report.duplicates, seconds, *fates)

    def __add__(self, other: WriteReport) -> WriteReport:
        return WriteReport(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


class Method(ABC):
    """How documents are written into a bank and read from it.

    `claims` belong to the class. An instance whose config breaks a claim sets a smaller set of its
    own. `remains` says what `delete` leaves behind in a method without `EXACT_DELETE`.
    `without_training` are the settings with which a trained method works on a backbone for which
    no adapter ships; None: it needs one. `reads_texts`: all that it reads is text in the prompt, so
    that the model may be behind a server. `calibration` says what a confidence is worth, where it
    was measured for the adapter.
    """

    name: ClassVar[str]
    Config: ClassVar[type[Any]]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    without_training: ClassVar[Mapping[str, Any] | None] = None
    reads_texts: ClassVar[bool] = False
    write_batch: ClassVar[int] = 32
    claims: frozenset[str] = frozenset()
    calibration: Calibration | None = None
    remains: str = "The influence of deleted documents stays; only their ledger rows went."

    def __init__(self, config: Any, backbone: Backbone) -> None:
        self.config, self.backbone = config, backbone
        self.bank: MemoryBank | None = None

    @property
    def chunk_tokens(self) -> int:
        """Tokens of the longest text that one entry can hold; longer documents are chunked."""
        return int(getattr(self.config, "chunk_tokens", 512))

    @abstractmethod
    def bind(self, bank: MemoryBank) -> None:
        """Takes `bank` and rebuilds the working state from what it holds."""

    @abstractmethod
    def write(self, documents: Sequence[Document]) -> WriteReport:
        """Stores documents durably, each at most one chunk long; equal ids count once."""

    @abstractmethod
    def read(
        self, questions: Sequence[str], documents: Sequence[str] | None = None
    ) -> Conditioning:
        """The conditioning for B questions; `documents` [B]: ids to read instead of retrieving."""

    def closed_book(self) -> Conditioning:
        """The conditioning of an answer without memory."""
        return Conditioning()

    def delete(self, ids: Sequence[str]) -> Receipt:
        """Removes documents and, with `EXACT_DELETE`, their influence. Unknown ids are ignored."""
        bank = self.require_bank()
        receipt = bank.delete(ids)
        self.bind(bank)
        return self.qualified(receipt)

    def qualified(self, receipt: Receipt) -> Receipt:
        """The receipt with what remains of the deleted documents, where this method says so."""
        if EXACT_DELETE in self.claims or not receipt.deleted:
            return receipt
        remains = f"{receipt.remains} {self.remains}".strip()
        return replace(receipt, exact=False, remains=remains)

    def require_bank(self) -> MemoryBank:
        """The bound bank. Raises InputError when there is none."""
        if self.bank is None:
            raise InputError(f"method '{self.name}' has no bank yet; call bind() first")
        return self.bank


METHODS: Registry[type[Method]] = Registry("method", "latentbank.methods", "latentbank.methods")
M = TypeVar("M", bound=type[Method])


def register(name: str) -> Callable[[M], M]:
    """A class decorator that makes a method known as `name`."""
    return METHODS.register_class(name)
