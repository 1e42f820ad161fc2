"""How a report words its numbers: titles of metrics, cells of tables, names of machines.

Knows numbers and units; no record as a whole, no figure.
"""

from __future__ import annotations

import re

from latentbank.bench.record import Machine, Metric
from latentbank.bench.results import format_bytes

TITLES = {
    "f1": "F1", "exact_match": "EM", "contains_answer": "contains", "prefix_match": "prefix match",
    "bank_bytes": "bank size", "bytes_per_document": "bytes per document",
}  # fmt: skip
MISSING = "\N{EN DASH}"


def cell(metric: Metric | None, digits: int = 1) -> str:
    """A number with its interval; fractions in percent."""
    if metric is None:
        return MISSING
    scale = 100.0 if metric.unit == "fraction" else 1.0
    text = f"{metric.value * scale:,.{digits}f}"
    if metric.low is None or metric.high is None:
        return text
    return f"{text} ({metric.low * scale:,.{digits}f} to {metric.high * scale:,.{digits}f})"


def any_cell(metric: Metric | None) -> str:
    """A number of any unit: bytes for people, counts whole, others with one digit or, where they
    are small, two that count.
    """
    if metric is None:
        return MISSING
    if metric.unit == "bytes":
        return format_bytes(metric.value)
    if metric.unit not in ("percent", "fraction") and metric.value == round(metric.value):
        return f"{metric.value:,.0f}"
    if metric.unit == "" and 0 < abs(metric.value) < 1:
        return f"{metric.value:.2g}"
    return cell(metric)


def column_name(name: str, unit: str) -> str:
    """ "retention_area_f1", "percent" → "retention area f1 (%)"; a unit is not said twice."""
    title = re.sub(r" bytes$", "", title_of(name)) if unit == "bytes" else title_of(name)
    sign = {"percent": "%", "fraction": "%", "bytes": ""}.get(unit, unit)
    words = {"s": "seconds", "documents/s": "documents per second"}.get(sign, sign)
    said = not sign or {sign, words} & set(title.split()) or title.endswith(words)
    return title if said else f"{title} ({sign})"


def size_cell(value: float) -> str:
    """Bytes, exact below ten thousand."""
    return f"{value:,.0f} B" if value < 10_000 else format_bytes(value)


def title_of(name: str) -> str:
    """A metric's name for people."""
    return TITLES.get(name, name.replace("_", " "))


def time_name(name: str) -> str:
    """ "read_milliseconds" → "read"."""
    plain = re.sub(r"_?milliseconds_?", " ", name).replace("_", " ").strip()
    known = {
        "": "a question's share of its batch",
        "p95": "a question's share, 95th percentile",
        "first token": "first token of the batch",
    }
    return known.get(plain, plain)


def machine_name(machine: Machine) -> str:
    """CPU, cores and, if there is one, the accelerator."""
    plural = "" if machine.cores == 1 else "s"
    base = f"{machine.cores} core{plural} of {machine.cpu}"
    return base if machine.device == "cpu" else f"{machine.device} with {base}"


def slug(text: str) -> str:
    """Lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def in_unit(unit: str, name: str = "") -> str:
    """ "percent" → " in percent"; nothing for a plain number, or where `name` says it already."""
    return f" in {unit}" if unit and unit not in name else ""
