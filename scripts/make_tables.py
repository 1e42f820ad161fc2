"""Writes the tables and plots of README.md and of the pages in docs/ from results/."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from latentbank.bench.ablation_table import ablation_table
from latentbank.bench.bank_table import bank_table
from latentbank.bench.benchmarks import benchmark_tables
from latentbank.bench.frontier_table import frontier_table, shares_table
from latentbank.bench.latency import answers_table, latency_figure, latency_table
from latentbank.bench.levels_table import levels_table
from latentbank.bench.readme_plots import write_plot, write_plots
from latentbank.bench.record import read_record
from latentbank.bench.report import results_table, update_readme
from latentbank.bench.search_table import forms_table, sweep_table, training_table
from latentbank.errors import InputError

ROOT = Path(__file__).resolve().parent.parent


def fill(root: Path, name: str, text: str) -> None:
    """Writes `text` into the block `name` of every page that has one.

    A block is what lies between `<!-- results:NAME -->` and `<!-- /results:NAME -->` in README.md
    or in a page under docs/. Links in `text` that start with `docs/` are made relative to the page.

    Raises:
        InputError: no page has the block.
    """
    mark = f"<!-- results:{name} -->"
    every = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    pages = [page for page in every if page.exists() and mark in page.read_text(encoding="utf-8")]
    if not pages:
        raise InputError(f"No page has the block {mark}; README.md or a page in docs/ must.")
    for page in pages:
        docs = os.path.relpath(root / "docs", page.parent)
        update_readme(page, name, text.replace("](docs/", f"]({docs}/").replace("](./", "]("))


def rows_of(table: str, method: str) -> str:
    """The rows of `method`, and of no memory to compare with, in the columns of a method's page."""
    cells = [line.strip("| ").split(" | ") for line in table.splitlines()]
    head, _, *rows = cells
    kept = [head.index(name) for name in ("method", "F1", "EM", "bytes/document", "ms/question")]
    chosen = [row for row in rows if re.split(r"[ +]", row[0])[0] in (method, "none")]
    picked = [[row[i] for i in kept] for row in [head, *chosen]]
    picked.insert(1, ["---", *["---:"] * (len(kept) - 1)])
    return "\n".join(f"| {' | '.join(row)} |" for row in picked)


def main(root: Path = ROOT) -> None:
    """Updates the pages and docs/*.svg; says which plot has no records yet."""
    results = root / "results"
    table = results_table(results / "squad-online")
    fill(root, "squad-online", table)
    for page in sorted((root / "docs" / "methods").glob("*.md")):
        if page.stem != "index":
            fill(root, f"method-{page.stem}", rows_of(table, page.stem))
    text, missing = write_plots(results, root / "docs")
    fill(root, "plots", text)
    for task, table in benchmark_tables(results / "bench-full").items():
        fill(root, f"bench-{task}", table)
    if (results / "frontier").exists():
        fill(root, "frontier", results_table(results / "frontier"))
        table = frontier_table(results / "frontier", "strata", "rag+LoRA")
        fill(root, "frontier-matrix", table)
        fill(root, "frontier-shares", shares_table(results / "frontier", "mac"))
    if (results / "archivalqa").exists():
        fill(root, "archivalqa", frontier_table(results / "archivalqa", "strata", "rag+LoRA"))
    if (results / "retention").exists():
        fill(root, "retention-long", benchmark_tables(results / "retention")["retention"])
    if (latency := results / "speed" / "latency.json").exists():
        record = read_record(latency)
        fill(
            root, "latency-plot", write_plot(latency_figure(record), root / "docs" / "latency.svg")
        )
        fill(root, "latency", latency_table(record))
    if answers := sorted((results / "speed").glob("answers*.json")):
        fill(root, "answers", answers_table([read_record(path) for path in answers]))
    if (sweep := results / "cmt" / "sweep" / "decoding.json").exists():
        fill(root, "cmt-sweep", sweep_table(read_record(sweep)))
    for name, tabulate in (
        ("states", forms_table), ("codes", forms_table), ("training", training_table),
    ):  # fmt: skip
        if (path := results / "search" / f"{name}.json").exists():
            fill(root, f"search-{name}", tabulate(read_record(path)))
    fill(root, "bank", bank_table(results / "bank"))
    fill(root, "levels", levels_table(results / "exactness"))
    for folder, whole in (
        ("cmt", "cmt full"),
        ("strata", "strata"),
        ("strata/without-gain", "strata"),
    ):
        if any((results / folder).glob("*.json")):
            method, _, label = folder.partition("/")
            name = f"{method}-parts-{label}".rstrip("-")
            fill(root, name, ablation_table(results / folder, whole))
    for sentence in missing:
        print(sentence)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
