"""The elementwise parts of a packed layer and of its gradient, each in one place.

Computed in float32, given back in the dtype of the input. `fuse()` compiles each into one pass over
memory; without it they run as plain PyTorch. Knows tensors only.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from latentbank.errors import InputError

T = TypeVar("T")


def _normalised(x: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    wide = x.float()
    scale = (wide.square().mean(-1, keepdim=True) + epsilon).rsqrt()
    return (wide * scale).to(x.dtype), scale


def _normalised_gradient(gradient: Tensor, normal: Tensor, scale: Tensor) -> Tensor:
    wide, direction = gradient.float(), normal.float()
    share = (wide * direction).mean(-1, keepdim=True)
    return ((wide - direction * share) * scale).to(gradient.dtype)


def _turned(heads: Tensor, cos: Tensor, sin: Tensor, factor: float) -> Tensor:
    half = heads.shape[-1] // 2
    one, two = heads[..., :half].float(), heads[..., half:].float()
    cos, sin = cos.float() * factor, sin.float() * factor
    return torch.cat((one * cos - two * sin, two * cos + one * sin), -1).to(heads.dtype)


def _gated(both: Tensor) -> Tensor:
    gate, up = both.float().chunk(2, -1)
    return (nn.functional.silu(gate) * up).to(both.dtype)


def _gated_gradient(gradient: Tensor, both: Tensor) -> Tensor:
    gate, up = both.float().chunk(2, -1)
    wide = gradient.float()
    opened = torch.sigmoid(gate)
    active = gate * opened
    slope = opened + active * (1 - opened)  # silu'(g) = s + silu(g)·(1 − s)
    return torch.cat((wide * up * slope, wide * active), -1).to(both.dtype)


def _shares(scores: Tensor, mask: Tensor) -> Tensor:
    return torch.softmax(scores.float() + mask, -1).to(scores.dtype)


def _shares_gradient(gradient: Tensor, shares: Tensor) -> Tensor:
    product = gradient.float() * shares.float()
    return (product - shares.float() * product.sum(-1, keepdim=True)).to(gradient.dtype)


def normalised(x: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """(x [N, D] divided by its root mean square, 1 / root mean square [N, 1] in float32)."""
    return _call(_normalised, x, epsilon)


def normalised_gradient(gradient: Tensor, normal: Tensor, scale: Tensor) -> Tensor:
    """The gradient [N, D] of the input of `normalised`."""
    return _call(_normalised_gradient, gradient, normal, scale)


def turned(heads: Tensor, cos: Tensor, sin: Tensor, factor: float = 1.0) -> Tensor:
    """Rotary embedding of heads [N, H, d], times `factor`; with `-sin` its inverse and gradient."""
    return _call(_turned, heads, cos, sin, factor)


def gated(both: Tensor) -> Tensor:
    """silu(gate) · up of [N, 2·F], [N, F]."""
    return _call(_gated, both)


def gated_gradient(gradient: Tensor, both: Tensor) -> Tensor:
    """The gradient [N, 2·F] of the input of `gated`."""
    return _call(_gated_gradient, gradient, both)


def shares(scores: Tensor, mask: Tensor) -> Tensor:
    """softmax(scores + mask) over the last axis; the mask is broadcast."""
    return _call(_shares, scores, mask)


def shares_gradient(gradient: Tensor, shares: Tensor) -> Tensor:
    """The gradient of the scores of `shares`."""
    return _call(_shares_gradient, gradient, shares)


_fused: dict[Callable[..., Any], Callable[..., Any]] = {}


def fuse() -> None:
    """From now on compiles each function at its first call, which takes seconds.

    Raises:
        InputError: no C++ compiler is there.
    """
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        raise InputError("fused steps need a C++ compiler (g++ or clang++); leave out --fused")
    plain = (
        _normalised, _normalised_gradient, _turned, _gated, _gated_gradient, _shares,
        _shares_gradient,
    )  # fmt: skip
    _fused.update({one: torch.compile(one, dynamic=True) for one in plain})


def _call(function: Callable[..., T], *arguments: Any) -> T:
    fused: Callable[..., T] = _fused.get(function, function)
    return fused(*arguments)
