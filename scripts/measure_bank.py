"""What a bank can do without a model: storing, opening, reading, deleting, its size; records.

Entries are random payloads of 14 bytes, as long as twelve 9-bit codes. The bank lies in a folder of
the system's temporary files; what is durable there depends on that disk.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

from latentbank.bank import BankFingerprint, Entry, MemoryBank
from latentbank.bench.record import DataInfo, Metric, Series, new_record, write_record
from measured import command_line

PRINT = BankFingerprint("measure", "none", "none", "none")
PAYLOAD_BYTES = 14
BATCH = 1000
SELECTED = 8  # documents read for a question
KEY_WIDTH = 64  # of a key in bytes
ROUNDS = 200
STREAM_BUDGET = 1 << 20

OPENER = """
import json, sys, time
from latentbank.bank import MemoryBank
def memory(name):
    for line in open("/proc/self/status"):
        if line.startswith(name):
            return int(line.split()[1]) * 1024
before = memory("VmRSS:")
began = time.perf_counter()
bank = MemoryBank.open(sys.argv[1], read_only=len(sys.argv) > 2)
seconds = time.perf_counter() - began
print(json.dumps([seconds, memory("VmHWM:"), memory("VmRSS:") - before, len(bank)]))
"""


def entries(first: int, count: int, size: int = PAYLOAD_BYTES) -> list[Entry]:
    """Entries whose ids are hashes of their numbers."""
    draw = random.Random(first)
    return [
        Entry(blake2b(str(n).encode(), digest_size=8).hexdigest(), "codes", draw.randbytes(size))
        for n in range(first, first + count)
    ]


def batches(total: int) -> Iterator[list[Entry]]:
    """All entries, `BATCH` at a time."""
    for first in range(0, total, BATCH):
        yield entries(first, min(BATCH, total - first))


def store(bank: MemoryBank, total: int) -> dict[str, Metric]:
    """Fills the bank; the time to make the entries does not count."""
    seconds = work = 0.0
    for part in batches(total):
        began, busy = time.perf_counter(), time.process_time()
        bank.append(part)
        seconds += time.perf_counter() - began
        work += time.process_time() - busy
    size = bank.footprint()
    beyond = (size.total - size.codes - size.codebook) / total
    return {
        "stored": Metric(total, "documents"),
        "stores in batches": Metric(total / seconds, "documents/s"),
        "stores in batches, by processor time": Metric(total / work, "documents/s"),
        "batch": Metric(BATCH, "documents"),
        "file": Metric(size.total, "bytes"),
        "codes": Metric(size.codes, "bytes"),
        "overhead for a document": Metric(beyond, "bytes"),
    }


def singles(folder: Path, seconds: float = 5.0) -> dict[str, Metric]:
    """Durable writes of one document each, without a budget and in a full bank; beside them what
    the disk does in the same minute.
    """
    with (folder / "raw").open("wb", buffering=0) as raw:
        began = time.perf_counter()
        for _ in range(300):
            raw.write(bytes(4096))
            os.fsync(raw.fileno())
        found = {"fsyncs of 4 KiB": Metric(300 / (time.perf_counter() - began), "1/s")}
    for name, budget in (("single writes", None), ("single writes in a full bank", "1MiB")):
        with MemoryBank.create(folder / name, PRINT, ledger="ids", budget=budget) as bank:
            number = 0
            if budget:
                bank.append(entries(10**7, 40_000), fade=lambda _: None)
            todo = entries(0, 200_000)
            busy, end = time.process_time(), (began := time.perf_counter()) + seconds
            while time.perf_counter() < end:
                bank.append(todo[number : number + 1], fade=lambda _: None)
                number += 1
            found[name] = Metric(number / (time.perf_counter() - began), "documents/s")
            rate = number / (time.process_time() - busy)
            found[f"{name}, by processor time"] = Metric(rate, "documents/s")
    return found


def opening(path: Path) -> dict[str, Metric]:
    """Opens the bank in fresh processes: the median of five, after one that warms the disk."""
    runs = []
    for _ in range(6):
        out = subprocess.run(
            [sys.executable, "-c", OPENER, str(path)], capture_output=True, text=True, check=True
        )
        runs.append(json.loads(out.stdout))
    seconds, peak, grown, documents = (
        statistics.median(column) for column in zip(*runs[1:], strict=True)
    )
    return {
        "documents": Metric(documents, "documents"),
        "open": Metric(seconds, "s"),
        "peak memory of the process": Metric(peak, "bytes"),
        "memory that opening takes": Metric(grown, "bytes"),
    }


def key_rows(count: int) -> Any:
    """Unit keys [count, KEY_WIDTH] around one centre for every fifty, cosine about 0.86 with it."""
    import torch

    torch.manual_seed(0)
    centres = torch.nn.functional.normalize(torch.randn(max(1, count // 50), KEY_WIDTH))
    rows = centres[torch.randint(len(centres), (count,))]
    return _near(rows)


def _near(rows: Any) -> Any:
    import torch

    noise = torch.randn(rows.shape) * 0.6 / KEY_WIDTH**0.5
    return torch.nn.functional.normalize(rows + noise)


def reading(path: Path, label: str) -> dict[str, Metric]:
    """A question's way to what is stored: the search over dense keys, then its best documents;
    again and again, warm. Beside it the flat search, and the index where there is one.
    """
    import torch

    from latentbank.parts.retrieval.dense import DenseKeys

    torch.set_num_threads(1)
    with MemoryBank.open(path, read_only=True) as bank:
        ids = sorted(bank.ids())
        rows, keys = key_rows(len(ids)), DenseKeys(KEY_WIDTH)
        asked = _near(rows[torch.randint(len(ids), (ROUNDS,))])
        for first in range(0, len(ids), 100_000):
            part = slice(first, first + 100_000)
            keys.add(ids[part], DenseKeys.encode(rows[part]))
        del rows
        before, began = resident(), time.perf_counter()
        keys.search(asked[:1], SELECTED)
        built, grown = time.perf_counter() - began, resident() - before
        searches, reads, works, found = [], [], [], []
        for question in asked:
            began, busy = time.perf_counter(), time.process_time()
            chosen = keys.search(question[None], SELECTED)[0]
            middle = time.perf_counter()
            assert all(bank.get(name) is not None for name, _ in chosen)
            searches.append(1000 * (middle - began))
            reads.append(1000 * (time.perf_counter() - middle))
            works.append(1000 * (time.process_time() - busy))
            found.append({name for name, _ in chosen})
    both = [one + other for one, other in zip(searches, reads, strict=True)]
    named = {f"search of {label} keys": searches, f"{SELECTED} documents of {label}": reads}
    named[f"search and {SELECTED} documents of {label}"] = both
    named[f"search and {SELECTED} documents of {label}, processor"] = works
    metrics = {name: Metric(statistics.median(times), "ms") for name, times in named.items()}
    if keys._index is not None:
        share, flat = beside_flat(keys, asked, found)
        metrics |= {
            "index, made in": Metric(built, "s"),
            "index, memory": Metric(keys._index.size_bytes, "bytes"),
            "index, memory that the process takes more": Metric(grown, "bytes"),
            f"index, recall at {SELECTED}": Metric(share, ""),
            f"flat search of {label} keys": Metric(flat, "ms"),
        }
    return metrics


def beside_flat(keys: Any, asked: Any, found: list[set[str]]) -> tuple[float, float]:
    """The share of the flat search's documents that were found, and its milliseconds."""
    keys._search_all(asked[:1], SELECTED)
    hits, times = 0, []
    for question, names in zip(asked, found, strict=True):
        began = time.perf_counter()
        exact = keys._search_all(question[None], SELECTED)[0]
        times.append(1000 * (time.perf_counter() - began))
        hits += len(names & {name for name, _ in exact})
    return hits / (SELECTED * len(found)), statistics.median(times)


