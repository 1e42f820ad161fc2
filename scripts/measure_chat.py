"""Conversations on the packaged model: history, whole sentences, summaries, two facts.

Each part is one call and one record in results/chat/:

    python scripts/measure_chat.py history
    python scripts/measure_chat.py sentences --questions 200
    python scripts/measure_chat.py summaries --entities 50
    python scripts/measure_chat.py babi --data path/to/babi/en --questions 100
    python scripts/measure_chat.py several --questions 300

A fact of a document is a name or a number in it. A summary mentions those that its text holds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from latentbank.answering import Answer
from latentbank.answering.chat import Chat
from latentbank.answering.chat.messages import as_messages, names, resolved
from latentbank.answering.chat.sentences import is_whole, normal_words
from latentbank.bench.record import DataInfo, Metric
from latentbank.documents.document import Document
from latentbank.documents.identity import content_hash
from latentbank.evaluate.data import load_sample
from latentbank.evaluate.metrics import f1, mean_interval, normalize_answer, paired_bootstrap
from latentbank.model import MemoryModel
from measured import write_measured

HISTORY = Path(__file__).parent.parent / "tests" / "data" / "history.json"
OUT = Path("results/chat")


def share(values: list[float]) -> Metric:
    """A mean in percent with its 95 % interval."""
    found = mean_interval(np.array(values, float))
    return Metric(100 * found.value, "percent", 100 * found.low, 100 * found.high)


def show(metrics: dict[str, Metric]) -> None:
    """Prints what was measured."""
    for name, one in metrics.items():
        print(f"{name}: {one.value:.2f} {one.unit}", flush=True)


def opened(adapter: str = "strata") -> MemoryModel:
    """The packaged model as the commands run it."""
    return MemoryModel.from_pretrained(adapter, quick=True, engine="auto")


def holds(text: str, answers: tuple[str, ...]) -> bool:
    """Whether a text contains one of the answers, as SQuAD normalises both."""
    said = f" {normalize_answer(text)} "
    return any(f" {normalize_answer(one)} " in said for one in answers if normalize_answer(one))


# ---- history


def history(options: argparse.Namespace) -> None:
    """Whether the right document is first: by the question alone, all turns, and resolved."""
    text = HISTORY.read_text(encoding="utf-8")
    data = json.loads(text)
    found: dict[str, list[float]] = {"alone": [], "all turns": [], "resolved": []}
    with opened("rag") as model:
        model.write([Document(text, id=id) for id, text in data["documents"].items()])
        retriever = model.method.retriever  # type: ignore[attr-defined]
        for row in data["conversations"]:
            roles = itertools.cycle(("user", "assistant"))
            turns = [
                {"role": role, "content": said}
                for role, said in zip(roles, row["before"], strict=False)
            ]
            turns.append({"role": "user", "content": row["question"]})
            queries = {
                "alone": row["question"],
                "all turns": " ".join(turn["content"] for turn in turns),
                "resolved": resolved(as_messages(turns)).query,
            }
            for name, query in queries.items():
                first = retriever.rank([query], 1)[0]
                right = bool(first) and first[0][0] == row["document"]
                found[name].append(float(right))
                if options.verbose and name == "resolved" and not right:
                    print(row["question"], "|", query, "|", first)
    metrics = {f"right document first, {name}": share(row) for name, row in found.items()}
    metrics["conversations"] = Metric(len(data["conversations"]), "conversations")
    show(metrics)
    about = DataInfo("history", content_hash(text))
    write_measured(OUT / "history.json", "history", metrics, about, method="rag")


# ---- whole sentences


def sentences(options: argparse.Namespace) -> None:
    """Short answers and sentences to the same questions on the sample's paragraphs."""
    data = load_sample()
    asked = data.sample_questions(options.questions, options.seed).questions
    whole, contains, short = [], [], []
    with opened() as model:
        model.write(data.documents)
        chat = Chat(model.method)
        best, told = chat._best, []

        def noted(*given: Any) -> Answer:
            told.append(best(*given))
            return told[-1]

        chat._best = noted  # type: ignore[method-assign]
        model._conversation = chat  # the short answers are those that the sentences are made of
        began = time.perf_counter()
        for one in asked:
            said = model.chat(one.text, style="sentence").text
            short.append(float(holds(told[-1].text, one.answers)))
            whole.append(float(is_whole(said)))
            contains.append(float(holds(said, one.answers)))
            if options.verbose and not whole[-1]:
                print(one.text, "|", said, "|", one.answers)
        took = (time.perf_counter() - began) / len(asked)
    metrics = {
        "one whole sentence": share(whole),
        "sentence contains the answer": share(contains),
        "short answer contains the answer": share(short),
        "contains, sentence over short": Metric(float(np.mean(contains) / np.mean(short)), "ratio"),
        "seconds a sentence": Metric(took, "s"),
        "questions": Metric(len(asked), "questions"),
    }
    show(metrics)
    write_measured(
        OUT / "sentences.json", "sentences", metrics, data, method="strata", seed=options.seed
    )


# ---- summaries


