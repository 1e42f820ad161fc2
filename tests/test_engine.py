"""Engines compute what PyTorch computes, within the rounding of 8 bits, and step back where not."""

from __future__ import annotations

import importlib.util
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from latentbank.backbone import engines, loading
from latentbank.backbone.engines import EngineWarning, chosen_engine
from latentbank.backbone.generate import DecodingConfig, PromptRun, generate
from latentbank.backbone.kv import KVMemory, StackedCache
from latentbank.backbone.lora import LoraWeights
from latentbank.backbone.model import Backbone, load_backbone
from latentbank.backbone.transports import LayerHook, WeightDelta
from latentbank.errors import InputError, UnknownNameError
from latentbank.model import MemoryModel
from tiny import DOCUMENTS, QUESTIONS, Backbones

TEXTS = ("Question: Who is it?\nAnswer:", "Ada Lovelace wrote it.", "x")
installed = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="needs the package openvino"
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LATENTBANK_CACHE", str(tmp_path))
    return tmp_path / "engines"


@pytest.fixture
def pair(
    backbones: Backbones, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Backbone, Backbone]:
    """The tiny Llama on PyTorch and on OpenVINO, which rounds the weights only."""
    if importlib.util.find_spec("openvino") is not None:
        from latentbank.backbone.engines import openvino

        monkeypatch.setitem(openvino.OPTIONS, "DYNAMIC_QUANTIZATION_GROUP_SIZE", "0")
    folder = str(backbones.folder("llama"))
    plain = load_backbone(folder, "float32", quick=True)
    return plain, load_backbone(folder, quick=True, engine="openvino")


def trained(backbone: Backbone, seed: int) -> LoraWeights:
    weights = LoraWeights(backbone, 1, rank=4)
    draw = torch.Generator().manual_seed(seed)
    weights.load_state(
        {
            name: torch.randn(value.shape, generator=draw).to(value.dtype) / 16
            for name, value in sorted(weights.state().items())
        }
    )
    return weights


@torch.no_grad()
def outcome(backbone: Backbone, weights: Any = None) -> list[torch.Tensor]:
    """States, a text in two blocks, a memory at layer 1, and what is read over it."""
    ids, mask = backbone.pad(backbone.encode(TEXTS), left=True)
    right, right_mask = backbone.pad(backbone.encode(TEXTS))
    with weights.attach(backbone) if weights else nullcontext():
        states = backbone.states(right, right_mask, 1)
        run = backbone.session(len(TEXTS))
        found = [states, run.feed(ids, mask)[:, -1]]
        run.reorder(torch.tensor([2, 0, 0]))
        found.append(run.feed(ids[:, -2:], mask[:, -2:]))
        memory = backbone.fill(states, right_mask, 1)
        with backbone.with_memory(memory):
            over = backbone.session(len(TEXTS))
            found += [over.feed(ids, mask)[:, -1], over.feed(ids[:, -1:], mask[:, -1:])]
    kept = right_mask[:, None, :, None]
    found += [memory.keys[0] * kept, memory.values[-1] * kept]
    return [*found, backbone.logits(found[1])]


