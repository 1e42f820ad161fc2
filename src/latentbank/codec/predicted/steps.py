"""One token of a model in whole numbers, compiled: the same numbers as `IntegerLM`, sooner.

A text is decoded token by token, and then reading the weights is what takes the time. Here they
are read as 8 bits instead of 32, and a token passes through all layers in one call. numba (the
extra `lm`) compiles the loops once and keeps the machine code. Every rounding happens where torch
rounds; sums of whole numbers may be taken in any order. Knows arrays; knows no model and no text.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from numba import njit
from torch import Tensor

__all__ = ["Sizes", "Steps", "Tables", "Weights"]

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.int8]

_Function = TypeVar("_Function", bound=Callable[..., Any])
_TINY = np.float32(1e-20)
_127 = np.float32(127)
_MOST_THREADS = 8


class Weights(NamedTuple):
    """Weights of L layers: whole numbers of 8 bits [L, out, in], and a scale [L, out] for each."""

    qkv: Bytes
    qkv_scale: Floats
    out: Bytes
    out_scale: Floats
    gate_up: Bytes
    gate_up_scale: Floats
    down: Bytes
    down_scale: Floats
    norm_attention: Floats
    norm_mlp: Floats
    norm: Floats


class Tables(NamedTuple):
    """See `exact_tables`."""

    exponentials: Doubles
    sigmoids: Floats
    cosine: Floats
    sine: Floats


class Sizes(NamedTuple):
    """What the arithmetic of `IntegerLM` is set to."""

    heads: int
    longest: int  # inputs whose sum float32 holds exactly
    norm_bits: int
    grid: int
    reach: float
    mass_bits: int
    steps: int  # of the exponentials
    gates: int  # of the sigmoids
    epsilon: float


def _compiled(**options: Any) -> Callable[[_Function], _Function]:
    """A decorator: numba compiles the function at its first call and keeps what it made."""

    def made(function: _Function) -> _Function:
        try:
            found: _Function = njit(nogil=True, cache=True, **options)(function)
        except RuntimeError:  # there is no folder that may be written
            found = njit(nogil=True, **options)(function)
        return found

    return made


@_compiled()
def _product(
    weight: Bytes, scale: Floats, states: Floats, whole: Bytes, longest: int, out: Floats
) -> None:
    """out [B, N] = states [B, K] rounded to 8 bits, times weight [N, K]; `whole` [B, ≥ K] is room.

    Parts of `longest` inputs are summed as whole numbers, the parts in float32.
    """
    rows, width = states.shape
    tops = np.empty(rows, np.float32)
    for row in range(rows):
        top = _TINY
        for at in range(width):
            top = max(top, abs(states[row, at]))
        factor = np.float32(np.float32(1) / top) * _127
        for at in range(width):
            whole[row, at] = np.int8(np.rint(states[row, at] * factor))
        tops[row] = top / _127
    for number in range(weight.shape[0]):
        for row in range(rows):
            total = np.float32(0)
            for begin in range(0, width, longest):
                line = weight[number, begin : min(begin + longest, width)]
                given = whole[row, begin : min(begin + longest, width)]
                part = np.int32(0)
                for at in range(line.shape[0]):  # cast, or numba takes 64 bits, and half the lanes
                    one = np.int32(np.int32(line[at]) * np.int32(given[at]))
                    part = np.int32(part + one)
                total = total + np.float32(part)
            out[row, number] = total * tops[row] * scale[number]


@_compiled()
def _normalise(states: Floats, weight: Floats, bits: int, epsilon: float, out: Floats) -> None:
    """Root-mean-square norm of states [B, W]."""
    rows, width = states.shape
    for row in range(rows):
        top = _TINY
        for at in range(width):
            top = max(top, abs(states[row, at]))
        factor = np.float32(np.float32(1) / top) * np.float32(1 << bits)
        square = np.int64(0)
        for at in range(width):
            one = np.int64(np.rint(states[row, at] * factor))
            square += one * one
        unit = np.float64(top) / (1 << bits)
        mean = np.float64(square) * (unit * unit) / width
        root = np.float32(np.sqrt(mean + epsilon))
        for at in range(width):
            out[row, at] = states[row, at] / root * weight[at]


@_compiled(fastmath={"reassoc"})
def _dot(one: Floats, other: Floats) -> float:
    """The sum of products of whole numbers, exact in any order."""
    total = 0.0
    for at in range(one.shape[0]):
        total += np.float64(one[at]) * np.float64(other[at])
    return total


@_compiled()
def _turned(head: Floats, cosine: Floats, sine: Floats, sizes: Sizes, out: Floats) -> None:
    """A head [D] at its rotary position, on the grid."""
    half = head.shape[0] // 2
    grid, reach = np.float32(sizes.grid), np.float32(sizes.reach)
    for at in range(half):
        one, other = head[at], head[half + at]
        left = np.float32(one * cosine[at]) - np.float32(other * sine[at])
        right = np.float32(other * cosine[at]) + np.float32(one * sine[at])
        out[at] = min(max(np.rint(left * grid), -reach), reach)
        out[half + at] = min(max(np.rint(right * grid), -reach), reach)


@_compiled()
def _attend(
    query: Floats, keys: Floats, values: Floats, powers: Doubles, tables: Tables, sizes: Sizes,
    out: Floats,
) -> None:  # fmt: skip
    """Mixed values of one head: query [D], keys and values [T, D], `powers` [≥ T] is room."""
    count, width = keys.shape
    factor = np.float32(1 / (sizes.grid * sizes.grid * np.sqrt(width)))
    steps, last = np.float32(sizes.steps), tables.exponentials.shape[0] - 1
    scores = np.empty(count, np.float32)
    top = np.float32(-np.inf)
    for at in range(count):
        scores[at] = np.float32(_dot(query, keys[at])) * factor
        top = max(top, scores[at])
    total = 0.0
    for at in range(count):
        below = np.rint((top - scores[at]) * steps)
        powers[at] = tables.exponentials[min(np.int64(below), last)]
        total += powers[at]
    share = (1 / total) * (1 << sizes.mass_bits)
    mixed = np.zeros(width)
    for at in range(count):
        part = np.floor(powers[at] * share)
        for place in range(width):
            mixed[place] += part * np.float64(values[at, place])
    unit = np.float32(1 / (sizes.grid << sizes.mass_bits))
    for place in range(width):
        out[place] = np.float32(mixed[place]) * unit


@_compiled()
def _run(
    states: Floats,
    cache: Floats,
    first: int,
    place: int,
    weights: Weights,
    tables: Tables,
    sizes: Sizes,
) -> Floats:
    """Final states [B, W] of the tokens at `place`, given their embeddings `states` [B, W].

    `cache` [2, L, ≥ B, kv heads, room, D] holds keys and values of the tokens before, and gets
    those of these; the texts are its rows from `first` on.
    """
    rows, width = states.shape
    kv_heads, dim = cache.shape[3], cache.shape[5]
    group, inner = sizes.heads // kv_heads, weights.gate_up.shape[1] // 2
    states = states.copy()
    normed, added = np.empty((rows, width), np.float32), np.empty((rows, width), np.float32)
    heads = np.empty((rows, weights.qkv.shape[1]), np.float32)
    mixed = np.empty((rows, sizes.heads * dim), np.float32)
    both = np.empty((rows, 2 * inner), np.float32)
    opened = np.empty((rows, inner), np.float32)
    whole = np.empty((rows, max(width, inner, sizes.heads * dim)), np.int8)
    query, powers = np.empty(dim, np.float32), np.empty(place + 1)
    gates, reach = np.float32(sizes.gates), np.float32(tables.sigmoids.shape[0] // 2)
    grid, most = np.float32(sizes.grid), np.float32(sizes.reach)
    cosine, sine = tables.cosine[place], tables.sine[place]
    for layer in range(weights.qkv.shape[0]):
        _normalise(states, weights.norm_attention[layer], sizes.norm_bits, sizes.epsilon, normed)
        _product(weights.qkv[layer], weights.qkv_scale[layer], normed, whole, sizes.longest, heads)
        for row in range(rows):
            for number in range(kv_heads):
                begin = (sizes.heads + number) * dim
                kept = cache[0, layer, first + row, number]
                _turned(heads[row, begin : begin + dim], cosine, sine, sizes, kept[place])
                begin += kv_heads * dim
                value = cache[1, layer, first + row, number, place]
                for at in range(dim):
                    value[at] = min(max(np.rint(heads[row, begin + at] * grid), -most), most)
            for number in range(sizes.heads):
                begin = number * dim
                _turned(heads[row, begin : begin + dim], cosine, sine, sizes, query)
                _attend(
                    query,
                    cache[0, layer, first + row, number // group, : place + 1],
                    cache[1, layer, first + row, number // group, : place + 1],
                    powers, tables, sizes, mixed[row, begin : begin + dim],
                )  # fmt: skip
        _product(weights.out[layer], weights.out_scale[layer], mixed, whole, sizes.longest, added)
        for row in range(rows):
            for at in range(width):
                states[row, at] += added[row, at]
        _normalise(states, weights.norm_mlp[layer], sizes.norm_bits, sizes.epsilon, normed)
        _product(
            weights.gate_up[layer], weights.gate_up_scale[layer], normed, whole, sizes.longest,
            both,
        )  # fmt: skip
        for row in range(rows):
            for at in range(inner):
                gate = both[row, at]
                step = min(max(np.rint(gate * gates), -reach), reach) + reach
                shut = np.float32(gate * tables.sigmoids[np.int64(step)])
                opened[row, at] = shut * both[row, inner + at]
        _product(
            weights.down[layer], weights.down_scale[layer], opened, whole, sizes.longest, added
        )
        for row in range(rows):
            for at in range(width):
                states[row, at] += added[row, at]
    _normalise(states, weights.norm, sizes.norm_bits, sizes.epsilon, normed)
    return normed


@_compiled()
def _spread(
    states: Floats, head: Bytes, scale: Floats, tables: Tables, sizes: Sizes, total: int
) -> Doubles:
    """Masses [B, V] of the next token after final states [B, W]; see `IntegerLM.masses`."""
    rows, vocabulary = states.shape[0], head.shape[0]
    scores = np.empty((rows, vocabulary), np.float32)
    whole = np.empty(states.shape, np.int8)
    _product(head, scale, states, whole, sizes.longest, scores)
    masses = np.empty((rows, vocabulary))
    steps, last = np.float32(sizes.steps), tables.exponentials.shape[0] - 1
    spare = total - vocabulary
    for row in range(rows):
        top = scores[row, 0]
        for at in range(vocabulary):
            top = max(top, scores[row, at])
        powers = 0.0
        for at in range(vocabulary):
            below = np.rint((top - scores[row, at]) * steps)
            masses[row, at] = tables.exponentials[min(np.int64(below), last)]
            powers += masses[row, at]
        factor = (1 / powers) * spare
        for at in range(vocabulary):
            masses[row, at] = np.floor(masses[row, at] * factor) + 1
    return masses


class Steps:
    """The compiled loops over the weights of one model; several texts share the threads."""

    def __init__(
        self, weights: Weights, head: tuple[Bytes, Floats], tables: Tables, sizes: Sizes
    ) -> None:
        """`head`: weights [V, W] as whole numbers, and their scales [V]."""
        self._weights, self._head, self._tables, self._sizes = weights, head, tables, sizes

    @functools.cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(_MOST_THREADS, "latentbank-steps")

    def _shared(self, work: Callable[[int, int], Any], rows: int) -> Tensor:
        """What `work(first, end)` gives for all rows, as one tensor."""
        parts = max(1, min(rows, torch.get_num_threads(), _MOST_THREADS))
        ends = [rows * part // parts for part in range(parts + 1)]
        if parts == 1:
            return torch.from_numpy(work(0, rows))
        found = list(self._threads.map(work, ends, ends[1:]))
        return torch.from_numpy(np.concatenate(found))

    def feed(self, states: Tensor, cache: Tensor, place: int) -> Tensor:
        """Final states [B, W] of tokens at `place` with embeddings `states`; see `_run`."""
        rows, held = states.contiguous().numpy(), cache.numpy()
        weights, tables, sizes = self._weights, self._tables, self._sizes
        return self._shared(
            lambda at, to: _run(rows[at:to], held, at, place, weights, tables, sizes), len(rows)
        )

    def masses(self, states: Tensor, total: int) -> Tensor:
        """See `IntegerLM.masses`."""
        rows, (head, scale) = states.contiguous().numpy(), self._head
        return self._shared(
            lambda at, to: _spread(rows[at:to], head, scale, self._tables, self._sizes, total),
            len(rows),
        )
