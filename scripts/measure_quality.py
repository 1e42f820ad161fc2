"""F1 and seconds of `fast` and `best`, on PyTorch in float32 and on the engine that `auto` takes.

The same questions for all; differences are paired, with intervals. Writes
results/speed/quality.json. Run: python scripts/measure_quality.py --questions 500 --data FOLDER
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from latentbank.bench.record import Metric
from latentbank.evaluate.data import load_dataset, load_sample
from latentbank.evaluate.metrics import exact_match, f1, mean_interval
from latentbank.model import MemoryModel
from measured import write_measured

RUNS = (("auto", "auto", "fast"), ("auto", "auto", "best"),
        ("torch", "float32", "fast"), ("torch", "float32", "best"))  # fmt: skip


def main() -> None:
    """Asks everything and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=320)
    parser.add_argument("--data", default="sample", help="documents and questions")
    parser.add_argument("--split", help="of the data; default: all")
    parser.add_argument("--out", type=Path, default=Path("results/speed/quality.json"))
    options = parser.parse_args()
    sample = options.data == "sample"
    data = load_sample() if sample else load_dataset(options.data, split=options.split)
    asked = data.sample_questions(options.questions, 1).questions
    metrics: dict[str, Metric] = {}
    scores: dict[str, np.ndarray] = {}
    for engine in ("auto", "torch"):
        dtype = next(run[1] for run in RUNS if run[0] == engine)
        model = MemoryModel.from_pretrained("strata", quick=True, engine=engine, dtype=dtype)
        model.write(data.documents)
        for quality in (run[2] for run in RUNS if run[0] == engine):
            name, began = f"{engine}, {quality}", time.perf_counter()
            answers = model.ask_many([q.text for q in asked], quality=quality)
            took = (time.perf_counter() - began) / len(asked)
            rows = list(zip(answers, asked, strict=True))
            scores[name] = np.array([f1(a.text, q.answers) for a, q in rows])
            exact = np.mean([exact_match(a.text, q.answers) for a, q in rows])
            metrics[f"{name}: F1"] = Metric(100 * float(scores[name].mean()), "percent")
            metrics[f"{name}: EM"] = Metric(100 * float(exact), "percent")
            metrics[f"{name}: seconds a question"] = Metric(took, "s")
            print(
                {k: round(m.value, 3) for k, m in metrics.items() if k.startswith(name)}, flush=True
            )
        model.close()
    for name, other in (("auto, fast", "auto, best"), ("torch, fast", "torch, best"),
                        ("auto, fast", "torch, fast"), ("auto, best", "torch, best")):  # fmt: skip
        difference = mean_interval(scores[name] - scores[other])
        for part in ("value", "low", "high"):
            value = 100 * float(getattr(difference, part))
            metrics[f"{name} less {other}: F1 {part}"] = Metric(value, "percent")
    write_measured(options.out, "quality", metrics, data, method="strata")


if __name__ == "__main__":
    main()
