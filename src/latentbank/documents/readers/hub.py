"""Documents from Hugging Face data sets.

Knows the `datasets` library; nothing about files of rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from latentbank.documents.document import Document
from latentbank.documents.readers.fields import row_document
from latentbank.documents.readers.rows import ReadOptions, Row
from latentbank.errors import InputError

__all__ = ["read_hf_dataset"]


def read_hf_dataset(
    name_or_path: str, split: str = "train", text_column: str = "text"
) -> Iterator[Document]:
    """Read documents from a Hugging Face dataset, one per row.

    `name_or_path` is a folder that `save_to_disk` wrote, or anything that
    `datasets.load_dataset` takes (a name on the hub uses the network). Columns `id`, `time` and
    `source` are used as such, other columns become metadata. Raises `InputError` if the dataset,
    split or column does not exist, or `datasets` is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise InputError("Reading a dataset needs datasets: pip install datasets.") from error
    folder = Path(name_or_path)
    saved = any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))
    try:
        loaded = datasets.load_from_disk(name_or_path) if saved else None
        if loaded is None:
            loaded = datasets.load_dataset(name_or_path, split=split)
        elif isinstance(loaded, datasets.DatasetDict):
            loaded = loaded[split]
    except KeyError as error:
        raise InputError(f"The dataset {name_or_path} has no split {split!r}.") from error
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise InputError(
            f"The dataset {name_or_path} (split {split}) cannot be read: {error}"
        ) from error
    if text_column not in loaded.column_names:
        columns = ", ".join(loaded.column_names)
        raise InputError(
            f"The dataset {name_or_path} has no column {text_column!r}; its columns are {columns}."
        )
    options = ReadOptions(text_column=text_column)
    for number, fields in enumerate(loaded, start=1):
        yield row_document(Row(f"{name_or_path}, row {number}", fields), None, options, None)
