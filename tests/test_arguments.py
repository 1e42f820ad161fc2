"""What callers pass to the Python API: a single value simply works, nonsense is one sentence."""

from __future__ import annotations

from typing import Any

import pytest

from latentbank.adapter import build_method
from latentbank.backbone.model import load_backbone
from latentbank.documents.document import Document
from latentbank.errors import InputError
from latentbank.model import MemoryModel
from tiny import DOCUMENTS, QUESTIONS, Backbones


@pytest.fixture
def model(backbones: Backbones) -> MemoryModel:
    return MemoryModel(build_method("rag", backbones.shared("llama")))


@pytest.mark.parametrize(
    ("given", "count"),
    [("A text.", 1), (Document("A text."), 1), (["One.", Document("Two.")], 2), ([], 0),
     (iter(["x"]), 1)],
)  # fmt: skip
def test_texts_and_documents_are_written(model: MemoryModel, given: Any, count: int) -> None:
    assert model.write(given).stored == count


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (None, "expected a list of Document or of texts, got None"),
        (7, "got int '7'"),
        ({"text": "x"}, "got dict"),
        (["Good.", None], "document 2: expected a Document or a text, got None"),
        ([b"bytes"], "document 1: .* got bytes"),
    ],
)
def test_what_is_no_document_is_refused(model: MemoryModel, given: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        model.write(given)


def test_one_id_is_not_its_letters(model: MemoryModel) -> None:
    model.write([Document("The fare is two crowns.", id="fare"), Document("Alpha.", id="f")])
    assert model.delete("fare").deleted == ("fare",)
    assert list(model.bank.ids()) == ["f"]
    for wrong, sentence in ((None, "got None"), ([1], "id 1: expected a text, got int")):
        with pytest.raises(InputError, match=sentence):
            model.delete(wrong)  # type: ignore[arg-type]


def test_questions(model: MemoryModel) -> None:
    model.write(DOCUMENTS)
    assert len(model.ask_many(QUESTIONS[0])) == 1  # type: ignore[arg-type]
    for call, sentence in (
        (lambda: model.ask(None), "question 1: expected a text, got None"),  # type: ignore[arg-type]
        (lambda: model.ask_many(None), "expected a text or a list of texts, got None"),  # type: ignore[arg-type]
        (lambda: model.ask_many(QUESTIONS, batch=0), "batch must be a whole number of at least 1"),
        (lambda: model.write(DOCUMENTS, batch=0), "batch must be a whole number of at least 1"),
        (lambda: model.ask_many(QUESTIONS, documents=["x"]), "one document for each of the 5"),
    ):
        with pytest.raises(InputError, match=sentence):
            call()


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"chunk_tokens": "many"}, r"chunk_tokens: expected a whole number, got 'many'"),
        ({"closed_share": "half"}, r"closed_share: expected a number, got 'half'"),
        ({"entry": 3}, r"entry: expected a text, got 3"),
        ({"candidates": True}, r"candidates: expected a whole number, got True"),
        ({"retrieval": 3}, r"retrieval is a group"),
    ],
)
def test_an_override_of_another_type_is_refused(
    backbones: Backbones, config: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        build_method("rag", backbones.shared("llama"), config)


def test_an_unknown_device_is_one_sentence(backbones: Backbones) -> None:
    with pytest.raises(InputError, match=r"device 'gpu' cannot be used here.*Try cpu"):
        load_backbone(str(backbones.folder("llama")), device="gpu")
