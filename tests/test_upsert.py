"""Writing a document again: the same version counts, another one replaces, stays out or is refused.

The whole of writing is checked against a dictionary of texts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from latentbank.adapter import build_method
from latentbank.backbone.generate import DecodingConfig, generate
from latentbank.backbone.prompts import prompt_ids
from latentbank.bank import Entry, MemoryBank
from latentbank.documents.conditions import conditions_of
from latentbank.documents.document import Document
from latentbank.documents.identity import group
from latentbank.documents.readers import read_documents
from latentbank.errors import InputError, UnknownNameError
from latentbank.method import Method
from latentbank.model import MemoryModel, bank_fingerprint, new_bank
from tiny import Backbones

LONG = "The royal navy anchors at pier {0} and sails at dawn. " * 6
CHUNK = 64  # tokens; the tiny tokenizer's are bytes


@pytest.fixture(scope="module")
def rag(backbones: Backbones) -> Method:
    return build_method("rag", backbones.fresh("llama"), {"chunk_tokens": CHUNK}, preset="tiny")


@pytest.fixture
def model(rag: Method) -> Iterator[MemoryModel]:
    with MemoryModel(rag) as made:
        yield made


def texts(model: MemoryModel) -> dict[str, str]:
    """The text of each document of the bank, its chunks joined."""
    held = {entry.id: entry for entry in model.bank.entries()}
    decode: Any = model.method.texts.decode  # type: ignore[attr-defined]
    return {
        id: " ".join(decode([held[name] for name in names])) for id, names in group(held).items()
    }


def same(text: str) -> str:
    return " ".join(text.split())


# ---- what is kept


def test_a_document_beside_a_chunk_of_the_same_name(model: MemoryModel) -> None:
    long, short = LONG.format(1), "The head of the office is Lena Brandt."
    report = model.write([Document(long, id="guide"), Document(short, id="guide#1")])
    assert report.duplicates == 0
    assert texts(model) == {"guide": same(long), "guide#1": short}
    assert model.delete(["guide"]).missing == ()
    assert texts(model) == {"guide#1": short}


def test_numbered_documents_are_documents(model: MemoryModel) -> None:
    names = ["issue", "issue#12", "issue#13"]
    report = model.write([Document(f"This is {name}.", id=name) for name in names])
    assert (report.stored, report.duplicates) == (3, 0)
    model.delete(["issue"])
    assert sorted(texts(model)) == names[1:]
    model.delete(["issue#12"])
    assert sorted(texts(model)) == names[2:]


def test_another_text_replaces_the_old_one(rag: Method, tmp_path: Path) -> None:
    path = tmp_path / "a.bank"
    old = "".join(f"Number {i} of the ancient list is {i * 7919}. " for i in range(20))
    with MemoryModel(rag, new_bank(path, rag)) as model:
        model.write([Document(old, id="k"), Document("Another one.", id="other")])
        payloads = [e.payload for e in model.bank.entries() if e.id.startswith("k#")]
        assert len(payloads) > 3
        report = model.write([Document("It is new.", id="k")])
        assert (report.stored, report.duplicates, report.replaced) == (1, 0, 1)
        assert texts(model) == {"k": "It is new.", "other": "Another one."}
        named = {name for name, _ in model.method.read(["What is the ancient list?"]).sources[0]}
        assert not any(name.startswith("k#") for name in named)
    data = path.read_bytes()
    assert not any(payload in data for payload in payloads), "the old text is gone from the file"


def test_the_last_version_of_one_call_wins(model: MemoryModel) -> None:
    versions = [Document(f"Version {i}.", id="k") for i in range(5)]
    report = model.write([*versions, Document("Other.")])
    assert (report.stored, report.replaced) == (6, 4)
    assert texts(model)["k"] == "Version 4."
    report = model.write([versions[4], versions[4]])
    assert (report.stored, report.duplicates, report.replaced) == (0, 2, 0)
    assert model.bank.count("k") == 3


def test_a_version_of_many_chunks_that_is_replaced_in_the_same_call(rag: Method) -> None:
    """Its last chunks are written with the next part, and are old there."""
    for batch in (1, 2, 3, 32):
        with MemoryModel(rag) as model:
            long = Document(LONG.format(3)[:190], id="k")
            report = model.write([long, Document("Short 0.", id="k")], batch)
            assert texts(model) == {"k": "Short 0."}
            assert report.replaced == 1 and len(model.bank) == 1


def test_another_time_or_metadata_is_another_version(model: MemoryModel) -> None:
    model.write([Document("Text.", id="k", time="2024", metadata={"a": 1})])
    for changed in (
        Document("Text.", id="k", time="2025", metadata={"a": 1}),
        Document("Text.", id="k", time="2025", metadata={"a": 2}),
    ):
        assert model.write([changed]).replaced == 1
        (entry,) = model.bank.entries()
        assert (entry.time, entry.metadata) == (changed.time, changed.metadata)
    assert model.write([Document("Text.\n", "k", "2025", "elsewhere", {"a": 2})]).duplicates == 1


def test_documents_without_ids_are_known_by_their_text(model: MemoryModel) -> None:
    model.write([Document("Text.", time="2024")])
    report = model.write([Document("Text.", time="2025"), Document("Other text.")])
    assert (report.stored, report.duplicates, report.replaced) == (1, 1, 0)


@pytest.mark.parametrize("first", [LONG.format(1), "Short."])
@pytest.mark.parametrize("second", [LONG.format(2), LONG.format(3)[:130], "Shorter."])
def test_whole_and_in_chunks(model: MemoryModel, first: str, second: str) -> None:
    model.write([Document(first, id="k"), Document("Other.")])
    model.write([Document(second, id="k")])
    assert texts(model)["k"] == same(second)


def test_an_edited_file_replaces_what_it_was(
    model: MemoryModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes").mkdir()
    Path("notes/bus.txt").write_text("The bus leaves at nine.")
    Path("notes/ferry.txt").write_text("The ferry leaves at ten.")
    model.write(read_documents(["notes"]))
    Path("notes/bus.txt").write_text("The bus leaves at eleven.")
    report = model.write(read_documents(["./notes"]))
    assert (report.stored, report.duplicates, report.replaced) == (1, 1, 1)
    assert texts(model) == {
        "notes/bus.txt": "The bus leaves at eleven.", "notes/ferry.txt": "The ferry leaves at ten."
    }  # fmt: skip


# ---- a process that dies


@pytest.mark.parametrize("first", [LONG.format(1), "Short."])
@pytest.mark.parametrize("second", [LONG.format(2) * 2, LONG.format(3)[:130], "Shorter."])
@pytest.mark.parametrize("writes", range(8))
def test_a_version_is_there_wherever_a_write_ends(
    model: MemoryModel, monkeypatch: pytest.MonkeyPatch, first: str, second: str, writes: int
) -> None:
    """The process ends after `writes` entries of the new version, or before the old one goes."""
    old, new = Document(first, id="k"), Document(second, id="k")
    model.write([old, Document("Other.")])
    before = set(model.bank.ids())
    left = [writes]
    write, delete = model.method.write, model.method.delete

    def some(documents: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return write(documents)

    def never(ids: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(model.method, "write", some)
    monkeypatch.setattr(model.method, "delete", never)
    with pytest.raises(KeyboardInterrupt):
        model.write([new], batch=1)
    assert before <= set(model.bank.ids()), "the old version is there"
    monkeypatch.setattr(model.method, "write", write)
    monkeypatch.setattr(model.method, "delete", delete)
    again = MemoryModel(model.method, model.bank)  # knows nothing of the first
    again.write([new], batch=1)
    assert texts(again)["k"] == same(second) and len(texts(again)) == 2
    assert again.write([new]).replaced == 0


# ---- the other ways


def test_the_old_version_may_be_kept(model: MemoryModel) -> None:
    model.write([Document("Old.", id="k")])
    report = model.write([Document("New.", id="k"), Document("More.")], on_conflict="keep")
    assert (report.stored, report.kept, report.replaced) == (1, 1, 0)
    assert model.write([Document("New.", id="k")], on_conflict="keep").kept == 1
    assert texts(model)["k"] == "Old."


def test_another_version_may_be_refused(model: MemoryModel) -> None:
    model.write([Document("Old.", id="k")])
    new = [Document("Before."), Document("New.", id="k"), Document("Behind.")]
    with pytest.raises(InputError, match="holds another version of the document 'k'"):
        model.write(new, on_conflict="error")
    assert sorted(texts(model).values()) == ["Before.", "Old."]
    with pytest.raises(UnknownNameError, match="Known: error, keep, replace"):
        model.write(new, on_conflict="ignore")


# ---- older banks and other writers


def test_a_version_that_an_older_bank_does_not_tell_is_replaced(model: MemoryModel) -> None:
    model.write([Document("Old.", id="k")])
    held = model.bank.get("k")
    assert held is not None
    model.bank.delete(["k"])
    model.bank.append([Entry("k", held.level, held.payload)])
    assert model.write([Document("Old.", id="k")]).replaced == 1
    assert model.write([Document("Old.", id="k")]).duplicates == 1


def test_chunks_that_another_process_wrote_are_replaced(rag: Method, tmp_path: Path) -> None:
    path = tmp_path / "a.bank"
    with MemoryModel(rag, new_bank(path, rag)) as model:
        model.write([Document("First.", id="a"), Document(LONG.format(0), id="b")])
        model.write([Document("Second.", id="b")])
        long = Document(LONG.format(1), id="k")
        with MemoryBank.open(path, bank_fingerprint(rag)) as other:
            other.append([Entry(f"k#{i}", "text", b"x", version=long.version) for i in range(4)])
        model.write([Document("Short.", id="k")])
        assert sorted(model.bank.ids()) == ["a", "b", "k"]


def test_a_bank_without_ids_keeps_everything(rag: Method) -> None:
    with MemoryModel(rag, new_bank(":memory:", rag, ledger="none")) as model:
        for text in ("Old.", "New."):
            assert model.write([Document(text, id="k")]).replaced == 0
        assert len(model.bank) == 2


# ---- against a dictionary

names = st.sampled_from(["k", "k#0", "k#1", "k##0", "k#", "other", "#1"])
bodies = st.integers(0, 3).flatmap(
    lambda n: st.sampled_from([f"Short {n}.", LONG.format(n), LONG.format(n)[: 70 + 40 * n]])
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.lists(st.tuples(names, bodies), max_size=4)),
        st.tuples(st.just("keep"), st.lists(st.tuples(names, bodies), max_size=2)),
        st.tuples(st.just("delete"), st.lists(names, max_size=2)),
    ),
    max_size=8,
)


def check(rag: Method, steps: list[tuple[str, list[Any]]], batch: int) -> None:
    expected: dict[str, str] = {}
    with MemoryModel(rag) as model:
        for kind, given in steps:
            if kind == "delete":
                there = [name for name in given if name in expected]
                model.delete(there)
                for name in dict.fromkeys(there):
                    del expected[name]
                continue
            documents = [Document(text, id=name) for name, text in given]
            model.write(documents, batch, on_conflict="keep" if kind == "keep" else "replace")
            for name, text in given:
                if kind == "write" or name not in expected:
                    expected[name] = same(text)
        assert texts(model) == expected


QUICK = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@QUICK
@given(steps, st.sampled_from([1, 3, 32]))
def test_a_bank_holds_what_a_dictionary_holds(
    rag: Method, steps: list[tuple[str, list[Any]]], batch: int
) -> None:
    check(rag, steps, batch)


@pytest.mark.long
def test_many_banks_hold_what_dictionaries_hold(rag: Method) -> None:
    many = settings(QUICK, max_examples=300)
    many(given(steps, st.sampled_from([1, 3, 32]))(lambda s, batch: check(rag, s, batch)))()


# ---- what is read


def test_relative_dates_are_read_with_their_meaning(model: MemoryModel) -> None:
    said = "Cora: I went to the open day yesterday"
    model.write([Document(said, time="8 May 2023"), Document("Ben stayed at home last Friday.")])
    assert model.method.read(["When did Cora go?"]).passages == (f"{said} (7 May 2023)",)
    assert model.method.read(["When was Ben at home?"]).passages == (
        "Ben stayed at home last Friday.",
    )


def test_no_answer_ends_in_half_a_character(model: MemoryModel) -> None:
    model.write([Document("안녕하세요 서울입니다. नमस्ते दुनिया.")])
    questions = [f"Who is number {i}?" for i in range(24)]
    backbone = model.backbone
    plain = generate(backbone, prompt_ids(backbone, questions), DecodingConfig(7))
    assert any(one.text.endswith("\ufffd") for one in plain), "or the test shows little"
    for words in (False, True):
        answers = model.ask_many(questions, DecodingConfig(7, whole_words=words), memory=False)
        assert not any(answer.text.endswith("\ufffd") for answer in answers)


def test_answers_come_from_the_documents_that_are_meant(model: MemoryModel) -> None:
    model.write([
        Document("The gate is red.", id="a", time="2019", metadata={"year": "2019"}),
        Document("The gate is green.", id="b", time="2024-05", source="notes/b.md"),
        Document(LONG.format(7), id="c"),
    ])  # fmt: skip

    def read(**options: Any) -> set[str]:
        with model.within(conditions_of(**options)):
            (named,) = model.method.read(["What colour is the gate?"]).sources
        return {name for name, _ in named}

    assert read(where=["year=2019"]) == read(before="2020") == read(as_of="2023") == {"a"}
    assert read(source="./notes/") == read(since="2024") == read(as_of="2024-05-31") == {"b"}
    assert read(where=["id=c"]) <= {"c#0", "c#1", "c#2", "c#3", "c#4", "c#5", "c#6", "c#7"}
    assert read(where=["id=nobody"]) == set()
    assert model.method.retriever.only is None  # type: ignore[attr-defined]


def test_only_methods_that_retrieve_can_be_kept_to_some_documents(backbones: Backbones) -> None:
    made = build_method("mac", backbones.fresh("llama"), {}, preset="tiny", seed=0)
    with (
        MemoryModel(made) as model,
        pytest.raises(InputError, match="reads all documents together"),
        model.within(conditions_of(source="a")),
    ):
        pass
