"""`MemoryModel`: what is refused before any work, what a new bank records, what is left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from latentbank.adapter import build_method
from latentbank.answering import check_questions
from latentbank.backbone.generate import DecodingConfig
from latentbank.bank import MemoryBank
from latentbank.bank.admin.rows import bank_rows
from latentbank.documents.document import Document
from latentbank.errors import AdapterError, BankError, InputError
from latentbank.evaluate.data import QADataset, Question
from latentbank.evaluate.evaluation import evaluate
from latentbank.method import Method
from latentbank.model import MemoryModel, bank_fingerprint
from tiny import ANSWERS, DOCUMENTS, QUESTIONS, Backbones, fresh_bank
from tiny_cli import World, make_world

LONG = "Why? " * 500


@pytest.fixture(scope="session")
def world(backbones: Backbones) -> World:
    return make_world(backbones.folder("llama"), backbones.root / "adapters")


def tiny(backbones: Backbones, name: str = "strata", **config: Any) -> Method:
    return build_method(name, backbones.fresh("llama"), config, preset="tiny", seed=0)


def pretrained(world: World, method: str = "strata", **options: Any) -> MemoryModel:
    return MemoryModel.from_pretrained(
        **{"adapter": world.adapter(method), "backbone": world.backbone, **options}
    )


# ---- questions


@pytest.mark.parametrize(
    ("question", "sentence"),
    [
        (LONG, r"The question has 2500 tokens; .* 48 for the answer .* the 512 of llama"),
        ("q" * 490, r"The question has 490 tokens"),  # it fits, its prompt does not
        (" \n", r"The question is empty"),
        ("caf\udce9?", r"The question is not valid Unicode text"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_read(
    backbones: Backbones, monkeypatch: pytest.MonkeyPatch, question: str, sentence: str
) -> None:
    model = MemoryModel(tiny(backbones))
    model.write(DOCUMENTS)
    monkeypatch.setattr(model.method, "read", lambda *_: pytest.fail("it was read"))
    monkeypatch.setattr(model.method, "closed_book", lambda: pytest.fail("it was read"))
    for memory in (True, False):
        with pytest.raises(InputError, match=sentence):
            model.ask_many(["Who?", question], memory=memory)


def test_the_longest_question_that_passes_is_answered(backbones: Backbones) -> None:
    model = MemoryModel(tiny(backbones))
    decoding = DecodingConfig(max_new_tokens=4)
    fits = "q" * (512 - 4 - 19)  # start, "Question: ", "\nAnswer:"
    assert model.ask(fits, decoding, memory=False).confidence > 0
    with pytest.raises(InputError, match="tokens"):
        model.ask(fits + "q", decoding, memory=False)
    with pytest.raises(InputError, match=r"^q\.jsonl, line 2: the question has"):
        check_questions(model.backbone, ["Who?", LONG], places=["", "q.jsonl, line 2"])


@pytest.mark.parametrize("name", ["strata", "mac", "mbc", "rag", "none"])
def test_no_question_has_no_answer(backbones: Backbones, name: str) -> None:
    model = MemoryModel(tiny(backbones, name))
    model.write(DOCUMENTS)
    assert model.ask_many([]) == []


def test_an_empty_prompt_is_refused(backbones: Backbones) -> None:
    with pytest.raises(InputError, match="prompt is empty"):
        MemoryModel(tiny(backbones)).generate("")


def test_a_batch_fits_where_each_of_its_questions_does(backbones: Backbones) -> None:
    """The longest prompt and the longest memory need not be in one row."""
    model = MemoryModel(tiny(backbones))
    model.write([Document("The comet " + "x" * 400), Document("tea")])
    questions = ["comet?", "tea " + "y" * 430]
    together = model.ask_many(questions, DecodingConfig(4))
    assert [a.text for a in together] == [model.ask(q, DecodingConfig(4)).text for q in questions]


def test_a_model_answers_without_dropout(backbones: Backbones) -> None:
    method = tiny(backbones, "none", lora={"rank": 4, "layer": 0, "dropout": 0.9})
    with torch.no_grad():
        for parameter in method.trainable().values():
            parameter.normal_(generator=torch.Generator().manual_seed(0))
    model = MemoryModel(method)
    assert len({model.ask(QUESTIONS[0]).confidence for _ in range(3)}) == 1


# ---- banks


def test_a_bank_in_memory_keeps_its_budget(world: World) -> None:
    with pretrained(world, "rag", budget_bytes=40_960) as model:
        assert model.bank.budget_bytes == 40_960
        report = model.write([Document(f"{i} {torch.rand(40).tolist()}") for i in range(200)])
        assert report.forgotten > 0 and report.stored - report.forgotten == len(model.bank)
        assert model.bank.footprint().total <= 40_960
        model.write([Document(f"{torch.rand(5000).tolist()}")])  # its last chunks stay
        assert len(model.bank) > 0
        assert model.bank.footprint().total <= 40_960


def test_an_existing_bank_keeps_the_budget_that_it_was_made_with(
    world: World, tmp_path: Path
) -> None:
    bank = tmp_path / "a.bank"
    pretrained(world, "rag", bank=bank, budget_bytes=65_536).close()
    with pretrained(world, "rag", bank=bank, budget_bytes=65_536) as model:
        assert model.bank.budget_bytes == 65_536
    with pytest.raises(InputError, match="a budget of 65536 bytes, not 70000"):
        pretrained(world, "rag", bank=bank, budget_bytes=70_000)


def test_reading_a_bank_that_is_not_there_makes_none(world: World, tmp_path: Path) -> None:
    with pytest.raises(BankError, match="no bank"):
        pretrained(world, bank=tmp_path / "a.bank", read_only=True)
    assert not list(tmp_path.iterdir())


def test_a_bank_opens_from_another_folder(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter, backbone = Path(world.adapter("rag")), Path(world.backbone)
    monkeypatch.chdir(adapter.parent)
    relative = {"adapter": adapter.name, "backbone": f"../{backbone.name}"}
    with pretrained(world, bank=tmp_path / "a.bank", **relative) as model:
        model.write(DOCUMENTS)
    monkeypatch.chdir(tmp_path)
    with MemoryModel.open("a.bank", read_only=True) as model:
        assert model.ask(QUESTIONS[0]).documents[0][0] == DOCUMENTS[0].id
    with MemoryBank.open("a.bank", read_only=True) as bank:
        assert bank.get_meta("adapter") == str(adapter)


def test_a_folder_with_the_name_of_a_method_is_not_taken_for_an_adapter(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rag").mkdir()
    with pretrained(world, adapter="rag", bank="a.bank") as model:
        assert model.method.name == "rag"
        assert model.bank.get_meta("adapter") == "rag"
    (tmp_path / "other").mkdir()
    with pytest.raises(AdapterError, match="holds no adapter"):
        pretrained(world, adapter="other")


@pytest.mark.parametrize("name", ["strata", "mac", "rag"])
def test_deleting_a_long_document_deletes_its_chunks(backbones: Backbones, name: str) -> None:
    model = MemoryModel(tiny(backbones, name, chunk_tokens=40))
    model.write([Document("The comet returns. " * 9, id="long"), Document("tea", id="short")])
    chunks = len(model.bank) - 1
    assert chunks > 3
    assert len(model.delete(["long", "unknown"]).deleted) == chunks
    assert list(model.bank.ids()) == ["short"]


# ---- evaluation


def test_documents_that_an_answer_names_have_helped(backbones: Backbones, tmp_path: Path) -> None:
    method = tiny(backbones, "rag")
    with MemoryBank.create(tmp_path / "b", bank_fingerprint(method), budget="1MiB") as bank:
        model = MemoryModel(method, bank)
        model.write(DOCUMENTS)
        found = model.ask(QUESTIONS[0])
        name, share = found.documents[0]
        assert name == DOCUMENTS[0].id and 0 < share <= 1
        assert sum(share for _, share in found.documents) == pytest.approx(1)
    with MemoryBank.open(tmp_path / "b") as bank:
        hits = {row.entry.id: row.fact[1] for row in bank_rows(bank)}
    assert hits[name] == 1 and sum(hits.values()) < len(DOCUMENTS)


def test_evaluation_leaves_a_method_as_it_found_it(backbones: Backbones) -> None:
    pairs = zip(QUESTIONS, ANSWERS, strict=True)
    asked = tuple(Question(f"q{i}", q, (a,), i) for i, (q, a) in enumerate(pairs))
    data = QADataset("tiny", DOCUMENTS, asked)
    method = tiny(backbones, "rag")
    evaluate(method, data)
    assert method.bank is None
    assert method.read(QUESTIONS).sources == ((),) * 5, "nothing of the data is found any more"
    with pytest.raises(InputError, match="no bank yet"):
        method.write(DOCUMENTS)
    bank = fresh_bank(method)
    method.write(DOCUMENTS[:1])
    assert evaluate(method, data).summary()["gold_selected"] == 100
    assert method.bank is bank
    assert [s[0][0] for s in method.read(QUESTIONS[:1]).sources] == [DOCUMENTS[0].id]
