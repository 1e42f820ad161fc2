"""`latentbank migrate`: the texts of a bank under another model, and what could not be kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from latentbank.bank import Entry, MemoryBank
from latentbank.documents.document import Document
from latentbank.documents.facts import Triple
from latentbank.errors import BankError, InputError
from latentbank.model import MemoryModel
from latentbank.parts.text_levels import TextLevels
from latentbank.upkeep.migration import MigrationReport, migrate_bank
from tiny import Backbones
from tiny_cli import refuse, run, succeed

LONG = "\n\n".join(f"Paragraph {n} is about the lamp of pier {n}. " * 6 for n in range(12))
DOCUMENTS = [
    Document("Ada repairs the lamp.", "ada", "2024-05-01", "notes.txt", {"lang": "en", "n": 3}),
    Document("No id of its own.", source="wire"),
    Document(LONG, "guide", "2023", "guide.md", {"title": "Guide"}),
    Triple("Acme", "founder", "Ada Park", time="2021"),
]


@pytest.fixture
def bank(backbones: Backbones, tmp_path: Path) -> Path:
    path = tmp_path / "a.bank"
    with MemoryModel.from_pretrained("rag", path, str(backbones.folder("llama"))) as model:
        model.write(DOCUMENTS)
    return path


@pytest.fixture
def other(backbones: Backbones) -> str:
    return str(backbones.folder("gpt2"))


def migrated(bank: Path, model: str, out: Path | None = None, **options: Any) -> MigrationReport:
    def open_new(file: Path, method: str, settings: Any) -> MemoryModel:
        return MemoryModel.from_pretrained(method, file, model, **options)

    return migrate_bank(bank, open_new, out)


def held(bank: Path) -> dict[str, tuple[Any, ...]]:
    """Text and ledger of each entry, as the bank's own model reads them."""
    with MemoryModel.open(bank, read_only=True) as model:
        found = {}
        for id in model.bank.ids():
            entry = model.bank.get(id)
            assert entry is not None
            text = TextLevels(model.backbone).decode([entry])[0]
            found[id] = (text, entry.time, entry.source, dict(entry.metadata))
        return found


def test_a_bank_moves_with_its_ledger(bank: Path, other: str) -> None:
    before, data = held(bank), bank.read_bytes()
    report = migrated(bank, other)
    assert report.kept_all and report.moved == report.read == len(before) > 5
    assert held(bank) == before and list(held(bank)) == list(before), "in the order of writing"
    with MemoryBank.open(bank, read_only=True) as opened:
        assert opened.get_meta("backbone") == other
    kept = Path(report.before)
    assert kept.name == "a.bank.before" and held(kept) == before
    assert kept.read_bytes()[:16] == data[:16]
    assert {path.name for path in bank.parent.iterdir()} == {"a.bank", "a.bank.before"}
    with MemoryModel.open(bank) as model:
        assert model.ask("Who is the founder of Acme?").documents
        report_of_write = model.write(DOCUMENTS)
        assert report_of_write.replaced == 1, "only the document in chunks is cut anew"
        assert report_of_write.duplicates == 3
    with pytest.raises(BankError, match=r"a\.bank\.before exists already"):
        migrated(bank, other)


def test_with_out_the_old_bank_stays(bank: Path, other: str, tmp_path: Path) -> None:
    before, data = held(bank), bank.read_bytes()
    report = migrated(bank, other, tmp_path / "b.bank")
    assert bank.read_bytes() == data and held(tmp_path / "b.bank") == before
    assert (report.bank, report.before) == (str(tmp_path / "b.bank"), str(bank))
    with pytest.raises(BankError, match="exists already"):
        migrated(bank, other, tmp_path / "b.bank")


def test_shorter_chunks_are_cut_anew(bank: Path, other: str, tmp_path: Path) -> None:
    out = tmp_path / "b.bank"
    report = migrated(bank, other, out, overrides={"chunk_tokens": 40})
    assert report.cut == ["guide"] and report.kept_all
    found = held(out)
    assert [id for id in found if id.startswith("guide")] == [
        f"guide#{n}" for n in range(sum(id.startswith("guide") for id in found))
    ]
    words = " ".join(text for id, (text, *_) in found.items() if id.startswith("guide")).split()
    assert words == LONG.split()
    assert all(said[3] == {"title": "Guide"} for id, said in found.items() if id[:5] == "guide")


