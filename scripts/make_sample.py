"""Make the shipped sample: every 5th context of SQuAD's online test, one or two questions each.

Usage: python scripts/make_sample.py FOLDER, where FOLDER holds train-v1.1.json and dev-v1.1.json.
"""

import argparse
import json
import random
from pathlib import Path

from latentbank.evaluate.data import QADataset, load_dataset

STRIDE = 5  # neighbouring contexts come from one article; the stride makes the sample varied
TARGET = Path(__file__).resolve().parents[1] / "src/latentbank/samples/squad_sample.jsonl"


def sample_rows(data: QADataset, seed: int) -> list[dict[str, object]]:
    """Return one row per sampled document, with one or two of its questions in file order."""
    source = random.Random(seed)
    groups = data.questions_by_document()
    rows: list[dict[str, object]] = []
    for index in range(0, len(data.documents), STRIDE):
        document = data.documents[index]
        count = min(source.randint(1, 2), len(groups[index]))
        chosen = sorted(source.sample(groups[index], count))
        questions = [
            {
                "id": data.questions[number].id,
                "question": data.questions[number].text,
                "answers": list(dict.fromkeys(data.questions[number].answers)),
            }
            for number in chosen
        ]
        rows.append(
            {
                "id": document.id,
                "text": document.text,
                "source": document.source,
                "questions": questions,
            }
        )
    return rows


def main() -> None:
    """Write the sample and print its counts."""
    parser = argparse.ArgumentParser(description="Make the shipped SQuAD sample.")
    parser.add_argument("folder", type=Path, help="folder with dev-v1.1.json")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rows = sample_rows(load_dataset(arguments.folder, "test-online"), arguments.seed)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    TARGET.write_text("".join(lines), encoding="utf-8")
    print(f"{len(rows)} documents, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
