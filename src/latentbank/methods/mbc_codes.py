"""MBC: Memory Bank Compression for Continual Adaptation of Large Language Models.

Katraouras and Rafailidis, 2026. MBC is MAC with codes of a learned codebook in place of latents.
Unused codes are reset. Low-rank updates train the key and value projections (KV-LoRA).

What differs from the paper's published code:

- Codes are bit-packed, and a document is encoded once instead of once for each question.
- The codebook starts from k-means.
- It can learn by moving averages: `codebook.learning="ema"`; `"gradient"` is the paper's.
- A code counts as dead relative to uniform usage. It is reset to a badly reconstructed latent.
- `adapt="online"` keeps learning while documents are written. What it learned becomes a new
  generation of codewords. Stored codes keep the generation that they were written with.
- Attention over N·T codes equals attention over K codewords with `+ log(count)`. So reading takes
  K slots and not N·T; `form="histogram"` keeps only the counts.
- `binding=true` is an extension: codes stay with their document, see `mbc_bound`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from latentbank.backbone.model import Backbone
from latentbank.backbone.transports import Sources
from latentbank.bank import HISTOGRAM, Entry, MemoryBank, Receipt
from latentbank.capabilities import Telemetry
from latentbank.codec.quantizer import Codebook, CodebookConfig, usage_perplexity
from latentbank.config import require_at_least, setting
from latentbank.documents.document import Document
from latentbank.errors import BankError, InputError, unknown
from latentbank.method import (
    CALLS_ADD_UP,
    CONSTANT_SIZE,
    EXACT_DELETE,
    NAMES_SOURCES,
    WriteReport,
)
from latentbank.methods.mac import Mac, MacConfig
from latentbank.parts.amortised.bound_codes import BoundSettings
from latentbank.parts.amortised.codewords import Codewords, Learning
from latentbank.parts.amortised.networks import paper_presets
from latentbank.parts.amortised.slots import Slots, top_sources
from latentbank.parts.batch import Batch
from latentbank.parts.low_rank import LoraSettings

WORDS, COUNTS = "codebook", HISTOGRAM


@dataclass(frozen=True)
class MbcConfig(MacConfig):
    """MAC's fields, and the codebook."""

    form: str = setting("indices", "What the bank holds: `indices` (the paper's) or `histogram`.")
    adapt: str = setting("frozen", "The codebook while writing: `frozen` or `online`.")
    discount: float = setting(0.999, "α of the online objective.")
    generation: int = setting(256, "`online`: documents after which new codewords are taken.")
    generations: int = setting(4, "`online`: codebooks that a bank holds at most, up to 256.")
    vq_weight: float = setting(1.0, "λ, weight of the quantisation loss.")
    binding: bool = setting(False, "Whether codes stay with their document; not in the paper.")
    bound: BoundSettings = BoundSettings()
    codebook: CodebookConfig = CodebookConfig()
    lora: LoraSettings = LoraSettings(rank=16, alpha=32, dropout=0.05, targets="kv")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form not in ("indices", "histogram"):
            raise unknown("mbc form", self.form, ["indices", "histogram"])
        if self.adapt not in ("frozen", "online"):
            raise unknown("mbc adapt", self.adapt, ["frozen", "online"])
        require_at_least(self, 1, "generation", "generations")
        if self.generations > 256:
            raise InputError(f"generations must be at most 256, got {self.generations}")
        if self.binding and (self.form, self.adapt, self.window) != ("indices", "frozen", 0):
            raise InputError("binding=true needs form='indices', adapt='frozen' and window=0")

    @property
    def bits(self) -> int:
        """Bits of one code."""
        return (self.codebook.codes - 1).bit_length()

    @property
    def learning(self) -> Learning | None:
        """How codewords learn while documents are written; None where they are frozen."""
        online = self.adapt == "online"
        return Learning(self.discount, self.generation, self.generations) if online else None


def _mbc_presets() -> dict[str, dict[str, Any]]:
    """KV-LoRA on all 6 layers of DistilGPT2 and on the last 16 layers of the larger backbones."""
    first = {"distilgpt2": 0, "gpt2-large": 20, "gpt2-xl": 32, "llama-2-7b": 16}
    base = paper_presets(codebook={"learning": "gradient", "reset_to": "random"})
    return {
        name: {
            **values,
            "lora": {"rank": 16, "dropout": 0.05, "targets": "kv", "layer": first[name]},
        }
        for name, values in base.items()
    }


