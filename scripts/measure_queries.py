"""Whether a question's query finds the key of its answer in `titans`, by how much text taught it.

The queries and keys of a neural memory over a frozen backbone learn by `point` (see `titans`), on
more and more paragraphs and their questions. Each time: how often the first token of the answer is
the nearest of all tokens of 1, 10 and 100 paragraphs that were not seen, and of those that were.
States are computed once, so a run takes minutes. One record.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from latentbank.adapter import build_method, copy_matching, find_adapter
from latentbank.backbone.model import load_backbone
from latentbank.bench.record import Metric, Series
from latentbank.evaluate.data import QADataset, load_dataset
from latentbank.parts.neural_memory import NeuralMemory
from latentbank.parts.neural_memory.pointing import pointing_loss
from latentbank.parts.online.salient import answer_starts
from measured import write_measured

TOGETHER = 16  # paragraphs whose tokens compete in training
QUESTIONS = 3  # of each paragraph


@dataclass(frozen=True)
class Held:
    """States of paragraphs [T, D] each, and of the ends of their questions' prompts.

    `asked` has (paragraph, state [D], places of the answer's first token) of each question.
    """

    texts: list[Tensor]
    asked: list[tuple[int, Tensor, list[int]]]

    def first(self, count: int) -> Held:
        """The first paragraphs and their questions."""
        return Held(self.texts[:count], [one for one in self.asked if one[0] < count])

    def found(self, memory: NeuralMemory, chosen: Sequence[int], drop: float) -> Any:
        """(loss, share found) of the questions of some paragraphs among all of their tokens."""
        keys, ends = [], {}
        at = 0
        for text in chosen:
            ends[text] = at
            at += len(self.texts[text])
            states = nn.functional.dropout(self.texts[text].float(), drop, memory.training)
            keys.append(memory.keys(states[None])[0])
        rows = [one for one in self.asked if one[0] in ends]
        if not rows:
            return torch.zeros(()), 0.0
        states = torch.stack([state.float() for _, state, _ in rows])
        queries = memory.queries(nn.functional.dropout(states, drop, memory.training)[None])[0]
        spots = [[ends[text] + start for start in starts] for text, _, starts in rows]
        return pointing_loss(queries, torch.cat(keys), spots)


@torch.no_grad()
def held(method: Any, data: QADataset, chosen: Sequence[int]) -> Held:
    """The states of some paragraphs and of their first questions."""
    backbone, texts, asked = method.backbone, [], []
    of_document = data.questions_by_document()
    for at, number in enumerate(chosen):
        text = data.documents[number].text
        texts.append(method._states([text])[0][0].half())
        for one in of_document[number][:QUESTIONS]:
            question = data.questions[one]
            starts = answer_starts(backbone, text, question.answers[0])
            state = method.ends([question.text])[0].half()
            asked.append((at, state, [start for start in starts if start < len(texts[-1])]))
    return Held(texts, [one for one in asked if one[2]])


def learned(
    method: Any, train: Held, test: Held, steps: int, every: int, drop: float, decay: float
) -> Iterator[dict[str, float]]:
    """Trains a new memory; yields the shares found every so many steps."""
    torch.manual_seed(0)
    draw = np.random.default_rng(0)
    memory = NeuralMemory(method.backbone.geometry.width, method.config.memory)
    optimiser = torch.optim.AdamW(memory.parameters(), 2e-3, weight_decay=decay)
    seen: list[float] = []
    for step in range(1, steps + 1):
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * min(1.0, step / 20)
        some = draw.choice(len(train.texts), min(TOGETHER, len(train.texts)), replace=False)
        loss, share = train.found(memory, some.tolist(), drop)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(memory.parameters(), 1.0)
        optimiser.step()
        seen.append(share)
        if step % every == 0:
            memory.eval()
            found = {"seen": float(np.mean(seen[-every // 2 :]))}
            with torch.no_grad():
                for count in (1, 10, 100):
                    size = len(test.texts)
                    groups = [range(at, min(at + count, size)) for at in range(0, size, count)]
                    shares = [test.found(memory, list(one), 0.0)[1] for one in groups]
                    found[f"unseen, of {count}"] = float(np.mean(shares))
            memory.train()
            yield found


def main() -> None:
    """Measures and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder of SQuAD")
    parser.add_argument("--layer", type=int, default=20)
    parser.add_argument("--paragraphs", type=int, nargs="+", default=[225, 450, 900])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("results/titans/queries.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    backbone = load_backbone("smollm2-135m", dtype="float32")
    method: Any = build_method("titans", backbone, {"layer": options.layer})
    copy_matching(method, find_adapter("none-smollm2-135m"))
    data, other = (load_dataset(options.data, split) for split in ("train", "val"))
    order = np.random.default_rng(0).permutation(len(data.documents))
    method.prepare([data.documents[i] for i in order[:64].tolist()])
    train = held(method, data, order[: max(options.paragraphs)].tolist())
    test = held(method, other, range(100))
    metrics: dict[str, Metric] = {}
    series: dict[str, Series] = {}
    runs = [(count, 0.4, 0.3) for count in options.paragraphs]
    for count, drop, decay in [*runs, (max(options.paragraphs), 0.0, 0.0)]:
        label = f"{count} paragraphs" + ("" if drop else ", no dropout")
        curves: dict[str, list[float]] = {}
        few = train.first(count)
        for found in learned(method, few, test, options.steps, options.every, drop, decay):
            for name, share in found.items():
                curves.setdefault(name, []).append(100 * share)
            print(
                label, {name: round(values[-1], 1) for name, values in curves.items()}, flush=True
            )
        places = tuple(float(options.every * (i + 1)) for i in range(len(curves["seen"])))
        for name, values in curves.items():
            metrics[f"{label}: {name}"] = Metric(values[-1], "percent")
            series[f"{label}: {name}"] = Series(
                places, tuple(values), "steps", "steps", name, "percent"
            )
    write_measured(
        options.out, "titans-queries", metrics, data, method="titans", dtype=torch.float32,
        config={"layer": options.layer, "seen": len(train.asked), "unseen": len(test.asked)},
        series=series,
    )  # fmt: skip


if __name__ == "__main__":
    main()
