"""A bank with one entry that holds no text: it is named, the rest works, `repair` takes it out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from latentbank.bank import BankFingerprint, Entry, MemoryBank
from latentbank.bank.admin.repair import repair_bank
from latentbank.bank.admin.verify import text_check
from latentbank.codec.packaged import packaged_dictionary
from latentbank.codec.text import ZstdTextCodec
from memory_folder import memory_path  # noqa: F401
from tiny import Backbones
from tiny_cli import DOCUMENTS, World, make_world, run, succeed, write_jsonl

BAD = b"\x77no text"
LEVELS = ("verbatim", "text")


@pytest.fixture(scope="session")
def world(backbones: Backbones) -> World:
    return make_world(backbones.folder("llama"), backbones.root / "adapters")


def bank_with(path: Path, level: str) -> Path:
    codec = ZstdTextCodec(packaged_dictionary())
    with MemoryBank.create(path, BankFingerprint("m", "a", "b", "t")) as bank:
        bank.append([Entry("good", level, codec.encode("A text.")), Entry("bad", level, BAD)])
        bank.append([Entry("codes", "vq16", BAD)])  # no text: it needs its method to tell
    return path


@pytest.mark.parametrize("level", LEVELS)
def test_verify_decodes_texts_and_repair_takes_the_bad_one_out(tmp_path: Path, level: str) -> None:
    path = bank_with(tmp_path / "a.bank", level)
    with MemoryBank.open(path, read_only=True) as bank:
        report = bank.verify(check=text_check())
    assert not report.ok and report.documents == 2 and report.damaged_ids == ("bad",)
    assert "'bad' cannot be read" in report.damage[0] and len(report.damage) == 1
    repaired = repair_bank(path, check=text_check())
    assert repaired.documents == 2 and "Took out the document 'bad'" in repaired.damage[0]
    with MemoryBank.open(path) as bank:
        assert sorted(bank.ids()) == ["codes", "good"] and bank.verify(check=text_check()).ok


def test_a_method_names_what_only_it_can_read(tmp_path: Path) -> None:
    path = bank_with(tmp_path / "a.bank", "verbatim")
    check = {"codes": "It has too many codes."}
    with MemoryBank.open(path) as bank:
        report = bank.verify(check=lambda entry: check.get(entry.id))
        assert report.damaged_ids == ("codes",) and report.documents == 2
    repaired = repair_bank(path, check=lambda entry: check.get(entry.id))
    assert repaired.damage == ("Took out the document 'codes': It has too many codes.",)


@pytest.mark.parametrize("method", ["strata", "mac"])
def test_the_command_line_goes_on_and_names_it_once(
    world: World, tmp_path: Path, method: str
) -> None:
    path = tmp_path / "a.bank"
    rows = write_jsonl(tmp_path / "rows.jsonl", DOCUMENTS)
    place = ["--adapter", world.adapter(method), "--backbone", world.backbone, "--bank", str(path)]
    succeed("write", str(rows), *place)
    with MemoryBank.open(path) as bank:
        level = next(iter(bank.entries())).level
        bank.append([Entry("bad", level, BAD)])
    asked = succeed("ask", "Who wrote the first program?", "--bank", str(path), "--json")
    assert "bad" not in [d["id"] for d in json.loads(asked.stdout)["documents"]]
    assert asked.stderr.count("warning: The document 'bad'") == 1
    assert "Traceback" not in asked.stderr and "DamageWarning" not in asked.stderr
    more = write_jsonl(tmp_path / "more.jsonl", [{"id": "new", "text": "A new note."}])
    assert "warning: The document 'bad'" in succeed("write", str(more), *place).stderr
    checked = run("verify", str(path), "--decode", "--json")
    assert checked.exit_code == 1 and json.loads(checked.stdout)["damaged_ids"] == ["bad"]
    repaired = json.loads(succeed("repair", str(path), "--decode", "--json").stdout)
    assert "'bad'" in repaired["damage"][0] and repaired["documents"] == len(DOCUMENTS) + 1
    again = succeed("ask", "Who wrote the first program?", "--bank", str(path))
    assert "warning" not in again.stderr
    assert json.loads(succeed("verify", str(path), "--decode", "--json").stdout)["ok"]