def subjects(documents: list[Document], count: int, seed: int) -> list[tuple[str, int]]:
    """(name, document): names that stand twice or more in one document and in no other."""
    held = [Counter(names(document.text)) for document in documents]
    everywhere = Counter(name for row in held for name in row)
    found = []
    for place, row in enumerate(held):
        own = [name for name in row if everywhere[name] == 1 and not name[0].isdigit()]
        own = [
            name
            for name in own
            if documents[place].text.count(name) >= 2 and len(name) > 3
            and sum(name in document.text for document in documents) == 1
        ]  # fmt: skip
        if own:
            found.append((max(own, key=lambda name: documents[place].text.count(name)), place))
    return random.Random(seed).sample(found, min(count, len(found)))


def mentioned(summary: str, text: str, subject: str) -> int:
    """How many facts of a text a summary mentions: its names and numbers, the subject's aside."""
    said = f" {' '.join(normal_words(summary))} "
    own = set(normal_words(subject))
    facts = {" ".join(normal_words(name)) for name in names(text)}
    return sum(f" {one} " in said for one in facts if one and not set(one.split()) <= own)


def summaries(options: argparse.Namespace) -> None:
    """Two sentences about each of some names; how many facts of the right document they hold."""
    data = load_sample()
    facts, right, seconds = [], [], []
    with opened() as model:
        model.write(data.documents)
        for subject, place in subjects(list(data.documents), options.entities, options.seed):
            answer = model.chat(f"Summarise what you know about {subject} in two sentences.")
            document = data.documents[place]
            right.append(float(document.id in [one.id for one in answer.citations]))
            facts.append(mentioned(answer.text, document.text, subject))
            seconds.append(answer.seconds)
            if options.verbose:
                print(subject, "|", facts[-1], right[-1], "|", answer.text, flush=True)
    metrics = {
        "two facts or more": share([float(one >= 2) for one in facts]),
        "facts mentioned": Metric(float(np.mean(facts)), "facts"),
        "right document read": share(right),
        "seconds a summary": Metric(float(np.mean(seconds)), "s"),
        "entities": Metric(len(facts), "entities"),
    }
    show(metrics)
    write_measured(
        OUT / "summaries.json", "summaries", metrics, data, method="strata", seed=options.seed
    )


# ---- several documents where one holds the answer


def several(options: argparse.Namespace) -> None:
    """F1 of short answers when a conversation may read one document, and three."""
    data = load_sample()
    asked = data.sample_questions(options.questions, options.seed).questions
    found: dict[int, list[float]] = {1: [], 3: []}
    with opened() as model:
        model.write(data.documents)
        for one in asked:
            for count, row in found.items():
                said = model.chat(one.text, style="short", read_documents=count)
                row.append(100 * f1(said.text, one.answers))
    first, third = found.values()
    gain = paired_bootstrap(third, first)
    metrics = {
        **{
            f"F1, reading {count}": Metric(float(np.mean(r)), "percent")
            for count, r in found.items()
        },
        "three over one": Metric(gain.difference, "percent points", gain.low, gain.high),
        "questions": Metric(len(asked), "questions"),
    }
    show(metrics)
    write_measured(
        OUT / "several.json", "several", metrics, data, method="strata", seed=options.seed
    )


# ---- two facts


def stories(file: Path) -> Iterator[tuple[list[str], str, str]]:
    """(facts so far, question, answer) of the last question of each story of a bAbI file."""
    facts: list[str] = []
    last: tuple[list[str], str, str] | None = None
    for line in file.read_text(encoding="utf-8").splitlines():
        number, _, rest = line.partition(" ")
        if number == "1":
            if last is not None:
                yield last
            facts, last = [], None
        if "\t" in rest:
            question, answer = rest.split("\t")[:2]
            last = (list(facts), question.strip(), answer.strip())
        else:
            facts.append(rest.strip())
    if last is not None:
        yield last


def babi(options: argparse.Namespace) -> None:
    """bAbI 2, each fact a document of its own: reading one, and reading several together."""
    [file] = sorted(Path(options.data).rglob("qa2_*test.txt"))[:1]
    rows = list(itertools.islice(stories(file), options.questions))
    scores: dict[str, list[float]] = {"one document": [], "several documents": []}
    start = datetime(2024, 1, 1)
    with opened() as model:
        for facts, question, answer in rows:
            documents = [
                Document(fact, id=f"{i}", time=start + timedelta(hours=i))
                for i, fact in enumerate(facts)
            ]
            model.write(documents)
            one = model.ask(question)
            several = model.chat(question, style="short", read_documents=options.read_documents)
            scores["one document"].append(float(holds(one.text, (answer,))))
            scores["several documents"].append(float(holds(several.text, (answer,))))
            if options.verbose:
                print(question, answer, "|", one.text, "|", several.text,
                      [one.snippet for one in several.citations], flush=True)  # fmt: skip
            model.delete([document.id for document in documents])
    one, several = (float(np.mean(row)) for row in scores.values())
    metrics = {f"right, {name}": share(row) for name, row in scores.items()}
    if one:
        metrics["several over one"] = Metric(several / one, "ratio")
    metrics["questions"] = Metric(len(rows), "questions")
    show(metrics)
    about = DataInfo("babi-2", content_hash(file.read_text(encoding="utf-8")))
    config = {"read_documents": options.read_documents}
    write_measured(OUT / "babi.json", "babi", metrics, about, method="strata", config=config)


def main() -> None:
    """One part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("--data", help="the folder of bAbI's English files")
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--entities", type=int, default=50)
    parser.add_argument("--read-documents", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    PARTS[options.part](options)


PARTS = {one.__name__: one for one in (history, sentences, summaries, several, babi)}


if __name__ == "__main__":
    main()
