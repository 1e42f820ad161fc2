"""Vector quantisation: losses, moving averages against a known library, resets, telemetry.

And the online objective, and equal codebooks on every rank.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from latentbank.codec.quantizer import Codebook, CodebookConfig, clear_moments
from latentbank.errors import InputError, UnknownNameError

WIDTH = 6


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def codebook(seed: int = 0, **settings: Any) -> Codebook:
    torch.manual_seed(seed)
    return Codebook(WIDTH, CodebookConfig(**{"codes": 8, "reset_below": 0.0, **settings}))


# ---- quantising


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 50), st.integers(2, 40), st.integers(0, 1000))
def test_codes_are_the_nearest_by_l2(count: int, codes: int, seed: int) -> None:
    book, latents = codebook(seed, codes=codes), random(count, WIDTH, seed=seed)
    expected = torch.cdist(latents.double(), book.weight.double())
    found = expected[torch.arange(count), book.nearest(latents)]
    torch.testing.assert_close(found, expected.amin(1), rtol=1e-5, atol=1e-5)


def test_codewords_are_their_own_codes_and_no_latents_have_none() -> None:
    book = codebook()
    assert book.nearest(book.weight).tolist() == list(range(8))
    assert book.nearest(torch.zeros(0, WIDTH)).shape == (0,)
    assert torch.equal(book(book.weight).values, book.weight)


def test_the_gradient_goes_straight_through() -> None:
    book = codebook()
    latents = random(5, WIDTH).requires_grad_(True)
    found = book(latents)
    assert torch.allclose(found.values, book.weight[found.codes], atol=1e-6)
    found.values.backward(pull := random(5, WIDTH, seed=1))
    assert torch.equal(latents.grad, pull)


def test_the_loss_is_codebook_plus_beta_commitment() -> None:
    """‖q − sg(x)‖² + β‖sg(q) − x‖², and each term moves its own side."""
    book = codebook(learning="gradient", beta=0.25)
    latents = random(5, WIDTH).requires_grad_(True)
    found = book(latents)
    error = (book.weight[found.codes] - latents).detach()
    torch.testing.assert_close(found.loss, 1.25 * error.pow(2).mean())
    found.loss.backward()
    torch.testing.assert_close(latents.grad, -0.25 * 2 * error / error.numel())
    expected = torch.zeros_like(book.weight).index_add(0, found.codes, 2 * error / error.numel())
    torch.testing.assert_close(book.weight.grad, expected)


def test_a_codebook_of_averages_has_no_parameters() -> None:
    book = codebook(learning="ema")
    assert not list(book.parameters())
    latents = random(5, WIDTH).requires_grad_(True)
    found = book(latents)
    error = (book.weight[found.codes] - latents).detach()
    torch.testing.assert_close(found.loss, 0.25 * error.pow(2).mean())


# ---- moving averages


def test_moving_averages_equal_vector_quantize_pytorch() -> None:
    library = pytest.importorskip("vector_quantize_pytorch")
    book = codebook(decay=0.9, epsilon=1e-5)
    oracle = library.VectorQuantize(
        dim=WIDTH, codebook_size=8, decay=0.9, eps=1e-5, threshold_ema_dead_code=0,
        kmeans_init=False, rotation_trick=False,
    )  # fmt: skip
    inner = oracle._codebook
    inner.embed.data.copy_(book.weight[None])
    inner.embed_avg.data.copy_(book.sums[None])
    inner.cluster_size.data.copy_(book.counts[None])
    oracle.train()
    for step in range(40):
        latents = random(32, WIDTH, seed=step)
        found = book(latents)
        values, codes, _ = oracle(latents[None])
        assert torch.equal(codes[0], found.codes)
        torch.testing.assert_close(values[0].detach(), found.values, rtol=1e-4, atol=1e-4)
        book.update(latents, found.codes)
    torch.testing.assert_close(inner.embed[0], book.weight, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(inner.cluster_size[0], book.counts)


def test_online_updates_converge_to_the_discounted_means() -> None:
    """The minimiser of Σ_i α^(t−i) ‖m_i − c(m_i)‖² for the codes given."""
    alpha, steps = 0.95, 300
    book = codebook(codes=2)
    centres = torch.stack([torch.full((WIDTH,), -10.0), torch.full((WIDTH,), 10.0)])
    book.weight.copy_(centres)
    sums, counts = torch.zeros(2, WIDTH), torch.zeros(2)
    for step in range(steps):
        drift = 3.0 * step / steps
        codes = torch.tensor([0, 1, 1, 0, 1])
        latents = centres[codes] + drift + random(5, WIDTH, seed=step)
        assert torch.equal(book.nearest(latents), codes)
        book.update(latents, codes, decay=alpha)
        sums = alpha * sums + torch.zeros(2, WIDTH).index_add(0, codes, latents)
        counts = alpha * counts + torch.bincount(codes)
    torch.testing.assert_close(book.weight, sums / counts[:, None], rtol=0, atol=1e-3)
    assert (book.weight - centres).mean() > 2, "it has followed the drift"


def test_a_code_that_meets_no_latent_stays() -> None:
    book = codebook()
    before = book.weight.clone()
    latents = before[[3, 3, 5]] + 0.01
    book.update(latents, torch.tensor([3, 3, 5]))
    moved = (book.weight != before).any(1)
    assert moved.nonzero().flatten().tolist() == [3, 5]


def test_forward_updates_nothing() -> None:
    book = codebook()
    before = {name: value.clone() for name, value in book.state_dict().items()}
    book.train()(random(20, WIDTH))
    assert all(torch.equal(before[name], value) for name, value in book.state_dict().items())


# ---- resets


@pytest.mark.parametrize("learning", ["ema", "gradient"])
def test_dead_codes_become_the_worst_reconstructed_latents(learning: str) -> None:
    book = codebook(learning=learning, reset_below=0.1, reset_noise=0.0)
    book.usage[[2, 6]] = 0.0
    before = book.weight.detach().clone()
    latents = torch.cat([before[[0, 1, 3]], before[4:5] + 5, before[5:6] - 9])
    codes = torch.tensor([0, 1, 3, 4, 5])
    rows = book.update(latents, codes, decay=1.0)
    assert rows.tolist() == [2, 6]
    torch.testing.assert_close(book.weight.detach()[[2, 6]], latents[[4, 3]])
    kept = [0, 1, 3, 4, 5, 7]
    torch.testing.assert_close(book.weight.detach()[kept], before[kept], rtol=1e-4, atol=1e-4)
    assert (book.usage[[2, 6]] == 1 / 8).all(), "a fresh code is not dead at once"
    assert book.health().dead == 0


def test_protected_codes_are_never_reset() -> None:
    book = codebook(reset_below=0.1)
    book.usage.zero_()
    protected = torch.arange(8) % 2 == 0
    before = book.weight.clone()
    latents = before[[1, 1, 1]] + random(3, WIDTH)
    rows = book.update(latents, torch.tensor([1, 1, 1]), decay=1.0, protected=protected)
    assert len(rows) > 0
    assert not protected[rows].any()
    assert torch.equal(book.weight[protected], before[protected])


def test_more_dead_codes_than_latents_take_one_latent_each() -> None:
    book = codebook(reset_below=0.1, reset_noise=0.0)
    book.usage.zero_()
    rows = book.update(random(1, WIDTH), torch.tensor([7]))
    assert len(rows) == 1
    assert torch.isfinite(book.weight).all()


def test_random_resets_take_latents_of_the_batch_by_the_generator() -> None:
    latents = random(50, WIDTH)
    weights = []
    for seed in (0, 0, 1):
        book = codebook(reset_below=0.1, reset_to="random", reset_noise=0.0)
        book.usage[:4] = 0.0
        codes = torch.full((50,), 7)
        rows = book.update(latents, codes, 1.0, None, torch.Generator().manual_seed(seed))
        assert rows.tolist() == [0, 1, 2, 3]
        weights.append(book.weight[rows])
        assert (weights[-1][:, None] == latents).all(2).any(1).all()
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def perplexity_after(steps: int, reset_below: float) -> float:
    """Sixteen clusters, and a codebook whose codes all but one lie far from them."""
    torch.manual_seed(0)
    config = CodebookConfig(codes=16, usage_decay=0.9, decay=0.9, reset_below=reset_below)
    book = Codebook(WIDTH, config)
    book.weight[1:] += 100
    centres = 4 * random(16, WIDTH, seed=5)
    for step in range(steps):
        which = torch.randint(16, (64,), generator=torch.Generator().manual_seed(step))
        latents = centres[which] + 0.1 * random(64, WIDTH, seed=step)
        book.update(latents, book.nearest(latents), generator=torch.Generator().manual_seed(step))
    return book.health().perplexity


def test_without_reset_the_codebook_collapses_and_with_it_not() -> None:
    assert perplexity_after(120, reset_below=0.0) < 1.5
    assert perplexity_after(120, reset_below=0.1) > 10


def test_replaced_rows_lose_their_moments() -> None:
    book = codebook(learning="gradient")
    optimizer = torch.optim.AdamW(book.parameters())
    book(random(50, WIDTH)).loss.backward()
    optimizer.step()
    state = optimizer.state[book.weight]
    assert state["exp_avg"][[1, 4]].abs().sum() > 0
    kept = state["exp_avg_sq"][0].clone()
    clear_moments(lambda weight: optimizer.state[weight], book.weight, torch.tensor([1, 4]))
    assert state["exp_avg"][[1, 4]].abs().sum() == state["exp_avg_sq"][[1, 4]].abs().sum() == 0
    assert torch.equal(state["exp_avg_sq"][0], kept)
    assert state["step"] == 1


# ---- starting and telemetry


@pytest.mark.parametrize("learning", ["ema", "gradient"])
def test_k_means_lowers_the_residual(learning: str) -> None:
    clusters = [3 * random(1, WIDTH, seed=i) + 0.1 * random(40, WIDTH, seed=i) for i in range(8)]
    latents = torch.cat(clusters)
    book = codebook(learning=learning)
    cold = book.health(latents).residual
    book.fit(latents, rounds=1)
    one = book.health(latents).residual
    book.fit(latents, rounds=20)
    fitted = book.health(latents)
    assert fitted.residual <= one < cold
    assert fitted.residual < 0.02
    assert fitted.perplexity == pytest.approx(8, rel=0.05)
    before = book.weight.detach().clone()
    book.update(latents, book.nearest(latents), decay=0.5)  # statistics continue from the start
    torch.testing.assert_close(book.weight.detach(), before, atol=1e-3, rtol=0)


def test_k_means_is_one_result_per_seed_and_needs_enough_latents() -> None:
    latents, books = random(60, WIDTH), [codebook(seed) for seed in (0, 1)]
    for book in books:
        book.fit(latents, seed=4)
    assert torch.equal(books[0].weight, books[1].weight)
    with pytest.raises(InputError, match="at least 8 latents, got 7"):
        books[0].fit(latents[:7])


def test_perplexity_and_dead_codes_follow_usage() -> None:
    book = codebook(reset_below=0.1)
    assert book.health().perplexity == pytest.approx(8)
    book.usage.copy_(torch.tensor([0.5, 0.5, 0, 0, 0, 0, 0, 0]))
    health = book.health()
    assert health.perplexity == pytest.approx(2)
    assert health.dead == 6
    assert health.residual != health.residual  # NaN without latents
    assert book.health(book.weight).residual == pytest.approx(0, abs=1e-6)


def test_settings_are_checked() -> None:
    with pytest.raises(UnknownNameError, match="ema, gradient"):
        CodebookConfig(learning="adam")
    with pytest.raises(UnknownNameError, match="random, worst"):
        CodebookConfig(reset_to="zero")
    with pytest.raises(InputError, match="2 to 65,536"):
        CodebookConfig(codes=1)


# ---- data parallelism


def rank(index: int, port: int, folder: str) -> None:
    """One of two processes: its own latents, unlike many; the same updates."""
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=index, world_size=2)
    book = codebook(reset_below=0.5, usage_decay=0.5)
    replaced = 0
    for step in range(12):
        latents = random(5 + 3 * index, WIDTH, seed=100 * index + step)
        generator = torch.Generator().manual_seed(step)
        replaced += len(book.update(latents, book.nearest(latents), generator=generator))
    torch.save((replaced, book.state_dict()), Path(folder) / f"{index}.pt")
    dist.destroy_process_group()


def test_two_processes_end_with_one_codebook(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(rank, (port, str(tmp_path)), nprocs=2)
    (count, one), (_, two) = (torch.load(tmp_path / f"{i}.pt") for i in range(2))
    assert count > 0
    assert all(torch.equal(one[name], two[name]) for name in one)
    alone = codebook(reset_below=0.5, usage_decay=0.5)  # both ranks' latents in one process
    for step in range(12):
        latents = torch.cat([random(5 + 3 * i, WIDTH, seed=100 * i + step) for i in range(2)])
        generator = torch.Generator().manual_seed(step)
        alone.update(latents, alone.nearest(latents), generator=generator)
    torch.testing.assert_close(alone.weight, one["weight"])
