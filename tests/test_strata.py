"""Strata's pooled entries: what is stored, and that a reopened bank selects the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from latentbank.adapter import build_method
from latentbank.answering import answer_batch as answer
from latentbank.backbone.generate import DecodingConfig
from latentbank.backbone.model import Backbone
from latentbank.backbone.transports import Conditioning
from latentbank.bank import Entry, MemoryBank
from latentbank.codec.text import ZstdTextCodec
from latentbank.codec.token_counts import TokenCounts, count_tokens
from latentbank.codec.token_text import TokenTextCodec
from latentbank.documents.document import Document
from latentbank.errors import BankError, InputError
from latentbank.model import bank_fingerprint
from latentbank.parts.batch import Batch, mean_answer_loss
from latentbank.parts.retrieval.dense import DenseKeys
from latentbank.parts.retrieval.sketch import sketches, split_sketch
from latentbank.parts.state_reader import StateReader
from latentbank.parts.text_levels import TextLevels, leading
from tiny import ANSWERS, DOCUMENTS, QUESTIONS, Backbones, fresh_bank

ASKED = [*QUESTIONS, "What is the?", "Xyzzy?", "tea tea tea winter comet"]


def pooled(backbones: Backbones, **config: Any) -> Any:
    values = {"entry": "pooled", **config}
    made = build_method("strata", backbones.fresh("llama"), values, preset="tiny", seed=0)
    made.prepare(DOCUMENTS)
    made.train(False)
    return made


def test_a_reopened_bank_selects_the_same(backbones: Backbones, tmp_path: Path) -> None:
    method = pooled(backbones, read_documents=3)
    path = tmp_path / "a.bank"
    with MemoryBank.create(path, bank_fingerprint(method)) as bank:
        method.bind(bank)
        method.write(DOCUMENTS[:2])
        method.write(DOCUMENTS[1:])
        before = method.retriever.rank(ASKED, 3)
    with MemoryBank.open(path, bank_fingerprint(method), read_only=True) as bank:
        method.bind(bank)
        assert len(method.retriever.keys) == len(DOCUMENTS)
        assert method.retriever.rank(ASKED, 3) == before
    assert [len(row) for row in before] == [3] * len(ASKED)
    assert len({row[0][0] for row in before}) > 1, "or the test shows little"


def test_an_entry_is_a_sketch_and_up_to_k_states(backbones: Backbones) -> None:
    method = pooled(backbones, segments=4)
    bank = fresh_bank(method)
    method.write(DOCUMENTS)
    for document, sketch in zip(DOCUMENTS, sketches([d.text for d in DOCUMENTS]), strict=True):
        entry = bank.get(document.id)
        assert entry is not None
        found, body = split_sketch(entry.payload)
        assert found == sketch
        assert len(body) == 4 * 32 * 2, "4 float16 states of width 32"
        assert len(entry.key) == method.config.key_width
        states, mask = method.standard_states([document.text])
        key = DenseKeys.encode(method.selector.documents(states, mask).detach())[0]
        assert entry.key == key


def test_a_deleted_document_is_selected_no_more(backbones: Backbones) -> None:
    method = pooled(backbones, read_documents=5)
    fresh_bank(method)
    method.write(DOCUMENTS)
    method.delete([DOCUMENTS[0].id])
    never = pooled(backbones, read_documents=5)
    fresh_bank(never)
    never.write(DOCUMENTS[1:])
    ranked, expected = method.retriever.rank(ASKED, 5), never.retriever.rank(ASKED, 5)
    for one, two in zip(ranked, expected, strict=True):
        assert [id for id, _ in one] == [id for id, _ in two]
        assert dict(one) == pytest.approx(dict(two), rel=1e-4)  # batches of another size
    assert len(ranked[0]) == 4


@pytest.mark.parametrize("entry", ["verbatim", "pooled"])
def test_the_memory_of_a_document_does_not_depend_on_the_cache(
    backbones: Backbones, entry: str
) -> None:
    warm, cold = pooled(backbones, entry=entry), pooled(backbones, entry=entry, hot_bytes=0)
    rows = [[DOCUMENTS[0].id], [DOCUMENTS[1].id, DOCUMENTS[0].id], ["unknown"], []]
    memories = []
    for method in (warm, warm, cold):
        if method.bank is None:
            fresh_bank(method)
            method.write(DOCUMENTS)
        memories.append(method.reader.memory(rows, method._states))
    for memory in memories[1:]:
        for one, two in zip(memories[0].keys, memory.keys, strict=True):
            torch.testing.assert_close(one, two)
        assert torch.equal(memories[0].bias, memory.bias)
        assert torch.equal(memories[0].start, memory.start)
    assert warm.reader.hot.bytes > 0
    assert cold.reader.hot.bytes == 0
    assert memories[0].start.tolist()[2:] == [0, 0]


@pytest.mark.parametrize(
    ("method", "config"),
    [
        ("strata", {"entry": "verbatim"}),
        ("strata", {"entry": "pooled", "read_documents": 5}),  # its keys are random
        ("strata", {"entry": "verbatim", "read": "text"}),
        ("rag", {}),
    ],
)
def test_a_question_that_matches_nothing_is_answered_without_memory(
    backbones: Backbones, method: str, config: dict[str, Any]
) -> None:
    asked = [QUESTIONS[0], "Which zeppelin crossed the glacier?"]
    backbone, decoding = backbones.fresh("llama"), DecodingConfig(max_new_tokens=4)
    made = build_method(method, backbone, {**config, "least_match": 0.4}, preset="tiny", seed=0)
    made.prepare(DOCUMENTS)
    made.train(False)
    with fresh_bank(made):
        made.write(DOCUMENTS)
        both = answer(made, asked, None, decoding)
        plain = answer(made, asked, None, decoding, memory=False)
        alone = answer(made, asked[1:], None, decoding)
    assert DOCUMENTS[0].id in dict(both[0].documents)
    assert both[1].documents == alone[0].documents == ()
    assert both[1].text == alone[0].text == plain[1].text
    assert both[0].confidence > 0
    assert both[1].confidence < plain[1].confidence


def test_texts_and_states_in_one_bank_are_ranked_by_their_match(backbones: Backbones) -> None:
    method = pooled(backbones, key_width=16)
    with fresh_bank(method):
        method.write(DOCUMENTS[:3])
        method.config = replace(method.config, entry="verbatim")
        method.write(DOCUMENTS[3:])
        assert (len(method.retriever.keys), len(method.retriever.texts)) == (3, 2)
        for i, row in enumerate(method.retriever.rank(QUESTIONS, 1)):
            best = method.retriever.texts.search(QUESTIONS[i], 1) or [("", 0.0)]
            if i >= 3:
                assert row[0] == best[0], "its document is the text"
            fits = method.retriever.matches([QUESTIONS[i]] * 2, [[row[0][0]], [best[0][0]]])
            assert fits[0] >= fits[1]


def test_questions_are_trained_without_memory_where_the_config_asks(backbones: Backbones) -> None:
    batch = Batch(DOCUMENTS, QUESTIONS, ANSWERS, tuple(range(5)), step=3)
    losses = {}
    for share in (0.0, 0.5, 1.0):
        method = pooled(backbones, closed_share=share, selector_weight=0.0)
        losses[share] = method.loss(batch).total.item()
        with Conditioning((method.lora,)).attach(method.backbone):
            plain = mean_answer_loss(method.backbone, batch).item()
    assert losses[1.0] == pytest.approx(plain, rel=1e-4)
    assert len({round(value, 4) for value in losses.values()}) == 3


@pytest.mark.parametrize("entry", ["verbatim", "pooled"])
def test_memory_aware_answers_move_away_from_those_without_memory(
    backbones: Backbones, entry: str
) -> None:
    """What is read with much contrast is what the memory adds, and an empty bank adds nothing."""
    short = DecodingConfig(max_new_tokens=3)
    told = [document.id for document in DOCUMENTS]
    answers = {}
    for weight in (0.0, 20.0):
        method = pooled(backbones, entry=entry, memory_aware=weight)
        fresh_bank(method)
        plain = [one.text for one in answer(method, QUESTIONS, None, short, memory=False)]
        assert [one.text for one in answer(method, QUESTIONS, None, short)] == plain
        method.write(DOCUMENTS)
        answers[weight] = [one.text for one in answer(method, QUESTIONS, told, short)]
    assert answers[0.0] != answers[20.0]


def test_a_match_must_be_a_share(backbones: Backbones) -> None:
    for method in ("strata", "rag"):
        with pytest.raises(InputError, match=r"least_match must lie between 0 and 1, got 2"):
            build_method(method, backbones.shared("llama"), {"least_match": 2}, preset="tiny")
    with pytest.raises(InputError, match=r"closed_share must lie between 0 and 1, got -0.5"):
        build_method("strata", backbones.shared("llama"), {"closed_share": -0.5}, preset="tiny")
    with pytest.raises(InputError, match=r"memory_aware must not be negative, got -1"):
        build_method("strata", backbones.shared("llama"), {"memory_aware": -1}, preset="tiny")


# ---- presets of larger backbones


@pytest.mark.parametrize(
    ("preset", "architecture", "layers"),
    [
        ("smollm2-135m", "llama", 30),
        ("smollm2-1.7b", "llama", 24),
        ("qwen3-0.6b", "qwen3", 28),
        ("llama-2-7b", "llama", 32),
        ("gpt2-xl", "gpt2", 48),
    ],
)
def test_each_preset_trains_writes_and_answers_on_its_architecture(
    preset: str, architecture: str, layers: int
) -> None:
    """As many layers as the real one has, random and narrow."""
    backbone = Backbone(tiny.model(architecture, layers), tiny.tokenizer(), preset)
    method = build_method("strata", backbone, preset=preset, seed=0)
    method.prepare(DOCUMENTS)
    loss = method.loss(Batch(DOCUMENTS[:3], QUESTIONS[:3], ANSWERS[:3], (0, 1, 2)))
    loss.total.backward()
    assert torch.isfinite(loss.total)
    assert method.lora is not None
    assert all(p.grad is not None for p in method.lora.parameters.values())
    method.train(False)
    with fresh_bank(method):
        method.write(DOCUMENTS)
        (said,) = answer(method, QUESTIONS[:1], decoding=DecodingConfig(max_new_tokens=2))
        assert said.documents


# ---- texts that sink to fewer bytes


def counted(backbone: Backbone) -> TokenTextCodec:
    """The codec of level `packed` over the tiny tokenizer, as the package has one for SmolLM2."""
    texts = [f"Note {i}: the {name} of the harbour opens at {i % 12}." for i, name in NAMED]
    tables = count_tokens(backbone.encode(texts, start=False), 259)
    return TokenTextCodec(
        lambda rows: backbone.encode(rows, start=False),
        backbone.tokenizer.decode,
        TokenCounts(tables),
        ZstdTextCodec(),
    )


NAMED = [(i, ("office", "museum", "market", "station")[i % 4]) for i in range(400)]


def test_a_full_bank_packs_and_shortens_texts_before_it_forgets_any(
    backbones: Backbones, tmp_path: Path
) -> None:
    notes = [
        Document(f"Note {i}: the {name} of the harbour opens at {i % 12}. It is number {i * 7919}.")
        for i, name in NAMED
    ]
    backbone = backbones.fresh("llama")
    method = build_method("strata", backbone, {}, preset="tiny", seed=0)
    method.texts.packer = counted(backbone)
    path = tmp_path / "full.bank"
    with MemoryBank.create(path, bank_fingerprint(method), budget=26_000) as bank:
        method.bind(bank)
        for at in range(0, len(notes), 20):
            method.write(notes[at : at + 20])
        entries = list(bank.entries())
        assert len({entry.level for entry in entries}) > 1 and entries[0].level == "gist50"
        texts = dict(zip((e.id for e in entries), method.texts.decode(entries), strict=True))
        said = {d.id: d.text for d in notes}
        for entry in entries:
            whole = said[entry.id]
            short = whole.split(" It is")[0]
            assert texts[entry.id] == (whole if entry.level in ("verbatim", "packed") else short)
        method.texts._recent.clear()  # what lies in the bank, and not what is remembered of it
        assert method.texts.decode(entries) == list(texts.values())
        asked = [notes[-1].text, texts[entries[0].id]]
        found = [row[0][0] for row in method.retriever.rank(asked, 1)]
        assert found == [notes[-1].id, entries[0].id]
    with MemoryBank.open(path, bank_fingerprint(method)) as bank:
        method.bind(bank)
        assert [row[0][0] for row in method.retriever.rank(asked, 1)] == found
    method.texts.packer = None
    with (
        MemoryBank.open(path, bank_fingerprint(method)) as bank,
        pytest.raises(BankError, match="packed texts"),
    ):
        method.bind(bank)


def test_a_full_bank_forgets_whole_texts_where_they_are_not_to_be_shortened(
    backbones: Backbones, tmp_path: Path
) -> None:
    backbone = backbones.fresh("llama")
    method = build_method("strata", backbone, {"shorten": False}, preset="tiny", seed=0)
    method.texts.packer = counted(backbone)
    notes = [Document(f"Note {i}: the {name} opens at {i % 12}. It is new.") for i, name in NAMED]
    with MemoryBank.create(tmp_path / "b", bank_fingerprint(method), budget=16_000) as bank:
        method.bind(bank)
        for at in range(0, len(notes), 20):
            method.write(notes[at : at + 20])
        entries = list(bank.entries())
        said = {d.id: d.text for d in notes}
        assert 0 < len(entries) < len(notes)
        assert {entry.level for entry in entries} <= {"verbatim", "packed"}
        assert method.texts.decode(entries) == [said[entry.id] for entry in entries]


def test_texts_of_other_tokens_are_shortened_without_being_packed(backbones: Backbones) -> None:
    levels = TextLevels(backbones.shared("llama"))
    text = "One two three four five. Six seven eight nine. Ten eleven twelve thirteen."
    entry: Entry | None = Entry("a", "verbatim", levels.encode([text], "verbatim")[0])
    seen = []
    while entry is not None:
        seen.append((entry.level, levels.decode([entry])[0]))
        entry = levels.fade(entry)
    assert seen == [("verbatim", text), ("gist50", "One two three four five.")]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("A cat sat. A dog ran. A bird flew.", "A cat sat."),
        ('He said "no." Then he left at last.', 'He said "no."'),
        ("No end here", "No end here"),
        ("", ""),
        ("Σωκράτης ήρθε. Έφυγε. Γύρισε πάλι εδώ.", "Σωκράτης ήρθε."),
        ("猫がいた。犬もいた。鳥は飛んだ。", "猫がいた。"),
        ("Version 2.5 is out. It costs 3.50 euros now.", "Version 2.5 is out."),
    ],
)
def test_what_leads_a_text(text: str, kept: str) -> None:
    assert leading(text, len(text) // 2) == kept


def test_packed_entries_need_tokens_that_were_counted(backbones: Backbones) -> None:
    method = build_method("strata", backbones.fresh("llama"), {"entry": "packed"}, preset="tiny")
    fresh_bank(method)
    with pytest.raises(InputError, match="use entry='verbatim'"):
        method.write(DOCUMENTS)


def test_documents_of_unlike_length_are_read_apart_and_as_if_alone(backbones: Backbones) -> None:
    backbone = backbones.shared("llama")
    draw = torch.Generator().manual_seed(1)
    lengths = [20, 5, 22, 6, 40]
    states = {
        str(i): torch.randn(length, backbone.geometry.width, generator=draw)
        for i, length in enumerate(lengths)
    }
    reader, ran = StateReader(backbone, 1, None, 1 << 30), []
    fill = reader._fill
    reader._fill = lambda rows, mask: ran.append(tuple(mask.shape)) or fill(rows, mask)  # type: ignore[method-assign,func-returns-value]
    reader.memory([list(states)], lambda id: states[id])
    assert ran == [(2, 6), (2, 22), (1, 40)]
    for id, row in states.items():
        alone = StateReader(backbone, 1, None, 0).memory([[id]], lambda _, row=row: row)
        held = reader.hot.get(id)
        assert alone is not None and held is not None and held.slots == len(row)
        for one, other in zip(held.keys, alone.keys, strict=True):
            assert torch.allclose(one, other, atol=1e-4)
