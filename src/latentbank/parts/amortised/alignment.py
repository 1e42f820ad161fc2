"""Memory tokens to what the backbone takes: a key/value prefix, or states of a middle layer.

π of MAC (Tack et al., 2024) is `PrefixAlignment`. `StateAlignment` is an improvement: the layers
from a middle one upward read the tokens with their own projections. Knows tensors and transports.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from latentbank.backbone.kv import KVMemory
from latentbank.backbone.model import Backbone
from latentbank.backbone.transports import KVPrefix, MidStates
from latentbank.parts.amortised.cross_attention import quiet_mlp
from latentbank.parts.pooling import Standardiser

__all__ = ["PrefixAlignment", "StateAlignment", "as_prefix", "as_states"]


class PrefixAlignment(nn.Module):
    """π: memory tokens [B, T, D] → keys and values of `virtual` tokens for each layer.

    Token-wise MLPs of hidden width 768 (the papers'). The result is [2·L, B, H_kv, virtual, d_h]
    with the number of key/value heads, which grouped-query attention needs.
    """

    def __init__(
        self,
        tokens: int,
        width: int,
        layers: int,
        kv_heads: int,
        head_dim: int,
        virtual: int = 2,
        hidden: int = 768,
    ) -> None:
        super().__init__()
        self.shape = (layers, kv_heads, virtual, head_dim)
        self.norm = nn.LayerNorm(width)
        self.mix = nn.Linear(tokens, virtual, bias=False)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, 2 * layers * kv_heads * head_dim)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        layers, kv_heads, virtual, head_dim = self.shape
        mixed = self.mix(self.norm(tokens).transpose(1, 2)).transpose(1, 2)  # (B, virtual, D)
        out = self.mlp(mixed).view(-1, virtual, 2 * layers, kv_heads, head_dim)
        aligned: Tensor = out.permute(2, 0, 3, 1, 4)
        return aligned


class StateAlignment(nn.Module):
    """Memory tokens [B, T, D] → states [B, T, D] of a middle layer, in standardised units."""

    def __init__(self, width: int, hidden: int = 384) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.skip = nn.Linear(width, width)
        self.mlp = quiet_mlp(width, hidden)
        nn.init.eye_(self.skip.weight)
        nn.init.zeros_(self.skip.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        normal = self.norm(tokens)
        aligned: Tensor = self.skip(normal) + self.mlp(normal)
        return aligned


def as_prefix(aligned: Tensor, layer: int, backbone: Backbone) -> KVPrefix:
    """The prefix of keys and values [2·L, B, H_kv, virtual, d_h] for the layers from `layer`."""
    aligned = aligned.to(backbone.dtype)
    count, batch, virtual = aligned.shape[0] // 2, aligned.shape[1], aligned.shape[3]
    return KVPrefix(
        KVMemory(
            keys=tuple(aligned[:count]),
            values=tuple(aligned[count:]),
            bias=torch.zeros(batch, virtual, device=aligned.device),
            start=torch.full((batch,), virtual, dtype=torch.long, device=aligned.device),
            layer=layer,
        )
    )


def as_states(aligned: Tensor, layer: int, backbone: Backbone, standard: Standardiser) -> MidStates:
    """States [B, T, D] that enter `layer`, the start token's state before them."""
    states = standard.restore(aligned)
    start = backbone.start_state(layer).to(states).expand(states.shape[0], -1, -1)
    states = torch.cat([start, states], 1)
    mask = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
    return MidStates(states, mask, layer)
