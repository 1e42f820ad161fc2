"""What the core relies on in transformers' caches and attention, seen here first when it breaks.

Each test names the fact; none runs our own code except to compare with it.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import AttentionInterface, DynamicCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from latentbank.backbone.kv import KVMemory
from latentbank.backbone.model import Backbone
from tiny import WINDOW, Backbones, random_ids

PREFIX = 3
NEAR = {"rtol": 1e-4, "atol": 1e-4}


def pairs(backbone: Backbone, batch: int = 1, slots: int = PREFIX) -> list[tuple[Tensor, Tensor]]:
    g, draw = backbone.geometry, torch.Generator().manual_seed(0)
    shape = (batch, g.kv_heads, slots, g.head_dim)
    return [
        (torch.randn(shape, generator=draw), torch.randn(shape, generator=draw))
        for _ in range(g.layers)
    ]


def prefix_cache(backbone: Backbone, batch: int = 1) -> DynamicCache:
    cache = DynamicCache(config=backbone.model.config)
    for layer, (key, value) in enumerate(pairs(backbone, batch)):
        cache.update(key, value, layer)
    return cache


@torch.no_grad()
def ours(backbone: Backbone, ids: Tensor) -> Tensor:
    made = pairs(backbone)
    memory = KVMemory(
        tuple(k for k, _ in made), tuple(v for _, v in made),
        torch.zeros(1, PREFIX), torch.tensor([PREFIX]), positions=torch.arange(PREFIX)[None],
    )  # fmt: skip
    with backbone.with_memory(memory):
        return backbone.logits(backbone.session(1).feed(ids, torch.ones_like(ids).bool()))


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma3"])
def test_a_cache_without_config_grows_a_full_layer_at_each_new_index(
    backbones: Backbones, name: str
) -> None:
    """Our stage cache is one: no sliding layer may drop keys, whatever the model's config says."""
    backbone = backbones.shared(name)
    cache = DynamicCache()
    made = pairs(backbone, slots=3 * WINDOW)
    for layer, (key, value) in enumerate(made):
        grown = cache.update(key, value, layer)
        assert torch.equal(grown[0], key)
        assert torch.equal(grown[1], value)
    assert len(cache.layers) == backbone.geometry.layers
    longer = cache.update(made[0][0][:, :, :1], made[0][1][:, :, :1], 0)
    assert longer[0].shape[2] == 3 * WINDOW + 1
    cache.layers[0].keys = cache.layers[0].keys[:1].repeat(2, 1, 1, 1)  # as a reorder assigns it
    assert cache.layers[0].keys.shape[0] == 2


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma3"])
def test_a_cache_with_config_takes_keys_of_the_key_value_heads(
    backbones: Backbones, name: str
) -> None:
    backbone = backbones.shared(name)
    cache, g = prefix_cache(backbone), backbone.geometry
    assert len(cache.layers) == g.layers
    assert cache.get_seq_length() == PREFIX
    assert cache.layers[1].keys.shape == (1, g.kv_heads, PREFIX, g.head_dim)
    sliding = [layer.is_sliding for layer in cache.layers]
    assert sliding == ([True, False] * 2 if name == "gemma3" else [False] * 3)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma3"])
@torch.no_grad()
def test_a_prefix_needs_a_mask_over_prefix_and_text(backbones: Backbones, name: str) -> None:
    """With it, transformers' answer is ours; with one of the text's length, an error or wrong."""
    backbone, ids = backbones.shared(name), random_ids(1, 5)
    mask = torch.ones(1, PREFIX + 5, dtype=torch.long)
    own = ours(backbone, ids)
    whole = backbone.model(ids, attention_mask=mask, past_key_values=prefix_cache(backbone)).logits
    torch.testing.assert_close(whole, own, **NEAR)
    padded = mask.clone()
    padded[:, :2] = 0
    masked = backbone.model(ids, attention_mask=padded, past_key_values=prefix_cache(backbone))
    assert not torch.allclose(masked.logits, own, atol=1e-3), "the mask reaches the prefix"
    try:
        short = backbone.model(
            ids, attention_mask=mask[:, PREFIX:], past_key_values=prefix_cache(backbone)
        ).logits
    except (RuntimeError, ValueError, IndexError):
        return
    assert not torch.allclose(short, own, atol=1e-3)


