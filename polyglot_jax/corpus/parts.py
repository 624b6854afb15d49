"""The task that writes the output: what is left of a unit becomes one Parquet file a folder."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from polyglot_jax import files, pool
from polyglot_jax.corpus import contamination, records
from polyglot_jax.corpus.plan import Job
from polyglot_jax.corpus.stats import EXAMPLES, Stats, document_key, to_json
from polyglot_jax.corpus.survivors import Rounds, Survivor, documents

BATCH_BYTES = 8 << 20  # of text in one row group, about
BATCH_DOCUMENTS = 4096
CONTAMINATED = "contaminated"  # its name among those of the rules
SCHEMA = pa.schema(
    [
        ("text", pa.string()),
        ("source", pa.string()),
        ("id", pa.string()),
        ("num_chars", pa.int64()),
        ("rules", pa.list_(pa.string())),  # names of those that changed the text
        ("kind", pa.string()),
        (CONTAMINATED, pa.bool_()),  # shares words with a --held_out file
    ]
)


@dataclass
class _Part:
    """A Parquet file while it is written."""

    writer: Any
    file: Any
    batch: list[tuple[Any, ...]] = field(default_factory=list)
    held: int = 0  # bytes of text in the batch
    documents: int = 0
    text_bytes: int = 0
    chars: int = 0


def write_unit(job: Job, units: Sequence[str], unit: int, rounds: Rounds) -> None:
    """Task: writes `output/part-<unit>.parquet`, or none if nothing is left, and those of the
    kinds that have a folder. `written/<unit>.json` says what came of it."""
    records.once(
        job.path("written", f"{units[unit]}.json"), lambda: _write(job, units, unit, rounds)
    )


def _write(job: Job, units: Sequence[str], unit: int, rounds: Rounds) -> dict[str, Any]:
    stats = Stats()
    by_file: Counter[str] = Counter()
    examples: list[dict[str, Any]] = []
    parts: dict[str, _Part] = {}
    entries: list[dict[str, Any]] = []
    with ExitStack() as stack:
        for survivor, held_out in _checked(job, documents(job, units, unit, rounds)):
            if survivor.drop is not None:
                assert survivor.instead is not None
                why = "@{}:{}".format(*survivor.instead)  # the pipeline puts its id there
                stats.drop(survivor.source, survivor.id, survivor.drop, survivor.text, why=why)
                continue
            if held_out is not None:
                by_file[str(held_out[0])] += 1
                about = {"id": survivor.id, "source": survivor.source, "file": held_out[0]}
                examples.append(about | {"ngram": held_out[1]})
                if job.remove_contaminated:
                    stats.drop(
                        survivor.source, survivor.id, CONTAMINATED, survivor.text, why=held_out[1]
                    )
                    continue
            stats.write(survivor.source, survivor.text, survivor.kind)
            folder = f"kind-{survivor.kind}/" if survivor.kind in job.route_kinds else ""
            name = f"{folder}part-{unit:05d}.parquet"
            if name not in parts:
                path = job.path("output", name)
                path.parent.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context(files.writing(path))
                writer = stack.enter_context(pq.ParquetWriter(file, SCHEMA, compression="zstd"))
                parts[name] = _Part(writer, file)
            _add(parts[name], survivor, held_out is not None)
        for name in sorted(parts):
            part = parts[name]
            _flush(part)
            part.writer.close()
            entries.append(
                {
                    "file": name,
                    "documents": part.documents,
                    "text_bytes": part.text_bytes,
                    "chars": part.chars,
                    "file_bytes": part.file.tell(),
                }
            )
    examples.sort(key=lambda example: document_key(example["id"]))
    return {
        "parts": entries,
        "stats": to_json(stats),
        "contaminated": by_file,
        "contaminated_examples": examples[:EXAMPLES],
    }


def _checked(
    job: Job, found: Iterator[Survivor]
) -> Iterator[tuple[Survivor, tuple[int, str] | None]]:
    """Yields each document with the held-out file and words that it shares."""
    if not job.held_out:
        yield from ((survivor, None) for survivor in found)
        return
    batch: list[Survivor] = []
    size = 0

    def checked() -> Iterator[tuple[Survivor, tuple[int, str] | None]]:
        hits = contamination.find(job, [s.text if s.drop is None else "" for s in batch])
        return ((survivor, hits.get(i)) for i, survivor in enumerate(batch))

    for survivor in found:
        batch.append(survivor)
        size += len(survivor.text)
        if size > BATCH_BYTES // 4:
            yield from checked()
            batch, size = [], 0
    if batch:
        yield from checked()


def _add(part: _Part, survivor: Survivor, contaminated: bool) -> None:
    text = survivor.text
    nbytes = len(text.encode())
    part.batch.append(
        (text, survivor.source, survivor.id, len(text), survivor.rules, survivor.kind, contaminated)
    )
    part.held += nbytes
    part.text_bytes += nbytes
    part.chars += len(text)
    part.documents += 1
    if part.held >= BATCH_BYTES or len(part.batch) >= BATCH_DOCUMENTS:
        _flush(part)


def _flush(part: _Part) -> None:
    if part.batch:
        columns = zip(zip(*part.batch, strict=True), SCHEMA, strict=True)
        arrays = [pa.array(column, kind.type) for column, kind in columns]
        part.writer.write_table(pa.Table.from_arrays(arrays, schema=SCHEMA))
        pool.count(len(part.batch))
    part.batch, part.held = [], 0
