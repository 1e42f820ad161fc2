"""An improvement on MAC: training that starts where attention already is a similarity.

A document's latents start as the pooled segments of its states, a question's as its mean, and the
aggregator as a soft copy of the slots that resemble the question. The memory tokens are then what
the aggregator adds to the question. Knows networks and tensors; knows no bank.
"""

from __future__ import annotations

from torch import Tensor, nn

from latentbank.parts.amortised.aggregator import Aggregator
from latentbank.parts.amortised.cross_attention import MEAN_GAIN
from latentbank.parts.pooling import SegmentPooler

__all__ = ["CopyStart"]


class CopyStart:
    """The copying start of an amortised memory; owns the pooler of its documents."""

    def __init__(self, width: int, latents: int) -> None:
        self.pooler = SegmentPooler(width)
        self.latents = latents

    def join(self, documents: nn.Module, questions: nn.Module, aggregator: Aggregator) -> None:
        """Gives both amortisers the same codes and keeps these codes out of what is read."""
        codes = documents.get_parameter("queries")
        questions.load_state_dict({"queries": codes.data}, strict=False)
        aggregator.leave_out(codes.data)

    def base(self, states: Tensor, mask: Tensor) -> Tensor:
        """What a document's latents start from: [B, T, D] of states [B, L, D], mask [B, L] bool."""
        pooled: Tensor = self.pooler(states, mask, self.latents)[0]
        return pooled

    @staticmethod
    def compare(aggregator: Aggregator, asked: Tensor, stored: Tensor, codes: Tensor) -> None:
        """Starts queries and keys from latents [Q, T, D] of questions and [N, T, D] of documents,
        unless that was done before.
        """
        if not aggregator.compares:
            aggregator.compare(asked.to(codes), stored.to(codes), codes)

    @staticmethod
    def read_out(tokens: Tensor, question: Tensor) -> Tensor:
        """What the aggregator added to the question [B, T, D], without the means that latents carry
        so that they can be found.
        """
        added = tokens - question
        return added - MEAN_GAIN / (1 + MEAN_GAIN) * added.mean(1, keepdim=True)
