"""Rows of parquet files, by pyarrow.

Knows tables; nothing about documents. A value that cannot be read costs that value only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

from latentbank.documents.readers.fields import UNSTORABLE, check_header, plain
from latentbank.documents.readers.rows import Found, Note, ReadOptions, Row
from latentbank.errors import InputError

__all__ = ["parquet_rows"]

_BATCH_ROWS = 1024


def parquet_rows(file: BinaryIO, path: str, options: ReadOptions) -> Iterator[Found]:
    """The rows of a parquet file, batch by batch.

    Columns whose values cannot be stored, such as images, are left out with one note each.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise InputError(f"{path}: reading parquet needs pyarrow: pip install pyarrow.") from error
    number = 0
    dropped: set[str] = set()
    try:
        with pq.ParquetFile(file) as table:
            check_header(table.schema_arrow.names, options, f"{path}, row 1")
            for batch in table.iter_batches(batch_size=_BATCH_ROWS):
                names = batch.schema.names
                columns = [_values(batch.column(at)) for at in range(len(names))]
                for values in zip(*columns, strict=True):
                    number += 1
                    fields = dict(zip(names, values, strict=True))
                    for name in [name for name, value in fields.items() if value is UNSTORABLE]:
                        del fields[name]
                        if name not in dropped:
                            dropped.add(name)
                            yield Note("column", path, f"column {name!r} is binary and left out")
                    yield Row(f"{path}, row {number}", fields)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is not a readable parquet file: {error}.") from error


def _values(column: Any) -> list[Any]:
    try:
        return [_value(item) for item in column.to_pylist()]
    except (ValueError, OverflowError, TypeError, NotImplementedError, ImportError):
        return [_one(item) for item in column]  # text that is not UTF-8, a time out of range


def _one(item: Any) -> Any:
    try:
        return _value(item.as_py())
    except (ValueError, OverflowError, TypeError, NotImplementedError, ImportError):
        return UNSTORABLE


def _value(value: Any) -> Any:
    """Bytes as text or `UNSTORABLE`; dates stay dates, so that a time keeps its precision."""
    return plain(value) if isinstance(value, bytes) else value
