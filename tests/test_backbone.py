"""Golden tests of the backbone: text in any padding and any steps equals transformers' own pass.

And states that enter at a layer equal text that stood there.
"""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from latentbank.backbone import loading
from latentbank.backbone.kv import KVMemory
from latentbank.backbone.model import Backbone, load_backbone
from latentbank.errors import InputError, UnknownNameError
from tiny import NAMES, WINDOW, Backbones, random_ids

NEAR = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(params=NAMES)
def backbone(request: pytest.FixtureRequest, backbones: Backbones) -> Backbone:
    return backbones.shared(request.param)


def ones(ids: Tensor) -> Tensor:
    return torch.ones_like(ids, dtype=torch.bool)


def fed_logits(backbone: Backbone, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    mask = ones(ids) if mask is None else mask
    return backbone.logits(backbone.session(len(ids)).feed(ids, mask))


# ---- text


@torch.no_grad()
def test_a_block_of_text_equals_the_models_own_logits(backbone: Backbone) -> None:
    ids = random_ids(3, 3 * WINDOW)
    torch.testing.assert_close(fed_logits(backbone, ids), backbone.model(ids).logits, **NEAR)


@pytest.mark.parametrize("steps", [[1] * 20, [7, 1, 12], [19, 1]])
@torch.no_grad()
def test_feeding_in_steps_equals_one_block(backbone: Backbone, steps: list[int]) -> None:
    ids = random_ids(2, 20)
    session = backbone.session(2)
    parts = [backbone.logits(session.feed(part, ones(part))) for part in ids.split(steps, 1)]
    torch.testing.assert_close(torch.cat(parts, 1), backbone.model(ids).logits, **NEAR)


@pytest.mark.parametrize("left", [False, True])
@torch.no_grad()
def test_padding_and_batching_change_nothing(backbone: Backbone, left: bool) -> None:
    rows = [random_ids(1, n, seed=n)[0].tolist() for n in (4, 17, 11)]
    ids, mask = backbone.pad(rows, left=left)
    assert ids.shape == (3, 17)
    assert mask.sum(1).tolist() == [4, 17, 11]
    together = fed_logits(backbone, ids, mask)
    for i, row in enumerate(rows):
        alone = backbone.model(torch.tensor([row])).logits[0]
        torch.testing.assert_close(together[i, mask[i]], alone, **NEAR)


@torch.no_grad()
def test_left_padded_rows_continue_as_single_rows_do(backbone: Backbone) -> None:
    rows, more = [random_ids(1, n, seed=n)[0].tolist() for n in (3, 14)], random_ids(2, 5, seed=9)
    session = backbone.session(2)
    session.feed(*backbone.pad(rows, left=True))
    after = backbone.logits(session.feed(more, ones(more)))
    for i, row in enumerate(rows):
        whole = torch.tensor([row + more[i].tolist()])
        expected = backbone.model(whole).logits[0, len(row) :]
        torch.testing.assert_close(after[i], expected, **NEAR)


@torch.no_grad()
def test_reordered_rows_keep_their_own_past(backbone: Backbone) -> None:
    ids, more = random_ids(3, 10), random_ids(2, 4, seed=5)
    session = backbone.session(3)
    session.feed(ids, ones(ids))
    index = torch.tensor([2, 0])
    session.reorder(index)
    after = backbone.logits(session.feed(more, ones(more)))
    expected = backbone.model(torch.cat([ids[index], more], 1)).logits[:, 10:]
    torch.testing.assert_close(after, expected, **NEAR)


def test_geometry_is_the_configurations(backbones: Backbones) -> None:
    found = {name: backbones.shared(name).geometry for name in NAMES}
    assert [(g.heads, g.kv_heads, g.head_dim) for g in found.values()] == [
        (4, 4, 8), (4, 2, 8), (4, 2, 16), (4, 2, 16),
    ]  # fmt: skip
    assert [g.layers for g in found.values()] == [3, 3, 3, 4]


# ---- states at a layer


@torch.no_grad()
def test_states_equal_transformers_hidden_states(backbone: Backbone) -> None:
    ids = random_ids(2, 2 * WINDOW + 3)
    reference = backbone.model(ids, output_hidden_states=True).hidden_states
    for layer in range(1, backbone.geometry.layers + 1):
        states = backbone.states(ids, ones(ids), layer)
        torch.testing.assert_close(states, reference[layer], **NEAR)


@torch.no_grad()
def test_passage_filled_at_layer_0_equals_the_full_prompt(backbone: Backbone) -> None:
    passage, question = random_ids(2, 2 * WINDOW), random_ids(2, WINDOW + 3, seed=1)
    full = backbone.model(torch.cat([passage, question], 1)).logits[:, passage.shape[1] :]
    memory = backbone.fill(backbone.states(passage, ones(passage), 0), ones(passage), 0)
    with backbone.with_memory(memory):
        torch.testing.assert_close(fed_logits(backbone, question), full, **NEAR)
        session = backbone.session(2)
        parts = [backbone.logits(session.feed(p, ones(p))) for p in question.split(4, 1)]
        torch.testing.assert_close(torch.cat(parts, 1), full, **NEAR)


@torch.no_grad()
def test_passages_of_unlike_length_equal_their_own_prompts(backbone: Backbone) -> None:
    passages = [random_ids(1, n, seed=n)[0].tolist() for n in (5, 19)]
    questions = [random_ids(1, n, seed=n)[0].tolist() for n in (12, 7)]
    ids, mask = backbone.pad(passages)
    asked, asked_mask = backbone.pad(questions, left=True)
    memory = backbone.fill(backbone.states(ids, mask, 0), mask, 0)
    with backbone.with_memory(memory):
        together = fed_logits(backbone, asked, asked_mask)
    for i, (passage, question) in enumerate(zip(passages, questions, strict=True)):
        alone = backbone.model(torch.tensor([passage + question])).logits[0, len(passage) :]
        torch.testing.assert_close(together[i, asked_mask[i]], alone, **NEAR)


@torch.no_grad()
def test_memory_at_a_layer_equals_states_standing_before_the_text(backbone: Backbone) -> None:
    """Upper layers over [memory states | text states] in one pass, without any cache."""
    layer, layers = 1, backbone.geometry.layers
    passage, text = random_ids(2, WINDOW + 2), random_ids(2, WINDOW + 5, seed=2)
    below = backbone.states(passage, ones(passage), layer)
    own = backbone.states(text, ones(text), layer)
    both = torch.cat([below, own], 1)
    positions = torch.arange(both.shape[1]).expand(2, -1)
    causal = positions[:, :, None] >= positions[:, None, :]
    masks = backbone.attention_masks(positions, positions, causal)
    expected = backbone.run(layer, layers, both, positions, masks, None)[:, passage.shape[1] :]
    with backbone.with_memory(backbone.fill(below, ones(passage), layer)):
        found = backbone.session(2).feed(text, ones(text))
    torch.testing.assert_close(found, expected, **NEAR)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_gradients_reach_the_states_and_never_the_backbone(backbone: Backbone, layer: int) -> None:
    passage = random_ids(2, 9)
    states = backbone.states(passage, ones(passage), layer).requires_grad_(True)
    with backbone.with_memory(backbone.fill(states, ones(passage), layer)):
        nll, tokens = backbone.answer_loss([[1, 5, 6], [1, 7]], [[8, 9, 2], [10, 2]])
    assert tokens.tolist() == [3, 2]
    nll.sum().backward()
    assert states.grad is not None
    assert torch.isfinite(states.grad).all()
    assert (states.grad.abs().sum(-1) > 0).all(), "every slot must matter"
    assert all(p.grad is None and not p.requires_grad for p in backbone.model.parameters())


@torch.no_grad()
def test_padded_slots_of_a_memory_are_never_read(backbone: Backbone) -> None:
    states = torch.randn(1, 6, backbone.geometry.width, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[True] * 4 + [False] * 2])
    text = random_ids(1, 8)
    found = []
    for junk in (0.0, 50.0):
        states[:, 4:] = junk
        with backbone.with_memory(backbone.fill(states, mask, 1)):
            found.append(fed_logits(backbone, text))
    with backbone.with_memory(backbone.fill(states[:, :4], mask[:, :4], 1)):
        found.append(fed_logits(backbone, text))
    torch.testing.assert_close(found[0], found[1], **NEAR)
    torch.testing.assert_close(found[0], found[2], **NEAR)


