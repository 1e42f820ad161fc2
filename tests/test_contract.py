"""One suite over every registered method: what each owes its users.

A method needs a preset `tiny` and nothing else to be tested here; what it claims with a config, it
is held to. The three throw-away methods take part. Checks that go through the backbone's layers run
on three kinds of it, the others on one.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from latentbank.adapter import adapter_fingerprint, build_method, load_adapter, save_adapter
from latentbank.answering import answer_batch as answer
from latentbank.backbone.generate import DecodingConfig
from latentbank.backbone.model import Backbone
from latentbank.backbone.prompts import prompt_ids
from latentbank.bank import MemoryBank
from latentbank.capabilities import Stateful, Trained, set_training, trained_state
from latentbank.config import describe
from latentbank.documents.document import Document
from latentbank.errors import AdapterError, BankError, UnknownNameError
from latentbank.method import (
    CALLS_ADD_UP,
    CLAIMS,
    CONSTANT_SIZE,
    EMPTY_IS_PLAIN,
    EXACT_DELETE,
    METHODS,
    NAMED_ONLY,
    NAMES_SOURCES,
    Method,
    WriteReport,
)
from latentbank.model import MemoryModel, bank_fingerprint
from latentbank.parts.batch import Batch
from throwaway import registered
from tiny import ANSWERS, DOCUMENTS, QUESTIONS, Backbones, fresh_bank

with registered():
    NAMES = METHODS.names()

# every method as its preset has it, and the other forms of those that have several
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in NAMES} | {
    "strata pooled": ("strata", {"entry": "pooled", "least_match": 0.0}),  # its keys are random
    "mac copy": ("mac", {"start": "copy", "heads": 1}),
    "cmt copy": ("cmt", {"start": "copy", "heads": 1}),
    "cmt plain": ("cmt", {"top_k": 0, "memory_aware": 0.0, "self_matching": 0.0}),
    "mbc histogram": ("mbc", {"form": "histogram"}),
    "mbc online": ("mbc", {"adapt": "online", "generation": 2}),
    "sparse_memory apart": ("sparse_memory", {"apart": True, "codec": "int8"}),
    "finetune full": ("finetune", {"mode": "full", "layer": 2, "rate": 0.005}),
    "finetune salient": ("finetune", {"weights": "salient", "optimiser": "sgd", "rate": 2.0}),
    "finetune defended": (
        "finetune",
        {"ewc": 10.0, "replay_bytes": 2000, "layer": 2, "targets": "attention"},
    ),
    "mbc bound": ("mbc", {"binding": True, "bound": {"top_k": 2, "levels": 2}}),
    "mbc bound places": (
        "mbc",
        {"binding": True, "bound": {"places": True, "width": 0, "levels": 1}},
    ),
}
BACKBONES = ("gpt2", "llama", "gemma3")
GOLD = [d.id for d in DOCUMENTS]
NEAR = {"rtol": 1e-3, "atol": 1e-3}
ASKED = (0, 1, 2, 0)
BATCH = Batch(
    DOCUMENTS[:3], tuple(QUESTIONS[i] for i in ASKED), tuple(ANSWERS[i] for i in ASKED), ASKED
)


@pytest.fixture(autouse=True)
def throwaway_methods() -> Iterator[None]:
    with registered():
        yield


@pytest.fixture(params=BACKBONES)
def any_backbone(request: pytest.FixtureRequest, backbones: Backbones) -> Backbone:
    """Multi-head, grouped-query and sliding-window attention in turn."""
    return backbones.fresh(request.param)


@pytest.fixture
def backbone(backbones: Backbones) -> Backbone:
    """Grouped-query attention, for what does not depend on the kind of backbone."""
    return backbones.fresh("llama")


@pytest.fixture(params=CONFIGS)
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def fresh(name: str, backbone: Backbone, seed: int = 0, **config: Any) -> Method:
    """A tiny method as its constructor leaves it; `name` is a key of CONFIGS."""
    method, own = CONFIGS[name]
    return build_method(method, backbone, {**own, **config}, preset="tiny", seed=seed)


def build(name: str, backbone: Backbone, trained: bool = True, **config: Any) -> Method:
    """A tiny method; `trained` moves every parameter off its start, where zeros hide mistakes."""
    method = fresh(name, backbone, **config)
    if trained:
        draw = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for _, parameter in sorted(trainable(method).items()):
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=draw))
    set_training(method, False)
    return method


def trainable(method: Method) -> dict[str, torch.nn.Parameter]:
    return method.trainable() if isinstance(method, Trained) else {}


def written(name: str, backbone: Backbone, documents: Sequence[Document] = DOCUMENTS) -> Method:
    method = build(name, backbone)
    fresh_bank(method)
    method.write(documents)
    return method


def gold(method: Method, index: Sequence[int]) -> list[str] | None:
    """The documents of QUESTIONS[index], for a method that is a ceiling and must be told."""
    return [GOLD[i] for i in index] if NAMED_ONLY in method.claims else None


@torch.no_grad()
def logits(method: Method, index: Sequence[int] = range(5), memory: bool = True) -> Tensor:
    """Next-token logits [B, V] after each question's prompt, as an answer starts."""
    backbone, questions = method.backbone, [QUESTIONS[i] for i in index]
    conditioning = method.read(questions, gold(method, index)) if memory else method.closed_book()
    ids, mask = backbone.pad(prompt_ids(backbone, questions, conditioning.passages), left=True)
    with conditioning.attach(backbone):
        hidden = backbone.session(len(questions)).feed(ids, mask)
        return backbone.logits(hidden[:, -1]).float()


