"""Join question-answer data into one jsonl stream, for protocols that need a long one.

Usage: python scripts/join_data.py OUT SPEC[:SPLIT]… [--documents N] [--asked N]. Documents keep
their order, equal texts come once, and only the first `--asked` of them keep their questions.
"""

import argparse
import json
from pathlib import Path

from latentbank.evaluate.data import load_dataset


def rows(specs: list[str], documents: int, asked: int) -> list[dict[str, object]]:
    """One row per document: text, source, time and, for the first `asked`, its questions."""
    found: dict[str, dict[str, object]] = {}
    for spec in specs:
        path, _, split = spec.partition(":")
        data = load_dataset(path, split or None)
        groups = data.questions_by_document()
        for document, group in zip(data.documents, groups, strict=True):
            if len(found) == documents or document.text in found:
                continue
            row: dict[str, object] = {"text": document.text, "source": document.source}
            if document.time is not None:
                row["time"] = document.time
            if len(found) < asked:
                row["questions"] = [
                    {"id": q.id, "question": q.text, "answers": list(dict.fromkeys(q.answers))}
                    for q in (data.questions[number] for number in group)
                ]
            found[document.text] = row
    return list(found.values())


def main() -> None:
    """Write the stream and print its counts."""
    parser = argparse.ArgumentParser(description="Join question-answer data into one stream.")
    parser.add_argument("out", type=Path)
    parser.add_argument("specs", nargs="+", metavar="SPEC[:SPLIT]")
    parser.add_argument("--documents", type=int, default=1 << 60, help="at most; default: all")
    parser.add_argument("--asked", type=int, default=1 << 60, help="documents with questions")
    options = parser.parse_args()
    found = rows(options.specs, options.documents, options.asked)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in found]
    options.out.write_text("".join(lines), encoding="utf-8")
    print(f"{len(found):,} documents, {options.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
