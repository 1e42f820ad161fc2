"""MAC's own options: the copying start, the bank that grows, gradients for a share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from latentbank.amortised_training import hidden_slots, learned_share, own_slots
from latentbank.document import Document
from latentbank.errors import InputError, UnknownNameError
from latentbank.evaluation import fresh_bank
from latentbank.method import Batch, build_method
from tiny import ANSWERS, DOCUMENTS, QUESTIONS, Backbones

TEXTS = ("The comet came in 1986.", "The tea came in a can.!", "The bees came to oslo..")
OTHER = "Nothing comes at all..."  # as long as the others, so that no padding moves
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
def test_the_memory_tokens_of_a_copying_start_are_what_the_aggregator_adds(
    backbones: Backbones, window: int
) -> None:
    method = mac(backbones, start="copy", window=window)
    fresh_bank(method)
    method.write(DOCUMENTS)
    question = method.amortise(QUESTIONS, "questions")
    found = method.network["aggregator"](question, method.slots.values, None, window)
    torch.testing.assert_close(method.memory_tokens(question), found - question)
    whole = mac(backbones, start="random", window=window)
    fresh_bank(whole)
    whole.write(DOCUMENTS)
    asked = whole.amortise(QUESTIONS, "questions")
    found = whole.network["aggregator"](asked, whole.slots.values, None, window)
    torch.testing.assert_close(whole.memory_tokens(asked), found)


def test_unknown_starts_list_the_known(backbones: Backbones) -> None:
    with pytest.raises(UnknownNameError, match=r"(?s)start.*'copied'.*copy"):
        build_method("mac", backbones.shared("llama"), {"start": "copied"}, preset="tiny")


def test_a_window_that_cannot_hold_two_results_is_refused_at_once(backbones: Backbones) -> None:
    for config in ({"window": 5}, {"window": -1}, {"latents": 0}):
        with pytest.raises(InputError, match=r"(window|latents) must be"):
            build_method("mac", backbones.shared("llama"), config, preset="tiny")


# ---- grow


def loss(method: Any, step: int, texts: tuple[str, ...] = TEXTS) -> float:
    batch = replace(BATCH, documents=tuple(map(Document, texts)), step=step)
    with torch.no_grad():
        return float(method.loss(batch).total)


@pytest.mark.parametrize("config", [{}, {"start": "copy"}, {"window": 6}])
def test_the_bank_grows_from_the_own_document_to_all(
    backbones: Backbones, config: dict[str, Any]
) -> None:
    method = mac(backbones, grow=10, **config)
    asked_of = (TEXTS[0], TEXTS[1], OTHER), (OTHER, TEXTS[1], TEXTS[2])
    unasked = (TEXTS[0], OTHER, TEXTS[2])
    first, grown = loss(method, 0), loss(method, 10)
    assert loss(method, 0, unasked) == first, "no question is about the second document"
    assert all(loss(method, 0, texts) != first for texts in asked_of)
    assert loss(method, 10, unasked) != grown
    assert loss(method, 99) == grown == loss(mac(backbones, **config), 0)


def test_a_question_sees_its_own_document_and_more_with_each_step() -> None:
    many = replace(BATCH, documents=DOCUMENTS, owner=(0, 4, 2))
    seen = []
    for step in range(0, 40):
        hidden = hidden_slots(replace(many, step=step), 3, 40)
        assert hidden is not None
        assert hidden.shape == (3, 15)
        visible = (hidden == 0).view(3, 5, 3)
        assert (visible.all(2) | ~visible.any(2)).all(), "a document is seen as a whole"
        assert all(visible[i, owner].all() for i, owner in enumerate(many.owner))
        seen.append(float(visible[:, :, 0].sum(1).float().mean()))
    assert seen[0] == 1
    expected = [5 ** (step / 40) for step in range(40)]
    for half in (slice(0, 20), slice(20, 40)):
        assert sum(seen[half]) == pytest.approx(sum(expected[half]), rel=0.15)
    assert hidden_slots(replace(many, step=40), 3, 40) is None
    assert hidden_slots(many, 3, 0) is None
    assert hidden_slots(replace(many, documents=DOCUMENTS[:1], owner=(0,) * 3), 3, 40) is None


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
