"""Training of every method on one GPU, for the papers' 50 epochs: what to carry, how long, and run.

    pack   --squad DIR --model FILE --out PACK   model and questions in parts that travel one by one
    join   PARTS --to FOLDER                     puts the parts together where they arrived
    plan                                         how many epochs fit, from the measured operations
    train  PACK --out RUNS --minutes M           trains in rounds; the same command goes on
    export RUNS --out PARTS --methods A,B        float16 adapters in parts that travel back

`train` is `train_long.py` with bfloat16, at least 256 questions in a step and the frozen layers'
states in the GPU's memory. A checkpoint with its optimiser stays in RUNS. What `export` takes back
is the adapters alone; a run that goes on from them starts its optimiser anew, with a warm-up.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path

import torch

import train_long
from latentbank.adapter import load_state_of, read_config
from latentbank.bench.record import read_record
from latentbank.errors import InputError

EPOCHS, QUESTIONS = 50, 39_893  # of the papers; of SQuAD's split `train`
DOCUMENTS = 56  # in a step: 259 questions on average
PART_MIB = 15
# Assumptions of `plan`, to be replaced by a measurement: products of width 576 reach a part of the
# GPU's peak, and a step of many small kernels takes at least this long.
TERAFLOPS, LEAST_STEP_SECONDS = 120.0, 0.06
START_SECONDS = 20.0  # for each method: loading, first states of the frozen layers


def split_file(path: Path, folder: Path, part_bytes: int) -> list[Path]:
    """Writes `path` into `folder` as NAME.000, NAME.001, … of at most `part_bytes` each."""
    folder.mkdir(parents=True, exist_ok=True)
    content, parts = path.read_bytes(), []
    for number in range(max(1, math.ceil(len(content) / part_bytes))):
        part = folder / f"{path.name}.{number:03}"
        part.write_bytes(content[number * part_bytes : (number + 1) * part_bytes])
        parts.append(part)
    return parts


def join_parts(folder: Path, to: Path) -> list[Path]:
    """Puts every NAME.000, NAME.001, … in `folder` together as `to`/NAME.

    Raises:
        InputError: a part is missing.
    """
    to.mkdir(parents=True, exist_ok=True)
    names = sorted({part.name[:-4] for part in folder.glob("*.[0-9][0-9][0-9]")})
    joined = []
    for name in names:
        parts = sorted(folder.glob(f"{name}.[0-9][0-9][0-9]"))
        for number, part in enumerate(parts):
            if part.suffix != f".{number:03}":
                raise InputError(f"part {number} of {name} is missing in {folder}")
        (to / name).write_bytes(b"".join(part.read_bytes() for part in parts))
        joined.append(to / name)
    return joined


def epochs_in(
    minutes: float, operations: Mapping[str, float], teraflops: float, least_step: float
) -> float:
    """Epochs that every method gets in `minutes`, all alike; `operations`: FLOP of a question."""
    questions = DOCUMENTS * 4.62  # SQuAD has 4.62 questions a paragraph
    seconds = [
        max(flop * questions / (teraflops * 1e12), least_step) for flop in operations.values()
    ]
    working = 60 * minutes - START_SECONDS * len(operations)
    return max(0.0, working / sum(seconds) * questions / QUESTIONS)


def plan(options: argparse.Namespace) -> None:
    """Prints the plan."""
    metrics = read_record(options.record).metrics
    operations = {
        name: 1e9 * metrics[f"{name}: operations"].value / metrics[f"{name}: questions"].value
        for name in train_long.RECIPES
        if f"{name}: operations" in metrics
    }
    for name, flop in operations.items():
        hours = flop * QUESTIONS * EPOCHS / (options.teraflops * 1e12) / 3600
        print(f"{name}: {flop / 1e9:.1f} GFLOP a question, {hours:.2f} h of products for {EPOCHS}")
    found = epochs_in(options.minutes, operations, options.teraflops, options.least_step)
    print(
        f"{options.minutes:g} minutes at {options.teraflops:g} TFLOP/s and at least "
        f"{1000 * options.least_step:g} ms a step: {found:.1f} of {EPOCHS} epochs for every method"
    )
    if found < EPOCHS:
        print(f"pass `train` --epochs {max(1, int(found))}, so that the rate falls before the end")


def pack(options: argparse.Namespace) -> None:
    """Splits the model and the questions."""
    total = 0
    for path in (options.model, options.squad / "train-v1.1.json"):
        for part in split_file(path, options.out, options.part_mib << 20):
            total += part.stat().st_size
            print(part, part.stat().st_size)
    print(f"{total / (1 << 20):.1f} MiB to carry, beside the package")


def train(options: argparse.Namespace) -> None:
    """Trains with the pack's questions and model."""
    model = next(options.pack.glob("*.gguf"), options.pack / "model")
    line = [
        "--squad", str(options.pack), "--out", str(options.out),
        "--backbone", options.backbone or str(model), "--preset", options.preset,
        "--device", options.device, "--dtype", options.dtype, "--cache-in-memory",
        "--documents-per-step", str(options.documents_per_step),
        "--presentations", str(math.ceil(options.epochs * QUESTIONS)),
        "--minutes", str(options.minutes), "--round", str(options.round),
        "--validate-every", str(options.validate_every), "--methods", options.methods,
    ]  # fmt: skip
    torch.backends.cuda.matmul.allow_tf32 = True
    train_long.train(train_long.Job(train_long.arguments(line)))


