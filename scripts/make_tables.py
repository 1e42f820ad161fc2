"""Writes the tables and plots of README.md and docs/ from the records in results/.

Every place `<!-- results:NAME -->` … `<!-- /results:NAME -->` of a page gets the table NAME. Where
the records of a table are missing, its place stays as it is.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from latentbank.bench.record import Record, read_record
from latentbank.bench.task import TASKS
from latentbank.errors import InputError, unknown
from latentbank.method import METHODS
from tables.ablation import ablation_table
from tables.agents import agents_table
from tables.bank import bank_table
from tables.benchmarks import benchmark_tables
from tables.chat import chat_table
from tables.contest import contest_table, quality_table, ratio_table
from tables.evolve import evolve_table
from tables.frontier import frontier_table, shares_table
from tables.knowledge import cost_table, keys_table, prune_table
from tables.latency import answers_table, latency_table
from tables.learning import learning_table
from tables.levels import levels_table
from tables.markdown import fill
from tables.own_model import own_model_table
from tables.pictures import MISSING, PICTURES
from tables.recall import depths_table
from tables.results import method_table, results_table
from tables.retrieval import features_table, languages_table, recall_table, small_table
from tables.scale import ingest_table, machines_table
from tables.search import forms_table, sweep_table, training_table
from tables.server import server_table
from tables.speed import file_table, papers_table
from tables.titans import kept_table, language_table, memory_table, needle_table, queries_table
from tables.training import drift_table, standing_table, step_table

ROOT = Path(__file__).resolve().parent.parent
Maker = Callable[[Path], str]  # from the folder or file of records

EARLIER = "squad-online-earlier"  # rows of an earlier revision, not measured anew

# The place in the pages → (what lies in results/, what is made of it).
TABLES: dict[str, tuple[str, Maker]] = {
    "squad-online": ("squad-online", results_table),
    "squad-earlier": (EARLIER, results_table),
    "frontier-matrix": ("frontier", lambda folder: frontier_table(folder, "strata", "rag+LoRA")),
    "frontier-size": (
        "frontier-size", lambda folder: frontier_table(folder, "strata lm at once", "rag+LoRA lm"),
    ),
    "frontier": ("frontier", results_table),
    "frontier-earlier": ("frontier-earlier", results_table),
    "frontier-shares": ("frontier", lambda folder: shares_table(folder, "mac")),
    "archivalqa": ("archivalqa", lambda folder: frontier_table(folder, "strata", "rag+LoRA")),
    "titans-retention": (
        "titans/retention",
        lambda folder: benchmark_tables(folder)["retention"],
    ),
    "retention-long": ("retention", lambda folder: benchmark_tables(folder)["retention"]),
    "latency": ("speed/latency.json", lambda path: latency_table(read_record(path))),
    "answers": ("speed", lambda folder: answers_table(_all(folder, "answers*.json"))),
    "speed": ("speed/contest.json", lambda path: contest_table(read_record(path))),
    "speed-file": ("speed/file.json", lambda path: file_table(path.parent)),
    "papers-shapes": ("speed/papers.json", lambda path: papers_table(path.parent)),
    "quality": ("speed/quality.json", lambda path: quality_table(read_record(path))),
    "speed-ratios": ("speed/contest.json", lambda path: ratio_table(read_record(path))),
    "cmt-sweep": ("cmt/sweep/decoding.json", lambda path: sweep_table(read_record(path))),
    "search-states": ("search/states.json", lambda path: forms_table(read_record(path))),
    "search-codes": ("search/codes.json", lambda path: forms_table(read_record(path))),
    "search-training": ("search/training.json", lambda path: training_table(read_record(path))),
    "retrieval": ("retrieval/test-online.json", lambda path: recall_table(read_record(path))),
    "retrieval-features": (
        "retrieval/features.json", lambda path: features_table(read_record(path)),
    ),
    "scale": ("scale/simulation.json", lambda path: machines_table(read_record(path))),
    "ray-ingest": ("scale/ingest.json", lambda path: ingest_table(read_record(path))),
    "retrieval-small": ("retrieval/small.json", lambda path: small_table(read_record(path))),
    "retrieval-languages": (
        "retrieval/languages.json", lambda path: languages_table(read_record(path)),
    ),
    "chat": ("chat", chat_table),
    "own-model": ("any-model", lambda folder: own_model_table(_all(folder, "*.json"))),
    "step-speed": ("training/step-speed.json", lambda path: step_table(read_record(path))),
    "training-long": ("training", lambda folder: standing_table(_all(folder, "long-*.json"))),
    "training-rag": ("training/rag.json", lambda path: standing_table([read_record(path)])),
    "bank": ("bank", bank_table),
    "server": ("server", server_table),
    "kb-qa": ("kblam/qa", lambda folder: benchmark_tables(folder)["kb-qa"]),
    "kb-real": ("kblam/real", lambda folder: benchmark_tables(folder)["kb-qa"]),
    "kb-cost": ("kblam/cost.json", lambda path: cost_table(read_record(path))),
    "kb-prune": ("kblam/prune.json", lambda path: prune_table(read_record(path))),
    "kb-keys": ("kblam/keys.json", lambda path: keys_table(read_record(path))),
    "recall": ("recall/depths.json", lambda path: depths_table(read_record(path))),
    "evolve-policy": (
        "evolve/policy/evolve.json", lambda path: evolve_table(read_record(path)),
    ),
    "agents": ("agents/babyai.json", lambda path: agents_table(read_record(path))),
    "levels": ("exactness", levels_table),
    "learning": ("learning", learning_table),
    "camels": ("camels", lambda folder: learning_table(folder, "f1", "streams")),
    "drift": ("training/mbc-drift.json", lambda path: drift_table(read_record(path))),
    "needle": ("titans/needle.json", needle_table),
    "needle-long": ("titans/long.json", needle_table),
    "needle-depth": ("titans/depth.json", needle_table),
    "titans-method": ("titans/method.json", kept_table),
    "titans-words": ("titans/words.json", kept_table),
    "titans-queries": ("titans/queries.json", lambda path: queries_table(read_record(path))),
    "language": ("titans/language.json", language_table),
    "needle-parts": ("titans/parts.json", needle_table),
    "neural-memory": ("titans", memory_table),
    "cmt-parts": ("cmt", lambda folder: ablation_table(folder, "cmt full")),
    "strata-parts": ("strata", lambda folder: ablation_table(folder, "strata")),
    "strata-parts-without-gain": (
        "strata/without-gain", lambda folder: ablation_table(folder, "strata"),
    ),
}  # fmt: skip


def _rows_of(method: str, results: Path) -> str:
    """The folder with the newest rows of a method."""
    earlier = results / EARLIER / f"{method}.json"
    present = results / "squad-online" / f"{method}.json"
    return EARLIER if earlier.exists() and not present.exists() else "squad-online"


def _all(folder: Path, pattern: str) -> list[Record]:
    return [read_record(path) for path in sorted(folder.glob(pattern))]


# The place in the pages → the plots that it shows.
PLOTS = {
    "plots": ("frontier", "retention"),
    "frontier-plot": ("frontier",),
    "retention-plot": ("retention",),
    "latency-plot": ("latency",),
    "learning-plot": ("learning",),
    "recall-plot": ("recall",),
    "knowledge-plot": ("knowledge",),
    "agents-plot": ("agents",),
    "evolve-plot": ("evolve",),
}


def places() -> list[str]:
    """The names of all tables and plots that a page may ask for."""
    protocols, rows = (
        (f"bench-{name}" for name in TASKS.names()),
        (f"method-{n}" for n in METHODS.names()),
    )
    return [*TABLES, *PLOTS, *protocols, *rows]


def main(root: Path = ROOT) -> None:
    """Writes docs/*.svg and fills every page; says which plot has no records.

    Raises InputError for damaged records or pages, and for a place that no table has.
    """
    results, docs = root / "results", root / "docs"
    known = places()
    shown = {}
    for name, draw in PICTURES.items():
        path, picture = docs / f"{name}.svg", draw(results)
        if picture is None:
            path.unlink(missing_ok=True)
            print(f"{path} is not made: {MISSING[name]}.")
        else:
            picture.write(path)
            shown[path] = picture

    @cache
    def table(name: str) -> str | None:
        kind, _, rest = name.partition("-")
        if kind == "bench":
            return _protocols(results).get(rest)
        if kind == "method":
            source, make = _rows_of(rest, results), partial(method_table, method=rest)
        else:
            source, make = TABLES[name]
        path = results / source
        found = path.exists() if path.suffix else any(path.rglob("*.json"))
        return make(path) if found else None

    for page in (root / "README.md", *sorted(docs.rglob("*.md"))):

        def text_of(name: str, page: Path = page) -> str | None:
            if name in PLOTS:
                paths = [docs / f"{part}.svg" for part in PLOTS[name]]
                links = {path: os.path.relpath(path, page.parent) for path in paths}
                return "\n\n".join(
                    shown[path].markdown(link) for path, link in links.items() if path in shown
                )
            if name not in known:
                raise unknown(f"place in {page}", name, known)
            return table(name)

        fill(page, text_of)


@cache
def _protocols(results: Path) -> dict[str, str]:
    return benchmark_tables(results / "bench-full")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
