"""Texts without padding compute what padded ones compute; rows that have ended cost nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from latentbank.backbone.generate import DecodingConfig, generate
from latentbank.backbone.kv import KVMemory
from latentbank.backbone.model import Backbone, load_backbone
from latentbank.backbone.quick import RaggedRun
from latentbank.backbone.text_run import TextRun

TEXTS = ("Question: Who is it?\nAnswer:", "Ada Lovelace wrote it.\n\n  Café Zürich", "x")


@pytest.fixture(scope="module")
def quick(backbones: Any) -> Backbone:
    return load_backbone(str(backbones.folder("llama")), "float32", quick=True)


def memory_of(backbone: Backbone, layer: int, biased: bool) -> KVMemory:
    """A memory of 3 rows of unequal length, with slots of unequal mass if `biased`."""
    draw = torch.Generator().manual_seed(1)
    states = torch.randn(3, 5, backbone.geometry.width, generator=draw)
    mask = torch.tensor([[1] * 5, [1] * 2 + [0] * 3, [1] * 4 + [0]]).bool()
    bias = torch.rand(3, 5, generator=draw) if biased else None
    return backbone.fill(states, mask, layer, bias)


def runs(backbone: Backbone, memory: KVMemory | None, split: int = 0) -> tuple[TextRun, RaggedRun]:
    with backbone.with_memory(memory):
        plain = backbone.session(3, split)
        ragged = backbone.session(3, split, ragged=True)
    assert isinstance(plain, TextRun) and isinstance(ragged, RaggedRun)
    return plain, ragged


def same(one: torch.Tensor, other: torch.Tensor, mask: torch.Tensor) -> None:
    assert one.shape == other.shape
    assert torch.allclose(one[mask], other[mask], atol=2e-5)


@torch.no_grad()
@pytest.mark.parametrize("memory", ["none", "layer 0", "layer 1", "with masses"])
def test_a_line_of_tokens_is_what_padded_rows_are(quick: Backbone, memory: str) -> None:
    layer = 0 if memory == "layer 0" else 1
    held = None if memory == "none" else memory_of(quick, layer, memory == "with masses")
    before = None if held is None else [one.clone() for one in (*held.keys, *held.values)]
    plain, ragged = runs(quick, held)
    ids, mask = quick.pad(quick.encode(TEXTS), left=True)
    same(plain.feed(ids, mask), ragged.feed(ids, mask), mask)
    # guesses, of which some are undone; the third row gets nothing
    blocks, fed = quick.pad([[5, 6, 7], [8], []])
    same(plain.feed(blocks, fed), ragged.feed(blocks, fed), fed)
    kept = torch.tensor([[True, False, False], [True, False, False], [False] * 3])
    plain.keep(kept)
    ragged.keep(kept)
    for order in ([2, 0], [1, 1, 0]):  # fewer rows, then one of them twice
        index = torch.tensor(order)
        plain.reorder(index)
        ragged.reorder(index)
        blocks, fed = quick.pad([[9 + i, 3][: 1 + i % 2] for i in range(len(order))])
        same(plain.feed(blocks, fed), ragged.feed(blocks, fed), fed)
    if held is not None:
        assert all(map(torch.equal, before or (), (*held.keys, *held.values)))


@torch.no_grad()
def test_a_run_is_repeated_over_a_memory(quick: Backbone) -> None:
    plain, ragged = runs(quick, None, split=1)
    ids, mask = quick.pad(quick.encode(TEXTS), left=True)
    plain.feed(ids, mask)
    ragged.feed(ids, mask)
    rows = torch.tensor([2, 0, 0])
    memory = memory_of(quick, 1, biased=False)
    (again, states), (other, found) = (run.repeat(rows, memory) for run in (plain, ragged))
    same(states, found, mask[rows])
    blocks, fed = quick.pad([[5, 6], [7], [8]])
    same(again.feed(blocks, fed), other.feed(blocks, fed), fed)
    ragged.feed(blocks, fed)
    with pytest.raises(ValueError, match="fed twice"):
        ragged.repeat(rows, memory)


@torch.no_grad()
def test_answers_of_a_batch_are_those_of_single_questions(quick: Backbone) -> None:
    prompts = quick.encode(TEXTS)
    quotable = [[5, 6, 7, 8, 9], [1, 2, 3], []]
    for config in (DecodingConfig(max_new_tokens=9), DecodingConfig(max_new_tokens=5, beams=2)):
        many = generate(quick, prompts, config, quotable=quotable)
        for row, one in enumerate(many):
            [alone] = generate(quick, [prompts[row]], config, quotable=[quotable[row]])
            assert replace(one, confidence=0, first_token_seconds=0) == replace(
                alone, confidence=0, first_token_seconds=0
            )
            assert one.confidence == pytest.approx(alone.confidence, rel=1e-4)


@torch.no_grad()
def test_no_token_of_padding_or_of_an_ended_row_is_computed(
    quick: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[int] = []
    run = Backbone.run

    def counted(self: Backbone, *args: Any) -> torch.Tensor:
        computed.append(args[2].shape[:2].numel())
        return run(self, *args)

    monkeypatch.setattr(Backbone, "run", counted)
    prompts = quick.encode(TEXTS)
    answers = generate(quick, prompts, DecodingConfig(max_new_tokens=4))
    assert len(answers) == 3
    assert computed[0] == sum(map(len, prompts))
    assert all(0 < count <= 3 for count in computed[1:])


def test_what_changes_a_layer_runs_padded(quick: Backbone) -> None:
    with torch.no_grad():
        assert isinstance(quick.session(1, ragged=True), TextRun)
        with quick.reference():
            assert isinstance(quick.session(2, ragged=True), TextRun)
        assert isinstance(quick.session(2, ragged=True), RaggedRun)
    assert isinstance(quick.session(2, ragged=True), TextRun)  # gradients may flow
