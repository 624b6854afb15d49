"""Token shards on disk: flat arrays of token ids, where documents end, and a manifest.

A source directory holds `tokenizer.json`, the array `token_bytes`, and the splits `train/` and
`held_out/`. A split is one long stream of tokens, cut into shards only so that files stay handy:
nothing above this module sees where one shard ends. The one idea is that the manifest, written
last, names everything that makes the split whole, and opening a split compares the files with it.
`docs/shards.md` specifies the format to the byte.

    python -m polyglot_jax.data.shards --verify=DIR [--verify=DIR ...]
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorstore as ts
from absl import flags
from etils import epath

from polyglot_jax import cli, files
from polyglot_jax.data.manifest import REMEDY, SPLITS, Manifest, Shard, read_manifest

_INNER = {"uint16": 65_536, "uint32": 65_536, "uint64": 16_384}  # elements of an inner chunk


# ---- arrays


def _spec(path: epath.Path, dtype: str, size: int) -> dict[str, Any]:
    """Returns the TensorStore spec of one array: one file `c/0`, in checksummed inner chunks."""
    bucket, _, key = str(path).removeprefix("gs://").partition("/")
    remote = str(path).startswith("gs://")
    plain = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
    inner = _INNER[dtype]
    sharding = {"chunk_shape": [inner], "codecs": plain, "index_codecs": plain}
    return {
        "driver": "zarr3",
        "kvstore": {"driver": "gcs", "bucket": bucket, "path": f"{key}/"}
        if remote
        else {"driver": "file", "path": f"{os.path.abspath(path)}/"},
        # By default a lost file reads as zeros, and chunks of zeros are not written.
        "fill_missing_data_reads": False,
        "store_data_equal_to_fill_value": True,
        "metadata": {
            "shape": [size],
            "data_type": dtype,
            "fill_value": 0,
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": [-(-size // inner) * inner]},
            },
            "chunk_key_encoding": {"name": "default"},
            "codecs": [
                {
                    "name": "sharding_indexed",
                    "configuration": {**sharding, "index_location": "end"},
                }
            ],
        },
    }


def _write_array(path: epath.Path, values: np.ndarray) -> None:
    spec = _spec(path, values.dtype.name, values.size)
    ts.open(spec, create=True, delete_existing=True).result().write(values).result()


def _open_array(path: epath.Path, dtype: str, size: int, context: ts.Context) -> ts.TensorStore:
    """Opens an array after comparing its file size and metadata with what they must be."""
    inner = _INNER[dtype]
    chunks = -(-size // inner)
    # Each inner chunk has its crc32c (4 bytes) and an index entry (16); so has the index (4).
    expected = chunks * (inner * np.dtype(dtype).itemsize + 4 + 16) + 4
    file = path / "c" / "0"
    try:
        found = files.stat(file).length
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{file} is missing; {REMEDY}") from None
    if found != expected:
        raise ValueError(f"{file} has {found} bytes instead of {expected}; {REMEDY}")
    return _checked(
        lambda: ts.open(_spec(path, dtype, size), open=True, context=context).result(), path
    )


def _checked(read: Callable[[], Any], path: epath.Path) -> Any:
    try:
        return read()
    except ValueError as error:  # what TensorStore raises for every failure
        reason = str(error).split(" [tensorstore_spec", 1)[0]
        raise ValueError(f"{path} is damaged ({reason}); {REMEDY}") from None


def write_shard(
    split_dir: epath.PathLike,
    name: str,
    tokens: np.ndarray,
    document_ends: np.ndarray,
    num_bytes: int,
) -> Shard:
    """Writes one shard and returns its entry for the manifest.

    Args:
      split_dir: directory of the split; it is made where it does not exist.
      name: directory of the shard inside it; what is there is replaced.
      tokens: uint16 or uint32, every document followed by the separator.
      document_ends: rising ends (exclusive) of the documents in `tokens`; the last is its size.
      num_bytes: UTF-8 bytes of the documents' text.
    """
    path = epath.Path(split_dir) / name
    _write_array(path / "tokens", tokens)
    _write_array(path / "document_ends", document_ends.astype(np.uint64))
    return Shard(
        name=name,
        documents=document_ends.size,
        tokens=tokens.size,
        bytes=num_bytes,
        sha256=hashlib.sha256(little_endian(tokens)).hexdigest(),
    )


def write_token_bytes(source_dir: epath.PathLike, token_bytes: np.ndarray) -> None:
    """Writes uint16[vocab_size], the UTF-8 bytes that each id stands for (0: special tokens)."""
    _write_array(epath.Path(source_dir) / "token_bytes", token_bytes.astype(np.uint16))


def read_token_bytes(source_dir: epath.PathLike, vocab_size: int) -> np.ndarray:
    """Returns the uint16[vocab_size] of `write_token_bytes`. Raises ValueError if damaged."""
    path = epath.Path(source_dir) / "token_bytes"
    array = _open_array(path, "uint16", vocab_size, ts.Context())
    return _checked(lambda: array.read().result(), path)


def little_endian(values: np.ndarray) -> bytes:
    return values.astype(values.dtype.newbyteorder("<")).tobytes()


# ---- reading


@dataclass(frozen=True)
class PendingRead:
    """A read under way; `result` waits for it."""

    _pieces: tuple[tuple[ts.Future, epath.Path], ...]

    def result(self) -> np.ndarray:
        """Returns the tokens. Raises ValueError, with the file, where a checksum is wrong."""
        pieces = [_checked(future.result, path) for future, path in self._pieces]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


@dataclass(frozen=True)
class TokenStore:
    """The token stream of a split, opened for random access. Built by `open_split`."""

    split_dir: epath.Path
    manifest: Manifest
    _arrays: tuple[tuple[ts.TensorStore, epath.Path], ...]
    _ends: np.ndarray  # of the shards in the stream

    @property
    def num_tokens(self) -> int:
        return self.manifest.tokens

    def start_read(self, start: int, length: int) -> PendingRead:
        """Starts to read tokens [start, start + length) of the stream, over shards if need be."""
        assert 0 <= start < start + length <= self.num_tokens
        pieces = []
        i = int(np.searchsorted(self._ends, start, side="right"))
        while length:
            offset = start - int(self._ends[i] - self.manifest.shards[i].tokens)
            size = min(length, self.manifest.shards[i].tokens - offset)
            array, path = self._arrays[i]
            pieces.append((array[offset : offset + size].read(), path))
            start, length, i = start + size, length - size, i + 1
        return PendingRead(tuple(pieces))

    def read(self, starts: Sequence[int], lengths: Sequence[int]) -> list[np.ndarray]:
        """Returns the tokens of windows; all reads are under way before the first is awaited."""
        reads = [self.start_read(int(s), int(n)) for s, n in zip(starts, lengths, strict=True)]
        return [read.result() for read in reads]

    def document_ends(self) -> np.ndarray:
        """Returns uint64[documents], the exclusive ends of the documents in the stream."""
        ends = [_document_ends(self.split_dir, shard) for shard in self.manifest.shards]
        return np.concatenate(
            [
                e + (end - np.uint64(s.tokens))
                for e, end, s in zip(ends, self._ends, self.manifest.shards, strict=True)
            ]
        )


def open_split(split_dir: epath.PathLike) -> TokenStore:
    """Opens a split whose files are there with the right sizes, shapes and dtypes.

    Raises:
      ValueError: a file is missing, truncated, or not what the manifest says. A flipped bit is
        found when it is read, or by `verify`.
    """
    split_dir = epath.Path(split_dir)
    manifest = read_manifest(split_dir)
    context = ts.Context()
    is_remote, inside = files.is_remote(split_dir), os.path.realpath(split_dir) + os.sep

    def open_shard(shard: Shard) -> tuple[ts.TensorStore, epath.Path]:
        ends, tokens = (split_dir / shard.name / array for array in ("document_ends", "tokens"))
        for file in (ends / "c" / "0", tokens / "c" / "0"):
            if not is_remote and not os.path.realpath(file).startswith(inside):
                raise ValueError(f"{file} is a link that leads out of {split_dir}; copy the file")
        _open_array(ends, "uint64", shard.documents, context)
        return _open_array(tokens, manifest.dtype, shard.tokens, context), tokens

    with ThreadPoolExecutor(16) as pool:  # waits on the network where the shards are remote
        arrays = tuple(pool.map(open_shard, manifest.shards))
    ends = np.cumsum([shard.tokens for shard in manifest.shards], dtype=np.uint64)
    return TokenStore(split_dir, manifest, arrays, ends)


def _document_ends(split_dir: epath.Path, shard: Shard) -> np.ndarray:
    path = split_dir / shard.name / "document_ends"
    array = _open_array(path, "uint64", shard.documents, ts.Context())
    return _checked(lambda: array.read().result(), path)


def verify(source_dir: epath.PathLike) -> None:
    """Reads everything in a source directory and compares it with its manifests.

    Raises:
      ValueError: the first file that is missing or damaged, and what is wrong with it.
    """
    source_dir = epath.Path(source_dir)
    manifests = [read_manifest(source_dir / split) for split in SPLITS]
    for manifest in manifests:
        check_tokenizer(source_dir, manifest)
        read_token_bytes(source_dir, manifest.vocab_size)
        _verify_split(open_split(source_dir / manifest.split))


def check_tokenizer(source_dir: epath.Path, manifest: Manifest) -> epath.Path:
    """Returns the path of a source's tokenizer. Raises ValueError if a split is not of it."""
    tokenizer = source_dir / "tokenizer.json"
    if not tokenizer.exists():
        raise ValueError(f"{tokenizer} is missing; {REMEDY}")
    if manifest.tokenizer_sha256 != hashlib.sha256(tokenizer.read_bytes()).hexdigest():
        raise ValueError(f"{tokenizer} is not the one that wrote {manifest.split}; {REMEDY}")
    return tokenizer


def main() -> None:
    for source in flags.FLAGS.verify:
        verify(source)
        print(f"{source} is whole")


def _verify_split(store: TokenStore) -> None:
    manifest = store.manifest
    start = 0
    for shard in manifest.shards:
        path = store.split_dir / shard.name
        tokens = store.start_read(start, shard.tokens).result()
        start += shard.tokens
        if hashlib.sha256(little_endian(tokens)).hexdigest() != shard.sha256:
            raise ValueError(f"{path}/tokens: its sha256 is not the manifest's; {REMEDY}")
        if tokens.max() >= manifest.vocab_size:
            raise ValueError(
                f"{path}/tokens: id {tokens.max()} is outside the vocabulary; {REMEDY}"
            )
        separators = np.flatnonzero(tokens == manifest.separator_id)
        if not np.array_equal(separators + 1, _document_ends(store.split_dir, shard)):
            raise ValueError(f"{path}/document_ends: not the ends of the documents; {REMEDY}")


if __name__ == "__main__":
    flags.DEFINE_multi_string("verify", None, "Source directory to read in full; repeatable.")
    flags.mark_flag_as_required("verify")
    cli.run(main)
