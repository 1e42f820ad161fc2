"""Which note a small collection reads: without background frequencies, with them, and reranked.

Two collections: the notes of tests/data/notes.json, each asked in its own words and in others, and
paragraphs of a SQuAD split with the gold paragraph among them or taken out. Retrieval only; no
model runs.
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from latentbank.bench.record import DataInfo, Metric, new_record, write_record
from latentbank.evaluate.data import QADataset, load_dataset
from latentbank.parts.retrieval.background import background_share
from latentbank.parts.retrieval.lexical import LexicalIndex, Ranking
from latentbank.parts.retrieval.retriever import RetrievalConfig, Retriever
from latentbank.parts.retrieval.versions import content

TOP = RetrievalConfig().candidates
LEAST = RetrievalConfig().least_match
KINDS = PLAIN, BACKGROUND, RERANKED = "without", "with background", "reranked"


class Reranked:
    """A retriever with the interface of a `LexicalIndex`."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._made = Retriever(
            RetrievalConfig(),
            lambda id: content(texts[id]),
            int,
            lambda ids: [texts[id] for id in ids],
        )
        self._made.add_texts(list(texts), list(texts.values()))

    def search(self, question: str, top: int) -> Ranking:
        """The `top` texts, best first."""
        return self._made.rank([question], top)[0]

    def matches(self, question: str, ids: Sequence[str]) -> list[float]:
        """The share of the question that each text holds."""
        return self._made.matches([question], [ids])[0]

    def remove(self, ids: Sequence[str]) -> None:
        """Removes texts."""
        self._made.remove(ids)


Index = LexicalIndex | Reranked


def first_read(words: Index, question: str) -> str | None:
    """The document ranked first, or None where none matches enough to be read."""
    found = [name for name, _ in words.search(question, TOP)]
    return found[0] if max(words.matches(question, found), default=0.0) >= LEAST else None


def index(texts: Sequence[str], kind: str) -> Index:
    """An index of texts under their numbers."""
    named = {str(i): text for i, text in enumerate(texts)}
    if kind == RERANKED:
        return Reranked(named)
    words = LexicalIndex(background_share if kind == BACKGROUND else None)
    words.add(list(named), list(named.values()))
    return words


def notes_figures(path: Path, kind: str) -> Iterator[tuple[str, float]]:
    """Percent of the notes' questions, of their paraphrases and of foreign ones."""
    data = json.loads(path.read_text("utf-8"))
    words = index([note["text"] for note in data["notes"]], kind)
    for kind in ("questions", "paraphrases"):
        asked = [(str(i), q) for i, note in enumerate(data["notes"]) for q in note[kind]]
        right = sum(first_read(words, question) == name for name, question in asked)
        yield f"notes: {kind} that read their note", 100 * right / len(asked)
    foreign = sum(first_read(words, question) is not None for question in data["foreign"])
    yield "notes: foreign questions that read a note", 100 * foreign / len(data["foreign"])


def squad_figures(
    data: QADataset, size: int, questions: int, seed: int, kind: str
) -> Iterator[tuple[str, float]]:
    """Percent of the first questions; `size` paragraphs are in the collection."""
    draw, asked = random.Random(seed), data.questions[:questions]
    first = without = nothing = 0
    for question in asked:
        others = [i for i in range(len(data.documents)) if i != question.document]
        chosen = draw.sample(others, size - 1)
        texts = [data.documents[i].text for i in (question.document, *chosen)]
        words = index(texts, kind)
        found = words.search(question.text, 1)
        first += bool(found) and found[0][0] == "0"
        nothing += first_read(words, question.text) is None
        words.remove(["0"])
        without += first_read(words, question.text) is None
    total = len(asked) / 100
    yield f"SQuAD, {size} paragraphs: gold ranked first", first / total
    yield f"SQuAD, {size} paragraphs: nothing read with gold", nothing / total
    yield f"SQuAD, {size} paragraphs: nothing read without gold", without / total


def main() -> None:
    """Measures, prints and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--notes", type=Path, default=Path("tests/data/notes.json"))
    parser.add_argument("--squad", required=True, help="folder with train-v1.1.json")
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 60])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("results/retrieval/small.json"))
    options = parser.parse_args()
    data = load_dataset(options.squad, "val")
    figures = {}
    for kind in KINDS:
        found = list(notes_figures(options.notes, kind))
        for size in options.sizes:
            found += squad_figures(data, size, options.questions, options.seed, kind)
        figures |= {f"{name}, {kind}": Metric(value, "%") for name, value in found}
    for name, metric in figures.items():
        print(f"{metric.value:6.1f} % {name}")
    command = shlex.join(["python", "scripts/measure_paraphrases.py", *sys.argv[1:]])
    record = new_record(
        task="small-collections",
        method="lexical",
        command=command.replace(options.squad, Path(options.squad).name),
        seed=options.seed,
        data=DataInfo("squad_v1.1:val", data.hash),
        dtype="",
        metrics=figures,
    )
    write_record(record, options.out)


if __name__ == "__main__":
    main()
