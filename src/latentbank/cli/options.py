"""Options that several commands have, each with its name and its sentence of help.

Knows only typer: a command's option means the same everywhere.
"""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
BankPath = Annotated[str, typer.Option("--bank", "-b", help="The bank's file.", metavar="FILE")]
AdaptersModel = Annotated[str, typer.Option(help="Model that the adapters are for.")]
OwnAdapters = Annotated[
    str | None, typer.Option(metavar="FOLDER", help="Adapters METHOD-MODEL of your own.")
]
Device = Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, cuda:1, mps.")]
Dtype = Annotated[str, typer.Option(help="auto (measured once), float32, bfloat16 or float16.")]
Engine = Annotated[
    str, typer.Option(help="What runs the model: auto, torch or openvino (8-bit weights, CPU).")
]
Quality = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="fast, or best: whole answers of all candidates compete."),
]
Options = Annotated[
    list[str] | None,
    typer.Option(
        "--option", "-o", metavar="KEY=VALUE", help="Change the method's config; may be repeated."
    ),
]
# ---- a new bank

NewMethod = Annotated[
    str | None, typer.Option("--method", "-m", help="Method of a new bank (default: strata).")
]
NewAdapter = Annotated[
    str | None, typer.Option("--adapter", "-a", help="Adapter folder or packaged adapter.")
]
NewModel = Annotated[
    str | None, typer.Option("--backbone", help="Model of a new bank (default: smollm2-135m).")
]
NewBudget = Annotated[
    str | None,
    typer.Option("--budget", help="Largest size of a new bank's file, such as 8MiB."),
]

# ---- questions about a bank

AdapterPlace = Annotated[
    str | None, typer.Option("--adapter", "-a", help="Where the bank's adapter lies now.")
]
ModelPlace = Annotated[
    str | None, typer.Option("--backbone", help="Where the bank's model lies now.")
]
AsOf = Annotated[
    str | None, typer.Option("--as-of", metavar="TIME", help="Read only what was known then.")
]
