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

    The tokens are repeated to A = 2 · L · `virtual`, and each passes a network of its own, as in
    MAC's published code: LayerNorm, Linear to 768, GELU, Linear, and a skip where the widths agree.
    The result is [2·L, B, H_kv, virtual, d_h]. It has the number of key/value heads, as
    grouped-query attention needs.
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
        self.shape = (virtual, 2 * layers, kv_heads, head_dim)
        actual, out = 2 * layers * virtual, kv_heads * head_dim
        self.skips = out == width
        self.repeated: Tensor
        self.register_buffer("repeated", _repeated(tokens, actual), persistent=False)
        self.norm = nn.Parameter(torch.ones(actual, width))
        self.norm_bias = nn.Parameter(torch.zeros(actual, width))
        self.first = nn.Parameter(torch.randn(actual, width, hidden) / width**0.5)
        self.first_bias = nn.Parameter(torch.zeros(actual, hidden))
        self.second = nn.Parameter(torch.randn(actual, hidden, out) / hidden**0.5)
        self.second_bias = nn.Parameter(torch.zeros(actual, out))

    def forward(self, tokens: Tensor) -> Tensor:
        """Keys, then values [2·L, B, H_kv, virtual, d_h] of memory tokens [B, T, D]."""
        entered = tokens[:, self.repeated]  # (B, A, D)
        normal = nn.functional.layer_norm(entered, entered.shape[-1:]) * self.norm + self.norm_bias
        hidden = torch.einsum("bad,adh->bah", normal, self.first) + self.first_bias
        out = torch.einsum("bah,aho->bao", nn.functional.gelu(hidden), self.second)
        out = out + self.second_bias + (entered if self.skips else 0)
        aligned: Tensor = out.view(-1, *self.shape).permute(2, 0, 3, 1, 4)
        return aligned


def _repeated(tokens: int, actual: int) -> Tensor:
    """Which of T tokens each of `actual` networks gets [A]: in order, the first ones once more."""
    times, rest = divmod(actual, tokens)
    return torch.tensor([i for i in range(tokens) for _ in range(times + (i < rest))])


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
        """States [B, T, D] in standardised units."""
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
    """States [B, 1 + T, D] that enter `layer`: the start token's state, then the aligned ones."""
    states = standard.restore(aligned)
    start = backbone.start_state(layer).to(states).expand(states.shape[0], -1, -1)
    states = torch.cat([start, states], 1)
    mask = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
    return MidStates(states, mask, layer)
