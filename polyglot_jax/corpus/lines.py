"""Lines of plain and packed files in bounded memory: a line over the limit is counted, not held."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

import pyarrow as pa
from etils import epath

from polyglot_jax.corpus.document import MAX_BYTES

_BUFFER = 1 << 16  # bytes; of a damaged .zst file, up to so many before the damage are lost
_UNREADABLE = (EOFError, OSError, zlib.error, pa.ArrowException)


class UnreadableError(Exception):
    """A file that cannot be read on; the message says why."""


@contextmanager
def opened(path: epath.Path) -> Iterator[IO[bytes]]:
    """Opens a file for reading, unpacked if its name ends in .gz or .zst."""
    with path.open("rb") as raw:
        if path.name.endswith(".gz"):
            yield cast(IO[bytes], gzip.GzipFile(fileobj=raw))
        elif path.name.endswith(".zst"):
            yield io.BufferedReader(cast(Any, pa.CompressedInputStream(raw, "zstd")), _BUFFER)
        else:
            yield raw


def lines(path: epath.Path, begin: int = 0, end: int | None = None) -> Iterator[bytes | int]:
    """Yields each line with its end, or the size in bytes of one over MAX_BYTES.

    Args:
      path: file; `begin` and `end` need a plain one.
      begin: offset of the first line in bytes. A byte order mark at 0 is left out.
      end: offset of the line after the last, None for the end of the file.

    Raises:
      UnreadableError: after the lines that stand before the damage.
    """
    with _errors(path), opened(path) as stream:
        if begin:
            stream.seek(begin)
        at = begin
        while end is None or at < end:
            line = stream.readline(MAX_BYTES + 1)
            if not line:
                return
            size = len(line)
            if size > MAX_BYTES:
                while line and not line.endswith(b"\n"):
                    line = stream.readline(_BUFFER)
                    size += len(line)
                yield size
            else:
                yield line if at else line.removeprefix(b"\xef\xbb\xbf")
            at += size


def whole(path: epath.Path) -> bytes | int:
    """Returns a file's bytes without byte order mark, or the size of one over MAX_BYTES.

    Raises:
      UnreadableError: it cannot be read to its end.
    """
    with _errors(path), opened(path) as stream:
        data = stream.read(MAX_BYTES + 1)
        if len(data) <= MAX_BYTES:
            return data.removeprefix(b"\xef\xbb\xbf")
        size = len(data)
        while block := stream.read(_BUFFER):
            size += len(block)
        return size


@contextmanager
def _errors(path: epath.Path) -> Iterator[None]:
    try:
        yield
    except _UNREADABLE as error:
        kind = "damaged gzip" if path.name.endswith(".gz") else "cannot be read"
        kind = "damaged zstd" if path.name.endswith(".zst") else kind
        if isinstance(error, OSError) and error.errno is not None:
            kind = "cannot be read"
        raise UnreadableError(f"{kind}: {' '.join(str(error).split())}") from None
