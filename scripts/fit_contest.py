"""How the candidates of a question should compete: what each rule would have answered.

Every candidate of every question is read and answered once, and the closed book beside them:
retrieval's weight, the question's gain in nats, how sure the first token and the whole answer are,
and F1. Rules are then compared on these rows without running the model again.

    python scripts/fit_contest.py --data FOLDER --split val --questions 500
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from latentbank.answering.asking import ANSWERS
from latentbank.answering.reading import Reading
from latentbank.bench.record import Metric
from latentbank.evaluate.data import QADataset, Question, load_dataset
from latentbank.evaluate.metrics import f1, mean_interval
from latentbank.model import MemoryModel
from measured import write_measured

TOGETHER = 16
SURE = ("first", "answer")  # what the weight is multiplied by: the first token, the whole answer
Row = dict[str, Any]
Rule = Callable[[Row], float]


def collect(data: QADataset, options: argparse.Namespace) -> list[list[Row]]:
    """The candidates of each question, the closed book last."""
    found: list[list[Row]] = []
    budget = options.budget * len(data.documents) or None
    with MemoryModel.from_pretrained(
        options.adapter, quick=True, engine=options.engine, budget_bytes=budget
    ) as model:
        model.write(data.documents)
        asked = data.sample_questions(options.questions, 1).questions
        names = [document.id for document in data.documents]
        for at in range(0, len(asked), TOGETHER):
            part = asked[at : at + TOGETHER]
            found += _part(model.method, part, [names[q.document] for q in part])
            print(len(found), "questions", flush=True)
    return found


def _part(method: Any, asked: tuple[Question, ...], gold: list[str]) -> list[list[Row]]:
    texts = [q.text for q in asked]
    candidates = method.candidates(texts)
    closed = Reading(method, texts, method.closed_book(), ANSWERS)
    with closed.attached():
        closed.run()
        plain = closed.likelihoods()
        last = _rows(closed, asked, plain, [(None, 0.0)] * len(texts))
    rows: list[list[Row]] = [[] for _ in texts]
    for rank in range(max(map(len, candidates))):
        places = [i for i, row in enumerate(candidates) if len(row) > rank and row[rank].document]
        if not places:
            continue
        chosen = [candidates[i][rank] for i in places]
        questions = [texts[i] for i in places]
        reading = Reading(
            method, questions, method.read(questions, [one.document for one in chosen]), ANSWERS
        )
        with reading.attached():
            reading.run()
            made = _rows(
                reading,
                [asked[i] for i in places],
                [plain[i] for i in places],
                [(one.document, one.weight) for one in chosen],
            )
        for i, one in zip(places, made, strict=True):
            rows[i].append({**one, "rank": rank, "gold": one["document"] == gold[i]})
    for row, one in zip(rows, last, strict=True):
        row.append({**one, "rank": -1, "gold": False, "gain": 0.0})
    return rows


def _rows(
    reading: Reading, asked: Any, plain: list[float], named: list[tuple[str | None, float]]
) -> list[Row]:
    gains = [a - b for a, b in zip(reading.likelihoods(), plain, strict=True)]
    first = reading.first_token_probabilities()
    answers = reading.answers(range(len(asked)))
    return [
        {
            "document": document,
            "weight": weight,
            "gain": gain,
            "first": sure,
            "answer": answer.confidence,
            "words": len(answer.text.split()),
            "f1": f1(answer.text, question.answers),
        }
        for (document, weight), gain, sure, answer, question in zip(
            named, gains, first, answers, asked, strict=True
        )
    ]


def sigmoid(x: float) -> float:
    """σ(x)."""
    return float(0.5 + 0.5 * np.tanh(x / 2))


def rules() -> dict[str, Rule]:
    """Scores of a candidate by name; the largest of a question wins."""
    found: dict[str, Rule] = {
        "first of retrieval": lambda r: -r["rank"] if r["rank"] >= 0 else -9.0,
    }
    halves = (-10.0, -5.0, 0.0, 5.0, 10.0, 15.0, 20.0)
    gains = [(0.0, 0.0), *itertools.product(halves, (2.5, 5.0, 10.0))]
    for sure, (half, scale), closed in itertools.product(SURE, gains, (0.0, 0.05, 0.1, 0.2, 0.4)):
        name = f"gain {half:g}/{scale:g}" if scale else "no gain"
        found[f"{sure}, {name}, closed book {closed:g}"] = _rule(sure, half, scale, closed)
    return found


def _rule(sure: str, half: float, scale: float, closed: float) -> Rule:
    def score(row: Row) -> float:
        if row["rank"] < 0:
            return closed * float(row[sure])
        factor = sigmoid((row["gain"] - half) / scale) if scale else 1.0
        return float(row["weight"] * factor * row[sure])

    return score


def scores(found: list[list[Row]], rule: Rule) -> np.ndarray:
    """F1 of each question's winner."""
    return np.array([max(row, key=rule)["f1"] for row in found])


def main() -> None:
    """Collects the rows, or takes those that are there, and compares the rules."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--adapter", default="strata-smollm2-135m")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--budget", type=int, default=0, help="bytes per document; 0: no limit")
    parser.add_argument("--rows", type=Path, default=Path("runs/contest.jsonl"))
    parser.add_argument("--out", type=Path, default=Path("results/retrieval/contest.json"))
    options = parser.parse_args()
    data = load_dataset(options.data, options.split)
    if options.rows.exists():
        found = [json.loads(line) for line in options.rows.read_text().splitlines()]
    else:
        found = collect(data, options)
        options.rows.parent.mkdir(parents=True, exist_ok=True)
        options.rows.write_text("\n".join(json.dumps(row) for row in found) + "\n")
    table = {name: scores(found, rule) for name, rule in rules().items()}
    best = np.array([max(one["f1"] for one in row) for row in found])
    metrics = {"best candidate of each question": _percent(best.mean())}
    base = table["first of retrieval"]
    for name, row in sorted(table.items(), key=lambda pair: -pair[1].mean()):
        less = mean_interval(row - base)
        metrics[name] = _percent(row.mean())
        print(
            f"{100 * row.mean():.2f}  {name}  against the first: {100 * less.value:+.2f} "
            f"[{100 * less.low:.2f}, {100 * less.high:.2f}]"
        )
    print(f"{100 * best.mean():.2f}  best candidate; first right in "
          f"{100 * np.mean([row[0]['gold'] for row in found]):.1f} %")  # fmt: skip
    metrics["questions"] = Metric(len(found), "questions")
    method = options.adapter.partition("-")[0]  # packaged adapters begin with their method
    write_measured(options.out, "contest-rules", metrics, data, method=method, seed=1)


def _percent(value: float) -> Metric:
    return Metric(100 * float(value), "percent")


if __name__ == "__main__":
    main()
