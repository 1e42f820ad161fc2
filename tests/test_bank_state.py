"""State beside entries: it describes exactly the documents whose writes are complete."""

import os
import random
import shutil
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

import pytest
from safetensors.numpy import load, save

from latentbank.bank import BankFingerprint, Entry, MemoryBank
from latentbank.bank.admin.export import export_bank, import_bank
from latentbank.bank.admin.join import diff_banks, merge_banks
from latentbank.bank.admin.repair import repair_bank
from latentbank.bank.admin.split import split_bank
from latentbank.bank.space import LARGE_BUDGET
from latentbank.bank.write import Write
from latentbank.errors import BankError, BudgetError, InputError
from long_record import numbers_state, numbers_total
from memory_folder import memory_path  # noqa: F401

PRINT = BankFingerprint("any", "adapter:1", "tiny:1", "tiny:2")
SMALL = 200_000  # a budget with a journal; `LARGE_BUDGET` has a log


def hex_id(number: int) -> str:
    return blake2b(str(number).encode(), digest_size=8).hexdigest()


def entry(number: int, size: int = 200) -> Entry:
    return Entry(hex_id(number), "codes", random.Random(number).randbytes(size), source="s")


def described(bank: MemoryBank) -> bool:
    """Whether the state is that of the documents in the ledger."""
    state = bank.get_state()
    held = numbers_state(bank.ids())
    return state == held if state else len(bank) == 0


class Died(Exception):
    pass


def copy_files(path: Path, target: Path) -> Path:
    """What a killed process leaves: the file and its log or journal."""
    for tail in ("", "-wal", "-journal"):
        source = path.with_name(path.name + tail)
        if source.exists():
            shutil.copyfile(source, target.with_name(target.name + tail))
    return target


def copies_of_every_moment(
    bank: MemoryBank, entries: list[Entry], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> list[Path]:
    """Append the entries with their state; the bank's files after each transaction."""
    original, copies = Write.commit, []

    def commit(self: Write) -> None:
        original(self)
        copies.append(copy_files(Path(bank.name), folder / f"after{len(copies)}"))

    monkeypatch.setattr(Write, "commit", commit)
    ids = [*bank.ids(), *(one.id for one in entries)]
    bank.append(entries, state=numbers_state(ids))
    monkeypatch.undo()
    return copies


@pytest.mark.parametrize(("budget", "count"), [(SMALL, 200), (LARGE_BUDGET, 2000)])
def test_a_kill_between_two_parts_leaves_state_and_ledger_of_one_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: int, count: int
) -> None:
    first = [entry(n) for n in range(40)]
    second = [entry(n) for n in range(30, count)]  # ten of them are there already
    with MemoryBank.create(tmp_path / "b", PRINT, budget=budget) as bank:
        bank.append(first, state=numbers_state(one.id for one in first))
        copies = copies_of_every_moment(bank, second, tmp_path, monkeypatch)
        assert described(bank) and len(bank) == count
    assert len(copies) >= 3, "the write has several parts"
    repair_bank(copies[1], tmp_path / "repaired")
    with MemoryBank.open(tmp_path / "repaired") as whole:
        assert described(whole) and len(whole) == 40
    counts = []
    for copy in copies:
        with MemoryBank.open(copy, read_only=True) as reader:  # before any repair
            assert described(reader)
            assert len(list(reader.entries())) == len(reader)
            assert reader.verify().ok and reader.verify().documents == len(reader)
            counts.append(len(reader))
        with MemoryBank.open(copy) as writer:
            assert (hex_id(count - 1) in writer) == (counts[-1] == count)
            more = [entry(n) for n in range(count, count + 3)]
            writer.append(more, state=numbers_state([*writer.ids(), *(e.id for e in more)]))
            assert described(writer) and len(writer) == counts[-1] + 3 and writer.verify().ok
            assert not writer.session.tombstones and writer.file_bytes() <= budget
        if counts[-1] == 40:  # what the dead write had stored is overwritten
            raw = copy.read_bytes()
            assert all(entry(n).payload not in raw for n in range(40, count, 20))
    assert set(counts) == {40, count} and counts[0] == 40 and counts[-1] == count


