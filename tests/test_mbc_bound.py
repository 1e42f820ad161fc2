"""MBC with binding: codes and keys of each document, what is read, how it learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from latentbank.adapter import build_method
from latentbank.backbone.model import Backbone
from latentbank.codec.quantizer import CodebookConfig
from latentbank.errors import BankError, InputError
from latentbank.parts.amortised.bound_codes import BoundCodes, BoundSettings
from latentbank.parts.amortised.matcher import dequantised, quantised
from latentbank.parts.batch import Batch
from test_contract import build, logits
from tiny import ANSWERS, DOCUMENTS, QUESTIONS, Backbones, fresh_bank


@pytest.fixture
def backbone(backbones: Backbones) -> Backbone:
    return backbones.fresh("llama")


def bound(backbone: Backbone, **settings: Any) -> Any:
    method = build("mbc", backbone, binding=True, bound=settings, codebook={"codes": 4})
    method.prepare(DOCUMENTS, QUESTIONS)
    fresh_bank(method)
    return method


def test_an_entry_holds_its_codes_and_its_key(backbone: Backbone) -> None:
    method = bound(backbone, levels=3, width=8, key_width=16, key_bits=4)
    method.write(DOCUMENTS)
    sizes = {len(entry.payload) for entry in method.require_bank().entries()}
    codes, key = -(-3 * 3 * 2 // 8), 16 * 4 // 8  # 3 latents, 3 levels, 2 bits; 16 numbers, 4 bits
    assert sizes == {codes + key}
    payload = next(iter(method.require_bank().entries())).payload
    for wrong in (payload[:-1], payload + b"\0", b""):
        with pytest.raises(BankError, match="expected 11"):
            method._unpack(wrong)


@torch.no_grad()
def test_only_the_chosen_documents_are_read(backbone: Backbone) -> None:
    method = bound(backbone, top_k=2, width=8)
    method.write(DOCUMENTS)
    question = method.amortise(QUESTIONS, "questions")
    scores = method.matcher(question, "questions") @ method._stored.T
    wanted = scores.topk(2, dim=1).indices
    for row, named in zip(wanted.tolist(), method.sources(question), strict=True):
        assert {id for id, _ in named} == {method._ids[i] for i in row}
        assert sum(share for _, share in named) == pytest.approx(1)
    before = logits(method)
    unread = [i for i in range(len(DOCUMENTS)) if i not in wanted[0]]
    method.delete([method._ids[i] for i in unread])
    torch.testing.assert_close(logits(method)[0], before[0])


def test_the_same_codes_with_other_owners_answer_otherwise(backbone: Backbone) -> None:
    """What the paper's bank cannot tell apart."""
    method = bound(backbone, top_k=1, width=8)
    method.write(DOCUMENTS)
    before, codes = logits(method), method.code_count
    method._rows[:, :codes] = method._rows[:, :codes].roll(1, 0)
    assert not torch.allclose(logits(method), before, atol=1e-3)


@pytest.mark.parametrize("places", [False, True])
@torch.no_grad()
def test_more_levels_leave_less(places: bool) -> None:
    torch.manual_seed(0)
    latents = torch.randn(200, 3, 12)
    errors = []
    for levels in (1, 2, 4):
        settings = BoundSettings(levels=levels, places=places, width=0)
        codes = BoundCodes(12, 3, settings, CodebookConfig(codes=16))
        assert codes.fit(latents)
        words = codes.words()
        found = codes.decode(codes.encode(latents, words), words.float())
        torch.testing.assert_close(found, codes(latents)[0], rtol=1e-2, atol=1e-2)
        errors.append(float((found - latents).pow(2).mean()))
    assert errors[0] > 1.2 * errors[1] > 1.4 * errors[2]


@torch.no_grad()
def test_maps_start_from_the_principal_components() -> None:
    torch.manual_seed(0)
    latents = torch.randn(100, 3, 2) @ torch.randn(2, 12) + 3.0  # two directions of twelve
    codes = BoundCodes(12, 3, BoundSettings(width=2), CodebookConfig(codes=8))
    codes.fit(latents)
    torch.testing.assert_close(codes.up(codes.down(latents)), latents, rtol=1e-3, atol=1e-3)


def test_keys_survive_their_bits() -> None:
    torch.manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(50, 32), dim=-1)
    kept = []
    for bits in (2, 4, 8):
        numbers = quantised(vectors, bits)
        assert int(numbers.min()) >= 0 and int(numbers.max()) < 1 << bits
        kept.append(float((dequantised(numbers, bits) * vectors).sum(1).mean()))
    assert kept[0] < kept[1] < kept[2] and kept[1] > 0.97


@pytest.mark.parametrize("other", [{"form": "histogram"}, {"adapt": "online"}, {"window": 6}])
def test_binding_is_refused_where_codes_have_no_owner(
    backbone: Backbone, other: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match="binding=true needs"):
        build_method("mbc", backbone, {"binding": True, **other}, preset="tiny")


def test_it_learns(backbone: Backbone) -> None:
    """30 steps on one batch: the answers' loss falls, and keys find the documents."""
    config = {"binding": True, "bound": {"top_k": 2, "width": 8}, "codebook": {"codes": 4}}
    method: Any = build_method("mbc", backbone, config, preset="tiny")
    method.prepare(DOCUMENTS, QUESTIONS)
    method.train()
    adam = torch.optim.Adam(method.trainable().values(), 3e-3)
    parts = []
    for step in range(30):
        loss = method.loss(Batch(DOCUMENTS, QUESTIONS, ANSWERS, tuple(range(5)), step=step))
        adam.zero_grad()
        loss.total.backward()
        adam.step()
        method.after_step(Batch(DOCUMENTS, QUESTIONS, ANSWERS, tuple(range(5)), step=step))
        parts.append(loss.parts)
    assert parts[-1]["answer"] < 0.8 * parts[0]["answer"]
    assert parts[-1]["key"] < 0.5 * parts[0]["key"] and parts[-1]["key_first"] > 0.7
