"""Triples: as documents, from every format, and which of two values of one key counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from latentbank.documents.facts import Triple, as_triple, triple_id
from latentbank.documents.readers import ReadOptions, read_documents
from latentbank.documents.readers.triples import newest
from latentbank.errors import InputError
from tiny_cli import run

TRIPLES = ReadOptions(triples=True)
ROWS = [("Acme Works", "founder", "Ada Park"), ("Acme Works", "height", "1,204 metres")]
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1).filter(
    lambda text: text.strip()
)


@given(WORDS, WORDS, WORDS)
@example("0", "ı", "0")
def test_a_triple_comes_back_from_its_document(entity: str, property: str, value: str) -> None:
    made = Triple(entity, property, value)
    assert as_triple(made.text, made.metadata) == (made.entity, made.property, value.strip())
    assert made.id == triple_id(f" {entity}  ", property.upper().lower())


def test_the_key_is_entity_and_property() -> None:
    one, two = Triple("Acme", "founder", "Ada"), Triple("ACME", "Founder", "Bo")
    assert one.id == two.id and one.version != two.version
    assert Triple("Acme founder", "x", "Ada").id != Triple("Acme", "founder x", "Ada").id
    assert as_triple("Some text.", {}) is None
    assert as_triple("Some text.", {"entity": "a", "property": "b"}) is None


@pytest.mark.parametrize(
    "parts", [("", "p", "v"), ("e", " ", "v"), ("e", "p", "\n"), ("e", 3, "v")]
)
def test_a_part_that_is_missing_is_named(parts: tuple[str, str, str]) -> None:
    with pytest.raises(InputError, match="triple"):
        Triple(*parts)


def read(path: Path, options: ReadOptions = TRIPLES) -> list[tuple[str, str, str]]:
    found = list(read_documents([path], options=options))
    assert all(isinstance(one, Triple) for one in found)
    return [(one.entity, one.property, one.value) for one in found]  # type: ignore[attr-defined]


def test_every_format_gives_the_same_triples(tmp_path: Path) -> None:
    names = ("entity", "property", "value")
    (tmp_path / "a.csv").write_text(
        "\n".join([",".join(names), *(",".join(f'"{v}"' for v in row) for row in ROWS)])
    )
    lines = [json.dumps(dict(zip(names, row, strict=True))) for row in ROWS]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    published = [
        {"name": e, "description_type": p, "description": v, "Q": "?", "A": "!", "key_string": "k"}
        for e, p, v in ROWS
    ]
    (tmp_path / "a.json").write_text(json.dumps(published))
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(ROWS, columns=["subject", "predicate", "object"])
    frame.to_parquet(tmp_path / "a.parquet")
    for name in ("a.csv", "a.jsonl", "a.json", "a.parquet"):
        assert read(tmp_path / name) == ROWS
    assert next(read_documents([tmp_path / "a.json"], options=TRIPLES)).metadata == {
        "entity": "Acme Works", "property": "founder",
    }  # fmt: skip


def test_rdf_names_things_by_label_or_address(tmp_path: Path) -> None:
    pytest.importorskip("rdflib")
    (tmp_path / "a.ttl").write_text(
        "@prefix x: <http://example.org/> .\n"
        "@prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> .\n"
        'x:Acme_Works x:chiefEngineer x:Q5 ; x:height "12" .\n'
        'x:Q5 rdfs:label "Ada Park"@en .\n'
    )
    (tmp_path / "a.nt").write_text(
        '<http://example.org/Acme_Works> <http://example.org/height> "12" .\n'
    )
    assert read(tmp_path / "a.ttl") == [
        ("Acme Works", "chief Engineer", "Ada Park"), ("Acme Works", "height", "12"),
    ]  # fmt: skip
    assert read(tmp_path / "a.nt") == [("Acme Works", "height", "12")]
    plain = next(read_documents([tmp_path / "a.nt"]))
    assert plain.text == "The height of Acme Works is 12"
    (tmp_path / "b.ttl").write_text("this is no graph")
    with pytest.raises(InputError, match=r"b\.ttl is not readable turtle"):
        read(tmp_path / "b.ttl")


def test_columns_are_mapped_and_a_wrong_mapping_names_the_columns(tmp_path: Path) -> None:
    path = tmp_path / "kb.csv"
    path.write_text("who;what;is\nAcme;founder;Ada\n;founder;Bo\nAcme;motto;\n")
    mapped = ReadOptions(
        triples=True, entity_column="WHO", property_column="what", value_column="is"
    )
    bad: list[str] = []
    found = list(read_documents([path], lambda error: bad.append(str(error)), mapped))
    assert [one.text for one in found] == ["The founder of Acme is Ada"]
    assert "line 3: the row has no WHO" in bad[0] and "line 4: the row has no is" in bad[1]
    with pytest.raises(InputError, match=r"the table has no entity; its fields are: is, what, who"):
        read(path)
    with pytest.raises(InputError, match="three columns"):
        read(path, ReadOptions(triples=True, entity_column="who", property_column="who",
                               value_column="is"))  # fmt: skip


def test_the_newest_value_counts_and_the_old_one_is_told() -> None:
    told: list[str] = []
    rows = [
        Triple("Acme", "founder", "Ada", "2020"),
        Triple("Acme", "founder", "Bo", "2021"),
        Triple("Acme", "founder", "Cy", "2019"),
        Triple("Acme", "founder", "Bo", "2021"),
        Triple("Acme", "motto", "On"),
    ]
    held = {rows[-1].id: ("Off", None)}
    kept = list(newest(rows, held.get, told.append))
    assert [one.value for one in kept] == ["Ada", "Bo", "Bo", "On"]
    assert told == [
        "The founder of Acme was 'Ada' and is now 'Bo'.",
        "The founder of Acme stays 'Bo'; the older 'Cy' is left out.",
        "The motto of Acme was 'Off' and is now 'On'.",
    ]


def test_a_hundred_thousand_rows_and_long_values_are_read(tmp_path: Path) -> None:
    path = tmp_path / "many.csv"
    rows = "\n".join(f"thing {i},number,{i}" for i in range(100_000))
    path.write_text(f"entity,property,value\n{rows}\nlong,text,{'word ' * 2_000}\n")
    found = read(path)
    assert len(found) == 100_001 and len(found[-1][2]) == 9_999


def test_the_command_refuses_columns_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "kb.csv"
    path.write_text("entity,property,value\nAcme,founder,Ada\n")
    bank = str(tmp_path / "kb.bank")
    for words, sentence in (
        (["--kind", "rows"], "Unknown kind 'rows'"),
        (["--entity-column", "entity"], "add --kind triples"),
        (["--kind", "triples", "--text-column", "value"], "has no text or id column"),
    ):
        result = run("write", str(path), "--bank", bank, *words)
        assert result.exit_code == 2 and sentence in result.stderr
    assert not Path(bank).exists()
