"""The slot algebra: whatever is merged, selected or decayed, attention answers as it should."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from latentbank.errors import InputError
from latentbank.parts.slots import Slots

WIDTH = 4


def attend(query: Tensor, slots: Slots) -> Tensor:
    """One query [D] over the slots: softmax(q·k + log_mass) · v."""
    return torch.softmax(slots.keys @ query + slots.log_mass, 0) @ slots.values


@st.composite
def slot_sets(draw: st.DrawFn, smallest: int = 1) -> Slots:
    """Slots drawn with repetition from a few prototypes, with random masses and owners."""
    count = draw(st.integers(smallest, 12))
    prototypes = draw(st.integers(1, 4))
    which = draw(st.lists(st.integers(0, prototypes - 1), min_size=count, max_size=count))
    mass = draw(st.lists(st.floats(-3, 3), min_size=count, max_size=count))
    owner = draw(st.lists(st.integers(-1, 3), min_size=count, max_size=count))
    source = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    keys = torch.randn(prototypes, WIDTH, generator=source)
    values = torch.randn(prototypes, WIDTH, generator=source)
    index = torch.tensor(which, dtype=torch.long)
    return Slots(keys[index], values[index], torch.tensor(mass), torch.tensor(owner))


QUERY = torch.tensor([0.3, -1.2, 0.8, 2.0])


@settings(deadline=None)
@given(slot_sets())
def test_merging_keeps_what_attention_answers(slots: Slots) -> None:
    merged = slots.merge()
    torch.testing.assert_close(attend(QUERY, merged), attend(QUERY, slots), rtol=1e-4, atol=1e-5)
    assert len({tuple(row) for row in torch.cat([merged.keys, merged.values], 1).tolist()}) == len(
        merged
    )
    torch.testing.assert_close(merged.log_mass.logsumexp(0), slots.log_mass.logsumexp(0))


@settings(deadline=None)
@given(slot_sets())
def test_merging_twice_is_merging_once(slots: Slots) -> None:
    once, twice = slots.merge(), slots.merge().merge()
    assert torch.equal(once.keys, twice.keys)
    torch.testing.assert_close(once.log_mass, twice.log_mass)
    assert torch.equal(once.owner, twice.owner)


@settings(deadline=None)
@given(slot_sets())
def test_a_merged_slot_keeps_its_owner_only_where_all_agree(slots: Slots) -> None:
    owners: dict[tuple[float, ...], set[int]] = {}
    for row, owner in zip(
        torch.cat([slots.keys, slots.values], 1).tolist(), slots.owner.tolist(), strict=True
    ):
        owners.setdefault(tuple(row), set()).add(owner)
    merged = slots.merge()
    for row, owner in zip(
        torch.cat([merged.keys, merged.values], 1).tolist(), merged.owner.tolist(), strict=True
    ):
        those = owners[tuple(row)]
        assert owner == (min(those) if len(those) == 1 else -1)


@settings(deadline=None)
@given(slot_sets(), slot_sets())
def test_append_then_select_gives_the_parts_back(one: Slots, two: Slots) -> None:
    both = Slots.append([one, two])
    assert len(both) == len(one) + len(two)
    back = both.select(torch.arange(len(one), len(both)))
    for name in ("keys", "values", "log_mass", "owner"):
        assert torch.equal(getattr(back, name), getattr(two, name))


@settings(deadline=None)
@given(slot_sets(), st.sets(st.integers(0, 3), max_size=3))
def test_remove_takes_the_owners_slots_and_no_other(slots: Slots, gone: set[int]) -> None:
    left = slots.remove(torch.tensor(sorted(gone), dtype=torch.long))
    assert left.owner.tolist() == [o for o in slots.owner.tolist() if o not in gone]
    kept = torch.tensor([o not in gone for o in slots.owner.tolist()])
    assert torch.equal(left.values, slots.values[kept])


@settings(deadline=None)
@given(slot_sets(), st.floats(0.01, 1.0))
def test_decay_scales_every_mass_and_changes_no_answer_alone(slots: Slots, factor: float) -> None:
    faded = slots.decay(factor)
    torch.testing.assert_close(faded.log_mass.exp(), slots.log_mass.exp() * factor)
    torch.testing.assert_close(attend(QUERY, faded), attend(QUERY, slots), rtol=1e-4, atol=1e-5)


def test_faded_slots_weigh_less_beside_fresh_ones() -> None:
    old = Slots.of(torch.zeros(1, WIDTH))
    new = Slots(torch.zeros(1, WIDTH), torch.ones(1, WIDTH), torch.zeros(1), torch.zeros(1).long())
    share = attend(QUERY, Slots.append([old.decay(0.25), new]))
    torch.testing.assert_close(share, torch.full((WIDTH,), 1 / 1.25))


def test_copies_and_one_mass_are_the_same() -> None:
    latents = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(0))
    copies = Slots.of(latents[[0, 0, 0, 1, 2, 2]])
    massive = Slots(latents, latents, torch.tensor([3.0, 1.0, 2.0]).log(), torch.full((3,), -1))
    torch.testing.assert_close(attend(QUERY, copies), attend(QUERY, massive))


def test_no_slots_and_wrong_slots() -> None:
    empty = Slots.empty(WIDTH)
    assert len(empty) == len(empty.merge()) == 0
    assert empty.keys.shape == (0, WIDTH)
    assert len(Slots.append([empty, Slots.of(torch.ones(2, WIDTH))])) == 2
    with pytest.raises(InputError, match=r"Slots\.empty"):
        Slots.append([])
    with pytest.raises(InputError, match="one length"):
        Slots(torch.ones(2, WIDTH), torch.ones(2, WIDTH), torch.zeros(3), torch.zeros(2).long())
    for factor in (0.0, 1.5, -1.0, math.nan):
        with pytest.raises(InputError, match=r"\(0, 1\]"):
            Slots.of(torch.ones(1, WIDTH)).decay(factor)
