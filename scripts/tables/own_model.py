"""The table of models without an adapter: a document read from the cache beside it in the prompt.

Knows records of `latentbank eval`; runs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from latentbank.bench.record import Record
from tables.markdown import table

_READ = {"states": "keys and values from layer 0", "text": "the passage in the prompt"}
_COLUMNS = (("contains the answer", "contains_answer"), ("F1", "f1"))


def own_model_table(records: Sequence[Record]) -> str:
    """Markdown: a line for each model and way to read."""
    rows = []
    for record in records:
        config = record.config or {}
        cells = [
            f"{one.value:.1f} [{one.low:.0f}, {one.high:.0f}]"
            for one in (record.metrics[name] for _, name in _COLUMNS)
        ]
        model = str(config["backbone"]).partition(":")[0].removesuffix(".gguf")
        rows.append((model, _READ[config["method"]["read"]], record.dtype, *cells))
    head = ("model", "reads its document as", "dtype", *(title for title, _ in _COLUMNS))
    one = records[0]
    source = f"{one.data.name}, {one.metrics['questions'].value:.0f} questions"
    return table(head, rows, words=3) + f"\n\n*{source}, code {one.code_revision}.*"
