"""Writes docs/reference/cli.md from the commands, and settings.md from the methods' configs.

Run it after a change of a command or a config: `python scripts/make_reference.py`. A test compares
the pages with what this script would write. Knows typer's command tree and the help texts of config
fields; nothing about what commands and methods do.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "reference"
INTRODUCTION = """\
# Command line

This page is generated from the commands by `python scripts/make_reference.py`.
`latentbank COMMAND --help` prints the same text.
"""


def commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """(path, command) of every command below `command`, groups before their members."""
    for name, child in command.commands.items():
        if child.hidden:
            continue
        yield f"{path} {name}", child
        if hasattr(child, "commands"):
            yield from commands(child, f"{path} {name}")


def command_page() -> str:
    """The page of all commands, ending in one line feed."""
    import typer.main

    from latentbank.cli import app

    root = typer.main.get_command(app)
    parts = [INTRODUCTION]
    parts += [section(path, command) for path, command in commands(root, "latentbank")]
    return "\n".join(parts)


def section(path: str, command: Any) -> str:
    """Heading, usage, description and parameters of one command."""
    shown = [p for p in command.params if not getattr(p, "hidden", False)]
    arguments = [p for p in shown if p.param_type_name == "argument"]
    options = [p for p in shown if p.param_type_name == "option"]
    usage = " ".join([path, *(["[OPTIONS]"] if options else []), *map(typed, arguments)])
    lines = [f"## {path.removeprefix('latentbank ')}", "", "```", usage, "```", ""]
    if command.help:
        lines += [plain(inspect.cleandoc(command.help)), ""]
    for title, found in (("argument", arguments), ("option", options)):
        if found:
            lines += [f"| {title} | meaning |", "|---|---|", *map(row, found), ""]
    return "\n".join(lines)


def typed(parameter: Any) -> str:
    """What stands for the parameter on a command line, such as `[ID]...` or `--bank FILE`."""
    if parameter.param_type_name == "argument":
        name = parameter.metavar or parameter.name.upper()
        name += "..." if parameter.nargs == -1 and not name.endswith("...") else ""
        return name if parameter.required or name.startswith("[") else f"[{name}]"
    value = (
        "" if parameter.is_flag else f" {parameter.metavar or parameter.opts[0].strip('-').upper()}"
    )
    return ", ".join([*parameter.opts, *parameter.secondary_opts]) + value


def plain(text: str) -> str:
    """`text` so that markdown shows it letter for letter."""
    return re.sub(r"([\[\]<>*])", r"\\\1", text)


def row(parameter: Any) -> str:
    """One row of a table: the names that are typed, and the help text with the default."""
    notes = [plain(parameter.help.strip())] if parameter.help else []
    if parameter.required and parameter.param_type_name == "option":
        notes.append("Required.")
    default = parameter.default
    if isinstance(default, str | int | float) and not isinstance(default, bool) and default != "":
        notes.append(f"Default: `{default}`.")
    cells = (f"`{typed(parameter)}`", " ".join(notes))
    return f"| {' | '.join(map(cell, cells))} |"


SETTINGS = """\
# Settings of the methods

This page is generated from the methods' configs by `python scripts/make_reference.py`.
`--option NAME=VALUE` sets a field for a new bank, `--config NAME=VALUE` for training. In Python
pass `overrides={"NAME": VALUE}`. A packaged adapter brings values of its own.
The pages also call `retrieval.candidates`, `retrieval.least_match`, `retrieval.closed_weight`,
`retrieval.gain_half` and `retrieval.gain_scale` by their last word, and so may you.
"""


def settings_page() -> str:
    """The page of all config fields, method by method."""
    from latentbank.config import describe
    from latentbank.method import METHODS

    parts = [SETTINGS]
    for name, method in METHODS.items().items():
        lines = [f"## {name}", "", "| field | default | meaning |", "|---|---|---|"]
        for item in describe(method.Config):
            default = json.dumps(item.default, default=str)
            lines.append(f"| `{item.name}` | `{default}` | {cell(plain(item.help))} |")
        parts.append("\n".join([*lines, ""]))
    return "\n".join(parts)


def cell(text: str) -> str:
    """`text` inside a cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ")


PAGES = {"cli.md": command_page, "settings.md": settings_page}


def main(folder: Path = FOLDER) -> None:
    """Writes both pages."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (folder / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