def resident() -> int:
    """Bytes of memory that the process takes now."""
    with Path("/proc/self/statm").open() as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def wording(sizes: tuple[int, int]) -> dict[str, Metric]:
    """The search by words over sketches of 40 words each; words are as frequent as their rank has
    it (Zipf), function words left out.
    """
    import numpy as np

    from latentbank.parts.retrieval.sketch import SketchIndex, sketches

    draw = np.random.default_rng(0)
    share = 1 / np.arange(10, 60_010)
    share /= share.sum()
    hashes = np.frombuffer(b"".join(sketches([f"w{n}" for n in range(60_000)])), "<u2")
    found = {}
    for size in sizes:
        index = SketchIndex()
        for first in range(0, size, 10_000):
            count = min(10_000, size - first)
            rows = np.sort(hashes[draw.choice(60_000, (count, 40), p=share)])
            index.add([str(first + n) for n in range(count)], [row.tobytes() for row in rows])
        times = []
        for words in draw.choice(60_000, (20, 6), p=share):
            began = time.perf_counter()
            index.search([" ".join(f"w{word}" for word in words)], SELECTED)
            times.append(1000 * (time.perf_counter() - began))
        found[f"search by words of {size:,} sketches"] = Metric(statistics.median(times), "ms")
    return found


def deleting(path: Path, total: int, count: int) -> dict[str, Metric]:
    """Deletes documents that lie close together, then ones from all over the bank."""
    found = {}
    with MemoryBank.open(path) as bank:
        ids = list(bank.ids())
        for name, chosen in (
            ("written one after another", ids[:count]),
            ("from all over the bank", ids[count :: (total - count) // count][:count]),
        ):
            began, busy = time.perf_counter(), time.process_time()
            assert len(bank.delete(chosen).deleted) == count
            seconds, work = time.perf_counter() - began, time.process_time() - busy
            label = f"{count:,} of {total:,}, {name}"
            found |= {label: Metric(seconds, "s"), f"{label}, processor": Metric(work, "s")}
        assert bank.verify().ok
    return found


def streaming(folder: Path, total: int) -> tuple[dict[str, Metric], dict[str, Series]]:
    """File sizes while a stream runs through a bank of one budget."""
    marks, sizes, most = [], [], 0
    points = {int(10 ** (step / 4)) for step in range(4, 25)} | {total}
    seconds = 0.0
    with MemoryBank.create(folder / "s", PRINT, budget=STREAM_BUDGET, ledger="ids") as bank:
        done = 0
        for point in sorted(p for p in points if p <= total):
            while done < point:
                part = entries(done, min(BATCH, point - done), 100)
                began = time.perf_counter()
                bank.append(part, fade=lambda _: None)
                seconds += time.perf_counter() - began
                done += len(part)
                most = max(most, bank.file_bytes())
            marks.append(float(done))
            sizes.append(float(bank.footprint().total))
        kept = len(bank)
    full = [size for mark, size in zip(marks, sizes, strict=True) if mark > kept * 1.5]
    metrics = {
        "budget": Metric(STREAM_BUDGET, "bytes"),
        "largest sum of all files": Metric(most, "bytes"),
        "documents kept": Metric(kept, "documents"),
        "written": Metric(done, "documents"),
        "stores in a full bank": Metric(done / seconds, "documents/s"),
        "smallest file once full": Metric(min(full), "bytes"),
        "largest file once full": Metric(max(full), "bytes"),
    }
    curve = Series(tuple(marks), tuple(sizes), "documents written", "documents", "file", "bytes")
    return metrics, {"file": curve}


def main() -> None:
    """Measures and writes the records."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--stream", type=int, default=200_000)
    parser.add_argument("--only", choices=("size", "read"), help="only this record")
    parser.add_argument("--out", type=Path, default=Path("results/bank"))
    options = parser.parse_args()
    command = command_line()

    def keep(
        name: str, metrics: dict[str, Metric], series: dict[str, Series] | None = None
    ) -> None:
        for key, metric in metrics.items():
            print(f"{name}: {key}: {metric.value:,.4g} {metric.unit}", flush=True)
        record = new_record(
            task=f"bank-{name}",
            method="bank",
            command=command,
            seed=0,
            data=DataInfo("generated", ""),
            dtype="",
            metrics=metrics,
            config={"payload_bytes": PAYLOAD_BYTES, "ledger": "ids"},
            series=series or {},
        )
        write_record(record, options.out / f"{name}.json")

    with tempfile.TemporaryDirectory(prefix="latentbank-") as scratch:
        folder, total = Path(scratch), options.documents
        if options.only == "size":
            keep("size", *streaming(folder, options.stream))
            return
        path, middle, small = folder / "large", folder / "middle", folder / "small"
        with MemoryBank.create(path, PRINT, ledger="ids") as bank:
            stored = store(bank, total)
        if options.only != "read":
            keep("store", {**stored, **singles(folder)})
            keep("open", opening(path))
        for other, count in ((small, 1000), (middle, total // 10)):
            with MemoryBank.create(other, PRINT, ledger="ids") as bank:
                store(bank, count)
        read = reading(small, "1,000") | reading(path, f"{total:,}") | wording((1000, total))
        for name, key in (
            ("reading", f"{SELECTED} documents of {{}}"),
            ("search by keys", "search of {} keys"),
            ("search and reading", f"search and {SELECTED} documents of {{}}"),
            (
                "search and reading, processor",
                f"search and {SELECTED} documents of {{}}, processor",
            ),
            ("search by words", "search by words of {} sketches"),
        ):
            ratio = read[key.format(f"{total:,}")].value / read[key.format("1,000")].value
            read[f"{name}, ratio"] = Metric(ratio, "")
        keep("read", read)
        if options.only != "read":
            keep("delete", deleting(path, total, 10_000) | deleting(middle, total // 10, 10_000))


if __name__ == "__main__":
    main()
