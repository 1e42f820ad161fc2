"""Another budget for a bank in use: all of it or nothing, and no more forgotten than must be."""

import dataclasses
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

import pytest

from latentbank.bank import BankFingerprint, Entry, MemoryBank
from latentbank.bank.space import LARGE_BUDGET, Space
from latentbank.errors import BudgetError
from memory_folder import memory_path  # noqa: F401

PRINT = BankFingerprint("any", "adapter:1", "tiny:1", "tiny:2")
BUDGETS = [100_000, 256 * 1024, LARGE_BUDGET]  # the last one has a write-ahead log


def entry(number: int, size: int = 150) -> Entry:
    id = blake2b(str(number).encode(), digest_size=8).hexdigest()
    return Entry(id, "codes", random.Random(number).randbytes(size), source=f"s{number}")


def halve(one: Entry) -> Entry | None:
    if len(one.payload) < 50:
        return None
    half = one.payload[: len(one.payload) // 2]
    return dataclasses.replace(one, level=f"bytes{len(half)}", payload=half)


def forget(_: Entry) -> None:
    return None


def fill(path: Path, budget: int, book: int = 0, size: int = 150) -> MemoryBank:
    bank = MemoryBank.create(path, PRINT, budget=budget)
    for number in range(0, book, 5000):
        bank.put_blob(f"book{number}", bytes(5000))
    entries = [entry(n, size) for n in range(budget * 3 // 2 // size)]
    bank.append(entries, {"book": b"b" * 900}, {"s": b"t"}, fade=halve)
    return bank


def content(bank: MemoryBank) -> dict[str, object]:
    """All that a bank holds."""
    with bank.session.reading():
        numbers = bank.session.pages.numbers()
        facts = [bank.session.page_and_facts(seq) for seq in numbers]
    return {
        "root": bank.root_hash(),
        "entries": list(bank.entries()),
        "counts": [bank.count(id) for id in bank.ids()],
        "facts": [None if found is None else found[1].rows() for found in facts],
        "items": (bank.get_blob("book"), bank.get_state(), bank.budget_bytes),
        "settings": bank.settings,
    }


def test_a_refusal_forgets_nothing(tmp_path: Path) -> None:
    with MemoryBank.create(tmp_path / "b", PRINT, budget=256 * 1024) as bank:
        bank.append([entry(n) for n in range(40)])
        before = content(bank)
        with pytest.raises(BudgetError, match="nothing was changed"):
            bank.rebudget(2816, fade=forget)
        assert content(bank) == before and len(bank) == 40


@pytest.mark.parametrize("budget", BUDGETS)
def test_a_budget_that_cannot_be_leaves_all_as_it_was(tmp_path: Path, budget: int) -> None:
    small = budget // 2 if budget < LARGE_BUDGET else LARGE_BUDGET
    large = budget if budget < LARGE_BUDGET else 2 * budget
    size = 150 if budget < LARGE_BUDGET else 2000
    with (
        fill(tmp_path / "b", large, small * 9 // 10, size) as bank,
        MemoryBank.open(tmp_path / "b") as other,
    ):
        before = content(bank)
        for fade in (None, forget, halve):
            with pytest.raises(BudgetError, match="nothing was changed"):
                bank.rebudget(small, fade=fade)
            assert content(bank) == before == content(other) and bank.verify().ok
        bank.append([entry(10**6)], fade=halve)
        assert other.get(entry(10**6).id) == entry(10**6)


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_an_exception_leaves_all_as_it_was(
    tmp_path: Path, budget: int, kind: type[BaseException]
) -> None:
    large, size = (2 * budget, 1000) if budget == LARGE_BUDGET else (budget, 150)
    with fill(tmp_path / "b", large, size=size) as bank:
        before, calls = content(bank), 0
        last = 100

        def breaks(one: Entry) -> Entry | None:
            nonlocal calls
            calls += 1
            if calls > last:
                raise kind("no more")
            return halve(one)

        def interrupt(done: int, total: int) -> None:
            if done == total:
                raise kind("no more")

        smaller = budget if budget == LARGE_BUDGET else budget // 2
        with pytest.raises(kind, match="no more"):
            bank.rebudget(smaller, fade=breaks)
        assert calls > last and content(bank) == before
        with pytest.raises(kind, match="no more"):
            bank.rebudget(smaller, fade=halve, progress=interrupt)
        assert content(bank) == before and bank.verify().ok
        report = bank.rebudget(smaller, fade=halve)
        assert report.faded and bank.file_bytes() <= smaller and bank.verify().ok


KILLED = """
import os, signal, sys
from pathlib import Path
from latentbank.bank import MemoryBank
from test_rebudget import halve
path, budget, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
calls = 0
def step(*given):
    global calls
    calls += 1
    if calls > last:
        os.kill(os.getpid(), signal.SIGKILL)
    return halve(given[0]) if len(given) == 1 else None
MemoryBank.open(path).rebudget(budget, fade=step, progress=step)
"""


@pytest.mark.parametrize("budget", BUDGETS)
def test_a_killed_process_leaves_all_as_it_was(tmp_path: Path, budget: int) -> None:
    smaller = budget if budget == LARGE_BUDGET else budget // 2
    calls = 0

    def counted(*given: object) -> Entry | None:
        nonlocal calls
        calls += 1
        return halve(given[0]) if isinstance(given[0], Entry) else None

    large, size = (2 * budget, 1000) if budget == LARGE_BUDGET else (budget, 150)
    with fill(tmp_path / "b", large, size=size) as bank:
        bank.snapshot(tmp_path / "copy")
        before = content(bank)
    with MemoryBank.open(tmp_path / "copy") as copy:
        copy.rebudget(smaller, fade=counted, progress=counted)
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    for last in (calls // 3, calls - 1):
        done = subprocess.run(
            [sys.executable, "-c", KILLED, *map(str, (tmp_path / "b", smaller, last))],
            env={**os.environ, "PYTHONPATH": path},
            check=False,
        )
        assert done.returncode == -signal.SIGKILL
        with MemoryBank.open(tmp_path / "b") as bank:
            assert content(bank) == before and bank.verify().ok


@pytest.mark.parametrize("budget", [24_000, 40_960, 100_000, LARGE_BUDGET])
def test_a_write_that_is_refused_forgets_nothing(tmp_path: Path, budget: int) -> None:
    """One entry after the other, each nearer to what the bank could hold at all."""
    with MemoryBank.create(tmp_path / "b", PRINT, budget=budget) as bank:
        old = [entry(n, max(100, budget // 200)) for n in range(300)]
        size = Space(budget).file_limit(0) * 9 // 10
        bank.append(old, fade=forget)
        before, refused, stored = set(bank.ids()), 0, 0
        while not stored:
            large = entry(-size, size)
            try:
                stored = bank.append([large], fade=forget).stored
            except BudgetError:
                refused += 1
                assert set(bank.ids()) == before, f"an entry of {size} bytes"
            size -= 128 if budget < LARGE_BUDGET else 30_000
        assert refused > 10 and large.id in bank and bank.file_bytes() <= budget


@pytest.mark.parametrize(
    ("large", "small"), [(100_000, 25_600), (200_000, 60_000), (LARGE_BUDGET * 2, LARGE_BUDGET)]
)
@pytest.mark.parametrize("fade", [forget, halve])
def test_no_more_is_forgotten_than_must_be(
    tmp_path: Path, large: int, small: int, fade: Callable[[Entry], Entry | None]
) -> None:
    """What a smaller budget does not need for its log or journal is used: nine tenths of it."""
    with MemoryBank.create(tmp_path / "b", PRINT, budget=large) as bank:
        bank.append([entry(n, large // 1000) for n in range(1200)], fade=fade)
        bank.rebudget(small, fade=fade)
        used = bank.session.size_bytes() - bank.session.unused_bytes()
        assert 0.9 <= used / Space(small).file_limit(0) <= 1
        assert bank.file_bytes() <= small


def test_steps_without_loss_come_first(tmp_path: Path) -> None:
    def shorten(one: Entry) -> Entry | None:
        if one.level != "codes":
            return None
        return dataclasses.replace(one, level="short", payload=one.payload[:40])

    with MemoryBank.create(tmp_path / "b", PRINT, budget=200_000, lossless=("codes",)) as bank:
        bank.append([entry(n) for n in range(500)])
        report = bank.rebudget(100_000, fade=shorten)
        assert len(bank) == 500 and report.faded and not report.forgotten
