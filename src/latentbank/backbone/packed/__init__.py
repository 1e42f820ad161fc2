"""Training's fast path: many short texts through a Llama-like backbone's layers at once.

Knows token ids, states and low-rank weights; knows no method and no data.
"""

from __future__ import annotations

from latentbank.backbone.packed.answers import AnswerStates, PackedAnswers
from latentbank.backbone.packed.layers import PackedLayers

__all__ = ["AnswerStates", "PackedAnswers", "PackedLayers"]