def texts(method: Method, decoding: DecodingConfig | None = None) -> list[str]:
    found = answer(method, list(QUESTIONS), gold(method, range(5)), decoding)
    return [a.text for a in found]


def skip_unless(claim: str, name: str, backbone: Backbone) -> None:
    if claim not in fresh(name, backbone).claims:
        pytest.skip("does not claim it")


def assert_same(one: Method, two: Method) -> None:
    torch.testing.assert_close(logits(one), logits(two), **NEAR)
    assert texts(one) == texts(two)


@torch.no_grad()
def bare_logits(backbone: Backbone) -> Tensor:
    ids, mask = backbone.pad(prompt_ids(backbone, QUESTIONS))
    found: Tensor = backbone.model(ids, attention_mask=mask.long()).logits
    return found


def plain_weights(backbone: Backbone) -> dict[str, Tensor]:
    return {
        name.replace(".base_layer", ""): weight.detach().clone()
        for name, weight in backbone.model.named_parameters()
        if "lora_" not in name
    }


# ---- the way of a document


def test_write_read_answer(name: str, any_backbone: Backbone) -> None:
    backbone = any_backbone
    method = build(name, backbone)
    bank = fresh_bank(method)
    report = method.write(DOCUMENTS)
    assert report.stored + report.duplicates in (0, len(DOCUMENTS))
    assert report.seconds >= 0
    for decoding in (DecodingConfig(4), DecodingConfig(4, beams=4, groups=2, diversity=1.0)):
        found = answer(method, list(QUESTIONS), gold(method, range(5)), decoding)
        assert len(found) == len(QUESTIONS)
        for item in found:
            assert 0 <= item.confidence <= 1
            assert all(source in GOLD for source, _ in item.documents)
            shares = [share for _, share in item.documents]
            assert sum(shares) <= 1 + 1e-6
            assert shares == sorted(shares, reverse=True)
            if NAMES_SOURCES in method.claims:
                assert bool(shares) == bool(len(bank)), "an answer names what the ledger knows"
    if report.stored:
        plain = logits(method, memory=False)
        assert not torch.allclose(logits(method), plain, atol=1e-3), "memory changes nothing"


def test_writing_a_document_again_changes_no_answer(name: str, backbone: Backbone) -> None:
    method = build(name, backbone)
    bank = fresh_bank(method)
    if method.write(DOCUMENTS).stored and not len(bank):
        pytest.skip("keeps no ledger")
    before = logits(method)
    report = method.write([DOCUMENTS[2], DOCUMENTS[0], DOCUMENTS[2]])
    assert report.stored == 0
    torch.testing.assert_close(logits(method), before, **NEAR)


def test_writing_nothing_is_harmless(name: str, backbone: Backbone) -> None:
    method = build(name, backbone)
    fresh_bank(method)
    assert method.write([]).stored == 0
    method.write(DOCUMENTS)
    before = logits(method)
    method.write([])
    assert torch.equal(logits(method), before)


def test_batch_equals_single(name: str, any_backbone: Backbone) -> None:
    backbone = any_backbone
    method = written(name, backbone)
    together, answers = logits(method), texts(method)
    for i in range(len(QUESTIONS)):
        torch.testing.assert_close(logits(method, [i])[0], together[i], **NEAR)
        alone = answer(method, [QUESTIONS[i]], gold(method, [i]))[0]
        assert alone.text == answers[i]


