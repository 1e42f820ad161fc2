"""`latentbank watch`: the bank holds what the folder holds, whatever happens in between."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import own_files
from latentbank.bank import MemoryBank
from latentbank.documents.identity import document_id
from latentbank.errors import BankError, InputError
from latentbank.model import MemoryModel
from latentbank.upkeep.folders import Change, FolderSync, WatchedFolder
from tiny import Backbones
from tiny_cli import World, make_world, refuse, run, start, succeed


@pytest.fixture(scope="module")
def world(backbones: Backbones) -> World:
    return make_world(backbones.folder("llama"), backbones.root / "adapters")


@pytest.fixture
def model(world: World, tmp_path: Path) -> Iterator[MemoryModel]:
    with opened(world, tmp_path / "a.bank") as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "notes"
    made.mkdir()
    return made


def opened(world: World, bank: Path, **options: Any) -> MemoryModel:
    return MemoryModel.from_pretrained(
        world.adapter("rag"), bank=bank, backbone=world.backbone, **options
    )


def put(folder: Path, name: str, text: str | bytes) -> Path:
    """Writes a file, with a time of change that no other has."""
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    put.clock = getattr(put, "clock", 1_700_000_000) + 1  # type: ignore[attr-defined]
    os.utime(path, (put.clock, put.clock))  # type: ignore[attr-defined]
    return path


def sync(model: MemoryModel, folder: Path, **options: Any) -> dict[str, Change]:
    made = FolderSync(model, folder, **options)
    return {Path(change.file).name: change for change in made.sync(made.look())}


def texts(model: MemoryModel) -> list[str]:
    """All texts of the bank, in alphabetical order."""
    return sorted(model.text(id) for id in model.bank.ids())


LONG = "\n\n".join(f"## Part {n}\n\n" + f"Sentence {n} of the guide. " * 20 for n in range(12))


def test_changes_replace_and_removals_delete(model: MemoryModel, folder: Path) -> None:
    put(folder, "a.md", "# A\n\nAda repairs the lamp.")
    put(folder, "long.md", LONG)
    put(folder, "b.txt", "Ben keeps the key.")
    first = sync(model, folder)
    assert set(first) == {"a.md", "long.md", "b.txt"} and first["long.md"].written > 2
    assert sync(model, folder) == {}

    put(folder, "long.md", "Short now.")
    put(folder, "c.txt", "Cora is new.")
    (folder / "b.txt").unlink()
    second = sync(model, folder)
    assert set(second) == {"long.md", "b.txt", "c.txt"}
    assert second["long.md"].replaced == 1
    receipt = second["b.txt"].receipt
    assert receipt is not None and receipt.deleted == (str(folder / "b.txt"),)
    assert receipt.before != receipt.after
    assert texts(model) == ["# A\n\nAda repairs the lamp.", "Cora is new.", "Short now."]


def test_what_comes_from_elsewhere_stays(model: MemoryModel, folder: Path, tmp_path: Path) -> None:
    other = put(tmp_path, "other.txt", "Written by hand.")
    from latentbank.documents.readers import read_documents

    model.write(read_documents([other]))
    model.write(["No source at all."])
    put(folder, "a.txt", "Ada.")
    sync(model, folder)
    (folder / "a.txt").unlink()
    put(folder, "b.txt", "Ben.")
    sync(model, folder)
    assert texts(model) == ["Ben.", "No source at all.", "Written by hand."]


def test_rows_of_a_table(model: MemoryModel, folder: Path) -> None:
    put(folder, "a.csv", "id,text\n1,one\n2,two\n,shared\n")
    put(folder, "b.csv", "text\nshared\nonly here\n")
    sync(model, folder)
    assert texts(model) == ["one", "only here", "shared", "two"]
    put(folder, "a.csv", "id,text\n1,ONE\n")
    changes = sync(model, folder)
    assert changes["a.csv"].replaced == 1 and changes["a.csv"].removed == 2
    assert texts(model) == ["ONE", "only here", "shared"], "b.csv holds what a.csv held"
    (folder / "b.csv").unlink()
    sync(model, folder)
    assert texts(model) == ["ONE"]


def test_a_bad_file_keeps_what_the_bank_has_of_it(model: MemoryModel, folder: Path) -> None:
    put(folder, "a.pdf", own_files.pdf(["The audit was led by Nora."]))
    put(folder, "rows.csv", "id,text,time\n1,one,2024\n2,two,2024\n")
    sync(model, folder)
    put(folder, "a.pdf", b"%PDF-1.7 cut off")
    put(folder, "rows.csv", "id,text,time\n1,one,01/02/2024\n3,three,2024\n")
    made = FolderSync(model, folder)
    changes = list(made.sync(made.look()))
    assert [len(change.bad) for change in changes] == [1, 1]
    assert texts(model) == ["The audit was led by Nora.", "one", "three", "two"]
    assert list(made.sync(made.look())) == [], "a bad file is told once"
    put(folder, "rows.csv", "id,text,time\n3,three,2024\n")
    made.sync(made.look())
    assert [change.removed for change in made.sync(made.look())] == [2]
    assert texts(model) == ["The audit was led by Nora.", "three"]


def test_a_zip_file_changes_as_one(model: MemoryModel, folder: Path) -> None:
    put(folder, "a.zip", own_files.packed({"x.txt": "one", "y.txt": "two"}))
    sync(model, folder)
    put(folder, "a.zip", own_files.packed({"x.txt": "one", "z.txt": "three"}))
    change = sync(model, folder)["a.zip"]
    assert (change.written, change.removed) == (1, 1)
    assert texts(model) == ["one", "three"]


class Killed(BaseException):
    """The process ends here."""


def test_killed_between_the_new_version_and_the_old(
    world: World, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = tmp_path / "a.bank"
    put(folder, "a.md", LONG)
    put(folder, "rows.csv", "text\none\ntwo\n")
    with opened(world, bank) as model:
        sync(model, folder)
    put(folder, "a.md", LONG.replace("guide", "book"))
    put(folder, "rows.csv", "text\ntwo\nthree\n")
    for _ in range(3):
        with opened(world, bank) as model, pytest.raises(Killed):

            def killed(*_: object) -> None:
                raise Killed

            with monkeypatch.context() as patch:
                patch.setattr(model.method, "delete", killed)
                sync(model, folder)
    with opened(world, bank) as model:
        sync(model, folder)
        found = texts(model)
        assert not any("guide" in text for text in found)
        assert [text for text in found if len(text) < 9] == ["three", "two"]
        fresh = FolderSync(model, folder)
        assert list(fresh.sync(fresh.look())) == []


def test_killed_within_a_long_file(world: World, folder: Path, tmp_path: Path) -> None:
    put(folder, "a.md", "\n\n".join([LONG] * 3))
    parts = 0

    def killed() -> None:
        nonlocal parts
        parts += 1
        if parts == 2:
            raise Killed

    with opened(world, tmp_path / "a.bank") as model:
        model.method.write_batch = 4
        with pytest.raises(Killed):
            sync(model, folder, on_batch=killed)
        part = len(model.bank)
    with opened(world, tmp_path / "a.bank") as model, opened(world, tmp_path / "b.bank") as whole:
        assert 0 < part == len(model.bank)
        sync(model, folder)
        sync(whole, folder)
        assert texts(model) == texts(whole) and len(model.bank) > part


def test_a_deleted_document_does_not_come_back(model: MemoryModel, folder: Path) -> None:
    path = put(folder, "a.txt", "Ada.")
    sync(model, folder)
    model.delete(str(path))
    assert sync(model, folder) == {} and len(model.bank) == 0
    put(folder, "a.txt", "Ada again.")
    sync(model, folder)
    assert texts(model) == ["Ada again."]


def test_an_empty_folder_deletes_nothing(model: MemoryModel, folder: Path) -> None:
    assert sync(model, folder) == {}  # nothing yet
    put(folder, "a.txt", "Ada.")
    sync(model, folder)
    (folder / "a.txt").unlink()
    with pytest.raises(InputError, match=r"holds no file to read now, and held 1 before; nothing"):
        sync(model, folder)
    assert len(model.bank) == 1
    sync(model, folder, allow_empty=True)
    assert len(model.bank) == 0


def test_a_folder_that_the_bank_knows_by_another_path(
    model: MemoryModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("one", "two"):
        (tmp_path / place / "notes").mkdir(parents=True)
        put(tmp_path / place / "notes", "a.txt", place)
    monkeypatch.chdir(tmp_path / "one")
    sync(model, Path("./notes/"))
    assert list(map(document_id, model.bank.ids())) == ["notes/a.txt"]
    monkeypatch.chdir(tmp_path / "two")
    with pytest.raises(InputError, match=r"knows the folder .*one/notes as 'notes', and this is"):
        sync(model, Path("notes"))
    with pytest.raises(InputError, match=r"is not a folder that can be watched"):
        WatchedFolder(model.bank, tmp_path / "three")
    sync(model, tmp_path / "two" / "notes")
    assert texts(model) == ["one", "two"]


def test_a_bank_without_sources_is_refused(world: World, folder: Path, tmp_path: Path) -> None:
    with (
        opened(world, tmp_path / "ids.bank", ledger="ids") as model,
        pytest.raises(InputError, match=r"keeps no sources \(ledger 'ids'\)"),
    ):
        sync(model, folder)


# ---- the command


def test_the_command_once(world: World, folder: Path, tmp_path: Path) -> None:
    bank = str(tmp_path / "a.bank")
    chosen = ("--adapter", world.adapter("rag"), "--backbone", world.backbone)
    put(folder, "a.txt", "Ada.")
    put(folder, "b.txt", "Ben.")
    said = succeed("watch", str(folder), "--bank", bank, "--once", *chosen).stdout
    assert said.splitlines()[-1] == f"Up to date. 2 files changed; {bank} holds 2 entries."
    assert f"{folder / 'a.txt'}: 1 entry written" in said
    said = succeed("watch", str(folder), "--bank", bank, "--once").stdout
    assert said == "Up to date. Nothing has changed.\n"
    (folder / "b.txt").unlink()
    put(folder, "c.docx", "not Word")
    result = run("watch", str(folder), "--bank", bank, "--once", "--json")
    assert result.exit_code == 3, result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["removed"] for row in rows] == [1, 0] and rows[0]["receipt"]["deleted"]
    assert "is not a Word file" in rows[1]["skipped"][0]
    assert "is not a folder" in refuse("watch", str(folder / "a.txt"), "--bank", bank)


def test_ctrl_c_ends_it_cleanly(world: World, folder: Path, tmp_path: Path) -> None:
    bank = tmp_path / "a.bank"
    put(folder, "a.txt", "Ada.")
    process = start(
        "watch", str(folder), "--bank", str(bank), "--interval", "0.1",
        "--adapter", world.adapter("rag"), "--backbone", world.backbone,
    )  # fmt: skip
    try:
        wait_for(bank, {"a.txt"})
        (folder / "b.txt").write_text("Ben.")
        wait_for(bank, {"a.txt", "b.txt"})
        (folder / "a.txt").unlink()
        wait_for(bank, {"b.txt"})
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert f"Stopped. 3 files changed; {bank} holds 1 entry." in str(out)
    assert "Traceback" not in str(err) and "Ctrl-C ends" in str(err)


def wait_for(bank: Path, names: set[str]) -> None:
    """Waits until a bank, opened by this other process, holds these files."""
    found: set[str] = set()
    for _ in range(600):
        with suppress(BankError), MemoryBank.open(bank, read_only=True) as opened:  # not made yet
            found = {Path(document_id(id)).name for id in opened.ids()}
            if found == names:
                return
        time.sleep(0.1)
    raise AssertionError(f"expected {names}, got {found}")
