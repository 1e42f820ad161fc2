"""An improvement on MAC: before training, attention is already a similarity of texts.

The latents of a document start as the pooled segments of its states, those of a question as its
mean. The aggregator starts as a soft copy of the slots that resemble the question. The memory
tokens are then what the aggregator adds to the question. Knows networks and tensors; knows no bank.
"""

from __future__ import annotations

from torch import Tensor, nn

from latentbank.parts.amortised.aggregator import Aggregator
from latentbank.parts.amortised.cross_attention import MEAN_GAIN
from latentbank.parts.pooling import SegmentPooler

__all__ = ["CopyStart"]


class CopyStart:
    """The copying start of an amortised memory, with the pooler of its documents."""

    def __init__(self, width: int, latents: int) -> None:
        self.pooler = SegmentPooler(width)
        self.latents = latents

    def join(self, documents: nn.Module, questions: nn.Module, aggregator: Aggregator) -> None:
        """Gives both amortisers the same codes and removes these codes from what is read."""
        codes = documents.get_parameter("queries")
        questions.load_state_dict({"queries": codes.data}, strict=False)
        aggregator.leave_out(codes.data)

    def base(self, states: Tensor, mask: Tensor) -> Tensor:
        """What a document's latents start from: [B, T, D] of states [B, L, D], mask [B, L] bool."""
        pooled: Tensor = self.pooler(states, mask, self.latents)[0]
        return pooled

    @staticmethod
    def compare(aggregator: Aggregator, asked: Tensor, stored: Tensor, codes: Tensor) -> None:
        """`Aggregator.compare` of questions [Q, T, D] and documents [N, T, D], at most once."""
        if not aggregator.compares:
            aggregator.compare(asked.to(codes), stored.to(codes), codes)

    @staticmethod
    def read_out(tokens: Tensor, question: Tensor) -> Tensor:
        """What the aggregator added to the question [B, T, D].

        Most of the mean is taken off: the latents carry it only to be compared.
        """
        added = tokens - question
        return added - MEAN_GAIN / (1 + MEAN_GAIN) * added.mean(1, keepdim=True)
