"""Strata without an adapter: a document's keys and values from layer 0 equal it in the prompt."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import tiny
from latentbank.adapter import untrained
from latentbank.backbone.generate import PromptRun
from latentbank.backbone.model import Backbone
from latentbank.backbone.prompts import COMPLETION, PLAIN, chat_template, end_id_of, prompt_ids
from latentbank.errors import InputError, UnknownNameError
from latentbank.model import MemoryModel
from tiny import DOCUMENTS, NAMES, QUESTIONS, Backbones

CHAT = (
    "{% for m in messages %}{{ '<s>' + m['role'] + ': ' + m['content'] + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant: ' }}{% endif %}"
)


@pytest.fixture(params=["plain", "chat"])
def chatty(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def backbone_of(backbones: Backbones, name: str, chatty: str) -> Backbone:
    backbone = backbones.fresh(name)
    backbone.tokenizer.chat_template = CHAT if chatty == "chat" else None
    return backbone


def logits_of(backbone: Backbone, prompts: list[list[int]]) -> torch.Tensor:
    return PromptRun(backbone, prompts)._logits


@pytest.mark.parametrize("name", NAMES)
def test_reading_equals_the_passage_in_the_prompt(
    backbones: Backbones, name: str, chatty: str
) -> None:
    backbone = backbone_of(backbones, name, chatty)
    method = untrained("strata", backbone)
    with MemoryModel(method) as model:
        model.write(DOCUMENTS)
        ids = [document.id for document in DOCUMENTS]
        read = method.read(QUESTIONS, ids)
        assert read.begun and read.passages is None
        with read.attach(backbone):
            memory = logits_of(backbone, read.prompts(backbone, QUESTIONS))
        texts = [document.text for document in DOCUMENTS]
        prompts = prompt_ids(backbone, QUESTIONS, texts, method.template)
        assert torch.allclose(memory, logits_of(backbone, prompts), atol=1e-3)
        alone = [method.read([q], [id]) for q, id in zip(QUESTIONS, ids, strict=True)]
        for i, one in enumerate(alone):
            with one.attach(backbone):
                again = logits_of(backbone, one.prompts(backbone, [QUESTIONS[i]]))
            assert torch.allclose(again[0], memory[i], atol=1e-3)


def test_two_documents_are_passages(backbones: Backbones) -> None:
    backbone = backbone_of(backbones, "llama", "chat")
    method = untrained("strata", backbone, {"retrieval": {"together": 2}})
    with MemoryModel(method) as model:
        model.write(DOCUMENTS)
        read = method.read(["When did the harbour of Oslo freeze, and who wrote the program?"])
        assert read.passages is not None and not read.begun
        assert "Oslo" in read.passages[0] and "Ada" in read.passages[0]


def test_the_template_of_a_model(backbones: Backbones) -> None:
    backbone = backbone_of(backbones, "llama", "chat")
    template = chat_template(backbone)
    assert template is not None
    assert template.before == "<s>user: " and template.end == "</s>"
    assert template.after.startswith("\nAnswer in") and template.after.endswith("assistant: ")
    assert end_id_of(backbone, template) == backbone.end_id
    text = backbone.tokenizer.decode(prompt_ids(backbone, ["Who?"], ["It is A."], template)[0])
    assert text.startswith("<s>user: It is A.\n\nWho?\nAnswer in a few words.")
    backbone.tokenizer.chat_template = None
    assert chat_template(backbone) is None
    assert untrained("strata", backbone).template == COMPLETION  # type: ignore[attr-defined]
    assert COMPLETION.cut("Paris.\n\nQuestion: What next?") == "Paris."
    assert template.cut("one\ntwo") == PLAIN.cut("one\ntwo") == "one\ntwo"


@pytest.mark.parametrize(
    "source", ["{{ raise_exception('no user here') }}", "{% for %}", "{{ messages[0]['role'] }}"]
)
def test_a_template_that_cannot_be_used(backbones: Backbones, source: str) -> None:
    backbone = backbone_of(backbones, "llama", "chat")
    backbone.tokenizer.chat_template = source
    with pytest.raises(InputError, match="prompt=plain"):
        untrained("strata", backbone)
    untrained("strata", backbone, {"prompt": "plain"})


def test_states_need_an_adapter(backbones: Backbones) -> None:
    backbone = backbones.shared("llama")
    with pytest.raises(InputError, match="trained adapter"):
        untrained("strata", backbone, {"entry": "pooled"})
    with pytest.raises(InputError, match="trained adapter"):
        untrained("strata", backbone, {"inject_from": 1})
    with pytest.raises(UnknownNameError, match="strata prompt"):
        untrained("strata", backbone, {"prompt": "shout"})


def test_a_bank_reopens_without_an_adapter(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    tiny.save_backbone("llama", folder)
    bank = tmp_path / "a.bank"
    with MemoryModel.from_pretrained("strata", backbone=str(folder), bank=bank) as model:
        model.write(DOCUMENTS)
        first = model.ask(QUESTIONS[0])
        assert first.documents[0][0] == DOCUMENTS[0].id
    with MemoryModel.open(bank) as model:
        assert model.ask(QUESTIONS[0]).text == first.text
        model.delete([DOCUMENTS[0].id])
        assert DOCUMENTS[0].id not in [id for id, _ in model.ask(QUESTIONS[0]).documents]
