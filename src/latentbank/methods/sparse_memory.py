"""Sparse memory finetuning: documents change a few value rows of a memory layer, and nothing else.

Lin et al., 2025, "Continual Learning via Sparse Memory Finetuning",
https://arxiv.org/abs/2510.15103, on memory layers with product keys (Berges et al., 2024,
https://arxiv.org/abs/2412.09764).

Differs from the papers:

- The layers stand beside the feed-forward part of a pretrained backbone and add nothing at the
  start. The papers pretrain them in place of it. With `blank` their values stay zero until a
  document changes them, and a warm-up only measures queries and counts accesses; without, a warm-up
  on background text trains them.
- Each document is a batch of its own, so that N writes of one document equal one write of N.
- Background accesses are counted over the last batches of the warm-up.
- All layers share one table of values; each has keys of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from latentbank.backbone.layers import feed_forward_modules
from latentbank.backbone.model import Backbone
from latentbank.backbone.transports import Conditioning, FeedForwardSide
from latentbank.bank import Receipt
from latentbank.codec.arrays import array_codec
from latentbank.config import require_at_least, setting
from latentbank.documents.document import Document
from latentbank.errors import InputError
from latentbank.learning import Learning
from latentbank.method import CALLS_ADD_UP, EMPTY_IS_PLAIN, register
from latentbank.parts.batch import Batch, Loss, mean_answer_loss
from latentbank.parts.low_rank import NO_LORA, LoraSettings
from latentbank.parts.online.losses import document_ids, next_token_losses
from latentbank.parts.product_keys.layer import Accesses, MemoryLayer, normalised
from latentbank.parts.product_keys.selection import (
    RULES,
    Background,
    choose_slots,
)
from latentbank.parts.product_keys.sparse_delta import SparseDelta
from latentbank.parts.product_keys.table import ValueTable

COMBINE = ("sum", "mean")
MEASURED = 32  # documents whose queries are measured before training
STATE_SHARE = 5  # a bank's budget is this many times the bytes of its changed rows at most


@dataclass(frozen=True)
class SparseMemoryConfig:
    """Sizes of the memory, and how documents are learned."""

    layers: tuple[int, ...] = setting((12, 20), "Layers that have a memory beside them.")
    side: int = setting(64, "Sub-keys of each half; the memory has side² slots.")
    heads: int = setting(4, "Queries of each token.")
    top: int = setting(8, "Slots that each query reads.")
    key_width: int = setting(64, "Width of a query; each half of a key has half of it.")
    value_width: int = setting(256, "Width of a value row; 0: the width of the backbone.")
    blank: bool = setting(
        False, "Values start at zero and the warm-up leaves them: it only counts."
    )
    table_file: str = setting("", "File for the values, memory-mapped; empty: in memory.")
    rate: float = setting(1.0, "Step size of the value rows (SGD).")
    steps: int = setting(4, "Steps on each document.")
    t: int = setting(64, "Slots that a step may change.")
    select: str = setting("tfidf", "How they are chosen: tfidf, tf, all or random.")
    background: int = setting(1000, "Background batches that accesses are compared with.")
    codec: str = setting("float16", "How the bank stores changed rows: float32, float16 or int8.")
    apart: bool = setting(False, "Keep a delta for each source; a whole source deletes exactly.")
    active: str = setting("", "With apart: sources to read, separated by commas; empty: all.")
    combine: str = setting("sum", "With apart: how the deltas merge, sum or mean of each row.")
    chunk_tokens: int = setting(512, "Tokens of the longest text that one step learns.")
    answer_weight: float = setting(1.0, "Training: weight of the answers' loss; 0: texts only.")
    lora: LoraSettings = NO_LORA

    def __post_init__(self) -> None:
        require_at_least(self, 1, "side", "heads", "top", "t", "steps", "background")
        require_at_least(self, 1, "chunk_tokens")
        require_at_least(self, 2, "key_width")
        require_at_least(self, 0, "value_width", "rate", "answer_weight")
        array_codec(self.codec)
        for name, known in (("select", RULES), ("combine", COMBINE)):
            if getattr(self, name) not in known:
                raise InputError(
                    f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}"
                )
        if self.blank and self.table_file:
            raise InputError("a blank table keeps no values; leave table_file out")
        if not self.layers:
            raise InputError("layers must name at least one layer, got none")


@register("sparse_memory")
class SparseMemory(Learning):
    """Memory layers whose value rows learn documents."""

    Config = SparseMemoryConfig
    claims = frozenset({EMPTY_IS_PLAIN, CALLS_ADD_UP})
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smollm2-135m": {
            "side": 256, "blank": True, "rate": 1e5, "steps": 6, "t": 200,
            "lora": {"rank": 16, "layer": 12},
        },
        "tiny": {
            "layers": [0, 2], "side": 8, "heads": 2, "top": 4, "key_width": 8, "value_width": 16,
            "t": 16, "steps": 2, "rate": 20.0, "background": 4,
            "lora": {"rank": 4, "layer": 1},
        },
    }  # fmt: skip

    def __init__(self, config: SparseMemoryConfig, backbone: Backbone) -> None:
        count, width = len(feed_forward_modules(backbone.decoder)), backbone.geometry.width
        wrong = [layer for layer in config.layers if not 0 <= layer < count]
        if wrong:
            raise InputError(f"layers must be below the backbone's {count}, got {wrong[0]}")
        self.value_width = config.value_width or width
        self.slots = config.side**2
        table = ValueTable(self.slots, self.value_width, config.table_file, config.blank)
        super().__init__(config, backbone)
        sizes = self.value_width, config.side, config.heads, config.key_width, config.top
        self.network["table"] = table
        self.network["layers"] = nn.ModuleDict(
            {str(layer): MemoryLayer(width, *sizes) for layer in config.layers}
        )
        self.network.to(backbone.device).requires_grad_(not config.blank)
        self.table: Any = table
        self.counted = Background(table.background, table.batches, config.background)
        self.lora = config.lora.build(backbone)
        self._passes: list[Tensor] = []

    # ---- what was learned

    def reset(self) -> None:
        """No row is changed."""
        self.deltas: dict[str, SparseDelta] = {}
        self._merged: SparseDelta | None = None

    def learned(self) -> dict[str, Tensor]:
        """Rows and values of each delta; one delta unless `apart`."""
        names = sorted(self.deltas) or [""]
        tensors = {"sources": torch.tensor(list(json.dumps(names).encode()), dtype=torch.uint8)}
        for at, name in enumerate(names):
            delta = self.deltas.get(name, SparseDelta(self.value_width))
            tensors |= {f"{at}.{k}": v for k, v in delta.tensors(self.config.codec).items()}
        return tensors

    def load_learned(self, tensors: Mapping[str, Tensor]) -> None:
        """See `Learning`."""
        names = json.loads(bytes(tensors["sources"].tolist()))
        for at, name in enumerate(names):
            own = {key: tensors[f"{at}.{key}"] for key in ("rows", "values")}
            self.deltas[name] = SparseDelta.of(own, self.config.codec, self.value_width, self.slots)

    def telemetry(self) -> dict[str, float]:
        """As in `Learning`, and the number of changed rows."""
        changed = sum(len(delta) for delta in self.deltas.values())
        return {**super().telemetry(), "changed_rows": float(changed)}

    def source(self, document: Document) -> str:
        """The name of the delta that a document changes."""
        return source_key(document.source) if self.config.apart else ""

    def mark(self, document: Document) -> bytes:
        """The delta's name: a ledger of ids alone does not keep the source."""
        return bytes.fromhex(self.source(document))

    def merged(self) -> SparseDelta:
        """The delta that is read: all that are active, merged."""
        if self._merged is None:
            wanted = self.config.active
            names = {source_key(one.strip()) for one in wanted.split(",")} if wanted else None
            chosen = [d for k, d in sorted(self.deltas.items()) if names is None or k in names]
            self._merged = SparseDelta.merged(
                chosen, self.value_width, self.config.combine == "mean"
            )
        return self._merged

    # ---- reading

    def _attached(self, delta: SparseDelta | None, seen: Accesses | None = None) -> Conditioning:
        """The memory layers with a delta; `seen` collects what they access, as leaves."""

        def rows(used: Tensor, slots: Tensor) -> Tensor:
            values: Tensor = self.table(used)
            if delta is not None:
                values = delta.added_to(values, used)
            if seen is not None:
                seen.slots.append(slots.detach())
                if delta is not None:
                    values = values.detach().requires_grad_(torch.is_grad_enabled())
                seen.used.append(used)
                seen.leaves.append(values)
            return values

        def beside(layer: nn.Module) -> Any:
            return lambda states: layer(states, rows)

        layers: Any = self.network["layers"]
        return Conditioning(
            tuple(FeedForwardSide(beside(layer), int(name)) for name, layer in layers.items())
        )

    def closed_book(self) -> Conditioning:
        """The memory as the warm-up left it, and the low-rank weights."""
        plain = self._attached(None).transports
        return Conditioning((*super().closed_book().transports, *plain))

    def read(
        self, questions: Sequence[str], documents: Sequence[str] | None = None
    ) -> Conditioning:
        """The memory with the changed rows; all questions read the same."""
        with_rows = self._attached(self.merged()).transports
        return Conditioning((*self.reading().transports, *with_rows))

    # ---- learning

    def learn(self, document: Document) -> None:
        """`steps` steps on the text of a document; the delta is rounded as it is stored."""
        ids = document_ids(self.backbone, [document.text], self.config.chunk_tokens)
        name = self.source(document)
        delta = self.deltas.get(name, SparseDelta(self.value_width)).copy()
        most = self._most_rows(name)
        for step in range(self.config.steps if len(ids[0]) > 1 else 0):
            room = None if most is None else max(0, most - len(delta))
            self.step(ids, delta, room, number(document.id, step))
        self.deltas[name] = delta.rounded(self.config.codec)
        self._merged = None

    def step(
        self,
        ids: Sequence[Sequence[int]],
        delta: SparseDelta,
        room: int | None = None,
        seed: int = 0,
    ) -> Tensor:
        """One step on token ids [B][T]; changes `delta` in place and returns the slots changed.

        Costs what the accessed slots cost, whatever the size of the table. `room`: slots that may
        be changed for the first time.
        """
        none, seen = torch.zeros(0, dtype=torch.int64), Accesses()
        transports = (*self.reading().transports, *self._attached(delta, seen).transports)
        with torch.enable_grad(), Conditioning(transports).attach(self.backbone):
            losses, mask = next_token_losses(self.backbone, ids)
            loss = losses.sum() / mask.sum()
            if not self.took(bool(torch.isfinite(loss))):
                return none
            slopes = torch.autograd.grad(loss, seen.leaves)
        used, counts = seen.counts()
        chosen = choose_slots(
            used, counts, self.table.background[used], int(self.table.batches), self.config.t,
            self.config.select, delta.find(used)[1], room, seed,
        )  # fmt: skip
        change = torch.zeros(len(used), self.value_width)
        for own, slope in zip(seen.used, slopes, strict=True):
            change.index_add_(0, torch.searchsorted(used, own), slope.float().cpu())
        moved = -self.config.rate * change[torch.searchsorted(used, chosen)]
        if not bool(torch.isfinite(moved).all()):
            self.skipped += 1
            return none
        delta.add(chosen.cpu(), moved)
        return chosen

    def _most_rows(self, name: str) -> int | None:
        """Rows that a delta may change under the bank's budget; None without one."""
        budget = None if self.bank is None else self.bank.budget_bytes
        if budget is None:
            return None
        row = array_codec(self.config.codec).row_bytes(self.value_width) + 4
        others = sum(len(delta) for key, delta in self.deltas.items() if key != name)
        return budget // STATE_SHARE // row - others

    def delete(self, ids: Sequence[str]) -> Receipt:
        """Removes ledger rows; with `apart` also the delta of a source that has none left.

        The receipt is exact where all deleted documents belonged to such sources.
        """
        bank = self.require_bank()
        if not self.config.apart:
            return super().delete(ids)
        wanted = set(ids)
        marks = {entry.id: entry.payload.hex() for entry in bank.entries()}
        left = {mark for id, mark in marks.items() if id not in wanted}
        touched = {mark for id, mark in marks.items() if id in wanted}
        before = dict(self.deltas)
        self.deltas = {name: d for name, d in before.items() if name in left}
        try:
            receipt = bank.delete(ids, state=self.state_bytes())
        except BaseException:
            self.deltas = before
            raise
        self.bind(bank)
        return receipt if not touched & left else self.qualified(receipt)

    # ---- the warm-up

    def trainable(self) -> dict[str, nn.Parameter]:
        """The memory, and the low-rank weights where answers train them."""
        found = super().trainable()
        answers = bool(self.config.answer_weight)
        return {k: p for k, p in found.items() if answers or k.startswith("network.")}

    @torch.no_grad()
    def prepare(self, documents: Sequence[Document], questions: Sequence[str] = ()) -> None:
        """Measures the queries of the first documents, so that they spread over the slots."""
        texts = [document.text for document in documents[:MEASURED]]
        ids = document_ids(self.backbone, texts, self.config.chunk_tokens)
        for name, layer in self.network["layers"].items():  # type: ignore[operator]
            seen: list[Tensor] = []

            def keep(states: Tensor, seen: list[Tensor] = seen) -> Tensor:
                seen.append(normalised(states))
                return torch.zeros_like(states)

            with FeedForwardSide(keep, int(name)).attach(self.backbone):
                for row in ids:
                    next_token_losses(self.backbone, [row])
            layer.finder.measure(torch.cat(seen))

    def loss(self, batch: Batch) -> Loss:
        """Next-token loss of the documents, and the loss of the answers closed book.

        Both are read as they will be: with the memory and the low-rank weights. `answer_weight` is
        the weight of the answers. At 0 they are not read, and the low-rank weights stay.
        """
        seen, asked = Accesses(), Accesses()
        texts = [document.text for document in batch.documents]
        ids = document_ids(self.backbone, texts, self.config.chunk_tokens)
        with self._warming(seen).attach(self.backbone):
            losses, mask = next_token_losses(self.backbone, ids)
        text = losses.sum() / mask.sum().clamp_min(1)
        places = torch.nn.functional.pad(mask, (1, 0), value=True)
        self._passes = [seen.counts(places)[0]]
        if not self.config.answer_weight:
            return Loss(text, {"text": text.item()})
        with self._warming(asked).attach(self.backbone):
            answer = mean_answer_loss(self.backbone, batch)
        self._passes.append(asked.counts()[0])
        parts = {"text": text.item(), "answer": answer.item()}
        return Loss(text + self.config.answer_weight * answer, parts)

    def _warming(self, seen: Accesses) -> Conditioning:
        """The low-rank weights and the memory; `seen` collects what it accesses."""
        transports = super().closed_book().transports
        return Conditioning((*transports, *self._attached(None, seen).transports))

    def after_step(self, batch: Batch) -> Sequence[tuple[Tensor, Tensor]]:
        """Counts the slots that texts and questions accessed, as background batches."""
        for used in self._passes:
            self.counted.add(used)
        self._passes = []
        return ()

    def training_state(self) -> dict[str, Tensor]:
        """The latest background batches."""
        return self.counted.state()

    def load_training_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes what `training_state` gave."""
        self.counted.load_state(state)


def source_key(source: str | None) -> str:
    """The name of a source's delta: 16 hex digits."""
    return blake2b(repr(source).encode(), digest_size=8).hexdigest()


def number(id: str, step: int) -> int:
    """A seed from a document's id and the number of its step."""
    return int.from_bytes(blake2b(f"{id} {step}".encode(), digest_size=6).digest())
