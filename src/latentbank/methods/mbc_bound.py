"""MBC with binding: codes stay with their document. An option of `mbc`, not in its paper.

The paper's codes carry no owner, so its bank answers like K counts (docs/methods/mbc.md). Here a
question first chooses documents by a quantised key that each entry holds, and reads their codes
alone. The key is CMT's similarity of mean-pooled memories, quantised.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from latentbank.backbone.model import Backbone
from latentbank.backbone.transports import Sources
from latentbank.bank import MemoryBank
from latentbank.codec import pack_bits, packed_bytes, unpack_bits
from latentbank.codec.quantizer import usage_perplexity
from latentbank.documents.document import Document
from latentbank.errors import BankError
from latentbank.methods.mbc_codes import WORDS, Mbc, MbcConfig
from latentbank.parts.amortised.bound_codes import BoundCodes
from latentbank.parts.amortised.matcher import Matcher, dequantised, quantised
from latentbank.parts.amortised.slots import Slots, top_sources
from latentbank.parts.batch import Batch, Loss

KEY_SCALE = 20.0  # of the cosines in the loss of the keys, an inverse temperature


class BoundMbc(Mbc):
    """What `mbc` is with `binding=true`. An entry holds T · L codes and then its key."""

    def __init__(self, config: MbcConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        width, bound = backbone.geometry.width, config.bound
        self.books = BoundCodes(width, config.latents, bound, config.codebook)
        self.matcher = Matcher(width, bound.key_width)
        self.network["codebook"] = self.books.to(backbone.device)
        self.network["matcher"] = self.matcher.to(backbone.device)
        self.key_width = self.matcher.project.out_features
        self._words = self.books.words()
        self._rows = torch.zeros(0, self._numbers, dtype=torch.long)
        self._keys: Tensor | None = None  # of the training step
        self._own = torch.zeros(0, dtype=torch.long)

    @property
    def code_count(self) -> int:
        """Codes of one entry: one for each latent and level."""
        return int(self.config.latents * self.config.bound.levels)

    @property
    def _numbers(self) -> int:
        """Whole numbers of a document: its codes and its key."""
        return self.code_count + self.key_width

    # ---- the bank

    @property
    def level(self) -> str:
        """`vqKxL-key`, with L levels of codes."""
        return f"vq{self.config.codebook.codes}x{self.config.bound.levels}-key"

    def bind(self, bank: MemoryBank) -> None:
        """Takes `bank` with its codebooks, codes and keys; a new bank gets the adapter's."""
        self.bank = bank
        started, stored = self.books.words(), bank.get_blob(WORDS)
        if stored and len(stored) != 2 * started.numel():
            raise BankError(
                f"the bank's codebooks have {len(stored)} bytes, expected {2 * started.numel()}"
            )
        self._words = started
        if stored:
            self._words = torch.frombuffer(bytearray(stored), dtype=torch.half).view_as(started)
        self.unreadable = {}
        self._ids, self._rows = [], self._rows[:0]
        entries = self._readable(bank.entries())
        self._remember([entry.id for entry in entries], [entry.payload for entry in entries])

    def _stored_words(self) -> bytes:
        """The blob of the codebooks of all levels."""
        return self._words.numpy().tobytes()

    def _unpack(self, payload: bytes) -> Tensor:
        """The whole numbers of one entry: codes [T · L], level by level in a latent, then the key.

        Raises:
            BankError: another number of bytes, or a code beyond the codebook.
        """
        config = self.config
        split = packed_bytes(config.bits, self.code_count)
        size = split + packed_bytes(config.bound.key_bits, self.key_width)
        if len(payload) != size:
            raise BankError(f"an entry of the bank has {len(payload)} bytes, expected {size}")
        codes = super()._unpack(payload[:split])
        key = unpack_bits(payload[split:], config.bound.key_bits, self.key_width)
        return torch.cat([codes, torch.from_numpy(key.astype("int64"))])

    def _encode_payloads(self, latents: Tensor) -> list[bytes]:
        if not latents.shape[0]:
            return []
        latents, bits = latents.to(self.backbone.device), self.config.bound.key_bits
        with torch.no_grad():
            codes = self.books.encode(latents, self._words).flatten(1).cpu()
            keys = quantised(self.matcher(latents, "documents"), bits).cpu()
            found = self.books.decode(codes.view(*latents.shape[:2], -1), self._words.float())
        self.codewords.meter.add(latents.cpu().flatten(0, 1), found.cpu().flatten(0, 1))
        rows = zip(codes.numpy(), keys.numpy(), strict=True)
        return [pack_bits(code, self.config.bits) + pack_bits(key, bits) for code, key in rows]

    def _remember(self, ids: Sequence[str], payloads: Sequence[bytes]) -> None:
        if ids:
            self._ids.extend(ids)
            self._rows = torch.cat([self._rows, torch.stack([self._unpack(p) for p in payloads])])
        self._refresh()

    def _forget(self, ids: Sequence[str]) -> None:
        if ids:
            self._rows = self._rows[self._keep(ids)[:: self.config.latents]]
            self._refresh()

    def _refresh(self) -> None:
        """Decodes the keys; codes are decoded when they are read."""
        numbers = self._rows[:, self.code_count :]
        self._stored = dequantised(numbers, self.config.bound.key_bits)
        self.slots, self._projected = Slots.empty(self.backbone.geometry.width), None

    @property
    def holds_documents(self) -> bool:
        """Whether there is something to read."""
        return bool(self._ids)

    def telemetry(self) -> dict[str, float]:
        """Mean perplexity of the levels' codes, and the residual of what was encoded."""
        codes = self._rows[:, : self.code_count].reshape(-1, self.config.bound.levels)
        size = self.config.codebook.codes
        counts = [torch.bincount(level, minlength=size) for level in codes.unbind(1)]
        perplexity = sum(map(usage_perplexity, counts)) / len(counts)
        return {"codebook_perplexity": perplexity, **self.codewords.residual()}

    # ---- reading

    def memory_tokens(self, question: Tensor) -> Tensor:
        """ψ(question latents [B, T, D], codes of the chosen documents) → [B, T, D]."""
        values = self._values(self._choose(question, self._stored.to(question.device)))
        return self._read_out(self.aggregator(question, values.flatten(1, 2)), question)

    def sources(self, question: Tensor) -> Sources:
        """The chosen documents with their shares of attention."""
        best = self._choose(question, self._stored.to(question.device))
        finder, count = self.aggregator.finder, best.shape[1]
        keys = finder.project(self._values(best).flatten(1, 2))[0]
        owner = torch.arange(count).repeat_interleave(self.config.latents)
        shares = finder.owner_shares(question, keys, None, owner, count)
        return top_sources(shares, [[self._ids[i] for i in row] for row in best.tolist()])

    def _choose(self, question: Tensor, keys: Tensor, own: Tensor | None = None) -> Tensor:
        """The numbers [B, k] of the documents whose keys [N, W] are nearest, in the bank's order.

        `own` [B] names a document of each question that is always among them.
        """
        count = self.config.bound.top_k or len(keys)
        scores = self.matcher(question, "questions") @ keys.T
        if own is not None:
            scores = scores.scatter(1, own[:, None], torch.inf)
        best: Tensor = scores.topk(min(count, len(keys)), dim=1).indices
        return best.sort(1).values

    def _values(self, documents: Tensor) -> Tensor:
        """Latents [..., T, D] of the documents with the numbers [...]."""
        codes = self._rows[documents.cpu(), : self.code_count]
        shape = *documents.shape, self.config.latents, self.config.bound.levels
        device = documents.device
        return self.books.decode(codes.view(shape).to(device), self._words.float().to(device))

    # ---- training

    def prepare(self, documents: Sequence[Document], questions: Sequence[str] = ()) -> None:
        """As in MBC; with `start="copy"` also measures the keys, as CMT does."""
        super().prepare(documents, questions)
        if self.config.start == "copy" and questions and not self.matcher.measured:
            asked = self.amortise_all(questions, side="questions")
            stored = self.amortise_all([d.text for d in documents])
            self.matcher.measure(asked.to(self.backbone.device), stored.to(self.backbone.device))

    def start_codebook(self, documents: Sequence[Document]) -> None:
        """Fits maps and codebooks to the latents of `documents`, where there are enough."""
        latents = self.amortise_all([d.text for d in documents])
        self.books.fit(latents.to(self.backbone.device))

    def loss(self, batch: Batch) -> Loss:
        """As in MBC, plus the loss of the keys. A question always reads its own document, too."""
        self._own = torch.tensor(batch.owner, device=self.backbone.device)
        return super().loss(batch)

    def compress(self, latents: Tensor) -> tuple[Tensor, Tensor, dict[str, float]]:
        """(latents [N, D] as their codes have them, quantisation loss, log parts)."""
        documents = latents.view(-1, self.config.latents, latents.shape[-1])
        values, loss = self.books(documents)
        keys, bits = self.matcher(documents, "documents"), self.config.bound.key_bits
        stored = dequantised(quantised(keys.detach(), bits), bits)
        self._keys = keys + (stored - keys).detach()  # straight through
        parts = {"vq": float(loss.detach()), "perplexity": self.books.perplexity()}
        return values.flatten(0, 1), self.config.vq_weight * loss, parts

    def training_tokens(self, question: Tensor, kept: Tensor) -> Tensor:
        """As in MBC, from the documents that the keys choose, and a question's own one."""
        assert self._keys is not None
        memories = kept.view(-1, self.config.latents, kept.shape[-1])
        with torch.no_grad():
            best = self._choose(question, self._keys, self._own)
        return self._read_out(self.aggregator(question, memories[best].flatten(1, 2)), question)

    def matching_terms(
        self, batch: Batch, question: Tensor, kept: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """As in MAC, plus the cross-entropy of a question's own document by the step's keys."""
        extra, parts = super().matching_terms(batch, question, kept)
        assert self._keys is not None
        scores = KEY_SCALE * self.matcher(question, "questions") @ self._keys.T
        loss = nn.functional.cross_entropy(scores, self._own)
        first = float((scores.argmax(1) == self._own).float().mean())
        parts = {**parts, "key": loss.item(), "key_first": first}
        return extra + self.config.bound.key_weight * loss, parts

    def after_step(self, batch: Batch) -> Sequence[tuple[Tensor, Tensor]]:
        """Updates all codebooks from the latents of the step."""
        return self.books.update(torch.Generator().manual_seed(batch.step))
