"""Transports: each says what it should to the backbone, and detached leaves no bit behind."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from latentbank.backbone.kv import KVMemory
from latentbank.backbone.layers import attention_modules
from latentbank.backbone.lora import LoraWeights
from latentbank.backbone.model import Backbone
from latentbank.backbone.transports import (
    Conditioning,
    DenseDelta,
    KVPrefix,
    LayerHook,
    LowRankDelta,
    MidStates,
    RowsDelta,
    SideMemory,
    WeightDelta,
)
from latentbank.errors import InputError
from tiny import NAMES, WINDOW, Backbones, random_ids

NEAR = {"rtol": 1e-4, "atol": 1e-4}
SLOTS = 5


@pytest.fixture(params=NAMES)
def backbone(request: pytest.FixtureRequest, backbones: Backbones) -> Backbone:
    return backbones.shared(request.param)


def ones(ids: Tensor) -> Tensor:
    return torch.ones_like(ids, dtype=torch.bool)


@torch.no_grad()
def fed_logits(backbone: Backbone, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    mask = ones(ids) if mask is None else mask
    return backbone.logits(backbone.session(len(ids)).feed(ids, mask))


def random_pairs(backbone: Backbone, batch: int, slots: int = SLOTS) -> list[tuple[Tensor, Tensor]]:
    """(keys, values) [B, H_kv, M, head_dim] of every layer."""
    g, draw = backbone.geometry, torch.Generator().manual_seed(7)
    shape = (batch, g.kv_heads, slots, g.head_dim)
    return [
        (torch.randn(shape, generator=draw), torch.randn(shape, generator=draw))
        for _ in range(g.layers)
    ]


def prefix(backbone: Backbone, batch: int, start: int = SLOTS, layer: int = 0) -> KVMemory:
    pairs = random_pairs(backbone, batch)[layer:]
    return KVMemory(
        tuple(k for k, _ in pairs), tuple(v for _, v in pairs),
        torch.zeros(batch, SLOTS), torch.full((batch,), start), layer,
    )  # fmt: skip


def side(backbone: Backbone, batch: int, layers: list[int] | None = None) -> SideMemory:
    pairs = random_pairs(backbone, batch)
    chosen = range(len(pairs)) if layers is None else layers
    return SideMemory(
        {i: pairs[i][0] for i in chosen}, {i: pairs[i][1] for i in chosen},
        torch.zeros(batch, SLOTS),
    )  # fmt: skip


# ---- what they say


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3"])
@torch.no_grad()
def test_prefix_equals_transformers_own_cache_path(backbones: Backbones, name: str) -> None:
    backbone = backbones.shared(name)
    memory, ids = prefix(backbone, 2), random_ids(2, 9)
    cache = DynamicCache(config=backbone.model.config)
    for layer, (key, value) in enumerate(zip(memory.keys, memory.values, strict=True)):
        cache.update(key, value, layer)
    expected = backbone.model(
        ids,
        attention_mask=torch.ones(2, SLOTS + 9, dtype=torch.long),
        past_key_values=cache,
        position_ids=torch.arange(SLOTS, SLOTS + 9).expand(2, -1),
    ).logits
    with KVPrefix(memory).attach(backbone):
        torch.testing.assert_close(fed_logits(backbone, ids), expected, **NEAR)


def test_prefix_from_a_middle_layer_leaves_the_layers_below_alone(backbone: Backbone) -> None:
    ids, seen = random_ids(2, 9), []
    below = backbone.states(ids, ones(ids), 1)
    layer_1 = backbone.decoder.layers[1]
    hook = layer_1.register_forward_pre_hook(
        lambda m, args, kw: seen.append(args[0] if args else kw["hidden_states"]), with_kwargs=True
    )
    try:
        with KVPrefix(prefix(backbone, 2, layer=1)).attach(backbone):
            changed = fed_logits(backbone, ids)
    finally:
        hook.remove()
    torch.testing.assert_close(seen[0], below, **NEAR)
    assert not torch.allclose(changed, fed_logits(backbone, ids), atol=1e-2)


def test_side_memory_equals_a_prefix_without_positions(backbone: Backbone) -> None:
    """One softmax over [memory | text] whichever door the memory comes in by."""
    ids = random_ids(2, 2 * WINDOW)
    with KVPrefix(prefix(backbone, 2, start=0)).attach(backbone):
        expected = fed_logits(backbone, ids)
    with side(backbone, 2).attach(backbone):
        own = fed_logits(backbone, ids)
        with torch.no_grad():
            models = backbone.model(ids).logits
    torch.testing.assert_close(own, expected, **NEAR)
    torch.testing.assert_close(models, expected, **NEAR)


def test_side_memory_counts_mass(backbone: Backbone) -> None:
    ids, copies = random_ids(2, WINDOW + 4), 6
    one = side(backbone, 2, [0, 2])
    repeat = torch.tensor([copies, *[1] * (SLOTS - 1)])
    many = SideMemory(
        {i: k.repeat_interleave(repeat, 2) for i, k in one.keys.items()},
        {i: v.repeat_interleave(repeat, 2) for i, v in one.values.items()},
        torch.zeros(2, SLOTS - 1 + copies),
    )
    mass = one.log_mass.clone()
    mass[:, 0] = torch.tensor(float(copies)).log()
    with SideMemory(one.keys, one.values, mass).attach(backbone):
        found = fed_logits(backbone, ids)
    with many.attach(backbone):
        torch.testing.assert_close(found, fed_logits(backbone, ids), **NEAR)
    with one.attach(backbone):
        assert not torch.allclose(found, fed_logits(backbone, ids), atol=1e-3)


def test_side_memory_slots_of_no_mass_are_never_read(backbone: Backbone) -> None:
    ids, memory = random_ids(2, 7), side(backbone, 2)
    with SideMemory(memory.keys, memory.values, memory.log_mass - torch.inf).attach(backbone):
        torch.testing.assert_close(
            fed_logits(backbone, ids), backbone.model(ids).logits.detach(), **NEAR
        )


@torch.no_grad()
def test_side_memory_works_with_generate_and_respects_padding(backbone: Backbone) -> None:
    rows = [random_ids(1, n, seed=n)[0].tolist() for n in (4, 13)]
    ids, mask = backbone.pad(rows, left=True)
    memory = side(backbone, 2)
    options: dict[str, Any] = {
        "do_sample": False, "max_new_tokens": 6, "output_logits": True,
        "return_dict_in_generate": True, "eos_token_id": None,
    }  # fmt: skip
    with memory.attach(backbone):
        together = backbone.model.generate(ids, attention_mask=mask.long(), **options)
    plain = backbone.model.generate(ids, attention_mask=mask.long(), **options)
    assert not torch.allclose(together.logits[0], plain.logits[0], atol=1e-2)
    for i, row in enumerate(rows):
        alone = SideMemory(
            {k: v[i : i + 1] for k, v in memory.keys.items()},
            {k: v[i : i + 1] for k, v in memory.values.items()},
            memory.log_mass[i : i + 1],
        )
        own = torch.tensor([row])
        with alone.attach(backbone):
            single = backbone.model.generate(own, attention_mask=torch.ones_like(own), **options)
        assert torch.equal(together.sequences[i, len(ids[0]) :], single.sequences[0, len(row) :])
        torch.testing.assert_close(together.logits[5][i], single.logits[5][0], **NEAR)


def test_gradients_reach_side_memory_through_checkpointing(backbones: Backbones) -> None:
    backbone, ids = backbones.fresh("llama"), random_ids(1, 6)
    memory = side(backbone, 1, [1])
    keys = {1: memory.keys[1].clone().requires_grad_(True)}
    grads = []
    for checkpointing in (False, True):
        if checkpointing:
            backbone.model.activation_checkpointing_enable({"use_reentrant": False})
            backbone.model.train()
        keys[1].grad = None
        with SideMemory(keys, memory.values, memory.log_mass).attach(backbone):
            backbone.model(ids, labels=ids).loss.backward()
        assert keys[1].grad is not None
        grads.append(keys[1].grad.clone())
    assert grads[0].abs().sum() > 0
    torch.testing.assert_close(grads[0], grads[1], **NEAR)


def test_weight_delta_adds_to_the_named_weight(backbones: Backbones) -> None:
    backbone, ids = backbones.fresh("llama"), random_ids(1, 6)
    name = "model.layers.1.mlp.up_proj.weight"
    weight = dict(backbone.model.named_parameters())[name]
    delta = torch.full_like(weight, 0.1)
    before = weight.detach().clone()
    with WeightDelta({name: delta}).attach(backbone):
        changed = fed_logits(backbone, ids)
        assert torch.equal(weight, before), "the weight itself is never written"
    with torch.no_grad():
        weight.add_(delta)
        torch.testing.assert_close(changed, fed_logits(backbone, ids))
        weight.copy_(before)
    assert not torch.allclose(changed, fed_logits(backbone, ids), atol=1e-3)


def test_the_kinds_of_delta_agree_and_carry_gradients(backbones: Backbones) -> None:
    backbone, ids = backbones.fresh("llama"), random_ids(1, 6)
    name = "model.layers.1.mlp.up_proj.weight"
    shape = dict(backbone.model.named_parameters())[name].shape
    draw = torch.Generator().manual_seed(0)
    left = torch.randn(shape[0], 2, generator=draw, requires_grad=True)
    right = torch.randn(2, shape[1], generator=draw)
    index = torch.tensor([3, 0])
    rows = torch.randn(2, shape[1], generator=draw, requires_grad=True)
    dense = torch.zeros(shape).index_add(0, index, rows.detach())
    pairs = [
        (LowRankDelta(left, right, 0.5), DenseDelta(0.5 * left.detach() @ right)),
        (RowsDelta(index, rows), DenseDelta(dense)),
    ]
    for one, same in pairs:
        with WeightDelta({name: one}).attach(backbone):
            found = backbone.model(ids).logits
        with WeightDelta({name: same}).attach(backbone):
            torch.testing.assert_close(found.detach(), fed_logits(backbone, ids), **NEAR)
        found.square().sum().backward()
    assert left.grad is not None and rows.grad is not None
    assert left.grad.abs().sum() > 0 and rows.grad.abs().sum() > 0
    assert all(p.grad is None for p in backbone.model.parameters())


def test_tied_weights_change_together(backbones: Backbones) -> None:
    backbone, ids = backbones.fresh("gpt2"), random_ids(1, 6)
    weight = backbone.model.get_input_embeddings().weight
    assert weight is backbone.model.get_output_embeddings().weight
    name = next(n for n, p in backbone.model.named_parameters() if p is weight)
    delta = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    with WeightDelta({name: delta}).attach(backbone):
        changed = fed_logits(backbone, ids)
    before = weight.detach().clone()
    with torch.no_grad():
        weight.add_(delta)
        torch.testing.assert_close(changed, fed_logits(backbone, ids), **NEAR)
        weight.copy_(before)


@pytest.mark.parametrize(
    ("delta", "sentence"),
    [
        (torch.ones(2, 3), "a dense delta must have the shape"),
        (RowsDelta(torch.tensor([0]), torch.ones(1, 3)), "rows must have the shape"),
        (RowsDelta(torch.tensor([9999]), torch.ones(1, 32)), "outside the 48 rows"),
        (LowRankDelta(torch.ones(4, 1), torch.ones(1, 4)), "a low-rank delta must have the shape"),
    ],
)
def test_deltas_of_another_shape_are_refused(
    backbones: Backbones, delta: Any, sentence: str
) -> None:
    backbone = backbones.shared("llama")
    deltas = WeightDelta({"model.layers.1.mlp.up_proj.weight": delta})
    with pytest.raises(InputError, match=sentence), deltas.attach(backbone):
        pass


def test_a_layer_hook_reads_and_adds(backbone: Backbone) -> None:
    ids = random_ids(2, 9)
    below = backbone.states(ids, ones(ids), 1)
    seen: list[Tensor] = []
    weight = torch.randn(backbone.geometry.width, generator=torch.Generator().manual_seed(2))
    weight.requires_grad_(True)

    def add(hidden: Tensor) -> Tensor:
        seen.append(hidden.detach())
        return weight.expand_as(hidden)

    bare = fed_logits(backbone, ids)
    with LayerHook(lambda hidden: None, 1).attach(backbone):
        assert torch.equal(fed_logits(backbone, ids), bare), "reading alone changes nothing"
    with LayerHook(add, 1).attach(backbone):
        changed = backbone.model(ids).logits
        torch.testing.assert_close(fed_logits(backbone, ids), changed.detach(), **NEAR)
    torch.testing.assert_close(seen[0], below, **NEAR)
    assert not torch.allclose(changed, bare, atol=1e-3)
    changed.sum().backward()
    assert weight.grad is not None and weight.grad.abs().sum() > 0
    with (
        pytest.raises(InputError, match="layer 9 is outside"),
        LayerHook(add, 9).attach(backbone),
    ):
        pass


def text_queries(backbone: Backbone, layer: int) -> Callable[[Tensor], Tensor]:
    """The queries that the text itself asks with at position 0, where rotation is the identity."""
    module: Any = attention_modules(backbone.decoder)[layer]
    heads, depth = backbone.geometry.heads, backbone.geometry.head_dim

    def queries(hidden: Tensor) -> Tensor:
        if hasattr(module, "c_attn"):
            projected = module.c_attn(hidden)[..., : heads * depth]
        else:
            projected = module.q_proj(hidden)
        split = projected.view(*hidden.shape[:2], heads, depth)
        normal = getattr(module, "q_norm", None)
        return (split if normal is None else normal(split)).transpose(1, 2)

    return queries


@torch.no_grad()
def test_own_queries_share_one_softmax_with_the_text(backbone: Backbone) -> None:
    memory = side(backbone, 2, [1])
    first = random_ids(2, 1)
    same = SideMemory(memory.keys, memory.values, memory.log_mass, {1: text_queries(backbone, 1)})
    with memory.attach(backbone):
        expected = fed_logits(backbone, first)
    with same.attach(backbone):
        torch.testing.assert_close(fed_logits(backbone, first), expected, **NEAR)


def test_own_queries_are_not_rotated_and_carry_gradients(backbone: Backbone) -> None:
    g, ids, memory = backbone.geometry, random_ids(2, WINDOW), side(backbone, 2, [1])
    draw = torch.Generator().manual_seed(4)
    query = torch.randn(1, g.heads, 1, g.head_dim, generator=draw, requires_grad=True)

    def own(hidden: Tensor) -> Tensor:
        return query.expand(len(hidden), -1, hidden.shape[1], -1)

    slots = (
        {1: memory.keys[1][:, :, [1, 0, *range(2, SLOTS)]]},
        {1: memory.values[1][:, :, [1, 0, *range(2, SLOTS)]]},
    )
    bare = fed_logits(backbone, ids)
    for keys, values in ((memory.keys, memory.values), slots):  # no slot has a position
        with SideMemory(keys, values, memory.log_mass, {1: own}).attach(backbone):
            found = backbone.model(ids).logits
        assert not torch.allclose(found, bare, atol=1e-3)
        found.square().mean().backward()
        assert query.grad is not None and query.grad.abs().sum() > 0
        if keys is memory.keys:
            before = found.detach()
    torch.testing.assert_close(found.detach(), before, **NEAR)
    assert "knowledge" not in attention_modules(backbone.decoder)[1].__dict__


# ---- what they leave behind: nothing


def lora(backbone: Backbone, targets: str = "attention") -> LoraWeights:
    made = LoraWeights(backbone, 1, rank=2, alpha=4, targets=targets)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters.values():
            parameter.copy_(torch.randn(parameter.shape, generator=draw))
    return made


def a_weight(backbone: Backbone) -> dict[str, Tensor]:
    name, weight = next((n, p) for n, p in backbone.model.named_parameters() if p.dim() == 2)
    return {name: torch.randn(weight.shape, generator=torch.Generator().manual_seed(3))}


MAKERS: dict[str, Callable[[Backbone], Any]] = {
    "prefix": lambda b: KVPrefix(prefix(b, 2)),
    "prefix at layer 1": lambda b: KVPrefix(prefix(b, 2, layer=1)),
    "states": lambda b: MidStates(torch.randn(2, 4, b.geometry.width), torch.ones(2, 4).bool(), 1),
    "side": lambda b: side(b, 2),
    "weight delta": lambda b: WeightDelta(a_weight(b)),
    "layer hook": lambda b: LayerHook(lambda hidden: hidden.roll(1, -1), 1),
    "lora": lora,
    "kv lora": lambda b: lora(b, "kv"),
}


@pytest.mark.parametrize("failing", [False, True], ids=["", "after an exception"])
@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("name", NAMES)
def test_detached_the_backbone_is_bit_identical(
    backbones: Backbones, name: str, kind: str, failing: bool
) -> None:
    backbone, ids = backbones.fresh(name), random_ids(2, 9)
    with torch.no_grad():
        bare = fed_logits(backbone, ids), backbone.model(ids).logits
    transport = MAKERS[kind](backbone)

    class Stop(Exception):
        pass

    try:
        with Conditioning((transport,)).attach(backbone):
            assert not torch.allclose(fed_logits(backbone, ids), bare[0], atol=1e-3)
            if failing:
                raise Stop
    except Stop:
        assert failing
    with torch.no_grad():
        assert torch.equal(fed_logits(backbone, ids), bare[0])
        assert torch.equal(backbone.model(ids).logits, bare[1])
    assert backbone.memory is None


def test_a_transport_that_fails_to_attach_takes_the_others_off(backbones: Backbones) -> None:
    backbone, ids = backbones.fresh("llama"), random_ids(2, 9)
    bare = fed_logits(backbone, ids)
    good: tuple[Any, ...] = (side(backbone, 2), lora(backbone), KVPrefix(prefix(backbone, 2)))
    bad = WeightDelta({"no.such.weight": torch.ones(1)})
    unattached = Conditioning((*good, bad)).attach(backbone)
    with pytest.raises(InputError, match=r"no\.such\.weight"), unattached:
        pass
    assert torch.equal(fed_logits(backbone, ids), bare)
    keyless = SideMemory(good[0].keys, {}, good[0].log_mass)  # fails between two layers
    with pytest.raises(KeyError), keyless.attach(backbone):
        pass
    assert torch.equal(fed_logits(backbone, ids), bare)
    far = SideMemory({9: good[0].keys[0]}, {9: good[0].keys[0]}, good[0].log_mass)
    with pytest.raises(InputError, match="outside the 3"), far.attach(backbone):
        pass


# ---- low-rank weights


def test_lora_gradients_stay_in_the_adapter(backbone: Backbone, backbones: Backbones) -> None:
    fresh = backbones.fresh(backbone.name)
    made = lora(fresh)
    with made.attach(fresh):
        nll, _ = fresh.answer_loss([[1, 5, 6]], [[8, 9, 2]])
        nll.sum().backward()
    for name, parameter in made.parameters.items():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    own = {id(p) for p in made.parameters.values()}
    assert all(p.grad is None for p in fresh.model.parameters() if id(p) not in own)


def test_kv_lora_leaves_queries_and_outputs_alone(backbones: Backbones) -> None:
    made = LoraWeights(backbones.fresh("llama"), 2, rank=2, targets="kv")
    assert sorted(made.modules) == [f"model.layers.2.self_attn.{p}_proj" for p in "kv"]


def test_lora_can_be_trained_from_the_start(backbones: Backbones) -> None:
    """A data-parallel wrapper takes what requires gradients when training begins."""
    made = LoraWeights(backbones.fresh("llama"), 1, rank=2)
    assert all(p.requires_grad for p in made.parameters.values())


@torch.no_grad()
def test_dropout_is_on_in_training_only(backbones: Backbones) -> None:
    """Also when the layers run for the first time after `train`."""
    backbone, ids = backbones.fresh("llama"), random_ids(2, 9)
    made = LoraWeights(backbone, 1, rank=2, dropout=0.5)
    for parameter in made.parameters.values():
        parameter.fill_(0.3)
    made.train()
    with made.attach(backbone):
        assert not torch.equal(fed_logits(backbone, ids), fed_logits(backbone, ids))
        made.train(False)
        assert torch.equal(fed_logits(backbone, ids), fed_logits(backbone, ids))


def test_two_adapters_share_a_backbone_without_meeting(backbones: Backbones) -> None:
    backbone, ids = backbones.fresh("llama"), random_ids(2, 9)
    bare = fed_logits(backbone, ids)
    first = lora(backbone)
    with first.attach(backbone):
        alone = fed_logits(backbone, ids)
    second = lora(backbone, "kv")
    with torch.no_grad():
        for parameter in second.parameters.values():
            parameter.mul_(2)
    with second.attach(backbone):
        other = fed_logits(backbone, ids)
    with first.attach(backbone):
        assert torch.equal(fed_logits(backbone, ids), alone)
    assert not torch.allclose(other, alone, atol=1e-3)
    assert torch.equal(fed_logits(backbone, ids), bare)
    assert all(p.requires_grad for p in (*first.parameters.values(), *second.parameters.values()))


def test_adapters_leave_no_list_of_configs_on_the_model(backbones: Backbones) -> None:
    backbone, ids = backbones.fresh("llama"), random_ids(2, 9)
    bare = fed_logits(backbone, ids)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for targets in ("attention", "kv", "attention"):
            lora(backbone, targets)
    assert not hasattr(backbone.model, "peft_config")
    assert torch.equal(fed_logits(backbone, ids), bare)
    backbone.model.peft_config = {"own": "a caller's"}
    lora(backbone)
    assert backbone.model.peft_config == {"own": "a caller's"}


def test_lora_state_round_trips_and_refuses_other_shapes(backbones: Backbones) -> None:
    backbone, ids = backbones.fresh("gpt2"), random_ids(2, 9)
    made = lora(backbone)
    with made.attach(backbone):
        expected = fed_logits(backbone, ids)
    state = {name: value.clone() for name, value in made.state().items()}
    other = backbones.fresh("gpt2")
    loaded = LoraWeights(other, 1, rank=2, alpha=4)
    loaded.load_state(state)
    with loaded.attach(other):
        assert torch.equal(fed_logits(other, ids), expected)
    with pytest.raises(InputError, match="holds no low-rank matrix"):
        LoraWeights(backbones.fresh("gpt2"), 1, rank=3).load_state(state)
    with pytest.raises(InputError, match="attention"):
        LoraWeights(backbones.fresh("gpt2"), 1, targets="mlp")


def test_wrapping_does_not_change_the_fingerprint(backbones: Backbones) -> None:
    backbone = backbones.fresh("llama")
    LoraWeights(backbone, 1, rank=2)
    assert backbone.fingerprint == backbones.shared("llama").fingerprint


def test_weight_delta_finds_a_weight_that_lora_wraps(backbones: Backbones) -> None:
    backbone, ids = backbones.fresh("llama"), random_ids(2, 9)
    name = "model.layers.1.self_attn.q_proj.weight"
    delta = WeightDelta({name: torch.full((32, 32), 0.2)})
    with delta.attach(backbone):
        expected = fed_logits(backbone, ids)
    LoraWeights(backbone, 1, rank=2)
    with delta.attach(backbone):
        assert torch.equal(fed_logits(backbone, ids), expected)
