"""Sets how readily a trained KBLaM refuses, and writes the adapter with its model card.

The score of the triple without key is shifted in all layers by the number that serves best on
synthetic knowledge bases of 100 and 1,000 triples. Whether a question is refused shows at the first
token, so no answer is decoded.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from latentbank.adapter import load_adapter, read_config, save_adapter
from latentbank.backbone.model import load_backbone
from latentbank.backbone.processor import flushed_denormals
from latentbank.backbone.prompts import answer_ids, prompt_ids
from latentbank.documents.facts import Triple
from latentbank.evaluate.kb.world import REFUSAL, World
from latentbank.parts.knowledge.features import Features
from latentbank.parts.knowledge.states import entering_states
from latentbank.training.cards import write_card

SHIFTS = (-3.0, -2.0, -1.5, -1.0, -0.5, 0.0, 0.5)
SIZES = (100, 1_000)
SEED = 202
COST = 2.0  # of a refused answerable question, in unanswerable ones that are answered
BATCH = 32
LICENCE = "synthetic data made by this package; DART (Nan et al. 2021): MIT"


@torch.no_grad()
def refused(method: Any, features: Features, states: Sequence[torch.Tensor]) -> list[bool]:
    """Whether the first token of each answer is the refusal's.

    `states` [T, D] of each question enter the first layer that reads triples.
    """
    backbone, first = method.backbone, answer_ids(method.backbone, [REFUSAL])[0][0]
    found: list[bool] = []
    for at in range(0, len(states), BATCH):
        part = list(states[at : at + BATCH])
        lengths = torch.tensor([len(one) for one in part])
        padded = torch.nn.utils.rnn.pad_sequence(part, batch_first=True)
        mask = torch.arange(padded.shape[1]) < lengths[:, None]
        memory = method.memory_of(features)
        memory.anchors = lengths - 1
        with method.reading().attach(backbone), memory.attach(backbone):
            whole = backbone.finish(padded, mask, method.layers[0])
        last = whole[torch.arange(len(part)), lengths - 1]
        found += (backbone.logits(last).argmax(-1) == first).tolist()
    return found


def worlds(count: int) -> list[tuple[list[Triple], list[str], list[str]]]:
    """(triples, answerable questions, unanswerable ones) of each size."""
    made = []
    for size in SIZES:
        world = World(SEED, held_entities=True)
        every = world.triples(size + size // 10)
        gone = set(range(0, len(every), 11))
        kept = [triple for i, triple in enumerate(every) if i not in gone]
        known = [world.question(kept, "single").question for _ in range(count)]
        alone = [[every[i]] for i in sorted(gone)][: count // 2]
        unknown = [world.question(one, "single").question for one in alone]
        unknown += [
            world.question(kept, "unanswerable").question for _ in range(count // 2 - len(unknown))
        ]
        made.append((kept, known, unknown))
    return made


def calibrated(method: Any, count: int) -> list[dict[str, float]]:
    """Shifts the null scores to the best of `SHIFTS`; returns what each of them gave."""
    before = {i: own.null_score.detach().clone() for i, own in method.adapters.items()}
    rows = []
    found: dict[float, dict[str, float]] = {shift: {"shift": shift} for shift in SHIFTS}
    for kept, known, unknown in worlds(count):
        features = method.encoder.encode([(t.entity, t.property, t.value) for t in kept])
        asked, missing = (
            entering_states(method.backbone, method.layers[0], prompt_ids(method.backbone, one))
            for one in (known, unknown)
        )
        for shift, row in found.items():
            for i, own in method.adapters.items():
                own.null_score.data = before[i] + shift
            wrong = refused(method, features, asked)
            right = refused(method, features, missing)
            row[f"false_refusals_{len(kept)}"] = sum(wrong) / len(wrong)
            row[f"recall_{len(kept)}"] = sum(right) / len(right)
    for row in found.values():
        row["value"] = sum(
            value if name.startswith("recall") else -COST * value
            for name, value in row.items()
            if name != "shift"
        )
        rows.append(row)
        print(json.dumps(row), flush=True)
    best = max(rows, key=lambda row: row["value"])["shift"]
    for i, own in method.adapters.items():
        own.null_score.data = before[i] + best
    return rows


def main() -> None:
    """Calibrates and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="adapter of train_kblam.py, such as RUN/best")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--backbone", default="smollm2-135m")
    parser.add_argument("--questions", type=int, default=64, help="of a size, answerable")
    options = parser.parse_args()
    torch.set_num_threads(1)
    method: Any = load_adapter(options.folder, load_backbone(options.backbone, "auto", "cpu"))
    method.train(False)
    card = dict(read_config(options.folder)["training"])
    with flushed_denormals():
        rows = calibrated(method, options.questions)
    best = max(rows, key=lambda row: row["value"])
    card["null_shift"] = best["shift"]
    save_adapter(options.out, method, card, half=True)
    scores = card.get("validation", {})
    names = ("right_100", "right_1000", "top1_100", "top1_1000", "number_100")
    info = {**card, "licence": LICENCE, "metrics": {}}
    path = write_card(options.out, method, info)
    lines = ["| measure | before the shift |", "| --- | ---: |"] if scores else []
    lines += [f"| {name} | {100 * scores[name]:.1f} % |" for name in names if name in scores]
    shift = [f"| {name} | {100 * value:.1f} % |" for name, value in best.items()
             if name not in ("shift", "value")]  # fmt: skip
    text = path.read_text(encoding="utf-8")
    head, _, tail = text.partition("## Validation\n")
    _, _, tail = tail.partition("## Use\n")
    made = "\n".join(["", *lines, "", f"The score of the triple without key is shifted by "
                      f"{best['shift']:g}:", "", "| measure | value |", "| --- | ---: |", *shift,
                      "", ""])  # fmt: skip
    path.write_text(f"{head}## Validation\n{made}## Use\n{tail}", encoding="utf-8")
    print(path, options.out.joinpath("adapter.safetensors").stat().st_size)


if __name__ == "__main__":
    main()
