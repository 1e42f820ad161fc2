"""Time and identity in a bank: versions, instants, and choosing documents by conditions."""

from pathlib import Path
from typing import Any

import pytest

from latentbank.bank import BankFingerprint, Entry, MemoryBank
from latentbank.bank.admin.export import export_bank, import_bank
from latentbank.bank.admin.join import diff_banks, merge_banks
from latentbank.bank.admin.rows import insert_rows
from latentbank.bank.admin.split import split_bank
from latentbank.documents.conditions import conditions_of, parse_conditions
from latentbank.documents.document import Document
from latentbank.documents.identity import entry_id, find_entries
from latentbank.errors import BankError, InputError

PRINT = BankFingerprint("method", "adapter", "backbone", "tokenizer")


def kept(document: Document, chunk: int | None = None, payload: bytes = b"") -> Entry:
    return Entry(
        entry_id(document.id, chunk), "codes", payload or document.text.encode(), document.time,
        document.source, document.metadata, b"", document.version,
    )  # fmt: skip


def bank_of(path: Path, *entries: Entry) -> MemoryBank:
    bank = MemoryBank.create(path, PRINT)
    bank.append(list(entries))
    return bank


# ---- versions


def test_the_version_of_an_entry_is_kept(tmp_path: Path) -> None:
    mine, plain = Document("Tea.", id="drink"), Document("Coffee.")
    with bank_of(tmp_path / "a", kept(mine), kept(plain)) as bank:
        export_bank(bank, tmp_path / "out")
        bank.delete([plain.id])
        bank.compact()
    import_bank(tmp_path / "out", tmp_path / "b")
    for name in ("a", "b"):
        with MemoryBank.open(tmp_path / name, read_only=True) as bank:
            assert bank.verify().ok
            found = bank.get("drink")
            assert found is not None and found.version == mine.version != ""
    with MemoryBank.open(tmp_path / "b", read_only=True) as bank:
        plainly = bank.get(plain.id)
        assert plainly is not None and plainly.version == ""


def test_a_bank_without_times_keeps_versions_and_one_without_ids_does_not() -> None:
    mine = Document("Tea.", id="drink", time="2024")
    for ledger, version in (("ids", mine.version), ("none", "")):
        with MemoryBank.create(":memory:", PRINT, ledger=ledger) as bank:
            bank.append([kept(mine)])
            (found,) = bank.entries()
            assert (found.version, found.time) == (version, None)


def test_banks_of_versions_differ() -> None:
    with MemoryBank.create(":memory:", PRINT) as one, MemoryBank.create(":memory:", PRINT) as two:
        one.append([kept(Document("Tea.", id="drink"), payload=b"p")])
        two.append([kept(Document("Coffee.", id="drink"), payload=b"p")])
        assert diff_banks(one, two).changed == {"drink": ("ledger",)}


# ---- merging


def test_a_merge_keeps_the_version_of_the_later_bank(tmp_path: Path) -> None:
    old, new = Document("Tea.", id="drink"), Document("Coffee.", id="drink")
    other = Document("Bread.", id="food")
    one = bank_of(tmp_path / "a", kept(old, 0), kept(old, 1), kept(old, 2), kept(other))
    two = bank_of(tmp_path / "b", kept(new, 0), kept(other))
    with one, two:
        report = merge_banks([one, two], tmp_path / "c")
    assert report.replaced == ("drink",) and report.forgotten == ()
    with MemoryBank.open(tmp_path / "c", read_only=True) as made:
        assert {e.id: e.payload for e in made.entries()} == {
            "drink#0": b"Coffee.",
            "food": b"Bread.",
        }
        assert (made.count("drink#0"), made.count("food")) == (1, 2)


def test_a_whole_document_replaces_one_in_chunks_and_the_other_way_round(tmp_path: Path) -> None:
    old, new = Document("Tea.", id="drink"), Document("Coffee.", id="drink")
    chunked = [kept(old, 0), kept(old, 1)]
    for number, (first, second) in enumerate((([kept(new)], chunked), (chunked, [kept(new)]))):
        one, two = (bank_of(tmp_path / f"{number}{i}", *e) for i, e in enumerate((first, second)))
        with one, two:
            merge_banks([one, two], tmp_path / f"{number}c")
        with MemoryBank.open(tmp_path / f"{number}c", read_only=True) as made:
            assert sorted(made.ids()) == sorted(e.id for e in second)


def test_a_merge_tells_versions_of_older_banks_by_their_payloads(tmp_path: Path) -> None:
    old, new = Entry("drink", "codes", b"Tea."), Entry("drink", "codes", b"Coffee.")
    with bank_of(tmp_path / "a", old) as one, bank_of(tmp_path / "b", new) as two:
        assert merge_banks([one, two], tmp_path / "c").replaced == ("drink",)
    with MemoryBank.open(tmp_path / "c", read_only=True) as made:
        assert made.get("drink") == new


# ---- times


TIMES = ["1969-07-20", "1714608000", "2024-05-01T23:30:00-05:00"]


def test_only_what_is_before_a_time_is_chosen() -> None:
    with MemoryBank.create(":memory:", PRINT) as bank:  # times as an older version stored them
        bank.append([Entry(f"d{i}", "codes", b"", time) for i, time in enumerate(TIMES)])
        bank.append([Entry("d3", "codes", b"", "01/02/2024"), Entry("d4", "codes", b"")])
        assert bank.select(conditions_of(before="2000-01-01")) == ["d0"]
        assert bank.select(conditions_of(since="2000-01-01")) == ["d1", "d2"]
        assert bank.select(conditions_of(since="2024-05-02T04:00Z")) == ["d2"]
        assert bank.select(conditions_of(["time=null"])) == ["d4"]


