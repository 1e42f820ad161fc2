"""Writes the tables and plots of README.md and of the pages in docs/ from results/."""

from __future__ import annotations

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


def main(root: Path = ROOT) -> None:
    """Updates the pages and docs/*.svg; says which plot has no records yet."""
    readme, results = root / "README.md", root / "results"
    page = root / "docs" / "benchmarks.md"
    update_readme(readme, "squad-online", results_table(results / "squad-online"))
    text, missing = write_plots(results, root / "docs")
    update_readme(readme, "plots", text)
    update_readme(page, "plots", text.replace("](docs/", "]("))
    for task, table in benchmark_tables(results / "bench-full").items():
        update_readme(page, f"bench-{task}", table)
    if (results / "frontier").exists():
        update_readme(page, "frontier", results_table(results / "frontier"))
        table = frontier_table(results / "frontier", "strata", "rag+LoRA")
        update_readme(readme, "frontier", table)
        update_readme(page, "frontier-matrix", table)
        update_readme(page, "frontier-shares", shares_table(results / "frontier", "mac"))
    if (results / "archivalqa").exists():
        table = frontier_table(results / "archivalqa", "strata", "rag+LoRA")
        update_readme(page, "archivalqa", table)
    if (results / "retention").exists():
        table = benchmark_tables(results / "retention")["retention"]
        update_readme(page, "retention-long", table)
    if (latency := results / "speed" / "latency.json").exists():
        record = read_record(latency)
        picture = write_plot(latency_figure(record), root / "docs" / "latency.svg")
        update_readme(readme, "latency", picture)
        table = f"{picture.replace('](docs/', '](')}\n\n{latency_table(record)}"
        update_readme(root / "docs" / "strata.md", "latency", table)
    if answers := sorted((results / "speed").glob("answers*.json")):
        table = answers_table([read_record(path) for path in answers])
        update_readme(root / "docs" / "strata.md", "answers", table)
    if (sweep := results / "cmt" / "sweep" / "decoding.json").exists():
        update_readme(root / "docs" / "cmt.md", "cmt-sweep", sweep_table(read_record(sweep)))
    for name, tabulate in (
        ("states", forms_table), ("codes", forms_table), ("training", training_table),
    ):  # fmt: skip
        if (path := results / "search" / f"{name}.json").exists():
            table = tabulate(read_record(path))
            update_readme(root / "docs" / "strata.md", f"search-{name}", table)
    update_readme(root / "docs" / "bank.md", "bank", bank_table(results / "bank"))
    update_readme(root / "docs" / "strata.md", "levels", levels_table(results / "exactness"))
    for folder, whole in (
        ("cmt", "cmt full"),
        ("strata", "strata"),
        ("strata/without-gain", "strata"),
    ):
        if any((results / folder).glob("*.json")):
            method, _, label = folder.partition("/")
            name = f"{method}-parts-{label}".rstrip("-")
            table = ablation_table(results / folder, whole)
            update_readme(root / "docs" / f"{method}.md", name, table)
    for sentence in missing:
        print(sentence)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
