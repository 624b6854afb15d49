"""The two tasks of the encoder: spill an input file sorted by hash, merge a range into a shard.

A document's place is its order hash, drawn from its text and the seed. A task per file tokenises
and writes *runs* sorted by that hash, with a table that says where each of 4,096 equal ranges of
it begins; a task per shard reads its ranges out of every run. Each task leaves an ok-file, written
last, and does nothing where there is one. What it writes depends on its inputs alone.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from etils import epath
from tokenizers import Tokenizer

from polyglot_jax import files, pool
from polyglot_jax.data import documents
from polyglot_jax.data.manifest import SPLITS
from polyglot_jax.data.shards import little_endian, write_shard
from polyglot_jax.tokens import END_OF_TEXT

CELLS = 4096  # ranges of the order hash, so also the most shards of a split
_DOC = np.dtype([("order", "<u8"), ("tokens", "<u8"), ("bytes", "<u8")])
_RUN_TOKENS = 2**25  # sorted in memory and spilled at a time,
_RUN_DOCUMENTS = 2**18  # and no more than these, however short they are
_BATCH_BYTES = 2**20  # of text given to the tokenizer at a time


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every task knows."""

    files: tuple[str, ...]
    tokenizer: str
    output: str
    seed: int
    held_out_fraction: float
    dtype: str  # of the tokens

    def path(self, name: str) -> epath.Path:
        return epath.Path(self.output) / "_work" / name

    def file_ok(self, i: int) -> epath.Path:
        """The ok-file of an input file: its version, runs, tokens by split and hash
        range, and how many documents were empty or lost text to the tokenizer."""
        return self.path(f"file-{i:05d}.json")

    def shard_ok(self, split: str, i: int) -> epath.Path:
        """The ok-file of a shard: its entry for the manifest, or null where it holds nothing."""
        return self.path(f"{split}-{i:05d}.json")


def version(file: epath.PathLike) -> list[str | int]:
    """Returns what changes with an input file: its name, bytes, and time of writing."""
    stat = files.stat(file)
    return [epath.Path(file).name, stat.length, int(stat.mtime)]


@functools.cache
def _tokenizer(path: str) -> tuple[Tokenizer, tuple[bytes, ...]]:
    tokenizer = documents.tokenizer_for_documents(epath.Path(path).read_bytes(), where=path)
    return tokenizer, documents.token_table(tokenizer, where=path)


@dataclass(frozen=True)
class _Doc:
    split: str
    share: float  # of the texts whose hash is below this one's
    order: int
    ids: np.ndarray
    num_bytes: int


def spill_file(job: Job, i: int) -> None:
    """Tokenises input file `i` into runs. Raises ValueError as `documents.read_texts` does."""
    ok: dict[str, Any] = {"input": version(job.files[i]), "runs": 0, "empty": 0, "lossy": 0}
    ok |= {"lowest": 1.0, "highest": 0.0}
    if job.file_ok(i).exists():
        if json.loads(job.file_ok(i).read_text())["input"] == ok["input"]:
            return
        job.file_ok(i).unlink()  # its runs are about to be written over
    ok |= dict.fromkeys(SPLITS, 0)

    def spill(docs: list[_Doc]) -> None:
        for split in SPLITS:
            _write_run(
                job, f"{i:05d}-{ok['runs']:05d}-{split}", [d for d in docs if d.split == split]
            )
        ok["runs"] += 1

    run: list[_Doc] = []
    run_tokens = 0
    for texts in _batches(documents.read_texts(epath.Path(job.files[i]))):
        docs, lossy = _tokenise(job, texts)
        ok["lossy"] += lossy
        pool.count(len(texts))
        ok["empty"] += len(texts) - len(docs)
        for doc in docs:
            ok[doc.split] += doc.ids.size
            ok["lowest"] = min(ok["lowest"], doc.share)
            ok["highest"] = max(ok["highest"], doc.share)
        run += docs
        run_tokens += sum(doc.ids.size for doc in docs)
        if run_tokens >= _RUN_TOKENS or len(run) >= _RUN_DOCUMENTS:
            spill(run)
            run, run_tokens = [], 0
    spill(run)
    files.write(job.file_ok(i), json.dumps(ok).encode())


