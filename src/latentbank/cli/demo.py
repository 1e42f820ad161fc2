"""`latentbank demo`: the shipped sample written into one bank per method, asked, and compared.

Loads one model for all methods and one adapter at a time; leaves the strata bank to try by hand.
"""

from __future__ import annotations

import gc
import re
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentbank.cli.common import (
    Dtype,
    Json,
    console,
    format_bytes,
    notice,
    print_json,
    progress_bar,
    quiet_libraries,
)
from latentbank.errors import AdapterError, BankError

if TYPE_CHECKING:
    from latentbank.backbone.model import Backbone
    from latentbank.bench.scoring import Score
    from latentbank.evaluate.data import QADataset
    from latentbank.method import Method

BANK = "demo.bank"
EXAMPLES = 5


@dataclass(frozen=True)
class System:
    """A row of the demo: a method, whose adapter it takes ("" for none), and config changes."""

    label: str
    method: str
    adapter: str = ""
    overrides: dict[str, Any] = field(default_factory=dict)
    gold: bool = False
    keep: bool = False


SYSTEMS = (
    System("none", "none"),
    System("none + LoRA", "none", "none"),
    System("mac", "mac", "mac"),
    System("mbc", "mbc", "mbc"),
    System("strata", "strata", "strata", keep=True),
    System("strata pooled", "strata", "strata", {"entry": "pooled"}),
    System("rag", "rag", "rag"),
    System("full_context", "full_context", "rag", gold=True),
)


def demo(
    questions: Annotated[int, typer.Option(min=1, help="Questions to ask.")] = 300,
    documents: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many paragraphs.")
    ] = None,
    backbone: Annotated[str, typer.Option(help="Model that the adapters are for.")] = (
        "smollm2-135m"
    ),
    adapters: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Adapters METHOD-MODEL of your own.")
    ] = None,
    dtype: Dtype = "auto",
    json_output: Json = False,
) -> None:
    """Compare the methods on 333 SQuAD paragraphs; leaves ./demo.bank to try by hand."""
    kept = Path(BANK)
    _clear(kept)
    from latentbank.evaluate.data import load_sample

    data = load_sample() if documents is None else load_sample().take(documents)
    data = data.sample_questions(questions, seed=0)
    quiet_libraries()
    from latentbank.backbone.model import load_backbone

    notice(f"{len(data.documents)} SQuAD paragraphs, {len(data.questions)} questions, {backbone}")
    loaded = load_backbone(backbone, dtype, progress=notice)
    scores = _compare(loaded, backbone, adapters, kept, data)
    result = {
        "data": {"name": data.name, "documents": len(data.documents)},
        "backbone": loaded.fingerprint,
        "systems": {label: _row(score) for label, score in scores.items()},
        "examples": _examples(data, scores),
        "bank": str(kept) if kept.exists() else None,
        "command": _command(data) if kept.exists() else None,
        "peak_memory_bytes": peak_memory_bytes(),
    }
    if json_output:
        print_json(result)
    else:
        _print(result)


def _clear(path: Path) -> None:
    """Removes the bank of an earlier demo; anything else at that place is refused."""
    if not path.exists():
        return
    from latentbank.bank import MemoryBank

    try:
        with MemoryBank.open(path, read_only=True) as found:
            ours = found.get_meta("demo") is True
    except BankError:
        ours = False
    if not ours:
        raise BankError(
            f"{path.resolve()} was not made by the demo; move it, or run the demo elsewhere."
        )
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        path.with_name(name).unlink(missing_ok=True)


def _folders(root: Path) -> dict[str, Path]:
    """The adapters in a folder of adapters, by name."""
    if not root.is_dir():
        raise AdapterError(f"{root} is not a folder of adapters")
    return {path.name: path for path in sorted(root.iterdir()) if (path / "config.json").exists()}


def _load(system: System, backbone: Backbone, folder: Path | None) -> Method:
    """The method of a row; one whose adapter belongs to another method takes its weights."""
    from latentbank.adapter import build_method, load_adapter, load_state_of, read_config

    if folder is None:
        return build_method(system.method, backbone)
    if system.method == read_config(folder)["method"]:
        return load_adapter(folder, backbone, system.overrides)
    method = build_method(system.method, backbone, read_config(folder)["config"])
    from latentbank.capabilities import Trained, set_training

    if isinstance(method, Trained):
        method.load_state(load_state_of(folder))
    set_training(method, False)
    return method


