"""Reads documents from JSONL, Parquet and text files, one at a time, with their place.

A plain text file (.txt) holds a document per block between blank lines, a Markdown file is one.
Nothing is skipped in silence: what cannot be a document comes back as a `Reject` that says where
and why, and the caller decides whether to count it or to stop.
"""

import glob
import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath

PLAIN = (".txt", ".txt.gz")
MARKDOWN = (".md", ".md.gz", ".mdx", ".mdx.gz")
KINDS = {
    "JSONL": (".jsonl", ".jsonl.gz"),
    "Parquet": (".parquet",),
    "text": (*PLAIN, *MARKDOWN),
}
SUFFIXES = tuple(suffix for suffixes in KINDS.values() for suffix in suffixes)


@dataclass(frozen=True)
class Document:
    """One text and where it stands: `row` is the number of its row or first line, from 1."""

    file: str
    row: int
    text: str
    source: str | None = None
    id: str | None = None


@dataclass(frozen=True)
class Reject:
    """A line, row or file that is no document."""

    file: str
    row: int
    reason: str


def find_files(pattern: str) -> list[epath.Path]:
    """Returns the files that a path or glob names, sorted.

    A directory stands for all files in it, which must be of one kind; an output of the corpus
    program, known by its report, stands for its Parquet files.

    Raises:
      ValueError: nothing matches, a match has a suffix that no reader knows, or a directory holds
        folders or files of several kinds.
    """
    path = epath.Path(pattern)
    if path.is_dir():
        files = _files_of_directory(path)
    elif path.exists():
        files = [path]
    elif "://" in pattern:
        parts = path.parts
        first = next((i for i, part in enumerate(parts) if set(part) & set("*?[")), len(parts) - 1)
        files = list(epath.Path(*parts[:first]).glob("/".join(parts[first:])))
    else:
        files = [epath.Path(name) for name in glob.glob(pattern, recursive=True)]
    # A leading dot marks what another program is still writing.
    files = sorted((f for f in files if not f.name.startswith(".") and not f.is_dir()), key=str)
    if not files:
        raise ValueError(f"{pattern}: no file matches")
    for file in files:
        if not file.name.endswith(SUFFIXES):
            raise ValueError(
                f"{file}: only {', '.join(SUFFIXES)} are read; name the files to read by a glob"
            )
    return files


def _files_of_directory(path: epath.Path) -> list[epath.Path]:
    if (path / "report.json").exists():
        return list(path.glob("*.parquet"))
    files = sorted((f for f in path.iterdir() if not f.name.startswith(".")), key=str)
    first = {kind: f for kind, ends in KINDS.items() for f in files if f.name.endswith(ends)}
    if len(first) > 1:
        kinds = ", ".join(f"{kind} ({file.name})" for kind, file in first.items())
        raise ValueError(f"{path} mixes {kinds}; name the files to read by a glob")
    for file in files:
        if file.is_dir():
            raise ValueError(f"{path} holds a folder, {file.name}; name the files by a glob: **/*")
    return files


def read(path: epath.Path) -> Iterator[Document | Reject]:
    """Yields the documents of one file in order, and a Reject for each thing that is none.

    Raises:
      ValueError: a Parquet file that cannot be read or has no string column `text`.
    """
    if path.name.endswith(".parquet"):
        return _read_parquet(path)
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        return _read_jsonl(path)
    return _read_plain(path) if path.name.endswith(PLAIN) else _read_whole(path)


def documents(pattern: str) -> Iterator[Document]:
    """Yields the documents of a file, directory or glob that must be clean already.

    Raises:
      ValueError: at the first reject, by file and line; or as `find_files` and `read`.
    """
    for path in find_files(pattern):
        for item in read(path):
            if isinstance(item, Reject):
                raise ValueError(f"{item.file}:{item.row}: {item.reason}")
            yield item


def _read_jsonl(path: epath.Path) -> Iterator[Document | Reject]:
    row = 0
    try:
        with path.open("rb") as raw, _unpacked(path, raw) as lines:
            # Bytes, so that U+2028 inside a string is no line end and one bad line stays one.
            for row, line in enumerate(lines, 1):
                line = line.removeprefix(b"\xef\xbb\xbf") if row == 1 else line
                if line.strip():
                    yield _parse_json(str(path), row, line)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        yield Reject(str(path), row + 1, f"damaged gzip: {error}")


