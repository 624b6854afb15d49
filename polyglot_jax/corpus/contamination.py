"""Held-out text among the documents: a run of 13 words that an evaluation file has as well.

Words are runs of letters and digits, NFKC, without case. A field of the file (a cell of a TSV, a
string of JSON, a line of text) of 5 to 12 words counts as a whole, as most questions of KOBEST are
that short; shorter ones are everyday speech and count for nothing. The n-grams of all files are one
sorted table of 64-bit hashes, 12 bytes each, that every worker holds.
"""

import csv
import functools
import json
import re
import unicodedata
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from etils import epath

from polyglot_jax.corpus import lines, readers, records
from polyglot_jax.corpus.plan import Job

WORDS = 13  # Brown et al. 2020 (GPT-3), appendix C
FEWEST = 5  # words of a field that counts as a whole
GRAM = np.dtype([("hash", "<u8"), ("file", "<u4")])
_MIX = np.uint64(0x9E3779B97F4A7C15)
_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """Returns what is compared of a text."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def fields_of(file: str) -> Iterator[str]:
    """Yields the fields of an evaluation file: cells, strings, or lines; packed or not.

    Raises:
      ValueError: it cannot be read.
    """
    path = epath.Path(file)
    if path.name.endswith(readers.TABLES):
        for item in readers.read(path):
            if isinstance(item, readers.Reject):
                raise ValueError(f"{item.file}:{item.row}: {item.reason}")
            yield item.text
        return
    kind = re.sub(r"\.(gz|zst)$", "", path.name).rpartition(".")[2]
    try:
        if kind == "json":
            data = lines.whole(path)
            if isinstance(data, int):
                raise ValueError(f"{file}: longer than is read at once: {data:,} bytes")
            yield from _strings(json.loads(data))
            return
        for row, line in enumerate(lines.lines(path), 1):
            if isinstance(line, int):
                raise ValueError(f"{file}:{row}: a line of {line:,} bytes")
            text = line.decode().rstrip("\r\n")
            if kind == "jsonl":
                yield from _strings(json.loads(text)) if text.strip() else ()
            elif kind == "csv":
                yield from next(csv.reader([text]), [])
            else:
                yield from text.split("\t") if kind == "tsv" else [text]
    except lines.UnreadableError as error:
        raise ValueError(f"{file}: {error}") from None
    except ValueError as error:
        raise ValueError(
            str(error) if str(error).startswith(file) else f"{file}: {error}"
        ) from None


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _strings(one)
    elif isinstance(value, list):
        for one in value:
            yield from _strings(one)


def index(job: Job) -> None:
    """Task: writes the table `held_out/grams`, grouped by the number of words."""
    path = job.path("held_out", "grams")
    if path.exists():
        return
    found: list[np.ndarray] = []
    length: list[np.ndarray] = []
    for number, file in enumerate(job.held_out):
        batch: dict[int, list[list[str]]] = {}
        for field in fields_of(file):
            split = words(field)
            if len(split) >= FEWEST:
                batch.setdefault(min(len(split), WORDS), []).append(split)
        for size, many in batch.items():
            hashes, valid = _grams(many, size)
            grams = np.empty(int(valid.sum()), GRAM)
            grams["hash"], grams["file"] = hashes[valid], number
            found.append(grams)
            length.append(np.full(len(grams), size))
    if not found:
        raise ValueError(f"{', '.join(job.held_out)}: no field of {FEWEST} words (--held_out)")
    grams, sizes = np.concatenate(found), np.concatenate(length)
    order = np.lexsort((grams["file"], grams["hash"], sizes))
    records.write(path, grams[order], sizes[order], WORDS + 1)


def _grams(texts: Sequence[Sequence[str]], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the hash of the `size` words from each word on, and whether one text has them."""
    lengths = np.array([len(text) for text in texts])
    items = np.array([zlib.crc32(w.encode()) for text in texts for w in text], np.uint64)
    count = len(items) - size + 1
    if count < 1:
        return np.empty(0, np.uint64), np.empty(0, bool)
    hashes = np.zeros(count, np.uint64)
    for i in range(size):
        hashes = (hashes ^ items[i : i + count]) * _MIX
        hashes ^= hashes >> np.uint64(32)
    ends = np.repeat(np.cumsum(lengths), lengths)[:count]
    return hashes, np.arange(count) + size <= ends


@functools.lru_cache(1)
def _table(path: str) -> list[np.ndarray]:
    """Returns the grams of each size that occurs: a worker reads them once."""
    return [records.read(epath.Path(path), GRAM, size, size + 1) for size in range(WORDS + 1)]


def find(job: Job, texts: Sequence[str]) -> dict[int, tuple[int, str]]:
    """Returns of each text that has held-out words: its index, the file's, and the first words."""
    split = [words(text) for text in texts]
    starts = np.cumsum([0, *(len(text) for text in split)])
    found: dict[int, tuple[int, int, int]] = {}  # by text: first word, file, number of words
    for size, grams in enumerate(_table(str(job.path("held_out", "grams")))):
        if not len(grams):
            continue
        hashes, valid = _grams(split, size)
        at = np.minimum(np.searchsorted(grams["hash"], hashes), len(grams) - 1)
        (hits,) = np.nonzero(valid & (grams["hash"][at] == hashes))
        for hit in hits.tolist():
            text = int(np.searchsorted(starts, hit, "right")) - 1
            one = (hit - int(starts[text]), int(grams["file"][at[hit]]), size)
            found[text] = min(one, found.get(text, one))
    return {
        text: (file, " ".join(split[text][begin : begin + size]))
        for text, (begin, file, size) in sorted(found.items())
    }
