"""MBC's own claims: forms of the bank, the online codebook, the papers' presets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from latentbank.adapter import build_method, load_adapter, save_adapter
from latentbank.backbone.model import Backbone
from latentbank.bank import MemoryBank
from latentbank.documents.document import Document
from latentbank.errors import BankError
from latentbank.method import Method
from latentbank.model import bank_fingerprint
from test_contract import BATCH, build, family, logits, texts
from tiny import DOCUMENTS, QUESTIONS, Backbones, fresh_bank


@pytest.fixture
def backbone(backbones: Backbones) -> Backbone:
    return backbones.fresh("llama")


def mbc(backbone: Backbone, **config: Any) -> Method:
    method = build("mbc", backbone, **config)
    method.prepare(DOCUMENTS)
    fresh_bank(method)
    return method


def test_histogram_and_indices_answer_the_same(backbone: Backbone) -> None:
    both = [mbc(backbone, form=form, codebook={"codes": 8}) for form in ("indices", "histogram")]
    for method in both:
        method.write(DOCUMENTS[:2])
        method.write(DOCUMENTS[2:])
    one, two = (logits(method) for method in both)
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)
    assert texts(both[0]) == texts(both[1])
    masses = both[1].slots.log_mass.exp()  # type: ignore[attr-defined]
    assert masses.sum() == pytest.approx(3 * len(DOCUMENTS))
    assert masses.max() > 1, "or the test shows nothing"


@pytest.mark.parametrize(
    "config",
    [{"form": "histogram"}, {"form": "histogram", "adapt": "online"}, {"adapt": "online"}],
    ids=["histogram", "histogram online", "indices online"],
)
def test_a_refused_write_leaves_no_trace(backbones: Backbones, config: dict[str, Any]) -> None:
    method: Any = mbc(backbones.fresh("llama"), codebook={"codes": 512}, **config)
    fingerprint = bank_fingerprint(method)
    with MemoryBank.create(":memory:", fingerprint, budget_bytes=20_000) as bank:
        method.bind(bank)
        before, words = logits(method), method._words.clone()
        with pytest.raises(BankError):  # the codebook alone has 32 kB
            method.write(DOCUMENTS)
        assert torch.equal(method._words, words)
        assert torch.equal(logits(method), before)


def test_an_online_codebook_learns_and_keeps_protected_codes(backbone: Backbone) -> None:
    config = {"codes": 16, "reset_below": 0.9, "usage_decay": 0.5}
    method: Any = mbc(backbone, adapt="online", codebook=config, discount=1.0)
    method.write(DOCUMENTS[:2])
    words, used = method._words.clone(), method._codes.unique()
    method.write(DOCUMENTS[2:])
    moved = (method._words != words).any(1)
    assert moved.any(), "unused codes are reset to what the documents need"
    # with discount 1 averages stand still, so only a reset could move a stored code
    torch.testing.assert_close(method._words[used], words[used], rtol=0, atol=2e-3)
    assert torch.equal(method._codes[: 3 * 2].unique(), used)


def test_an_online_codebook_moves_towards_the_documents(backbone: Backbone) -> None:
    errors = []
    for adapt in ("frozen", "online"):
        method: Any = mbc(backbone, adapt=adapt, discount=0.5)
        latents = method.amortise_all([d.text for d in DOCUMENTS]).flatten(0, 1)
        for _ in range(6):
            method.write([Document(f"{d.text} ") for d in DOCUMENTS[:1]])
            for document in DOCUMENTS:
                method._encode(method.amortise_all([document.text]))
        words = method._words.float()
        errors.append(float(torch.cdist(latents, words).amin(1).pow(2).mean()))
    assert errors[1] < 0.7 * errors[0]


def test_online_adaptation_is_a_function_of_the_bank_alone(backbone: Backbone) -> None:
    """Neither the caller's randomness nor an earlier bank leaks into the next one."""
    method: Any = mbc(backbone, adapt="online", codebook={"codes": 16, "reset_below": 0.9})
    found = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        fresh_bank(method)
        method.write(DOCUMENTS[:3])
        method.write(DOCUMENTS[3:])
        found.append((method._words.clone(), logits(method)))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


@pytest.mark.parametrize("preset", ["distilgpt2", "gpt2-large", "gpt2-xl", "llama-2-7b"])
@pytest.mark.parametrize("name", ["mac", "mbc"])
def test_the_papers_presets_build_and_run(
    backbones: Backbones, tmp_path: Path, name: str, preset: str
) -> None:
    config: dict[str, Any] = {"t5": str(backbones.t5())}
    if name == "mbc":
        config["lora"] = {"rank": 2, "targets": "kv", "layer": 1}
        config["codebook"] = {"codes": 16, "learning": "gradient", "reset_to": "random"}
    backbone = backbones.fresh("llama" if preset.startswith("llama") else "gpt2")
    method = build_method(name, backbone, config, preset=preset)
    assert method.config.amortiser == "t5"
    assert method.config.latents == (12 if preset == "distilgpt2" else 24)
    method.prepare(DOCUMENTS)
    fresh_bank(method)
    method.train(False)
    method.write(DOCUMENTS[:2])
    assert torch.isfinite(logits(method)).all()
    loss = method.loss(BATCH)
    loss.total.backward()
    reached = {family(k) for k, p in method.trainable().items() if p.grad is not None}
    assert {"network.documents", "network.questions", "network.aggregator"} <= reached
    assert ("network.codebook" in reached) == (name == "mbc")
    save_adapter(tmp_path, method)  # T5's embedding has three names and is stored once
    loaded = load_adapter(tmp_path, backbones.fresh(backbone.name))
    asked = [method.amortise(QUESTIONS, side) for side in ("documents", "questions")]
    again = [loaded.amortise(QUESTIONS, side) for side in ("documents", "questions")]
    torch.testing.assert_close(again, asked)


def test_a_histogram_counts_beyond_what_float32_can(backbones: Backbones) -> None:
    method: Any = mbc(backbones.fresh("llama"), form="histogram", codebook={"codes": 4})
    many = 2**24 + 1
    method._histogram[0] = many - 1
    method.take_codes(torch.zeros(1, dtype=torch.long))
    method.require_bank().append([], blobs=method._blobs())
    method.bind(method.require_bank())
    assert method._histogram.tolist() == [many, 0, 0, 0]
