"""One self-contained HTML page of figures and tables, made from the records of a folder.

Knows records, figures and the template beside it; runs nothing, and the page loads nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from latentbank.bench.figures import Figure, Table, figures, is_ceiling, marks
from latentbank.bench.record import write_atomically
from latentbank.bench.results import Group, Result, format_bytes, groups, load_results
from latentbank.bench.words import MISSING, cell, machine_name, size_cell, slug
from latentbank.errors import InputError

NEEDED = ("matplotlib", "jinja2")
COLUMNS = (
    ("F1", "f1", 1), ("EM", "exact_match", 1), ("contains", "contains_answer", 1),
    ("prefix match", "prefix_match", 1), ("document found", "gold_selected", 1),
)  # fmt: skip


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
    """Every row of the group with its scores, bytes and time."""
    shown = [c for c in COLUMNS if any(c[1] in r.record.metrics for r in group.results)]
    head = ("row", *(title for title, _, _ in shown), "bank", "per document", "ms per question")
    rows = []
    for label, result in zip(group.labels, group.results, strict=True):
        scores = [cell(result.record.metrics.get(name), digits) for _, name, digits in shown]
        bank, each = result.value("bank_bytes"), result.value("bytes_per_document")
        time = result.value("milliseconds")
        rows.append(
            (
                f"{label} (ceiling)" if is_ceiling(result) and "gold" not in label else label,
                *scores,
                MISSING if bank is None else format_bytes(bank),
                MISSING if each is None else size_cell(each),
                MISSING if time is None else f"{time:,.1f}",
            )
        )
    return Table(head, tuple(rows))


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."