def test_what_cannot_be_kept_is_told(
    bank: Path, other: str, backbones: Backbones, tmp_path: Path
) -> None:
    with MemoryModel.open(bank) as model:
        payload = TextLevels(model.backbone).encode(["Half of it."], "gist50")[0]
        model.bank.append(
            [
                Entry("faded", "gist50", payload),
                Entry("states", "pooled", b"\x01\x02"),
                Entry("broken", "verbatim", b"not zstd"),
            ]
        )
        model.bank.put_state({"memory": b"\x00"})
    result = run("migrate", str(bank), "--backbone", other, "--json", "--out", str(tmp_path / "b"))
    assert result.exit_code == 3, result.stderr
    report = json.loads(result.stdout)
    assert report["shortened"] == ["faded"] and report["without_text"] == ["states"]
    assert list(report["unreadable"]) == ["broken"] and report["state"] == ["memory"]
    assert report["moved"] == report["read"] - 2 and not report["kept_all"]
    assert held(tmp_path / "b")["faded"][0] == "Half of it."
    result = run("migrate", str(bank), "--backbone", other)
    assert "sentences that were left moved: 1 entry (faded)." in result.stdout
    assert "Without a text, not moved: 1 entry (states)." in result.stdout


def test_triples_of_knowledge(bank: Path, other: str, tmp_path: Path) -> None:
    from latentbank.codec.packaged import packaged_dictionary
    from latentbank.codec.text import ZstdTextCodec

    codec = ZstdTextCodec(packaged_dictionary())
    with MemoryBank.open(bank) as opened:
        for id, fact in (("t", ["Acme", "motto", "Onward"]), ("u", ["", "", "A text."])):
            opened.append([Entry(id, "triple", codec.encode(json.dumps(fact)), metadata={"a": 1})])
    migrated(bank, other, tmp_path / "b.bank")
    found = held(tmp_path / "b.bank")
    assert found["t"][0] == "The motto of Acme is Onward"
    assert found["t"][3] == {"a": 1, "entity": "Acme", "property": "motto"}
    assert found["u"][0] == "A text."


def test_the_old_model_may_be_gone(backbones: Backbones, other: str, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(backbones.folder("llama"), model)
    bank = tmp_path / "a.bank"
    with MemoryModel.from_pretrained("rag", bank, str(model)) as opened:
        opened.write(DOCUMENTS)
    shutil.rmtree(model)
    assert migrated(bank, other).kept_all and len(held(bank)) > 5


def test_codes_do_not_move(backbones: Backbones, other: str, tmp_path: Path) -> None:
    bank = tmp_path / "a.bank"
    with MemoryModel.from_pretrained("rag", bank, str(backbones.folder("llama"))) as model:
        with pytest.raises(InputError, match="is empty; make a new one"):
            migrated(bank, other)
        model.bank.append([Entry("a", "codes", b"\x01")])
    data = bank.read_bytes()
    with pytest.raises(InputError, match=r"holds no texts: its entries \(1\) are codes or"):
        migrated(bank, other)
    assert bank.read_bytes() == data and [p.name for p in tmp_path.iterdir()] == ["a.bank"]


def test_a_failure_leaves_everything_as_it_was(
    bank: Path, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bank.read_bytes()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MemoryModel, "write_pieces", killed)
        with pytest.raises(KeyboardInterrupt):
            migrated(bank, other)
    assert bank.read_bytes() == data and [p.name for p in bank.parent.iterdir()] == ["a.bank"]
    bank.with_name("a.bank.migrating").write_bytes(b"of a process that was killed")
    assert migrated(bank, other).kept_all


def test_a_bank_that_is_written_meanwhile(
    bank: Path, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = MemoryModel.write_pieces

    def writes(self: MemoryModel, pieces: Any) -> Any:
        with MemoryBank.open(bank) as opened:
            opened.append([Entry("late", "codes", b"\x01")])
        return real(self, pieces)

    monkeypatch.setattr(MemoryModel, "write_pieces", writes)
    with pytest.raises(BankError, match="was written meanwhile; migrate it again"):
        migrated(bank, other)
    with MemoryBank.open(bank, read_only=True) as opened:
        assert "late" in opened


def test_the_command(bank: Path, other: str, tmp_path: Path) -> None:
    said = succeed("migrate", str(bank), "--backbone", other, "--budget", "none").stdout
    assert said.splitlines()[0].startswith(f"{bank}: ") and "moved; the bank as it was is" in said
    missing = str(tmp_path / "none.bank")
    assert "none.bank" in refuse("migrate", missing, "--backbone", other)
    assert "not both" in refuse("migrate", str(bank), "--backbone", other, "-m", "rag", "-a", "x")