def _parse_json(file: str, row: int, line: bytes) -> Document | Reject:
    text = _decode(file, row, line)
    if isinstance(text, Reject):
        return text
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        return Reject(file, row, f"invalid JSON: {error.msg} at character {error.pos + 1}")
    except ValueError as error:  # an integer of more digits than Python reads
        return Reject(file, row, f"invalid JSON: {error}")
    except RecursionError:
        return Reject(file, row, "invalid JSON: nested too deeply")
    if not isinstance(record, dict):
        return Reject(file, row, f"not an object but a {type(record).__name__}")
    if "text" not in record:
        return Reject(file, row, "no field text")
    return _document(file, row, record["text"], record.get("source"), record.get("id"))


def _read_plain(path: epath.Path) -> Iterator[Document | Reject]:
    row, first = 0, 1
    block: list[bytes] = []

    def document() -> Document | Reject:
        text = _decode(str(path), first, b"".join(block).rstrip(b"\r\n"))
        return text if isinstance(text, Reject) else Document(str(path), first, text)

    try:
        with path.open("rb") as raw, _unpacked(path, raw) as lines:
            for row, line in enumerate(lines, 1):
                line = line.removeprefix(b"\xef\xbb\xbf") if row == 1 else line
                if line.strip():
                    first = first if block else row
                    block.append(line)
                elif block:
                    yield document()
                    block = []
        if block:
            yield document()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        yield Reject(str(path), row + 1, f"damaged gzip: {error}")


def _read_whole(path: epath.Path) -> Iterator[Document | Reject]:
    try:
        with path.open("rb") as raw, _unpacked(path, raw) as file:
            text = _decode(str(path), 1, file.read().removeprefix(b"\xef\xbb\xbf"))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        text = Reject(str(path), 1, f"damaged gzip: {error}")
    yield text if isinstance(text, Reject) else Document(str(path), 1, text)


def _read_parquet(path: epath.Path) -> Iterator[Document | Reject]:
    with path.open("rb") as raw:
        try:
            file = pq.ParquetFile(raw)
            schema = file.schema_arrow
            if "text" not in schema.names:
                raise ValueError(f"no column text among {', '.join(schema.names)}")
            kind = schema.field("text").type
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                raise ValueError(f"column text holds {kind}, not strings")
            columns = [name for name in ("text", "source", "id") if name in schema.names]
            row = 0
            for batch in file.iter_batches(batch_size=256, columns=columns):
                # Parquet files of other writers may hold bytes that are no UTF-8.
                texts = batch.column("text").cast(pa.large_binary()).to_pylist()
                others = [
                    batch.column(name).to_pylist() if name in columns else [None] * len(texts)
                    for name in ("source", "id")
                ]
                for value, source, id_ in zip(texts, *others, strict=True):
                    row += 1
                    text = None if value is None else _decode(str(path), row, value)
                    if isinstance(text, Reject):
                        yield text
                    else:
                        yield _document(str(path), row, text, source, id_)
        except (ValueError, OSError, pa.ArrowException) as error:
            raise ValueError(f"{path}: {error}") from error


def _unpacked(path: epath.Path, raw: Any) -> Any:
    return gzip.GzipFile(fileobj=raw) if path.name.endswith(".gz") else raw


def _decode(file: str, row: int, data: bytes) -> str | Reject:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        return Reject(file, row, f"invalid UTF-8 at byte {error.start + 1}: {error.reason}")


def _document(file: str, row: int, text: Any, source: Any, id_: Any) -> Document | Reject:
    if text is None:
        return Reject(file, row, "text is null")
    if not isinstance(text, str):
        return Reject(file, row, f"text is a {type(text).__name__}, not a string")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return Reject(file, row, f"text holds a lone surrogate at character {error.start + 1}")
    source, id_ = (None if value is None else str(value) for value in (source, id_))
    return Document(file, row, text, source, id_)
