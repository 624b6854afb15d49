"""Near duplicates: MinHash, candidates by bands, verified, clustered; the first of a cluster stays.

Two documents are the same if the Jaccard similarity of their shingle sets, estimated from 126
hashes, reaches the threshold. A pair of similarity s becomes a candidate with the probability
1 - (1 - s^rows)^bands; `bands_for` takes the most rows for which that is at least 95 % at the
threshold: for 0.8, 18 bands of 7 rows (98.6 % at 0.8, 99.999 % at 0.9, 40 % at 0.6).

The hashes are datasketch's (scheme "affine32"): pure NumPy, hence the same on every platform, with
a scheme that is named so that a later version cannot change it in silence.

In a bucket the members of a band are compared with its first, those unlike it with the first of
those, and so on, `_LEADERS` times: linear, where all pairs of 100,000 equal pages would be 5e9.
"""

import functools
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from polyglot_jax.corpus import dedup, records
from polyglot_jax.corpus.plan import Job
from polyglot_jax.corpus.survivors import Rounds, documents

HASHES = 126  # divides into many bands
SHINGLE = {"characters": 5, "words": 3}  # of them in a shingle; characters without blanks
RULE = "near_duplicate"  # its name in the report
BAND = np.dtype([("hash", "<u8"), ("doc", "<u4")])
# 16 bits of each hash do to compare: two differing ones agree by chance once in 65,536.
SIGNATURE = np.dtype([("values", "<u2", (HASHES,))])
PAIR = np.dtype([("first", "<u8"), ("second", "<u8")])  # documents: unit << 32 | number in it
_LEADERS = 8
_EXAMPLES = 10
_MEMBERS = 1 << 17  # whose signatures are held at a time, 252 bytes each; a larger band is whole
_MIX = np.uint64(0xFF51AFD7ED558CCD)


