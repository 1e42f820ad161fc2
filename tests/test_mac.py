"""MAC's own options: the copying start, gradients for a share, attention on the own document."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from latentbank.adapter import build_method
from latentbank.documents.document import Document
from latentbank.errors import InputError, UnknownNameError
from latentbank.parts.amortised.cross_attention import MEAN_GAIN
from latentbank.parts.amortised.training import learned_share, own_slots
from latentbank.parts.batch import Batch
from tiny import ANSWERS, DOCUMENTS, QUESTIONS, Backbones, fresh_bank

TEXTS = ("The comet came in 1986.", "The tea came in a can.!", "The bees came to oslo..")
COPY = {"start": "copy", "heads": 1}
BATCH = Batch(tuple(map(Document, TEXTS)), QUESTIONS[:3], ANSWERS[:3], (0, 0, 2))


def mac(backbones: Backbones, **config: Any) -> Any:
    """A tiny MAC with every parameter off its start."""
    made = build_method("mac", backbones.fresh("llama"), config, preset="tiny", seed=0)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, parameter in sorted(made.trainable().items()):
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=draw))
    made.train(False)
    return made


# ---- start="copy"


@pytest.mark.parametrize("window", [0, 6])
@torch.no_grad()
def test_the_memory_tokens_of_a_copying_start_are_what_the_aggregator_adds_without_its_mean(
    backbones: Backbones, window: int
) -> None:
    method = mac(backbones, window=window, **COPY)
    fresh_bank(method)
    method.write(DOCUMENTS)
    question = method.amortise(QUESTIONS, "questions")
    added = method.network["aggregator"](question, method.slots.values, None, window) - question
    expected = added - MEAN_GAIN / (1 + MEAN_GAIN) * added.mean(1, keepdim=True)
    torch.testing.assert_close(method.memory_tokens(question), expected)
    whole = mac(backbones, start="random", window=window)
    fresh_bank(whole)
    whole.write(DOCUMENTS)
    asked = whole.amortise(QUESTIONS, "questions")
    found = whole.network["aggregator"](asked, whole.slots.values, None, window)
    torch.testing.assert_close(whole.memory_tokens(asked), found)


def test_unknown_starts_list_the_known(backbones: Backbones) -> None:
    with pytest.raises(UnknownNameError, match=r"(?s)start.*'copied'.*copy"):
        build_method("mac", backbones.shared("llama"), {"start": "copied"}, preset="tiny")


def test_a_copying_start_needs_one_head_and_room_for_the_places(backbones: Backbones) -> None:
    for config in ({"heads": 2}, {"heads": 1, "inner": 3}):
        with pytest.raises(InputError, match="one head and an inner width above the latents"):
            build_method("mac", backbones.shared("llama"), {**COPY, **config}, preset="tiny")


def test_preparing_sets_the_queries_and_keys_of_a_copying_start_once(backbones: Backbones) -> None:
    method = build_method("mac", backbones.fresh("llama"), COPY, preset="tiny", seed=0)
    aggregator = method.network["aggregator"]
    before = aggregator.blocks[0].q.weight.clone()
    method.prepare(DOCUMENTS)
    assert torch.equal(aggregator.blocks[0].q.weight, before), "no questions to compare with"
    method.prepare(DOCUMENTS, QUESTIONS)
    found = aggregator.blocks[0].q.weight.clone()
    assert aggregator.compares
    assert not torch.equal(found, before)
    method.prepare(DOCUMENTS[:2], QUESTIONS[:1])
    assert torch.equal(aggregator.blocks[0].q.weight, found), "trained weights are left alone"


def test_a_window_that_cannot_hold_two_results_is_refused_at_once(backbones: Backbones) -> None:
    for config in ({"window": 5}, {"window": -1}, {"latents": 0}):
        with pytest.raises(InputError, match=r"(window|latents) must be"):
            build_method("mac", backbones.shared("llama"), config, preset="tiny")


# ---- gradients for a share


def test_a_share_of_the_documents_learns_at_each_step() -> None:
    assert learned_share(4, 1.0, 0) == ([0, 1, 2, 3], [])
    assert len(learned_share(4, 0.01, 0)[0]) == 1, "never none"
    draws = [learned_share(8, 0.5, step) for step in range(20)]
    for learned, rest in draws:
        assert len(learned) == 4
        assert sorted(learned + rest) == list(range(8))
    assert len({tuple(learned) for learned, _ in draws}) > 10
    assert draws[3] == learned_share(8, 0.5, 3)


def test_documents_without_gradients_keep_their_place(backbones: Backbones) -> None:
    whole, share = mac(backbones), mac(backbones, gradient_share=0.4)
    for step in range(4):
        batch = replace(BATCH, step=step)
        torch.testing.assert_close(
            share._document_latents(batch), whole._document_latents(batch), rtol=1e-4, atol=1e-5
        )


# ---- attention drawn to the own document


def test_own_slots_are_those_of_the_questions_document() -> None:
    own = own_slots(BATCH, 2)
    assert own.tolist() == [
        [True, True, False, False, False, False],
        [True, True, False, False, False, False],
        [False, False, False, False, True, True],
    ]


def test_aligned_own_slots_are_one_for_each_memory_token() -> None:
    aligned = own_slots(BATCH, 2, aligned=True)
    assert aligned.shape == (3, 2, 6)
    assert aligned[2].tolist() == [[False] * 4 + [True, False], [False] * 5 + [True]]
    assert torch.equal(aligned.any(1), own_slots(BATCH, 2))


def test_matching_rewards_attention_on_the_own_document(backbones: Backbones) -> None:
    method = mac(backbones, matching_weight=0.5)
    plain = mac(backbones)
    found, without = method.loss(BATCH), plain.loss(BATCH)
    parts = found.parts
    assert 0 < parts["share"] < 1
    expected = parts["answer"] + 0.5 * parts["matching"]
    assert float(found.total.detach()) == pytest.approx(expected, rel=1e-5)
    assert "matching" not in without.parts
    assert parts["answer"] == pytest.approx(without.parts["answer"], rel=1e-5)
    optimizer = torch.optim.Adam(method.trainable().values(), 0.01)
    for _ in range(20):
        optimizer.zero_grad()
        method.loss(BATCH).total.backward()
        optimizer.step()
    assert method.loss(BATCH).parts["share"] > parts["share"] + 0.1
