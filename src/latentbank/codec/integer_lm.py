"""A Llama-type model in whole numbers: the same probabilities however it is run.

A text that is coded by a model's probabilities can be decoded only with the very same ones, and
ordinary inference gives others with each batch size, number of threads and library. Here every sum
is one of whole numbers small enough to be exact in its floating-point format, so that its order
does not matter: weights and activations are rounded to 8 bits before each product (largest sum
below 2^24 in float32), queries, keys and values to a fixed grid (below 2^53 in float64). What
remains are single additions, products, divisions and square roots, which IEEE 754 rounds alike;
exponentials and angles come from tables that decimal arithmetic fills. Measured on 10
SQuAD paragraphs the rounding costs 1.4 % more bits than float32.

Knows a backbone's weights; no text, no codec, no bank.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from latentbank.backbone.layers import plain_weights
from latentbank.backbone.model import Backbone
from latentbank.errors import InputError

__all__ = ["CONTEXT", "IntegerCache", "IntegerLM", "integer_lm"]

CONTEXT = 512  # positions that the tables know
_EIGHT_BITS = 127
_SUM_BITS, _WIDE_BITS = 24, 53  # whole numbers up to 2^these are exact in float32, in float64
_NORM_BITS = 19  # of a state before it is squared
_GRID, _REACH = 1 << 10, float((1 << 20) - 1)  # queries, keys, values: steps of 1, and the most
_MASS_BITS = 20  # of the shares that attention gives
_STEPS, _RANGE = 256, 24  # the exponential's table: steps of 1, and where it ends
_GATES, _GATE_RANGE = 512, 20  # the same of the sigmoid's
_ANGLE_BITS = 20
_TINY = 1e-20
_DIGITS = 50


class IntegerLM:
    """The model of a backbone in whole numbers, on the CPU.

    Takes about the backbone's size in float32 beside it. `vocabulary`: number of token ids;
    `context`: tokens that it reads at once.

    Raises InputError unless the backbone is a plain Llama (rotary positions without scaling, SiLU,
    no biases) in float32 or bfloat16.
    """

    def __init__(self, backbone: Backbone) -> None:
        config, geometry = _plain_llama(backbone), backbone.geometry
        self.vocabulary = geometry.vocabulary
        self.context = min(CONTEXT, geometry.max_positions)
        self.layers, self.head_dim = geometry.layers, geometry.head_dim
        self.heads, self.kv_heads = geometry.heads, geometry.kv_heads
        self._epsilon = float(config.rms_norm_eps)
        # The dtype that the backbone was loaded in must not matter.
        weights = {
            name.removeprefix("model."): weight.detach().to("cpu", torch.bfloat16)
            for name, weight in plain_weights(backbone.model)
        }
        self._embedding = weights["embed_tokens.weight"]
        self._norm = weights["norm.weight"].float()
        self._head = _Linear([weights.get("lm_head.weight", self._embedding)])
        self._layers = [_Layer.of(weights, f"layers.{i}.") for i in range(self.layers)]
        theta = float(config.rope_parameters["rope_theta"])
        self._cosine, self._sine = _angles(theta, self.head_dim)

    def cache(self) -> IntegerCache:
        """An empty cache of keys and values, for a new batch of texts."""
        return IntegerCache((self.layers, self.kv_heads, self.head_dim))

    @torch.no_grad()
    def feed(self, ids: Tensor, cache: IntegerCache) -> Tensor:
        """Final states [B, T, width] of the next tokens `ids` [B, T] after what `cache` holds.

        Raises InputError beyond `context` places.
        """
        rows, count = ids.shape
        first, last = cache.length, cache.length + count
        if last > self.context:
            raise InputError(f"the integer model reads {self.context} tokens at once, got {last}")
        places = torch.arange(first, last)
        hidden = torch.arange(last)[None, :] > places[:, None]
        cache.make_room(rows, last)
        states = self._embedding[ids].float()
        for index, layer in enumerate(self._layers):
            normed = self._normalise(states, layer.norm_attention)
            heads = layer.qkv(normed).view(rows, count, -1, self.head_dim).transpose(1, 2)
            query, key, value = torch.split(heads, [self.heads, self.kv_heads, self.kv_heads], 1)
            keys, values = cache.data[:, index, :, :, :last]
            keys[:, :, first:] = _on_grid(self._turn(key, places))
            values[:, :, first:] = _on_grid(value)
            mixed = self._attend(_on_grid(self._turn(query, places)), keys, values, hidden)
            states = states + layer.out(mixed.transpose(1, 2).reshape(rows, count, -1))
            gate, up = layer.gate_up(self._normalise(states, layer.norm_mlp)).chunk(2, -1)
            states = states + layer.down(gate * _sigmoid(gate) * up)
        cache.length = last
        return self._normalise(states, self._norm)

    @torch.no_grad()
    def masses(self, states: Tensor, total: int) -> Tensor:
        """Whole-number masses [N, V] in float64 of the next token after final states [N, width]:
        each at least 1, all of them together at most `total`.
        """
        powers = _powers(self._head(states))
        spare = total - self.vocabulary
        return torch.floor(powers * (spare / powers.sum(-1, keepdim=True))) + 1

    def _normalise(self, states: Tensor, weight: Tensor) -> Tensor:
        """Root-mean-square norm; the squares are summed as whole numbers."""
        top = _top(states)
        whole = torch.round(states * ((1 << _NORM_BITS) / top)).double()
        square = (whole * whole).sum(-1, keepdim=True)
        unit = top.double() / (1 << _NORM_BITS)
        mean = square * (unit * unit) / states.shape[-1]
        return states / torch.sqrt(mean + self._epsilon).float() * weight

    def _turn(self, heads: Tensor, places: Tensor) -> Tensor:
        """Rotary positions for heads [B, H, T, D]."""
        cosine, sine = self._cosine[places], self._sine[places]
        one, other = heads.chunk(2, -1)
        return torch.cat([one * cosine - other * sine, other * cosine + one * sine], -1)

    def _attend(self, query: Tensor, keys: Tensor, values: Tensor, hidden: Tensor) -> Tensor:
        """Mixed values [B, H, T, D]; all arguments on the grid."""
        rows, _, count, width = query.shape
        grouped = query.double().reshape(rows, self.kv_heads, -1, count, width)
        scores = torch.einsum("bgstd,bgld->bgstl", grouped, keys.double()).float()
        scores = scores * (1 / (_GRID * _GRID * math.sqrt(self.head_dim)))
        powers = _powers(scores.masked_fill(hidden, -math.inf))
        shares = torch.floor(powers * ((1 << _MASS_BITS) / powers.sum(-1, keepdim=True)))
        mixed = torch.einsum("bgstl,bgld->bgstd", shares, values.double())
        return mixed.flatten(1, 2).float() * (1 / (_GRID << _MASS_BITS))


class IntegerCache:
    """Keys and values on the grid of a batch of texts, `length` tokens of each."""

    def __init__(self, sizes: tuple[int, int, int]) -> None:
        """`sizes`: layers, kv heads, head width."""
        self._sizes, self.length = sizes, 0
        self.data = torch.zeros(2, sizes[0], 0, sizes[1], 0, sizes[2])

    def make_room(self, rows: int, places: int) -> None:
        """Hold at least so many tokens of each text."""
        held = self.data.shape[4]
        if places <= held and rows == self.data.shape[2]:
            return
        layers, kv_heads, head_dim = self._sizes
        room = min(CONTEXT, max(places, 2 * held))
        data = torch.zeros(2, layers, rows, kv_heads, room, head_dim)
        if self.length:
            data[..., : self.length, :] = self.data[..., : self.length, :]
        self.data = data

    def keep(self, rows: Tensor) -> None:
        """Go on with these texts of the batch only."""
        self.data = self.data[:, :, rows]


class _Linear:
    """A product with weights rounded to 8 bits a number, one scale an output.

    Longer inputs are cut, so that no sum within a product leaves what float32 holds exactly.
    """

    def __init__(self, weights: list[Tensor]) -> None:
        weight = torch.cat(weights).float()
        top = _top(weight)
        self.scale = top[:, 0] / _EIGHT_BITS
        self.longest = (1 << _SUM_BITS) // (_EIGHT_BITS * _EIGHT_BITS)
        whole = torch.round(weight * (_EIGHT_BITS / top))
        self.parts = [part.contiguous() for part in torch.split(whole, self.longest, 1)]

    def __call__(self, states: Tensor) -> Tensor:
        top = _top(states)
        whole = torch.round(states * (_EIGHT_BITS / top))
        pieces = zip(torch.split(whole, self.longest, -1), self.parts, strict=True)
        sums = [torch.nn.functional.linear(piece, part) for piece, part in pieces]
        total = sums[0]
        for part in sums[1:]:
            total = total + part
        return total * (top / _EIGHT_BITS) * self.scale


@dataclass(frozen=True)
class _Layer:
    norm_attention: Tensor
    norm_mlp: Tensor
    qkv: _Linear
    out: _Linear
    gate_up: _Linear
    down: _Linear

    @classmethod
    def of(cls, weights: dict[str, Tensor], prefix: str) -> _Layer:
        def taken(*names: str) -> _Linear:
            return _Linear([weights[f"{prefix}{name}.weight"] for name in names])

        return cls(
            norm_attention=weights[prefix + "input_layernorm.weight"].float(),
            norm_mlp=weights[prefix + "post_attention_layernorm.weight"].float(),
            qkv=taken("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            out=taken("self_attn.o_proj"),
            gate_up=taken("mlp.gate_proj", "mlp.up_proj"),
            down=taken("mlp.down_proj"),
        )


def _top(values: Tensor) -> Tensor:
    return values.abs().amax(-1, keepdim=True).clamp_min(_TINY)


def _on_grid(values: Tensor) -> Tensor:
    return torch.round(values * _GRID).clamp(-_REACH, _REACH)


def _powers(scores: Tensor) -> Tensor:
    """Whole numbers [..., K] in proportion to exp(scores), in float64; a row's largest is 2^30."""
    below = scores.amax(-1, keepdim=True) - scores
    return _exponentials()[torch.round(below * _STEPS).clamp_max(_STEPS * _RANGE).long()]


