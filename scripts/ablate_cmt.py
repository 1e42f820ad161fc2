"""CMT's parts one by one: trains each variant from mac's weights, asks the same questions of each.

Every variant has the same steps, data and seeds; `full` is the packaged settings. What is trained
already is left alone, so the command can be repeated after a kill.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path

VARIANTS = {
    "full": (),
    "without memory-aware": ("memory_aware=0",),
    "without self-matching": ("self_matching=0",),
    "without top-k": ("top_k=0",),
    "top-k 4": ("top_k=4",),
    "λ 0": ("spread=0",),
    "λ 1": ("spread=1",),
    "8 latents": ("latents=8",),
    "24 latents": ("latents=24",),
}
PARTS = ("full", "without memory-aware", "without self-matching", "without top-k")


def settings(variant: str) -> dict[str, str]:
    """What a variant changes, on top of what the packaged adapter has."""
    base = {"top_k": "1", "memory_aware": "0.5", "self_matching": "0.1", "spread": "0.5"}
    return base | dict(change.split("=") for change in VARIANTS[variant])


def train(latentbank: list[str], options: argparse.Namespace, variant: str, seed: int) -> Path:
    """The adapter of a variant, trained if it is not there yet."""
    slug = variant.replace(" ", "-").replace("λ", "spread")
    folder: Path = options.runs / f"{slug}-{seed}"
    done = folder / "log.jsonl"
    if done.exists() and json.loads(done.read_text().splitlines()[-1])["step"] == options.steps:
        return folder / "last"
    command = [
        *latentbank, "train", "--method", "cmt", "--backbone", "smollm2-135m",
        "--data", options.data, "--val-data", options.squad, "--val-split", "val",
        "--documents-per-step", "32", "--questions-per-document", "1",
        "--trainer", "neighbours=16", "--out", str(folder), "--init-from", "mac-smollm2-135m",
        "--steps", str(options.steps), "--seed", str(seed), "--learning-rate", "0.0002",
        "--trainer", f"validate_every={options.steps + 1}",
    ]  # fmt: skip
    for name, value in settings(variant).items():
        command += ["--config", f"{name}={value}"]
    subprocess.run(command, check=True)
    return folder / "last"


def ask(latentbank: list[str], options: argparse.Namespace, name: str, adapter: Path) -> None:
    """One record: the same documents and questions of the validation split for every row."""
    command = [
        *latentbank, "bench", "online-qa", "--data", options.squad, "--split", "val",
        "--documents", str(options.documents), "--questions", str(options.questions),
        "--out", str(options.out), "--methods", f"{name}=cmt:{adapter}",
    ]  # fmt: skip
    print(shlex.join(command), flush=True)
    subprocess.run(command, check=True)


def main() -> None:
    """Parses the command line; trains and asks variant by variant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--squad", required=True, help="folder with train-v1.1.json")
    parser.add_argument("--data", help="what to train on; default: the split `train` of --squad")
    parser.add_argument("--variants", nargs="+", default=list(PARTS), choices=list(VARIANTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--documents", type=int, default=400)
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--runs", type=Path, default=Path("runs/cmt-ablation"))
    parser.add_argument("--out", type=Path, default=Path("results/cmt"))
    parser.add_argument("--latentbank", default=f"{Path(sys.executable).parent / 'latentbank'}")
    options = parser.parse_args()
    options.data = options.data or f"{options.squad}:train"
    latentbank = shlex.split(options.latentbank)
    for seed in options.seeds:
        for variant in options.variants:
            adapter = train(latentbank, options, variant, seed)
            ask(latentbank, options, f"cmt {variant} seed {seed}", adapter)


if __name__ == "__main__":
    main()
