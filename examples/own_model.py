"""Answers from your own notes with your own model: a folder, a GGUF file or a name on the hub.

    python examples/own_model.py path/to/model notes.txt "Who repairs the lighthouse?"

No adapter and no training: the model reads each document in its own chat format, and what it read
lately stays in the cache.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from latentbank import Document, MemoryModel


def main() -> None:
    """Writes the paragraphs of a file into a bank in memory and answers questions from it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="folder, GGUF file or owner/name")
    parser.add_argument("notes", type=Path, help="a text file; a blank line ends a document")
    parser.add_argument("questions", nargs="+")
    options = parser.parse_args()
    paragraphs = [part.strip() for part in options.notes.read_text("utf-8").split("\n\n")]
    with MemoryModel.from_pretrained("strata", backbone=options.model) as model:
        model.write([Document(part) for part in paragraphs if part])
        for question in options.questions:
            answer = model.ask(question)
            print(f"{question}\n  {answer.text}")
            for id, share in answer.documents:
                print(f"  from ({share:.0%}): {model.text(id)[:80]}")
            if not answer.from_memory:
                print("  not in memory: the model's own answer")


if __name__ == "__main__":
    main()
