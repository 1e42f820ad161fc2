"""Residual VQ: prefixes decode, each level learns what the ones before leave, equal to a known
library, one result on every rank.
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

from latentbank.codec.residual_codebook import ResidualCodebook, ResidualCodebookConfig
from latentbank.errors import InputError

WIDTH = 6


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def stack(seed: int = 0, **settings: Any) -> ResidualCodebook:
    torch.manual_seed(seed)
    base = {"codes": 8, "levels": 3, "reset_below": 0.0}
    return ResidualCodebook(WIDTH, ResidualCodebookConfig(**{**base, **settings}))


@settings(deadline=None, max_examples=30)
@given(count=st.integers(1, 12), levels=st.integers(1, 3), seed=st.integers(0, 99))
def test_codes_are_greedy_and_prefixes_decode(count: int, levels: int, seed: int) -> None:
    book, latents = stack(seed), random(count, WIDTH, seed=seed)
    codes = book.nearest(latents, levels)
    assert codes.shape == (count, levels)
    assert torch.equal(codes, book.nearest(latents)[:, :levels])
    rest = latents
    for i in range(levels):
        words = book.levels[i].weight
        assert torch.equal(codes[:, i], torch.cdist(rest, words).argmin(1))
        rest = rest - words[codes[:, i]]
        torch.testing.assert_close(latents - book.decode(codes[:, : i + 1]), rest)


def test_one_level_is_the_plain_codebook() -> None:
    book, latents = stack(levels=1), random(20, WIDTH)
    found, plain = book(latents), book.levels[0](latents)
    assert torch.equal(found.codes[:, 0], plain.codes)
    torch.testing.assert_close(found.values, plain.values)
    torch.testing.assert_close(found.loss, plain.loss)


def test_the_gradient_goes_straight_through_and_pulls_to_the_words() -> None:
    book = stack(learning="gradient")
    latents = random(10, WIDTH).requires_grad_()
    found = book(latents, 2)
    (found.values * random(10, WIDTH, seed=1)).sum().backward(retain_graph=True)
    torch.testing.assert_close(latents.grad, random(10, WIDTH, seed=1))
    found.loss.backward()
    used = [level.weight.grad is not None for level in book.levels]
    assert used == [True, True, False], "dropped levels learn nothing"


def test_equal_to_vector_quantize_pytorch() -> None:
    library = pytest.importorskip("vector_quantize_pytorch")
    book = stack(decay=0.9, epsilon=1e-5)
    oracle = library.ResidualVQ(
        dim=WIDTH, num_quantizers=3, codebook_size=8, decay=0.9, eps=1e-5,
        threshold_ema_dead_code=0, kmeans_init=False, rotation_trick=False,
    )  # fmt: skip
    for own, other in zip(book.levels, oracle.layers, strict=True):
        other._codebook.embed.data.copy_(own.weight[None])
        other._codebook.embed_avg.data.copy_(own.sums[None])
        other._codebook.cluster_size.data.copy_(own.counts[None])
    oracle.train()
    for step in range(30):
        latents = random(32, WIDTH, seed=step)
        found = book(latents)
        values, codes, _ = oracle(latents[None])
        assert torch.equal(codes[0], found.codes)
        torch.testing.assert_close(values[0].detach(), found.values, rtol=1e-4, atol=1e-4)
        book.update(latents, found.codes)
    for own, other in zip(book.levels, oracle.layers, strict=True):
        torch.testing.assert_close(other._codebook.embed[0], own.weight, rtol=1e-3, atol=1e-3)


def test_level_dropout_uses_every_count_of_levels() -> None:
    book, draw = stack(level_dropout=0.6), torch.Generator().manual_seed(0)
    counts = torch.bincount(torch.tensor([book.draw_levels(draw) for _ in range(600)]), minlength=4)
    assert counts[0] == 0
    assert (counts[1:3] > 60).all()
    assert counts[3] > 250
    whole = stack(level_dropout=0.0)
    assert {whole.draw_levels(draw) for _ in range(50)} == {3}


def test_k_means_makes_each_level_miss_less() -> None:
    book, latents = stack(), random(400, WIDTH)
    book.fit(latents)
    missed = [health.residual for health in book.health(latents)]
    assert missed == sorted(missed, reverse=True)
    assert missed[-1] < 0.6 * missed[0] < 0.6
    again = stack(seed=5)
    again.fit(latents)
    assert all(
        torch.equal(a.weight, b.weight) for a, b in zip(book.levels, again.levels, strict=True)
    )
    assert all(health.perplexity > 5 for health in book.health())
    with pytest.raises(InputError, match="at least 8 latents"):
        book.fit(latents[:7])


def collapsed(reset_below: float) -> list[float]:
    """Perplexity of each level after drifting latents."""
    book = stack(codes=16, reset_below=reset_below, usage_decay=0.8, decay=0.8)
    for step in range(150):
        latents = random(64, WIDTH, seed=step) * 0.3 + 20
        book.update(latents, book.nearest(latents))
    return [health.perplexity for health in book.health()]


def test_without_reset_the_levels_collapse_and_with_it_not() -> None:
    without, kept = collapsed(0.0), collapsed(0.2)
    assert without[0] < 4
    assert all(perplexity > 8 for perplexity in kept)


def test_protected_codes_of_every_level_stay() -> None:
    book = stack(reset_below=0.9, usage_decay=0.0, learning="gradient")
    before = [level.weight.detach().clone() for level in book.levels]
    latents = random(4, WIDTH) + 9
    shield = torch.ones(3, 8, dtype=torch.bool)
    assert not any(len(rows) for rows in book.update(latents, book.nearest(latents), None, shield))
    shield[1] = False
    replaced = book.update(latents, book.nearest(latents), None, shield)
    assert [bool(len(rows)) for rows in replaced] == [False, True, False]
    assert torch.equal(book.levels[0].weight, before[0])
    assert not torch.equal(book.levels[1].weight, before[1])


def test_settings_are_checked() -> None:
    for bad in ({"levels": 0}, {"level_dropout": 1.5}, {"codes": 1}):
        with pytest.raises(InputError):
            ResidualCodebookConfig(**bad)
    book = stack()
    for levels in (0, 4):
        with pytest.raises(InputError, match="1 to 3"):
            book.nearest(random(2, WIDTH), levels)


def rank(index: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=index, world_size=2)
    book = stack(reset_below=0.5, usage_decay=0.5)
    for step in range(8):
        latents = random(5 + 3 * index, WIDTH, seed=100 * index + step)
        generator = torch.Generator().manual_seed(step)
        levels = book.draw_levels(torch.Generator().manual_seed(step))
        book.update(latents, book.nearest(latents, levels), generator=generator)
    torch.save(book.state_dict(), Path(folder) / f"{index}.pt")
    dist.destroy_process_group()


def test_two_processes_end_with_one_stack(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(rank, (port, str(tmp_path)), nprocs=2)
    one, two = (torch.load(tmp_path / f"{i}.pt") for i in range(2))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