def _compare(
    loaded: Backbone, spec: str, adapters: str | None, kept: Path, data: QADataset
) -> dict[str, Score | None]:
    """The score of every row, None where its adapter is missing; `spec` names the backbone."""
    from latentbank.adapter import packaged_adapters

    known = packaged_adapters() if adapters is None else _folders(Path(adapters))
    scores: dict[str, Score | None] = {}
    with tempfile.TemporaryDirectory(prefix="latentbank-") as scratch, progress_bar("note") as bar:
        for i, system in enumerate(SYSTEMS):
            path = kept if system.keep else Path(scratch) / f"{i}.bank"
            folder = known.get(f"{system.adapter}-{loaded.name}")
            if system.adapter and folder is None:
                scores[system.label] = None
                continue
            own = str(folder.resolve()) if adapters is not None and folder else None
            meta = {"adapter": own or f"{system.adapter}-{loaded.name}", "backbone": spec}
            scores[system.label] = _run(system, loaded, folder, path, data, meta, bar)
            gc.collect()
    return scores


def _run(
    system: System,
    backbone: Backbone,
    folder: Path | None,
    path: Path,
    data: QADataset,
    meta: dict[str, Any],
    bar: Any,
) -> Score:
    """Writes and asks with one method; its cache and weights are free when this returns."""
    from latentbank.bench.scoring import measure
    from latentbank.model import new_bank

    method = _load(system, backbone, folder)
    meta = {**meta, "overrides": system.overrides, "demo": True}
    with new_bank(path, method, meta) as bank:
        return measure(method, bank, data, bar, system.label, system.gold)


def _row(score: Score | None) -> dict[str, Any]:
    if score is None:
        return {"metrics": None, "note": "no adapter ships"}
    return {"metrics": {name: asdict(metric) for name, metric in score.metrics.items()}}


def _examples(data: QADataset, scores: dict[str, Score | None]) -> list[dict[str, Any]]:
    """A few questions, evenly spread, with every method's answer."""
    step = max(1, len(data.questions) // EXAMPLES)
    rows = []
    for i in range(0, len(data.questions), step)[:EXAMPLES]:
        answers = {
            label: score.evaluation.answers[i].text for label, score in scores.items() if score
        }
        question = data.questions[i]
        rows.append(
            {"question": question.text, "expected": question.answers[0], "answers": answers}
        )
    return rows


def _command(data: QADataset) -> str:
    text = re.sub(r'(["\\$`])', r"\\\1", data.questions[0].text)
    return f'latentbank ask "{text}" --bank {BANK}'


def peak_memory_bytes() -> int | None:
    """The most memory that this process held, or None where the system does not tell."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _print(result: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    screen = console()
    table = Table("method", "strict EM %", "F1 %", "bank bytes", "bytes/document", "ms/question")
    for column in table.columns[1:]:
        column.justify = "right"
    for label, row in result["systems"].items():
        if row["metrics"] is None:
            table.add_row(label, row["note"])
            continue
        value = {name: metric["value"] for name, metric in row["metrics"].items()}
        table.add_row(
            label,
            f"{value['exact_match']:.1f}",
            f"{value['f1']:.1f}",
            f"{value['bank_bytes']:,.0f}",
            f"{value['bytes_per_document']:,.0f}",
            f"{value['milliseconds']:,.0f}",
        )
    screen.print(table)
    for example in result["examples"]:
        screen.print(f"\n[bold]{escape(example['question'])}[/bold]")
        screen.print(f"  [dim]{'expected':<14}{escape(example['expected'])}[/dim]")
        for label, answer in example["answers"].items():
            screen.print(f"  {label:<14}{escape(' '.join(answer.split()))}")
    peak = result["peak_memory_bytes"]
    screen.print(f"\nPeak memory: {'unknown' if peak is None else format_bytes(peak)}")
    if result["command"] is None:
        screen.print("No strata adapter ships for this model, so the demo left no bank to try.")
    else:
        screen.print("Now try the strata bank by hand:\n")
        typer.echo(f"  {result['command']}")
