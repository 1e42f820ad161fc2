"""The stream of `latentbank bench --data`: loaded, in the order of time, with questions.

Imports no torch.
"""

from __future__ import annotations

from latentbank.cli.common import notice
from latentbank.cli.evaluate import load_data
from latentbank.errors import InputError
from latentbank.evaluate.data import QADataset
from latentbank.evaluate.stream import by_time


def load_stream(
    spec: str, split: str | None, documents: int | None, made: int | None, seed: int
) -> QADataset:
    """The data `spec`; where every document is dated, in the order of time.

    `made`: so many questions about each document are made by rules (`evaluate.cloze`), in place
    of those that the data has; for streams of documents and times alone.

    Raises InputError if there is no question.
    """
    if made is None:
        try:
            stream = by_time(load_data(spec, split, None))
        except InputError as error:
            if "no question to ask" in str(error):
                raise InputError(f"{error} --make-questions 2 makes two a document.") from error
            raise
        return _cut(stream, documents)
    from latentbank.evaluate.cloze import cloze_dataset

    stream = _cut(by_time(load_data(spec, split, None, any_questions=False)), documents)
    made_up = cloze_dataset(f"{stream.name}:made", stream.documents, made, seed)
    notice(f"{len(made_up.questions):,} questions were made from the documents by rules.")
    return made_up


def _cut(data: QADataset, documents: int | None) -> QADataset:
    """The first so many documents. Raises InputError if nothing is asked about them."""
    kept = data if documents is None else data.take(documents)
    if data.questions and not kept.questions:
        raise InputError(f"The first {documents} documents of {data.name} have no question.")
    return kept
