"""Segment pooling against a loop over the tokens: short texts, padding on either side."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from latentbank.parts.pooling import SegmentPooler, segment_means

WIDTH = 4


def naive(states: Tensor, mask: Tensor, segments: int) -> Tensor:
    """Token j of n goes to segment j · min(n, k) // n."""
    found = torch.zeros(states.shape[0], segments, states.shape[2])
    for row in range(states.shape[0]):
        tokens = [states[row, t] for t in range(states.shape[1]) if mask[row, t]]
        count = min(len(tokens), segments)
        for segment in range(count):
            own = [x for j, x in enumerate(tokens) if j * count // len(tokens) == segment]
            found[row, segment] = torch.stack(own).mean(0)
    return found


def padded(shapes: list[tuple[int, int, int]]) -> tuple[Tensor, Tensor]:
    """Rows of (padding, tokens, padding), with junk where there is padding."""
    width = max(sum(shape) for shape in shapes)
    draw = torch.Generator().manual_seed(sum(map(sum, shapes)))
    states = torch.randn(len(shapes), width, WIDTH, generator=draw)
    mask = torch.zeros(len(shapes), width, dtype=torch.bool)
    for i, (before, tokens, _) in enumerate(shapes):
        mask[i, before : before + tokens] = True
    return torch.where(mask[..., None], states, 1e4), mask


SHAPES = st.lists(
    st.tuples(st.integers(0, 4), st.integers(1, 20), st.integers(0, 4)), min_size=1, max_size=4
)


@settings(deadline=None, max_examples=80)
@given(SHAPES, st.integers(1, 8))
def test_segment_means_are_those_of_a_loop(shapes: list[tuple[int, int, int]], k: int) -> None:
    states, mask = padded(shapes)
    torch.testing.assert_close(segment_means(states, mask, k), naive(states, mask, k))


def test_a_short_text_leaves_the_last_segments_zero() -> None:
    states, mask = padded([(0, 2, 5), (5, 2, 0), (0, 7, 0)])
    found = segment_means(states, mask, 4)
    assert torch.equal(found[:2, :2], torch.stack([states[0, :2], states[1, 5:]]))
    assert found[:2, 2:].abs().sum() == 0
    assert (found[2].abs().sum(1) > 0).all()


def test_a_row_of_padding_alone_is_zero() -> None:
    found = segment_means(torch.ones(1, 3, WIDTH), torch.zeros(1, 3, dtype=torch.bool), 2)
    assert torch.equal(found, torch.zeros(1, 2, WIDTH))


def test_the_pooler_is_blind_to_padding_whatever_its_score() -> None:
    pooler = SegmentPooler(WIDTH)
    with torch.no_grad():
        pooler.score[0].weight.fill_(1.0)
        pooler.score[2].weight.fill_(2.0)  # tokens differ by up to e^256
    states = -torch.ones(1, 4, WIDTH) + 0.01 * torch.randn(1, 4, WIDTH)
    mask = torch.ones(1, 4, dtype=torch.bool)
    alone, _ = pooler(states, mask, 2)
    junk = torch.cat([states, torch.full((1, 3, WIDTH), 50.0)], 1)
    beside, _ = pooler(junk, torch.cat([mask, torch.zeros(1, 3, dtype=torch.bool)], 1), 2)
    assert alone.abs().sum() > 0
    torch.testing.assert_close(beside, alone)
