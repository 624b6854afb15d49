"""Exact duplicates: of the documents of one key, the first in the order of the inputs stays.

A key is 128 bits of the text without case, width and blanks. Each unit (a file of cleaned
documents) has its keys beside it, 20 bytes a document; one task a bucket of hashes finds the first
document of each key over all units, in the memory of that bucket.
"""

import hashlib
import unicodedata
from collections.abc import Sequence

import numpy as np
from etils import epath

from polyglot_jax.corpus import records
from polyglot_jax.corpus.plan import Job

KEY = np.dtype([("hash", "<u8"), ("hash2", "<u8"), ("doc", "<u4")])  # doc: its row in the unit
# A document to drop, in the group of its unit, and the one that stays in its place.
DROP = np.dtype([("doc", "<u4"), ("first_unit", "<u4"), ("first_doc", "<u4")])

_LOWER = bytes(range(256)).lower()


def text_hash(text: str) -> bytes:
    """Returns what equal documents share: 128 bits of the text without case, width and blanks."""
    if not unicodedata.is_normalized("NFKC", text):  # a quick look spares most texts the work
        text = unicodedata.normalize("NFKC", text)
    # As bytes it is three times as fast: of cleaned text, NFKC leaves only these blanks, and case
    # beyond ASCII is rare in Korean.
    return hashlib.blake2b(text.encode().translate(_LOWER, b" \t\n"), digest_size=16).digest()


def keys(digests: bytes, docs: Sequence[int] | np.ndarray) -> np.ndarray:
    """Returns KEY records of concatenated text hashes and the documents that they are of."""
    found = np.empty(len(docs), KEY)
    halves = np.frombuffer(digests, "<u8").reshape(-1, 2)
    found["hash"], found["hash2"], found["doc"] = halves[:, 0], halves[:, 1], docs
    return found


def first_of_bucket(
    job: Job, units: Sequence[str], folder: str, result: str, bucket: int, buckets: int
) -> None:
    """Task: finds the duplicates among the keys of one bucket, from `folder` to `result`."""
    path = job.path(result, f"{bucket:04d}")
    if path.exists():  # one file, which is whole if it is there
        return
    parts = [records.read_bucket(job.path(folder, unit), KEY, bucket, buckets) for unit in units]
    found = np.concatenate(parts)
    unit = np.repeat(np.arange(len(units), dtype=np.uint32), [len(part) for part in parts])
    del parts
    # Stable: units and, in them, documents stay in the order of the inputs.
    order = np.lexsort((found["hash2"], found["hash"]))
    found, unit = found[order], unit[order]
    write_drops(path, unit, found["doc"], first_of_runs(found["hash"], found["hash2"]), len(units))


def first_of_runs(*columns: np.ndarray) -> np.ndarray:
    """Returns for each row of sorted columns the index of the first row that equals it."""
    new = np.zeros(len(columns[0]), bool)
    new[:1] = True
    for column in columns:
        new[1:] |= column[1:] != column[:-1]
    return np.maximum.accumulate(np.where(new, np.arange(len(new)), 0))


def write_drops(
    path: epath.Path, unit: np.ndarray, doc: np.ndarray, first: np.ndarray, units: int
) -> None:
    """Writes DROP records, grouped by unit, of the rows whose `first` is another row."""
    (rows,) = np.nonzero(first != np.arange(len(first)))
    rows = rows[np.lexsort((doc[rows], unit[rows]))]
    drops = np.empty(len(rows), DROP)
    drops["doc"] = doc[rows]
    drops["first_unit"], drops["first_doc"] = unit[first[rows]], doc[first[rows]]
    records.write(path, drops, unit[rows].astype(np.int64), units)


def drops_of(job: Job, result: str, buckets: int, unit: int) -> np.ndarray:
    """Returns the DROP records of the unit with this index, sorted by document."""
    parts = [
        records.read(job.path(result, f"{bucket:04d}"), DROP, unit, unit + 1)
        for bucket in range(buckets)
    ]
    found = np.concatenate(parts)
    return found[np.argsort(found["doc"], kind="stable")]
