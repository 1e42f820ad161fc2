"""`latentbank eval`: an adapter's answers on a dataset, scored, and optionally kept as a record."""

from __future__ import annotations

import shlex
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentbank.backbone.hub import check_model
from latentbank.cli.common import (
    complete_overrides,
    console,
    notice,
    parse_pairs,
    print_json,
    progress_bar,
    quiet_libraries,
)
from latentbank.cli.options import Device, Dtype, Json, Options
from latentbank.cli.train import split_spec
from latentbank.errors import BankError, InputError

if TYPE_CHECKING:
    from latentbank.backbone.generate import DecodingConfig
    from latentbank.bench.scoring import Score
    from latentbank.evaluate.data import QADataset
    from latentbank.method import Method

Data = Annotated[
    str, typer.Option(metavar="PATH[:SPLIT]", help="Folder of SQuAD, jsonl, csv, or sample.")
]
Documents = Annotated[int | None, typer.Option(min=1, help="Only the first so many documents.")]
Questions = Annotated[
    int | None, typer.Option(min=1, help="Only so many questions, drawn by --seed.")
]
Gold = Annotated[
    bool, typer.Option("--gold", help="Read each question's document instead of selecting.")
]
_ROWS = (
    ("exact_match", "strict EM"),
    ("f1", "F1"),
    ("contains_answer", "contains an answer"),
    ("prefix_match", "prefix match (the papers' EM)"),
    ("gold_selected", "gold document selected"),
    ("bank_bytes", "bank"),
    ("bytes_per_document", "bank per document"),
    ("milliseconds", "time per question"),
    ("first_token_milliseconds", "time to the first token"),
    ("write_documents_per_second", "writing"),
)


def evaluate(
    adapter: Annotated[
        str, typer.Option("--adapter", "-a", help="Adapter folder, packaged adapter, or method.")
    ],
    data: Data,
    split: Annotated[str | None, typer.Option(help="Split of the data.")] = None,
    documents: Documents = None,
    questions: Questions = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    gold: Gold = False,
    backbone: Annotated[str | None, typer.Option(help="Model (default: smollm2-135m).")] = None,
    option: Options = None,
    bank: Annotated[
        str | None, typer.Option("--bank", "-b", help="Keep the bank in this new file.")
    ] = None,
    beams: Annotated[int, typer.Option(min=1)] = 1,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 16,
    device: Device = "cpu",
    dtype: Dtype = "auto",
    out: Annotated[
        str | None, typer.Option(metavar="RECORD.json", help="Write a record and predictions.")
    ] = None,
    json_output: Json = False,
) -> None:
    """Write a dataset's documents into a fresh bank, ask its questions, and score the answers."""
    if bank is not None and Path(bank).exists():
        raise BankError(f"{bank} exists already; eval writes a fresh bank, so name another file.")
    if out is not None and Path(out).suffix != ".json":
        raise InputError(f"A record's name must end in .json, got {out!r}.")
    chosen = load_data(data, split, documents)
    if questions is not None:
        chosen = chosen.sample_questions(questions, seed)
    quiet_libraries()
    check_model(backbone or "")
    from latentbank.adapter import DEFAULT_BACKBONE, load_method
    from latentbank.backbone.generate import DecodingConfig

    decoding = DecodingConfig(max_new_tokens, beams)
    spec = backbone or DEFAULT_BACKBONE
    overrides = complete_overrides(adapter, spec, parse_pairs(option))
    method = load_method(adapter, spec, dtype, device, overrides, notice)
    meta = {"adapter": adapter, "backbone": spec, "overrides": overrides}
    score = _measure(method, bank, meta, chosen, gold, decoding)
    if out is not None:
        settings = {"adapter": adapter, "gold": gold, "overrides": overrides, "beams": beams}
        _record(Path(out), score, method, chosen, settings, seed, device)
    if json_output:
        metrics = {name: asdict(metric) for name, metric in score.metrics.items()}
        print_json({"method": method.name, "data": chosen.name, "gold": gold, "metrics": metrics})
    else:
        _print(score, f"{adapter} on {chosen.name}{' (gold document given)' if gold else ''}")


def _measure(
    method: Method,
    bank: str | None,
    meta: dict[str, Any],
    data: QADataset,
    gold: bool,
    decoding: DecodingConfig,
) -> Score:
    """Writes and asks in the new file `bank`, or in one that is gone afterwards."""
    from latentbank.bench.scoring import measure
    from latentbank.model import new_bank

    with tempfile.TemporaryDirectory(prefix="latentbank-") as folder:
        path = Path(bank) if bank is not None else Path(folder) / "eval.bank"
        with new_bank(path, method, meta) as store, progress_bar("note") as bar:
            return measure(method, store, data, bar, method.name, gold, decoding)


def load_data(
    spec: str, split: str | None, documents: int | None, any_questions: bool = True
) -> QADataset:
    """The dataset `spec` (`sample` is the shipped one), cut to so many documents.

    Raises InputError if it has no question, unless none are needed.
    """
    from latentbank.evaluate.data import load_dataset, load_sample
    from latentbank.evaluate.facts.wordings import has_people, load_people
    from latentbank.evaluate.invented import load_invented
    from latentbank.evaluate.kb.data import SPECS, load_knowledge

    if spec == "sample" and not Path(spec).exists():
        data = load_sample()
    elif spec.startswith("invented:"):
        data = load_invented(spec)
    elif spec.startswith(SPECS):
        data = load_knowledge(spec, split)
    elif has_people(Path(spec)):
        data = load_people(Path(spec))
    else:
        path, named = split_spec(spec)
        data = load_dataset(path, split or named)
    if documents is not None:
        data = data.take(documents)
    if any_questions and not data.questions:
        raise InputError(f"The data {data.name} has no question to ask.")
    return data


def _record(
    path: Path,
    score: Score,
    method: Method,
    data: QADataset,
    settings: dict[str, Any],
    seed: int,
    device: str,
) -> None:
    from latentbank.bench.record import DataInfo, new_record, write_record
    from latentbank.bench.scoring import predictions

    record = new_record(
        task="qa",
        method=method.name,
        command=shlex.join(["latentbank", *sys.argv[1:]]),
        seed=seed,
        data=DataInfo(data.name, data.hash),
        dtype=str(method.backbone.dtype).removeprefix("torch."),
        metrics=score.metrics,
        config={
            **settings,
            "method": asdict(method.config),
            "backbone": method.backbone.fingerprint,
        },
        read_as="gold" if settings["gold"] else "selected",
        device=device,
    )
    write_record(record, path, predictions(score.data, score.evaluation))


def _print(score: Score, title: str) -> None:
    from rich.markup import escape
    from rich.table import Table

    questions, documents = score.value("questions"), score.value("documents")
    table = Table("measure", "value", "95 % interval", box=None, header_style="dim")
    table.title = escape(f"{title}: {questions:.0f} questions about {documents:.0f} documents")
    table.title_justify, table.title_style = "left", "bold"
    for column in table.columns[1:]:
        column.justify = "right"
    for name, label in _ROWS:
        metric = score.metrics.get(name)
        if metric is not None:
            known = metric.low is not None and metric.high is not None
            interval = f"{metric.low:.1f} to {metric.high:.1f}" if known else ""
            unit = "%" if metric.unit == "percent" else metric.unit
            table.add_row(label, f"{metric.value:,.1f} {unit}", interval)
    console().print(table)
