"""Counts tokens of SQuAD's training paragraphs with SmolLM2's tokenizer: the packaged tables.

No paragraph of `val` or of the dev set is counted. The splits named below hold the rest of the
training file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from latentbank.backbone.model import load_backbone
from latentbank.codec.counts import pack_tables
from latentbank.codec.token_counts import count_tokens
from latentbank.evaluate.data import load_dataset

SPLITS = ("qa_lt", "qa_lt_val", "train")


def main() -> None:
    """Reads the splits, counts, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder with train-v1.1.json")
    parser.add_argument("--out", type=Path, default=Path("src/latentbank/assets/smollm2.counts"))
    options = parser.parse_args()
    texts = [d.text for split in SPLITS for d in load_dataset(options.data, split).documents]
    held_out = {d.text for d in load_dataset(options.data, "val").documents}
    texts = [text for text in dict.fromkeys(texts) if text not in held_out]
    backbone = load_backbone("smollm2-135m")
    size = len(backbone.tokenizer.get_vocab())
    tables = count_tokens(backbone.encode(texts, start=False), size)
    packed = pack_tables(tables)
    options.out.write_bytes(packed)
    print(
        f"{len(texts)} texts, {len(tables.pair_tokens)} pairs, {len(tables.triple_tokens)} "
        f"triples, {len(packed)} bytes, tokenizer {backbone.tokenizer_fingerprint}"
    )


if __name__ == "__main__":
    main()
