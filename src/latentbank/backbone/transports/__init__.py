"""How a memory speaks to the backbone: transports that attach for the length of a `with` block."""

from latentbank.backbone.transports.conditioning import (
    Conditioning,
    KVPrefix,
    LayerHook,
    MidStates,
    Sources,
    Transport,
)
from latentbank.backbone.transports.feed_forward import FeedForwardSide
from latentbank.backbone.transports.rectangular import KnowledgeLayer, KnowledgeMemory
from latentbank.backbone.transports.side_attention import SideMemory
from latentbank.backbone.transports.weight_delta import (
    DenseDelta,
    LowRankDelta,
    RowsDelta,
    WeightDelta,
)

__all__ = [
    "Conditioning",
    "DenseDelta",
    "FeedForwardSide",
    "KVPrefix",
    "KnowledgeLayer",
    "KnowledgeMemory",
    "LayerHook",
    "LowRankDelta",
    "MidStates",
    "RowsDelta",
    "SideMemory",
    "Sources",
    "Transport",
    "WeightDelta",
]
