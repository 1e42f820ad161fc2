"""MBC's own claims: forms of the bank, the online codebook, the papers' presets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import T5Config, T5Model

from latentbank.adapter import build_method, load_adapter, save_adapter
from latentbank.backbone.model import Backbone
from latentbank.bank import MemoryBank
from latentbank.documents.document import Document
from latentbank.errors import BankError
from latentbank.method import METHODS, Method
from latentbank.model import bank_fingerprint
from latentbank.parts.amortised.aggregator import Aggregator
from latentbank.parts.amortised.alignment import PrefixAlignment
from latentbank.parts.amortised.t5 import T5Amortiser
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
        before, words = logits(method), method.codewords.all.clone()
        with pytest.raises(BankError):  # the codebook alone has 32 kB
            method.write(DOCUMENTS)
        assert torch.equal(method.codewords.all, words)
        assert torch.equal(logits(method), before)


@pytest.mark.parametrize("form", ["indices", "histogram"])
def test_stored_codes_keep_the_words_that_they_meant(backbone: Backbone, form: str) -> None:
    """Each generation of codewords stays as it was; new documents are coded by the newest."""
    config = {"codes": 16, "reset_below": 0.9, "usage_decay": 0.5}
    options = {"adapt": "online", "discount": 0.5, "generation": 2, "generations": 3}
    method: Any = mbc(backbone, form=form, codebook=config, **options)
    method.write(DOCUMENTS[:2])
    words, counts = method.codewords.all.clone(), method._counts()
    assert method.codewords.generations == 1
    method.write(DOCUMENTS[2:4])
    method.write(DOCUMENTS[4:])
    assert method.codewords.generations == 3
    assert torch.equal(method.codewords.all[:16], words) and not torch.equal(
        method.codewords.all[16:32], words
    )
    assert torch.equal(method._counts()[:16], counts), "the first two documents"
    assert method._counts().view(3, 16).sum(1).tolist() == [3 * 2, 3 * 2, 3]
    answers = logits(method)
    method.bind(method.require_bank())
    torch.testing.assert_close(logits(method), answers)
    method.write([Document("One more, beyond the last generation.")])
    assert method.codewords.generations == 3


def test_a_generation_that_the_bank_lacks_is_named(backbone: Backbone) -> None:
    method: Any = mbc(backbone, adapt="online")
    method.write(DOCUMENTS)
    bank = method.require_bank()
    with pytest.raises(BankError, match="generation 7"):
        method._unpack(b"\x07" + next(iter(bank.entries())).payload[1:])
    with pytest.raises(BankError):
        method._unpack(b"")


def test_an_online_codebook_moves_towards_the_documents(backbone: Backbone) -> None:
    errors = []
    for adapt in ("frozen", "online"):
        method: Any = mbc(backbone, adapt=adapt, discount=0.5, generation=1, generations=256)
        latents = method.amortise_all([d.text for d in DOCUMENTS]).flatten(0, 1)
        for i in range(6):
            method.write([Document(f"{d.text} {i}") for d in DOCUMENTS])
        words = method.codewords.all[-16:].float()
        errors.append(float(torch.cdist(latents, words).amin(1).pow(2).mean()))
    assert errors[1] < 0.7 * errors[0]


def test_online_adaptation_is_a_function_of_the_bank_alone(backbone: Backbone) -> None:
    """Neither the caller's randomness nor an earlier bank leaks into the next one."""
    config = {"codes": 16, "reset_below": 0.9}
    method: Any = mbc(backbone, adapt="online", generation=1, codebook=config)
    found = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        fresh_bank(method)
        method.write(DOCUMENTS[:3])
        method.write(DOCUMENTS[3:])
        found.append((method.codewords.all.clone(), logits(method)))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


@pytest.mark.parametrize("preset", ["distilgpt2", "gpt2-large", "gpt2-xl", "llama-2-7b"])
@pytest.mark.parametrize("name", ["mac", "mbc"])
def test_the_papers_presets_build_and_run(
    backbones: Backbones, tmp_path: Path, name: str, preset: str
) -> None:
    t5 = str(backbones.t5())
    config: dict[str, Any] = {"t5": t5, "question_t5": t5}
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


# ---- the papers' sizes

T5_SMALL = {
    "vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8,
}  # fmt: skip


