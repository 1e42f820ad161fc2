"""Draws docs/fading.svg, a bank that fills and fades over a stream, from results/bank/fading.json.

`--measure` makes the record anew: random states of 16 × 16 numbers are stored as float16 and sink
through int8 and four residual levels.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import numpy as np

from latentbank.bank import BankFingerprint, Entry, MemoryBank
from latentbank.bank.ladder import Ladder, Step
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
from latentbank.bench.report import plots
from latentbank.codec import array_codec
from latentbank.errors import InputError
from measured import command_line
from residual import ResidualCodec, fit_codebooks

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "results" / "bank" / "fading.json"
PICTURE = ROOT / "docs" / "fading.svg"
TOKENS, DIM, LEVELS = 16, 16, 4
BUDGET, DOCUMENTS, EVERY = 256 * 1024, 4000, 50
NAMES = ("float16", "int8", *(f"trace{kept}" for kept in range(LEVELS, 0, -1)))
FORGOTTEN = "forgotten"


def ladder(draw: np.random.Generator) -> Ladder:
    """float16 → int8 → trace4 → … → trace1: fewer bits, then fewer levels of residual codes."""
    codec = ResidualCodec(fit_codebooks(draw.normal(size=(2000, DIM)), LEVELS, 64, rounds=5))
    half, bytes_ = array_codec("float16"), array_codec("int8")

    def recode(entry: Entry) -> Entry:
        rows = half.decode(entry.payload, DIM)
        return replace(entry, level="int8", payload=bytes_.encode(rows))

    def quantise(entry: Entry) -> Entry:
        rows = bytes_.decode(entry.payload, DIM)
        return replace(entry, level=f"trace{LEVELS}", payload=codec.encode(rows))

    def cut(kept: int) -> Step:
        size = kept * codec.level_bytes(TOKENS)
        target = f"trace{kept}"
        return Step(
            f"trace{kept + 1}",
            target,
            lambda entry: replace(entry, level=target, payload=entry.payload[:size]),
        )

    steps = [Step("float16", "int8", recode), Step("int8", f"trace{LEVELS}", quantise)]
    return Ladder(NAMES, [*steps, *(cut(kept) for kept in range(LEVELS - 1, 0, -1))])


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
    """SVG: documents at each level above, bytes of the file below."""
    levels = [*map(str, record.config["ladder"]), FORGOTTEN]
    x = record.series[levels[0]].x
    rows = [record.series[name].y for name in levels]
    tones = [*plots.COLOURS[: len(levels) - 1], plots.MUTED]
    with plots.canvas(8.6, 4.8) as figure:
        above, below = figure.subplots(2, sharex=True, height_ratios=(2.6, 1))
        above.stackplot(x, rows, colors=tones, alpha=0.85, linewidth=0)
        above.set(xlim=(0, x[-1]), ylim=(0, x[-1]), ylabel="documents")
        below.plot(x, [y / 1024 for y in record.series["file"].y], color=tones[0], linewidth=1.8)
        below.axhline(BUDGET / 1024, color=plots.MUTED, linestyle="--", linewidth=1)
        below.set(ylim=(0, BUDGET / 1024 * 1.15), xlabel="documents written", ylabel="KiB")
        for axes in (above, below):
            axes.yaxis.set_major_formatter("{x:,.0f}")
            axes.xaxis.set_major_formatter("{x:,.0f}")
        middles = [sum(r[-1] for r in rows[:i]) + row[-1] / 2 for i, row in enumerate(rows)]
        names = [f"{name} {row[-1]:,.0f}" for name, row in zip(levels, rows, strict=True)]
        plots.label_ends(figure, above, list(zip(names, middles, tones, strict=True)))
        size = record.series["file"].y[-1] / 1024
        plots.label_ends(
            figure, below, [("budget", BUDGET / 1024, plots.MUTED), ("file", size, tones[0])]
        )
    return plots.to_svg(figure, "fading") + "\n"


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
