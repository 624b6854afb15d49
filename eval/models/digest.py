"""Tells models apart by what is in their files."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from etils import epath

from polyglot_jax import files

SMALL = 2**20  # bytes


def of_hf(directory: Path) -> str:
    """Returns 16 hex digits of the SHA-256 of an HF directory: names and whole contents of the
    files that hold weights, configuration and tokenizer (which may be merges.txt or *.model)."""
    patterns = ("*.safetensors", "*.json", "*.txt", "*.model")
    found = [path for pattern in patterns for path in directory.glob(pattern)]

    def read(path: Path) -> bytes:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()

    return _digest((path.name, read(path)) for path in sorted(found))


def of_checkpoint(workdir: epath.Path, step: int) -> str:
    """Returns 16 hex digits of the SHA-256 of a checkpoint and the tokenizer beside it.

    Of files above 1 MiB only name and size are read: Orbax draws the names of its data files at
    random, writes each once, and lists them in its small ones. So a copy keeps its digest, while a
    checkpoint that is written a second time has another one.
    """
    directory = workdir / "checkpoints" / str(step)
    found = [*sorted(_files(directory)), workdir / "tokenizer.json"]

    def contents(path: epath.Path) -> bytes:
        size = files.stat(path).length
        is_whole = size <= SMALL or path.name == "tokenizer.json"
        return path.read_bytes() if is_whole else str(size).encode()

    return _digest(
        (str(path.relative_to(workdir)), hashlib.sha256(contents(path)).digest()) for path in found
    )


def _files(directory: epath.Path) -> Iterator[epath.Path]:
    for path in directory.iterdir():
        if path.is_dir():
            yield from _files(path)
        else:
            yield path


def _digest(parts: Iterable[tuple[str, bytes]]) -> str:
    digest = hashlib.sha256()
    for name, content in parts:
        digest.update(hashlib.sha256(name.encode()).digest() + content)
    return digest.hexdigest()[:16]
