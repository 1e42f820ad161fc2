"""What a neural memory over a frozen backbone keeps, by the number of documents it has read.

Documents are written one after the other. At each of the counts: how well a token's state recalls
the state that came next, in the first, the middle and the last document, beside what an empty
memory says; and the loss of answers about documents that were written, with the memory and without.
At the last count the answers themselves are scored. One record. With `keys=words` there is no such
recall. Told instead is how often a question's query is nearest to the key of the first token of its
answer, among the tokens of all documents written. And what a memory without a limit would say of
that token with the same keys: the softmax of the query over all of them, mixed with what the model
says closed book. Sharpness and share of the mixture are the best ones for half of the questions;
told is the other half.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cosine_similarity

from latentbank.adapter import find_adapter, load_adapter
from latentbank.backbone.model import load_backbone
from latentbank.backbone.prompts import answer_ids
from latentbank.bench.record import Metric, Series
from latentbank.evaluate.data import Question, load_dataset
from latentbank.evaluate.metrics import f1, paired_bootstrap
from latentbank.model import MemoryModel
from latentbank.parts.online.salient import answer_starts
from measured import write_measured

BATCH = 8


@torch.no_grad()
def recall(method: Any, text: str, state: Any) -> float:
    """Mean cosine of what each token's state recalls and the state after it."""
    states = method._states([text])[0]
    found = method.memory.recall(states, state, apart=True)
    return float(cosine_similarity(found[:, :-1], states[:, 1:], dim=-1).mean())


@torch.no_grad()
def found(method: Any, documents: list[Any], questions: list[Question]) -> float:
    """Share of `questions` whose query finds the first token of its answer in `documents`."""
    read = [method._states([document.text])[0] for document in documents]
    ends = np.cumsum([0, *(states.shape[1] for states in read)])
    keys = torch.cat([method.words.keys(states)[0] for states in read])
    last = method._asking(questions[0].text)[None, None]
    hits: list[bool] = []
    for one in questions:
        starts = answer_starts(method.backbone, documents[one.document].text, one.answers[0])
        if starts:
            query = method.words.queries(method.words.bags(*method._states([one.text])), last)
            nearest = int((keys @ query[0, 0]).argmax()) - ends[one.document]
            hits.append(bool(nearest in starts))
    return float(np.mean(hits))


@torch.no_grad()
def losses(method: Any, questions: list[Question], memory: bool) -> list[float]:
    """Nats a token of the first answer of each question, with memory or closed book."""
    backbone = method.backbone
    found: list[float] = []
    for at in range(0, len(questions), BATCH):
        part = questions[at : at + BATCH]
        texts = [q.text for q in part]
        read = method.read(texts) if memory else method.closed_book()
        prompts = read.prompts(backbone, texts)
        with read.attach(backbone):
            total, tokens = backbone.answer_loss(
                prompts, answer_ids(backbone, [q.answers[0] for q in part])
            )
        found += (total / tokens).tolist()
    return found


@torch.no_grad()
def unlimited(method: Any, documents: list[Any], questions: list[Question]) -> dict[str, Metric]:
    """The first tokens of answers: closed book, with the memory, and with all of its keys kept."""
    backbone = method.backbone
    read = [method._states([document.text])[0] for document in documents]
    keys = torch.cat([method.words.keys(states)[0] for states in read])
    tokens = backbone.encode([document.text for document in documents], start=False)
    ids = torch.tensor(
        [one for row, x in zip(tokens, read, strict=True) for one in row[: x.shape[1]]]
    )
    around = [
        torch.cat([x, method.words._shifted(x, 1), method.words._shifted(x, -1)], -1) for x in read
    ]
    steps = torch.cat([method.words.step(x)[0].sigmoid() for x in around])[:, 0]
    texts = [q.text for q in questions]
    first = torch.tensor([answer_ids(backbone, [q.answers[0]])[0][0] for q in questions])
    said: dict[str, list[torch.Tensor]] = {"closed book": [], "the memory": []}
    queries: list[torch.Tensor] = []
    for at in range(0, len(texts), BATCH):
        part, answers = texts[at : at + BATCH], [[one] for one in first[at : at + BATCH].tolist()]
        for name in said:
            reading = method.closed_book() if name == "closed book" else method.read(part)
            with reading.attach(backbone):
                logits = backbone.answer_logits(reading.prompts(backbone, part), answers).logits
            said[name].append(logits.float().softmax(-1))
        last = method._asking(part[0])[None, None].expand(len(part), 1, -1)
        queries.append(method.words.queries(method.words.bags(*method._states(part)), last)[:, 0])
    close = torch.cat(queries) @ keys.T
    plain, remembered = (torch.cat(parts) for parts in said.values())
    half = torch.arange(len(texts)) % 2 == 0

    def mixed(sharp: float, share: float) -> torch.Tensor:
        weight = (close * sharp).exp() * steps
        found = torch.zeros_like(plain).index_add_(1, ids, weight / weight.sum(1, keepdim=True))
        return (1 - share) * plain + share * found

    def nats(chances: torch.Tensor) -> torch.Tensor:
        return -chances[torch.arange(len(texts)), first].clamp_min(1e-12).log()

    choices = [(sharp, share) for sharp in (8, 12, 20, 30, 45) for share in (0.1, 0.2, 0.3, 0.4)]
    best = min(choices, key=lambda one: float(nats(mixed(*one))[half].mean()))
    metrics: dict[str, Metric] = {}
    kept = (("closed book", plain), ("the memory", remembered), ("all keys kept", mixed(*best)))
    for name, chances in kept:
        right = (chances.argmax(1) == first)[~half].float()
        metrics[f"first token, {name}"] = Metric(float(nats(chances)[~half].mean()), "nats")
        metrics[f"first token right, {name}"] = Metric(100 * float(right.mean()), "percent")
    return metrics


