"""Writes the tables of the docs from the records in results/."""

from __future__ import annotations

from pathlib import Path

from latentbank.bench.report import results_table, update_readme

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Updates the README."""
    update_readme(ROOT / "README.md", "squad-online", results_table(ROOT / "results/squad-online"))


if __name__ == "__main__":
    main()
