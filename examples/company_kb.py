"""Answers from a company's own table of facts: csv in, answers with their sources out.

python examples/company_kb.py [TABLE.csv] [QUESTION ...]

The table has the columns entity, property and value; source and time are kept where it has them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from latentbank import MemoryModel, Triple
from latentbank.documents.readers import ReadOptions, read_documents

TABLE = Path(__file__).with_name("company_kb.csv")
QUESTIONS = (
    "What is the price of Kestrel valve?",
    "Who is the director of Plant Two?",
    "What is the headquarters of Northwind Tools?",
    "What is the annual budget of Plant Two?",  # the table does not say
)


def main(
    table: Path = TABLE,
    questions: Sequence[str] = QUESTIONS,
    adapter: str = "kblam",
    backbone: str | None = None,
) -> list[str]:
    """Prints an answer to each question with the facts that it attended to; returns the answers."""
    rows = list(read_documents([table], options=ReadOptions(triples=True)))
    model = MemoryModel.from_pretrained(adapter, backbone=backbone)
    model.write(rows)
    facts = {row.id: row for row in rows}
    said = []
    for question in questions:
        answer = model.ask(question)
        said.append(answer.text)
        print(f"{question}\n  {answer.text}")
        for id, share in answer.documents:
            print(f"    {share:4.0%}  {facts[id].text}  [{facts[id].source}]")

    # A new price replaces the old one; nothing is trained again.
    model.write([Triple("Kestrel valve", "price", "4990 euros", "2025-01-01", "price list")])
    said.append(model.ask(questions[0]).text)
    print(f"{questions[0]} (after the change)\n  {said[-1]}")
    model.delete(rows[0].id)
    print(f"{len(model.bank)} of {len(rows)} facts are left after a deletion.")
    return said


if __name__ == "__main__":
    given = sys.argv[1:]
    main(Path(given[0]) if given else TABLE, given[1:] or QUESTIONS)