def scores(model: MemoryModel, questions: list[Question], memory: bool) -> list[float]:
    """F1 of the answers, with memory or closed book."""
    said = model.ask_many([q.text for q in questions], memory=memory)
    return [f1(a.text, q.answers) for a, q in zip(said, questions, strict=True)]


def main() -> None:
    """Measures and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("adapter", help="of the method titans")
    parser.add_argument("--data", required=True, help="folder of SQuAD")
    parser.add_argument("--split", default="val")
    parser.add_argument("--documents", type=int, nargs="+", default=[1, 3, 10, 30, 100, 300])
    parser.add_argument("--questions", type=int, default=60, help="at each count, at most")
    parser.add_argument("--answered", type=int, default=100, help="of all documents")
    parser.add_argument("--out", type=Path, default=Path("results/titans/method.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    backbone = load_backbone("smollm2-135m", dtype="float32")
    method: Any = load_adapter(find_adapter(options.adapter), backbone)
    data = load_dataset(options.data, options.split).take(documents=options.documents[-1])
    model = MemoryModel(method)
    metrics: dict[str, Metric] = {}
    curves: dict[str, list[float]] = {}
    words = method.config.keys == "words"
    if not words:
        empty = recall(method, data.documents[0].text, method.memory.start(1).detached())
        metrics["recall, empty memory"] = Metric(empty, "cosine")
    written = 0
    for count in options.documents:
        model.write(data.documents[written:count])
        written, state = count, method.learned()
        spots = (("first", 0), ("middle", count // 2), ("last", count - 1))
        for name, at in () if words else spots:
            value = recall(method, data.documents[at].text, state)
            metrics[f"recall, {name} of {count}"] = Metric(value, "cosine")
            curves.setdefault(f"recall, {name}", []).append(value)
        asked = [q for q in data.questions if q.document < count]
        chosen = np.random.default_rng(count).permutation(len(asked))[: options.questions]
        questions = [asked[i] for i in sorted(chosen)]
        if words:
            share = found(method, list(data.documents[:count]), questions)
            metrics[f"found of {count}"] = Metric(100 * share, "percent")
            curves.setdefault("found", []).append(100 * share)
        with_memory, without = (losses(method, questions, one) for one in (True, False))
        gain = paired_bootstrap(without, with_memory)
        metrics[f"gain of {count}"] = Metric(gain.difference, "nats/token", gain.low, gain.high)
        metrics[f"p of {count}"] = Metric(gain.p_value, "p")
        curves.setdefault("gain", []).append(gain.difference)
        print(count, {k: round(v[-1], 3) for k, v in curves.items()}, flush=True)
    drawn = data.sample_questions(options.answered, 0)
    if words:
        metrics |= unlimited(method, list(data.documents), list(drawn.questions))
    known, plain = (scores(model, list(drawn.questions), one) for one in (True, False))
    metrics["bank"] = Metric(model.bank.file_bytes(), "bytes")
    model.close()
    pair = paired_bootstrap(known, plain)
    metrics["F1"] = Metric(100 * float(np.mean(known)), "percent")
    metrics["F1, no memory"] = Metric(100 * float(np.mean(plain)), "percent")
    metrics["F1, difference"] = Metric(
        100 * pair.difference, "percent points", 100 * pair.low, 100 * pair.high
    )
    metrics["F1, p"] = Metric(pair.p_value, "p")
    counts = tuple(float(count) for count in options.documents)
    series = {
        name: Series(
            counts, tuple(values), "documents", "count", name,
            {"gain": "nats/token", "found": "percent"}.get(name, "cosine"),
        )
        for name, values in curves.items()
    }  # fmt: skip
    write_measured(
        options.out, "titans-method", metrics, data, method="titans", dtype=torch.float32,
        series=series,
    )  # fmt: skip


if __name__ == "__main__":
    main()
