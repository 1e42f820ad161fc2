"""A disk that becomes full at any point: one sentence, and the bank is whole afterwards.

The limit of a file's size stands for the disk: a write beyond it fails, as it does on a full disk.
"""

from __future__ import annotations

import random
import re
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from latentbank.bank import BankFingerprint, Entry, MemoryBank
from latentbank.bank.admin.split import split_bank
from latentbank.errors import BankError, InputError
from tiny import Backbones
from tiny_cli import documents_in, make_world, refuse, succeed, write_jsonl

PRINT = BankFingerprint("strata", "a" * 30, "b" * 30, "t" * 30)
DRAW = random.Random(0)
NEW = [Entry(f"new{i}", "verbatim", DRAW.randbytes(150), "2024-01-01") for i in range(20)]


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """Within the block no file grows beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_too_full_to_open_a_bank_is_named(tmp_path: Path) -> None:
    path = bank_of(tmp_path / "a.bank", None)
    with disk_of(9_000), pytest.raises(BankError, match=r"cannot be written.*is it full"):
        MemoryBank.open(path)
    with MemoryBank.open(path) as bank:
        assert len(bank) == 32


def drop(entry: Entry) -> None:
    """No further level."""


def bank_of(path: Path, budget: int | None) -> Path:
    draw = random.Random(1)
    with MemoryBank.create(path, PRINT, budget=budget) as bank:
        for part in range(4):
            bank.append([
                Entry(f"old{part}-{i}", "verbatim", draw.randbytes(200), "2019", f"wire {part}")
                for i in range(8)
            ])  # fmt: skip
    return path


CHANGES: dict[str, Callable[[MemoryBank], object]] = {
    "append": lambda bank: bank.append(NEW, fade=drop),
    "append with state": lambda bank: bank.append(NEW, state={"s": bytes(3000)}, fade=drop),
    "delete": lambda bank: bank.delete(["old1-1", "old2-3", "old2-4"]),
    "delete all": lambda bank: bank.delete(list(bank.ids())),
    "state": lambda bank: (
        bank.delete([f"old0-{i}" for i in range(8)]),
        bank.put_state({"s": bytes(500)}),
    ),
    "compact": lambda bank: (bank.delete([f"old1-{i}" for i in range(8)]), bank.compact()),
    "rebudget": lambda bank: bank.rebudget(24_000, fade=drop) if bank.budget_bytes else None,
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("budget", [None, 32_000])
def test_a_bank_is_whole_wherever_the_disk_is_full(
    tmp_path: Path, budget: int | None, change: str
) -> None:
    original = bank_of(tmp_path / "a.bank", budget)
    data, failed = original.read_bytes(), 0
    with MemoryBank.open(original, read_only=True) as bank:
        before = set(bank.ids())
    with MemoryBank.open(original) as bank:
        CHANGES[change](bank)
        after = set(bank.ids())
    for size in [*range(0, 3 * len(data), max(512, len(data) // 24)), 10 * len(data)]:
        path = tmp_path / f"{size}.bank"
        path.write_bytes(data)
        said = ""
        try:
            with disk_of(size), MemoryBank.open(path) as bank:
                CHANGES[change](bank)
        except BankError as error:
            said = str(error)
            failed += 1
            assert "\n" not in said and str(path) in said
        with MemoryBank.open(path) as bank:
            held = set(bank.ids())
            assert bank.verify().ok
            if change == "append" and budget:  # in parts, each whole
                assert before & after <= held <= before | after
            else:
                assert held in (before, after)
            assert said or held == after
            bank.append(NEW[:1], fade=drop)
    assert failed > 1, "or the disk was never full"


@pytest.mark.parametrize("size", range(0, 40_000, 4_000))
def test_what_is_made_of_a_bank_is_whole_or_not_there(tmp_path: Path, size: int) -> None:
    path, copy, parts = bank_of(tmp_path / "a", None), tmp_path / "copy", tmp_path / "parts"
    with MemoryBank.open(path, read_only=True) as bank:
        for made, make in (
            (copy, lambda: bank.snapshot(copy)),
            (parts, lambda: split_bank(bank, parts, "source")),
        ):
            try:
                with disk_of(size):
                    make()
            except (BankError, InputError, OSError):
                assert not made.exists()
        assert len(bank) == 32 and bank.verify().ok
    if copy.exists():
        with MemoryBank.open(copy) as bank:
            assert len(bank) == 32 and bank.verify().ok
    if parts.exists():
        assert len(list(parts.iterdir())) == 5


@pytest.mark.parametrize("size", [34_000, 50_000])  # its log has a helper file of 32 KiB
def test_a_full_disk_says_how_many_documents_were_kept(
    backbones: Backbones, tmp_path: Path, size: int
) -> None:
    world = make_world(backbones.folder("llama"), backbones.root / "adapters")
    chosen = ("--adapter", world.adapter("rag"), "--backbone", world.backbone)
    (tmp_path / "first.txt").write_text("The ferry leaves at nine.")
    bank = tmp_path / "a.bank"
    succeed("write", str(tmp_path / "first.txt"), "--bank", str(bank), *chosen)
    draw = random.Random(2)
    rows = [{"id": f"row {i}", "text": draw.randbytes(200).hex()} for i in range(60)]
    file = write_jsonl(tmp_path / "rows.jsonl", rows)
    with disk_of(size):
        said = refuse("write", str(file), "--bank", str(bank), "--batch", "4")
    held = documents_in(bank)
    stored = re.search(
        r"(\d+) documents? of this run w(?:as|ere) stored before; .* holds (\d+)", said
    )
    assert stored is not None, said
    assert (int(stored[1]), int(stored[2])) == (held - 1, held) and held < 61
    with MemoryBank.open(bank) as opened:
        assert opened.verify().ok and str(tmp_path / "first.txt") in opened