def test_other_readers_see_a_write_in_parts_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen = tmp_path / "b", []
    MemoryBank.create(path, PRINT, budget=LARGE_BUDGET).close()
    with MemoryBank.open(path) as bank, MemoryBank.open(path, read_only=True) as reader:
        original = Write.commit

        def commit(self: Write) -> None:
            original(self)
            seen.append(len(reader))
            assert described(reader)

        monkeypatch.setattr(Write, "commit", commit)
        entries = [entry(n) for n in range(2500)]
        bank.append(entries, state=numbers_state(one.id for one in entries))
        assert len(seen) >= 3 and set(seen[:-1]) <= {0, 2500} and seen[0] == 0
        assert len(reader) == 2500 and all(reader.get(one.id) == one for one in entries[::50])


@pytest.mark.parametrize("budget", [SMALL, LARGE_BUDGET])
def test_a_call_that_fails_between_two_parts_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    original, commits = Write.commit, []

    def dying(self: Write) -> None:
        original(self)
        commits.append(1)
        if len(commits) == 2:
            raise Died

    with MemoryBank.create(tmp_path / "b", PRINT, budget=budget) as bank:
        before = [entry(n) for n in range(20)]
        bank.append(before, state=numbers_state(one.id for one in before))
        monkeypatch.setattr(Write, "commit", dying)
        more = [entry(n) for n in range(20, budget // 450)]
        with pytest.raises(Died):
            bank.append(more, state=numbers_state(one.id for one in [*before, *more]))
        monkeypatch.undo()
        assert len(commits) == 2 and described(bank) and len(bank) == 20
        assert bank.get(more[0].id) is None and more[-1].id not in bank
        with pytest.raises(BudgetError, match="nothing of this write was kept"):
            bank.append([entry(n) for n in range(9000, 14_000)], state={"numbers": b"x" * 16})
        assert described(bank) and len(bank) == 20
        bank.append(more, state=numbers_state(one.id for one in [*before, *more]))
        assert described(bank) and bank.verify().ok


def test_another_process_in_the_middle_of_a_write_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "b"
    MemoryBank.create(path, PRINT, budget=LARGE_BUDGET).close()
    with MemoryBank.open(path) as bank, MemoryBank.open(path) as other:
        original, commits = Write.commit, []

        def commit(self: Write) -> None:
            original(self)
            commits.append(1)
            if len(commits) == 2:
                other.append([entry(99_999)], state=numbers_state([hex_id(99_999)]))

        monkeypatch.setattr(Write, "commit", commit)
        entries = [entry(n) for n in range(2500)]
        with pytest.raises(BankError, match="another process wrote in the middle"):
            bank.append(entries, state=numbers_state(one.id for one in entries))
        monkeypatch.undo()
        for one in (bank, other):
            assert list(one.ids()) == [hex_id(99_999)] and described(one)
        assert bank.verify().ok


def test_state_fades_nothing_away_and_stays_when_documents_do(tmp_path: Path) -> None:
    """In a full bank the state is that of everything written; what is forgotten stays in it."""
    with MemoryBank.create(tmp_path / "b", PRINT, budget=SMALL) as bank:
        written: list[str] = []
        for first in range(0, 1200, 200):
            part = [entry(n) for n in range(first, first + 200)]
            written += [one.id for one in part]
            report = bank.append(part, state=numbers_state(written), fade=lambda _: None)
            assert bank.get_state() == numbers_state(written)
            assert bank.file_bytes() <= SMALL
        assert report.forgotten and set(bank.ids()) < set(written)


def test_state_counts_in_budget_and_footprint(tmp_path: Path) -> None:
    weights = {"weights": os.urandom(30_000)}
    with MemoryBank.create(tmp_path / "b", PRINT, budget=SMALL) as bank:
        bank.append([entry(n) for n in range(50)], blobs={"codebook": b"c" * 1000}, state=weights)
        found = bank.footprint()
        assert (found.state, found.codebook, found.codes) == (30_000, 1000, 10_000)
        assert found.total == (tmp_path / "b").stat().st_size
        assert bank.get_state() == weights and bank.blobs() == {"codebook": 1000}
        with pytest.raises(BudgetError, match="nothing of this write was kept"):
            bank.append([entry(60)], state={"weights": os.urandom(SMALL)}, fade=lambda _: None)
        assert len(bank) == 50 and bank.get_state() == weights
        bank.put_state({"more": b"1"})
        bank.put_state({"weights": b"2"})
        assert bank.get_state() == {"more": b"1", "weights": b"2"}
        with pytest.raises(InputError, match="must have a name and be bytes"):
            bank.append([entry(61)], state={"": b""})
        bank.delete([hex_id(0)], state={"more": b"3"})
        assert bank.get_state()["more"] == b"3" and len(bank) == 49


def test_tensors_travel_as_safetensors(tmp_path: Path) -> None:
    import numpy as np

    tensors = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(0, np.int64)}
    with MemoryBank.create(tmp_path / "b", PRINT) as bank:
        bank.append([entry(1)], state={"memory": save(tensors)})
    with MemoryBank.open(tmp_path / "b", read_only=True) as bank:
        back = load(bank.get_state()["memory"])
    assert {name: array.tolist() for name, array in back.items()} == {
        name: array.tolist() for name, array in tensors.items()
    }


def test_state_goes_where_the_bank_goes(tmp_path: Path) -> None:
    def made(name: str, numbers: Iterable[int]) -> Path:
        entries = [entry(n) for n in numbers]
        with MemoryBank.create(tmp_path / name, PRINT) as bank:
            bank.append(entries, state=numbers_state(one.id for one in entries))
        return tmp_path / name

    one, two = made("a", range(30)), made("c", range(20, 50))
    with MemoryBank.open(one) as bank, MemoryBank.open(two) as other:
        export_bank(bank, tmp_path / "out")
        bank.snapshot(tmp_path / "copy")
        assert not diff_banks(bank, other).state and diff_banks(bank, bank).same
        with pytest.raises(BankError, match="another state"):
            merge_banks([bank, other], tmp_path / "merged")
        with pytest.raises(InputError, match="describes all of its documents together"):
            split_bank(bank, tmp_path / "parts", "source")
    import_bank(tmp_path / "out", tmp_path / "again")
    repair_bank(one, tmp_path / "repaired")
    for name in ("again", "copy", "repaired"):
        with MemoryBank.open(tmp_path / name) as bank:
            assert described(bank) and len(bank) == 30
    raw = bytearray(one.read_bytes())
    raw[raw.index(numbers_total(hex_id(n) for n in range(30)))] ^= 1
    one.write_bytes(raw)
    with MemoryBank.open(one) as bank:
        assert any("state 'total'" in line for line in bank.verify().damage)
        with pytest.raises(BankError, match="checksum of state"):
            bank.get_state()


def test_a_bank_of_an_older_version_opens_and_goes_on(tmp_path: Path) -> None:
    """`data/bank-format2.sqlite` was written by the first version with this format."""
    path = tmp_path / "b"
    shutil.copyfile(Path(__file__).parent / "data" / "bank-format2.sqlite", path)

    def document(n: int) -> Entry:
        draw = random.Random(n)
        payload = draw.randbytes(20 + n % 30)
        id = f"document {n}" if n % 5 == 0 else hex_id(n)
        key = draw.randbytes(16) if n % 2 else b""
        day = f"2024-{n % 12 + 1:02d}"
        level = "codes" if n % 2 else "text"
        return Entry(id, level, payload, day, f"wire {n % 3}", {"n": n}, key)

    held = {document(n).id: document(n) for n in range(120) if n not in (7, 10)}
    with MemoryBank.open(path, expect=PRINT) as bank:
        assert {one.id: one for one in bank.entries()} == held and bank.verify().ok
        assert bank.count(document(3).id) == 2 and bank.meta() == {"a": [1]}
        assert bank.get_blob("codebook") == bytes(range(200)) and bank.get_state() == {}
        assert bank.budget_bytes == 64 * 1024 and bank.settings.policy == "blend"
        bank.append([entry(n) for n in range(500, 900)], state={"s": b"1"}, fade=lambda _: None)
        assert bank.verify().ok and bank.file_bytes() <= 64 * 1024 and hex_id(899) in bank
