"""Makes the adapter of recall: exits fitted on `--background`, and the low-rank weights of rag's.

recall reads as rag does, so rag's weights serve both.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from latentbank.adapter import build_method, copy_matching, find_adapter, save_adapter
from latentbank.backbone.model import load_backbone
from latentbank.evaluate.data import load_dataset
from latentbank.methods.recall import Recall
from measured import command_line


def main() -> None:
    """Parses the command line, fits, and writes the adapter."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--background", required=True, help="PATH:SPLIT of paragraphs")
    parser.add_argument("--paragraphs", type=int, default=2000)
    parser.add_argument("--reader", default="rag-smollm2-135m", help="adapter of rag")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    path, _, split = options.background.partition(":")
    data = load_dataset(path, split or None)
    texts = [d.text for d in data.documents]
    chosen = sorted(np.random.default_rng(0).permutation(len(texts))[: options.paragraphs])
    method = build_method("recall", load_backbone("smollm2-135m"), preset="smollm2-135m")
    assert isinstance(method, Recall)
    taken = copy_matching(method, find_adapter(options.reader))
    began = time.process_time()
    method.fit_exits([texts[i] for i in chosen])
    card = {
        "command": command_line(),
        "data": {"name": data.name, "hash": data.hash},
        "paragraphs": len(chosen),
        "processor_seconds": round(time.process_time() - began, 1),
        "reader": f"{taken} tensors of {options.reader}",
    }
    save_adapter(options.out, method, card, half=True)
    print(card)


if __name__ == "__main__":
    main()
