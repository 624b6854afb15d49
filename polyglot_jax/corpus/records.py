"""Files that tasks hand to each other: written whole, and records that are read group by group.

One task writes records sorted by group, others read the same groups of many such files: a range of
hashes (a bucket), or the documents of one unit. A file is the number of groups, the offset of each,
and the records, all little-endian; a group is two seeks away, so a bucket of thousands of files
needs no shuffle and only its own memory.
"""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from etils import epath

from polyglot_jax import files

HASH_GROUPS = 4096  # a bucket is a power of two of them: as many buckets as the corpus needs
BUCKET_RECORDS = 1 << 21  # held at a time, with about 60 bytes of work space each


def write_json(path: epath.Path, value: Any) -> None:
    files.write(path, json.dumps(value, ensure_ascii=False), "\n")


def once(path: epath.Path, task: Callable[[], dict[str, Any]]) -> None:
    """Does a task whose files are whole only when its ok-file `path` is there, unless it is."""
    if not path.exists():
        write_json(path, task())


def write(path: epath.Path, records: np.ndarray, group: np.ndarray, groups: int) -> None:
    """Writes records sorted by `group`, an integer below `groups` for each."""
    offsets = np.zeros(groups + 1, "<u8")
    np.cumsum(np.bincount(group, minlength=groups), out=offsets[1:])
    with files.writing(path) as file:
        file.write(np.array([groups], "<u8").tobytes())
        file.write(offsets.tobytes())
        file.write(records.tobytes())


def write_by_hash(path: epath.Path, records: np.ndarray) -> None:
    """Writes records in the order of their field `hash`, those of one hash in the order given."""
    records = records[np.argsort(records["hash"], kind="stable")]
    group = (records["hash"] >> np.uint64(52)).astype(np.int64)
    write(path, records, group, HASH_GROUPS)


def read(path: epath.Path, dtype: np.dtype, begin: int, end: int) -> np.ndarray:
    """Reads the records of groups `begin` to `end`."""
    with path.open("rb") as file:
        groups = int(np.frombuffer(file.read(8), "<u8")[0])
        file.seek(8 + 8 * begin)
        first = int(np.frombuffer(file.read(8), "<u8")[0])
        file.seek(8 + 8 * end)
        last = int(np.frombuffer(file.read(8), "<u8")[0])
        file.seek(8 + 8 * (groups + 1) + first * dtype.itemsize)
        return np.frombuffer(file.read((last - first) * dtype.itemsize), dtype)


def read_bucket(path: epath.Path, dtype: np.dtype, bucket: int, buckets: int) -> np.ndarray:
    """Reads the records of one of `buckets` equal ranges of hashes."""
    width = HASH_GROUPS // buckets
    return read(path, dtype, bucket * width, (bucket + 1) * width)


def buckets_for(records: int) -> int:
    """Returns the number of buckets that a bucket of so many records in all fits memory with."""
    buckets = 1
    while records / buckets > BUCKET_RECORDS and buckets < HASH_GROUPS:
        buckets *= 2
    return buckets


def write_all(path: epath.Path, records: np.ndarray) -> None:
    """Writes records of which `read_all` reads all."""
    write(path, records, np.zeros(len(records), np.int64), 1)


def read_all(path: epath.Path, dtype: np.dtype) -> np.ndarray:
    return read(path, dtype, 0, 1)


def read_ones(path: epath.Path, dtype: np.dtype, groups: np.ndarray) -> np.ndarray:
    """Reads the one record that each of some groups holds."""
    with path.open("rb") as file:
        count = int(np.frombuffer(file.read(8), "<u8")[0])
        offsets = np.frombuffer(file.read(8 * (count + 1)), "<u8")
        data = bytearray()
        for offset in offsets[groups].tolist():
            file.seek(8 * (count + 2) + offset * dtype.itemsize)
            data += file.read(dtype.itemsize)
    return np.frombuffer(bytes(data), dtype)
