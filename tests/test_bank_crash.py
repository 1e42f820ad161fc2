"""Death at any moment, several processes at once: nothing acknowledged is lost, nothing is half."""

import json
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import pytest

from latentbank.bank import BankFingerprint, MemoryBank
from latentbank.bank.space import LARGE_BUDGET
from latentbank.bank.store.file import empty_log
from long_record import keep
from memory_folder import memory_path  # noqa: F401

PRINT = BankFingerprint("any", "adapter:1", "tiny:1", "tiny:2")
HERE = Path(__file__).parent


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}


def crash(folder: Path, kills: int, budget: int, seed: int) -> dict[str, int]:
    folder.mkdir()
    command = [sys.executable, str(HERE / "bank_crash.py"), folder, kills, seed, budget]
    result = subprocess.run(
        [*map(str, command)], env=environment(), capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]
    found: dict[str, int] = json.loads(result.stdout)
    assert found["kills"] == kills
    if budget:
        assert found["largest_bytes"] <= budget
    return found


@pytest.mark.parametrize("budget", [0, 100_000, LARGE_BUDGET], ids=["free", "journal", "log"])
def test_a_few_kills(tmp_path: Path, budget: int) -> None:
    crash(tmp_path / "f", 12, budget, seed=budget + 7)


@pytest.mark.long
@pytest.mark.parametrize(
    ("budget", "kills"),
    [(0, 80), (100_000, 60), (LARGE_BUDGET, 60)],
    ids=["free", "journal", "log"],
)
def test_two_hundred_kills(tmp_path: Path, budget: int, kills: int) -> None:
    crash(tmp_path / "f", kills, budget, seed=kills)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_two_thousand_kills(tmp_path: Path) -> None:
    began, total = time.monotonic(), 0
    for number, (budget, kills) in enumerate([(0, 800), (100_000, 600), (LARGE_BUDGET, 600)]):
        total += crash(tmp_path / str(number), kills, budget, seed=1000 + number)["kills"]
    assert total == 2000
    keep("crash", kills=total, seconds=round(time.monotonic() - began, 1), lost=0, half_stored=0)


READER = """
import sys
from latentbank.bank import MemoryBank
path, stop = sys.argv[1], sys.argv[2]
import os
reads = most = 0
with MemoryBank.open(path, read_only=True, timeout_seconds=30) as bank:
    print("ready", flush=True)
    while not os.path.exists(stop) or not reads:
        reached = int(bank.get_blob("reached") or b"0")
        assert reached >= most, "time ran backwards"
        most = reached
        found = bank.get(f"{reached - 1:016x}") if reached else None
        if reached and found is None:
            # let go since, or a write came between; then the next one is there
            assert int(bank.get_blob("reached") or b"0") > reached, "a written document is missing"
        if found is not None:
            assert found.payload == bytes([(reached - 1) % 251]) * 150
        for entry in bank.entries():
            assert entry.payload == bytes([int(entry.id, 16) % 251]) * 150
        reads += 1
    print(reads, flush=True)
"""

WRITER = """
import sys
from latentbank.bank import Entry, MemoryBank
path, stop, batches = sys.argv[1], sys.argv[2], int(sys.argv[3])
number = 0
with MemoryBank.open(path, timeout_seconds=60) as bank:
    for _ in range(batches):
        numbers = range(number, number + 7)
        batch = [Entry(f"{n:016x}", "codes", bytes([n % 251]) * 150) for n in numbers]
        number += 7
        bank.append(batch, {"reached": str(number).encode()}, fade=lambda e: None)
open(stop, "w").close()
print(number, flush=True)
"""


@pytest.mark.parametrize("budget", [None, 100_000, LARGE_BUDGET])
def test_one_writer_and_many_readers(tmp_path: Path, budget: int | None) -> None:
    path, stop = str(tmp_path / "b"), str(tmp_path / "stop")
    MemoryBank.create(path, PRINT, budget=budget).close()

    def start(code: str, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", code, path, stop, *arguments],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    readers = [start(READER) for _ in range(3)]
    for reader in readers:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
    writer = start(WRITER, "150")
    out, error = writer.communicate(timeout=200)
    assert writer.returncode == 0, error
    for reader in readers:
        reads, error = reader.communicate(timeout=200)
        assert reader.returncode == 0, error
        assert int(reads) > 0
    with MemoryBank.open(path, read_only=True) as bank:
        assert bank.verify().ok
        assert int(bank.get_blob("reached") or b"") == int(out) > 0


def test_two_writers_keep_to_one_budget(tmp_path: Path) -> None:
    path = str(tmp_path / "b")
    MemoryBank.create(path, PRINT, budget=LARGE_BUDGET).close()
    code = """
import sys
from latentbank.bank import Entry, MemoryBank
first, most = int(sys.argv[2]), 0
with MemoryBank.open(sys.argv[1], timeout_seconds=60) as bank:
    for _ in range(60):
        batch = [Entry(f"{n:016x}", "codes", b"x" * 300) for n in range(first, first + 40)]
        bank.append(batch, fade=lambda e: None)
        most = max(most, bank.file_bytes())
        first += 40
print(most, first)
"""
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code, path, str(number * 10**6)],
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    for number, writer in enumerate(writers):
        out = writer.communicate(timeout=100)[0].split()
        assert writer.returncode == 0
        assert int(out[0]) <= LARGE_BUDGET and int(out[1]) > number * 10**6
    with MemoryBank.open(path) as bank:
        assert bank.verify().ok and len(bank) > 500


class Busy:
    """A connection whose first checkpoints meet another process, which SQLite does not wait for."""

    def __init__(self, path: str, times: int) -> None:
        self.real, self.times = sqlite3.connect(path, timeout=0.05), times

    def execute(self, sql: str) -> Any:
        if "checkpoint" in sql and self.times > 0:
            self.times -= 1
            return self.real.execute("SELECT 1, 0, 0")
        return self.real.execute(sql)


def test_another_process_checkpoint_is_waited_for(tmp_path: Path) -> None:
    path = str(tmp_path / "b")
    MemoryBank.create(path, PRINT, budget=LARGE_BUDGET).close()
    waiting: Any = Busy(path, 5)
    assert empty_log(waiting, "RESTART") and waiting.times == 0
    forever = Busy(path, 10**9)
    assert not empty_log(cast(Any, forever), "TRUNCATE")
    assert forever.times < 10**9 - 1, "it tried more than once and gave up"
