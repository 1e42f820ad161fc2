"""Models whose banks have a word index beside them answer as those that have none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from latentbank.adapter import build_method, new_bank
from latentbank.bank import Follower, MemoryBank
from latentbank.bank.words.folder import index_folder
from latentbank.documents.conditions import conditions_of
from latentbank.documents.document import Document
from latentbank.model import MemoryModel
from latentbank.parts.retrieval import stored
from latentbank.parts.retrieval.stored import StoredIndex
from tiny import DOCUMENTS, QUESTIONS, Backbones
from tiny_cli import succeed

MORE = [
    Document(f"The {what} of {where} opened in {1900 + at}.", id=f"{where} {what}", source=where)
    for at, where in enumerate(("Oslo", "Bergen", "Turku", "Riga", "Gdańsk", "Kiel"))
    for what in ("harbour", "museum", "library", "theatre")
]
ASKED = [*QUESTIONS, "When did the library of Riga open?", "Which museum opened in 1904?"]
ALL = [*DOCUMENTS, *MORE]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "INDEX_FROM", 12)


def method_of(backbones: Backbones, name: str, **config: Any) -> Any:
    method = build_method(name, backbones.fresh("llama"), config, preset="tiny", seed=0)
    method.prepare(DOCUMENTS)
    return method


def model_of(backbones: Backbones, name: str, path: Path | str, **config: Any) -> MemoryModel:
    method = method_of(backbones, name, **config)
    if Path(path).exists():
        return MemoryModel(method, MemoryBank.open(path))
    return MemoryModel(method, new_bank(path, method))


def ranked(model: MemoryModel) -> list[Any]:
    model.prompt("anything")  # takes in what others wrote
    rows = model.method.retriever.rank(ASKED, 4)  # type: ignore[attr-defined]
    return [[(id, pytest.approx(score)) for id, score in row] for row in rows]


def indexed(model: MemoryModel) -> bool:
    return isinstance(model.method.retriever.texts, StoredIndex)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["strata", "rag"])
def test_a_bank_that_becomes_large_gets_an_index(
    backbones: Backbones, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "my.bank"
    plain = model_of(backbones, name, ":memory:")
    model = model_of(backbones, name, path)
    for at in range(0, len(ALL), 3):
        for one in (plain, model):
            one.write(ALL[at : at + 3])
        assert ranked(model) == ranked(plain)
    assert indexed(model) and not indexed(plain)
    answers = [one.text for one in plain.ask_many(ASKED[:2])]
    assert [one.text for one in model.ask_many(ASKED[:2])] == answers
    model.close()
    monkeypatch.setattr(Follower, "__init__", None)  # it would read every page
    with model_of(backbones, name, path) as again:
        assert indexed(again) and ranked(again) == ranked(plain)
        conditions = conditions_of((), "Riga", None, None)
        for one in (again, plain):
            with one.within(conditions) as count:
                assert count == 4
                one.found = ranked(one)  # type: ignore[attr-defined]
        assert again.found == plain.found  # type: ignore[attr-defined]
        newer = Document("The library of Riga opened in 1851.", id="Riga library")
        for one in (again, plain):
            one.write([newer])
            one.delete(["Kiel theatre", DOCUMENTS[0].id])
        assert ranked(again) == ranked(plain)
    raw = b"".join(file.read_bytes() for file in index_folder(path).iterdir())
    assert b"Oslo theatre" in raw and b"Kiel theatre" not in raw


def test_two_models_follow_each_other(backbones: Backbones, tmp_path: Path) -> None:
    path = tmp_path / "my.bank"
    one = model_of(backbones, "strata", path)
    one.write(ALL)
    two = model_of(backbones, "strata", path)
    two.write([Document("A zeppelin crossed the glacier.", id="zeppelin")])
    assert one.method.retriever.rank(["zeppelin"], 1) == [[]]  # type: ignore[attr-defined]
    assert ranked(one) == ranked(two)
    one.delete(["zeppelin"])
    assert ranked(one) == ranked(two)
    one.close()
    two.close()


def test_a_full_bank_keeps_its_index_right(backbones: Backbones, tmp_path: Path) -> None:
    method = method_of(backbones, "strata")
    bank = new_bank(tmp_path / "my.bank", method, budget_bytes=24_000)
    with MemoryModel(method, bank) as model:
        for at in range(0, 300, 10):
            texts = [
                f"{MORE[n % 24].text} It had {n} rooms. {'So it was. ' * 9}"
                for n in range(at, at + 10)
            ]
            model.write([Document(text) for text in texts])
        assert indexed(model) and any(level != "verbatim" for level in bank.levels())
        held = scores(method)
        method.retriever.clear()
        method._index(list(bank.entries()))
        assert not indexed(model) and scores(method) == held


def scores(method: Any) -> list[Any]:
    """Of documents with one score any may come first."""
    rows = method.retriever.rank(ASKED, 4)
    return [[pytest.approx(score) for _, score in row] for row in rows]


def test_a_limit_of_nothing_keeps_no_index(backbones: Backbones, tmp_path: Path) -> None:
    path = tmp_path / "my.bank"
    with model_of(backbones, "strata", path) as model:
        model.write(ALL)
    assert index_folder(path).is_dir()
    with model_of(backbones, "strata", path, retrieval={"index_bytes": 0}) as model:
        assert not indexed(model) and not index_folder(path).exists()


def test_inspect_has_a_line_for_the_index(backbones: Backbones, tmp_path: Path) -> None:
    path = tmp_path / "my.bank"
    with model_of(backbones, "strata", path) as model:
        model.write(ALL)
    assert "word index" in succeed("inspect", str(path)).stdout
