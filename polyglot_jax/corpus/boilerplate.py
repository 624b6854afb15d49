"""Lines that stand in many documents of a source: all but their first occurrence go.

Three kinds of tasks: say which documents of a unit count (copies do not), find in each bucket of
line hashes the lines that stand in too many, drop those from a unit's documents. Counts are exact
(but for two lines that share 64 bits), in the memory of one bucket.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from polyglot_jax import files
from polyglot_jax.corpus import dedup, records, rules
from polyglot_jax.corpus.characters import collapse_empty_lines
from polyglot_jax.corpus.plan import Job
from polyglot_jax.corpus.stats import Stats, to_json

NAME = "boilerplate"  # its name among those of the rules
DOCUMENTS = 10  # a line in more distinct documents of a source than this ...
SHARE = 1e-3  # ... and than this share of them is boilerplate
LINE = np.dtype([("hash", "<u8"), ("doc", "<u4"), ("source", "<u4")])  # source: of the unit's list
# A boilerplate line and the document in which it stays. There are at most 1 / SHARE times as many
# as a document of the source has lines, whatever the size of the source.
REPEATED = np.dtype([("hash", "<u8"), ("first_unit", "<u4"), ("first_doc", "<u4")])
STRIPPED = pa.schema([("doc", pa.uint32()), ("text", pa.string())])  # text: null if dropped
_DOC = np.dtype([("doc", "<u4")])


def line_hashes(text: str, source: str) -> list[bytes]:
    """Returns the hash of each distinct line that could be boilerplate, 8 bytes."""
    prefix = f"{source}\n".encode()
    keys = dict.fromkeys(
        key
        for line in text.split("\n")
        # A key is no longer than its line: the length spares most lines the rest.
        if len(line) >= rules.MIN_BOILERPLATE_CHARS and (key := rules.boilerplate_key(line))
    )
    return [hashlib.blake2b(prefix + key.encode(), digest_size=8).digest() for key in keys]


def _lines(text: str, source: str) -> Iterator[tuple[str, bytes | None]]:
    for line in text.split("\n"):
        key = rules.boilerplate_key(line)
        if key is None:
            yield line, None
        else:
            yield line, hashlib.blake2b(f"{source}\n{key}".encode(), digest_size=8).digest()


def tally_unit(job: Job, units: Sequence[str], unit: int, buckets: int) -> None:
    """Task: notes a unit's duplicates, and how many other documents of each source it has."""

    def task() -> dict[str, Any]:
        drops = dedup.drops_of(job, "first", buckets, unit)
        records.write_all(job.path("dropped", units[unit]), drops["doc"])
        path = job.path("clean", f"{units[unit]}.parquet")
        with path.open("rb") as file:
            sources = pq.read_table(file, columns=["source"])["source"].to_numpy()
        return dict(Counter(np.delete(sources, drops["doc"])))

    records.once(job.path("tally", f"{units[unit]}.json"), task)


def limits(documents: dict[str, int]) -> dict[str, float]:
    """Returns how many documents of each source a line may stand in."""
    return {source: max(DOCUMENTS, SHARE * n) for source, n in documents.items()}


def lines_of_bucket(
    job: Job,
    units: Sequence[str],
    sources: Sequence[Sequence[str]],
    limit_of: dict[str, float],
    bucket: int,
    buckets: int,
) -> None:
    """Task: finds the lines of one bucket that are boilerplate. `sources`: those of each unit."""
    path = job.path("repeated", f"{bucket:04d}")
    if path.exists():
        return
    parts = []
    for unit in units:
        part = records.read_bucket(job.path("lines", unit), LINE, bucket, buckets)
        dropped = records.read_all(job.path("dropped", unit), _DOC)["doc"]
        parts.append(part[~np.isin(part["doc"], dropped)])
    found = np.concatenate(parts)
    unit_of = np.repeat(np.arange(len(units), dtype=np.uint32), [len(part) for part in parts])
    del parts
    order = np.argsort(found["hash"], kind="stable")
    _, first, counts = np.unique(found["hash"][order], return_index=True, return_counts=True)
    many = counts > DOCUMENTS
    rows, counts = order[first[many]], counts[many]  # stable: the first document of each line
    over = [
        count > limit_of[sources[unit_of[row]][found["source"][row]]]
        for row, count in zip(rows, counts, strict=True)
    ]
    rows = rows[np.array(over, bool)]
    repeated = np.empty(len(rows), REPEATED)
    repeated["hash"] = found["hash"][rows]
    repeated["first_unit"], repeated["first_doc"] = unit_of[rows], found["doc"][rows]
    records.write_all(path, repeated)