def export(options: argparse.Namespace) -> None:
    """Writes the last adapters as float16, in parts."""
    from safetensors.torch import save_file

    for name in options.methods.split(","):
        last = options.runs / name / "last"
        state = {
            k: v.half() if v.is_floating_point() else v for k, v in load_state_of(last).items()
        }
        whole = options.runs / f"{name}.safetensors"
        save_file(state, str(whole))
        split_file(whole, options.out, options.part_mib << 20)
        whole.unlink()
        text = json.dumps(read_config(last), indent=1)
        (options.out / f"{name}.json.000").write_text(text, encoding="utf-8")
        log = options.runs / name / "log.jsonl"
        (options.out / f"{name}.log.jsonl.000").write_bytes(log.read_bytes())
    for path in sorted(options.out.iterdir()):
        print(path, path.stat().st_size)


def arguments(line: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("pack")
    one.add_argument("--squad", type=Path, required=True)
    one.add_argument("--model", type=Path, required=True, help="the backbone's .gguf file")
    one = commands.add_parser("join")
    one.add_argument("parts", type=Path)
    one.add_argument("--to", type=Path, required=True)
    one = commands.add_parser("plan")
    one.add_argument("--record", type=Path, default=Path("results/training/step-speed.json"))
    one.add_argument("--teraflops", type=float, default=TERAFLOPS)
    one.add_argument("--least-step", type=float, default=LEAST_STEP_SECONDS, help="seconds")
    one.add_argument("--minutes", type=float, default=12)
    one = commands.add_parser("train")
    one.add_argument("pack", type=Path)
    one.add_argument("--minutes", type=float, default=9)
    one.add_argument("--epochs", type=float, default=EPOCHS)
    one.add_argument("--documents-per-step", type=int, default=DOCUMENTS)
    one.add_argument("--round", type=int, default=500)
    one.add_argument("--validate-every", type=int, default=1 << 30)
    one.add_argument("--backbone", help="default: the model of the pack")
    one.add_argument("--preset", default="smollm2-135m")
    one.add_argument("--device", default="cuda")
    one.add_argument("--dtype", default="bfloat16")
    one = commands.add_parser("export")
    one.add_argument("runs", type=Path)
    for name in ("train", "export"):
        commands.choices[name].add_argument("--methods", default=",".join(train_long.RECIPES))
    for name in ("pack", "train", "export"):
        commands.choices[name].add_argument("--out", type=Path, required=True)
    for name in ("pack", "export"):
        commands.choices[name].add_argument("--part-mib", type=int, default=PART_MIB)
    return parser.parse_args(line)


def main(line: list[str] | None = None) -> None:
    """Runs one command."""
    options = arguments(line)
    if options.command == "join":
        for path in join_parts(options.parts, options.to):
            print(path, path.stat().st_size)
        return
    {"pack": pack, "plan": plan, "train": train, "export": export}[options.command](options)


if __name__ == "__main__":
    main()