def test_a_question_that_finds_nothing_does_not_disturb_the_others(
    name: str, backbone: Backbone
) -> None:
    method = written(name, backbone)
    if gold(method, [0]) is not None:
        pytest.skip("is told its document")
    questions = ["Xyzzy?", QUESTIONS[0]]
    both = [a.text for a in answer(method, questions)]
    assert both == [answer(method, [q])[0].text for q in questions]


def test_an_empty_bank_is_the_plain_model(name: str, backbone: Backbone) -> None:
    skip_unless(EMPTY_IS_PLAIN, name, backbone)
    method = build(name, backbone)
    fresh_bank(method)
    torch.testing.assert_close(logits(method), logits(method, memory=False), **NEAR)


def test_calls_add_up(name: str, backbone: Backbone) -> None:
    skip_unless(CALLS_ADD_UP, name, backbone)
    one = written(name, backbone)
    many = build(name, backbone)
    fresh_bank(many)
    for document in DOCUMENTS:
        many.write([document])
    assert_same(one, many)


def test_a_deleted_document_has_no_influence_left(name: str, backbone: Backbone) -> None:
    skip_unless(EXACT_DELETE, name, backbone)
    method = written(name, backbone)
    logits(method)  # whatever reading caches must go too
    stored = len(method.require_bank())
    gone = [GOLD[1], GOLD[3]]
    receipt = method.delete([*gone, "unknown"])
    assert set(receipt.deleted) == (set(gone) if stored else set())
    assert receipt.exact and not receipt.remains and "unknown" in receipt.missing
    assert not method.delete(gone).deleted
    never = written(name, backbone, [d for d in DOCUMENTS if d.id not in gone])
    assert_same(method, never)
    conditioning = method.read(QUESTIONS, gold(method, [0, 0, 2, 2, 4]))
    with conditioning.attach(backbone):
        ids, mask = backbone.pad(prompt_ids(backbone, QUESTIONS))
        backbone.session(len(QUESTIONS)).feed(ids, mask)
        sources = conditioning.named_sources()
    assert not {source for row in sources for source, _ in row} & set(gone)
    method.write([DOCUMENTS[1], DOCUMENTS[3]])  # and it can come back
    assert len(method.require_bank()) == stored


def test_a_method_that_cannot_delete_exactly_says_so(name: str, backbone: Backbone) -> None:
    method = written(name, backbone)
    if EXACT_DELETE in method.claims or not len(method.require_bank()):
        pytest.skip("deletes exactly, or keeps no ledger")
    before = len(method.require_bank())
    receipt = method.delete([GOLD[1]])
    assert receipt.deleted == (GOLD[1],) and len(method.require_bank()) == before - 1
    assert not receipt.exact and receipt.remains
    assert method.delete(["unknown"]).remains == "", "nothing was deleted, nothing remains"


def test_the_size_is_constant_where_it_is_claimed(name: str, backbone: Backbone) -> None:
    skip_unless(CONSTANT_SIZE, name, backbone)
    sizes = []
    for documents in (DOCUMENTS[:1], DOCUMENTS):
        size = written(name, backbone, documents).require_bank().footprint()
        sizes.append(size.total - size.overhead - size.ledger - size.index)
    assert sizes[1] <= sizes[0] * 1.01 + 8 * len(DOCUMENTS), "beside the ledger's eight bytes"


def test_a_state_comes_back_with_its_bank(name: str, backbone: Backbone, tmp_path: Path) -> None:
    method = build(name, backbone)
    if not isinstance(method, Stateful):
        pytest.skip("has no state")
    path = tmp_path / "state.bank"
    with MemoryBank.create(path, bank_fingerprint(method)) as bank:
        method.bind(bank)
        method.write(DOCUMENTS)
        state, fingerprint = method.memory_state(), adapter_fingerprint(method)
        expected = logits(method)
    fresh_bank(method)
    assert any(not torch.equal(v, state[k]) for k, v in method.memory_state().items())
    assert adapter_fingerprint(method) == fingerprint, "the state is no part of the adapter"
    with MemoryBank.open(path) as bank:
        method.bind(bank)
        assert all(torch.equal(v, state[k]) for k, v in method.memory_state().items())
        torch.testing.assert_close(logits(method), expected, **NEAR)


def test_a_deleted_id_may_be_given_to_another_text(name: str, backbone: Backbone) -> None:
    """Nothing kept under the id, a cache of what was read least of all, may answer for the new."""
    skip_unless(EXACT_DELETE, name, backbone)
    fresh = Document("Grace Hopper wrote the first program of another kind in 1952.", id=GOLD[0])
    method = written(name, backbone)
    logits(method)
    method.delete([GOLD[0]])
    method.write([fresh])
    assert_same(method, written(name, backbone, [*DOCUMENTS[1:], fresh]))


