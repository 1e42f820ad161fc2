"""A Llama-type model in whole numbers: the same probabilities however it is run.

A text that is coded by a model's probabilities can be decoded only with exactly the same ones. But
ordinary inference gives slightly different ones for each batch size, number of threads and library.
Here every sum is a sum of whole numbers that its floating-point format holds exactly, so its order
does not matter. Weights and activations are rounded to 8 bits before each product; sums stay below
2^24 in float32. Queries, keys and values are rounded to a fixed grid; sums stay below 2^53 in
float64. Single additions, products, divisions and square roots are rounded by IEEE 754 everywhere
alike. Exponentials and angles come from `exact_tables`. On 10 SQuAD paragraphs the rounding costs
1.4 % more bits than float32. Where numba is installed, single tokens of a few texts take the
compiled way of `steps`, which gives the same numbers.

Knows a backbone's weights; knows no text, no codec and no bank.
"""

from __future__ import annotations

import functools
import math
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from latentbank.backbone.layers import plain_weights
from latentbank.backbone.model import Backbone
from latentbank.codec.predicted.exact_tables import (
    CONTEXT,
    GATE_RANGE,
    GATES,
    RANGE,
    STEPS,
    angles,
    exponentials,
    sigmoids,
)
from latentbank.errors import InputError

if TYPE_CHECKING:
    from latentbank.codec.predicted.steps import Steps

__all__ = ["CONTEXT", "IntegerCache", "IntegerLM", "integer_lm"]

_EIGHT_BITS = 127
_SUM_BITS, _WIDE_BITS = 24, 53  # whole numbers up to 2^24 are exact in float32, 2^53 in float64
_NORM_BITS = 19  # bits of a state before it is squared
_GRID, _REACH = 1 << 10, float((1 << 20) - 1)  # queries, keys, values: steps per 1, largest number
_MASS_BITS = 20  # bits of an attention share
_LONGEST = (1 << _SUM_BITS) // (_EIGHT_BITS * _EIGHT_BITS)  # products in one sum
_TINY = 1e-20
_NORMS = ("input_layernorm", "post_attention_layernorm")
_PRODUCTS = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ("self_attn.o_proj",),
    ("mlp.gate_proj", "mlp.up_proj"),
    ("mlp.down_proj",),
)
_COMPILED_ROWS = 32  # texts side by side up to which the compiled loops are faster


class IntegerLM:
    """The model of a backbone in whole numbers, on the CPU.

    Takes a byte for each weight, besides the backbone, and four more from the first call on that
    reads many tokens together. `vocabulary` is the number of token ids; `context` is the number of
    tokens that it reads at most.

    Raises:
        InputError: the backbone is not a plain Llama (rotary positions without scaling, SiLU, no
            biases) in float32 or bfloat16.
    """

    def __init__(self, backbone: Backbone) -> None:
        config, geometry = _plain_llama(backbone), backbone.geometry
        self.vocabulary = geometry.vocabulary
        self.context = min(CONTEXT, geometry.max_positions)
        self.layers, self.head_dim = geometry.layers, geometry.head_dim
        self.heads, self.kv_heads = geometry.heads, geometry.kv_heads
        self._epsilon = float(config.rms_norm_eps)
        # bfloat16 first, so that the dtype in which the backbone was loaded does not matter.
        weights = {
            name.removeprefix("model."): weight.detach().to("cpu", torch.bfloat16)
            for name, weight in plain_weights(backbone.model)
        }
        self._embedding = weights["embed_tokens.weight"]
        self._norm = weights["norm.weight"].float()
        self._head = _Linear(*_eight_bits(weights.get("lm_head.weight", self._embedding)))

        def of_layers(name: str) -> list[Tensor]:
            return [weights[f"layers.{i}.{name}.weight"] for i in range(self.layers)]

        self._norms = [torch.stack(of_layers(name)).float() for name in _NORMS]
        self._products = []  # weights [L, N, K] and scales [L, N] of each kind; layers are views
        for names in _PRODUCTS:
            layers = zip(*(of_layers(name) for name in names), strict=True)
            whole, scale = zip(*(_eight_bits(torch.cat(parts)) for parts in layers), strict=True)
            self._products.append((torch.stack(whole), torch.stack(scale)))
        self._layers = [self._layer(i) for i in range(self.layers)]
        theta = float(config.rope_parameters["rope_theta"])
        self._cosine, self._sine = angles(theta, self.head_dim)

    def _layer(self, number: int) -> _Layer:
        attention, mlp = (norm[number] for norm in self._norms)
        qkv, out, gate_up, down = (
            _Linear(whole[number], scale[number]) for whole, scale in self._products
        )
        return _Layer(attention, mlp, qkv, out, gate_up, down)

    def cache(self) -> IntegerCache:
        """An empty cache of keys and values, for a new batch of texts."""
        return IntegerCache((self.layers, self.kv_heads, self.head_dim))

    @torch.no_grad()
    def feed(self, ids: Tensor, cache: IntegerCache) -> Tensor:
        """Final states [B, T, width] of the next tokens `ids` [B, T] after what `cache` holds.

        Raises InputError beyond `context` tokens.
        """
        rows, count = ids.shape
        first, last = cache.length, cache.length + count
        if last > self.context:
            raise InputError(f"the integer model reads at most {self.context} tokens, got {last}")
        cache.make_room(rows, last)
        if count == 1 and (compiled := self._compiled(rows)) is not None:
            cache.length = last
            return compiled.feed(self._embedding[ids[:, 0]].float(), cache.data, first)[:, None]
        places = torch.arange(first, last)
        hidden = torch.arange(last)[None, :] > places[:, None]
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
        """Masses [N, V] of the next token after final states [N, width].

        They are whole numbers in float64, each at least 1, with a sum of at most `total`.
        """
        if (compiled := self._compiled(len(states))) is not None:
            return compiled.masses(states, total)
        powers = _powers(self._head(states))
        spare = total - self.vocabulary
        return torch.floor(powers * (spare / powers.sum(-1, keepdim=True))) + 1

    def _compiled(self, rows: int) -> Steps | None:
        """The compiled loops, where they are installed and the sooner way for so many texts."""
        return self._steps if rows <= _COMPILED_ROWS else None

    @functools.cached_property
    def _steps(self) -> Steps | None:
        try:
            from latentbank.codec.predicted.steps import Sizes, Steps, Tables, Weights
        except ImportError:  # numba is not installed
            return None

        products = [tensor.numpy() for pair in self._products for tensor in pair]
        norms = [tensor.numpy() for tensor in (*self._norms, self._norm)]
        tables = exponentials(), sigmoids(), self._cosine, self._sine
        return Steps(
            Weights(*products, *norms),
            (self._head.whole.numpy(), self._head.scale.numpy()),
            Tables(*(table.numpy() for table in tables)),
            Sizes(
                heads=self.heads,
                longest=_LONGEST,
                norm_bits=_NORM_BITS,
                grid=_GRID,
                reach=_REACH,
                mass_bits=_MASS_BITS,
                steps=STEPS,
                gates=GATES,
                epsilon=self._epsilon,
            ),
        )

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
        """Attention's mixed values [B, H, T, D]; query, keys and values are on the grid."""
        rows, _, count, width = query.shape
        grouped = query.double().reshape(rows, self.kv_heads, -1, count, width)
        scores = torch.einsum("bgstd,bgld->bgstl", grouped, keys.double()).float()
        scores = scores * (1 / (_GRID * _GRID * math.sqrt(self.head_dim)))
        powers = _powers(scores.masked_fill(hidden, -math.inf))
        shares = torch.floor(powers * ((1 << _MASS_BITS) / powers.sum(-1, keepdim=True)))
        mixed = torch.einsum("bgstl,bgld->bgstd", shares, values.double())
        return mixed.flatten(1, 2).float() * (1 / (_GRID << _MASS_BITS))