def bands_for(threshold: float) -> tuple[int, int]:
    """Returns (bands, rows of each) that find 95 % of the pairs at the threshold or more."""
    sizes = [rows for rows in range(1, HASHES + 1) if HASHES % rows == 0]
    enough = [r for r in sizes if 1 - (1 - threshold**r) ** (HASHES // r) >= 0.95]
    return HASHES // max(enough), max(enough)


def shingles(text: str, unit: str) -> np.ndarray:
    """Returns the 32-bit hashes of a text's shingles; of a text of fewer, of all of it."""
    width = SHINGLE[unit]
    if unit == "words":
        items = np.array([_word(word) for word in text.split()], np.uint64)
    else:
        packed = "".join(text.split()).encode("utf-32-le")
        items = np.frombuffer(packed, "<u4").astype(np.uint64)
    count = max(1, len(items) - width + 1)
    hashes = np.zeros(count, np.uint64)
    for i in range(min(width, len(items))):
        hashes = hashes * _MIX + items[i : i + count]
        hashes ^= hashes >> np.uint64(29)
    return np.unique((hashes * _MIX) >> np.uint64(32))


@functools.lru_cache(1 << 16)
def _word(word: str) -> int:
    return zlib.crc32(word.encode())


def signature(hashes: np.ndarray) -> np.ndarray:
    """Returns uint32[HASHES], the least of each permutation of a set's hashes."""
    from datasketch import MinHash

    minhash = MinHash(HASHES, hashfunc=int, permutations=_permutations(), scheme="affine32")
    minhash.update_batch(hashes.tolist())
    return minhash.hashvalues


@functools.cache
def _permutations() -> Any:
    from datasketch import MinHash

    return MinHash(HASHES, seed=1, scheme="affine32").permutations


def sign_unit(job: Job, units: Sequence[str], unit: int, rounds: Rounds) -> None:
    """Task: writes the signature of each document that is left, and its bands by hash."""
    records.once(job.path("signed", f"{units[unit]}.json"), lambda: _sign(job, units, unit, rounds))


def _sign(job: Job, units: Sequence[str], unit: int, rounds: Rounds) -> dict[str, Any]:
    assert job.near_duplicates is not None
    bands, rows = bands_for(job.near_duplicates)
    docs, values = [], bytearray()
    hashes: list[np.ndarray] = []
    num = 0
    for found in documents(job, units, unit, rounds):
        num = found.doc + 1
        if found.drop is None:
            signed = signature(shingles(found.text, job.shingles))
            docs.append(found.doc)
            values += signed.astype("<u2").tobytes()
            hashes.append(_band_hashes(signed.reshape(bands, rows)))
    name = units[unit]
    signatures = np.frombuffer(bytes(values), SIGNATURE)
    records.write(job.path("signatures", name), signatures, np.array(docs, int), max(num, 1))
    found_bands = np.empty(len(docs) * bands, BAND)
    found_bands["doc"] = np.repeat(np.array(docs, np.uint32), bands)
    found_bands["hash"] = np.concatenate(hashes) if hashes else 0
    records.write_by_hash(job.path("bands", name), found_bands)
    return {"bands": len(found_bands)}


def _band_hashes(values: np.ndarray) -> np.ndarray:
    """Returns uint64[bands] of uint32[bands, rows]; equal rows of two bands differ."""
    hashes = np.arange(1, len(values) + 1, dtype=np.uint64) * _MIX
    for column in values.astype(np.uint64).T:
        hashes = (hashes ^ column) * _MIX
        hashes ^= hashes >> np.uint64(32)
    return hashes * _MIX


def pairs_of_bucket(job: Job, units: Sequence[str], bucket: int, buckets: int) -> None:
    """Task: finds the pairs of one bucket of bands that are near duplicates."""
    path = job.path("pairs", f"{bucket:04d}")
    if path.exists():
        return
    parts = [records.read_bucket(job.path("bands", unit), BAND, bucket, buckets) for unit in units]
    found = np.concatenate(parts)
    unit_of = np.repeat(np.arange(len(units), dtype=np.uint32), [len(part) for part in parts])
    del parts
    order = np.argsort(found["hash"], kind="stable")
    doc, unit_of = found["doc"][order], unit_of[order]
    first = dedup.first_of_runs(found["hash"][order])
    del found, order
    _, group, sizes = np.unique(first, return_inverse=True, return_counts=True)
    (shared,) = np.nonzero(sizes[group] > 1)
    pairs = [np.empty(0, PAIR)]
    for rows in _cut(shared, group):
        pairs.append(_verified(job, units, unit_of[rows], doc[rows], group[rows]))
    records.write_all(path, np.unique(np.concatenate(pairs)))


def _cut(rows: np.ndarray, group: np.ndarray) -> Iterator[np.ndarray]:
    """Yields rows, sorted by group, in runs of whole groups of _MEMBERS or a little more."""
    begin = 0
    while begin < len(rows):
        end = min(begin + _MEMBERS, len(rows))
        while end < len(rows) and group[rows[end]] == group[rows[end - 1]]:
            end += 1
        yield rows[begin:end]
        begin = end


def _verified(
    job: Job, units: Sequence[str], unit: np.ndarray, doc: np.ndarray, group: np.ndarray
) -> np.ndarray:
    """Returns the pairs of (leader, member) of each group whose estimate reaches the threshold."""
    assert job.near_duplicates is not None
    values = np.empty((len(doc), HASHES), np.uint16)
    for index in np.unique(unit):
        (here,) = np.nonzero(unit == index)
        docs, back = np.unique(doc[here], return_inverse=True)
        signatures = records.read_ones(job.path("signatures", units[index]), SIGNATURE, docs)
        values[here] = signatures["values"][back]
    whole = unit.astype(np.uint64) << np.uint64(32) | doc
    active = np.arange(len(doc))
    pairs = [np.empty(0, PAIR)]
    for _ in range(_LEADERS):
        leader = active[dedup.first_of_runs(group[active])]
        alike = np.mean(values[active] == values[leader], axis=1) >= job.near_duplicates
        member, first = active[alike & (active != leader)], leader[alike & (active != leader)]
        found = np.empty(len(member), PAIR)
        found["first"], found["second"] = whole[first], whole[member]
        pairs.append(found)
        active = active[~alike]
        if not len(active):
            break
    return np.concatenate(pairs)


def cluster(job: Job, units: Sequence[str], buckets: int) -> None:
    """Task: joins the pairs of all buckets to clusters, of which all but the first go.

    The one step that holds a round of the whole corpus: some 50 bytes a pair of near duplicates.
    Writes `near/0000` and then `near/clusters.json` (`documents`, those that go; `clusters`;
    `sizes`, clusters by size; `examples`, up to five [unit, document] of the ten largest).
    """
    records.once(job.path("near", "clusters.json"), lambda: _cluster(job, units, buckets))


def _cluster(job: Job, units: Sequence[str], buckets: int) -> dict[str, Any]:
    from scipy import sparse
    from scipy.sparse import csgraph

    parts = [records.read_all(job.path("pairs", f"{b:04d}"), PAIR) for b in range(buckets)]
    pairs = np.unique(np.concatenate(parts))
    nodes, ends = np.unique(np.stack([pairs["first"], pairs["second"]]), return_inverse=True)
    ends = ends.reshape(2, -1)
    edges = sparse.coo_array(
        (np.ones(len(pairs), bool), (ends[0], ends[1])), shape=(len(nodes),) * 2
    )
    _, label = csgraph.connected_components(edges, directed=False)
    order = np.argsort(label, kind="stable")  # nodes ascend, so the first of a cluster leads it
    nodes, label = nodes[order], label[order]
    first = dedup.first_of_runs(label)
    unit, doc = (nodes >> np.uint64(32)).astype(np.uint32), nodes.astype(np.uint32)
    dedup.write_drops(job.path("near", "0000"), unit, doc, first, len(units))
    starts, sizes = np.unique(first, return_counts=True)
    largest = np.lexsort((nodes[starts], -sizes))[:_EXAMPLES]
    return {
        "documents": int(len(nodes) - len(starts)),
        "clusters": len(starts),
        "sizes": {
            str(s): int(n) for s, n in zip(*np.unique(sizes, return_counts=True), strict=True)
        },
        "examples": [
            [[int(unit[i]), int(doc[i])] for i in range(starts[c], starts[c] + min(5, sizes[c]))]
            for c in largest
        ],
    }
