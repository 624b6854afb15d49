"""Rows of Parquet files, and of the Arrow files in which Hugging Face `datasets` keeps its data."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
from etils import epath

from polyglot_jax.corpus.document import (
    MAX_BYTES,
    Document,
    Fields,
    Reject,
    decode,
    make,
    too_long,
)

_ROWS = 256  # read at a time


def read(
    path: epath.Path, fields: Fields, begin: int = 0, end: int | None = None, row: int = 1
) -> Iterator[Document | Reject]:
    """Yields the rows of a file; of Parquet, those of row groups `begin` to `end`.

    Args:
      row: number of the first row that is read.
    """
    row -= 1
    try:
        with path.open("rb") as raw, _batches(path, raw, fields, begin, end) as batches:
            for batch in batches:
                for item in _rows(str(path), row + 1, batch, fields):
                    row += 1
                    yield item
    except (ValueError, OSError, pa.ArrowException) as error:
        yield Reject(str(path), row + 1 if row else 0, f"cannot be read: {_line(error)}")


def row_groups(path: epath.Path) -> list[tuple[int, int]]:
    """Returns (rows, bytes unpacked) of each row group of a Parquet file.

    Raises:
      ValueError, OSError, pyarrow.ArrowException: it cannot be read.
    """
    with path.open("rb") as raw:
        metadata = pq.ParquetFile(raw).metadata
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        return [(group.num_rows, group.total_byte_size) for group in groups]


@contextmanager
def _batches(
    path: epath.Path, raw: Any, fields: Fields, begin: int, end: int | None
) -> Iterator[Iterator[pa.RecordBatch]]:
    if path.name.endswith(".arrow"):
        try:
            stream = pa.ipc.open_stream(raw)
        except pa.ArrowInvalid:
            raw.seek(0)
            file = pa.ipc.open_file(raw)
            _check(file.schema, fields)
            yield (file.get_batch(i) for i in range(file.num_record_batches))
            return
        _check(stream.schema, fields)
        yield (part for whole in stream for part in _slices(whole))
        return
    file = pq.ParquetFile(raw)
    schema = file.schema_arrow
    _check(schema, fields)
    columns = [n for n in (fields.text, fields.source, fields.id) if n in schema.names]
    groups = range(begin, file.num_row_groups if end is None else end)
    yield file.iter_batches(batch_size=_ROWS, row_groups=list(groups), columns=columns)


def _slices(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    return (batch.slice(i, _ROWS) for i in range(0, batch.num_rows, _ROWS))


def _check(schema: pa.Schema, fields: Fields) -> None:
    if fields.text not in schema.names:
        raise ValueError(f"no column {fields.text} among {', '.join(schema.names)}")
    kind = schema.field(fields.text).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise ValueError(f"column {fields.text} holds {kind}, not strings")


def _rows(
    file: str, row: int, batch: pa.RecordBatch, fields: Fields
) -> Iterator[Document | Reject]:
    # Files of other writers may hold bytes that are no UTF-8.
    texts = batch.column(fields.text).cast(pa.large_binary()).to_pylist()
    sources, ids = (
        batch.column(name).to_pylist() if name in batch.schema.names else [None] * len(texts)
        for name in (fields.source, fields.id)
    )
    for i, value in enumerate(texts):
        if value is not None and len(value) > MAX_BYTES:
            yield too_long(file, row + i, len(value))
            continue
        text = None if value is None else decode(file, row + i, value)
        yield text if isinstance(text, Reject) else make(file, row + i, text, sources[i], ids[i])


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
