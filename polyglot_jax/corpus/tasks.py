"""The task that reads and cleans: a chunk of the inputs becomes units of clean documents.

A task is a function of a job and its own arguments that leaves files with the same bytes whenever
and wherever it runs, its ok-file last, and does nothing where that is there already. No engine
shows in it, so any engine that calls each task until it succeeds will do.

A unit is what cleaning leaves of a chunk, or of a part of it: `clean/<unit>.parquet`, and beside it
the keys of its documents, by hash, and those of its lines that could be boilerplate.
"""

import array
import itertools
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from polyglot_jax import files, pool
from polyglot_jax.corpus import dedup, kinds, plan, readers, records, rules
from polyglot_jax.corpus.boilerplate import LINE, line_hashes
from polyglot_jax.corpus.plan import Chunk, Job
from polyglot_jax.corpus.stats import Stats, to_json

BATCH_BYTES = 8 << 20  # of text held before it is written
BATCH_DOCUMENTS = 4096
CLEAN = pa.schema(
    [
        ("text", pa.string()),
        ("source", pa.string()),
        ("id", pa.string()),
        ("rules", pa.list_(pa.string())),  # names of those that changed the text
        ("kind", pa.string()),
    ]
)
Row = tuple[str, str, str, tuple[str, ...], str]


def clean_chunk(job: Job, chunk: Chunk, max_rejects: int | None = None) -> None:
    """Task: reads and cleans a chunk into units. `clean/<chunk>.json` says what came of it.

    Raises:
      ValueError: more than `max_rejects` rejects.
    """
    ok = job.path("clean", f"{chunk.index:05d}.json")
    records.once(ok, lambda: _clean(job, chunk, max_rejects))


def _clean(job: Job, chunk: Chunk, max_rejects: int | None) -> dict[str, Any]:
    stats = Stats()
    units: list[dict[str, Any]] = []
    with files.writing(job.path("rejects", f"rejects-{chunk.index:05d}.jsonl")) as rejects:
        rows = _rows(job, chunk, stats, rejects, max_rejects)
        while (row := next(rows, None)) is not None:
            name = f"{chunk.index:05d}-{len(units):03d}"
            units.append(_write_unit(job, name, itertools.chain([row], rows)))
    return {"units": units, "stats": to_json(stats)}


def _rows(
    job: Job, chunk: Chunk, stats: Stats, rejects: Any, max_rejects: int | None
) -> Iterator[Row]:
    classify = kinds.resolve(job.classifier) if job.classifier else None
    for batch in _batches(job, chunk, stats, rejects, max_rejects):
        labels = classify([row[0] for row in batch]) if classify and batch else None
        for i, row in enumerate(batch):
            text, source, id_, changed, kind = row
            kind = labels[i] if labels else kind
            if kind in job.drop_kinds:
                stats.drop(source, id_, f"kind_{kind}", text)
            else:
                yield text, source, id_, changed, kind
        pool.count(len(batch))


def _batches(
    job: Job, chunk: Chunk, stats: Stats, rejects: Any, max_rejects: int | None
) -> Iterator[list[Row]]:
    """Yields lists of documents that the filters leave."""
    batch: list[Row] = []
    size = rejected = 0
    for one, item in plan.read(chunk, whole=job.whole):
        if isinstance(item, readers.Reject):
            stats.reject(re.split(r":| at ", item.reason)[0])
            record = {"file": item.file, "row": item.row, "reason": item.reason}
            rejects.write((json.dumps(record, ensure_ascii=False) + "\n").encode())
            rejected += 1
            if max_rejects is not None and rejected > max_rejects:
                raise ValueError(
                    f"more than {max_rejects} rejects (--max_rejects), the last: "
                    f"{item.file}:{item.row}: {item.reason}"
                )
            continue
        form = readers.format_of(item.id or one.file)
        source = one.source if one.fixed else item.source or one.source
        id_ = item.id or f"{one.name}:{item.row}"
        cleaned = rules.clean(item.text, job.options, format=form, source=source)
        stats.read(source, id_, item.text, cleaned, job.options)
        if cleaned.dropped is None:
            batch.append((cleaned.text, source, id_, cleaned.changed, cleaned.kind))
            size += len(cleaned.text)
        if len(batch) >= 256 or size > BATCH_BYTES:
            yield batch
            batch, size = [], 0
    yield batch


def _write_unit(job: Job, name: str, rows: Iterator[Row]) -> dict[str, Any]:
    """Writes documents until they are `job.unit_bytes` of text, with their keys and lines."""
    sources: dict[str, int] = {}
    digests, lines = bytearray(), bytearray()
    line_docs, line_sources = array.array("I"), array.array("I")
    size = held = num = 0
    batch: list[Row] = []
    with files.writing(job.path("clean", f"{name}.parquet")) as file, ExitStack() as stack:
        writer = stack.enter_context(pq.ParquetWriter(file, CLEAN, compression="lz4"))
        for row in rows:
            text, source = row[:2]
            digests += dedup.text_hash(text)
            number = sources.setdefault(source, len(sources))
            if job.boilerplate:
                found = line_hashes(text, source)
                lines += b"".join(found)
                line_docs.extend([num] * len(found))
                line_sources.extend([number] * len(found))
            batch.append(row)
            num += 1
            nbytes = len(text.encode())
            size, held = size + nbytes, held + nbytes
            if held >= BATCH_BYTES or len(batch) >= BATCH_DOCUMENTS:
                writer.write_table(_table(batch))
                batch, held = [], 0
            if size >= job.unit_bytes:
                break
        if batch:
            writer.write_table(_table(batch))
    records.write_by_hash(job.path("keys", name), dedup.keys(bytes(digests), np.arange(num)))
    if job.boilerplate:
        found_lines = np.empty(len(line_docs), LINE)
        found_lines["hash"] = np.frombuffer(bytes(lines), "<u8")
        found_lines["doc"], found_lines["source"] = line_docs, line_sources
        records.write_by_hash(job.path("lines", name), found_lines)
    return {"name": name, "documents": num, "lines": len(line_docs), "sources": list(sources)}


def _table(batch: list[Row]) -> pa.Table:
    columns = [
        pa.array(column, field.type)
        for column, field in zip(zip(*batch, strict=True), CLEAN, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=CLEAN)
