"""Amortised memory's networks: masses, windows, padding and shapes, and the pooling of states."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration, T5Model

from latentbank.backbone.processor import flushed_denormals
from latentbank.errors import InputError
from latentbank.parts.amortised import cross_attention, t5
from latentbank.parts.amortised.aggregator import Aggregator
from latentbank.parts.amortised.alignment import PrefixAlignment, StateAlignment
from latentbank.parts.amortised.amortiser import PerceiverAmortiser, TokenwiseMLP
from latentbank.parts.amortised.cross_attention import COPY_GAIN, HIDDEN, MEAN_GAIN, CrossAttention
from latentbank.parts.amortised.t5 import T5Amortiser
from latentbank.parts.pooling import SegmentPooler, Standardiser, segment_means
from tiny import Backbones

WIDTH, TOKENS = 16, 3


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def aggregator() -> Aggregator:
    torch.manual_seed(0)
    made = Aggregator(WIDTH, 8, 2, blocks=3)
    with torch.no_grad():  # the last linear map of each block starts at zero
        for block in made.blocks:
            torch.nn.init.normal_(block.mlp[2].weight, std=0.3)
    return made


# ---- mass


def test_copies_of_a_slot_equal_its_mass(aggregator: Aggregator) -> None:
    question, slots = random(2, TOKENS, WIDTH), random(5, WIDTH, seed=1)
    counts = torch.tensor([4, 1, 2, 1, 9])
    copies = aggregator(question, slots.repeat_interleave(counts, 0))
    masses = aggregator(question, slots, counts.float().log())
    torch.testing.assert_close(copies, masses)
    assert not torch.allclose(copies, aggregator(question, slots), atol=1e-3)


def test_slots_have_no_order(aggregator: Aggregator) -> None:
    question, slots = random(2, TOKENS, WIDTH), random(7, WIDTH, seed=1)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(aggregator(question, slots[order]), aggregator(question, slots))


def test_each_row_reads_its_own_slots(aggregator: Aggregator) -> None:
    question, slots = random(2, TOKENS, WIDTH), random(2, 6, WIDTH, seed=1)
    mass = random(2, 6, seed=2)
    both = aggregator(question, slots, mass)
    for i in range(2):
        alone = aggregator(question[i : i + 1], slots[i], mass[i])
        torch.testing.assert_close(both[i : i + 1], alone)


def test_kept_projections_answer_like_the_slots(aggregator: Aggregator) -> None:
    question, slots = random(2, TOKENS, WIDTH), random(6, WIDTH, seed=1)
    kept = aggregator.project(slots[None])
    torch.testing.assert_close(aggregator.attend(question, kept, None), aggregator(question, slots))


def test_a_slot_of_no_mass_is_not_read() -> None:
    torch.manual_seed(0)
    block = CrossAttention(WIDTH, 8, 2, 8)
    question, slots = random(1, TOKENS, WIDTH), random(1, 4, WIDTH, seed=1)
    bias = torch.tensor([[0.0, 0.0, 0.0, -torch.inf]])
    keys, values = block.project(slots)
    expected = block(question, keys[:, :, :3], values[:, :, :3])
    torch.testing.assert_close(block(question, keys, values, bias), expected)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("at_once", [1, 50, 1 << 22])
def test_the_shares_of_owners_are_those_of_their_slots(
    aggregator: Aggregator, shared: bool, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cross_attention, "SCORES_AT_ONCE", at_once)
    question, slots = random(2, TOKENS, WIDTH), random(1 if shared else 2, 9, WIDTH, seed=1)
    owner, bias = torch.tensor([2, 0, 0, 1, 2, 2, 0, 1, 0]), random(1, 9, seed=2)
    finder = aggregator.finder
    keys = finder.project(slots)[0]
    found = finder.owner_shares(question, keys, bias, owner, 4)
    for number in range(3):
        wanted = (owner == number)[None].expand(2, -1)
        torch.testing.assert_close(found[:, number], finder.share(question, keys, bias, wanted))
    torch.testing.assert_close(found.sum(1), torch.ones(2))
    assert not found[:, 3].any()


# ---- hierarchical aggregation


@pytest.mark.parametrize("window", [20, 21, 1000, 0])
def test_a_window_of_all_slots_is_the_flat_result(aggregator: Aggregator, window: int) -> None:
    question, slots = random(2, TOKENS, WIDTH), random(20, WIDTH, seed=1)
    mass = random(20, seed=2)
    flat = aggregator(question, slots, mass)
    assert torch.equal(aggregator(question, slots, mass, window), flat)


@pytest.mark.parametrize(("slots", "window"), [(20, 6), (50, 7), (13, 12), (97, 8)])
def test_every_slot_of_the_bank_has_a_say(aggregator: Aggregator, slots: int, window: int) -> None:
    """The published code drops what lies beyond the question's length; here nothing is dropped."""
    bank = random(slots, WIDTH, seed=1).requires_grad_(True)
    aggregator(random(1, TOKENS, WIDTH), bank, None, window).pow(2).sum().backward()
    assert bank.grad is not None
    assert (bank.grad.abs().sum(1) > 0).all()


