"""Titans' neural memory: its equations step by step, its state, its guards, its cost."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor

from latentbank.errors import InputError, UnknownNameError
from latentbank.parts.neural_memory import MemorySettings, NeuralMemory, State
from latentbank.parts.neural_memory.scan import Gates, associative_scan, coefficients
from latentbank.parts.neural_memory.update import activation, activation_slope, apply, dual_chunk

WIDTH = 12
SMALL = {"heads": 2, "head_dim": 6, "chunk": 4}


def made(seed: int = 0, double: bool = False, width: int = WIDTH, **chosen: Any) -> NeuralMemory:
    """A memory whose parameters are all off their start, zeros included."""
    torch.manual_seed(seed)
    memory = NeuralMemory(width, MemorySettings(**{**SMALL, **chosen}))
    with torch.no_grad():
        for parameter in memory.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return memory.double() if double else memory


def text(length: int, batch: int = 2, seed: int = 1, width: int = WIDTH) -> Tensor:
    return torch.randn(batch, length, width, generator=torch.Generator().manual_seed(seed))


def step_by_step(memory: NeuralMemory, x: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Equations 12 to 15 with autograd, a head and a token at a time: (output, M_T, S_T)."""
    own = memory.settings
    x = x.double()
    padded = torch.cat([torch.zeros(x.shape[0], own.convolution - 1, WIDTH).double(), x], 1)
    mixed = memory.to_qkv(padded)
    kernel = memory.convolution.weight
    mixed = sum(mixed[:, i : i + x.shape[1]] * kernel[:, i] for i in range(own.convolution))
    q, k, v = mixed.sigmoid().mul(mixed).view(*x.shape[:2], 3, own.heads, -1).unbind(2)
    q, k = q / q.norm(dim=-1, keepdim=True), k / k.norm(dim=-1, keepdim=True)
    gates = memory.to_gates(x).detach().sigmoid().view(*x.shape[:2], 3, own.heads)
    said = torch.zeros(x.shape[0], x.shape[1], own.heads, own.head_dim).double()
    ends: list[Tensor] = [torch.zeros(x.shape[0], *w.shape).double() for w in memory.initial]
    moved = [torch.zeros_like(w) for w in ends]
    for b in range(x.shape[0]):
        for h in range(own.heads):
            weights = [w[h].detach().clone() for w in memory.initial]
            speed = [torch.zeros_like(w) for w in weights]

            def network(x: Tensor, layers: list[Tensor]) -> Tensor:
                for i, layer in enumerate(layers):
                    x = layer @ x
                    if i + 1 < len(layers):
                        root = len(x) ** 0.5
                        x = torch.nn.functional.silu(root * x) / root
                return x

            for t in range(x.shape[1]):
                alpha, eta, theta = (float(gates[b, t, i, h]) for i in range(3))
                leaves = [w.requires_grad_() for w in weights]
                loss = (network(k[b, t, h].detach(), leaves) - v[b, t, h].detach()).pow(2).sum()
                slopes = torch.autograd.grad(loss, leaves)
                speed = [
                    eta * s - own.max_step * theta * g for s, g in zip(speed, slopes, strict=True)
                ]
                weights = [
                    (1 - alpha) * w.detach() + s for w, s in zip(weights, speed, strict=True)
                ]
                said[b, t, h] = network(q[b, t, h], weights).detach()
            for i, (w, s) in enumerate(zip(weights, speed, strict=True)):
                ends[i][b, h], moved[i][b, h] = w, s
    normal = said / (said.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * memory.norm.weight
    gate = torch.nn.functional.silu(memory.to_output_gate(x))
    return memory.to_output(normal.flatten(2) * gate), ends, moved


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("form", ["dual", "scan"])
def test_chunk_one_is_the_paper_step_by_step(depth: int, form: str) -> None:
    memory = made(depth=depth, chunk=1, form=form, clip=0.0, double=True, max_step=0.2)
    x = text(9)
    output, weights, momentum = step_by_step(memory, x)
    single = NeuralMemory(WIDTH, memory.settings)
    single.load_state_dict(memory.state_dict())
    for one, near in ((memory, 1e-10), (single, 1e-5)):
        found = one(x.to(one.to_gates.weight.dtype))
        torch.testing.assert_close(found.output.double(), output, rtol=near, atol=near)
        for own, expected in zip(found.state.weights, weights, strict=True):
            torch.testing.assert_close(own.double(), expected, rtol=near, atol=near)
        for own, expected in zip(found.state.momentum, momentum, strict=True):
            torch.testing.assert_close(own.double(), expected, rtol=near, atol=near)
    assert all(w.dtype == torch.float32 for w in single(x).state.weights)


@pytest.mark.parametrize("gates", ["token", "chunk"])
@pytest.mark.parametrize("depth", [1, 3])
def test_both_forms_give_the_same(depth: int, gates: str) -> None:
    memory = made(depth=depth, chunk=5, expansion=2, gates=gates, clip=1.0)
    x = text(13)
    other = NeuralMemory(WIDTH, replace(memory.settings, form="scan"))
    other.load_state_dict(memory.state_dict())
    one, two = memory(x), other(x)
    torch.testing.assert_close(one.output, two.output, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(one.surprise, two.surprise, rtol=1e-4, atol=1e-5)
    for name, value in one.state.tensors().items():
        torch.testing.assert_close(value, two.state.tensors()[name], rtol=1e-4, atol=1e-5)
    assert int(one.state.clipped.sum()) > 0, "the limit is low enough to be met"


@settings(deadline=None, max_examples=25)
@given(
    cuts=st.lists(st.integers(0, 30), max_size=5),
    gates=st.sampled_from(["token", "chunk"]),
    convolution=st.sampled_from([0, 1, 4]),
    chunk=st.integers(1, 9),
)
def test_one_long_call_equals_many_short_ones(
    cuts: list[int], gates: str, convolution: int, chunk: int
) -> None:
    memory = made(gates=gates, convolution=convolution, chunk=chunk)
    x = text(30)
    whole = memory(x)
    state, outputs, surprises = None, [], []
    for first, last in zip([0, *sorted(cuts)], [*sorted(cuts), 30], strict=True):
        found = memory(x[:, first:last], state)
        if state is not None:  # through a file, too
            state = State.from_tensors(load(save(found.state.tensors())))
        else:
            state = found.state
        outputs.append(found.output)
        surprises.append(found.surprise)
    torch.testing.assert_close(torch.cat(outputs, 1), whole.output, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.cat(surprises, 1), whole.surprise, rtol=1e-4, atol=1e-4)
    for name, value in state.tensors().items():
        torch.testing.assert_close(value, whole.state.tensors()[name], rtol=1e-4, atol=1e-4)


def test_save_and_load_change_nothing() -> None:
    memory = made()
    state = memory(text(11)).state
    again = State.from_tensors(load(save(state.tensors())))
    assert again.position == state.position == 3 and again.seen == 11
    assert torch.equal(memory(text(7), again).output, memory(text(7), state).output)


def test_the_scan_is_the_recurrence() -> None:
    torch.manual_seed(0)
    decay, added = torch.rand(3, 17, dtype=torch.double), torch.randn(3, 17, 2).double()
    decay[0, 5] = 0.0
    x, expected = torch.zeros(3, 2).double(), []
    for t in range(17):
        x = decay[:, t, None] * x + added[:, t]
        expected.append(x)
    torch.testing.assert_close(associative_scan(decay, added), torch.stack(expected, 1))


def test_coefficients_without_gates_are_running_sums() -> None:
    """α = 0 and η = 0: M_t = M_0 - θ · (sum of the gradients so far)."""
    zero, one = torch.zeros(1, 4), torch.ones(1, 4)
    of_weights, _ = coefficients(Gates(zero, zero, 0.5 * one, one))
    assert torch.equal(of_weights[0, :, :4], -0.5 * torch.ones(4, 4).tril())
    assert torch.equal(of_weights[0, :, 4:], torch.tensor([[0.0, 1.0]] * 4))


def test_the_slope_is_the_derivative() -> None:
    z = torch.randn(5, 8, dtype=torch.double, requires_grad=True)
    (expected,) = torch.autograd.grad(activation(z).sum(), z)
    torch.testing.assert_close(activation_slope(z), expected)


def test_padding_changes_neither_state_nor_output() -> None:
    memory = made()
    x = text(11)
    padded = torch.cat([x, text(5, seed=7)], 1)
    mask = torch.arange(16).expand(2, 16) < 11
    one, two = memory(x), memory(padded, mask=mask)
    torch.testing.assert_close(two.output[:, :11], one.output)
    for a, b in zip(one.state.weights, two.state.weights, strict=True):
        torch.testing.assert_close(a, b)


def test_a_later_token_never_changes_an_earlier_answer() -> None:
    memory = made(gates="chunk")
    x = text(16)
    changed = x.clone()
    changed[:, 9:] = 5.0
    assert torch.equal(memory(x).output[:, :9], memory(changed).output[:, :9])


def test_it_learns_what_it_reads() -> None:
    """Pairs shown twice surprise less the second time, and less than other pairs do."""
    memory = made(head_dim=16, convolution=0, clip=0.0, depth=1, momentum=False, max_step=5.0)
    memory.reset()
    x = text(8)
    first = memory(x)
    again, other = memory(x, first.state), memory(text(8, seed=9), first.state)
    assert again.surprise.mean() < 0.8 * first.surprise.mean()
    assert again.surprise.mean() < 0.8 * other.surprise.mean()


def test_recall_learns_nothing_and_knows() -> None:
    memory = made()
    state = memory(text(8)).state.settled()
    before = {name: value.clone() for name, value in state.tensors().items()}
    said = memory.recall(text(5), state)
    assert all(torch.equal(v, before[k]) for k, v in state.tensors().items())
    assert not torch.allclose(said, memory.recall(text(5), memory.start(2)), atol=1e-3)


def test_gradients_reach_every_outer_parameter() -> None:
    memory = made(depth=3)
    found = memory(text(13))
    (found.output.square().mean() + found.surprise.mean()).backward()
    assert all(p.grad is not None and p.grad.any() for p in memory.parameters())


def test_without_momentum_and_forgetting_their_gates_do_nothing() -> None:
    memory = made(momentum=False, forgetting=False, chunk=1, depth=1)
    state = memory(text(6)).state
    with torch.no_grad():
        memory.to_gates.bias.view(3, -1)[:2] += 3.0
    for a, b in zip(memory(text(6)).state.weights, state.weights, strict=True):
        assert torch.equal(a, b)
    on = made(chunk=1, depth=1)
    assert not torch.allclose(on(text(6)).state.weights[0], state.weights[0], atol=1e-3)


# ---- bad input


def test_a_state_of_other_shapes_is_refused_with_both() -> None:
    memory, other = made(), made(head_dim=8)
    with pytest.raises(InputError, match=r"\(2, 2, 8, 8\).*\(2, 2, 6, 6\)"):
        memory(text(3), other.start(2))
    with pytest.raises(InputError, match="3 layers, the memory 2"):
        memory(text(3), made(depth=3).start(2))
    with pytest.raises(InputError, match=r"\(1, 2, 6, 6\).*\(2, 2, 6, 6\)"):
        memory(text(3), memory.start(1))
    with pytest.raises(InputError, match=r"\[batch, tokens, 12\], got \[2, 3, 5\]"):
        memory(torch.zeros(2, 3, 5))
    with pytest.raises(InputError, match=r"gates.*missing"):
        State.from_tensors({k: v for k, v in memory.start().tensors().items() if k != "gates"})


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_text_shorter_than_convolution_and_chunk(length: int) -> None:
    memory = made(convolution=4, chunk=64)
    found = memory(text(length))
    assert found.output.shape == (2, length, WIDTH) and found.output.isfinite().all()
    assert found.state.position == length


def test_an_empty_text_changes_nothing() -> None:
    memory = made()
    state = memory(text(5)).state
    found = memory(text(0), state)
    assert found.output.shape == (2, 0, WIDTH) and found.state is state
    assert memory.recall(text(0), state).shape == (2, 0, WIDTH)


@pytest.mark.parametrize("form", ["dual", "scan"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_skipped_and_counted(form: str, bad: float) -> None:
    memory = made(form=form)
    x = text(10)
    x[0, 4, 3] = bad
    found = memory(x)
    assert found.output.isfinite().all()
    assert all(w.isfinite().all() for w in found.state.weights)
    assert found.state.skipped.tolist() == [2, 0], "once for each of two heads, in one row"
    zeroed = x.clone()
    zeroed[0, 4] = 0.0
    mask = torch.ones(2, 10, dtype=torch.bool)
    mask[0, 4] = False
    expected = memory(zeroed, mask=mask).state.weights
    for a, b in zip(found.state.weights, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_a_gradient_that_overflows_is_left_out() -> None:
    torch.manual_seed(0)
    weights = (torch.full((1, 4, 4), 1e30), torch.full((1, 4, 4), 1e30))
    k = torch.nn.functional.normalize(torch.randn(1, 3, 4), dim=-1).abs()
    gates = Gates(*(torch.full((1, 3), value) for value in (0.0, 0.0, 0.5, 1.0)))
    found = dual_chunk(weights, weights, tuple(w * 0 for w in weights), k, k, k, gates, 1.0)
    assert found.skipped.all()
    assert all(torch.equal(a, b) for a, b in zip(found.weights, weights, strict=True))


def test_a_clipped_gradient_has_the_norm_of_the_limit() -> None:
    memory = made(chunk=1, clip=0.5, momentum=False, forgetting=False, convolution=0, heads=1)
    x = text(1, batch=1) * 10
    found = memory(x)
    assert int(found.state.clipped) == 1 and float(found.surprise.detach()) > 0.5
    theta = memory.settings.max_step * float(memory.to_gates(x).sigmoid()[0, 0, 2].detach())
    pairs = zip(found.state.weights, memory.start(1).weights, strict=True)
    moved = sum(float((a - b).detach().square().sum()) for a, b in pairs) ** 0.5
    assert moved == pytest.approx(0.5 * theta, rel=1e-4)


@pytest.mark.parametrize("start", ["shifted", "random"])
def test_a_key_starts_as_the_query_before_it(start: str) -> None:
    torch.manual_seed(0)
    memory = NeuralMemory(WIDTH, MemorySettings(**SMALL, start=start))
    q, k, _ = memory._heads(text(9), memory.start(2).history)
    assert torch.allclose(k[:, 2:], q[:, 1:-1], atol=1e-6) == (start == "shifted")


def test_settings_out_of_range_are_refused() -> None:
    for wrong in ({"chunk": 0}, {"depth": 0}, {"gates": "word"}, {"form": "loop"}, {"start": "x"}):
        with pytest.raises((InputError, UnknownNameError)):
            MemorySettings(**wrong)


# ---- long streams and cost


@torch.no_grad()
def test_a_long_stream_at_depth_four_stays_finite_and_small() -> None:
    """20,000 tokens here; scripts/measure_memory.py streams a million."""
    memory = made(width=16, depth=4, chunk=64, heads=1, head_dim=16)
    state = memory.start(1)
    draw = torch.Generator().manual_seed(0)
    first = state.nbytes
    for _ in range(20):
        found = memory(3 * torch.randn(1, 1000, 16, generator=draw), state)
        state = found.state
        assert found.output.isfinite().all()
    assert all(w.isfinite().all() for w in state.weights)
    assert state.nbytes == first and state.seen == 20_000 and int(state.skipped) == 0


@torch.no_grad()
def test_chunks_are_ten_times_faster_than_steps() -> None:
    chunked = NeuralMemory(64, MemorySettings(heads=2, head_dim=32, chunk=64))
    steps = NeuralMemory(64, MemorySettings(heads=2, head_dim=32, chunk=1))
    steps.load_state_dict(chunked.state_dict())
    x = text(512, batch=1, width=64)

    def seconds(memory: NeuralMemory) -> float:
        memory(x[:, :64])
        times = []
        for _ in range(3):
            began = time.process_time()
            memory(x)
            times.append(time.process_time() - began)
        return min(times)

    assert seconds(steps) > 10 * seconds(chunked)


# ---- another implementation


@pytest.mark.parametrize(("chunk", "depth"), [(1, 2), (4, 1), (4, 3)])
def test_titans_pytorch_learns_the_same_weights(chunk: int, depth: int) -> None:
    """Where its settings agree: one head, no norms, no residual, gates per token.

    `pip install --no-deps titans-pytorch` and what it then misses; it would bring another torch.
    """
    oracle = pytest.importorskip("titans_pytorch")

    class Mlp(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = torch.nn.ParameterList(0.4 * torch.randn(8, 8) for _ in range(depth))

        def forward(self, x: Tensor) -> Tensor:
            return apply(tuple(self.weights), x)

    torch.manual_seed(0)
    theirs = oracle.NeuralMemory(
        8, chunk_size=1, batch_size=chunk, heads=1, model=Mlp(), pre_rmsnorm=False,
        mem_model_norm_add_residual=False, default_step_transform_max_lr=0.3,
        store_memory_loss_fn=lambda said, wanted: (said - wanted).square().sum(-1),
    )  # fmt: skip
    x = text(12, batch=2, width=8)
    with torch.no_grad():
        said, after = theirs(x)
        keys, values, queries = theirs.to_keys(x), theirs.to_values(x), theirs.to_queries(x)
        step = 0.3 * theirs.to_adaptive_step(x).sigmoid()
        forget = theirs.to_decay_factor(x).sigmoid()[..., 0]
        momentum = theirs.to_momentum(x).sigmoid()[0, ..., 0]
    weights = tuple(w.detach().expand(2, 8, 8) for w in theirs.memory_model.weights)
    speed, answers = tuple(torch.zeros_like(w) for w in weights), []
    for at in range(0, 12, chunk):
        part = slice(at, at + chunk)
        gates = Gates(forget[:, part], momentum[:, part], step[:, part], torch.ones(2, chunk))
        found = dual_chunk(
            weights, weights, speed, queries[:, part], keys[:, part], values[:, part], gates, 0.0
        )
        weights, speed = found.weights, found.momentum
        answers.append(found.answers)
    last, last_speed = after.states
    for i in range(depth):
        torch.testing.assert_close(weights[i], last[f"weights.{i}"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(speed[i], last_speed[f"weights.{i}"][0], rtol=1e-4, atol=1e-5)
    if chunk == 1:  # it answers from the weights of the last whole chunk
        torch.testing.assert_close(torch.cat(answers, 1), said, rtol=1e-4, atol=1e-5)
