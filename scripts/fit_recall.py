"""Makes the adapter of recall: exits fitted on `--background`, and the low-rank weights of rag's.

recall reads as rag does, so rag's weights serve both.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from latentbank.adapter import build_method, copy_matching, find_adapter, read_config, save_adapter
from latentbank.backbone.model import load_backbone
from latentbank.evaluate.data import load_dataset
from latentbank.methods.recall import Recall
from measured import command_line

READING = (
    "lora", "closed_lora", "candidates", "gain_half", "gain_scale", "closed_weight", "chunk_tokens",
)  # fmt: skip
"""Settings of rag's adapter that say how a found text is read."""


def fitted(method: Recall, spec: str, paragraphs: int) -> dict[str, Any]:
    """Fits the exits on paragraphs of PATH:SPLIT; returns what the card says of it."""
    path, _, split = spec.partition(":")
    data = load_dataset(path, split or None)
    texts = [d.text for d in data.documents]
    chosen = sorted(np.random.default_rng(0).permutation(len(texts))[:paragraphs])
    began = time.process_time()
    method.fit_exits([texts[i] for i in chosen])
    return {
        "data": {"name": data.name, "hash": data.hash},
        "paragraphs": len(chosen),
        "processor_seconds": round(time.process_time() - began, 1),
    }


def main() -> None:
    """Parses the command line, fits, and writes the adapter."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--background", default="", help="PATH:SPLIT of paragraphs")
    parser.add_argument("--paragraphs", type=int, default=2000)
    parser.add_argument("--reader", default="rag-smollm2-135m", help="adapter of rag")
    parser.add_argument("--exits", type=Path, help="an adapter whose exits are taken instead")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    reader = read_config(find_adapter(options.reader))["config"]
    kept = {name: reader[name] for name in READING if name in reader}
    method = build_method("recall", load_backbone("smollm2-135m"), kept, preset="smollm2-135m")
    assert isinstance(method, Recall)
    taken = copy_matching(method, find_adapter(options.reader))
    if options.exits:
        copy_matching(method, options.exits)
        card = {"exits": read_config(options.exits)["training"]}
    else:
        card = {"exits": fitted(method, options.background, options.paragraphs)}
    card["command"] = command_line()
    card["reader"] = f"{taken} tensors of {options.reader}"
    save_adapter(options.out, method, card, half=True)
    print(card)


if __name__ == "__main__":
    main()