def test_the_newer_of_two_is_told_by_the_instant() -> None:
    with MemoryBank.create(":memory:", PRINT) as bank:
        bank.append([
            Entry("newer", "codes", b"", "2024-05-01T20:00:00Z"),
            Entry("older", "codes", b"", "2024-05-02T01:00:00+09:00"),
            Entry("moon", "codes", b"", "1969-07-20"),
            Entry("unknown", "codes", b"", "some day"),
        ])  # fmt: skip
        assert sorted(bank.ids(), key=bank.age) == ["unknown", "moon", "older", "newer"]


def test_a_split_by_a_condition_has_what_meets_it_and_the_rest(tmp_path: Path) -> None:
    years = {"a": 2019, "b": "2020", "c#0": 2020, "c#1": 2020, "d": None}
    entries = [Entry(id, "codes", b"x", metadata={"year": year}) for id, year in years.items()]
    entries.append(Entry("2020", "codes", b"y"))
    with bank_of(tmp_path / "a", *entries) as bank:
        parts = split_bank(
            bank, tmp_path / "parts", "where", where=parse_conditions("year=2020 and id!=x")
        )
        for where, said in ((None, "Split by"), (parse_conditions("year=1999"), "no document")):
            with pytest.raises(InputError, match=said):
                split_bank(bank, tmp_path / "none", "where", where=where)
        assert not (tmp_path / "none").exists()
    held = {}
    for name, group in parts.items():
        with MemoryBank.open(tmp_path / "parts" / name, read_only=True) as part:
            held[group] = sorted(part.ids())
    assert held == {
        "with year=2020 and id!=x": ["b", "c#0", "c#1"],
        "without year=2020 and id!=x": ["2020", "a", "d"],
    }


def test_a_split_that_fails_leaves_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [Entry(str(i), "codes", b"x", source=str(i)) for i in range(3)]
    full: list[int] = []

    def insert(*arguments: Any) -> Any:
        full.append(1)
        if len(full) == 2:
            raise BankError("disk full")
        return insert_rows(*arguments)

    monkeypatch.setattr("latentbank.bank.admin.split.insert_rows", insert)
    with bank_of(tmp_path / "a", *entries) as bank, pytest.raises(BankError, match="disk full"):
        split_bank(bank, tmp_path / "parts", "source")
    assert len(full) == 2 and not (tmp_path / "parts").exists()


def test_a_split_cuts_at_instants(tmp_path: Path) -> None:
    entries = [Entry(f"d{i}", "codes", b"", time) for i, time in enumerate(TIMES)]
    entries += [Entry("d3", "codes", b"", "2024"), Entry("d4", "codes", b"", "one day")]
    with bank_of(tmp_path / "a", *entries) as bank:
        parts = split_bank(
            bank, tmp_path / "parts", "time", ["2024-05-02T00:00+00:00", "1 Jan 2000"]
        )
        with pytest.raises(InputError, match="Expected a time"):
            split_bank(bank, tmp_path / "other", "time", ["soon"])
    held = {}
    for name, group in parts.items():
        with MemoryBank.open(tmp_path / "parts" / name, read_only=True) as part:
            held[group] = sorted(part.ids())
    assert held == {
        "until 2000-01-01": ["d0"], "from 2000-01-01": ["d3"],
        "from 2024-05-02T00:00+00:00": ["d1", "d2"], "no time": ["d4"],
    }  # fmt: skip


# ---- identity


def test_conditions_choose_by_the_id_of_the_document() -> None:
    guide, first = Document("Long.", id="guide"), Document("Short.", id="guide#1")
    with MemoryBank.create(":memory:", PRINT) as bank:
        bank.append([kept(guide, 0), kept(guide, 1), kept(first)])
        assert len(bank) == 3
        assert bank.select(conditions_of(["id=guide"])) == ["guide#0", "guide#1"]
        assert bank.select(conditions_of(["id=guide#1"])) == ["guide##1"]


@pytest.mark.parametrize("ledger", ["full", "none"])
def test_the_entries_of_documents_are_those_that_all_ids_would_give(ledger: str) -> None:
    texts = [Document(f"Text {i}.") for i in range(300)]
    named = [Document("A", id="guide"), Document("B", id="guide#1"), Document("C", id="c#x")]
    chunks = [kept(texts[0], 0), kept(texts[0], 1), kept(named[0], 0), kept(named[0], 1)]
    with MemoryBank.create(":memory:", PRINT, ledger=ledger) as bank:
        if ledger == "full":
            bank.append([*chunks, *map(kept, named[1:])])
        bank.append([kept(text) for text in texts[1:]])
        held = list(bank.ids())
        own = [held[-1], held[-100]]
        asked = [*own, texts[0].id, "guide", "guide#1", "guide#0", "c#x", "nobody", own[0], "no#0"]
        found, missing = bank.entries_of(asked)
        wanted, lost = find_entries(held, asked)
        assert len(found) == len(set(found)) and set(found) == set(wanted) and missing == lost
        assert found[:2] == own
        assert len(bank.delete(found).deleted) == len(wanted) == (8 if ledger == "full" else 2)
