"""Bytes of a MAC bank and of an MBC bank of the same documents, side by side; one record.

Real documents are encoded first; the rest are their payloads again under new ids, which costs the
same bytes. The size is that of the bank's file.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path

from latentbank.adapter import find_adapter, load_adapter
from latentbank.backbone.model import Backbone, load_backbone
from latentbank.bank import Entry, MemoryBank
from latentbank.bench.record import Metric
from latentbank.documents.document import Document
from latentbank.evaluate.data import load_dataset
from latentbank.model import bank_fingerprint
from measured import write_measured

STEP = 1000  # entries appended at a time


def repeated(entries: list[Entry], count: int) -> Iterator[Entry]:
    """`count` entries with the payloads of `entries` in turn, each under an id of its own."""
    for i in range(count):
        source = entries[i % len(entries)]
        name = blake2b(f"{source.id} {i}".encode(), digest_size=8).hexdigest()
        yield dataclasses.replace(source, id=name)


def bank_size(
    backbone: Backbone, adapter: str, documents: tuple[Document, ...], total: int
) -> dict[str, Metric]:
    """File size and footprint of a bank of `total` documents, of which `documents` are encoded."""
    method = load_adapter(find_adapter(adapter), backbone)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "size.bank"
        bank = MemoryBank.create(path, bank_fingerprint(method))
        method.bind(bank)
        method.write(documents)
        entries = list(bank.entries())
        rest = list(repeated(entries, max(0, total - len(entries))))
        for at in range(0, len(rest), STEP):
            bank.append(rest[at : at + STEP])
        parts, stored = asdict(bank.footprint()), len(bank)
        bank.close()
        size = path.stat().st_size
    name = method.name
    metrics = {
        f"{name}: documents": Metric(float(stored), "documents"),
        f"{name}: encoded documents": Metric(float(len(entries)), "documents"),
        f"{name}: file": Metric(float(size), "bytes"),
        f"{name}: bytes per document": Metric(size / stored, "bytes"),
    }
    for part, value in parts.items():
        metrics[f"{name}: {part}"] = Metric(float(value), "bytes")
    return metrics


def main() -> None:
    """Measures both banks and writes one record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder with train-v1.1.json, dev-v1.1.json")
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--encoded", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path("results/bytes/mac-mbc.json"))
    options = parser.parse_args()
    data = load_dataset(options.data, "test-online")
    documents = data.documents[: options.encoded]
    backbone = load_backbone("smollm2-135m")
    metrics: dict[str, Metric] = {}
    for adapter in ("mac-smollm2-135m", "mbc-smollm2-135m"):
        metrics |= bank_size(backbone, adapter, documents, options.documents)
    share = 100 * metrics["mbc: file"].value / metrics["mac: file"].value
    metrics["mbc of mac"] = Metric(share, "percent")
    for name, metric in metrics.items():
        print(f"{name}: {metric.value:,.4g} {metric.unit}")
    write_measured(options.out, "bytes", metrics, data, dtype=backbone.dtype)


if __name__ == "__main__":
    main()
