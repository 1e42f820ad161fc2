"""How often the right text of a collection is among the first, by BM25 and reranked.

Every question of a split is asked of all its paragraphs. Retrieval only; no model runs. Times are
of the processor: cold, with no passage remembered, and hot, for the same questions again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from latentbank.bench.record import DataInfo, Metric
from latentbank.codec.packaged import packaged_dictionary
from latentbank.codec.text import ZstdTextCodec
from latentbank.evaluate.data import QADataset, load_dataset
from latentbank.parts.retrieval.retriever import RetrievalConfig, Retriever
from latentbank.parts.retrieval.versions import content
from measured import write_measured

AMONG = (1, 4, 8, 16)
TIMED = 500  # questions


def retriever(data: QADataset, rerank: int) -> Retriever:
    """A retriever over the documents, whose texts are decoded as those of a bank are."""
    codec = ZstdTextCodec(packaged_dictionary())
    stored = codec.encode_all([d.text for d in data.documents])

    def texts_of(ids: Sequence[str]) -> list[str]:
        return codec.decode_all([stored[int(id)] for id in ids])

    words = [content(d.text) for d in data.documents]
    made = Retriever(RetrievalConfig(rerank=rerank), lambda id: words[int(id)], int, texts_of)
    made.add_texts([str(i) for i in range(len(stored))], [d.text for d in data.documents])
    return made


def places(data: QADataset, found: Retriever) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The place of each question's own text among the first; `max(AMONG)` where it is not there."""
    result = []
    for question in data.questions:
        ids = [id for id, _ in found.rank([question.text], max(AMONG))[0]]
        own = str(question.document)
        result.append(ids.index(own) if own in ids else max(AMONG))
    return np.array(result)


def milliseconds(data: QADataset, found: Retriever) -> float:
    """Processor time of ranking for a question."""
    asked = data.questions[:: max(1, len(data.questions) // TIMED)][:TIMED]
    began = time.process_time()
    for question in asked:
        found.rank([question.text], 4)
    return 1000 * (time.process_time() - began) / len(asked)


def main() -> None:
    """Measures, prints, writes the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder of SQuAD")
    parser.add_argument("--split", default="test-online")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    data = load_dataset(options.data, options.split)
    metrics = {}
    for name, rerank in (("BM25", 0), ("reranked", RetrievalConfig().rerank)):
        made = retriever(data, rerank)
        metrics[f"{name}: time, cold"] = Metric(milliseconds(data, made), "ms")
        metrics[f"{name}: time, hot"] = Metric(milliseconds(data, made), "ms")
        found = places(data, made)
        for k in AMONG:
            share = float((found < k).mean())
            error = 196 * float(np.sqrt(share * (1 - share) / len(found)))
            figure = Metric(100 * share, "%", 100 * share - error, 100 * share + error)
            metrics[f"{name}: right among {k}"] = figure
    for name, metric in metrics.items():
        print(f"{metric.value:6.2f} {metric.unit:2s} {name}")
    info = DataInfo(f"squad_v1.1:{options.split}", data.hash)
    config = {"questions": len(data.questions), "documents": len(data.documents)}
    write_measured(options.out, "retrieval", metrics, info, method="retrieval", config=config)


if __name__ == "__main__":
    main()