def _batches(texts: Iterator[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text) + 1  # empty texts must not pile up either
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    yield batch


def _tokenise(job: Job, texts: list[bytes]) -> tuple[list[_Doc], int]:
    """Returns the documents of a batch that are not empty, and how many texts lost something."""
    tokenizer, table = _tokenizer(job.tokenizer)
    separator = tokenizer.token_to_id(END_OF_TEXT)
    encodings = tokenizer.encode_batch_fast(
        [text.decode() for text in texts], add_special_tokens=False
    )
    docs = []
    lossy = 0
    for text, encoding in zip(texts, encodings, strict=True):
        lossy += b"".join([table[i] for i in encoding.ids]) != text
        if not encoding.ids:
            continue
        key = hashlib.blake2b(text, digest_size=16).digest()
        order = hashlib.blake2b(key, digest_size=8, key=job.seed.to_bytes(8, "little")).digest()
        share = int.from_bytes(key[:8], "little") / 2**64
        docs.append(
            _Doc(
                # Decided by the text alone, so that no copy of it lies on both sides.
                split="held_out" if share < job.held_out_fraction else "train",
                share=share,
                order=int.from_bytes(order, "little"),
                ids=np.array([*encoding.ids, separator], job.dtype),
                num_bytes=len(text),
            )
        )
    return docs, lossy


def _write_run(job: Job, name: str, docs: list[_Doc]) -> None:
    docs = sorted(docs, key=lambda doc: doc.order)
    rows = np.array([(doc.order, doc.ids.size, doc.num_bytes) for doc in docs], _DOC)
    cells = np.arange(CELLS + 1, dtype=np.uint64)
    first = np.searchsorted(rows["order"] // np.uint64(2**64 // CELLS), cells)
    starts = np.concatenate([[0], np.cumsum(rows["tokens"], dtype=np.uint64)])
    bounds = np.stack([first, starts[first]], axis=1).astype("<u8")
    files.write(job.path(f"{name}.cells"), bounds.tobytes())
    files.write(job.path(f"{name}.docs"), rows.tobytes())
    files.write(job.path(f"{name}.tokens"), *(little_endian(doc.ids) for doc in docs))


def merge_shard(job: Job, split: str, i: int, num_shards: int) -> None:
    """Writes shard `i` of a split: its part of the order hash, out of the runs of every file."""
    if job.shard_ok(split, i).exists():
        return
    cells = (i * CELLS // num_shards, (i + 1) * CELLS // num_shards)
    parts = []
    for file in range(len(job.files)):
        runs = json.loads(job.file_ok(file).read_text())["runs"]
        parts += [_read_run(job, f"{file:05d}-{run:05d}-{split}", cells) for run in range(runs)]
    docs = np.concatenate([docs for docs, _ in parts])
    entry = None
    if docs.size:
        tokens = np.concatenate([tokens for _, tokens in parts])
        ends = np.cumsum(docs["tokens"]).astype(np.int64)
        # Stable: equal hashes keep the order of files and of the rows in them.
        order = np.argsort(docs["order"], kind="stable")
        texts = [tokens[ends[k] - int(docs["tokens"][k]) : ends[k]] for k in order]
        shard = write_shard(
            epath.Path(job.output) / split,
            f"shard-{i:05d}",
            np.concatenate(texts),
            np.cumsum(docs["tokens"][order]),
            int(docs["bytes"].sum()),
        )
        pool.count(shard.documents)
        entry = dataclasses.asdict(shard)
    files.write(job.shard_ok(split, i), json.dumps(entry).encode())


def _read_run(job: Job, name: str, cells: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the documents of a range of cells and their tokens, still sorted."""

    def read(suffix: str, dtype: np.dtype, start: int, end: int) -> np.ndarray:
        with job.path(f"{name}.{suffix}").open("rb") as file:
            file.seek(start * dtype.itemsize)
            return np.frombuffer(file.read((end - start) * dtype.itemsize), dtype)

    bounds = np.dtype(("<u8", 2))
    first, end = (read("cells", bounds, cell, cell + 1)[0].tolist() for cell in cells)
    docs = read("docs", _DOC, first[0], end[0])
    little = np.dtype(job.dtype).newbyteorder("<")
    return docs, read("tokens", little, first[1], end[1]).astype(job.dtype)
