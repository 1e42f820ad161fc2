"""Cross-attention over slots: the block of which the networks of amortised memory are made.

Knows tensors only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from latentbank.errors import InputError

HIDDEN = -1e9  # the log mass of a slot that must not be read
# Used by the copying start, from sweeps in LOG.md: scale of the query and key weights, and of a
# text's mean in each of its latents.
COPY_GAIN, MEAN_GAIN = 3.0, 12.0
SCORES_AT_ONCE = 1 << 22  # attention scores held in memory by `owner_shares`


def quiet_mlp(width: int, hidden: int) -> nn.Sequential:
    """A two-layer MLP whose output starts at zero."""
    leave = nn.Linear(hidden, width)
    nn.init.zeros_(leave.weight)
    nn.init.zeros_(leave.bias)
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), leave)


class CrossAttention(nn.Module):
    """Pre-norm cross-attention and MLP: queries [B, T, D] over slots, with log masses.

    `inner` is the attention's width. Query and key projections start equal, so that attention
    starts as a similarity of the normalised inputs. With `copying` the block starts as a soft copy:
    it reads a mean of the slots that resemble the query. Values then have the full width D, value
    and output projections start as the identity, query and key projections as a random rotation.
    """

    def __init__(
        self, width: int, inner: int, heads: int, hidden: int, copying: bool = False
    ) -> None:
        super().__init__()
        value = width if copying else inner
        if inner % heads or value % heads:
            width_at_fault = inner if inner % heads else value
            raise InputError(
                f"heads must divide the attention width, got {width_at_fault} and {heads}"
            )
        self.heads = heads
        self.norm_q, self.norm_kv, self.norm_mlp = (nn.LayerNorm(width) for _ in range(3))
        self.q, self.k = (nn.Linear(width, inner, bias=False) for _ in range(2))
        self.v = nn.Linear(width, value, bias=False)
        self.out = nn.Linear(value, width, bias=False)
        self.mlp = quiet_mlp(width, hidden)
        with torch.no_grad():
            if copying:
                nn.init.orthogonal_(self.q.weight, COPY_GAIN)
                nn.init.eye_(self.v.weight)
                nn.init.eye_(self.out.weight)
            self.k.weight.copy_(self.q.weight)

    def project(self, slots: Tensor) -> tuple[Tensor, Tensor]:
        """(keys, values) [B, heads, S, inner / heads] of slots [B, S, D], for any question."""
        normal = self.norm_kv(slots)
        return self._split(self.k(normal)), self._split(self.v(normal))

    def _split(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

    def forward(
        self, queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None = None
    ) -> Tensor:
        """[B, T, D]; `keys`, `values` as `project` gives them, batch 1 or B; `bias` [B or 1, S]."""
        asked, mask = self._asked(queries, keys, bias)
        seen = nn.functional.scaled_dot_product_attention(asked, keys, values, attn_mask=mask)
        seen = seen.transpose(1, 2).reshape(*queries.shape[:2], -1)
        queries = queries + self.out(seen)
        updated: Tensor = queries + self.mlp(self.norm_mlp(queries))
        return updated

    def _asked(
        self, queries: Tensor, keys: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """(projected queries [B, heads, T, d], mask that is added to the scores).

        Where all questions share the slots (keys of batch 1), the queries form one long row
        [1, heads, B·T, d], so that the slots need not be copied.
        """
        batch, tokens, _ = queries.shape
        projected = self.q(self.norm_q(queries))
        mask = None if bias is None else bias[:, None, None, :]
        if keys.shape[0] == batch:
            return self._split(projected), mask
        if mask is not None and len(mask) == batch:
            mask = mask.expand(-1, -1, tokens, -1).reshape(1, 1, batch * tokens, -1)
        return self._split(projected.reshape(1, batch * tokens, -1)), mask

    def share(self, queries: Tensor, keys: Tensor, bias: Tensor | None, wanted: Tensor) -> Tensor:
        """Attention [B] on the `wanted` slots, the mean over queries and heads.

        `wanted` is bool: [B, S], or [B, T, S] with a choice for each query.
        """
        asked, mask = self._asked(queries, keys, bias)
        scores = (
            asked @ keys.transpose(2, 3) / asked.shape[-1] ** 0.5
        )  # (B or 1, heads, T or B·T, S)
        shares = torch.softmax(scores if mask is None else scores + mask, -1).mean(1)
        shares = shares.view(*queries.shape[:2], -1)
        shares = shares * (wanted if wanted.dim() == 3 else wanted[:, None, :])
        return shares.sum(-1).mean(1)

    @torch.no_grad()
    def owner_shares(
        self, queries: Tensor, keys: Tensor, bias: Tensor | None, owner: Tensor, owners: int
    ) -> Tensor:
        """Attention [B, owners] on the slots of each owner, the mean over queries and heads.

        `owner` [S] holds numbers from 0 to `owners` - 1. The scores are computed in parts, which
        bounds the memory.
        """
        asked, mask = self._asked(queries, keys, bias)
        depth, (batch, tokens, _) = asked.shape[-1] ** 0.5, queries.shape
        size = max(1, SCORES_AT_ONCE // (self.heads * batch * tokens))
        spans = [slice(at, at + size) for at in range(0, keys.shape[2], size)]

        def scores(span: slice) -> Tensor:
            part: Tensor = asked @ keys[:, :, span].transpose(2, 3) / depth
            return part if mask is None else part + mask[..., span]

        total = torch.stack([scores(span).logsumexp(-1) for span in spans]).logsumexp(0)
        shares = torch.zeros(batch, owners, device=keys.device)
        for span in spans:
            part = (scores(span) - total[..., None]).exp().mean(1)  # (B or 1, T or B·T, S)
            part = part.view(batch, tokens, -1).mean(1)
            shares.index_add_(1, owner[span].to(shares.device), part.float())
        return shares / shares.sum(1, keepdim=True)  # 1 but for the rounding of `total`


def cross_blocks(blocks: nn.ModuleList) -> list[CrossAttention]:
    """The blocks of a list, with their type."""
    return [block for block in blocks if isinstance(block, CrossAttention)]
