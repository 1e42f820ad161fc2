"""The optional parts of a method. Generic code asks `isinstance(method, Trained)` and the like.

Each class here is one capability with its own small interface. A method inherits the capabilities
that it has beside `Method`. Knows no method by name.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from latentbank.backbone.encoder import BackboneEncoder
from latentbank.backbone.lora import LoraWeights
from latentbank.backbone.packed import PackedAnswers
from latentbank.backbone.transports import Conditioning
from latentbank.bank import AppendReport, Entry, MemoryBank, Receipt
from latentbank.bank.ladder import Fades
from latentbank.documents.document import Document
from latentbank.errors import AdapterError, BankError
from latentbank.method import Method, WriteReport
from latentbank.parts.batch import Batch, Loss
from latentbank.parts.knowledge.attended import Attention
from latentbank.parts.knowledge.features import Fact
from latentbank.parts.retrieval.candidates import Candidate, QuestionGain
from latentbank.parts.retrieval.retriever import Retriever

MEMORY_STATE = "memory_state"


class Trained(Method):
    """Has parameters that training changes; together they are an adapter.

    `network` holds the trained modules and may be empty. `lora` are low-rank weights, attached
    while memory is read. `closed_lora` are those attached for an answer without memory; where it is
    None, `lora` is attached then too.
    """

    def __init__(self, config: Any, backbone: Any) -> None:
        super().__init__(config, backbone)
        self.network = nn.ModuleDict()
        self.lora: LoraWeights | None = None
        self.closed_lora: LoraWeights | None = None
        self.packed: PackedAnswers | None = None  # set by the trainer where the backbone allows it

    @abstractmethod
    def loss(self, batch: Batch) -> Loss:
        """Answer loss and the method's own terms of one step; answers by `packed` if it is set."""

    @property
    def trained_from(self) -> int | None:
        """The first layer where training changes what the backbone computes.

        None: `loss` does not use `packed`.
        """
        return None

    def prepare(self, documents: Sequence[Document], questions: Sequence[str] = ()) -> None:
        """Called once before training with some documents and questions: statistics, codebooks."""

    def after_step(self, batch: Batch) -> Sequence[tuple[Tensor, Tensor]]:
        """Called after each optimiser step.

        Returns (parameter, rows) whose values were replaced: the trainer clears the optimiser's
        moments of these rows.
        """
        return ()

    def training_state(self) -> dict[str, Tensor]:
        """What a resumed training needs and no adapter holds: queues and the like."""
        return {}

    def load_training_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes what `training_state` gave."""

    def reading(self) -> Conditioning:
        """The low-rank weights that are attached while memory is read."""
        return Conditioning(() if self.lora is None else (self.lora,))

    def closed_book(self) -> Conditioning:
        """The low-rank weights that are attached for an answer without memory."""
        weights = self.lora if self.closed_lora is None else self.closed_lora
        return Conditioning(() if weights is None else (weights,))

    def train(self, mode: bool = True) -> None:
        """Switches dropout on or off in everything trained."""
        self.network.train(mode)
        for weights in self._low_rank().values():
            weights.train(mode)

    def trainable(self) -> dict[str, nn.Parameter]:
        """Name → parameter that training changes; none of them belongs to the backbone."""
        parameters = {
            f"network.{k}": p for k, p in self.network.named_parameters() if p.requires_grad
        }
        for kind, weights in self._low_rank().items():
            parameters |= {f"{kind}.{k}": p for k, p in weights.parameters.items()}
        return parameters

    def state(self) -> dict[str, Tensor]:
        """Every trained tensor and buffer by name, each once: the content of an adapter."""
        tensors = {f"network.{k}": v for k, v in self._network_state()[0].items()}
        for kind, weights in self._low_rank().items():
            tensors |= {f"{kind}.{k}": v for k, v in weights.state().items()}
        return tensors

    def settled_state(self) -> dict[str, Tensor]:
        """`state` for a fingerprint: the same in every dtype of the backbone."""
        tensors = self.state()
        for kind, weights in self._low_rank().items():
            tensors |= {f"{kind}.{k}": v for k, v in weights.settled().items()}
        return tensors

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

    def _low_rank(self) -> dict[str, LoraWeights]:
        both = {"lora": self.lora, "closed_lora": self.closed_lora}
        return {kind: weights for kind, weights in both.items() if weights is not None}

    def _network_state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """(tensors of the network, each once; name → the name that it is kept under)."""
        kept: dict[str, Tensor] = {}
        first: dict[int, str] = {}  # T5 has its embedding under three names
        names = {}
        for name, value in self.network.state_dict(keep_vars=True).items():
            names[name] = first.setdefault(id(value), name)
            kept[names[name]] = value.detach()
        return kept, names


class Encoding(Method):
    """Encodes texts as states of one layer; `encoder.cache` may keep them on disk."""

    encoder: BackboneEncoder

    def features(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(states [B, T, D] float32, mask [B, T] bool), the start token first."""
        return self.encoder.features(texts)