def _sigmoid(values: Tensor) -> Tensor:
    reach = _GATES * _GATE_RANGE
    return _sigmoids()[(torch.round(values * _GATES).clamp(-reach, reach) + reach).long()]


@lru_cache(maxsize=1)
def _exponentials() -> Tensor:
    """2^30 e^(−i / _STEPS), rounded; the last is 0."""
    values = list(_falling(_STEPS, _STEPS * _RANGE))
    whole = [*(round(value * (1 << 30)) for value in values), 0]
    return torch.tensor(whole, dtype=torch.float64)


@lru_cache(maxsize=1)
def _sigmoids() -> Tensor:
    """1 / (1 + e^(−i / _GATES)) for i from −reach to reach, in steps of 2^−24."""
    with localcontext() as context:
        context.prec = _DIGITS
        above = [1 / (1 + power) for power in _falling(_GATES, _GATES * _GATE_RANGE + 1)]
        whole = [round(value * (1 << 24)) for value in above]
    both = [(1 << 24) - value for value in whole[:0:-1]] + whole
    return torch.tensor(both).float() / (1 << 24)


def _falling(steps: int, count: int) -> Iterator[Decimal]:
    """e^(−i / steps) for i below `count`."""
    with localcontext() as context:
        context.prec = _DIGITS
        factor, value = (Decimal(-1) / steps).exp(), Decimal(1)
        found = []
        for _ in range(count):
            found.append(value)
            value *= factor
    return iter(found)


