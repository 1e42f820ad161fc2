"""CaMeLS: the meta-gradient, what training does to the weights, and colours of a document."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from latentbank.adapter import build_method, save_adapter
from latentbank.backbone.model import Backbone
from latentbank.errors import InputError
from latentbank.parts.batch import Batch
from latentbank.parts.online.meta import stepped_loss
from memory_folder import memory_path  # noqa: F401
from tiny import ANSWERS, DOCUMENTS, QUESTIONS, Backbones, fresh_bank
from tiny_cli import refuse, succeed

BATCH = Batch(tuple(DOCUMENTS[:3]), tuple(QUESTIONS[:3]), tuple(ANSWERS[:3]), (0, 1, 2))


@pytest.fixture
def backbone(backbones: Backbones) -> Backbone:
    return backbones.fresh("llama")


def made(backbone: Backbone, method: str = "camels", **config: Any) -> Any:
    built = build_method(method, backbone, config, preset="tiny")
    built.train(False)  # type: ignore[attr-defined]
    return built


def test_the_gradient_is_that_of_differentiating_through_the_step() -> None:
    torch.manual_seed(0)
    data, target = torch.randn(7, 4), torch.randn(7)
    start = {"w": torch.randn(4), "b": torch.randn(1)}

    def losses(theta: Any) -> Tensor:
        return ((data @ theta["w"]).tanh() + theta["b"] - target).square()

    def outer(theta: Any) -> Tensor:
        return (theta["w"] ** 3).sum() + theta["b"].sin().sum()

    weights = torch.rand(7, requires_grad=True)
    found = stepped_loss(losses, outer, weights, start, 0.1)
    (slope,) = torch.autograd.grad(found, weights)
    leaves = {k: v.clone().requires_grad_(True) for k, v in start.items()}
    inner = (weights * losses(leaves)).sum()
    steps = torch.autograd.grad(inner, list(leaves.values()), create_graph=True)
    reached = outer({k: leaves[k] - 0.1 * s for k, s in zip(leaves, steps, strict=True)})
    torch.testing.assert_close(found, reached)
    torch.testing.assert_close(slope, torch.autograd.grad(reached, weights)[0])


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma3"])
def test_it_holds_through_a_backbone(name: str, backbones: Backbones) -> None:
    """Against finite differences of the loss in the bias of the weights."""
    method = made(backbones.fresh(name))
    bias = method.network["weigher"].head.bias
    loss = method.loss(BATCH).total
    loss.backward()
    slope, found = float(bias.grad), []
    for change in (0.02, -0.02):
        bias.data += change
        found.append(float(method.loss(BATCH).total.detach()))
        bias.data -= change
    assert slope == pytest.approx((found[0] - found[1]) / 0.04, rel=0.05, abs=1e-4)


def test_training_lowers_the_loss_and_parts_the_tokens(backbone: Backbone) -> None:
    method = made(backbone, norm=0.0)
    [ids] = backbone.encode([DOCUMENTS[0].text])
    before = method.token_weights(ids, DOCUMENTS[0].text)
    assert torch.allclose(before, torch.ones_like(before), atol=1e-3), "even before training"
    optimiser = torch.optim.Adam(method.trainable().values(), 3e-3)
    losses = []
    for _ in range(15):
        optimiser.zero_grad()
        loss = method.loss(BATCH).total
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 1e-3
    weights = method.token_weights(ids, DOCUMENTS[0].text)
    assert (weights > 0).all() and float(weights.std()) > 0.01
    assert set(method.loss(BATCH).parts) == {"answer", "locality", "norm", "weight"}


def test_a_write_is_one_weighted_step(backbone: Backbone) -> None:
    method = made(backbone, codec="float32", rate=0.5)
    method.network["weigher"].head.weight.data.normal_()
    fresh_bank(method)
    start = {k: v.clone().requires_grad_(True) for k, v in method.weights.start().items()}
    [ids] = backbone.encode([DOCUMENTS[0].text])
    weights = method.token_weights(ids, DOCUMENTS[0].text)
    loss = (weights * method._losses(ids, start)).mean()
    slopes = torch.autograd.grad(loss, list(start.values()))
    method.write(DOCUMENTS[:1])
    for name, slope in zip(start, slopes, strict=True):
        torch.testing.assert_close(method.tensors[name], -0.5 * slope, rtol=1e-3, atol=1e-6)
    assert method.telemetry()["steps"] == 1


def test_bad_settings_are_refused(backbone: Backbone) -> None:
    for config, words in (
        ({"width": 15}, "multiple of heads"), ({"weigher_layer": 9}, "at most 3"),
        ({"locality": -1.0}, "locality must"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            made(backbone, **config)


@pytest.mark.parametrize("method", ["camels", "finetune"])
def test_inspect_colours_a_document(method: str, backbones: Backbones, tmp_path: Path) -> None:
    folder, bank = backbones.folder("llama"), tmp_path / "b.bank"
    save_adapter(tmp_path / "adapter", made(backbones.fresh("llama"), method))
    note = tmp_path / "note.txt"
    note.write_text("Ada wrote it in 1843.")
    adapter = str(tmp_path / "adapter")
    arguments = ("--adapter", adapter, "--backbone", str(folder), "--dtype", "float32")
    succeed("write", str(note), "--bank", str(bank), *arguments)
    shown = succeed("inspect", str(bank), "--token-weights", str(note)).stdout
    assert "Ada wrote it in 1843." in shown.replace("\n", "")
    told = json.loads(succeed("inspect", str(bank), "--token-weights", str(note), "--json").stdout)[
        "token_weights"
    ]
    assert "".join(one["token"] for one in told) == "Ada wrote it in 1843."
    assert all(one["weight"] >= 0 for one in told)
    assert "no file" in refuse("inspect", str(bank), "--token-weights", str(tmp_path / "none.txt"))


def test_a_method_without_weights_says_so(backbones: Backbones, tmp_path: Path) -> None:
    folder, bank, note = backbones.folder("llama"), tmp_path / "b.bank", tmp_path / "note.txt"
    note.write_text("Ada wrote it in 1843.")
    arguments = ("--method", "rag", "--backbone", str(folder), "--dtype", "float32")
    succeed("write", str(note), "--bank", str(bank), *arguments)
    assert "weighs no tokens" in refuse("inspect", str(bank), "--token-weights", str(note))
