"""`latentbank demo`: a first look in a minute. Write, ask, squeeze, delete, all in ./demo.bank.

Loads one backbone for all readers. Knows `MemoryModel` and the shipped sample; scores nothing that
belongs into a benchmark (`latentbank compare` does that).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentbank.cli.common import console, notice, print_json, quiet_libraries, share_processor
from latentbank.cli.demo_steps import BANK, Reader, Tour
from latentbank.cli.options import AdaptersModel, Dtype, Json, OwnAdapters
from latentbank.errors import AdapterError, BankError

if TYPE_CHECKING:
    from latentbank.backbone.model import Backbone

BUDGET = 512 * 1024  # bytes, more than the paragraphs need


def demo(
    questions: Annotated[int, typer.Option(min=1, help="Questions to ask.")] = 12,
    documents: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many of the 333 paragraphs.")
    ] = None,
    beside: Annotated[
        str, typer.Option(metavar="METHOD", help="Method that answers the same questions beside.")
    ] = "rag",
    backbone: AdaptersModel = "smollm2-135m",
    adapters: OwnAdapters = None,
    dtype: Dtype = "auto",
    json_output: Json = False,
) -> None:
    """See what a memory bank does: a minute with paragraphs from Wikipedia, in ./demo.bank."""
    _clear(Path(BANK))
    from latentbank.evaluate.data import load_sample

    data = load_sample() if documents is None else load_sample().take(documents)
    step = max(1, len(data.questions) // questions)
    asked = data.questions[::step][:questions]
    quiet_libraries()
    share_processor()
    from latentbank.backbone.model import load_backbone
    from latentbank.methods import DEFAULT_METHOD
    from latentbank.model import MemoryModel, new_bank

    say: Callable[[str], None] = (lambda _: None) if json_output else console().print
    loaded = load_backbone(backbone, dtype, progress=notice, quick=True)
    chosen = {name: _adapter(name, loaded, adapters) for name in (DEFAULT_METHOD, beside)}
    methods = {name: _load(adapter, loaded) for name, adapter in chosen.items()}
    meta = {"adapter": chosen[DEFAULT_METHOD], "backbone": backbone, "demo": True}
    bank = new_bank(BANK, methods[DEFAULT_METHOD], meta, BUDGET)
    with (
        MemoryModel(methods[DEFAULT_METHOD], bank) as memory,
        MemoryModel(methods[beside]) as other,
    ):
        readers = (
            Reader("memory", memory),
            Reader(beside, other),
            Reader("closed book", memory, closed=True),
        )
        show = Tour(say, memory, data, asked)
        result = {
            "written": show.write(readers),
            "answers": show.ask(readers),
            "squeezed": show.squeeze(readers[:1]),
            "deleted": show.delete(readers[0]),
        }
        suggested = show.suggestion()
    if json_output:
        print_json({"bank": BANK, "backbone": loaded.fingerprint, **result, "suggested": suggested})
    else:
        _farewell(suggested)


def _clear(path: Path) -> None:
    """Removes the bank of an earlier demo. Raises BankError for anything else at that place."""
    if not path.exists():
        return
    from latentbank.bank import MemoryBank

    try:
        with MemoryBank.open(path, read_only=True) as opened:
            ours = opened.get_meta("demo") is True
    except BankError:
        ours = False
    if not ours:
        raise BankError(
            f"{path.resolve()} was not made by the demo; move it, or run the demo elsewhere."
        )
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        path.with_name(name).unlink(missing_ok=True)


def _adapter(method: str, backbone: Backbone, folder: str | None) -> str:
    """The adapter of a method: in the user's folder of adapters, else what `load_method` finds.

    Raises AdapterError where the user's folder has none.
    """
    if folder is None:
        return method
    adapter = Path(folder) / f"{method}-{backbone.name}"
    if not (adapter / "config.json").exists():
        raise AdapterError(f"{folder} holds no adapter {adapter.name}; the demo needs one.")
    return str(adapter.resolve())


def _load(adapter: str, backbone: Backbone) -> Any:
    from latentbank.adapter import load_method

    return load_method(adapter, backbone)


def _farewell(question: str | None) -> None:
    typer.echo(
        """
Now with your own files (text, Markdown, jsonl, csv, parquet, or folders of them):

  latentbank write FOLDER --bank my.bank --budget 8MiB
  latentbank ask "A question about them?" --bank my.bank
  latentbank inspect my.bank --documents"""
    )
    if question is not None:
        quoted = question.translate({ord(c): f"\\{c}" for c in '"\\$`'})
        typer.echo(f"""
The demo's bank is yours too; this it still knows:

  latentbank ask "{quoted}" --bank {BANK}""")