class Stateful(Method):
    """Carries tensors of constant size that documents change: a neural memory, a weight delta.

    They are stored in the bank in the same transaction as the ledger rows of the documents that
    they hold. They are no part of the adapter and of its fingerprint.
    """

    @abstractmethod
    def memory_state(self) -> dict[str, Tensor]:
        """The named tensors, on the CPU."""

    @abstractmethod
    def load_memory_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes what `memory_state` gave; an empty mapping is the state before any document."""

    def state_bytes(self) -> dict[str, bytes]:
        """What `bank.append(..., state=…)` stores together with the entries of a write."""
        return {MEMORY_STATE: save({k: v.contiguous() for k, v in self.memory_state().items()})}

    def restore(self, bank: MemoryBank) -> None:
        """Loads the state that `bank` holds, or the one before any document.

        Raises:
            BankError: the stored bytes are no named tensors.
        """
        stored = bank.get_state().get(MEMORY_STATE)
        try:
            self.load_memory_state({} if stored is None else load(stored))
        except SafetensorError as error:
            raise BankError(f"the memory state of bank {bank.name} is damaged: {error}") from None


class Incremental(Method):
    """Takes in what others wrote to its bank without reading the whole bank again.

    `unreadable`: id → sentence of each entry that cannot be decoded. Such an entry is left out of
    reading; it can be deleted.
    """

    def __init__(self, config: Any, backbone: Any) -> None:
        super().__init__(config, backbone)
        self.unreadable: dict[str, str] = {}

    @abstractmethod
    def take(self, gone: Sequence[str], entries: Sequence[Entry]) -> None:
        """Forgets the ids `gone` and reads `entries`, which are new or have changed.

        Must do no harm where the method knows of some of it already.
        """

    def keeps_account(self, bank: MemoryBank) -> bool:
        """Whether the method, bound to `bank`, knows by itself what changed; see `catch_up`."""
        return False

    def catch_up(self) -> bool:
        """Takes in what others wrote, where the method keeps account of it; False elsewhere."""
        return False

    def delete(self, ids: Sequence[str]) -> Receipt:
        """Removes documents from the bank and from the working state."""
        receipt = self.require_bank().delete(ids)
        self.take(receipt.deleted, ())
        return self.qualified(receipt)

    def finished(
        self, report: AppendReport, documents: Sequence[Document], began: float
    ) -> WriteReport:
        """The report of a write that began at `began`, by `time.perf_counter`.

        Writes those documents again that another process deleted meanwhile.
        """
        written = WriteReport.of(report, time.perf_counter() - began)
        left = [document for document in documents if document.id in report.absent]
        return written + self.write(left) if left else written


class Fading(Method):
    """Can keep a document in fewer bytes, so that a full bank need not forget it at once."""

    @abstractmethod
    def fade(self, entry: Entry) -> Entry | None:
        """The entry one level down, with fewer bytes; None: the bank forgets it.

        The bank calls it for the documents of least value when it is full. `write` hands it on as
        `bank.append(..., fade=fade_of(self))`.
        """

    def fade_all(self, entries: Sequence[Entry]) -> list[Entry | None]:
        """As `fade`, for many entries at once."""
        return [self.fade(entry) for entry in entries]

    @property
    def lossless(self) -> tuple[str, ...]:
        """The levels whose next step loses nothing; see `MemoryBank.create`."""
        return ()


class Candidates(Method):
    """Names several candidates for a question: each is answered, the best answer wins.

    `question_gain` turns how much likelier a document makes the question into a factor of the
    candidate's weight. None: all candidates keep their weights.
    """

    question_gain: QuestionGain | None = None

    @abstractmethod
    def candidates(self, questions: Sequence[str]) -> list[list[Candidate]] | None:
        """For each of B questions its candidates, best first. None: `read` chooses by itself."""


class Retrieving(Method):
    """Chooses what to read by retrieval. `retriever.only` restricts it to some entries."""

    retriever: Retriever

    def text(self, id: str) -> str:
        """The text of an entry as the model reads it; empty where it is not kept as text."""
        return ""

    def nothing_read(self, support: tuple[float, ...]) -> Conditioning:
        """The conditioning of questions that no document fits; `support` [B] is the best match."""
        return replace(self.closed_book(), sources=((),) * len(support), support=support)


class WordIndexed(Incremental, Retrieving):
    """Finds texts by their words. A bank of many has an index beside it, which is there at once."""

    text_levels: ClassVar[tuple[str, ...]]  # of entries that hold texts
    slow_levels: ClassVar[tuple[str, ...]] = ()  # of those that take long to decode

    def open_words(self, bank: MemoryBank) -> bool:
        """Uses the index beside `bank`; False where the method has to read all entries itself."""
        return self.retriever.open_stored(bank, self.text_levels, self.take, self.slow_levels)

    def keeps_account(self, bank: MemoryBank) -> bool:
        """Whether the texts of `bank` have such an index."""
        return self.retriever.would_store(bank, self.text_levels, self.slow_levels)

    def catch_up(self) -> bool:
        """See `Incremental.catch_up`."""
        self.retriever.follow()
        return self.retriever.stored


class Knowledge(Method):
    """Keeps triples, and knows after an answer which of them were attended to."""

    @abstractmethod
    def fact(self, id: str) -> Fact | None:
        """(entity, property, value) of an entry; entity and property are empty for other texts."""

    @abstractmethod
    def attention(self) -> Attention | None:
        """Which triples the last batch of answers attended to, layer by layer; None before one."""


class Telemetry(Method):
    """Tells about the health of what the bank holds."""

    @abstractmethod
    def telemetry(self) -> dict[str, float]:
        """Figures by name; a name starts with its part, such as `codebook_perplexity`."""


class Surprised(Method):
    """Can tell how surprising each token of a text is to what it holds."""

    @abstractmethod
    def surprise(self, text: str) -> list[tuple[str, float]]:
        """(token, surprise) of each token of `text`, by the method's measure; learns nothing."""


def follow(method: Method, gone: Sequence[str], entries: Sequence[Entry]) -> None:
    """Tells a method what others did to its bank; one that is not `Incremental` binds it anew."""
    if isinstance(method, Incremental):
        method.take(gone, entries)
    else:
        method.bind(method.require_bank())


def trained_state(method: Method) -> dict[str, Tensor]:
    """The adapter's tensors; none for a method without training."""
    return method.state() if isinstance(method, Trained) else {}


def set_training(method: Method, mode: bool) -> None:
    """Switches dropout on or off where there is any."""
    if isinstance(method, Trained):
        method.train(mode)


def lossless_levels(method: Method) -> tuple[str, ...]:
    """The levels that a bank of this method leaves without loss."""
    return method.lossless if isinstance(method, Fading) else ()


def forget(entry: Entry) -> None:
    """The `fade` of a method without levels: a full bank forgets its least valuable documents."""


def fade_of(method: Method) -> Callable[[Entry], Entry | None]:
    """How a full bank of this method makes room."""
    return Fades(method.fade_all) if isinstance(method, Fading) else forget
