"""Scale: bytes, speed and memory as the bank grows from 10^2 to 10^6 documents.

After the real documents the bank's entries are appended again under new ids, so that sizes and
statistics stay those of the data (`resampled_above` in the record). Before a size that would take
more disk or memory than allowed the run stops and says why.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from latentbank.bank import Entry
from latentbank.bench.machine import PEAK, reset_peak_memory, this_machine
from latentbank.bench.record import Metric, Series
from latentbank.bench.scoring import answer_metrics, curve, predictions
from latentbank.bench.session import CannotDo, Session, Settings
from latentbank.bench.task import Outcome, Task, register
from latentbank.config import require_rising
from latentbank.evaluate.data import QADataset

BATCH = 10_000  # entries appended at a time
SPEED = "write_documents_per_second"
COPIES = 16  # of a bank's bytes in memory (measured: 14 for texts and their word index)


@dataclass(frozen=True)
class ScaleConfig:
    """`sizes`: documents in the bank at each measurement.

    `asked`: questions at each, if the settings name no number. A size is left out if its bank would
    exceed `bank_bytes` or its memory `memory_share` of the machine's.
    """

    sizes: tuple[int, ...] = (100, 1_000, 10_000, 100_000, 1_000_000)
    asked: int = 32
    bank_bytes: int = 2**30
    memory_share: float = 0.5

    def __post_init__(self) -> None:
        require_rising(self, "sizes", 1)


@register("scale")
class Scale(Task):
    """Grows the bank and measures it at each size."""

    Config = ScaleConfig
    takes_budget = False

    def __init__(self, data: QADataset, settings: Settings, config: ScaleConfig) -> None:
        super().__init__(
            data, replace(settings, questions=settings.questions or config.asked), config
        )
        self.questions = self.asked(range(min(config.sizes[0], len(data.documents))))

    def run(self, session: Session) -> Outcome:
        """Grows the bank size by size; measures time, bytes and answers at each."""
        session.fresh_bank(None)
        reset = reset_peak_memory()
        points: dict[int, dict[str, Metric]] = {}
        rows, stopped = [], ""
        for size in self.config.sizes:
            stopped = self._too_much(size, points)
            if stopped:
                break
            reset_peak_memory()
            grown = self._grow(session, max(points, default=0), size)
            if not grown:
                stopped = "the bank holds no entries that could be appended again"
                break
            evaluation = session.ask(f"{size} documents", self.questions)
            bank = session.bank_metrics(size)
            bank.pop(SPEED, None)  # of the whole stream; `grown` has that of this stretch
            reading = self._reading(session)
            points[size] = {**answer_metrics(evaluation), **bank, **reading, **grown}
            rows += predictions(self.questions, evaluation, f"{size} documents")
        if not points:
            raise CannotDo(stopped)
        notes = {
            "resampled_above": len(self.data.documents),
            "largest": max(points),
            "stopped": stopped,
            "peak_memory_of": "each size" if reset else "the whole process so far",
        }
        return Outcome(points[max(points)], _series(points), rows, notes)

    def _too_much(self, size: int, points: dict[int, dict[str, Metric]]) -> str:
        """Why a bank of `size` documents is not tried, or ""."""
        if not points:
            return ""
        last = max(points)
        stored = points[last]["bank_bytes"].value * size / last
        if stored > self.config.bank_bytes:
            return (
                f"a bank of {size:,} documents would take {stored:,.0f} bytes, more than "
                f"bank_bytes={self.config.bank_bytes:,}"
            )
        peaks = {n: p[PEAK].value for n, p in points.items() if PEAK in p}
        needed = _memory(size, peaks, points[last]["bank_bytes"].value)
        allowed = self.config.memory_share * this_machine().memory_bytes
        if 0 < allowed < needed:
            return (
                f"{size:,} documents would take about {needed:,.0f} bytes of memory, more than "
                f"{self.config.memory_share:g} of the machine's"
            )
        return ""

    def _grow(self, session: Session, held: int, size: int) -> dict[str, Metric]:
        """Grows the bank from `held` to `size` documents; returns the times, {} if it cannot."""
        real = len(self.data.documents)
        times: dict[str, Metric] = {}
        if held < min(real, size):
            done = session.write(self.data.documents[held:size], f"writing up to {size:,}")
            if done.stored and done.seconds > 0:
                times[SPEED] = Metric(done.stored / done.seconds, "documents/s")
        if size > real:
            if not len(session.bank):
                return {}
            times |= self._resample(session, size)
        began = time.perf_counter()
        with session.in_method():
            session.method.bind(session.bank)
        times["open_seconds"] = Metric(time.perf_counter() - began, "s")
        return times

    def _resample(self, session: Session, size: int) -> dict[str, Metric]:
        """Appends real entries under new ids until the bank holds `size`."""
        bank, missing = session.bank, size - len(session.bank)
        ids = {document.id for document in self.data.documents}
        real = [entry for entry in bank.entries() if entry.id in ids]
        session.progress.start(f"appending up to {size:,}", missing)
        first, seconds = len(bank), 0.0
        for at in range(first, size, BATCH):
            part = list(_again(real, range(at, min(at + BATCH, size)), self.settings.seed))
            began = time.perf_counter()
            with session.in_method():
                bank.append(part)
            seconds += time.perf_counter() - began
            session.progress.advance(len(part))
        return {"append_entries_per_second": Metric(missing / max(seconds, 1e-9), "documents/s")}

    def _reading(self, session: Session) -> dict[str, Metric]:
        """Time of `read` alone, batch by batch as when asking."""
        texts = [q.text for q in self.questions.questions]
        ids = [self.data.documents[q.document].id for q in self.questions.questions]
        began = time.perf_counter()
        with session.in_method():
            for at in range(0, len(texts), self.settings.batch):
                part = slice(at, at + self.settings.batch)
                session.method.read(texts[part], ids[part] if session.gold else None)
        return {
            "read_milliseconds": Metric(1000 * (time.perf_counter() - began) / len(texts), "ms")
        }


def _memory(size: int, peaks: dict[int, float], stored: float) -> float:
    """Bytes of memory that `size` documents would take, from the peaks at smaller sizes.

    Two sizes show what a document takes. A single peak is mostly the model at work; then each of
    the `stored` bytes of the largest bank so far counts `COPIES` times.
    """
    if not peaks:
        return 0.0
    *before, last = sorted(peaks)
    each = COPIES * stored / last
    if before:
        each = max(0.0, peaks[last] - peaks[before[-1]]) / (last - before[-1])
    return peaks[last] + each * (size - last)


def _again(real: list[Entry], numbers: range, seed: int) -> Iterator[Entry]:
    """Real entries in turn, under ids that are made from the seed and a running number."""
    for number in numbers:
        name = hashlib.blake2b(f"{seed}:{number}".encode(), digest_size=8).hexdigest()
        yield replace(real[number % len(real)], id=name)


def _series(points: dict[int, dict[str, Metric]]) -> dict[str, Series]:
    """A curve over the number of documents for each metric, where it was measured."""
    names = [
        "bank_bytes", "bytes_per_document", SPEED,
        "append_entries_per_second", "open_seconds", "read_milliseconds", "milliseconds",
        PEAK, "f1",
    ]  # fmt: skip
    series = {}
    for name in names:
        sizes = [size for size in points if name in points[size]]
        if sizes:
            values = [points[size][name] for size in sizes]
            series[name] = curve([float(s) for s in sizes], "documents", "documents", values, name)
    return series
