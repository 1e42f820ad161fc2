"""CMT's three parts, each off alone: top-k aggregation, memory-aware objective, self-matching."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from latentbank.adapter import build_method
from latentbank.backbone.generate import DecodingConfig, generate
from latentbank.backbone.prompts import answer_ids, prompt_ids
from latentbank.backbone.transports import Conditioning
from latentbank.errors import InputError
from latentbank.methods.cmt import Matcher, self_matching
from latentbank.parts.batch import Batch
from tiny import ANSWERS, DOCUMENTS, QUESTIONS, Backbones, fresh_bank

BATCH = Batch(DOCUMENTS[:4], QUESTIONS[:4], ANSWERS[:4], (0, 1, 2, 3))
OFF = {"top_k": 0, "memory_aware": 0.0, "self_matching": 0.0}


def made(backbones: Backbones, name: str = "cmt", **config: Any) -> Any:
    """A tiny method with every parameter off its start, the same for every config."""
    method = build_method(name, backbones.fresh("llama"), config, preset="tiny", seed=0)
    with torch.no_grad():
        for key, parameter in sorted(method.trainable().items()):
            if "matcher" not in key:
                draw = torch.Generator().manual_seed(sum(map(ord, key)))
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=draw))
    method.train(False)
    return method


def written(method: Any) -> Any:
    fresh_bank(method)
    method.write(DOCUMENTS)
    return method


@torch.no_grad()
def test_with_every_part_off_it_is_mac(backbones: Backbones) -> None:
    cmt, mac = written(made(backbones, **OFF)), written(made(backbones, "mac"))
    question = mac.amortise(QUESTIONS, "questions")
    torch.testing.assert_close(cmt.amortise(QUESTIONS, "questions"), question)
    torch.testing.assert_close(cmt.memory_tokens(question), mac.memory_tokens(question))
    torch.testing.assert_close(cmt.loss(BATCH).total, mac.loss(BATCH).total)
    assert cmt.read(QUESTIONS).contrast == 0


# ---- top-k


@torch.no_grad()
def test_an_answer_names_the_chosen_documents_with_their_shares(backbones: Backbones) -> None:
    method = written(made(backbones, top_k=2))
    question = method.amortise(QUESTIONS, "questions")
    memories = method.slots.values.view(len(DOCUMENTS), 3, -1)
    best = method._choose(question, memories)
    for i, row in enumerate(method.read(QUESTIONS).sources):
        assert {name for name, _ in row} == {DOCUMENTS[j].id for j in best[i].tolist()}
        assert sum(share for _, share in row) == pytest.approx(1.0)
        slots = memories[best[i]].flatten(0, 1)
        keys = method.aggregator.finder.project(slots[None])[0]
        wanted = torch.tensor([[True] * 3 + [False] * 3])
        share = method.aggregator.finder.share(question[i : i + 1], keys, None, wanted)
        assert dict(row)[DOCUMENTS[int(best[i, 0])].id] == pytest.approx(float(share), abs=1e-5)
    every = written(made(backbones, top_k=0)).read(QUESTIONS).sources
    assert [len(row) for row in every] == [4] * len(QUESTIONS)


@torch.no_grad()
def test_only_the_most_similar_documents_are_read(backbones: Backbones) -> None:
    method = written(made(backbones, top_k=2))
    question = method.amortise(QUESTIONS, "questions")
    found = method.memory_tokens(question)
    memories = method.slots.values.view(len(DOCUMENTS), 3, -1)
    scores = method.matcher(question, "questions") @ method.matcher(memories, "documents").T
    for i, row in enumerate(scores):
        chosen = row.topk(2).indices.sort().values
        alone = method.aggregator(question[i : i + 1], memories[chosen].flatten(0, 1))
        torch.testing.assert_close(found[i : i + 1], alone)
    whole = written(made(backbones, top_k=len(DOCUMENTS)))
    everything = whole.aggregator(question, method.slots.values)
    torch.testing.assert_close(whole.memory_tokens(question), everything)


@torch.no_grad()
def test_documents_written_later_are_found(backbones: Backbones) -> None:
    method = made(backbones, top_k=2)
    fresh_bank(method)
    method.write(DOCUMENTS[:3])
    question = method.amortise(QUESTIONS, "questions")
    method.memory_tokens(question)
    method.write(DOCUMENTS[3:])
    again = written(made(backbones, top_k=2))
    torch.testing.assert_close(method.memory_tokens(question), again.memory_tokens(question))


def test_measuring_takes_off_means_and_whitens() -> None:
    draw = torch.Generator().manual_seed(0)
    scale = torch.linspace(1, 4, 12)
    rows = [torch.randn(400, 1, 12, generator=draw) * scale + shift for shift in (1.0, -2.0)]
    matcher = Matcher(12, 6)
    assert not matcher.measured
    matcher.measure(*rows)
    assert matcher.measured
    for side, memories in zip(("questions", "documents"), rows, strict=True):
        found = matcher(memories, side)
        torch.testing.assert_close(found.norm(dim=-1), torch.ones(400))
        assert found.mean(0).norm() < 0.1, "centred"
        variances = found.var(0)
        assert variances.max() / variances.min() < 1.6, "no direction rules"


# ---- memory-aware


@torch.no_grad()
def test_the_memory_aware_loss_is_that_of_the_contrasted_logits(backbones: Backbones) -> None:
    plain, aware = made(backbones, **OFF), made(backbones, **{**OFF, "memory_aware": 0.7})
    tokens = plain.training_tokens(
        plain.amortise(BATCH.questions, "questions"), plain._document_latents(BATCH).flatten(0, 1)
    )
    found = float(aware._answer_loss(BATCH, tokens))
    rows = prompt_ids(plain.backbone, BATCH.questions), answer_ids(plain.backbone, BATCH.answers)
    lora = () if plain.lora is None else (plain.lora,)
    with Conditioning((*lora, plain.condition(tokens))).attach(plain.backbone):
        seen = plain.backbone.answer_logits(*rows)
        with plain.backbone.with_memory(None):
            blind = plain.backbone.answer_logits(*rows)
    logits = 1.7 * seen.logits - 0.7 * blind.logits
    expected = torch.nn.functional.cross_entropy(logits, seen.tokens)
    assert found == pytest.approx(float(expected), rel=1e-4)
    assert found != pytest.approx(float(plain._answer_loss(BATCH, tokens)), rel=1e-3)


@pytest.mark.parametrize("beams", [1, 2])
@torch.no_grad()
def test_decoding_contrasts_with_the_model_without_memory(backbones: Backbones, beams: int) -> None:
    method = written(made(backbones))
    backbone = method.backbone
    prompts = [[1, 5, 9], [1, 7], [1, 8, 4, 3]]
    config = DecodingConfig(max_new_tokens=4, beams=beams)
    with method.read(QUESTIONS[:3]).attach(backbone):
        first = DecodingConfig(max_new_tokens=1, beams=1)
        strong = generate(backbone, prompts, first, contrast=50.0)
        ids, mask = backbone.pad(prompts, left=True)
        seen = backbone.logits(backbone.session(3).feed(ids, mask)[:, -1]).float()
        with backbone.with_memory(None):
            blind = backbone.logits(backbone.session(3).feed(ids, mask)[:, -1]).float()
    token = (51 * seen - 50 * blind).argmax(-1).tolist()
    expected = [
        "" if t == backbone.end_id
        else backbone.tokenizer.decode([t], skip_special_tokens=True).strip()
        for t in token
    ]  # fmt: skip
    assert [g.text for g in strong] == expected
    with method.lora.attach(backbone) if method.lora else backbone.with_memory(None):
        alone = generate(backbone, prompts, config)
        same = generate(backbone, prompts, config, contrast=3.0)
    assert [g.text for g in alone] == [g.text for g in same], "no memory, nothing to contrast"


def test_an_empty_bank_is_not_contrasted(backbones: Backbones) -> None:
    method = made(backbones)
    fresh_bank(method)
    assert method.read(QUESTIONS[:1]).contrast == 0
    assert written(method).read(QUESTIONS[:1]).contrast == 0.5


# ---- self-matching


def test_self_matching_by_hand() -> None:
    stored = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    owner = torch.tensor([0, 1])
    found = self_matching(torch.tensor([0.5, 0.9]), stored, owner, 2.0)
    first = math.log(math.exp(-2) + math.exp(-4))
    second = math.log(2 * math.exp(-2))
    assert float(found) == pytest.approx(-0.7 + 2 * (first + second) / 2)
    assert float(self_matching(torch.tensor([0.5, 0.9]), stored, owner, 0.0)) == pytest.approx(-0.7)
    one = self_matching(torch.tensor([0.5]), stored[:1], torch.tensor([0]), 2.0)
    assert float(one) == pytest.approx(-0.5)


def test_self_matching_trains_the_matcher(backbones: Backbones) -> None:
    method = made(backbones, self_matching=1.0)
    method.train()
    loss = method.loss(BATCH)
    loss.total.backward()
    assert loss.parts["self_matching"] != 0
    assert (method.matcher.project.weight.grad != 0).any()
    without = made(backbones, self_matching=0.0)
    assert "self_matching" not in without.loss(BATCH).parts


def test_settings_are_checked(backbones: Backbones) -> None:
    for config in ({"top_k": -1}, {"memory_aware": -0.1}, {"spread": -1}, {"matching_width": 0}):
        with pytest.raises(InputError, match=next(iter(config))):
            build_method("cmt", backbones.shared("llama"), config, preset="tiny")