@lru_cache(maxsize=4)
def _angles(theta: float, head_dim: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines [CONTEXT, D/2] of the rotary positions, in steps of 2^−20."""
    tables: npt.NDArray[np.float64] = np.zeros((2, CONTEXT, head_dim // 2))
    with localcontext() as context:
        context.prec = _DIGITS
        for pair in range(head_dim // 2):
            angle = (-Decimal(theta).ln() * (2 * pair) / head_dim).exp()
            turn = _cosine_sine(angle)
            real, imaginary = Decimal(1), Decimal(0)
            for place in range(CONTEXT):
                tables[:, place, pair] = (
                    round(real * 2**_ANGLE_BITS),
                    round(imaginary * 2**_ANGLE_BITS),
                )
                real, imaginary = (
                    real * turn[0] - imaginary * turn[1],
                    real * turn[1] + imaginary * turn[0],
                )
    cosine, sine = torch.from_numpy(tables / 2**_ANGLE_BITS).float()
    return cosine, sine


def _cosine_sine(angle: Decimal) -> tuple[Decimal, Decimal]:
    """By the power series; for angles up to 1."""
    term, sums = Decimal(1), [Decimal(1), Decimal(0)]
    for power in range(1, 48):
        term = term * angle / power
        sums[power % 2] += -term if power % 4 in (2, 3) else term
    return sums[0], sums[1]


def _plain_llama(backbone: Backbone) -> Any:
    """The configuration of a backbone that this file can compute."""
    config = backbone.model.config
    kind = getattr(config, "model_type", "")
    rope = getattr(config, "rope_parameters", None) or {}
    reasons = [
        (kind != "llama", f"it is a {kind} model"),
        (rope.get("rope_type", "default") != "default", "its rotary positions are scaled"),
        (getattr(config, "hidden_act", "silu") != "silu", "its activation is not SiLU"),
        (getattr(config, "attention_bias", False), "its attention has biases"),
        (getattr(config, "mlp_bias", False), "its layers have biases"),
        (backbone.geometry.head_dim % 2 == 1, "its heads have an odd width"),
        (backbone.dtype == torch.float16, "it was loaded in float16, which changes its weights"),
        (
            CONTEXT * (_REACH + 1) * (1 << _MASS_BITS) > 2**_WIDE_BITS
            or backbone.geometry.head_dim * (_REACH + 1) ** 2 > 2**_WIDE_BITS
            or backbone.geometry.width * 4**_NORM_BITS > 2**_WIDE_BITS,
            "it is too wide",
        ),
    ]
    for wrong, reason in reasons:
        if wrong:
            raise InputError(
                f"the lm codec computes plain Llama models, and {backbone.name} is none: {reason}; "
                "use packed or verbatim texts"
            )
    return config


_MODELS: weakref.WeakKeyDictionary[Backbone, IntegerLM] = weakref.WeakKeyDictionary()


def integer_lm(backbone: Backbone) -> IntegerLM:
    """The backbone's model in whole numbers, made once (about a second for 135 M weights)."""
    if backbone not in _MODELS:
        _MODELS[backbone] = IntegerLM(backbone)
    return _MODELS[backbone]
