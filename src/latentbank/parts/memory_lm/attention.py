"""Causal attention with persistent tokens: over a sliding window, or over a segment with memories.

Both take a text in pieces and carry what the next piece needs. Knows vectors [B, T, D].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from latentbank.parts.memory_lm.config import MemoryLMConfig
from latentbank.parts.memory_lm.stream import Carried


def rotated(x: Tensor, positions: Tensor) -> Tensor:
    """Rotary positions: x [B, H, T, d] at `positions` [T]; the angles are float64."""
    half = x.shape[-1] // 2
    rates = 10_000.0 ** -(torch.arange(half, dtype=torch.float64, device=x.device) / half)
    angles = positions.double()[:, None] * rates
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


class Projections(nn.Module):
    """Queries, keys, values, persistent keys and values, and the output of attention."""

    def __init__(self, config: MemoryLMConfig) -> None:
        super().__init__()
        self.heads, self.head_dim = config.heads, config.head_dim
        inner = config.heads * config.head_dim
        self.to_queries = nn.Linear(config.width, inner, bias=False)
        self.to_pairs = nn.Linear(config.width, 2 * inner, bias=False)
        self.to_output = nn.Linear(inner, config.width, bias=False)
        shape = 2, config.heads, config.persistent, config.head_dim
        self.persistent = nn.Parameter(torch.randn(shape) * 0.5)

    def queries(self, x: Tensor) -> Tensor:
        """[B, H, T, d] of x [B, T, D]."""
        found: Tensor = self.to_queries(x).view(*x.shape[:2], self.heads, -1).transpose(1, 2)
        return found

    def pairs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [B, H, T, d] of x [B, T, D]."""
        both = self.to_pairs(x).view(*x.shape[:2], 2, self.heads, -1)
        keys, values = both.permute(2, 0, 3, 1, 4)
        return keys, values

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, seen: Tensor) -> Tensor:
        """[..., T, d] of queries over the persistent tokens and keys [..., M, d].

        `seen` [..., T, M] is bool. Leading dimensions are [B, H] or [B, H, blocks].
        """
        root = self.head_dim**-0.5
        shape = (1, self.heads, *(1,) * (queries.dim() - 4), *self.persistent.shape[2:])
        own_keys, own_values = (one.view(shape) for one in self.persistent)
        scores = (queries @ keys.mT * root).masked_fill(~seen, -1e9)
        always = queries @ own_keys.mT * root
        weights = torch.cat([always, scores], -1).softmax(-1)
        count = self.persistent.shape[2]
        found: Tensor = weights[..., :count] @ own_values + weights[..., count:] @ values
        return found

    def output(self, heads: Tensor) -> Tensor:
        """[B, H, T, d] → [B, T, D]."""
        found: Tensor = self.to_output(heads.transpose(1, 2).flatten(2))
        return found


class WindowAttention(nn.Module):
    """Each token sees itself, the `window` - 1 tokens before it and the persistent tokens."""

    def __init__(self, config: MemoryLMConfig) -> None:
        super().__init__()
        self.window = config.window
        self.maps = Projections(config)

    def start(self, x: Tensor) -> Carried:
        """The state before any token."""
        shape = x.shape[0], self.maps.heads, self.window, self.maps.head_dim
        return {
            "keys": x.new_zeros(shape),
            "values": x.new_zeros(shape),
            "seen": torch.zeros(1, dtype=torch.int64, device=x.device),
        }

    def forward(self, x: Tensor, past: Carried | None) -> tuple[Tensor, Carried]:
        """(attention's output [B, T, D], state) of x [B, T, D]; costs T · window."""
        past = self.start(x) if past is None else past
        seen, length, window = past["seen"], x.shape[1], self.window
        assert isinstance(seen, Tensor)
        places = seen + torch.arange(length, device=x.device)
        new_keys, new_values = self.maps.pairs(x)
        keys = torch.cat([past["keys"], rotated(new_keys, places)], 2)  # type: ignore[list-item]
        values = torch.cat([past["values"], new_values], 2)  # type: ignore[list-item]
        block = min(window, length)
        rest = -length % block
        pad = (0, 0, 0, rest)
        queries = nn.functional.pad(rotated(self.maps.queries(x), places), pad)
        queries = queries.view(*queries.shape[:2], -1, block, queries.shape[-1])
        spans = [
            nn.functional.pad(one, pad).unfold(2, window + block, block).mT
            for one in (keys, values)
        ]  # (B, H, blocks, window + block, d)
        near = self._seen(seen, queries.shape[2], block)
        heads = self.maps.attend(queries, spans[0], spans[1], near)
        heads = heads.flatten(2, 3)[:, :, :length]
        return self.maps.output(heads), {
            "keys": keys[:, :, -window:].clone(),
            "values": values[:, :, -window:].clone(),
            "seen": seen + length,
        }

    def _seen(self, seen: Tensor, blocks: int, block: int) -> Tensor:
        """Which keys each query of a block sees [blocks, block, window + block] bool."""
        device = seen.device
        query = torch.arange(block, device=device)[:, None] + self.window
        key = torch.arange(self.window + block, device=device)
        near = (key <= query) & (key > query - self.window)
        place = torch.arange(blocks, device=device)[:, None] * block + key + seen - self.window
        return near & (place >= 0)[:, None]


class SegmentAttention(nn.Module):
    """Attention over [persistent tokens | memories | tokens] of one segment (equation 22).

    Memory j belongs to token j of the segment; a token sees it from token j on.
    """

    def __init__(self, config: MemoryLMConfig) -> None:
        super().__init__()
        self.maps = Projections(config)
        self.of_memory = nn.Parameter(torch.zeros(config.width))

    def forward(
        self, x: Tensor, memories: Tensor, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(output [B, T, D], keys and values [B, 2, H, n, d] of the segment so far).

        x and `memories` [B, T, D] follow the tokens whose keys and values are `past`.
        """
        before = 0 if past is None else past[0].shape[3]
        places = torch.arange(before, before + x.shape[1], device=x.device)
        made = [self.maps.pairs(one) for one in (memories + self.of_memory, x)]
        keys = torch.stack([rotated(one[0], places) for one in made], 1)
        values = torch.stack([one[1] for one in made], 1)
        if past is not None:
            keys, values = torch.cat([past[0], keys], 3), torch.cat([past[1], values], 3)
        seen = torch.arange(keys.shape[3], device=x.device) <= places[:, None]
        heads = self.maps.attend(
            rotated(self.maps.queries(x), places),
            keys.transpose(1, 2).flatten(2, 3),
            values.transpose(1, 2).flatten(2, 3),
            torch.cat([seen, seen], -1),
        )
        return self.maps.output(heads), (keys, values)
