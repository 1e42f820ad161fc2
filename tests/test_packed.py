"""Packed layers compute what the plain path computes, and so do their gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latentbank.adapter import build_method
from latentbank.backbone.encoder import FeatureCache
from latentbank.backbone.packed import PackedLayers
from latentbank.backbone.packed.answers import PackedAnswers
from latentbank.backbone.packed.layout import Group, Layout
from latentbank.capabilities import Trained
from latentbank.parts.batch import Batch
from tiny import ANSWERS, DOCUMENTS, QUESTIONS, Backbones

NEAR: dict[str, float] = {"rtol": 2e-4, "atol": 2e-5}
LORA = {"rank": 3, "layer": 1}
STATES = {"transport": "states", "inject_from": 1, "lora": LORA}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "none": ("none", {}),
    "rag": ("rag", {"lora": LORA}),
    "rag, a share closed": ("rag", {"lora": LORA, "closed_share": 0.5, "closed_lora": LORA}),
    "strata, all states": ("strata", {"lora": LORA, "all_share": 1.0}),
    "strata, pooled": ("strata", {"lora": LORA, "all_share": 0.0}),
    "strata, a share closed": ("strata", {"lora": LORA, "closed_share": 0.5}),
    "strata, closed apart": (
        "strata", {"lora": LORA, "closed_share": 0.5, "closed_lora": {"rank": 2, "layer": 2}},
    ),
    "mac": ("mac", STATES),
    "mbc": ("mbc", {**STATES, "lora": {**LORA, "targets": "kv"}}),
    "cmt": ("cmt", {**STATES, "memory_aware": 0.7}),
    "cmt, plain logits": ("cmt", {**STATES, "memory_aware": 0.0}),
}  # fmt: skip
BATCH = Batch(
    DOCUMENTS[:4],
    (QUESTIONS[0], QUESTIONS[2], QUESTIONS[1], QUESTIONS[0], "Who wrote it?", QUESTIONS[3]),
    (ANSWERS[0], ANSWERS[2], ANSWERS[1], "Ada", ANSWERS[0], ANSWERS[3]),
    (0, 2, 1, 0, 0, 3),
    step=5,
)


def made(backbones: Backbones, name: str, config: dict[str, Any]) -> Trained:
    method: Any = build_method(name, backbones.fresh("llama"), config, preset="tiny", seed=0)
    torch.manual_seed(1)
    for parameter in method.trainable().values():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    method.train(False)
    assert isinstance(method, Trained)
    return method


def gradients(method: Trained) -> tuple[float, dict[str, torch.Tensor]]:
    for parameter in method.trainable().values():
        parameter.grad = None
    loss = method.loss(BATCH)
    loss.total.backward()
    found = {k: p.grad for k, p in method.trainable().items() if p.grad is not None}
    return float(loss.total.detach()), found


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradients_equal_the_plain_path(backbones: Backbones, case: str) -> None:
    method = made(backbones, *CASES[case])
    plain, expected = gradients(method)
    assert method.trained_from is not None
    method.packed = PackedAnswers(method.backbone, method.trained_from)
    fast, found = gradients(method)
    assert fast == pytest.approx(plain, rel=1e-5)
    assert found.keys() == expected.keys()
    assert any(bool(value.any()) for value in expected.values())
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, **NEAR, msg=lambda m, n=name: f"{n}: {m}")


def test_what_the_cache_holds_is_not_computed_again(
    backbones: Backbones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = made(backbones, *CASES["rag"])
    method.packed = PackedAnswers(method.backbone, 1, FeatureCache(tmp_path, 32))
    first, _ = gradients(method)
    monkeypatch.setattr(PackedAnswers, "_computed", None)
    again = gradients(method)[0]
    assert again == pytest.approx(first, rel=2e-3)  # float16
    plain = made(backbones, *CASES["rag"])
    assert again == pytest.approx(gradients(plain)[0], rel=2e-3)


@torch.no_grad()
def test_packed_layers_equal_the_plain_ones_token_by_token(backbones: Backbones) -> None:
    backbone = backbones.fresh("llama")
    layers = backbone.geometry.layers
    texts = [torch.arange(3, 3 + n) for n in (9, 4, 30, 5)]
    layout = Layout.of([Group(0, 0, (len(t),)) for t in texts], torch.float32, backbone.device)
    states = backbone.model.get_input_embeddings()(torch.cat(texts))
    found = PackedLayers(backbone).run(states, layout, 0, layers).split([len(t) for t in texts])
    for text, row in zip(texts, found, strict=True):
        expected = backbone.body(text[None]).last_hidden_state[0]
        torch.testing.assert_close(row, expected, **NEAR)


def test_a_layout_covers_every_token_once_and_hides_other_texts() -> None:
    groups = [Group(3, 2, (4, 1)), Group(0, 0, (5,)), Group(2, 0, (3, 3, 2)), Group(40, 1, (3, 2))]
    layout = Layout.of(groups, torch.float32, torch.device("cpu"))
    total = sum(group.tokens for group in groups)
    line = torch.arange(total)
    taken = torch.cat([bucket.take(line[:, None] + 1).flatten() for bucket in layout.buckets])
    assert sorted(taken[taken > 0].tolist()) == list(range(1, total + 1))
    copy = torch.full((total, 1), -1)
    for bucket in layout.buckets:
        bucket.put(bucket.take(line[:, None]), copy)
    assert torch.equal(copy.flatten(), line)
    first = next(bucket.mask[0] for bucket in layout.buckets if int(bucket.take(line)[0, 0]) == 0)
    seen = (first[:10, :10] == 0).numpy()
    assert np.array_equal(seen[:5, :5], np.tril(np.ones((5, 5), bool)))
    assert seen[9].tolist() == [True] * 5 + [False] * 4 + [True], "memory, shared, its own token"
    assert layout.positions[:10].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 5]


def test_dropout_reaches_the_low_rank_weights(backbones: Backbones) -> None:
    name, config = CASES["mbc"]
    method = made(backbones, name, {**config, "lora": {**LORA, "targets": "kv", "dropout": 0.5}})
    method.packed = PackedAnswers(method.backbone, 1)
    still = gradients(method)[0]
    assert gradients(method)[0] == still
    method.train()
    torch.manual_seed(0)
    one = gradients(method)[0]
    torch.manual_seed(0)
    assert gradients(method)[0] == one != still
    torch.manual_seed(1)
    assert gradients(method)[0] != one
