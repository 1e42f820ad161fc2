"""The papers' online test on SQuAD: every packaged method, one record for each row of the table.

Writes the first 1,665 contexts of the dev set once each into a fresh bank, then asks a fixed sample
of their questions. A row whose record exists is left alone unless --again. Ends with paired
comparisons of the rows on the same questions.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.progress import Progress

from latentbank.adapter import build_method, find_adapter, load_adapter, read_config
from latentbank.backbone.model import Backbone, load_backbone
from latentbank.bank import MemoryBank
from latentbank.bench.record import (
    DataInfo,
    new_record,
    predictions_path,
    read_record,
    write_record,
)
from latentbank.bench.scoring import Score, measure, predictions
from latentbank.evaluate.data import QADataset, load_dataset
from latentbank.evaluate.metrics import paired_bootstrap
from latentbank.method import Method
from latentbank.model import bank_fingerprint
from measured import command_line

HOT_BYTES = 5 << 30  # a document is run through the upper layers once, whoever asks about it
TASK = "squad-online"


@dataclass(frozen=True)
class Row:
    """One line of the table: `adapter` None is the bare backbone."""

    name: str
    method: str
    adapter: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    gold: bool = False
    read_as: str = ""


ROWS = (
    Row("none", "none", read_as="nothing"),
    Row("none+LoRA", "none", "none-smollm2-135m", read_as="nothing"),
    Row("mac", "mac", "mac-smollm2-135m", read_as="states"),
    Row("cmt", "cmt", "cmt-smollm2-135m", read_as="states"),
    Row("mbc", "mbc", "mbc-smollm2-135m", read_as="states"),
    Row("mbc histogram", "mbc", "mbc-smollm2-135m", {"form": "histogram"}, read_as="states"),
    Row("strata pooled16", "strata", "strata-smollm2-135m",
        {"entry": "pooled", "segments": 16}, read_as="states"),
    Row("strata pooled48", "strata", "strata-smollm2-135m",
        {"entry": "pooled", "segments": 48}, read_as="states"),
    Row("strata pooled48 (gold)", "strata", "strata-smollm2-135m",
        {"entry": "pooled", "segments": 48}, gold=True, read_as="states"),
    Row("strata verbatim", "strata", "strata-smollm2-135m",
        {"hot_bytes": HOT_BYTES}, read_as="states"),
    Row("strata packed", "strata", "strata-smollm2-135m",
        {"entry": "packed", "hot_bytes": HOT_BYTES}, read_as="states"),
    Row("strata verbatim (gold)", "strata", "strata-smollm2-135m",
        {"hot_bytes": HOT_BYTES}, gold=True, read_as="states"),
    Row("rag", "rag", read_as="text"),
    Row("rag+LoRA", "rag", "rag-smollm2-135m", read_as="text"),
    Row("full_context+LoRA", "full_context", "rag-smollm2-135m", gold=True, read_as="text"),
)  # fmt: skip

PAIRS = (
    ("mac", "none+LoRA"),
    ("cmt", "mac"),
    ("mbc", "none+LoRA"),
    ("mbc", "mac"),
    ("strata verbatim", "rag+LoRA"),
    ("strata packed", "rag+LoRA"),
    ("strata verbatim (gold)", "full_context+LoRA"),
    ("strata pooled48", "none+LoRA"),
    ("strata pooled16", "none+LoRA"),
)


def build(row: Row, backbone: Backbone) -> Method:
    """The method of a row on the shared backbone."""
    if row.adapter is None:
        return build_method(row.method, backbone, row.overrides)
    folder = find_adapter(row.adapter)
    config = read_config(folder)
    if config["method"] == row.method:
        return load_adapter(folder, backbone, row.overrides)
    method = build_method(row.method, backbone, {**config["config"], **row.overrides})
    method.load_state(load_adapter(folder, backbone).state())
    return method


def run(row: Row, method: Method, data: QADataset, folder: Path, seed: int) -> Score:
    """Writes the documents into a bank file, asks, and writes the record."""
    with tempfile.TemporaryDirectory() as scratch:
        store = MemoryBank.create(Path(scratch) / "run.bank", bank_fingerprint(method))
        with store, Progress() as bar:
            score = measure(method, store, data, bar, row.name, row.gold)
            size = asdict(store.footprint())
    config = {
        "name": row.name,
        "adapter": row.adapter,
        "gold": row.gold,
        "footprint": size,
        "method": json.loads(json.dumps(asdict(method.config))),
    }
    record = new_record(
        task=TASK,
        method=row.method,
        command=command_line(),
        seed=seed,
        data=DataInfo(data.name, data.hash),
        dtype=str(method.backbone.dtype).removeprefix("torch."),
        metrics=score.metrics,
        config=config,
        read_as=row.read_as,
    )
    write_record(record, record_path(folder, row), predictions(score.data, score.evaluation))
    return score


def record_path(folder: Path, row: Row) -> Path:
    """Where the record of a row lies."""
    label = "".join(c if c.isalnum() else "-" for c in row.name).strip("-").replace("--", "-")
    return folder / f"{label}.json"


def compare(folder: Path, seed: int) -> dict[str, Any]:
    """Paired bootstrap over F1 of the pairs whose records are there."""
    scores: dict[str, list[float]] = {}
    for row in ROWS:
        path = record_path(folder, row)
        if path.exists():
            lines = predictions_path(path).read_text().splitlines()
            scores[row.name] = [json.loads(line)["f1"] for line in lines]
    result = {}
    for a, b in PAIRS:
        if a in scores and b in scores:
            found = paired_bootstrap(scores[a], scores[b], seed=seed)
            result[f"{a} - {b}"] = {
                "difference_f1_points": 100 * found.difference,
                "low": 100 * found.low,
                "high": 100 * found.high,
                "p_value": found.p_value,
                "ratio": sum(scores[a]) / max(sum(scores[b]), 1e-9),
            }
    return result


def main() -> None:
    """Parses the command line and runs the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder with train-v1.1.json, dev-v1.1.json")
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("results/squad-online"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", nargs="*", help="names of rows; all by default")
    parser.add_argument("--engine", default="torch", help="torch, openvino or auto")
    parser.add_argument("--again", action="store_true")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    data = load_dataset(options.data, "test-online").sample_questions(
        options.questions, options.seed
    )
    backbone = load_backbone("smollm2-135m", quick=True, engine=options.engine)
    shared: dict[str, Method] = {}
    for row in ROWS:
        path = record_path(options.out, row)
        if (options.rows and row.name not in options.rows) or (path.exists() and not options.again):
            continue
        key = f"{row.method} {row.adapter} {json.dumps(dict(row.overrides))}"
        if key not in shared:
            shared.clear()
            shared[key] = build(row, backbone)
        run(row, shared[key], data, options.out, options.seed)
        record = read_record(path)
        print(row.name, {k: round(m.value, 2) for k, m in record.metrics.items()}, flush=True)
    result = compare(options.out, options.seed)
    comparisons = {"questions": len(data.questions), "seed": options.seed, "pairs": result}
    (options.out / "comparisons.json").write_text(json.dumps(comparisons, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