@torch.no_grad()
def test_generate_changes_the_cache_and_crop_restores_it(backbones: Backbones) -> None:
    backbone, ids = backbones.shared("llama"), random_ids(1, 4)
    cache = prefix_cache(backbone)
    before = cache.layers[1].keys.clone()
    pad = torch.zeros(1, PREFIX, dtype=torch.long)
    backbone.model.generate(
        torch.cat([pad, ids], 1),
        attention_mask=torch.ones(1, PREFIX + 4, dtype=torch.long),
        past_key_values=cache, max_new_tokens=3, do_sample=False, eos_token_id=None,
    )  # fmt: skip
    assert cache.get_seq_length() > PREFIX
    cache.crop(PREFIX - cache.get_seq_length())  # negative: how many to take off
    assert torch.equal(cache.layers[1].keys, before)


def test_beams_need_the_cache_repeated(backbones: Backbones) -> None:
    cache = prefix_cache(backbones.shared("llama"))
    before = cache.layers[0].keys.clone()
    cache.batch_repeat_interleave(3)
    assert torch.equal(cache.layers[0].keys, before.repeat_interleave(3, 0))


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3", "gemma3"])
@torch.no_grad()
def test_a_4d_float_mask_is_taken_as_it_is(backbones: Backbones, name: str) -> None:
    """A key whose score gets -log 2 twice is one key: the mask is added, not only compared."""
    backbone, ids = backbones.shared(name), random_ids(1, 6)
    lowest = torch.finfo(torch.float32).min
    causal = torch.full((6, 6), lowest).triu(1)[None, None]
    mask = causal.clone()
    mask[..., 2] += torch.where(causal[..., 2] == 0, 1.5, 0.0)
    kinds = {"full_attention": mask, "sliding_attention": mask} if name == "gemma3" else mask
    plain = {k: causal for k in kinds} if isinstance(kinds, dict) else causal
    hidden = backbone.model.get_input_embeddings()(ids)
    same = backbone.body(inputs_embeds=hidden, attention_mask=plain).last_hidden_state
    moved = backbone.body(inputs_embeds=hidden, attention_mask=kinds).last_hidden_state
    bare = backbone.body(input_ids=ids).last_hidden_state
    torch.testing.assert_close(same, bare, **NEAR)
    torch.testing.assert_close(moved[:, :2], bare[:, :2], **NEAR)
    assert not torch.allclose(moved[:, 2:], bare[:, 2:], atol=1e-3)


@torch.no_grad()
def test_attention_without_a_registered_mask_ignores_padding(backbones: Backbones) -> None:
    """Why SideMemory registers both. If this fails, transformers has closed the trap."""
    backbone = backbones.fresh("llama")
    AttentionInterface.register("latentbank_no_mask", sdpa_attention_forward)
    ids = random_ids(1, 5)
    padded = torch.cat([torch.zeros(1, 4, dtype=torch.long), ids], 1)
    mask = torch.tensor([[0] * 4 + [1] * 5])
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    alone = backbone.model(ids).logits
    good = backbone.model(padded, attention_mask=mask, position_ids=positions).logits[:, 4:]
    torch.testing.assert_close(good, alone, **NEAR)
    backbone.model.set_attn_implementation("latentbank_no_mask")
    bad = backbone.model(padded, attention_mask=mask, position_ids=positions).logits[:, 4:]
    assert not torch.allclose(bad, alone, atol=1e-3)


def test_checkpointing_drops_the_cache(backbones: Backbones) -> None:
    backbone, ids = backbones.fresh("llama"), random_ids(1, 5)
    backbone.model.activation_checkpointing_enable({"use_reentrant": False})
    backbone.model.train()
    out = backbone.model(ids, use_cache=True)
    assert out.past_key_values is None or out.past_key_values.get_seq_length() == 0