def test_two_windows_equal_two_aggregations_and_one_of_their_results(
    aggregator: Aggregator,
) -> None:
    question, slots, mass = random(2, TOKENS, WIDTH), random(11, WIDTH, seed=1), random(11, seed=2)
    parts = [aggregator(question, slots[:7], mass[:7]), aggregator(question, slots[7:], mass[7:])]
    expected = aggregator(question, torch.cat(parts, 1))
    torch.testing.assert_close(aggregator(question, slots, mass, 7), expected)


def test_a_window_too_small_to_end_is_refused(aggregator: Aggregator) -> None:
    with pytest.raises(InputError, match="at least two results of 3"):
        aggregator(random(1, TOKENS, WIDTH), random(20, WIDTH), None, 2 * TOKENS - 1)


@pytest.mark.parametrize("window", [0, 8, 50])
def test_hidden_slots_are_not_read_in_any_window(aggregator: Aggregator, window: int) -> None:
    question, slots = random(2, TOKENS, WIDTH), random(30, WIDTH, seed=1)
    mass = torch.zeros(2, 30)
    mass[0, 5:], mass[1, :25] = HIDDEN, HIDDEN
    found = aggregator(question, slots, mass, window)
    other = slots.clone()
    other[5:25] = 9.0
    assert torch.equal(aggregator(question, other, mass, window), found)
    other[0] = 9.0
    again = aggregator(question, other, mass, window)
    assert torch.equal(again[1], found[1])
    assert not torch.allclose(again[0], found[0], atol=1e-3)


# ---- copying


def test_copying_starts_with_identity_values_and_a_rotation() -> None:
    torch.manual_seed(0)
    block = CrossAttention(WIDTH, 8, 2, 8, copying=True)
    assert torch.equal(block.v.weight, torch.eye(WIDTH))
    assert torch.equal(block.out.weight, torch.eye(WIDTH))
    assert torch.equal(block.q.weight, block.k.weight)
    torch.testing.assert_close(
        block.q.weight @ block.q.weight.T, COPY_GAIN**2 * torch.eye(8), rtol=1e-4, atol=1e-4
    )


def test_copying_reads_the_mean_of_the_slots_that_resemble_the_query() -> None:
    torch.manual_seed(0)
    width = 64
    block = CrossAttention(width, width, 2, 8, copying=True)
    asked = random(1, 1, width)
    alike = asked + 0.05 * random(1, 3, width, seed=1)
    slots = torch.cat([alike, random(1, 20, width, seed=2)], 1)
    read = block(asked, *block.project(slots)) - asked
    expected = torch.nn.functional.layer_norm(alike, (width,)).mean(1, keepdim=True)
    torch.testing.assert_close(read, expected, rtol=0, atol=0.05)


