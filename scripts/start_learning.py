"""Adapters that methods which learn in the weights start from: light tuning, and a warm-up.

The light tuning is an adapter of `none`, trained on SQuAD's split `qa_lt`. Its low-rank weights
become those of each method here. A memory layer also needs a warm-up of its own.

    latentbank train --method none --data squad_v1.1 --split qa_lt --out runs/qa_lt …
    latentbank train --method sparse_memory --data squad_v1.1 --split qa_lt --out runs/warm …
    python scripts/start_learning.py --tuned runs/qa_lt/adapter --warm runs/warm/adapter --out runs
"""

from __future__ import annotations

import argparse
from pathlib import Path

from latentbank.adapter import build_method, copy_matching, read_config, save_adapter
from latentbank.backbone.model import load_backbone
from latentbank.capabilities import Trained
from latentbank.config import merged
from latentbank.errors import InputError
from latentbank.training.cards import write_card


def start(method: str, backbone: str, tuned: Path, own: Path | None, out: Path) -> None:
    """Writes out/METHOD-BACKBONE: the tensors of `own`, if any, then those of `tuned` that fit."""
    loaded = load_backbone(backbone, dtype="float32")
    card = read_config(tuned)
    values = {"lora": card["config"]["lora"]}
    training = {"light_tuning": card["training"]}
    if own is not None:
        trained = read_config(own)
        values = merged(trained["config"], values)
        training = {**trained["training"], **training}
    made = build_method(method, loaded, values)
    if not isinstance(made, Trained):
        raise InputError(f"{method} has no adapter.")
    for folder in (own, tuned):
        if folder is not None:
            print(f"{copy_matching(made, folder)} tensors of {folder}")
    target = out / f"{method}-{backbone}"
    save_adapter(target, made, training if own is not None else card["training"], half=True)
    write_card(target, made, training if own is not None else card["training"])


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tuned", type=Path, required=True, help="adapter of the light tuning")
    parser.add_argument("--warm", type=Path, help="adapter of the memory layers")
    parser.add_argument("--weigher", type=Path, help="adapter of the token weights")
    parser.add_argument("--backbone", default="smollm2-135m")
    parser.add_argument("--methods", nargs="+", default=["finetune"])
    parser.add_argument("--out", type=Path, default=Path("runs"))
    options = parser.parse_args()
    own = {"sparse_memory": options.warm, "camels": options.weigher}
    for method in options.methods:
        start(method, options.backbone, options.tuned, own.get(method), options.out)


if __name__ == "__main__":
    main()
