"""Slots: identical slots and one slot of their mass give the same attention."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentbank.errors import InputError
from latentbank.parts.amortised.cross_attention import CrossAttention
from latentbank.parts.amortised.slots import Slots

WIDTH = 4


@torch.no_grad()
@settings(deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(0, 1000))
def test_identical_slots_answer_like_one_slot_of_their_mass(counts: list[int], seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    values = torch.randn(len(counts), WIDTH, generator=draw)
    question = torch.randn(1, 2, WIDTH, generator=draw)
    repeated = Slots.of(values.repeat_interleave(torch.tensor(counts), 0))
    merged = Slots(
        values, torch.tensor([math.log(n) for n in counts]), torch.full((len(counts),), -1)
    )
    torch.manual_seed(0)
    block = CrossAttention(WIDTH, 8, 2, 8)
    found = [
        block(question, *block.project(slots.values[None]), slots.bias(torch.device("cpu")))
        for slots in (repeated, merged)
    ]
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)


def test_appending_keeps_order_and_owners() -> None:
    one = Slots.of(torch.zeros(2, WIDTH), torch.tensor([0, 0]))
    two = Slots.of(torch.ones(1, WIDTH), torch.tensor([1]))
    both = Slots.append([one, Slots.empty(WIDTH), two])
    assert both.owner.tolist() == [0, 0, 1] and both.values[2].tolist() == [1.0] * WIDTH
    assert both.bias(torch.device("cpu")) is None, "slots of mass 1 need no bias"


def test_bad_slots_are_refused() -> None:
    with pytest.raises(InputError, match="append needs at least one part"):
        Slots.append([])
    with pytest.raises(InputError, match="one length for all parts"):
        Slots(torch.zeros(2, WIDTH), torch.zeros(1), torch.zeros(2, dtype=torch.long))