# ---- the backbone


@torch.no_grad()
def test_the_backbone_is_left_bit_identical(name: str, any_backbone: Backbone) -> None:
    backbone = any_backbone
    weights, bare = plain_weights(backbone), bare_logits(backbone)
    method = written(name, backbone)
    texts(method)
    conditioning = method.read(QUESTIONS, gold(method, range(5)))
    with pytest.raises(ZeroDivisionError), conditioning.attach(backbone):
        raise ZeroDivisionError
    assert torch.equal(bare_logits(backbone), bare)
    after = plain_weights(backbone)
    assert weights.keys() == after.keys()
    assert all(torch.equal(after[k], w) for k, w in weights.items())
    assert not backbone.model.training


def test_two_methods_share_a_backbone(name: str, backbone: Backbone) -> None:
    method = written(name, backbone)
    before = logits(method)
    other = written("strata", backbone)
    logits(other)
    assert torch.equal(logits(method), before)
    assert "peft_config" not in vars(backbone.model)


# ---- training


def trained_or_skip(method: Method) -> Trained:
    if not isinstance(method, Trained) or not method.trainable():
        pytest.skip("has no parameters to train")
    return method


def family(parameter: str) -> str:
    """`network.aggregator.blocks.0…` → `network.aggregator`; low-rank matrices by kind."""
    kind, rest = parameter.split(".", 1)
    return f"lora.{rest[-1]}" if kind == "lora" else f"{kind}.{rest.split('.')[0]}"


def test_gradients_reach_every_family_and_never_the_backbone(
    name: str, any_backbone: Backbone
) -> None:
    backbone = any_backbone
    method = trained_or_skip(build(name, backbone))
    parameters = method.trainable()
    weights = plain_weights(backbone)
    method.prepare(DOCUMENTS)
    method.train()
    for step in range(6):  # a method may draw what a step trains
        batch = Batch(BATCH.documents, BATCH.questions, BATCH.answers, BATCH.owner, step)
        loss = method.loss(batch)
        assert torch.isfinite(loss.total)
        assert loss.parts
        loss.total.backward()
        method.after_step(batch)
    reached = {family(k) for k, p in parameters.items() if p.grad is not None and p.grad.any()}
    assert reached == {family(k) for k in parameters}
    own = {id(p) for p in parameters.values()}
    assert all(p.grad is None for p in backbone.model.parameters() if id(p) not in own)
    after = plain_weights(backbone)
    assert all(torch.equal(after[k], w) for k, w in weights.items())


def test_the_loss_is_one_number_per_seed_and_step(name: str, backbone: Backbone) -> None:
    losses = []
    for noise in (3, 4):
        method = trained_or_skip(build(name, backbone))
        method.prepare(DOCUMENTS)
        torch.manual_seed(noise)
        random.seed(noise)
        losses.append(float(method.loss(BATCH).total.detach()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


# ---- seeds, files, dtypes


def test_one_seed_gives_one_method(name: str, backbone: Backbone) -> None:
    made = []
    for noise in (5, 6):
        torch.manual_seed(noise)
        method = build(name, backbone, trained=False)
        fresh_bank(method)
        method.write(DOCUMENTS)
        made.append(method)
    one, two = (trained_state(m) for m in made)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert torch.equal(logits(made[0]), logits(made[1]))
    if one:
        other = trained_state(fresh(name, backbone, seed=1))
        assert any(not torch.equal(one[k], other[k]) for k in one)


def test_the_callers_randomness_is_left_alone(name: str, backbone: Backbone) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    method = fresh(name, backbone, seed=9)
    set_training(method, False)
    fresh_bank(method)
    method.write(DOCUMENTS)
    method.read(QUESTIONS, gold(method, range(5)))
    assert torch.equal(torch.rand(3), expected)


def test_a_saved_adapter_and_a_reopened_bank_answer_the_same(
    name: str, backbone: Backbone, backbones: Backbones, tmp_path: Path
) -> None:
    method = build(name, backbone)
    path = tmp_path / "notes.bank"
    bank = MemoryBank.create(path, bank_fingerprint(method))
    method.bind(bank)
    method.write(DOCUMENTS[:3])
    method.write(DOCUMENTS[3:])
    expected, answers = logits(method), texts(method)
    bank.close()
    save_adapter(tmp_path / "adapter", method)

    loaded = load_adapter(tmp_path / "adapter", backbones.fresh(backbone.name))
    one, two = trained_state(method), trained_state(loaded)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[k], two[k]) for k in one)
    with MemoryBank.open(path, bank_fingerprint(loaded)) as opened:
        loaded.bind(opened)
        torch.testing.assert_close(logits(loaded), expected, rtol=1e-5, atol=1e-5)
        assert texts(loaded) == answers
        loaded.write([Document("Something new about the comet.")])  # and goes on writing
        assert torch.isfinite(logits(loaded)).all()


