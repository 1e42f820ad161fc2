"""Markdown tables, and the places in the pages where they go.

Knows text files; no record.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from latentbank.bench.record import write_atomically
from latentbank.errors import InputError

MARKER = re.compile(r"<!-- (/?)results:([\w-]+) -->")


def line(cells: Iterable[str]) -> str:
    """One line of a table; `|` is escaped, white space becomes one space."""
    escaped = (" ".join(cell.split()).replace("|", "\\|") for cell in cells)
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in escaped)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> str:
    """A table whose first `words` columns hold words and the others numbers."""
    rule = ["---"] * words + ["---:"] * (len(head) - words)
    return "\n".join(map(line, (head, rule, *rows)))


def markers(path: Path) -> list[str]:
    """The names of the page's places: `<!-- results:NAME -->` … `<!-- /results:NAME -->`.

    Raises InputError if the page cannot be read, or if its markers are not in pairs.
    """
    try:
        found = MARKER.findall(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error.reason}).") from error
    names = [name for _, name in found[::2]]
    pairs = [pair for name in names for pair in (("", name), ("/", name))]
    if pairs != found or len(set(names)) != len(names):
        raise InputError(
            f"{path} must hold each pair <!-- results:NAME --> … <!-- /results:NAME --> once, and "
            f"no marker alone; got {', '.join(sign + name for sign, name in found)}."
        )
    return names


def fill(path: Path, text_of: Callable[[str], str | None]) -> None:
    """Puts `text_of(NAME)` into each place of the page; None leaves a place as it is.

    The file is replaced as a whole or not at all. Raises InputError as `markers` does.
    """
    names = markers(path)
    content = path.read_bytes().decode("utf-8")
    for name in names:
        text = text_of(name)
        if text is not None:
            start, end = f"<!-- results:{name} -->", f"<!-- /results:{name} -->"
            before, rest = content.split(start)
            after = rest.split(end)[1]
            content = f"{before}{start}\n{text.strip()}\n{end}{after}"
    if names:
        write_atomically(path, content)
