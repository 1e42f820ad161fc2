"""One decoder layer over packed tokens as one differentiable step, and its own gradient.

Knows tensors, a layer's frozen weights and buckets of tokens; knows no backbone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latentbank.backbone.packed import elementwise as ew
from latentbank.backbone.packed.layout import Bucket


@dataclass(frozen=True)
class FrozenLayer:
    """One layer's weights; those of the norms are multiplied into the projections after them."""

    qkv: Tensor  # (heads·d + 2·kv_heads·d, D)
    out: Tensor  # (D, heads·d)
    gate_up: Tensor  # (2·F, D)
    down: Tensor  # (D, F)
    norm: Tensor  # (D,), norm before the attention; the low-rank updates need it
    epsilon: float


def _gathered(heads: Tensor, bucket: Bucket, groups: int) -> Tensor:
    """Heads [N, H, d] of a bucket's tokens as [G·groups, (H / groups)·n, d]."""
    rows = bucket.take(heads)  # (G, n, H, d)
    count, n, total, depth = rows.shape
    split = rows.view(count, n, groups, total // groups, depth).permute(0, 2, 3, 1, 4)
    return split.reshape(count * groups, -1, depth)


def _scattered(rows: Tensor, bucket: Bucket, groups: int, into: Tensor) -> None:
    """The inverse of `_gathered`, written into the bucket's tokens of `into` [N, H, d]."""
    count, n = bucket.shape
    depth = rows.shape[-1]
    whole = rows.view(count, groups, -1, n, depth).permute(0, 3, 1, 2, 4)
    bucket.put(whole.reshape(count, n, -1, depth), into)


def _shares(query: Tensor, key: Tensor, bucket: Bucket, groups: int) -> Tensor:
    """Attention [G·groups, h·n, n] of a bucket; `query` is scaled already."""
    count, n = bucket.shape
    scores = torch.bmm(query, key.transpose(1, 2)).view(count, groups, -1, n, n)
    return ew.shares(scores, bucket.mask[:, None, None]).view(count * groups, -1, n)


def _projected(
    normal: Tensor, weight: Tensor, a_qkv: Tensor | None, b_qkv: Tensor | None, dropout: float
) -> tuple[Tensor, Tensor, Tensor | None]:
    """(projections [N, qkv], the weight that made them, dropout's mask [N, D] or None)."""
    if a_qkv is None or b_qkv is None:
        return normal @ weight.T, weight, None
    a, b = a_qkv.to(normal.dtype), b_qkv.to(normal.dtype)
    if not dropout:
        weight = torch.addmm(weight, b, a)
        return normal @ weight.T, weight, None
    kept = torch.empty_like(normal).bernoulli_(1 - dropout).div_(1 - dropout)
    return (normal @ weight.T).addmm_((normal * kept) @ a.T, b.T), weight, kept


class LayerStep(torch.autograd.Function):
    """One decoder layer over packed tokens: pre-norm attention and a gated MLP (Llama).

    The low-rank updates are added to the weights once per call, so they cost nothing per token in
    the forward pass. Their gradients use the low-rank form. The frozen weights get no gradients.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        a_qkv: Tensor | None,
        b_qkv: Tensor | None,
        a_out: Tensor | None,
        b_out: Tensor | None,
        arguments: Any,
    ) -> Tensor:
        """States after the layer, of all tokens or of the `wanted` ones.

        `arguments`: the `FrozenLayer`, (cosine, sine), buckets, geometry, wanted tokens, dropout.
        """
        layer, rotary, buckets, g, wanted, dropout = arguments
        normal, scale = ew.normalised(x, layer.epsilon)
        qkv, w_qkv, kept = _projected(normal, layer.qkv, a_qkv, b_qkv, dropout)
        query, key, value = _split_heads(qkv, g)
        cos, sin = rotary
        query = ew.turned(query, cos, sin, g.head_dim**-0.5)
        key, value = ew.turned(key, cos, sin), value.contiguous()
        seen = torch.empty_like(query)
        shares = []
        for bucket in buckets:
            asked = _gathered(query, bucket, g.kv_heads)
            keys, values = (_gathered(one, bucket, g.kv_heads) for one in (key, value))
            share = _shares(asked, keys, bucket, g.kv_heads)
            shares.append(share)
            _scattered(torch.bmm(share, values), bucket, g.kv_heads, seen)
        read = seen.flatten(1)
        w_out = layer.out
        if a_out is not None and b_out is not None:
            w_out = torch.addmm(w_out, b_out.to(x.dtype), a_out.to(x.dtype))
        chosen_x, chosen_read = (x, read) if wanted is None else (x[wanted], read[wanted])
        y = torch.addmm(chosen_x, chosen_read, w_out.T)
        inner, inner_scale = ew.normalised(y, layer.epsilon)
        both = inner @ layer.gate_up.T
        result = torch.addmm(y, ew.gated(both), layer.down.T)
        if any(ctx.needs_input_grad):
            ctx.arguments, ctx.weights = arguments, (w_qkv, w_out)
            ctx.save_for_backward(
                normal, scale, kept, query, key, value, chosen_read, inner, inner_scale, both,
                a_qkv, b_qkv, a_out, b_out, *shares,
            )  # fmt: skip
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """Gradients of the states and of the four low-rank matrices."""
        layer, rotary, buckets, g, wanted, _ = ctx.arguments
        w_qkv, w_out = ctx.weights
        (normal, scale, kept, query, key, value, read, inner, inner_scale, both,
         a_qkv, b_qkv, a_out, b_out, *shares) = ctx.saved_tensors  # fmt: skip
        d_y = _mlp_gradient(gradient, layer, inner, inner_scale, both).add_(gradient)
        d_a_out = d_b_out = None
        if a_out is not None:
            d_b_out = d_y.T @ (read @ a_out.T.to(read.dtype))
            d_a_out = (d_y @ b_out.to(d_y.dtype)).T @ read
        d_read = d_y @ w_out
        if wanted is not None:
            d_read = d_read.new_zeros(len(normal), d_read.shape[1]).index_copy_(0, wanted, d_read)
        d_seen = d_read.view(len(normal), g.heads, g.head_dim)
        d_qkv = _attention_gradient(d_seen, query, key, value, shares, buckets, rotary, g)
        d_a_qkv = d_b_qkv = None
        if a_qkv is not None:
            used = normal if kept is None else normal * kept
            d_b_qkv = d_qkv.T @ (used @ a_qkv.T.to(used.dtype))
            inward = d_qkv @ b_qkv.to(d_qkv.dtype)
            d_a_qkv = inward.T @ used
        d_x = None
        if ctx.needs_input_grad[0]:
            d_normal = d_qkv @ w_qkv
            if kept is not None:
                d_normal += (inward @ a_qkv.to(inward.dtype)).mul_(kept)
            d_x = ew.normalised_gradient(d_normal, normal, scale)
            if wanted is None:
                d_x += d_y
            else:
                d_x.index_add_(0, wanted, d_y)
        return d_x, d_a_qkv, d_b_qkv, d_a_out, d_b_out, None


def _split_heads(qkv: Tensor, g: Any) -> tuple[Tensor, Tensor, Tensor]:
    """(query [N, H, d], key and value [N, H_kv, d]) as views of [N, (H + 2·H_kv)·d]."""
    heads = qkv.view(len(qkv), -1, g.head_dim)
    key, value = heads[:, g.heads : g.heads + g.kv_heads], heads[:, g.heads + g.kv_heads :]
    return heads[:, : g.heads], key, value


def _mlp_gradient(
    gradient: Tensor, layer: FrozenLayer, inner: Tensor, scale: Tensor, both: Tensor
) -> Tensor:
    """The gradient through the gated MLP and its norm, without the skip connection."""
    d_both = ew.gated_gradient(gradient @ layer.down, both)
    return ew.normalised_gradient(d_both @ layer.gate_up, inner, scale)


def _attention_gradient(
    d_seen: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    shares: Sequence[Tensor],
    buckets: Sequence[Bucket],
    rotary: tuple[Tensor, Tensor],
    g: Any,
) -> Tensor:
    """The gradient [N, (H + 2·H_kv)·d] of the projections; `d_seen` is that of the mixed values."""
    tokens = len(query)
    d_query, d_key = torch.empty_like(query), torch.empty_like(key)
    d_qkv = query.new_empty(tokens, g.heads + 2 * g.kv_heads, g.head_dim)
    d_value = d_qkv[:, g.heads + g.kv_heads :]
    for bucket, share in zip(buckets, shares, strict=True):
        d_out = _gathered(d_seen, bucket, g.kv_heads)
        asked = _gathered(query, bucket, g.kv_heads)
        keys, values = (_gathered(one, bucket, g.kv_heads) for one in (key, value))
        _scattered(torch.bmm(share.transpose(1, 2), d_out), bucket, g.kv_heads, d_value)
        d_scores = ew.shares_gradient(torch.bmm(d_out, values.transpose(1, 2)), share)
        _scattered(torch.bmm(d_scores, keys), bucket, g.kv_heads, d_query)
        _scattered(torch.bmm(d_scores.transpose(1, 2), asked), bucket, g.kv_heads, d_key)
    cos, sin = rotary
    d_qkv[:, : g.heads] = ew.turned(d_query, cos, -sin, g.head_dim**-0.5)
    d_qkv[:, g.heads : g.heads + g.kv_heads] = ew.turned(d_key, cos, -sin)
    return d_qkv.view(tokens, -1)