# ---- log mass


@pytest.mark.parametrize("copies", [2, 7])
@torch.no_grad()
def test_identical_slots_equal_one_slot_of_their_mass(backbone: Backbone, copies: int) -> None:
    g, draw = backbone.geometry, torch.Generator().manual_seed(copies)
    pairs = [torch.randn(2, 2, g.kv_heads, 3, g.head_dim, generator=draw) for _ in range(g.layers)]
    bias = torch.zeros(2, 3)
    start = torch.full((2,), 3)
    single = KVMemory(
        tuple(p[0] for p in pairs), tuple(p[1] for p in pairs),
        bias + torch.tensor([0.0, float(copies), 0.0]).clamp_min(1).log(), start,
    )  # fmt: skip
    repeat = torch.tensor([1, copies, 1])
    many = KVMemory(
        tuple(p[0].repeat_interleave(repeat, 2) for p in pairs),
        tuple(p[1].repeat_interleave(repeat, 2) for p in pairs),
        torch.zeros(2, 2 + copies), start,
    )  # fmt: skip
    text = random_ids(2, 2 * WINDOW)
    found = []
    for memory in (single, many):
        with backbone.with_memory(memory):
            found.append(fed_logits(backbone, text))
    torch.testing.assert_close(found[0], found[1], **NEAR)
    assert not torch.allclose(found[0], fed_logits(backbone, text), atol=1e-2)


