"""The hand-written gradients of packed layers' elementwise parts, and their compiled forms."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from latentbank.backbone.packed import elementwise as ew
from latentbank.errors import InputError


def autograd(function: Callable[[Tensor], Tensor], x: Tensor, gradient: Tensor) -> Tensor:
    """The gradient of `x` by PyTorch."""
    x = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(function(x), x, gradient)
    return found


def test_gradient_of_the_norm() -> None:
    torch.manual_seed(0)
    x, gradient = torch.randn(5, 8), torch.randn(5, 8)
    normal, scale = ew.normalised(x, 1e-5)
    wanted = autograd(lambda x: ew.normalised(x, 1e-5)[0], x, gradient)
    torch.testing.assert_close(ew.normalised_gradient(gradient, normal, scale), wanted)


def test_gradient_of_the_gate() -> None:
    torch.manual_seed(0)
    both, gradient = torch.randn(5, 16), torch.randn(5, 8)
    torch.testing.assert_close(
        ew.gated_gradient(gradient, both), autograd(ew.gated, both, gradient)
    )


def test_gradient_of_attention() -> None:
    torch.manual_seed(0)
    scores, mask, gradient = (
        torch.randn(2, 3, 4, 4),
        torch.zeros(1, 1, 4, 4),
        torch.randn(2, 3, 4, 4),
    )
    mask[..., 2:] = torch.finfo(torch.float32).min
    shares = ew.shares(scores, mask)
    assert shares[..., 2:].abs().max() == 0
    wanted = autograd(lambda scores: ew.shares(scores, mask), scores, gradient)
    torch.testing.assert_close(ew.shares_gradient(gradient, shares), wanted)


def test_turning_back() -> None:
    torch.manual_seed(0)
    heads, angle = torch.randn(5, 3, 8), torch.rand(5, 1, 4)
    turned = ew.turned(heads, angle.cos(), angle.sin(), 2.0)
    back = ew.turned(turned, angle.cos(), -angle.sin(), 0.5)
    torch.testing.assert_close(back, heads)


def test_no_compiler_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(InputError, match=r"C\+\+ compiler"):
        ew.fuse()


@pytest.mark.long
def test_compiled_forms_are_equal() -> None:
    torch.manual_seed(0)
    both, gradient = torch.randn(7, 32).bfloat16(), torch.randn(7, 16).bfloat16()
    plain = ew.gated(both), ew.gated_gradient(gradient, both), ew.normalised(gradient, 1e-5)[0]
    ew.fuse()
    try:
        fused = ew.gated(both), ew.gated_gradient(gradient, both), ew.normalised(gradient, 1e-5)[0]
    finally:
        ew._fused.clear()
    for one, two in zip(plain, fused, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-2, atol=1e-2)
