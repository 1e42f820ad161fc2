"""Counts in how many of SQuAD's training paragraphs a stem stands: the packaged table of words.

No paragraph of `val` or of the dev set is counted.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from latentbank.evaluate.data import load_dataset
from latentbank.parts.retrieval.background import pack_shares, stem_counts

SPLITS = ("qa_lt", "qa_lt_val", "train")


def main() -> None:
    """Reads the splits, counts, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder with train-v1.1.json")
    parser.add_argument("--out", type=Path, default=Path("src/latentbank/assets/english.words"))
    options = parser.parse_args()
    texts = [d.text for split in SPLITS for d in load_dataset(options.data, split).documents]
    held_out = {d.text for d in load_dataset(options.data, "val").documents}
    kept = [text for text in dict.fromkeys(texts) if text not in held_out]
    packed = pack_shares(stem_counts(kept), len(kept))
    options.out.write_text(packed, "utf-8")
    print(f"{len(kept)} texts, {len(packed.split())} stems and shares, {len(packed)} characters")


if __name__ == "__main__":
    main()