def strip_unit(job: Job, units: Sequence[str], unit: int, buckets: int) -> None:
    """Task: drops boilerplate from a unit's documents, and writes the keys of what is left.

    Writes `strip/<unit>.parquet`, the documents that changed, and `keys_again/<unit>`.
    """
    records.once(
        job.path("strip", f"{units[unit]}.json"), lambda: _strip(job, units, unit, buckets)
    )


def _strip(job: Job, units: Sequence[str], unit: int, buckets: int) -> dict[str, Any]:
    name = units[unit]
    dropped = records.read_all(job.path("dropped", name), _DOC)["doc"]
    hit: list[np.ndarray] = []
    first_here: dict[bytes, int | None] = {}  # document of this unit in which a line stays
    for bucket in range(buckets):
        repeated = records.read_all(job.path("repeated", f"{bucket:04d}"), REPEATED)
        lines = records.read_bucket(job.path("lines", name), LINE, bucket, buckets)
        lines = lines[np.isin(lines["hash"], repeated["hash"])]
        hit.append(lines["doc"])
        for row in repeated[np.isin(repeated["hash"], lines["hash"])]:
            here = int(row["first_doc"]) if row["first_unit"] == unit else None
            first_here[row["hash"].tobytes()] = here
    docs = np.setdiff1d(np.unique(np.concatenate(hit)), dropped)
    stats, removed = Stats(), 0
    changed: list[tuple[int, str | None]] = []
    for doc, text, source, id_ in rows_of(job, name, docs):
        new, count = _without(text, source, first_here, doc)
        if not count:
            continue
        removed += count
        stats.change(source, id_, NAME, text, new)
        why = rules.why_dropped(new, job.options)
        if why:
            stats.drop(source, id_, why[0], new)
        changed.append((doc, None if why else new))
    with files.writing(job.path("strip", f"{name}.parquet")) as file:
        columns = list(zip(*changed, strict=True)) or [(), ()]
        arrays = [pa.array(c, f.type) for c, f in zip(columns, STRIPPED, strict=True)]
        pq.write_table(pa.Table.from_arrays(arrays, schema=STRIPPED), file, compression="lz4")
    keys = records.read_bucket(job.path("keys", name), dedup.KEY, 0, 1)
    keys = keys[~np.isin(keys["doc"], [*dropped, *(doc for doc, _ in changed)])]
    left = [(doc, text) for doc, text in changed if text is not None]
    new_keys = dedup.keys(b"".join(dedup.text_hash(t) for _, t in left), [d for d, _ in left])
    keys = np.concatenate([keys, new_keys])
    keys = keys[np.argsort(keys["doc"], kind="stable")]
    records.write_by_hash(job.path("keys_again", name), keys)
    return {"lines": removed, "stats": to_json(stats)}


def rows_of(
    job: Job, name: str, numbers: Sequence[int] | np.ndarray
) -> Iterator[tuple[int, str, str, str]]:
    """Yields (document, text, source, id) of a unit's documents of these ascending numbers."""
    docs = np.asarray(numbers, np.int64)
    if not len(docs):
        return
    with job.path("clean", f"{name}.parquet").open("rb") as file:
        begin = 0
        for batch in pq.ParquetFile(file).iter_batches(columns=["text", "source", "id"]):
            here = docs[(docs >= begin) & (docs < begin + batch.num_rows)]
            rows = batch.take(pa.array(here - begin, pa.int64()))
            for doc, row in zip(here, rows.to_pylist(), strict=True):
                yield int(doc), row["text"], row["source"], row["id"]
            begin += batch.num_rows


def _without(
    text: str, source: str, first_here: dict[bytes, int | None], doc: int
) -> tuple[str, int]:
    """Returns the text without boilerplate, and how many lines that were."""
    kept, seen = [], set()
    for line, found in _lines(text, source):
        if found in first_here:
            if first_here[found] != doc or found in seen:
                continue
            seen.add(found)
        kept.append(line)
    removed = text.count("\n") + 1 - len(kept)
    return (collapse_empty_lines("\n".join(kept)) if removed else text), removed


def stripped_of(job: Job, name: str) -> dict[int, str | None]:
    """Returns the documents of a unit that changed: their new text, or None for dropped."""
    if not job.boilerplate:
        return {}
    with job.path("strip", f"{name}.parquet").open("rb") as file:
        table = pq.read_table(file)
    return dict(zip(table["doc"].to_pylist(), table["text"].to_pylist(), strict=True))


def read_limits(job: Job, units: Sequence[str]) -> dict[str, float]:
    """Returns the limits that follow from the tallies of all units."""
    documents: Counter[str] = Counter()
    for unit in units:
        documents.update(json.loads(job.path("tally", f"{unit}.json").read_text()))
    return limits(documents)
