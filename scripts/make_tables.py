"""Writes the tables and plots of the README and of docs/bank.md from the records in results/."""

from __future__ import annotations

import sys
from pathlib import Path

from latentbank.bench.bank_table import bank_table
from latentbank.bench.readme_plots import write_plots
from latentbank.bench.report import results_table, update_readme
from latentbank.errors import InputError

ROOT = Path(__file__).resolve().parent.parent


def main(root: Path = ROOT) -> None:
    """Updates README.md and docs/*.svg; says which plot has no records yet."""
    readme, results = root / "README.md", root / "results"
    update_readme(readme, "squad-online", results_table(results / "squad-online"))
    text, missing = write_plots(results, root / "docs")
    update_readme(readme, "plots", text)
    update_readme(root / "docs" / "bank.md", "bank", bank_table(results / "bank"))
    for sentence in missing:
        print(sentence)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
