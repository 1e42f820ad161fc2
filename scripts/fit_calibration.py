"""Fits what a confidence is worth for an adapter, and measures it on other questions.

Half of the documents is written, and questions about both halves are asked, as `ask` does. The fit
goes beside the adapter (calibration.json); the measurement, on data that the fit has not seen, into
results/chat/calibration.json.

    python scripts/fit_calibration.py fit --data path/to/squad_v1.1 --split val
    python scripts/fit_calibration.py measure --data path/to/squad_v1.1 --split test
"""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from latentbank.adapter import find_adapter
from latentbank.answering.asking import QUALITY
from latentbank.bench.record import Metric, code_revision
from latentbank.evaluate.calibration import expected_calibration_error, fit_calibration
from latentbank.evaluate.data import QADataset, load_dataset
from latentbank.evaluate.metrics import exact_match
from latentbank.model import MemoryModel
from measured import command_line, write_measured

RATE = 0.05  # of false answers that is reported


@dataclass(frozen=True)
class Asked:
    """Confidences [N], whether each answer is right, whether the bank holds its document."""

    confidence: list[float]
    correct: list[float]
    answerable: list[bool]


def ask_both_halves(data: QADataset, adapter: str, questions: int, seed: int) -> Asked:
    """Writes half of the documents; asks `questions` about each half."""
    draw = random.Random(seed)
    count = len(data.documents)
    written = set(draw.sample(range(count), count // 2))
    halves = [
        [one for one in data.questions if (one.document in written) is answerable]
        for answerable in (True, False)
    ]
    rows = [(one, i == 0) for i, half in enumerate(halves) for one in draw.sample(half, questions)]
    with MemoryModel.from_pretrained(adapter, quick=True, engine="auto") as model:
        model.write([data.documents[i] for i in sorted(written)])
        answers = model.ask_many([one.text for one, _ in rows])
    correct = [
        exact_match(a.text, one.answers) if held else 0.0
        for a, (one, held) in zip(answers, rows, strict=True)
    ]
    return Asked([one.confidence for one in answers], correct, [held for _, held in rows])


def main() -> None:
    """Fits, or measures what was fitted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["fit", "measure"])
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", required=True)
    parser.add_argument("--adapter", default="strata-smollm2-135m")
    parser.add_argument("--documents", type=int, default=1170, help="the first of the split")
    parser.add_argument("--questions", type=int, default=700, help="about each half")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/chat/calibration.json"))
    options = parser.parse_args()
    data = load_dataset(options.data, options.split)
    if len(data.documents) > options.documents:
        data = data.take(options.documents)
    found = ask_both_halves(data, options.adapter, options.questions, options.seed)
    folder = find_adapter(options.adapter)
    if options.what == "fit":
        about = {
            "data": data.name,
            "hash": data.hash,
            "documents": len(data.documents),
            "questions": len(found.correct),
            "right": "exact match (SQuAD)",
            "seed": options.seed,
            "code": code_revision(),
        }
        fitted = fit_calibration(
            found.confidence, found.correct, found.answerable, fitted_on=about, quality=QUALITY
        )
        fitted.save(folder)
        print(fitted)
        return
    with MemoryModel.from_pretrained(options.adapter, quick=True) as model:
        calibration = model.method.calibration
    assert calibration is not None, "fit it first"
    sure, right = np.array(found.confidence), np.array(found.correct)
    known = np.array(found.answerable)
    probability = [calibration.of(one) for one in found.confidence]
    answered = sure >= calibration.threshold(RATE)
    exactly = sure > np.quantile(sure[~known], 1 - RATE)  # where the share of these is RATE
    metrics = {
        "expected_calibration_error": expected_calibration_error(probability, right),
        "expected_calibration_error_uncalibrated": expected_calibration_error(sure, right),
        "expected_calibration_error_answerable": expected_calibration_error(
            np.array(probability)[known], right[known]
        ),
        "false_answers_percent": 100 * answered[~known].mean(),
        "right_without_abstention_percent": 100 * right[known].mean(),
        "right_with_abstention_percent": 100 * (right * answered)[known].mean(),
        "right_still_answered_percent": 100 * (right * answered).sum() / right.sum(),
        "right_still_answered_at_the_rate_percent": 100 * (right * exactly).sum() / right.sum(),
        "answered_wrongly_percent_of_answered": 100 * (1 - right[answered].mean()),
        "questions": len(right),
    }
    for name, value in metrics.items():
        print(f"{name}: {value:.4f}")
    units = {"questions": "questions"}
    kept = {
        name: Metric(float(value), units.get(name, "percent" if "percent" in name else "fraction"))
        for name, value in metrics.items()
    }
    write_measured(
        options.out, "calibration", kept, data, method="strata", seed=options.seed,
        config={"adapter": options.adapter, "documents": len(data.documents), "rate": RATE},
    )  # fmt: skip
    print(command_line())


if __name__ == "__main__":
    main()