def test_copying_heads_must_divide_both_widths() -> None:
    CrossAttention(WIDTH, 9, 3, 8)
    with pytest.raises(InputError, match="got 16 and 3"):
        CrossAttention(WIDTH, 9, 3, 8, copying=True)
    with pytest.raises(InputError, match="got 10 and 4"):
        CrossAttention(WIDTH, 10, 4, 8, copying=True)


# ---- amortisers


@pytest.mark.parametrize("blocks", [1, 3])
def test_a_perceiver_from_means_starts_as_base_and_mean_beside_the_codes(blocks: int) -> None:
    torch.manual_seed(0)
    made = PerceiverAmortiser(WIDTH, WIDTH, TOKENS, 8, 2, blocks, start="mean")
    features, mask = random(2, 6, WIDTH), torch.tensor([[True] * 6, [True] * 2 + [False] * 4])
    base = segment_means(features, mask, TOKENS)
    mean = torch.stack([features[0].mean(0), features[1, :2].mean(0)])[:, None]
    places = torch.linalg.qr(made.queries.T).Q
    for content, found in (
        (base + MEAN_GAIN * mean, made(features, mask, base)),
        ((MEAN_GAIN * mean).expand_as(base), made(features, mask)),
    ):
        outside = content - content @ places @ places.T
        torch.testing.assert_close(found, outside + made.queries)
    made(features, mask, base).pow(2).sum().backward()
    grads = {n: p.grad for n, p in made.named_parameters()}
    assert (grads["blocks.0.out.weight"] != 0).any(), "it can leave its start"
    with pytest.raises(InputError, match="features of width 16, got 10"):
        PerceiverAmortiser(10, WIDTH, TOKENS, 8, 2, start="mean")


def test_shares_are_the_attention_on_the_wanted_slots() -> None:
    torch.manual_seed(0)
    made = Aggregator(WIDTH, 8, 2, blocks=2)
    question, slots = random(3, TOKENS, WIDTH), random(5, WIDTH)
    everything = torch.ones(3, 5, dtype=torch.bool)
    torch.testing.assert_close(made.shares(question, slots, None, everything), torch.ones(2, 3))
    wanted = everything.clone()
    wanted[:, 2:] = False
    rest = made.shares(question, slots, None, ~wanted)
    part = made.shares(question, slots, None, wanted)
    torch.testing.assert_close(part + rest, torch.ones(2, 3))
    hidden = torch.zeros(3, 5).masked_fill(~wanted, HIDDEN)
    torch.testing.assert_close(made.shares(question, slots, hidden, wanted), torch.ones(2, 3))


def test_directions_left_out_are_not_read() -> None:
    torch.manual_seed(0)
    made, directions = Aggregator(WIDTH, 8, 2, 2, copying=True), random(3, WIDTH)
    made.leave_out(directions)
    for block in made.blocks:
        assert (block.v(directions)).abs().max() < 1e-5
        other = torch.linalg.qr(directions.T, mode="complete").Q.T[3:]
        torch.testing.assert_close(block.v(other), other, rtol=1e-4, atol=1e-5)


def test_comparing_finds_the_own_document_and_the_same_place() -> None:
    """Texts differ in faint directions beside a loud one that says nothing about them."""
    torch.manual_seed(0)
    width, texts = 64, 20
    made = Aggregator(width, 32, 1, 2, copying=True)
    codes = random(TOKENS, width, seed=5)
    faint, loud = torch.ones(width), torch.zeros(width)
    faint[0], loud[0] = 0.0, 12.0
    topic = faint * random(texts, 1, width, seed=6)
    level = random(2 * texts, 1, 1, seed=7)
    noise = 0.3 * (faint + loud) * random(2 * texts, TOKENS, width, seed=8)
    content = noise + loud * level + torch.cat([topic, topic])
    places = torch.linalg.qr(codes.T).Q
    latents = codes + content - content @ places @ places.T
    documents, questions = latents[:texts], latents[texts:] + loud
    slots = documents.flatten(0, 1)
    wanted = torch.eye(texts * TOKENS, dtype=torch.bool).view(texts, TOKENS, -1)
    before = made.shares(questions, slots, None, wanted)[0].mean()
    assert not made.compares
    made.compare(questions, documents, codes)
    assert made.compares
    after = made.shares(questions, slots, None, wanted)[0].mean()
    assert before < 0.3
    assert after > 0.6


