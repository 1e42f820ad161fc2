"""The codewords that an MBC bank holds: one codebook, or generations of one that keeps learning.

Stored codes keep the generation that they were written with. Those of generation g are g · K higher
than those of the first. Knows codebooks and bytes; knows no bank and no backbone.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from latentbank.codec import pack_bits, unpack_bits
from latentbank.codec.quantizer import Codebook, ResidualMeter, nearest_codes
from latentbank.errors import BankError

__all__ = ["Codewords", "Learning"]


@dataclass(frozen=True)
class Learning:
    """How codewords go on learning while documents are written.

    `discount` is α of the online objective. A generation lasts for `documents` documents, and a
    bank holds at most `generations` of them.
    """

    discount: float
    documents: int
    generations: int


class Codewords:
    """`all` [G · K, D] float16 with G generations; `meter` measures what their codes miss.

    `book` is the adapter's codebook, with K words of width D. An entry has `codes` codes of `bits`
    bits. Without `learning` there is one generation, and it stays as it is.
    """

    def __init__(self, book: Codebook, codes: int, bits: int, learning: Learning | None) -> None:
        self.adapter, self.codes, self.bits, self.learning = book, codes, bits, learning
        self.size = book.config.codes
        self.meter = ResidualMeter()
        self._own: Codebook | None = None
        self.all = self._started()

    def _started(self) -> Tensor:
        return self.adapter.weight.detach().half().cpu()

    @property
    def generations(self) -> int:
        """G, codebooks that the bank holds."""
        return len(self.all) // self.size

    @property
    def latest(self) -> Tensor:
        """The codewords [K, D] float32 that new codes name."""
        return self.all[-self.size :].float()

    # ---- bytes

    def start(self, blob: bytes | None) -> None:
        """Takes a bank's codewords, or the adapter's for None.

        Raises:
            BankError: the blob is no whole number of generations, or holds too many.
        """
        self.all, self._own, self.meter = self._started(), None, ResidualMeter()
        if not blob:
            return
        width = self.all.shape[1]
        one, most = 2 * self.size * width, self.learning.generations if self.learning else 1
        if len(blob) % one or not 1 <= len(blob) // one <= most:
            raise BankError(f"the bank's codebook has {len(blob)} bytes, expected {one}")
        self.all = torch.from_numpy(np.frombuffer(blob, np.float16).reshape(-1, width).copy())

    def stored(self) -> bytes:
        """What `start` takes."""
        return self.all.numpy().tobytes()

    def pack(self, codes: Tensor) -> list[bytes]:
        """The payloads of codes [B, T]; with `learning` a first byte names the generation."""
        generations, places = divmod(codes.numpy(), self.size)
        head = bytes([int(generations.flat[0])]) if self.learning else b""
        return [head + pack_bits(row, self.bits) for row in places]

    def unpack(self, payload: bytes) -> Tensor:
        """The codes [T] of one entry.

        Raises:
            BankError: another length, or a code or generation that the bank does not have.
        """
        generation = 0
        if self.learning:
            generation, payload = int.from_bytes(payload[:1]), payload[1:]
        codes = unpack_bits(payload, self.bits, self.codes)
        if len(codes) and int(codes.max()) >= self.size:
            raise BankError(
                f"an entry of the bank names code {int(codes.max())}; "
                f"the codebook has {self.size} codes"
            )
        if generation and generation >= self.generations:
            raise BankError(
                f"an entry of the bank names generation {generation} of its codewords; "
                f"the bank has {self.generations}"
            )
        return torch.from_numpy(np.asarray(codes, dtype=np.int64)) + generation * self.size

    # ---- codes

    def encode(self, latents: Tensor) -> Tensor:
        """The codes [...] of latents [..., D], in the latest generation."""
        flat, latest = latents.flatten(0, -2), self.latest
        codes = nearest_codes(flat, latest)
        self.meter.add(flat, latest[codes])
        return codes.view(latents.shape[:-1]) + (len(self.all) - self.size)

    def learn(self, latents: Tensor, counts: Tensor) -> bool:
        """Learns from latents [N, D], and says whether that opened a new generation.

        `counts` [G · K] are the codes that the bank holds of each word. A generation is opened when
        the latest one has its documents. Does nothing without `learning`.
        """
        if self.learning is None or not len(latents):
            return False
        book = self._book()
        generator = torch.Generator().manual_seed(int(counts.sum()))
        book.update(latents, book.nearest(latents), self.learning.discount, None, generator)
        held = int(counts[-self.size :].sum()) // self.codes
        if held < self.learning.documents or self.generations >= self.learning.generations:
            return False
        self.all = torch.cat([self.all, book.weight.detach().half()])
        return True

    def _book(self) -> Codebook:
        """The bank's own codebook in float32; starts with the adapter's usage statistics."""
        if self._own is None:
            settings = dataclasses.replace(self.adapter.config, learning="ema")
            words = self.latest
            with torch.random.fork_rng(devices=[]):  # its random start is replaced
                book = Codebook(words.shape[1], settings)
            known = self.adapter.state_dict().items()
            book.load_state_dict({name: value.detach().cpu() for name, value in known})
            book.weight.copy_(words)
            book.sums.copy_(book.weight * book.counts[:, None])
            self._own = book
        return self._own

    def residual(self) -> dict[str, float]:
        """`codebook_residual`: the share of variance that codes missed; empty before any code."""
        value = self.meter.value()
        return {} if value is None else {"codebook_residual": value}
