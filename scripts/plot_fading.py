"""docs/fading.svg: a bank fills and fades over a stream, from results/bank/fading.json.

`--measure` makes the record anew: random states of 16 × 16 numbers, stored as float16, sink through
int8 and four residual levels to mass.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from hashlib import blake2b
from pathlib import Path

import numpy as np

from latentbank.bank import BankFingerprint, Entry, MemoryBank
from latentbank.bank.ladder import Ladder
from latentbank.bank.ladder_steps import array_step, array_to_trace, strata_levels, trace_steps
from latentbank.bench.record import (
    DataInfo,
    Metric,
    Record,
    Series,
    new_record,
    read_record,
    write_atomically,
    write_record,
)
from latentbank.bench.svg import MUTED, colour, standalone, style, to_svg
from latentbank.codec.residual import ResidualCodec, fit_codebooks
from latentbank.errors import InputError
from measured import command_line

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "results" / "bank" / "fading.json"
PICTURE = ROOT / "docs" / "fading.svg"
TOKENS, DIM, LEVELS = 16, 16, 4
BUDGET, DOCUMENTS, EVERY = 256 * 1024, 4000, 50
NAMES = ("float16", "int8", *strata_levels(LEVELS)[2:])
FORGOTTEN = "forgotten"


def ladder(draw: np.random.Generator) -> Ladder:
    """float16 → int8 → trace4 → … → trace1 → mass."""
    codec = ResidualCodec(fit_codebooks(draw.normal(size=(2000, DIM)), LEVELS, 64, rounds=5))
    steps = [array_step("float16", "int8", DIM), array_to_trace("int8", codec)]
    return Ladder(NAMES, [*steps, *trace_steps(codec, TOKENS)])


def measure() -> Record:
    """Writes the stream; counts documents at each level and the bytes of all files."""
    draw = np.random.default_rng(0)
    steps = ladder(draw)
    x: list[float] = [0.0]
    counts: dict[str, list[float]] = {name: [0.0] for name in (*NAMES, FORGOTTEN)}
    print_ = BankFingerprint("plot", "none", "none", "none")
    with (
        tempfile.TemporaryDirectory(prefix="latentbank-") as folder,
        MemoryBank.create(
            Path(folder) / "b", print_, budget=BUDGET, ledger="ids", policy="age"
        ) as bank,
    ):
        sizes, most = [float(bank.file_bytes())], bank.file_bytes()
        for number in range(DOCUMENTS):
            states = draw.normal(size=(TOKENS, DIM)).astype(np.float16).tobytes()
            name = blake2b(str(number).encode(), digest_size=8).hexdigest()
            bank.append([Entry(name, "float16", states)], fade=steps.fade)
            most = max(most, bank.file_bytes())
            if (number + 1) % EVERY == 0:
                found = Counter(entry.level for entry in bank.entries())
                for level in NAMES:
                    counts[level].append(float(found[level]))
                counts[FORGOTTEN].append(float(number + 1 - len(bank)))
                x.append(float(number + 1))
                sizes.append(float(bank.footprint().total))
    curves = {
        name: Series(tuple(x), tuple(y), "documents written", "documents", name, "documents")
        for name, y in counts.items()
    }
    curves["file"] = Series(
        tuple(x), tuple(sizes), "documents written", "documents", "file", "bytes"
    )
    return new_record(
        task="bank-fading",
        method="bank",
        command=command_line(),
        seed=0,
        data=DataInfo("generated", ""),
        dtype="",
        metrics={
            "budget": Metric(BUDGET, "bytes"),
            "largest sum of all files": Metric(most, "bytes"),
        },
        config={"policy": "age", "ladder": list(NAMES), "tokens": TOKENS, "dim": DIM},
        series=curves,
        budget_bytes=BUDGET,
    )


def draw_picture(record: Record) -> str:
    """Documents by level above, bytes below."""
    levels = [*NAMES, FORGOTTEN]
    x = record.series[levels[0]].x
    with style(760, 460, "fading") as figure:
        above = figure.add_axes((0.09, 0.40, 0.77, 0.56))
        tones = [*(colour(i) for i in range(len(NAMES))), MUTED]
        rows = [record.series[name].y for name in levels]
        above.stackplot(x, rows, colors=tones, alpha=0.8, linewidth=0)
        total = 0.0
        last = -1e9
        for name, row in zip(levels, rows, strict=True):
            place = max(total + row[-1] / 2, last + 0.042 * x[-1])
            above.text(x[-1] * 1.01, place, f"{name} {row[-1]:,.0f}", va="center")
            total, last = total + row[-1], place
        above.set_xlim(0, x[-1])
        above.set_ylim(0, x[-1])
        above.set_ylabel("documents")
        below = figure.add_axes((0.09, 0.11, 0.77, 0.21))
        below.plot(x, [y / 1024 for y in record.series["file"].y], color=colour(0), linewidth=1.8)
        below.axhline(BUDGET / 1024, color=MUTED, linestyle="--", linewidth=1)
        below.text(x[-1] * 1.01, BUDGET / 1024, "budget", va="center")
        below.text(x[-1] * 1.01, record.series["file"].y[-1] / 1024, "file", va="center")
        below.set_xlim(0, x[-1])
        below.set_ylim(0, BUDGET / 1024 * 1.15)
        below.set_xlabel("documents written")
        below.set_ylabel("KiB")
    alt = (
        f"Documents at each level of a bank of {BUDGET // 1024} KiB while {x[-1]:,.0f} are written"
    )
    return standalone(to_svg(figure, "fading", alt))


def main() -> None:
    """Draws the picture; measures first if asked to or if there is no record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", action="store_true")
    if parser.parse_args().measure or not RECORD.exists():
        write_record(measure(), RECORD)
    write_atomically(PICTURE, draw_picture(read_record(RECORD)))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