def test_an_adapter_for_another_backbone_is_refused(
    name: str, backbones: Backbones, tmp_path: Path
) -> None:
    method = build(name, backbones.fresh("llama"))
    save_adapter(tmp_path, method)
    with pytest.raises(AdapterError, match="was trained for llama"):
        load_adapter(tmp_path, backbones.fresh("gpt2"))


def test_a_bank_keeps_to_its_budget_and_survives_being_full(
    name: str, backbones: Backbones, tmp_path: Path
) -> None:
    method = build(name, backbones.fresh("llama"))
    path, budget = tmp_path / "small.bank", 40_960
    bank = MemoryBank.create(path, bank_fingerprint(method), budget_bytes=budget)
    method.bind(bank)
    draw = random.Random(0)
    full = False
    method.write(DOCUMENTS)
    for i in range(40):
        before = logits(method, [0, 4])
        words = " ".join(f"{draw.random():.6f}" for _ in range(160))
        fates = WriteReport(0, 0, 0.0)
        try:
            fates = method.write([Document(f"Number {i}: {words}")])
        except BankError:
            full = True
            torch.testing.assert_close(logits(method, [0, 4]), before)
            break
        finally:
            assert bank.footprint().total <= bank.file_bytes() <= budget
        full = full or fates.forgotten > 0
    after = logits(method)
    bank.close()
    assert path.stat().st_size <= budget
    with MemoryBank.open(path) as opened:
        method.bind(opened)
        torch.testing.assert_close(logits(method), after, **NEAR)
        assert full or len(opened) in (0, 45)


def test_bfloat16_writes_answers_and_trains(
    name: str, backbones: Backbones, any_backbone: Backbone
) -> None:
    method = written(name, backbones.fresh(any_backbone.name, "bfloat16"))
    assert torch.isfinite(logits(method)).all()
    assert len(texts(method)) == len(QUESTIONS)
    if isinstance(method, Trained) and method.trainable():
        method.train()
        method.loss(BATCH).total.backward()
        grads = [p.grad for p in method.trainable().values() if p.grad is not None]
        assert grads
        assert all(torch.isfinite(g).all() for g in grads)


# ---- names


def test_unknown_names_list_the_known(backbones: Backbones) -> None:
    backbone = backbones.shared("llama")
    with pytest.raises(UnknownNameError, match=r"(?s)'mcb'.*mean 'mbc'.*strata"):
        build_method("mcb", backbone)
    with pytest.raises(UnknownNameError, match="smollm2-135m"):
        build_method("mac", backbone, preset="huge")
    with pytest.raises(UnknownNameError, match="latents"):
        build_method("mac", backbone, {"latent": 3})


@pytest.mark.parametrize("method", NAMES)
def test_every_method_has_what_the_suite_needs(method: str) -> None:
    cls = METHODS.get(method)
    assert "tiny" in cls.presets
    assert cls.claims <= set(CLAIMS)
    assert cls.name == method
    missing = [item.name for item in describe(cls.Config) if not item.help]
    assert not missing, "fields of a config without help"


def test_claims_follow_the_config(backbones: Backbones) -> None:
    backbone = backbones.fresh("llama")
    claims = {name: fresh(name, backbone).claims for name in CONFIGS}
    own = {EXACT_DELETE, CALLS_ADD_UP, NAMES_SOURCES}
    assert claims["mbc"] == own
    assert claims["mbc histogram"] == {CALLS_ADD_UP, CONSTANT_SIZE}
    assert claims["mbc online"] == {NAMES_SOURCES}
    assert METHODS.get("mbc").claims == own, "the class keeps its own"


# ---- MemoryModel


def test_chunks_hold_the_tokens_that_the_method_asks_for(backbones: Backbones) -> None:
    """A character may be several tokens: emoji are four bytes each."""
    method = build("rag", backbones.fresh("llama"), chunk_tokens=64)
    model = MemoryModel(method)
    model.write([Document("😀" * 60), Document("short")])
    entries = [method.text(entry.id) for entry in model.bank.entries()]  # type: ignore[attr-defined]
    assert sum(text.count("😀") for text in entries) == 60
    assert max(method.backbone.count_tokens(entries)) <= 64
