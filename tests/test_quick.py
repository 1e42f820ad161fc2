"""The quick decoder gives what transformers gives, bit for bit, and declines what it cannot."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from latentbank.backbone.generate import DecodingConfig, generate
from latentbank.backbone.lora import LoraWeights, LowRankLinear
from latentbank.backbone.model import Backbone, load_backbone
from latentbank.backbone.quick import quick_model
from latentbank.errors import InputError

TEXTS = (
    "Question: Who is it?\nAnswer:",
    "Ada </s> Lovelace <s>wrote  it.\n\n  Café Zürich 東京 😀",
    "x",
)


def trained(backbone: Backbone, layer: int) -> LoraWeights:
    """Low-rank weights with the same random numbers for every kind of model."""
    weights = LoraWeights(backbone, layer, rank=4)
    draw = torch.Generator().manual_seed(0)
    weights.load_state(
        {
            name: torch.randn(value.shape, generator=draw).to(value.dtype) / 8
            for name, value in sorted(weights.state().items())
        }
    )
    return weights


@torch.no_grad()
def outcome(backbone: Backbone, weights: Any) -> list[torch.Tensor]:
    """Logits of ragged texts, of one more token, and over a memory that enters at layer 1."""
    ids, mask = backbone.pad(backbone.encode(TEXTS), left=True)
    right, right_mask = backbone.pad(backbone.encode(TEXTS))
    with weights.attach(backbone) if weights else nullcontext():
        states = backbone.states(right, right_mask, 1)
        run = backbone.session(len(TEXTS))
        found = [run.feed(ids, mask), run.feed(ids[:, -1:], mask[:, -1:]), states]
        with backbone.with_memory(backbone.fill(states, right_mask, 1)):
            found.append(backbone.session(len(TEXTS)).feed(ids, mask))
    return [*found, *(backbone.logits(one) for one in found)]


def assert_same(plain: Backbone, quick: Backbone) -> None:
    assert quick.quick and not plain.quick
    assert quick.fingerprint == plain.fingerprint
    assert quick.tokenizer_fingerprint == plain.tokenizer_fingerprint
    assert (quick.start_id, quick.end_id) == (plain.start_id, plain.end_id)
    rows = plain.encode(TEXTS)
    assert quick.encode(TEXTS) == rows
    for skip in (False, True):
        told = [quick.tokenizer.decode(row, skip_special_tokens=skip) for row in rows]
        assert told == [plain.tokenizer.decode(row, skip_special_tokens=skip) for row in rows]
    both = [(one, trained(one, 1)) for one in (plain, quick)]
    assert both[0][1].state().keys() == both[1][1].state().keys()
    for wanted in (False, True):
        expected, found = (outcome(one, weights if wanted else None) for one, weights in both)
        for one, other in zip(expected, found, strict=True):
            assert torch.equal(one, other)
    assert quick.fingerprint == plain.fingerprint  # the low-rank weights are no part of it
    decoding = DecodingConfig(max_new_tokens=6, beams=2)
    for row in rows:  # several at once run without padding, which rounds otherwise
        told = [generate(one, [row], decoding)[0].text for one in (plain, quick)]
        assert told[0] == told[1]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_quick_llama_computes_what_transformers_computes(backbones: Any, dtype: str) -> None:
    folder = str(backbones.folder("llama"))
    assert_same(load_backbone(folder, dtype), load_backbone(folder, dtype, quick=True))


@pytest.mark.slow
@pytest.mark.real_model
def test_a_quick_smollm2_computes_what_transformers_computes() -> None:
    pytest.importorskip("gguf")
    try:
        plain = load_backbone("smollm2-135m", "float32")
    except InputError as error:
        pytest.skip(str(error))
    assert_same(plain, load_backbone("smollm2-135m", "float32", quick=True))


def test_low_rank_weights_are_off_outside_of_the_block(backbones: Any) -> None:
    quick = load_backbone(str(backbones.folder("llama")), "float32", quick=True)
    before = outcome(quick, None)
    first, second = trained(quick, 0), trained(quick, 1)
    assert isinstance(next(iter(first.modules.values())), LowRankLinear)
    changed = outcome(quick, second)
    assert not torch.equal(before[-1], changed[-1])
    assert not torch.equal(outcome(quick, first)[-1], changed[-1])
    for one, other in zip(before, outcome(quick, None), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["gpt2", "qwen3", "gemma3"])
def test_other_models_come_from_transformers(backbones: Any, name: str) -> None:
    assert not load_backbone(str(backbones.folder(name)), "float32", quick=True).quick


@pytest.mark.parametrize(
    "change",
    [
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}},
        {"attention_bias": True},
        {"hidden_act": "gelu"},
        {"model_type": "mistral"},
        {"quantization_config": {"quant_method": "awq"}},
    ],
)
def test_an_unusual_llama_comes_from_transformers(
    backbones: Any, tmp_path: Path, change: dict[str, Any]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(backbones.folder("llama"), folder)
    assert quick_model(folder, torch.float32) is not None
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    assert quick_model(folder, torch.float32) is None


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_damaged_model_is_one_sentence(backbones: Any, tmp_path: Path, file: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(backbones.folder("llama"), folder)
    data = (folder / file).read_bytes()
    (folder / file).write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="could not be loaded"):
        load_backbone(str(folder), "float32", quick=True)
