"""Trains only the document selector of a strata adapter, and writes the adapter back.

The side loss of the whole training sees eight documents a step; this sees `--batch` of them, on
features that are computed once.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress

from latentbank.adapter import load_adapter, read_config, save_adapter
from latentbank.backbone.encoder import FeatureCache
from latentbank.backbone.model import load_backbone
from latentbank.evaluate.data import QADataset, load_dataset
from latentbank.methods.strata import Strata
from latentbank.parts.retrieval.dense import DenseSelector


def recall(method: Strata, data: QADataset) -> dict[str, float]:
    """Share of questions whose document is first, or among five, over all documents of `data`."""
    with torch.no_grad():
        stored = torch.cat(
            [method.selector.documents(*method.standard_states([d.text])) for d in data.documents]
        )
        asked = torch.cat(
            [method.selector.questions(*method.standard_states([q.text])) for q in data.questions]
        )
    owner = torch.tensor([q.document for q in data.questions])
    best = (asked @ stored.T).topk(5).indices
    return {
        "first": float((best[:, 0] == owner).float().mean()),
        "among_five": float((best == owner[:, None]).any(1).float().mean()),
    }


def train(method: Strata, data: QADataset, options: argparse.Namespace) -> None:
    """Replaces the method's selector by one trained from scratch."""
    torch.manual_seed(options.seed)
    fresh = DenseSelector(method.backbone.geometry.width, method.config.key_width, queue=0)
    of_document = data.questions_by_document()
    draw = np.random.default_rng(options.seed)
    pool = draw.permutation([i for i, q in enumerate(of_document) if q])[: options.paragraphs]
    optimizer = torch.optim.AdamW(fresh.parameters(), options.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.learning_rate, options.steps, pct_start=0.1
    )
    with Progress() as bar:
        task = bar.add_task("selector", total=options.steps)
        for _ in range(options.steps):
            chosen = draw.choice(pool, min(options.batch, len(pool)), replace=False)
            pairs = [(at, q) for at, d in enumerate(chosen) for q in of_document[d][:2]]
            documents = method.standard_states([data.documents[d].text for d in chosen])
            questions = method.standard_states([data.questions[q].text for _, q in pairs])
            owner = torch.tensor([at for at, _ in pairs])
            loss = fresh.loss(fresh.questions(*questions), fresh.documents(*documents), owner)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            bar.update(task, advance=1, description=f"selector, loss {loss.item():.2f}")
    method.selector.load_state_dict(fresh.state_dict())


def main() -> None:
    """Parses the command line, trains, and reports the recall on validation documents."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("adapter", type=Path)
    parser.add_argument("--data", required=True, help="folder with train-v1.1.json, dev-v1.1.json")
    parser.add_argument("--paragraphs", type=int, default=4000)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--feature-cache", type=Path, required=True)
    options = parser.parse_args()
    backbone = load_backbone("smollm2-135m")
    method = load_adapter(options.adapter, backbone)
    assert isinstance(method, Strata) and method.encoder is not None
    method.encoder.cache = FeatureCache(options.feature_cache, backbone.geometry.width)
    validation = load_dataset(options.data, "val").take(documents=300).sample_questions(500, 0)
    before = recall(method, validation)
    train(method, load_dataset(options.data, "train"), options)
    after = recall(method, validation)
    card = read_config(options.adapter).get("training", {})
    arguments = [a if Path(a) != options.feature_cache else "CACHE" for a in sys.argv[1:]]
    card["selector"] = {
        "command": shlex.join(["python", "scripts/train_selector.py", *arguments]),
        "validation_of_300": {"before": before, "after": after},
    }
    save_adapter(options.adapter, method, card, half=True)
    print(json.dumps(card["selector"], indent=1))


if __name__ == "__main__":
    main()
