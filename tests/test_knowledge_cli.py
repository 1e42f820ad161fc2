"""The commands for knowledge bases: extract, show, ask --explain, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from latentbank.adapter import build_method, save_adapter
from latentbank.backbone.model import load_backbone
from latentbank.documents.document import Document
from latentbank.documents.extraction import SENTENCE, extract_triples, sentences_of
from latentbank.errors import InputError
from latentbank.evaluate.kb.data import class_of, load_knowledge, real_triples
from tiny import Backbones
from tiny_cli import refuse, run, succeed

ROWS = [
    ("Acme Works", "founder", "Ada Park"),
    ("Acme Works", "motto", "always on time"),
    ("Kestrel", "price", "4,718 euros"),
]


@pytest.fixture(scope="session")
def adapter(backbones: Backbones) -> dict[str, str]:
    folder = backbones.root / "kblam-llama"
    backbone = load_backbone(str(backbones.folder("llama")), dtype="float32")
    save_adapter(folder, build_method("kblam", backbone, preset="tiny"))
    return {"adapter": str(folder), "backbone": str(backbones.folder("llama"))}


@pytest.fixture
def bank(adapter: dict[str, str], tmp_path: Path) -> str:
    path = tmp_path / "kb.csv"
    lines = [",".join(f'"{part}"' for part in row) for row in ROWS]
    path.write_text("\n".join(["entity,property,value", *lines]) + "\n")
    return written(path, adapter)


def written(path: Path, adapter: dict[str, str], *more: str) -> str:
    bank = str(path.with_name("kb.bank"))
    words = [f"--{name}={value}" for name, value in adapter.items()]
    succeed("write", str(path), "--bank", bank, "--kind", "triples", *words, *more)
    return bank


# ---- extract


TEXT = (
    "Acme Works was founded in 1921 by Ada Park. It is located in Brno. Its motto is “On time”. "
    "Although it rained, we walked. There is a shop. Dr. Lena Ohm was born in Kiel on 3 May 1961.\n"
    "\nThe price of Kestrel is 4,718 euros! Bo Lind is the director of Acme Works."
)
FOUND = [
    ("Acme Works", "founding date", "1921", "Acme Works was founded in 1921 by Ada Park."),
    ("Acme Works", "founder", "Ada Park", "Acme Works was founded in 1921 by Ada Park."),
    ("Acme Works", "location", "Brno", "It is located in Brno."),
    ("Acme Works", "motto", "On time", "Its motto is “On time”."),
    ("Dr. Lena Ohm", "birthplace", "Kiel", "Dr. Lena Ohm was born in Kiel on 3 May 1961."),
    ("Dr. Lena Ohm", "birth date", "3 May 1961", "Dr. Lena Ohm was born in Kiel on 3 May 1961."),
    ("Kestrel", "price", "4,718 euros", "The price of Kestrel is 4,718 euros!"),
    ("Acme Works", "director", "Bo Lind", "Bo Lind is the director of Acme Works."),
]


def test_rules_find_triples_with_their_sentences() -> None:
    found = list(extract_triples(Document(TEXT, source="a.txt", time="2024")))
    assert [(t.entity, t.property, t.value, t.metadata[SENTENCE]) for t in found] == FOUND
    assert {(t.source, t.time) for t in found} == {("a.txt", "2024")}
    assert "".join(sentences_of(TEXT)).count("Lena Ohm") == 1
    for sentence in ("There is a shop.", "He is tall.", "What is the price of it?", ""):
        assert not list(extract_triples(Document(sentence or "-")))


def test_what_is_extracted_can_be_written(adapter: dict[str, str], tmp_path: Path) -> None:
    text, rows = tmp_path / "a.txt", tmp_path / "kb.jsonl"
    text.write_text(TEXT)
    done = succeed("kb", "extract", str(text), "--out", str(rows))
    assert "8 triples of 1 text" in done.stderr
    printed = [json.loads(line) for line in succeed("kb", "extract", str(text)).stdout.splitlines()]
    assert [(r["entity"], r["property"], r["value"], r["sentence"]) for r in printed] == FOUND
    bank = written(rows, adapter)
    shown = json.loads(succeed("kb", "show", "acme  works", "--bank", bank, "--json").stdout)
    assert {row["property"] for row in shown} == {
        "founding date", "founder", "location", "motto", "director",
    }  # fmt: skip
    assert all(row["metadata"]["sentence"] for row in shown)


def test_a_text_without_triples_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("Although it rained, we walked home.")
    assert "No triple was found in 1 text" in refuse("kb", "extract", str(path))


# ---- show, ask


def test_show_names_what_is_known(bank: str) -> None:
    table = succeed("kb", "show", "Acme Works", "--bank", bank).stdout
    assert "founder" in table and "Ada Park" in table and "Kestrel" not in table
    counted = json.loads(succeed("kb", "show", "--bank", bank, "--json").stdout)
    assert counted == {"Acme Works": 2, "Kestrel": 1}
    missing = refuse("kb", "show", "acme", "--bank", bank)
    assert "no triple about 'acme'. Did you mean Acme Works?" in missing


def test_triples_and_documents_may_share_a_bank(
    bank: str, adapter: dict[str, str], tmp_path: Path
) -> None:
    other = tmp_path / "b.txt"
    other.write_text("The harbour froze in 1924.")
    succeed("write", str(other), "--bank", bank)
    assert json.loads(succeed("inspect", bank, "--json").stdout)["documents"] == 4
    counted = json.loads(succeed("kb", "show", "--bank", bank, "--json").stdout)
    assert sum(counted.values()) == 3, "the text stays a text"
    row = json.loads(succeed("ask", "Who founded it?", "--bank", bank, "--json").stdout)
    assert row["documents"]


def test_triples_are_documents_of_other_methods(backbones: Backbones, tmp_path: Path) -> None:
    path = tmp_path / "kb.csv"
    path.write_text("entity,property,value\nAcme,founder,Ada\n")
    plain = {"method": "none", "backbone": str(backbones.folder("llama"))}
    bank = written(path, plain)
    assert "holds no triple" in refuse("kb", "show", "Acme", "--bank", bank)
    assert "attends to none" in refuse("ask", "Who?", "--bank", bank, "--explain")
    path.with_name("kb.bank").unlink()
    bank = written(path, {**plain, "method": "rag"})
    (row,) = json.loads(succeed("kb", "show", "acme", "--bank", bank, "--json").stdout)
    assert (row["entity"], row["property"], row["value"]) == ("Acme", "founder", "Ada")


def test_explain_draws_the_attention_of_each_layer(bank: str, tmp_path: Path) -> None:
    words = ("ask", "Who is the founder of Acme Works?", "--bank", bank, "--max-new-tokens", "3")
    drawn = succeed(*words, "--explain").stdout
    assert "attention by layer" in drawn and "(no triple)" in drawn and "the founder of" in drawn
    found: dict[str, Any] = json.loads(succeed(*words, "--explain", "--json").stdout)["attention"]
    assert len(found["triples"]) == 3
    for i in range(len(found["layers"])):
        total = sum(row["shares"][i] for row in found["triples"]) + found["none"][i]
        assert total == pytest.approx(1, abs=1e-3)
    for name, begins in (("a.png", b"\x89PNG"), ("a.svg", b"<svg")):
        succeed(*words, "--explain-to", str(tmp_path / name))
        assert (tmp_path / name).read_bytes().startswith(begins)
    assert ".png or .svg" in refuse(*words, "--explain-to", "a.gif")
    rows = tmp_path / "q.jsonl"
    rows.write_text('{"question": "Who?"}\n')
    assert "for one question" in refuse("ask", "--file", str(rows), "--bank", bank, "--explain")


def test_a_replaced_value_is_told_and_bad_rows_are_named(
    bank: str, adapter: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "more.csv"
    path.write_text(
        "entity,property,value\nacme works,Founder,Bo Lind\n,motto,x\nAcme Works,motto,\n"
        "Kestrel,price,5 euros\nKestrel,price,6 euros\nKestrel,price,6 euros\n"
    )
    done = run("write", str(path), "--bank", bank, "--kind", "triples", "--json")
    assert done.exit_code == 3, "bad rows were left out"
    assert "was 'Ada Park' and is now 'Bo Lind'" in done.stderr
    assert "was '4,718 euros' and is now '5 euros'" in done.stderr
    assert "was '5 euros' and is now '6 euros'" in done.stderr
    assert "line 3: the row has no entity" in done.stderr
    assert "line 4: the row has no value" in done.stderr
    result = json.loads(done.stdout)
    assert result["documents_in_bank"] == 3
    shown = json.loads(succeed("kb", "show", "Kestrel", "--bank", bank, "--json").stdout)
    assert [row["value"] for row in shown] == ["6 euros"]


# ---- data


def test_data_of_synthetic_and_real_triples(tmp_path: Path) -> None:
    data = load_knowledge("kb:40:3")
    assert len(data.documents) == len(data.questions) == 40
    assert data.hash == load_knowledge("kb:40:3").hash != load_knowledge("kb:40:4").hash
    assert {class_of(q) for q in data.questions} == {
        "name", "number", "date", "place", "description",
    }  # fmt: skip
    held = load_knowledge("kb-properties:40")
    names = {document.metadata["property"] for document in data.documents}
    assert not names & {document.metadata["property"] for document in held.documents}
    other = load_knowledge("kb-wordings:40:3")
    assert [d.text for d in other.documents] == [d.text for d in data.documents]
    assert not {q.text for q in other.questions} & {q.text for q in data.questions}
    dart = tmp_path / "dart.json"
    rows = [
        ["Mars_Hill", "OPERATING_ORGANISATION", '"Infraero"'],
        ["[TABLECONTEXT]", "[TITLE]", "x"],
        ["Cocum", "eatType", "coffee shop"],
        ["Cocum", "eatType", "pub"],
    ]
    dart.write_text(json.dumps([{"tripleset": [row]} for row in rows]))
    found = [(t.entity, t.property, t.value) for t in real_triples(dart)]
    assert found == [
        ("Mars Hill", "operating organisation", "Infraero"), ("Cocum", "eat type", "coffee shop"),
    ]  # fmt: skip
    popqa = tmp_path / "popqa.json"
    popqa.write_text(json.dumps([{
        "subj": "Ada", "prop": "occupation", "obj": "poet", "question": "What does Ada do?",
        "possible_answers": '["poet", "writer"]',
    }]))  # fmt: skip
    (question,) = load_knowledge(f"kb:{popqa}").questions
    assert question.text == "What does Ada do?" and question.answers == ("poet", "poet", "writer")
    for split in ("train", "test"):
        parts = {t.entity for t in real_triples(dart, split)}
        assert parts < {"Mars Hill", "Cocum"} or parts == {"Mars Hill", "Cocum"}
    with pytest.raises(InputError, match="expected kb:COUNT or a file"):
        load_knowledge(f"kb:{tmp_path}/none.csv")
    with pytest.raises(InputError, match="at least 1 triple"):
        load_knowledge("kb:0")
