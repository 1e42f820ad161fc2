"""The crash experiment as a program of its own: writers are killed, the bank is looked at.

A single thread without torch, so that a writer is a `fork` and costs milliseconds. Run as
`python bank_crash.py FOLDER KILLS SEED BUDGET`; prints one JSON line. The test reads it.
"""

import json
import os
import random
import select
import signal
import sys
import time
from hashlib import blake2b
from pathlib import Path

from latentbank.bank import BankFingerprint, Entry, MemoryBank
from latentbank.errors import BankError

PRINT = BankFingerprint("any", "adapter:1", "tiny:1", "tiny:2")


def document(number: int) -> Entry:
    id = blake2b(str(number).encode(), digest_size=8).hexdigest()
    return Entry(id, "codes", random.Random(number).randbytes(40 + number % 200), source="s")


def lower(entry: Entry) -> Entry | None:
    """Half of the bytes, then nothing."""
    if entry.level == "half":
        return None
    return Entry(entry.id, "half", entry.payload[: len(entry.payload) // 2], source=entry.source)


def write_on(path: Path, first: int, seed: int, out: int) -> None:
    """Writes documents from `first` on, forever; says what is acknowledged, line by line."""
    draw = random.Random(seed)
    bank = MemoryBank.open(path, timeout_seconds=30)
    number = first
    while True:
        count = draw.choice([1, 1, 2, 5, 30, 400])  # the last one takes several transactions
        batch = [document(n) for n in range(number, number + count)]
        state = {"reached": str(number + count).encode()}
        report = bank.append(batch, state=state, fade=lower)
        number += count
        lines = [f"w {number} {' '.join(report.forgotten)}"]
        if draw.random() < 0.3:
            gone = [document(draw.randrange(number)).id for _ in range(draw.choice([1, 20]))]
            os.write(out, f"d {' '.join(gone)}\n".encode())
            bank.delete(gone)
            lines.append(f"D {' '.join(gone)}")
        if draw.random() < 0.2:
            bank.note_hits(entry.id for entry in batch)
        os.write(out, ("\n".join(lines) + "\n").encode())


def run_writer(path: Path, first: int, seed: int, seconds: float) -> list[str]:
    """Forks a writer, kills it after its first acknowledgement and `seconds`; its whole lines."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(read)
            write_on(path, first, seed, write)
        finally:
            os._exit(70)
    os.close(write)
    data, end = b"", time.monotonic() + 60
    dead = False
    while True:
        ready, _, _ = select.select([read], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            if not dead:
                os.kill(child, signal.SIGKILL)
                dead, end = True, time.monotonic() + 60
                continue
            raise SystemExit("a writer said nothing for a minute")
        part = os.read(read, 1 << 16)
        if not part:
            break
        if not data and not dead:
            end = time.monotonic() + seconds
        data += part
    os.close(read)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        raise SystemExit(f"a writer ended by itself: {status}")
    return data.decode().split("\n")[:-1]


class Model:
    """What must be in the bank, what may be, after what was acknowledged."""

    def __init__(self) -> None:
        self.reached = 0
        self.there: dict[str, int] = {}  # id -> number
        self.unsure: set[str] = set()

    def take(self, lines: list[str]) -> None:
        for line in lines:
            kind, *words = line.split()
            if kind == "w":
                for number in range(self.reached, int(words[0])):
                    self.there[document(number).id] = number
                self.reached = int(words[0])
                words = words[1:]
            if kind == "d":
                self.unsure = set(words)
            else:
                self.unsure -= set(words) if kind == "D" else set()
                for id in words:
                    self.there.pop(id, None)

    def check(self, bank: MemoryBank, budget: int | None) -> None:
        """Compare; then go on from what the bank holds."""
        reached = int(bank.get_state().get("reached", b"0"))
        assert reached >= self.reached, "an acknowledged write is gone"
        for number in range(self.reached, reached):  # written, killed before saying so
            self.there[document(number).id] = number
        found = {entry.id: entry for entry in bank.entries()}
        assert len(bank) == len(found)
        lost = self.there.keys() - found.keys()
        extra = found.keys() - self.there.keys()
        assert not extra, f"deleted documents came back: {extra}"
        if budget is None:
            assert lost <= self.unsure, f"acknowledged documents are lost: {lost - self.unsure}"
            assert not lost or lost == self.unsure & self.there.keys(), "half a deletion"
        elif reached == self.reached and not lost <= self.unsure:
            # one write was on its way: to make room it may have forgotten the least valuable
            assert len(lost - self.unsure) < 0.5 * len(self.there) + 50
        for id, entry in found.items():
            whole = document(self.there[id]).payload
            assert entry.payload in (whole, whole[: len(whole) // 2]), "a document is half-stored"
        report = bank.verify()
        assert report.ok and report.documents == len(found), report.damage
        self.there = {id: self.there[id] for id in found}
        self.reached, self.unsure = reached, set()


def main() -> None:
    folder, kills, seed, budget = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    path, model, draw = folder / "b", Model(), random.Random(seed)
    MemoryBank.create(path, PRINT, budget=budget or None).close()
    largest = 0
    for kill in range(kills):
        if kill % 50 == 49:  # a fresh bank now and then keeps the look at it short
            for file in folder.glob("b*"):
                file.unlink()
            MemoryBank.create(path, PRINT, budget=budget or None).close()
            model = Model()
        lines = run_writer(path, model.reached, seed + kill, draw.choice([0, 0.002, 0.01, 0.03]))
        largest = max(largest, sum(file.stat().st_size for file in folder.glob("b*")))
        model.take(lines)
        try:
            with MemoryBank.open(path, timeout_seconds=30) as bank:
                model.check(bank, budget or None)
        except BankError as error:
            raise SystemExit(f"after kill {kill} the bank does not open: {error}") from error
    print(json.dumps({"kills": kills, "largest_bytes": largest, "last": model.reached}))


if __name__ == "__main__":
    main()
