"""What could be stored of a text instead of its words: states, chosen, pooled or coded.

The packaged strata adapter reads each form of the text that holds the answer; nothing is trained
for any of them but what the adapter was: all states of layer 12, 48 pooled ones and 16. Codebooks
are fitted on the pooled states of training texts and lie beside all banks, so their own bytes are
not counted. One record.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from math import ceil
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from latentbank.adapter import find_adapter, load_adapter
from latentbank.backbone.model import Backbone, load_backbone
from latentbank.backbone.prompts import passage_ids
from latentbank.bench.record import Metric
from latentbank.documents.document import Document
from latentbank.evaluate.data import load_dataset
from latentbank.evaluate.evaluation import ask_data
from latentbank.evaluate.metrics import mean_interval
from latentbank.methods.strata import Strata
from latentbank.model import MemoryModel
from measured import write_measured
from residual import ResidualCodec, fit_codebooks

CODES = 512  # codewords of a level
FITTED = 1500  # training texts, evenly spaced, that the codebooks are fitted on
Form = Callable[[str], tuple[Tensor, float]]  # of a text: states [M, D] without the start's, bytes


def text_states(method: Strata, text: str) -> tuple[Tensor, list[int]]:
    """(states [T, D] of a text's tokens as a passage, start token left out; their ids)."""
    ids, mask = method.backbone.pad(passage_ids(method.backbone, [text]))
    states = method.backbone.states(ids, mask, method.config.inject_from)[0, 1:].float()
    return states, ids[0].tolist()


def size(states: Tensor) -> float:
    """Bytes of states in float16."""
    return 2.0 * states.numel()


@torch.no_grad()
def surprises(method: Strata, ids: list[int]) -> Tensor:
    """Nats [T] of each token after the start, given those before."""
    row = torch.tensor([ids])
    hidden = method.backbone.session(1).feed(row, torch.ones_like(row, dtype=torch.bool))
    logits = method.backbone.logits(hidden[0, :-1]).float()
    return nn.functional.cross_entropy(logits, row[0, 1:], reduction="none")


def named(method: Strata, ids: list[int]) -> Tensor:
    """Whether each token [T] after the start is of a word that begins with a capital or a digit."""
    found: list[bool] = []
    inside = False
    for token in ids[1:]:
        piece = method.backbone.tokenizer.decode([token])
        if not piece[:1].isalnum() or not found:  # a word begins
            word = piece.strip()
            inside = word[:1].isupper() or word[:1].isdigit()
        found.append(inside or piece.strip()[:1].isdigit())
    return torch.tensor(found)


def every(method: Strata, text: str) -> tuple[Tensor, float]:
    """All states."""
    states, _ = text_states(method, text)
    return states, size(states)


def chosen(method: Strata, text: str, count: int, by: str) -> tuple[Tensor, float]:
    """`count` states in their order: the most surprising, those of names and numbers first (the
    more surprising before the others), or evenly spaced ones.
    """
    states, ids = text_states(method, text)
    if len(states) <= count:
        return states, size(states)
    if by == "even":
        place = torch.linspace(0, len(states) - 1, count).round().long()
    else:
        worth = surprises(method, ids)
        if by == "names":
            worth = worth + 1000.0 * named(method, ids)
        place = worth.topk(count).indices.sort().values
    return states[place], size(states[place])


@torch.no_grad()
def pooled(method: Strata, text: str, count: int) -> tuple[Tensor, float]:
    """`count` pooled states, in standardised units."""
    states, mask = method.standard_states([text])
    found, kept = method.pooler(states, mask, count)
    return found[0, kept[0]].float(), size(found[0, kept[0]])


def restored(method: Strata, text: str, count: int) -> tuple[Tensor, float]:
    """`count` pooled states in the backbone's units."""
    states, taken = pooled(method, text, count)
    return method.standard.restore(states), taken


def coded(
    method: Strata, text: str, count: int, codecs: Sequence[ResidualCodec], by_place: bool = False
) -> tuple[Tensor, float]:
    """`count` pooled states after codes: a codec for each part of a state's numbers (one: residual
    codes of the whole), or for each place in the text.
    """
    states = pooled(method, text, count)[0].numpy()
    if by_place:
        blocks = [states[at : at + 1] for at in range(len(states))]
    else:
        blocks = np.split(states, len(codecs), axis=1)
    found, bits = [], 0
    for codec, block in zip(codecs, blocks, strict=False):  # a short text has fewer places
        found.append(codec.decode(codec.encode(block), len(block)))
        bits += codec.levels * codec.bits * len(block)
    joined = torch.from_numpy(np.concatenate(found, axis=0 if by_place else 1))
    return method.standard.restore(joined), float(ceil(bits / 8))


def forms(
    method: Strata, train: Sequence[Document], options: argparse.Namespace
) -> dict[str, Form]:
    """Every form by its name; codebooks are fitted for those that `options.only` asks for."""
    found: dict[str, Form] = {"all states": partial(every, method)}
    for count in (48, 16):
        found[f"{count} pooled"] = partial(restored, method, count=count)
        for by, name in (("surprise", "most surprising"), ("names", "of names and numbers")):
            found[f"{count} {name}"] = partial(chosen, method, count=count, by=by)
        found[f"{count} evenly spaced"] = partial(chosen, method, count=count, by="even")
    if "codes" not in options.only:
        return found
    texts = [pooled(method, document.text, 48)[0].numpy() for document in train]
    latents = np.concatenate(texts)
    books = fit_codebooks(latents, max(options.levels), CODES)
    make = partial(partial, coded, method, count=48)
    for level in options.levels:
        found[f"48 pooled, {level} codes each"] = make(codecs=[ResidualCodec(books[:level])])
    for parts in options.parts:
        codecs = [
            ResidualCodec(fit_codebooks(block, 1, CODES))
            for block in np.split(latents, parts, axis=1)
        ]
        found[f"48 pooled, {parts} parts, a code each"] = make(codecs=codecs)
    for level in options.place_levels:
        places = (np.stack([one[at] for one in texts if len(one) > at]) for at in range(48))
        codecs = [ResidualCodec(fit_codebooks(rows, level, CODES)) for rows in places]
        name = f"48 pooled, {level} codes each by place"
        found[name] = make(codecs=codecs, by_place=True)
    return found


def with_start(method: Strata, states: dict[str, tuple[Tensor, float]], name: str) -> Tensor:
    """What the reader asks for: the states [M, D] of a document, the start token's first."""
    return torch.cat([method.reader.start_state, states[name][0]])


def packaged(
    backbone: Backbone, documents: dict[str, Document], changes: dict[str, object]
) -> Strata:
    """The packaged adapter with some settings changed, over a bank of documents."""
    method = load_adapter(find_adapter("strata-smollm2-135m"), backbone, changes)
    assert isinstance(method, Strata)
    MemoryModel(method).write(list(documents.values()))
    return method


def main() -> None:
    """Asks the same questions of every form and writes one record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="squad_v1.1", help="folder of SQuAD v1.1")
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument(
        "--only", nargs="+", default=["states", "codes"], choices=["states", "codes"]
    )
    parser.add_argument("--levels", type=int, nargs="*", default=[2, 8, 32], help="residual codes")
    parser.add_argument("--parts", type=int, nargs="*", default=[], help="product codes")
    parser.add_argument("--place-levels", type=int, nargs="*", default=[], help="codes by place")
    parser.add_argument("--layers", type=int, nargs="*", default=[0, 8, 16, 20])
    parser.add_argument("--out", type=Path, default=Path("results/search/states.json"))
    options = parser.parse_args()
    data = load_dataset(options.data, "val").sample_questions(options.questions, 0)
    asked = [data.documents[question.document] for question in data.questions]
    documents = {document.id: document for document in asked}
    train = load_dataset(options.data, "train").documents
    train = train[:: len(train) // FITTED][:FITTED]
    backbone = load_backbone("smollm2-135m")
    metrics: dict[str, Metric] = {}

    def ask(name: str, method: Strata, taken: list[float]) -> None:
        f1 = mean_interval(
            [100 * one for one in ask_data(MemoryModel(method, method.bank), data, gold=True).f1]
        )
        metrics[f"{name}: F1"] = Metric(f1.value, "percent", f1.low, f1.high)
        metrics[f"{name}: bytes"] = Metric(statistics.mean(taken), "bytes/document")
        print(f"{name}: {statistics.mean(taken):,.0f} bytes, F1 {f1.value:.1f}", flush=True)

    for layer in options.layers:
        method = packaged(backbone, documents, {"inject_from": layer})
        taken = [every(method, document.text)[1] for document in documents.values()]
        ask(f"all states of layer {layer}", method, taken)
    method = packaged(backbone, documents, {})
    for name, form in forms(method, train, options).items():
        if ("codes" if "code" in name else "states") not in options.only:
            continue
        states = {d.id: form(d.text) for d in documents.values()}
        method.reader.hot.clear()
        method._states = partial(with_start, method, states)  # type: ignore[method-assign]
        ask(name, method, [size for _, size in states.values()])
    write_measured(options.out, "states", metrics, data, method="strata", dtype=backbone.dtype)


if __name__ == "__main__":
    main()