# ---- answer loss


def test_answer_loss_is_the_cross_entropy_of_the_full_logits(backbone: Backbone) -> None:
    prompts = [[1, *random_ids(1, n, seed=n)[0].tolist()] for n in (3, 15, 8)]
    answers = [[40, 41, 2], [50, 2], [60, 61, 62, 63, 2]]
    nll, tokens = backbone.answer_loss(prompts, answers)
    assert tokens.tolist() == [3, 2, 5]
    for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        with torch.no_grad():
            logits = backbone.model(torch.tensor([prompt + answer])).logits[0]
        at = slice(len(prompt) - 1, len(prompt) - 1 + len(answer))
        expected = torch.nn.functional.cross_entropy(
            logits[at], torch.tensor(answer), reduction="sum"
        )
        torch.testing.assert_close(nll[i], expected, **NEAR)


def test_answer_loss_runs_the_head_at_answer_positions_only(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    head = backbone.model.get_output_embeddings()
    handle = head.register_forward_hook(lambda m, args, out: seen.append(out.shape[:-1].numel()))
    try:
        backbone.answer_loss([[1, 5, 6, 7], [1, 7]], [[8, 2], [10, 11, 2]])
    finally:
        handle.remove()
    assert seen == [5]


# ---- loading, names and refusals


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@torch.no_grad()
def test_both_dtypes_load_and_run(backbones: Backbones, backbone: Backbone, dtype: str) -> None:
    loaded = backbones.shared(backbone.name, dtype)
    assert loaded.dtype == getattr(torch, dtype)
    ids = random_ids(2, 20)
    memory = loaded.fill(loaded.states(ids, ones(ids), 1), ones(ids), 1)
    with loaded.with_memory(memory):
        logits = fed_logits(loaded, ids)
    assert torch.isfinite(logits).all()
    wide = fed_logits(backbone, ids)
    plain = fed_logits(loaded, ids).float()
    assert torch.nn.functional.cosine_similarity(plain, wide, dim=-1).min() > 0.97
    assert loaded.fingerprint == backbone.fingerprint, "dtype does not count"


def test_a_local_model_loads_without_a_bar(
    backbones: Backbones, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    load_backbone(str(backbones.folder(NAMES[0])), dtype="float32")
    assert "Loading weights" not in capsys.readouterr().err
    assert logging.is_progress_bar_enabled() == shown


def test_fingerprints_tell_backbones_apart(backbones: Backbones) -> None:
    prints = {backbones.shared(name).fingerprint for name in NAMES}
    assert len(prints) == len(NAMES)
    changed = backbones.fresh("llama")
    with torch.no_grad():
        changed.model.lm_head.weight.add_(0.5)
    assert changed.fingerprint != backbones.shared("llama").fingerprint


def test_the_dtype_measurement_is_made_once_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[torch.dtype] = []

    def seconds(dtype: torch.dtype) -> float:
        calls.append(dtype)
        busy = len(calls) % 20 < 12  # somebody else is running for the first part of it
        return (1.0 if dtype == torch.float32 else 0.5) * (3 if busy else 1)

    file = loading.cache_folder() / "dtype.json"
    file.unlink(missing_ok=True)
    monkeypatch.setattr(loading, "_linear_seconds", seconds)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert loading.fastest_dtype() == torch.bfloat16
    assert calls == [torch.float32, torch.bfloat16] * 10
    assert list(json.loads(file.read_text()).values()) == ["bfloat16"]
    assert loading.fastest_dtype() == torch.bfloat16
    assert len(calls) == 20
    file.write_text("{torn")  # a damaged cache is measured anew
    assert loading.fastest_dtype() == torch.bfloat16
    assert len(calls) == 40


def test_what_cannot_be_loaded_is_told_in_a_sentence(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UnknownNameError, match="smollm2-135m"):
        load_backbone("no-such-model")
    with pytest.raises(InputError, match=r"config\.json"):
        load_backbone(str(tmp_path))
    with pytest.raises(InputError, match="does not exist"):
        load_backbone(str(tmp_path / "no.gguf"))
    with pytest.raises(UnknownNameError, match="bfloat16"):
        load_backbone("smollm2-135m", dtype="int7")


def test_a_memory_of_another_batch_is_refused(backbone: Backbone) -> None:
    ids = random_ids(2, 4)
    memory = backbone.fill(backbone.states(ids, ones(ids), 0), ones(ids), 0)
    with backbone.with_memory(memory), pytest.raises(InputError, match="2 rows, the text 3"):
        backbone.session(3)
    assert backbone.memory is None
