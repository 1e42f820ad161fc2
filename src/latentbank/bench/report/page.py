"""`latentbank bench report`: one HTML page of tables and figures from the records of a folder.

Knows records, `plots` and the template beside it. The page loads nothing from elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from latentbank.bench.record import write_atomically
from latentbank.bench.report import plots
from latentbank.bench.report.figures import Table, figures, is_time, method_order, slug
from latentbank.bench.report.results import (
    Group,
    Result,
    any_cell,
    cell,
    column_name,
    groups,
    load_results,
    machine_name,
    si_bytes,
    size_cell,
)
from latentbank.errors import InputError

NEEDED = ("matplotlib", "jinja2", "adjustText")
COLUMNS = {
    "f1": "F1", "exact_match": "EM", "bank_bytes": "bank", "bytes_per_document": "per document",
    "milliseconds": "ms per question", "contains_answer": "contains",
    "prefix_match": "prefix match", "gold_selected": "document found",
}  # fmt: skip


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
    """Writes the page about the records of a folder and its subfolders.

    Raises InputError if a library is missing, if `out` does not end in .html, and for what
    `load_results` refuses.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise InputError(
            f"The report needs {' and '.join(missing)}; run: pip install 'latentbank[bench]'"
        )
    out = Path(out)
    if out.suffix not in (".html", ".htm"):
        raise InputError(f"The report's name must end in .html, got {out.name!r}.")
    results = load_results(folder, nested=True)
    parts = _sections(results.results)
    created = sorted({r.record.created[:10] for r in results.results})
    skipped = sum(bool(r.record.skipped) for r in results.results)
    text = _template().render(
        title=Path(folder).name or str(folder),
        sections=parts,
        records=len(results.results),
        skipped=skipped,
        created=" to ".join(dict.fromkeys((created[0], created[-1]))),
        revisions=sorted({r.record.code_revision for r in results.results}),
        foreign=results.foreign,
    )
    write_atomically(out, text)
    drawn = sum(len(part["figures"]) for part in parts)
    return Page(out, len(text.encode()), len(results.results), skipped, drawn, results.foreign)


# ---- the page


def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = files("latentbank.bench.report") / "page.html"
    return environment.from_string(source.read_text(encoding="utf-8"))


def _sections(results: Sequence[Result]) -> list[dict[str, Any]]:
    """What the template shows of each group of records."""
    tones = plots.colours(method_order(results))
    sections: list[dict[str, Any]] = []
    for group in groups(results):
        base = slug(group.task) or "task"
        twins = sum(part["base"] == base for part in sections)
        key = f"{base}-{twins + 1}" if twins else base
        sections.append(
            {
                "base": base,
                "key": key,
                "group": group,
                "facts": _facts(group),
                "machines": [machine_name(machine) for machine in group.machines],
                "table": _table(group),
                "others": _others(group),
                "sources": _sources(group.results),
                "figures": [
                    {
                        "key": f"{key}-{figure.key}",
                        "figure": figure,
                        "svg": plots.to_svg(figure.drawing, f"{key}-{figure.key}"),
                        "sources": _sources(figure.results),
                    }
                    for figure in figures(group, tones)
                ],
            }
        )
    return sections


def _sources(results: Sequence[Result]) -> dict[str, list[str]]:
    """Command → names of the records that it made."""
    sources: dict[str, list[str]] = {}
    for result in results:
        sources.setdefault(result.record.command, []).append(result.name)
    return sources


def _facts(group: Group) -> list[str]:
    """What all rows of a group share: sizes, dtypes, seeds."""
    members = (*group.results, *group.skipped)
    facts = []
    for name in ("documents", "questions"):
        counts = {r.value(name) for r in group.results} - {None}
        if len(counts) == 1:
            facts.append(f"{counts.pop():,.0f} {name}")
    seeds = sorted({r.record.seed for r in members})
    facts.append(" and ".join(sorted({r.record.dtype for r in members})))
    facts.append(f"seed{'' if len(seeds) == 1 else 's'} {', '.join(map(str, seeds))}")
    return facts


def _table(group: Group) -> Table:
    """Scores, bytes and time of every row, as far as any row has them."""
    used = [n for n in COLUMNS if any(n in r.record.metrics for r in group.results)]
    rows = []
    for label, r in zip(group.labels, group.results, strict=True):
        note = " (ceiling)" if r.ceiling and "gold" not in label else ""
        rows.append([f"{label}{note}", *(_cell(r, name) for name in used)])
    return Table(("row", *(COLUMNS[name] for name in used)), rows)


def _cell(result: Result, name: str) -> str:
    form = {"bank_bytes": si_bytes, "bytes_per_document": size_cell}.get(name)
    metric = result.record.metrics.get(name)
    return cell(metric) if form is None or metric is None else form(metric.value)


def _others(group: Group) -> Table | None:
    """Every metric that no figure and no other table shows; None if there is none."""
    names: dict[str, str] = {}
    for r in group.results:
        for name, metric in r.record.metrics.items():
            shown = name in COLUMNS or name in ("documents", "questions") or is_time(metric)
            if not shown and not name.startswith("footprint_"):
                names.setdefault(name, column_name(name, metric.unit))
    if not names:
        return None
    pairs = zip(group.labels, group.results, strict=True)
    rows = [(b, *(any_cell(r.record.metrics.get(name)) for name in names)) for b, r in pairs]
    return Table(("row", *names.values()), rows)
