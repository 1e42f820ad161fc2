"""The small language models: streams equal whole texts, Hugging Face's forms, bounded state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from latentbank.errors import InputError, UnknownNameError
from latentbank.parts.memory_lm import ARCHITECTURES, MemoryLM, MemoryLMConfig, Stream
from latentbank.parts.memory_lm.mixers import delta_chunk

SMALL = {
    "vocab_size": 40, "width": 16, "heads": 2, "head_dim": 8, "window": 6, "persistent": 2,
    "ffn": 16, "chunk": 5,
}  # fmt: skip


def made(architecture: str, seed: int = 0, **chosen: Any) -> MemoryLM:
    """A model whose parameters are all off their start."""
    torch.manual_seed(seed)
    model = MemoryLM(MemoryLMConfig(architecture, **{**SMALL, **chosen}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.train(False)


def ids(length: int, batch: int = 2, seed: int = 3) -> Tensor:
    return torch.randint(1, 40, (batch, length), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=ARCHITECTURES)
def model(request: pytest.FixtureRequest) -> MemoryLM:
    return made(request.param)


@torch.no_grad()
def test_pieces_equal_the_whole(model: MemoryLM) -> None:
    text = ids(29)
    whole = model(text)
    for cuts in ([1, 2, 5, 6, 7, 13, 28], [12], list(range(1, 29))):
        stream, logits = None, []
        for first, last in zip([0, *cuts], [*cuts, 29], strict=True):
            found = model(text[:, first:last], stream)
            stream = Stream.from_tensors(load(save(found.past_key_values.tensors())))
            logits.append(found.logits)
        torch.testing.assert_close(torch.cat(logits, 1), whole.logits, rtol=1e-4, atol=1e-4)
        assert stream.seen == 29


@torch.no_grad()
def test_a_token_sees_only_what_is_before_it(model: MemoryLM) -> None:
    text = ids(20)
    changed = text.clone()
    changed[:, 11:] = (changed[:, 11:] + 7) % 39 + 1
    one, two = model(text).logits, model(changed).logits
    torch.testing.assert_close(one[:, :11], two[:, :11])
    assert not torch.allclose(one[:, 11:], two[:, 11:], atol=1e-3)


@torch.no_grad()
def test_memories_reach_beyond_the_window_and_attention_does_not(model: MemoryLM) -> None:
    """Two layers of a window of 6 reach 10 tokens back; a changed token lies 25 back."""
    text = ids(30)
    changed = text.clone()
    changed[:, 4] = (changed[:, 4] + 7) % 39 + 1
    same = torch.equal(model(text).logits[:, -1], model(changed).logits[:, -1])
    assert same == (model.config.architecture == "window")


@torch.no_grad()
def test_generate_equals_repeated_calls(model: MemoryLM) -> None:
    text = ids(9)
    expected = text
    for _ in range(8):
        expected = torch.cat([expected, model(expected).logits[:, -1:].argmax(-1)], 1)
    found = model.generate(text, max_new_tokens=8, do_sample=False, pad_token_id=0)
    assert torch.equal(found, expected)
    rest = model.generate(
        text[:, 5:], past_key_values=model.read(text[:, :5], piece=2), max_new_tokens=8,
        do_sample=False, pad_token_id=0,
    )  # fmt: skip
    assert torch.equal(rest, expected[:, 5:]), "generation goes on from a stream"


@torch.no_grad()
def test_beam_search_reorders_the_state(model: MemoryLM) -> None:
    found = model.generate(ids(9), max_new_tokens=6, num_beams=3, pad_token_id=0)
    best = model(found).logits[:, 8:-1].log_softmax(-1).gather(2, found[:, 9:, None]).sum((1, 2))
    greedy = model.generate(ids(9), max_new_tokens=6, do_sample=False, pad_token_id=0)
    first = model(greedy).logits[:, 8:-1].log_softmax(-1).gather(2, greedy[:, 9:, None])
    assert (best >= first.sum((1, 2)) - 1e-4).all()


@torch.no_grad()
def test_save_and_load_give_the_same_model(model: MemoryLM, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    again = MemoryLM.from_pretrained(tmp_path)
    assert again.config.architecture == model.config.architecture
    assert torch.equal(again(ids(15)).logits, model(ids(15)).logits)


def test_gradients_reach_every_parameter(model: MemoryLM) -> None:
    text = ids(24)
    model(text, labels=text).loss.backward()
    missing = [k for k, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not missing


@torch.no_grad()
def test_the_state_does_not_grow(model: MemoryLM) -> None:
    stream = model.read(ids(60), piece=30)
    size = stream.nbytes
    stream = model.read(ids(600), stream, piece=60)
    assert stream.seen == 660 and stream.nbytes == size
    assert model.guarded(stream)["skipped"] == 0


def test_a_memory_in_a_model_starts_as_a_memory_does() -> None:
    model = MemoryLM(MemoryLMConfig("MAL", **SMALL))
    memory = model.blocks[0].mixer.memory
    forget, _, step = memory.to_gates.bias.view(3, -1)
    assert (forget < -5).all() and (step < -1).all()
    queries, keys, _ = memory.to_qkv.weight.chunk(3)
    assert torch.equal(queries, keys)


def test_losses_of_padding_and_empty_texts_are_refused(model: MemoryLM) -> None:
    with pytest.raises(InputError, match="at least one token"):
        model(ids(0))
    mask = torch.ones(2, 5)
    mask[0, 0] = 0
    with pytest.raises(InputError, match="no padding"):
        model(ids(5), attention_mask=mask)


def test_a_config_that_cannot_be_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="MAC"):
        MemoryLMConfig("MAX")
    for wrong in ({"width": 0}, {"head_dim": 7}, {"persistent": -1}):
        with pytest.raises(InputError):
            MemoryLMConfig("MAC", **wrong)
    with pytest.raises(InputError, match="seen"):
        Stream.from_tensors({})


@torch.no_grad()
def test_the_delta_rule_is_exact() -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 9, 5, dtype=torch.double)
    k = torch.nn.functional.normalize(k, dim=-1)
    step = torch.rand(2, 9, 1, dtype=torch.double)
    memory = torch.randn(2, 5, 5, dtype=torch.double)
    answers, last = delta_chunk(memory, q, k, v, step)
    for t in range(9):
        wrong = v[:, t] - (memory @ k[:, t, :, None])[..., 0]
        memory = memory + step[:, t, :, None] * wrong[..., None] * k[:, t, None]
        torch.testing.assert_close((memory @ q[:, t, :, None])[..., 0], answers[:, t])
    torch.testing.assert_close(memory, last)


def test_persistent_tokens_take_part() -> None:
    model = made("MAG")
    without = made("MAG", persistent=0)
    state = model.state_dict()
    own = {k: v for k, v in state.items() if not k.endswith("persistent")}
    without.load_state_dict(own, strict=False)
    assert not torch.allclose(without(ids(9)).logits, model(ids(9)).logits, atol=1e-3)