def differing(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    """The largest difference of a tensor, as a share of its norm."""
    assert [a.shape for a in one] == [b.shape for b in other]
    pairs = [(a.float(), b.float()) for a, b in zip(one, other, strict=True)]
    return max(float((a - b).norm() / b.norm()) for a, b in pairs)


def assert_close(one: list[torch.Tensor], other: list[torch.Tensor]) -> None:
    assert differing(one, other) < 0.08


@installed
def test_an_engine_computes_what_pytorch_computes(pair: tuple[Backbone, Backbone]) -> None:
    plain, fast = pair
    assert plain.engine is None and isinstance(fast.new_cache(0, 1), StackedCache) is False
    with torch.no_grad():
        assert isinstance(fast.new_cache(0, 1), StackedCache)
    assert_close(outcome(fast), outcome(plain))
    assert fast.fingerprint == plain.fingerprint


@installed
def test_low_rank_weights_are_switched_and_follow_what_is_loaded(
    pair: tuple[Backbone, Backbone],
) -> None:
    plain, fast = pair
    before = outcome(fast)
    first, second = ([trained(one, seed) for one in pair] for seed in (1, 2))
    for weights in (first, second):
        assert_close(outcome(fast, weights[1]), outcome(plain, weights[0]))
    assert_close(outcome(fast), before)  # off again
    changed = outcome(plain, first[0])
    assert differing(changed, before) > 0.3, "or they change nothing"
    for one in first:
        one.load_state({name: 0 * value for name, value in one.state().items()})
    assert_close(outcome(fast, first[1]), before)


@installed
def test_likelihoods_and_answers_over_a_memory(pair: tuple[Backbone, Backbone]) -> None:
    found = []
    for backbone in pair:
        prompts = backbone.encode(QUESTIONS)
        ids, mask = backbone.pad(backbone.encode([d.text for d in DOCUMENTS]))
        plain = PromptRun(backbone, prompts, scored=[8] * len(prompts), split=1)
        with torch.no_grad():
            memory: KVMemory = backbone.fill(backbone.states(ids, mask, 1), mask, 1)
        with backbone.with_memory(memory):
            over = plain.repeat(range(len(prompts)))
            texts = [one.text for one in over.answers()]
            direct = generate(backbone, prompts)
        assert texts == [one.text for one in direct], "sharing lower layers changes no answer"
        found.append([*plain.likelihoods(), *over.likelihoods()])
    assert found[0] == pytest.approx(found[1], rel=0.05)


@installed
def test_where_gradients_flow_or_a_layer_is_changed_pytorch_computes(
    pair: tuple[Backbone, Backbone],
) -> None:
    plain, fast = pair
    ids, mask = fast.pad(fast.encode(TEXTS))
    states = fast.states(ids, mask, 1).requires_grad_(True)
    fast.fill(states, mask, 1).keys[0].sum().backward()
    assert states.grad is not None and states.grad.norm() > 0
    name = "model.layers.2.mlp.down_proj.weight"
    changes = [
        LayerHook(lambda states: torch.ones_like(states), 1),
        WeightDelta({name: torch.ones(dict(plain.model.named_parameters())[name].shape)}),
    ]
    for change in changes:
        pairs = []
        for backbone in pair:
            with change.attach(backbone):
                pairs.append(outcome(backbone))
        assert_close(*pairs)
        assert (pairs[0][1] - outcome(plain)[1]).norm() > 0.1


@installed
def test_compiled_layers_are_kept_and_damaged_ones_made_again(
    backbones: Backbones, pair: tuple[Backbone, Backbone], cache: Path
) -> None:
    before = outcome(pair[1])
    kept = sorted(cache.glob("*.blob"))
    assert kept
    for damage in (lambda data: data[: len(data) // 2], lambda data: b"no model" + data):
        for file in kept:
            file.write_bytes(damage(file.read_bytes()))
        again = load_backbone(str(backbones.folder("llama")), quick=True, engine="openvino")
        assert_close(outcome(again), before)
        assert sorted(cache.glob("*.blob")) == kept


@installed
def test_a_model_that_an_engine_cannot_run_is_left_to_pytorch(
    backbones: Backbones, cache: Path
) -> None:
    folder = str(backbones.folder("gpt2"))
    with pytest.warns(EngineWarning, match="PyTorch runs this one"):
        loaded = load_backbone(folder, "float32", quick=True, engine="openvino")
    assert loaded.engine is None
    assert load_backbone(folder, "float32", quick=True, engine="auto").engine is None  # no warning
    assert generate(loaded, loaded.encode(TEXTS), DecodingConfig(max_new_tokens=2))


def test_an_engine_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownNameError, match="openvino"):
        chosen_engine("openvin")
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: None)
    assert chosen_engine("auto") == "torch"
    with pytest.raises(InputError, match=r"pip install 'latentbank\[openvino\]'"):
        chosen_engine("openvino")
    monkeypatch.undo()
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: name)
    assert chosen_engine("auto") == "openvino"
    assert chosen_engine("auto", "cuda") == "torch"
    with pytest.raises(InputError, match="CPU"):
        chosen_engine("openvino", "cuda")


def test_weights_are_mapped_not_copied(backbones: Backbones) -> None:
    """A model in the dtype of its file shares the file's pages."""
    folder = backbones.folder("llama")
    model, _ = loading.load_pretrained(str(folder), None, quick=True)
    saved, _ = loading.load_pretrained(str(folder), torch.float64, quick=True)
    assert model.dtype == torch.float32 and saved.dtype == torch.float64
    lines = Path("/proc/self/maps")
    if lines.exists():
        start = model.lm_head.weight.untyped_storage().data_ptr()
        ranges = [line.split(maxsplit=5) for line in lines.read_text().splitlines()]
        holding = [
            row[-1]
            for row in ranges
            if int(row[0].split("-")[0], 16) <= start < int(row[0].split("-")[1], 16)
        ]
        assert holding and holding[0].endswith("model.safetensors")


@installed
def test_a_memory_model_answers_on_an_engine(backbones: Backbones, cache: Path) -> None:
    folder = str(backbones.folder("llama"))
    with MemoryModel.from_pretrained(
        "rag", backbone=folder, quick=True, engine="auto", overrides={"least_match": 0.0}
    ) as model:
        assert model.backbone.engine is not None
        model.write(DOCUMENTS)
        answers = model.ask_many(QUESTIONS)
    assert [one.documents[0][0] for one in answers if one.documents]
