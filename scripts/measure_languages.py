"""The right text first, in twelve languages: 100 invented texts and one question for each.

All 1,200 texts lie in one word index, so that languages meet. Texts and questions are in
tests/data/languages.json: ten places in each language, and ten facts about each of them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from latentbank.bench.record import Metric
from latentbank.documents.document import Document
from latentbank.evaluate.data import QADataset, Question
from latentbank.parts.retrieval.lexical import LexicalIndex
from measured import write_measured

DATA = Path(__file__).parent.parent / "tests" / "data" / "languages.json"


def load(path: Path = DATA) -> dict[str, list[tuple[str, str]]]:
    """Language → (text, question) of each of its facts."""
    return {
        language: [
            (text.format(name=name), question.format(name=name))
            for text, question in given["texts"]
            for name in given["names"]
        ]
        for language, given in json.loads(path.read_text("utf-8")).items()
    }


def right_first(pairs: dict[str, list[tuple[str, str]]], small: bool) -> dict[str, float]:
    """Language → percent of its questions whose text comes first; `small`: it has its own index."""
    whole = LexicalIndex()
    for language, given in pairs.items():
        whole.add([f"{language} {i}" for i in range(len(given))], [text for text, _ in given])
    shares = {}
    for language, given in pairs.items():
        index = whole
        if small:
            index = LexicalIndex()
            index.add([f"{language} {i}" for i in range(len(given))], [text for text, _ in given])
        found = [index.search(question, 1) for _, question in given]
        hits = sum(bool(r) and r[0][0] == f"{language} {i}" for i, r in enumerate(found))
        shares[language] = 100 * hits / len(given)
    return shares


def main() -> None:
    """Measures and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/retrieval/languages.json"))
    options = parser.parse_args()
    pairs = load()
    metrics = {}
    for label, small in (("of 1,200 texts", False), ("of its own 100 texts", True)):
        for language, share in right_first(pairs, small).items():
            metrics[f"{language}, {label}"] = Metric(share, "percent")
            print(f"{language:10} {label:24} {share:5.1f} %")
    rows = [(text, question) for given in pairs.values() for text, question in given]
    data = QADataset(
        "languages",
        tuple(Document(text) for text, _ in rows),
        tuple(Question(str(i), question, ("",), i) for i, (_, question) in enumerate(rows)),
    )
    write_measured(options.out, "languages", metrics, data, method="lexical")


if __name__ == "__main__":
    main()
