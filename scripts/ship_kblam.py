"""Sets how readily a trained KBLaM refuses, and writes the adapter with its model card.

The score of the triple without key is shifted in all layers by the number that serves best on
synthetic knowledge bases of 100 and 1,000 triples. Whether a question is refused shows at the first
token, so no answer is decoded. `--shift` names the number instead. `--weight` and `--sharpen` say
how strongly triples are read.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from pathlib import Path
from typing import Any

import torch

from kblam_held import COST, held_out
from latentbank.adapter import load_adapter, read_config, save_adapter
from latentbank.backbone.model import load_backbone
from latentbank.backbone.processor import flushed_denormals
from latentbank.training.cards import write_card

SHIFTS = (-3.0, -2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)
SEED = 202
LICENCE = "synthetic data made by this package; DART (Nan et al. 2021): MIT"


def calibrated(method: Any, count: int) -> list[dict[str, float]]:
    """Shifts the null scores to the best of `SHIFTS`; returns what each of them gave."""
    before = {i: own.null_score.detach().clone() for i, own in method.adapters.items()}
    held, rows = held_out(method, SEED, count), []
    for shift in SHIFTS:
        for i, own in method.adapters.items():
            own.null_score.data = before[i] + shift
        row = {"shift": shift, "value": 0.0}
        for name, one in held.items():
            found = one.scores(method)
            row |= {f"{key}_{name}": value for key, value in found.items()}
            row["value"] += found["right"] + found["refused"] - COST * found["false_refusals"]
        rows.append(row)
        print(json.dumps(row), flush=True)
    best = max(rows, key=lambda row: row["value"])["shift"]
    for i, own in method.adapters.items():
        own.null_score.data = before[i] + best
    return rows


def strengthened(method: Any, weight: float, sharpen: float, shift: float) -> None:
    """Adds `weight` to the scores of all triples, `shift` to the null ones; sharpens slot scores.

    More weight draws attention from the text to the triples. Sharper slots copy values with fewer
    slips. Neither changes which triple is best.
    """
    for own in method.adapters.values():
        own.offset.data += weight
        own.null_score.data += weight + shift
        own.slot_scale.data *= sharpen


def main() -> None:
    """Calibrates and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="adapter of train_kblam.py, such as RUN/best")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--backbone", default="smollm2-135m")
    parser.add_argument("--questions", type=int, default=64, help="of a size, answerable")
    parser.add_argument("--shift", type=float, help="of the null scores, in place of the search")
    parser.add_argument("--weight", type=float, default=0.0, help="added to triples' scores")
    parser.add_argument("--sharpen", type=float, default=1.0, help="factor of slot scores")
    options = parser.parse_args()
    torch.set_num_threads(1)
    method: Any = load_adapter(options.folder, load_backbone(options.backbone, "auto", "cpu"))
    method.train(False)
    card = dict(read_config(options.folder)["training"])
    strengthened(method, options.weight, options.sharpen, options.shift or 0.0)
    lines: list[str] = []
    if options.shift is None:
        with flushed_denormals():
            rows = calibrated(method, options.questions)
        best = max(rows, key=lambda row: row["value"])
        options.shift = best["shift"]
        lines = ["| measure | value |", "| --- | ---: |"]
        lines += [
            f"| {name} | {100 * value:.1f} % |"
            for name, value in best.items()
            if name not in ("shift", "value")
        ]
    card |= {
        "null_shift": options.shift, "weight": options.weight, "sharpen": options.sharpen,
    }  # fmt: skip
    save_adapter(options.out, method, card, half=True)
    path = write_card(options.out, method, {**card, "licence": LICENCE, "metrics": {}})
    text = path.read_text(encoding="utf-8")
    head, _, tail = text.partition("## Validation\n")
    _, _, tail = tail.partition("## Use\n")
    told = (
        f"After training `scripts/ship_kblam.py` added {options.weight:g} to the scores of "
        f"triples, shifted those of the triple without key by {options.shift:g} and multiplied "
        f"slot scores by {options.sharpen:g}."
    )
    made = "\n".join(["", *textwrap.wrap(told, 100), "", *lines, *([""] if lines else []), ""])
    path.write_text(f"{head}## Validation\n{made}## Use\n{tail}", encoding="utf-8")
    print(path, options.out.joinpath("adapter.safetensors").stat().st_size)


if __name__ == "__main__":
    main()
