"""`latentbank models`: what can be named on a command line. Loads no model."""

from __future__ import annotations

import importlib.metadata
import inspect
from typing import Any

from latentbank.cli.common import console, format_bytes, print_json
from latentbank.cli.common import quiet_libraries as quiet
from latentbank.cli.options import Json

_METRICS = (("exact_match", "EM"), ("f1", "F1"))


def models(json_output: Json = False) -> None:
    """List the packaged models and adapters, the methods and their presets."""
    quiet()
    listing = {"backbones": _backbones(), "adapters": _adapters(), "methods": _methods()}
    if json_output:
        print_json(listing)
    else:
        _print(listing)


def _backbones() -> list[dict[str, Any]]:
    from latentbank.backbone.hub import PACKAGED

    rows = []
    for name, package in PACKAGED.items():
        try:
            version: str | None = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            version = None
        rows.append(
            {"name": name, "package": package, "installed": version is not None, "version": version}
        )
    return rows


def _adapters() -> list[dict[str, Any]]:
    from latentbank.adapter import packaged_adapters, read_config

    rows = []
    for name, folder in packaged_adapters().items():
        config = read_config(folder)
        size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
        training = config.get("training") or {}
        rows.append(
            {
                "name": name,
                "method": config["method"],
                "backbone": config["backbone"],
                "bytes": size,
                "metrics": training.get("metrics") or training.get("validation") or {},
            }
        )
    return rows


def _methods() -> list[dict[str, Any]]:
    from latentbank.method import METHODS

    return [
        {
            "name": name,
            "description": (inspect.getdoc(cls) or "").split("\n")[0],
            "presets": list(cls.presets),
        }
        for name, cls in METHODS.items().items()
    ]


def _print(listing: dict[str, list[dict[str, Any]]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    screen = console()
    backbones = Table("model", "package", "", title="Packaged models", box=None)
    for row in listing["backbones"]:
        state = f"installed ({row['version']})" if row["installed"] else "not installed"
        backbones.add_row(row["name"], row["package"], state)
    adapters = Table(
        "adapter", "method", "model", "size", "validation", title="Packaged adapters", box=None
    )
    for row in listing["adapters"]:
        scores = [f"{t} {row['metrics'][n]:.1f}" for n, t in _METRICS if n in row["metrics"]]
        adapters.add_row(
            row["name"],
            row["method"],
            row["backbone"],
            format_bytes(row["bytes"]),
            ", ".join(scores),
        )
    if not listing["adapters"]:
        adapters.add_row("none", "", "", "", "")
    methods = Table("method", "", "presets", title="Methods", box=None)
    for row in listing["methods"]:
        methods.add_row(row["name"], escape(row["description"]), ", ".join(row["presets"]))
    for table in (backbones, adapters, methods):
        table.title_justify, table.title_style = "left", "bold"
        screen.print(table)
        screen.print()
