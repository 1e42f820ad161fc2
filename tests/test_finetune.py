"""Online finetuning: what a step computes, which weights change, salient spans, replay, EWC."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from latentbank.adapter import build_method
from latentbank.backbone.layers import plain_weights
from latentbank.backbone.model import Backbone
from latentbank.documents.document import Document
from latentbank.errors import BankError, InputError, StepWarning
from latentbank.parts.online.descent import Descent, DescentSettings
from latentbank.parts.online.losses import document_ids, next_token_losses
from latentbank.parts.online.replay import Replay
from latentbank.parts.online.salient import salient_spans, span_weights
from latentbank.parts.online.weights import weight_names
from tiny import DOCUMENTS, Backbones, fresh_bank

TEXT = "The harbour of Oslo froze on 3 March 1924. Then Ada Lovelace paid 17% more for it."


@pytest.fixture
def backbone(backbones: Backbones) -> Backbone:
    return backbones.fresh("llama")


def made(backbone: Backbone, **config: Any) -> Any:
    method = build_method("finetune", backbone, config, preset="tiny")
    method.train(False)  # type: ignore[attr-defined]
    fresh_bank(method)
    return method


@torch.no_grad()
def text_loss(method: Any, document: Document) -> float:
    ids = document_ids(method.backbone, [document.text], 512)
    with method.read(["x"]).attach(method.backbone):
        losses, mask = next_token_losses(method.backbone, ids)
    return float(losses.sum() / mask.sum())


def stepped(backbone: Backbone, weights: Tensor | None = None, rate: float = 0.1) -> dict[str, Any]:
    """The last weights after one plain SGD step on a copy of the model: an independent oracle."""
    model, names = backbone.model, weight_names(backbone, "mlp", 2)
    ids = torch.tensor(document_ids(backbone, [DOCUMENTS[0].text], 512))
    own = dict(model.named_parameters())
    for name in names:
        own[name].requires_grad_(True)
    logits = model(ids).logits[0, :-1].float()
    losses = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")
    shares = torch.ones_like(losses) if weights is None else weights
    ((shares * losses).sum() / shares.sum()).backward()
    return {name: -rate * own[name].grad for name in names}


@pytest.mark.parametrize("weights", ["uniform", "salient"])
def test_a_full_step_is_sgd_on_the_weighted_loss(weights: str, backbones: Backbones) -> None:
    method = made(
        backbones.fresh("llama"), mode="full", layer=2, optimiser="sgd", rate=0.1, steps=1,
        clip=0.0, codec="float32", weights=weights, lora={"rank": 0},
    )  # fmt: skip
    method.write(DOCUMENTS[:1])
    ids = document_ids(method.backbone, [DOCUMENTS[0].text], 512)[0]
    shares = method.token_weights(ids, DOCUMENTS[0].text)
    assert (weights == "uniform") == bool((shares == 1).all())
    for name, expected in stepped(backbones.fresh("llama"), shares).items():
        torch.testing.assert_close(method.tensors[name], expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("name", "mode"), [("gpt2", "lora"), ("gpt2", "full"), ("gemma3", "lora")])
def test_documents_are_learned(name: str, mode: str, backbones: Backbones) -> None:
    backbone = backbones.fresh(name)
    weights = {k: v.clone() for k, v in plain_weights(backbone.model)}
    method = made(backbone, mode=mode, steps=8, rate=0.01, targets="all", layer=0)
    before = text_loss(method, DOCUMENTS[0])
    method.write(DOCUMENTS[:1])
    assert text_loss(method, DOCUMENTS[0]) < before - 0.1
    assert all(torch.equal(v, weights[k]) for k, v in plain_weights(backbone.model))


def test_targets_are_the_weights_that_they_say(backbone: Backbone) -> None:
    everything = weight_names(backbone, "all", 0)
    assert len(everything) == len(list(plain_weights(backbone.model)))
    assert all("layers.2." in name for name in weight_names(backbone, "all", 2))
    for targets in ("mlp", "attention"):
        found = weight_names(backbone, targets, 1)
        assert found and all(targets[:3] in name.replace("attn", "att") for name in found)
    with pytest.raises(InputError, match="below the backbone's 3 layers, got 3"):
        weight_names(backbone, "mlp", 3)


def test_adam_is_that_of_torch() -> None:
    torch.manual_seed(0)
    start, slopes = torch.randn(4, 3), [torch.randn(4, 3) for _ in range(5)]
    oracle = torch.nn.Parameter(start.clone())
    adam = torch.optim.Adam([oracle], 0.01)
    own = {"w": start.clone()}
    descent = Descent(own, DescentSettings(rate=0.01, clip=0.0))
    for slope in slopes:
        oracle.grad = slope.clone()
        adam.step()
        assert descent.step({"w": slope})
    torch.testing.assert_close(own["w"], oracle.data)


def test_a_step_that_is_not_finite_changes_nothing(backbone: Backbone) -> None:
    method = made(backbone, rate=float("inf"))
    with pytest.warns(StepWarning, match="2 of the steps on 1 documents"):
        method.write(DOCUMENTS[:1])
    assert not any(value.any() for name, value in method.tensors.items() if "left" in name)


# ---- salient spans


def test_rules_find_names_dates_and_numbers() -> None:
    found = [TEXT[start:end] for start, end in salient_spans(TEXT)]
    assert found == ["Oslo", "3 March 1924", "Ada Lovelace", "17%"]
    assert salient_spans("nothing of note was said by anyone") == []


def test_tokens_of_a_span_weigh_one(backbone: Backbone) -> None:
    [ids] = backbone.encode([TEXT])
    weights = span_weights(backbone, ids, TEXT, salient_spans(TEXT))
    held = "".join(TEXT[i] for i, weight in enumerate(weights.tolist()) if weight)  # a token a byte
    assert held == "Oslo3 March 1924Ada Lovelace17%"
    accents = "Café Zürich"
    [ids] = backbone.encode([accents])
    assert len(span_weights(backbone, ids, accents, [(5, 11)])) == len(ids) - 1


def test_a_text_without_spans_still_counts(backbone: Backbone) -> None:
    method = made(backbone, weights="salient")
    [ids] = backbone.encode(["nothing of note"])
    assert method.token_weights(ids, "nothing of note").tolist() == [1.0] * (len(ids) - 1)


def test_a_spacy_pipeline_may_find_them(monkeypatch: pytest.MonkeyPatch) -> None:
    entity = SimpleNamespace(start_char=4, end_char=11)
    loaded = SimpleNamespace(load=lambda name: lambda text: SimpleNamespace(ents=[entity]))
    monkeypatch.setitem(sys.modules, "spacy", loaded)
    assert salient_spans(TEXT, "one_pipeline") == [(4, 11)]

    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setitem(sys.modules, "spacy", SimpleNamespace(load=missing))
    with pytest.raises(InputError, match="no pipeline another_pipeline"):
        salient_spans(TEXT, "another_pipeline")
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(InputError, match="needs spaCy"):
        salient_spans(TEXT, "third_pipeline")


# ---- defences


def test_replay_is_an_even_sample_within_its_bytes() -> None:
    texts = [(f"d{i}", "x" * (20 + i % 7)) for i in range(200)]
    one, two = Replay(600), Replay(600)
    for id, text in texts:
        one.add(id, text)
    for id, text in reversed(texts):
        two.add(id, text)
    assert one.texts == two.texts, "whatever the order"
    assert 500 < sum(len(i) + len(t) for i, t in one.texts.items()) <= 600
    numbers = [int(id[1:]) for id in one.texts]
    assert min(numbers) < 60 and max(numbers) > 140
    kept = next(iter(one.texts))
    again = Replay(600)
    again.load(one.tensor())
    assert again.texts == one.texts and kept not in again.draw(99, kept)
    again.remove([kept])
    assert kept not in again.texts
    with pytest.raises(BankError, match="damaged"):
        again.load(torch.tensor([1, 2], dtype=torch.uint8))


def test_replayed_texts_are_deleted(backbone: Backbone) -> None:
    method = made(backbone, replay_bytes=2000)
    method.write(DOCUMENTS)
    assert DOCUMENTS[1].id in method.replay.texts
    receipt = method.delete([DOCUMENTS[1].id])
    assert not receipt.exact and DOCUMENTS[1].id not in method.replay.texts
    method.bind(method.bank)
    assert DOCUMENTS[1].id not in method.replay.texts and DOCUMENTS[0].id in method.replay.texts


def test_replay_keeps_earlier_documents(backbones: Backbones) -> None:
    losses = []
    for size in (0, 4000):
        method = made(
            backbones.fresh("llama"), replay_bytes=size, replay=4, steps=6, rate=0.02, layer=0
        )
        method.write(DOCUMENTS)
        losses.append(text_loss(method, DOCUMENTS[0]))
    assert losses[1] < losses[0]


def test_ewc_holds_what_mattered(backbones: Backbones) -> None:
    moved = []
    for weight in (0.0, 1e4):
        method = made(
            backbones.fresh("llama"), ewc=weight, optimiser="sgd", rate=0.05, steps=4, layer=1
        )
        method.write(DOCUMENTS[:1])
        first = {k: v.clone() for k, v in method.tensors.items()}
        method.write(DOCUMENTS[1:2])
        moved.append(sum(float((v - first[k]).square().sum()) for k, v in method.tensors.items()))
        assert bool(method.fisher) == (weight > 0)
    assert moved[1] < moved[0]
    method.bind(method.bank)
    assert method.fisher, "the bank keeps it"


# ---- the bank


def test_a_bank_of_other_weights_is_refused(backbone: Backbone) -> None:
    method = made(backbone)
    method.write(DOCUMENTS[:1])
    other = build_method("finetune", backbone, {"rank": 3}, preset="tiny")
    with pytest.raises(BankError, match=r"do not fit.*settings"):
        other.bind(method.bank)


def test_bad_settings_are_refused(backbone: Backbone) -> None:
    for config, words in (
        ({"mode": "some"}, "full, lora"), ({"weights": "all"}, "uniform or salient"),
        ({"optimiser": "lion"}, "sgd or adam"), ({"layer": 7}, "below the backbone's 3 layers"),
        ({"codec": "int8"}, "float32, float16"), ({"rate": -1.0}, "rate must"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            made(backbone, **config)