def test_perceiver_ignores_padding_and_gives_t_latents() -> None:
    torch.manual_seed(0)
    made = PerceiverAmortiser(10, WIDTH, TOKENS, 8, 2)
    features, mask = random(2, 6, 10), torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    latents = made(features, mask)
    assert latents.shape == (2, TOKENS, WIDTH)
    junk = features.clone()
    junk[1, 4:] = 1e3
    torch.testing.assert_close(made(junk, mask), latents)
    alone = made(features[1:, :4], mask[1:, :4])
    torch.testing.assert_close(alone, latents[1:])


@pytest.mark.parametrize("kind", [T5Model, T5ForConditionalGeneration])
def test_t5_amortiser_ignores_padding_and_learns(kind: type) -> None:
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=50, d_model=12, d_kv=6, d_ff=16, num_layers=1, num_heads=2, dropout_rate=0.0,
        decoder_start_token_id=0,
    )  # fmt: skip
    made = T5Amortiser(kind(config), WIDTH, TOKENS).eval()
    ids = torch.tensor([[5, 6, 7, 8, 9], [10, 11, 12, 1, 2]])
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    latents = made(ids, mask)
    assert latents.shape == (2, TOKENS, WIDTH)
    other = ids.clone()
    other[1, 3:] = 44
    torch.testing.assert_close(made(other, mask), latents)
    torch.testing.assert_close(made(ids[1:, :3], mask[1:, :3]), latents[1:], rtol=1e-4, atol=1e-5)
    latents.pow(2).sum().backward()
    reached = {n.split(".")[0] for n, p in made.named_parameters() if p.grad is not None}
    assert reached == {"t5", "prompts", "heads"}
    # nothing of one prompt's MLP depends on another prompt
    assert made.prompts.grad is not None
    assert (made.prompts.grad.abs().sum(1) > 0).all()


