"""What Strata could be trained with: short runs that differ in one thing; one record.

Every variant goes on from the packaged adapter for the same steps on the same documents and is
asked the same validation questions, the text that holds the answer being given: from all of its
states, from 48 and 16 pooled ones, and beside the states of another text. A run that is there
already is used.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from latentbank.adapter import find_adapter, load_adapter
from latentbank.backbone.kv import KVMemory
from latentbank.backbone.model import Backbone, load_backbone
from latentbank.backbone.prompts import answer_ids, passage_ids, prompt_ids
from latentbank.backbone.transports import Conditioning, KVPrefix
from latentbank.bench.record import Metric
from latentbank.evaluate.cloze import cloze_dataset
from latentbank.evaluate.data import QADataset, load_dataset
from latentbank.evaluate.evaluation import ask_data
from latentbank.evaluate.metrics import mean_interval
from latentbank.method import Method
from latentbank.methods.strata import Strata
from latentbank.model import MemoryModel
from latentbank.parts import answer_loss
from latentbank.parts.batch import Batch, Loss
from latentbank.training import TrainConfig, Trainer
from measure_states import every, restored, with_start
from measured import write_measured

APART = 8  # questions between a question and the one whose document stands beside its own


@dataclass(frozen=True)
class Variant:
    """`distilled`: weight of the KL divergence to the answer logits of
    packaged `rag`, which has the passage in its prompt. `beside`: another document's states stand
    beside the question's own. `cloze`: questions made from the texts instead of SQuAD's.
    """

    distilled: float = 0.0
    beside: bool = False
    cloze: bool = False


VARIANTS = {
    "as it is": Variant(),
    "distilled": Variant(distilled=1.0),
    "another text beside": Variant(beside=True),
    "cloze questions": Variant(cloze=True),
}


class Teacher:
    """Logits of answers from the passage in the prompt."""

    def __init__(self, backbone: Backbone) -> None:
        self.rag: Method = load_adapter(find_adapter("rag-smollm2-135m"), backbone)
        self.found: dict[tuple[str, str], Tensor] = {}

    @torch.no_grad()
    def look(self, batch: Batch) -> None:
        """Keeps the logits [tokens, V] of every answer of a step."""
        backbone = self.rag.backbone
        ids, mask = backbone.pad(passage_ids(backbone, [d.text for d in batch.documents]))
        assert self.rag.lora is not None
        with self.rag.lora.attach(backbone):
            memory = backbone.fill(backbone.states(ids, mask, 0), mask, 0)
            with backbone.with_memory(memory.rows(torch.tensor(batch.owner))):
                found = backbone.answer_logits(
                    prompt_ids(backbone, batch.questions), answer_ids(backbone, batch.answers)
                )
        each = torch.split(found.logits, found.places.sum(1).tolist())
        pairs = zip(batch.questions, batch.answers, strict=True)
        self.found = dict(zip(pairs, each, strict=True))


def beside(memory: KVMemory, other: KVMemory) -> KVMemory:
    """Two memories of the same rows and layers, side by side."""
    assert memory.positions is not None and other.positions is not None
    both = [
        tuple(torch.cat([a, b], 2) for a, b in zip(x, y, strict=True))
        for x, y in ((memory.keys, other.keys), (memory.values, other.values))
    ]
    return replace(
        memory,
        keys=both[0],
        values=both[1],
        bias=torch.cat([memory.bias, other.bias], 1),
        start=torch.maximum(memory.start, other.start),
        positions=torch.cat([memory.positions, other.positions], 1),
    )


def answer_terms(method: Strata, variant: Variant, teacher: Teacher | None, batch: Batch) -> Tensor:
    """The answer loss of a variant with what is attached to the backbone now; a scalar."""
    backbone, memory = method.backbone, method.backbone.memory
    assert memory is not None
    if variant.beside:
        order = torch.arange(len(batch.questions)).roll(APART)
        memory = beside(memory, memory.rows(order))
    with backbone.with_memory(memory):
        found = backbone.answer_logits(
            prompt_ids(backbone, batch.questions), answer_ids(backbone, batch.answers)
        )
    loss = nn.functional.cross_entropy(found.logits, found.tokens)
    if teacher is not None:
        pairs = zip(batch.questions, batch.answers, strict=True)
        wanted = torch.cat([teacher.found[pair] for pair in pairs]).log_softmax(-1)
        given = found.logits.log_softmax(-1)
        loss = loss + variant.distilled * nn.functional.kl_div(
            given, wanted, reduction="batchmean", log_target=True
        )
    return loss


def trained(variant: Variant, data: QADataset, config: TrainConfig, folder: Path) -> Strata:
    """The method after its steps."""
    backbone = load_backbone("smollm2-135m")
    teacher = Teacher(backbone) if variant.distilled else None
    method = load_adapter(find_adapter("strata-smollm2-135m"), backbone, {"closed_share": 0.0})
    assert isinstance(method, Strata)
    loss = method.loss

    def with_teacher(batch: Batch) -> Loss:
        if teacher is not None:
            teacher.look(batch)
        return loss(batch)

    method.loss = with_teacher  # type: ignore[method-assign]
    answer_loss.mean_answer_loss = lambda _, batch: answer_terms(method, variant, teacher, batch)
    if variant.cloze:
        data = cloze_dataset("cloze", data.documents)
    Trainer(method, data, None, config, folder).run()
    method.train(False)
    return method


def beside_another(
    method: Strata, names: Sequence[str], questions: Sequence[str], documents: Sequence[str]
) -> Conditioning:
    """What is read for questions: their documents and the ones written after them."""
    after = dict(zip(names, [*names[1:], names[0]], strict=True))
    rows = [[document, after[document]] for document in documents]
    memory = method.reader.memory(rows, method._states)
    assert memory is not None and method.lora is not None
    return Conditioning((method.lora, KVPrefix(memory)))


def scores(method: Strata, data: QADataset) -> dict[str, list[float]]:
    """F1 of every question, in percent, for each form of the documents."""
    documents = {d.id: d for d in (data.documents[q.document] for q in data.questions)}
    model = MemoryModel(method)
    model.write(list(documents.values()))
    forms: dict[str, Callable[..., tuple[Tensor, float]]] = {
        "all states": every,
        "48 pooled": partial(restored, count=48),
        "16 pooled": partial(restored, count=16),
    }
    found = {}
    for name, form in forms.items():
        states = {d.id: form(method, text=d.text) for d in documents.values()}
        method.reader.hot.clear()
        method._states = partial(with_start, method, states)  # type: ignore[method-assign]
        found[name] = [100 * one for one in ask_data(model, data, gold=True).f1]
        if name == "all states":
            read = method.read
            method.read = partial(beside_another, method, list(documents))  # type: ignore
            answers = [100 * one for one in ask_data(model, data, gold=True).f1]
            found["all states, another text beside"] = answers
            method.read = read  # type: ignore[method-assign]
    return found


def main() -> None:
    """Trains, asks and writes one record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="squad_v1.1", help="folder of SQuAD v1.1")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--questions", type=int, default=120)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=Path("runs/search"))
    parser.add_argument("--out", type=Path, default=Path("results/search/training.json"))
    options = parser.parse_args()
    train = load_dataset(options.data, "train")
    data = load_dataset(options.data, "val").sample_questions(options.questions, options.seed)
    config = TrainConfig(
        options.steps, learning_rate=5e-4, warmup=5, seed=options.seed, validate_every=1 << 30
    )
    metrics: dict[str, Metric] = {}
    for name in options.variants:
        method = trained(VARIANTS[name], train, config, options.runs / name.replace(" ", "-"))
        for form, values in scores(method, data).items():
            f1 = mean_interval(np.array(values))
            metrics[f"{name}: F1, {form}"] = Metric(f1.value, "percent", f1.low, f1.high)
            print(f"{name}: {form}: F1 {f1.value:.1f}", flush=True)
        write_measured(
            options.out,
            "search",
            metrics,
            data,
            method="strata",
            dtype=method.backbone.dtype,
            seed=options.seed,
        )


if __name__ == "__main__":
    main()