class IntegerCache:
    """Keys and values of a batch of texts, on the grid; `length` tokens of each text."""

    def __init__(self, sizes: tuple[int, int, int]) -> None:
        """`sizes`: layers, key/value heads, head width."""
        self._sizes, self.length = sizes, 0
        self.data = torch.zeros(2, sizes[0], 0, sizes[1], 0, sizes[2])

    def make_room(self, rows: int, places: int) -> None:
        """Grows to hold at least `places` tokens of each of `rows` texts."""
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
        """Drops all other texts of the batch."""
        self.data = self.data[:, :, rows]


class _Linear:
    """A product with weights of 8 bits [N, K] and one scale [N] for each output.

    Long inputs are split into parts, so that float32 holds every sum exactly.
    """

    def __init__(self, whole: Tensor, scale: Tensor) -> None:
        self.whole, self.scale = whole, scale

    @functools.cached_property
    def _parts(self) -> list[Tensor]:
        return [part.float() for part in torch.split(self.whole, _LONGEST, 1)]

    def __call__(self, states: Tensor) -> Tensor:
        top = _top(states)
        whole = torch.round(states * (_EIGHT_BITS / top))
        pieces = zip(torch.split(whole, _LONGEST, -1), self._parts, strict=True)
        sums = [torch.nn.functional.linear(piece, part) for piece, part in pieces]
        total = sums[0]
        for part in sums[1:]:
            total = total + part
        return total * (top / _EIGHT_BITS) * self.scale


@dataclass(frozen=True)
class _Layer:
    """The weights of one decoder layer."""

    norm_attention: Tensor
    norm_mlp: Tensor
    qkv: _Linear
    out: _Linear
    gate_up: _Linear
    down: _Linear


def _eight_bits(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(weights [N, K] as whole numbers of 8 bits, scales [N])."""
    top = _top(weight.float())
    whole = torch.round(weight.float() * (_EIGHT_BITS / top)).to(torch.int8)
    return whole, top[:, 0] / _EIGHT_BITS


def _top(values: Tensor) -> Tensor:
    """Largest magnitude [..., 1], at least `_TINY`."""
    return values.abs().amax(-1, keepdim=True).clamp_min(_TINY)


def _on_grid(values: Tensor) -> Tensor:
    """Values rounded to whole steps of the grid."""
    return torch.round(values * _GRID).clamp(-_REACH, _REACH)


def _powers(scores: Tensor) -> Tensor:
    """Whole numbers [..., K] proportional to exp(scores), in float64; the largest is 2^30."""
    below = scores.amax(-1, keepdim=True) - scores
    return exponentials()[torch.round(below * STEPS).clamp_max(STEPS * RANGE).long()]


def _sigmoid(values: Tensor) -> Tensor:
    reach = GATES * GATE_RANGE
    return sigmoids()[(torch.round(values * GATES).clamp(-reach, reach) + reach).long()]


def _plain_llama(backbone: Backbone) -> Any:
    """The configuration of a backbone. Raises InputError where this file cannot compute it."""
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
                f"the lm codec needs a plain Llama model, and {backbone.name} is none: {reason}; "
                "use packed or verbatim texts"
            )
    return config


_MODELS: weakref.WeakKeyDictionary[Backbone, IntegerLM] = weakref.WeakKeyDictionary()


def integer_lm(backbone: Backbone) -> IntegerLM:
    """The backbone's integer model; made once, which takes about a second for 135 M weights."""
    if backbone not in _MODELS:
        _MODELS[backbone] = IntegerLM(backbone)
    return _MODELS[backbone]