def test_distilgpt2_with_t5_small_has_the_published_size_part_by_part() -> None:
    """Counted from the layers of MAC's published code; MBC adds codebook and KV-LoRA: 197.3 M."""
    width, latents, layers, virtual = 768, 12, 6, 2
    preset: Any = METHODS.get("mbc").presets["distilgpt2"]
    assert preset["latents"] == latents and preset["inner"] == preset["heads"] * 96 == width
    assert preset["lora"] == {"rank": 16, "dropout": 0.05, "targets": "kv", "layer": 0}
    with torch.device("meta"):
        t5 = T5Model(T5Config(**T5_SMALL))
        amortiser = T5Amortiser(t5, width, latents)
        aggregator = Aggregator(width, preset["inner"], preset["heads"])
        align = PrefixAlignment(latents, width, layers, 12, 64, virtual)
    linear = width * width
    published = {
        "t5": 60_506_624,
        "heads": latents * (2 * 512 + 2 * (512 * width + width) + linear + width),
        "aggregator": 4 * (6 * width + 6 * linear + 3 * width),
        "align": 2 * layers * virtual * (2 * width + 2 * (linear + width)),
    }
    ours = {
        "t5": _size(t5),
        "heads": _size(amortiser.heads),
        "aggregator": _size(aggregator),
        "align": _size(align),
    }
    assert ours == {name: pytest.approx(count, rel=2e-3) for name, count in published.items()}
    assert align.first.shape == (24, 768, 768) and align.second.shape == (24, 768, 768)
    assert amortiser.prompts.shape == (12, 512)
    codebook, lora = 512 * width, layers * 16 * (width + 3 * width)
    total = 2 * (ours["t5"] + ours["heads"]) + ours["aggregator"] + ours["align"]
    assert (total + codebook + lora) / 1e6 == pytest.approx(197.3, abs=0.2)


def _size(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("backbone_name", "documents", "share", "first"),
    [("gpt2-large", "t5-base", 1.0, 20), ("gpt2-xl", "t5-large", 0.75, 32),
     ("llama-2-7b", "t5-large", 0.75, 16)],
)  # fmt: skip
def test_the_larger_presets_are_those_of_the_published_configuration(
    backbone_name: str, documents: str, share: float, first: int
) -> None:
    for method in ("mac", "mbc", "cmt"):
        preset: Any = METHODS.get(method).presets[backbone_name]
        assert preset["t5"] == f"google-t5/{documents}"
        assert preset["question_t5"] == "google-t5/t5-base"
        assert (preset["latents"], preset["gradient_share"]) == (24, share)
        assert (preset["heads"], preset["inner"]) == (8, 768)
    assert METHODS.get("mbc").presets[backbone_name]["lora"]["layer"] == first


@torch.no_grad()
def test_each_prefix_token_has_an_alignment_network_of_its_own() -> None:
    torch.manual_seed(0)
    align = PrefixAlignment(3, 8, 2, 2, 4, virtual=2, hidden=5)  # 8 networks for 3 tokens
    assert align.repeated.tolist() == [0, 0, 0, 1, 1, 1, 2, 2]
    tokens = torch.randn(1, 3, 8)
    before = align(tokens)
    align.second_bias[3] += 1.0
    moved = (align(tokens) - before).abs().sum((1, 2, 4))  # (2L, virtual)
    assert (moved > 0).sum() == 1


# ---- reading words instead of codes


@torch.no_grad()
def test_counted_words_answer_as_a_slot_for_every_code(backbone: Backbone) -> None:
    method: Any = mbc(backbone, codebook={"codes": 4})
    method.write(DOCUMENTS)
    latents, words = method.config.latents, method.codewords.all.float()
    codes, owner = method._codes, method._owner(len(DOCUMENTS))
    assert len(codes) == latents * len(DOCUMENTS) and len(method.slots) <= 4
    question = method.amortise(QUESTIONS, "questions")
    every = method.aggregator.project(words[codes][None])
    torch.testing.assert_close(
        method.memory_tokens(question),
        method._read_out(method.aggregator.attend(question, every, None), question),
        rtol=1e-4,
        atol=1e-5,
    )
    finder = method.aggregator.finder
    shares = finder.owner_shares(question, every[0][0], None, owner, len(DOCUMENTS))
    for row, named in zip(shares, method.sources(question), strict=True):
        expected = dict(zip(method._ids, row.tolist(), strict=True))
        assert {id: share for id, share in named} == pytest.approx(
            {id: expected[id] for id, _ in named}, rel=1e-3
        )
        assert sum(share for _, share in named) > 0.7, "four of five documents"


def test_windows_see_a_slot_for_every_code(backbone: Backbone) -> None:
    whole, windowed = (mbc(backbone, codebook={"codes": 4}, window=w) for w in (0, 6))
    for method in (whole, windowed):
        method.write(DOCUMENTS)
    assert len(windowed.slots) == 3 * len(DOCUMENTS)  # type: ignore[attr-defined]
    assert not torch.allclose(logits(whole), logits(windowed))