def test_packed_texts_give_what_padded_ones_give(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the texts take several blocks, and with gated layers (T5 v1.1)."""
    monkeypatch.setattr(t5, "TOKENS_AT_ONCE", 40)
    for kind in ("relu", "gated-gelu"):
        torch.manual_seed(0)
        config = T5Config(
            vocab_size=50, d_model=12, d_kv=6, d_ff=16, num_layers=2, num_heads=2,
            feed_forward_proj=kind, decoder_start_token_id=0,
        )  # fmt: skip
        made = T5Amortiser(T5Model(config), WIDTH, TOKENS).eval()
        lengths = torch.tensor([35, 3, 17, 60, 1])
        mask = torch.arange(60)[None] < lengths[:, None]
        ids = torch.randint(1, 50, mask.shape)
        padded = made(ids, mask)
        with torch.no_grad():
            torch.testing.assert_close(made(ids, mask), padded, rtol=1e-4, atol=1e-5)
            monkeypatch.setattr(t5, "packed_outputs", None)  # and it was packed
            with pytest.raises(TypeError):
                made(ids, mask)
            monkeypatch.undo()


def test_tokens_have_an_mlp_each() -> None:
    torch.manual_seed(0)
    mlp = TokenwiseMLP(TOKENS, WIDTH, 5)
    x = random(2, TOKENS, WIDTH)
    assert torch.equal(mlp(x), x), "the skip alone at the start"
    with torch.no_grad():
        mlp.second[1] = 1.0
    moved = (mlp(x) - x).abs().sum((0, 2))
    assert moved[1] > 0
    assert moved[[0, 2]].sum() == 0


# ---- alignment


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma3"])
def test_prefix_alignment_has_the_shape_of_the_key_value_heads(
    backbones: Backbones, name: str
) -> None:
    g = backbones.shared(name).geometry
    align = PrefixAlignment(TOKENS, g.width, g.layers, g.kv_heads, g.head_dim, virtual=2)
    out = align(random(5, TOKENS, g.width))
    assert out.shape == (2 * g.layers, 5, g.kv_heads, 2, g.head_dim)


def test_prefix_alignment_keeps_rows_apart() -> None:
    torch.manual_seed(0)
    align = PrefixAlignment(TOKENS, WIDTH, 2, 1, 4)
    tokens = random(3, TOKENS, WIDTH)
    torch.testing.assert_close(align(tokens)[:, 1:2], align(tokens[1:2]))


def test_state_alignment_starts_as_a_normalised_copy() -> None:
    tokens = random(2, TOKENS, WIDTH)
    expected = torch.nn.functional.layer_norm(tokens, (WIDTH,))
    torch.testing.assert_close(StateAlignment(WIDTH)(tokens), expected)


def test_attention_heads_must_fit() -> None:
    with pytest.raises(InputError, match="got 10 and 4"):
        CrossAttention(WIDTH, 10, 4, 8)


# ---- pooling


def test_standardiser_measures_and_inverts() -> None:
    states = 5 + 3 * random(4, 9, WIDTH)
    mask = torch.ones(4, 9).bool()
    mask[0, 5:] = False
    states[0, 5:] = 1e6  # padding must not be measured
    standard = Standardiser(WIDTH)
    standard.measure(states, mask)
    rows = standard(states)[mask]
    torch.testing.assert_close(rows.mean(0), torch.zeros(WIDTH), atol=1e-4, rtol=0)
    torch.testing.assert_close(rows.std(0), torch.ones(WIDTH), atol=1e-4, rtol=0)
    torch.testing.assert_close(standard.restore(standard(states)), states)


def test_segments_are_contiguous_means_at_the_start() -> None:
    pooler = SegmentPooler(WIDTH)
    states, mask = random(1, 7, WIDTH), torch.ones(1, 7).bool()
    pooled, kept = pooler(states, mask, 3)
    assert kept.tolist() == [[True] * 3]
    segment = torch.arange(7) * 3 // 7  # 0 0 0 1 1 2 2
    for i in range(3):
        torch.testing.assert_close(pooled[0, i], states[0, segment == i].mean(0))


def test_short_texts_give_a_vector_for_each_token_and_padding_none() -> None:
    pooler = SegmentPooler(WIDTH)
    with torch.no_grad():
        torch.nn.init.normal_(pooler.score[2].weight)
        torch.nn.init.normal_(pooler.residual[3].weight)
    states = random(3, 7, WIDTH)
    mask = torch.tensor([[True] * 7, [True] * 2 + [False] * 5, [False] * 7])
    pooled, kept = pooler(states, mask, 4)
    assert kept.sum(1).tolist() == [4, 2, 0]
    assert pooled[:2][~kept[:2]].abs().sum() == 0
    alone, _ = pooler(states[1:2, :2], mask[1:2, :2], 4)
    torch.testing.assert_close(pooled[1:2], alone)
    assert torch.isfinite(pooled).all()


# ---- denormal numbers


def test_denormals_are_flushed_inside_only() -> None:
    least = torch.full((4,), torch.finfo(torch.float32).tiny)
    assert (least / 2 > 0).all()
    with flushed_denormals():
        assert (least / 2 == 0).all()
        with flushed_denormals():
            pass
        assert (least / 2 == 0).all()
    assert (least / 2 > 0).all()