class Mbc(Mac, Telemetry):
    """Memory bank compression: the bank holds codes and, beside them, the codebook."""

    name = "mbc"
    Config = MbcConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        **_mbc_presets(),
        "smollm2-135m": {
            **Mac.presets["smollm2-135m"],
            "lora": {"rank": 16, "dropout": 0.05, "targets": "kv", "layer": 12},
        },
        "tiny": {
            **Mac.presets["tiny"],
            "codebook": {"codes": 16},
            "lora": {"rank": 4, "targets": "kv", "layer": 1},
        },
    }

    def __init__(self, config: MbcConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        if config.form == "histogram":
            self.claims = self.claims - {EXACT_DELETE, NAMES_SOURCES} | {CONSTANT_SIZE}
        if config.adapt == "online":  # what a document taught the codewords stays
            self.claims = self.claims - {EXACT_DELETE, CALLS_ADD_UP}
        self.codebook = Codebook(backbone.geometry.width, config.codebook)
        self.network["codebook"] = self.codebook.to(backbone.device)
        self._buffered: tuple[Tensor, Tensor] | None = None
        self.codewords = Codewords(self.codebook, self.code_count, config.bits, config.learning)
        self._codes: Tensor = torch.zeros(0, dtype=torch.long)
        self._histogram: Tensor = torch.zeros(config.codebook.codes, dtype=torch.long)

    # ---- the bank

    @property
    def level(self) -> str:
        """`vqK`, with K the size of the codebook."""
        return f"vq{self.config.codebook.codes}"

    def bind(self, bank: MemoryBank) -> None:
        """Takes `bank` with its codebook, counts and codes; a new bank gets the adapter's."""
        self.bank = bank
        self.codewords.start(bank.get_blob(WORDS))
        counts, words = bank.get_blob(COUNTS), len(self.codewords.all)
        self._histogram = torch.zeros(words, dtype=torch.long)
        if counts:
            if len(counts) != 4 * words:
                raise BankError(f"the bank counts {len(counts) // 4} codes, expected {words}")
            self._histogram = torch.from_numpy(np.frombuffer(counts, np.uint32).astype(np.int64))
        self.unreadable = {}
        entries = self._readable(bank.entries())
        self._ids = [entry.id for entry in entries]
        rows = [self._unpack(entry.payload) for entry in entries]
        self._codes = torch.cat(rows) if rows else torch.zeros(0, dtype=torch.long)
        self._refresh()

    def take(self, gone: Sequence[str], entries: Sequence[Entry]) -> None:
        """Takes in what others deleted and wrote."""
        fixed = self.config.form == "indices" and self.config.adapt == "frozen"
        if fixed:
            super().take(gone, entries)
        else:  # words and counts change with every write of others
            self.bind(self.require_bank())

    def _decode_payload(self, payload: bytes) -> Tensor:
        return self._unpack(payload)

    @property
    def code_count(self) -> int:
        """Codes of one entry."""
        return int(self.config.latents)

    def _unpack(self, payload: bytes) -> Tensor:
        """The codes [T] of one entry; see `Codewords.unpack`."""
        return self.codewords.unpack(payload)

    def _refresh(self) -> None:
        """Makes one slot for each codeword in use, with its log mass.

        Attention over N·T codes equals attention over their codewords with `+ log(count)`. Where
        slots are aggregated in windows, each code keeps a slot of its own.
        """
        words, codes = self.codewords.all.float(), self._codes
        if 0 < self.config.window < len(codes):
            self.slots = Slots.of(words[codes], self._owner(len(self._ids)))
        else:
            counts = self._counts()
            used = (counts > 0).nonzero().flatten()
            no_owner = torch.full((len(used),), -1)
            self.slots = Slots(words[used], counts[used].float().log(), no_owner)
        self._projected = None

    def _counts(self) -> Tensor:
        """How many codes of the bank name each codeword [K]."""
        return torch.bincount(self._codes, minlength=len(self._histogram)) + self._histogram

    def sources(self, question: Tensor) -> Sources:
        """As in MAC: a document has the attention of its codes. Equal codes share it equally."""
        if not self._ids or bool((self.slots.owner >= 0).all()):
            return super().sources(question)
        finder, device, counts = self.aggregator.finder, question.device, self._counts()
        used = (counts > 0).nonzero().flatten()
        if self._projected is not None:
            keys = self._projected[0][0]
        else:
            keys = finder.project(self.slots.values[None].to(device))[0]
        bias, slots = self.slots.bias(device), torch.arange(len(used))
        shares = finder.owner_shares(question, keys, bias, slots, len(used)).cpu()
        each = torch.zeros(len(shares), len(counts))  # the attention on one code of each word
        each[:, used] = shares / counts[used]
        codes = self._codes.view(len(self._ids), -1)
        documents = torch.stack([row[codes].sum(1) for row in each])
        return top_sources(documents, [self._ids] * len(documents))

    def take_codes(self, codes: Tensor) -> None:
        """Adds codes [N·T] to the working state and not to the bank.

        For measurements at sizes that would take hours to write.
        """
        if self.config.form == "histogram":
            self._histogram += torch.bincount(codes, minlength=len(self._histogram))
        else:
            self._ids.extend(str(i) for i in range(len(codes) // self.config.latents))
            self._codes = torch.cat([self._codes, codes])
        self._refresh()

    def write(self, documents: Sequence[Document]) -> WriteReport:
        """Stores codes, or counts in the histogram form.

        The histogram form has no ledger: a document that is written twice counts twice.
        """
        try:
            if self.config.form == "indices":
                return super().write(documents)
            return self._count(documents)
        except BaseException:  # also Ctrl-C: go back to what the bank holds
            meter = self.codewords.meter
            self.bind(self.require_bank())
            self.codewords.meter = meter
            raise

    def _count(self, documents: Sequence[Document]) -> WriteReport:
        """Adds the codes of `documents` to the histogram."""
        began, bank = time.perf_counter(), self.require_bank()
        codes = self._encode(self.amortise_all([d.text for d in documents]))
        self._histogram += torch.bincount(codes.flatten(), minlength=len(self._histogram))
        bank.append([], blobs=self._blobs())
        self._refresh()
        return WriteReport(len(documents), 0, time.perf_counter() - began)

    def delete(self, ids: Sequence[str]) -> Receipt:
        """As in MAC. Raises InputError in the histogram form, which cannot delete."""
        if self.config.form == "histogram":
            raise InputError(
                "a histogram bank keeps only counts and cannot delete a document; "
                "use form='indices'"
            )
        return super().delete(ids)

    def _encode(self, latents: Tensor) -> Tensor:
        """Codes [B, T] of latents [B, T, D]; with `adapt="online"` the codebook learns first."""
        if self.codewords.learn(latents.flatten(0, 1), self._counts()):
            unused = torch.zeros(self.codewords.size, dtype=torch.long)
            self._histogram = torch.cat([self._histogram, unused])
            self._refresh()
        return self.codewords.encode(latents)

    def telemetry(self) -> dict[str, float]:
        """Perplexity and number of unused codewords of the bank's codes.

        `codebook_residual` covers what was encoded since the bank was bound, if anything was.
        """
        counts = self._counts().view(self.codewords.generations, -1).sum(0)
        return {
            "codebook_perplexity": usage_perplexity(counts),
            "codebook_dead": float((counts == 0).sum()),
            **self.codewords.residual(),
        }

    def _encode_payloads(self, latents: Tensor) -> list[bytes]:
        return self.codewords.pack(self._encode(latents)) if latents.shape[0] else []

    def _stored_words(self) -> bytes:
        """The blob of the bank's codewords."""
        return self.codewords.stored()

    def _blobs(self) -> dict[str, bytes]:
        blobs = {WORDS: self._stored_words()}
        bank = self.require_bank()
        if bank.get_blob(WORDS) == blobs[WORDS]:
            blobs = {}
        if self.config.form == "histogram":
            blobs[COUNTS] = self._histogram.numpy().astype(np.uint32).tobytes()
        return blobs

    def _remember(self, ids: Sequence[str], payloads: Sequence[bytes]) -> None:
        if ids:
            self._ids.extend(ids)
            self._codes = torch.cat([self._codes, *(self._unpack(p) for p in payloads)])
            self._refresh()

    def _forget(self, ids: Sequence[str]) -> None:
        if ids:
            self._codes = self._codes[self._keep(ids)]
            self._refresh()

    # ---- training

    def prepare(self, documents: Sequence[Document], questions: Sequence[str] = ()) -> None:
        """As in MAC, then starts the codebook."""
        super().prepare(documents, questions)
        self.start_codebook(documents)

    def start_codebook(self, documents: Sequence[Document]) -> None:
        """Fits the codebook by k-means to the latents of `documents`.

        Does nothing where there are fewer latents than codes.
        """
        latents = self.amortise_all([d.text for d in documents]).flatten(0, 1)
        if len(latents) >= self.config.codebook.codes:
            self.codebook.fit(latents.to(self.backbone.device))

    def compress(self, latents: Tensor) -> tuple[Tensor, Tensor, dict[str, float]]:
        """(codewords [N, D] of the latents, quantisation loss, log parts)."""
        quantized = self.codebook(latents)
        self._buffered = (latents.detach(), quantized.codes)
        health = self.codebook.health()
        parts = {
            "vq": float(quantized.loss.detach()),
            "perplexity": health.perplexity,
            "dead": float(health.dead),
        }
        return quantized.values, self.config.vq_weight * quantized.loss, parts

    def after_step(self, batch: Batch) -> Sequence[tuple[Tensor, Tensor]]:
        """Updates usage, moving averages and dead codes from the latents of the step."""
        if self._buffered is None:
            return ()
        latents, codes = self._buffered
        generator = torch.Generator().manual_seed(batch.step)
        replaced = self.codebook.update(latents, codes, generator=generator)
        self._buffered = None
        return [(self.codebook.weight, replaced)]
