"""Times `mbc` at the papers' own shapes: DistilGPT2 read by T5-small, random weights, float32.

The models are made from their configurations, so nothing is downloaded. Each of the two tokenizers
is a byte-level BPE trained on the documents. With random weights no answer ends early: each takes
all of its 16 tokens. Two things are timed in turn with the way it was done before: writing beside
T5's own padded forward pass, and the first question beside a projection of every stored code.
Times are wall times, and processor times of the whole process beside them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5Model,
)

from latentbank.adapter import build_method
from latentbank.backbone.generate import DecodingConfig
from latentbank.backbone.model import Backbone
from latentbank.backbone.processor import flushed_denormals
from latentbank.bench.record import Metric
from latentbank.evaluate.data import QADataset, load_dataset
from latentbank.model import MemoryModel, new_bank
from latentbank.parts.amortised.t5 import T5Amortiser
from measured import write_measured

GPT2 = {"n_layer": 6}  # DistilGPT2; all else as in GPT-2
T5_SMALL = {
    "vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8,
    "decoder_start_token_id": 0,
}  # fmt: skip
GREEDY = DecodingConfig(max_new_tokens=16)
BEAMS = DecodingConfig(max_new_tokens=16, beams=12, groups=4, diversity=10.0)
WORDS = 16_000  # of the tokenizers: the documents have about as many tokens as with the real ones
BLOCK = 32  # documents that are written together


class Clock:
    """Wall and processor seconds of repeated calls, by name."""

    def __init__(self) -> None:
        self.wall: dict[str, list[float]] = {}
        self.cpu: dict[str, list[float]] = {}

    def time(self, name: str, call: Callable[[], object]) -> None:
        """Runs `call` once."""
        wall, cpu = time.perf_counter(), time.process_time()
        call()
        self.wall.setdefault(name, []).append(time.perf_counter() - wall)
        self.cpu.setdefault(name, []).append(time.process_time() - cpu)

    def ratio(self, name: str, other: str) -> float:
        """Median of the processor seconds of `name` over those of `other`, pair by pair."""
        pairs = zip(self.cpu[name], self.cpu[other], strict=True)
        return statistics.median(one / two for one, two in pairs)

    def metrics(self) -> dict[str, Metric]:
        """The medians of all names."""
        found = {}
        for name, times in self.wall.items():
            found[name] = Metric(statistics.median(times), "s")
            found[f"{name}, processor"] = Metric(statistics.median(self.cpu[name]), "s")
        return found


def tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE of `texts`."""
    made = ByteLevelBPETokenizer()
    made.train_from_iterator(texts, WORDS, special_tokens=["<pad>", "<s>", "</s>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=made._tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def models(texts: Sequence[str], folder: Path) -> Backbone:
    """DistilGPT2's shape as a backbone; T5-small's is saved in `folder`."""
    torch.manual_seed(0)
    words = tokenizer(texts)
    T5Model(T5Config(**T5_SMALL)).save_pretrained(folder)
    words.save_pretrained(folder)
    model = GPT2LMHeadModel(GPT2Config(**GPT2, bos_token_id=1, eos_token_id=2, pad_token_id=0))
    return Backbone(model, words, "distilgpt2-random")


def make_method(backbone: Backbone, t5: Path, form: str) -> Any:
    """`mbc` with the papers' preset."""
    config = {"t5": str(t5), "question_t5": str(t5), "form": form}
    method: Any = build_method("mbc", backbone, config, preset="distilgpt2")
    method.train(False)
    return method


@contextmanager
def padded() -> Iterator[None]:
    """Inside the block T5 runs its own forward pass over padded texts."""
    packed = T5Amortiser.forward

    def forward(self: T5Amortiser, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        latents: torch.Tensor = self.heads(self._padded(ids, mask))
        return latents

    T5Amortiser.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        T5Amortiser.forward = packed  # type: ignore[method-assign]


def time_writing(method: Any, texts: Sequence[str], blocks: int, clock: Clock) -> None:
    """Blocks of documents, packed and padded in turn; both must give the same latents."""
    for at in range(0, blocks * BLOCK, BLOCK):
        block, found = texts[at : at + BLOCK], []

        def encode(block: Sequence[str] = block, found: list[Any] = found) -> None:
            found.append(method.amortise_all(block))

        clock.time("writing, 32 documents", encode)
        with padded():
            clock.time("writing, 32 documents, padded", encode)
        torch.testing.assert_close(*found, rtol=1e-3, atol=1e-3)


def time_questions(
    model: MemoryModel, name: str, asked: Sequence[str], opened: Callable[[], None], clock: Clock
) -> None:
    """The first question after opening, then a greedy answer, twelve beams and reading alone."""
    method: Any = model.method
    for question in asked:
        opened()
        clock.time(f"{name}: first question", lambda q=question: method.read([q]))
        clock.time(f"{name}: greedy answer", lambda q=question: model.ask(q, GREEDY))
        clock.time(f"{name}: 12 beams", lambda q=question: model.ask(q, BEAMS))
        clock.time(f"{name}: reading", lambda q=question: method.read([q]))


def time_every_code(method: Any, asked: Sequence[str], clock: Clock) -> None:
    """The first question with a slot for every code: projection and attention."""
    slots = method.codewords.all.float()[method._codes]
    for question in asked:

        @torch.no_grad()
        def read(question: str = question) -> None:
            latents = method.amortise([question], "questions")
            method.aggregator.attend(latents, method.aggregator.project(slots[None]), None)

        clock.time("indices: first question, a slot for every code", read)


def measure(options: argparse.Namespace, data: QADataset, folder: Path) -> dict[str, Metric]:
    """All figures; models, tokenizers and the bank are in `folder`."""
    texts = [document.text for document in data.documents]
    asked = [q.text for q in data.sample_questions(options.questions, 0).questions]
    clock, backbone = Clock(), models(texts, folder)
    method = make_method(backbone, folder, "indices")
    method.prepare(data.documents[:: max(1, len(texts) // 96)])  # the codebook's start
    time_writing(method, texts, options.blocks, clock)
    bank = new_bank(folder / "papers.bank", method)
    model = MemoryModel(method, bank)
    clock.time("writing, all documents", lambda: model.write(data.documents))
    model.ask(asked[0], GREEDY)  # warm
    time_questions(model, "indices", asked, lambda: method.bind(bank), clock)
    time_every_code(method, asked, clock)
    counted = make_method(backbone, folder, "histogram")
    counted.load_state(method.state())
    other = MemoryModel(counted)
    counted.take_codes(method._codes)
    time_questions(other, "histogram", asked, counted._refresh, clock)
    bank.close()
    tokens = sum(map(len, backbone.encode(texts, start=False)))
    parameters = sum(p.numel() for p in method.trainable().values())
    first = "indices: first question"
    return {
        "documents": Metric(float(len(texts)), "documents"),
        "codewords in use": Metric(float(len(method.slots)), "codewords"),
        "tokens of a document": Metric(tokens / len(texts), "tokens"),
        "trained parameters": Metric(parameters / 1e6, "million"),
        **clock.metrics(),
        "writing": Metric(clock.wall["writing, all documents"][0] / len(texts), "s/document"),
        "writing over padded": Metric(
            clock.ratio("writing, 32 documents", "writing, 32 documents, padded"), "ratio"
        ),
        "first question over a slot for every code": Metric(
            clock.ratio(first, f"{first}, a slot for every code"), "ratio"
        ),
    }


def main() -> None:
    """Measures and writes one record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--squad", required=True, help="folder with dev-v1.1.json")
    parser.add_argument("--out", type=Path, required=True, help="the record to write")
    parser.add_argument("--documents", type=int, default=1665)
    parser.add_argument("--questions", type=int, default=12)
    parser.add_argument("--blocks", type=int, default=6, help="of 32 documents, written both ways")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = load_dataset(options.squad, "test-online").take(options.documents)
    with tempfile.TemporaryDirectory() as folder, flushed_denormals():
        metrics = measure(options, data, Path(folder))
    for name, metric in metrics.items():
        print(f"{name}: {metric.value:.4g} {metric.unit}")
    write_measured(
        options.out,
        "papers' shapes",
        metrics,
        data,
        method="mbc",
        dtype="float32",
        config={"threads": options.threads, "backbone": "distilgpt2", "t5": "t5-small"},
    )


if __name__ == "__main__":
    main()
