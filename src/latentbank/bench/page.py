"""One self-contained HTML page of figures and tables, made from the records of a folder.

Knows records, figures and the template beside it; runs nothing, and the page loads nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from latentbank.bench.figure import Figure, Table
from latentbank.bench.figures import figures, is_ceiling, is_time, marks
from latentbank.bench.record import write_atomically
from latentbank.bench.results import Group, Result, format_bytes, groups, load_results
from latentbank.bench.words import (
    MISSING,
    any_cell,
    cell,
    column_name,
    machine_name,
    size_cell,
    slug,
)
from latentbank.errors import InputError

NEEDED = ("matplotlib", "jinja2")
# Title, metric, how to write it; None: with its interval.
COLUMNS: tuple[tuple[str, str, Callable[[float], str] | None], ...] = (
    ("F1", "f1", None),
    ("EM", "exact_match", None),
    ("bank", "bank_bytes", format_bytes),
    ("per document", "bytes_per_document", size_cell),
    ("ms per question", "milliseconds", "{:,.1f}".format),
    ("contains", "contains_answer", None),
    ("prefix match", "prefix_match", None),
    ("document found", "gold_selected", None),
)


@dataclass(frozen=True)
class Page:
    """What was written: `records` read, `skipped` of them without numbers, `foreign` left out."""

    path: Path
    bytes: int
    records: int
    skipped: int
    figures: int
    foreign: tuple[str, ...]


def write_page(folder: str | Path, out: str | Path) -> Page:
    """Write the page of a folder's records, its subfolders included.

    Raises InputError if matplotlib or jinja2 is not installed, if `out` does not end in .html, and
    as `results.load_results` does.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise InputError(
            f"The report needs {' and '.join(missing)}; run: pip install 'latentbank[bench]'"
        )
    out = Path(out)
    if out.suffix not in (".html", ".htm"):
        raise InputError(f"The report's name must end in .html, got {out.name!r}.")
    found = load_results(folder, nested=True)
    parts = sections(found.results)
    text = _render(Path(folder).name or str(folder), parts, found.results, found.foreign)
    write_atomically(out, text)
    return Page(
        out,
        len(text.encode()),
        len(found.results),
        sum(bool(r.record.skipped) for r in found.results),
        sum(len(part["figures"]) for part in parts),
        found.foreign,
    )


def sections(results: Sequence[Result]) -> list[dict[str, Any]]:
    """What the template shows of each group of records."""
    looks = marks(results)
    found, taken = [], Counter[str]()
    for group in groups(results):
        key = slug(group.task) or "task"
        taken[key] += 1
        key = key if taken[key] == 1 else f"{key}-{taken[key]}"
        found.append(
            {
                "key": key,
                "task": group.task,
                "data": group.data_name,
                "hash": group.data_hash,
                "facts": _facts(group),
                "machines": [machine_name(machine) for machine in group.machines],
                "table": _table(group),
                "others": _others(group),
                "results": _sources(group.results),
                "skipped": [
                    (r.label, _sentence(r.record.skipped), r.record.read_as, r.name)
                    for r in group.skipped
                ],
                "figures": [_figure(figure, key) for figure in figures(group, looks)],
            }
        )
    return found


def _render(
    title: str,
    parts: list[dict[str, Any]],
    results: Sequence[Result],
    foreign: tuple[str, ...],
) -> str:
    from jinja2 import Environment, StrictUndefined

    from latentbank.bench.svg import variables

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(
        (files("latentbank.bench") / "page.html").read_text(encoding="utf-8")
    )
    created = sorted(r.record.created[:10] for r in results)
    return template.render(
        title=title,
        sections=parts,
        records=len(results),
        skipped=sum(bool(r.record.skipped) for r in results),
        created=created[0] if created[0] == created[-1] else f"{created[0]} to {created[-1]}",
        revisions=sorted({r.record.code_revision for r in results}),
        foreign=foreign,
        light=variables(False),
        dark=variables(True),
    )


def _figure(figure: Figure, section: str) -> dict[str, Any]:
    from latentbank.bench.plots import draw

    key = f"{section}-{figure.key}"
    return {
        "key": key,
        "title": figure.title,
        "text": figure.text,
        "wide": draw(figure, key),
        "narrow": draw(figure, key, narrow=True),
        "table": figure.table,
        "sources": _sources(figure.results),
    }


def _sources(results: Sequence[Result]) -> list[tuple[str, list[str]]]:
    """(command, names of the records that it made), in the order of the results."""
    found: dict[str, list[str]] = {}
    for result in results:
        found.setdefault(result.record.command, []).append(result.name)
    return list(found.items())


def _facts(group: Group) -> list[str]:
    """What all rows of a group share, in a few words."""
    members = (*group.results, *group.skipped)
    facts = []
    for name in ("documents", "questions"):
        values = {r.value(name) for r in group.results} - {None}
        if len(values) == 1:
            facts.append(f"{values.pop():,.0f} {name}")
    dtypes = sorted({r.record.dtype for r in members})
    seeds = sorted({r.record.seed for r in members})
    facts.append(" and ".join(dtypes))
    facts.append(f"seed{'' if len(seeds) == 1 else 's'} {', '.join(map(str, seeds))}")
    return facts


def _table(group: Group) -> Table:
    """Every row of the group with its scores, bytes and time, as far as any row has them."""
    used = {name for result in group.results for name in result.record.metrics}
    columns = [c for c in COLUMNS if c[1] in used]
    rows = []
    for label, result in zip(group.labels, group.results, strict=True):
        note = " (ceiling)" if is_ceiling(result) and "gold" not in label else ""
        cells = (_value(result, name, form) for _, name, form in columns)
        rows.append((f"{label}{note}", *cells))
    return Table(("row", *(title for title, _, _ in columns)), tuple(rows))


def _others(group: Group) -> Table | None:
    """Every metric that no figure and no other table shows; None where there is none."""
    shown = {name for _, name, _ in COLUMNS} | {"documents", "questions"}
    names: dict[str, str] = {}
    for result in group.results:
        for name, metric in result.record.metrics.items():
            if name not in shown and not name.startswith("footprint_") and not is_time(metric):
                names.setdefault(name, column_name(name, metric.unit))
    if not names:
        return None
    rows = tuple(
        (label, *(any_cell(result.record.metrics.get(name)) for name in names))
        for label, result in zip(group.labels, group.results, strict=True)
    )
    return Table(("row", *names.values()), rows)


def _value(result: Result, name: str, form: Callable[[float], str] | None) -> str:
    if form is None:
        return cell(result.record.metrics.get(name))
    value = result.value(name)
    return MISSING if value is None else form(value)


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."
