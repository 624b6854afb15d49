"""Reads documents from JSONL, Parquet, Arrow, text, Markdown and HTML files, one at a time.

A plain text file (.txt) holds a document per block between blank lines, or is one; a Markdown or
HTML file is one. Nothing is skipped in silence: what cannot be a document comes back as a `Reject`
that says where and why, and the caller decides whether to count it or to stop.
"""

import glob
import json
import os
from collections.abc import Iterator
from typing import Literal

from etils import epath

from polyglot_jax.corpus import hub, lines, tables
from polyglot_jax.corpus.document import (
    MAX_BYTES,
    Document,
    Fields,
    Reject,
    decode,
    make,
    too_long,
)

__all__ = ["Document", "Fields", "Reject", "documents", "find_files", "format_of", "read"]

_PACKED = ("", ".gz", ".zst")
JSONL = tuple(f".jsonl{end}" for end in _PACKED)
PLAIN = tuple(f".txt{end}" for end in _PACKED)
MARKDOWN = tuple(f"{kind}{end}" for kind in (".md", ".mdx") for end in _PACKED)
HTML = tuple(f"{kind}{end}" for kind in (".html", ".htm") for end in _PACKED)
TABLES = (".parquet", ".arrow")
KINDS = {"JSONL": JSONL, "Parquet": TABLES, "text": (*PLAIN, *MARKDOWN, *HTML)}
SUFFIXES = tuple(suffix for suffixes in KINDS.values() for suffix in suffixes)


def find_files(pattern: epath.PathLike) -> list[epath.Path]:
    """Returns the files that a path or glob names, sorted.

    A directory stands for all files in it, which must be of one kind; an output of the corpus
    program, known by its report, stands for its Parquet files, and one that `datasets` saved for
    its Arrow files. `hf:NAME` (see `polyglot_jax.corpus.hub`) is a data set of the Hugging Face
    hub.

    Raises:
      ValueError: nothing matches, a match has a suffix that no reader knows, or a directory holds
        folders or files of several kinds.
    """
    pattern = os.fspath(pattern)
    if pattern.startswith(hub.PREFIX):
        return hub.files_of(pattern)
    path = epath.Path(pattern)
    if path.is_dir():
        files = _files_of_directory(path)
    elif path.exists():
        files = [path]
    else:
        files = _glob(pattern)
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


def find_any(pattern: str) -> list[epath.Path]:
    """Returns the files that a path or glob names, sorted, whatever their kind.

    Raises:
      ValueError: there is none.
    """
    path = epath.Path(pattern)
    files = [path] if path.exists() else _glob(pattern)
    if not files:
        raise ValueError(f"{pattern}: no file matches")
    return sorted(files, key=str)


def _glob(pattern: str) -> list[epath.Path]:
    if "://" not in pattern:
        return [epath.Path(name) for name in glob.glob(pattern, recursive=True)]
    parts = epath.Path(pattern).parts
    first = next((i for i, part in enumerate(parts) if set(part) & set("*?[")), len(parts) - 1)
    return list(epath.Path(*parts[:first]).glob("/".join(parts[first:])))


def _files_of_directory(path: epath.Path) -> list[epath.Path]:
    if (path / "report.json").exists():
        return list(path.glob("*.parquet"))
    if saved := hub.files_saved_in(path):
        return saved
    files = sorted((f for f in path.iterdir() if not f.name.startswith(".")), key=str)
    first = {kind: f for kind, ends in KINDS.items() for f in files if f.name.endswith(ends)}
    if len(first) > 1:
        kinds = ", ".join(f"{kind} ({file.name})" for kind, file in first.items())
        raise ValueError(f"{path} mixes {kinds}; name the files to read by a glob")
    for file in files:
        if file.is_dir():
            raise ValueError(f"{path} holds a folder, {file.name}; name the files by a glob: **/*")
    return files


def format_of(name: str) -> Literal["text", "markdown", "html"]:
    """Returns "markdown", "html" or "text": how what has this file name or id is cleaned."""
    if name.endswith(MARKDOWN):
        return "markdown"
    return "html" if name.endswith(HTML) else "text"


def read(
    path: epath.Path,
    fields: Fields = Fields(),  # noqa: B008 (frozen)
    *,
    begin: int = 0,
    end: int | None = None,
    row: int = 1,
    whole: bool = False,
) -> Iterator[Document | Reject]:
    """Yields the documents of one file in order, and a Reject for each thing that is none.

    Args:
      fields: names in records and columns.
      begin: where to begin: an offset in bytes of a plain file of lines, a row group of Parquet.
      end: where to end.
      row: number of the first line or row.
      whole: whether a .txt file is one document.
    """
    if path.name.endswith(TABLES):
        return tables.read(path, fields, begin, end, row)
    if path.name.endswith(JSONL):
        return _read_jsonl(path, fields, begin, end, row)
    if path.name.endswith(PLAIN) and not whole:
        return _read_blocks(path, begin, end, row)
    return _read_whole(path)


def documents(pattern: str) -> Iterator[Document]:
    """Yields the documents of a file, directory or glob that must be clean already.

    Raises:
      ValueError: at the first reject, by file and line; or as `find_files`.
    """
    for path in find_files(pattern):
        for item in read(path):
            if isinstance(item, Reject):
                raise ValueError(f"{item.file}:{item.row}: {item.reason}")
            yield item


def _read_jsonl(
    path: epath.Path, fields: Fields, begin: int, end: int | None, row: int
) -> Iterator[Document | Reject]:
    first = row
    try:
        # Bytes, so that U+2028 inside a string is no line end and one bad line stays one.
        for line in lines.lines(path, begin, end):
            if isinstance(line, int):
                yield too_long(str(path), row, line)
            elif line.strip():
                yield _parse_json(str(path), row, line, fields)
            row += 1
        if row == first:
            yield _empty(path)
    except lines.UnreadableError as error:
        yield Reject(str(path), row, str(error))


def _parse_json(file: str, row: int, line: bytes, fields: Fields) -> Document | Reject:
    text = decode(file, row, line)
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
    if fields.text not in record:
        return Reject(file, row, f"no field {fields.text}")
    return make(file, row, record[fields.text], record.get(fields.source), record.get(fields.id))


def _read_blocks(
    path: epath.Path, begin: int, end: int | None, row: int
) -> Iterator[Document | Reject]:
    begun = first = row
    size = 0
    block: list[bytes] = []  # the lines of one document, none of them once they are too many

    def document() -> Document | Reject:
        if size > MAX_BYTES:
            return too_long(str(path), first, size)
        text = decode(str(path), first, b"".join(block).rstrip(b"\r\n"))
        return text if isinstance(text, Reject) else Document(str(path), first, text)

    try:
        for line in lines.lines(path, begin, end):
            if isinstance(line, int) or line.strip():
                first = first if size else row
                size += line if isinstance(line, int) else len(line)
                if size > MAX_BYTES:
                    block.clear()
                else:
                    block.append(line)  # type: ignore[arg-type]
            elif size:
                yield document()
                block, size = [], 0
            row += 1
        if size:
            yield document()
        elif row == begun:
            yield _empty(path)
    except lines.UnreadableError as error:
        yield Reject(str(path), row, str(error))


def _empty(path: epath.Path) -> Reject:
    return Reject(str(path), 0, "empty file")


def _read_whole(path: epath.Path) -> Iterator[Document | Reject]:
    try:
        data = lines.whole(path)
    except lines.UnreadableError as error:
        yield Reject(str(path), 1, str(error))
        return
    if isinstance(data, int):
        yield too_long(str(path), 1, data)
        return
    if not data:
        yield _empty(path)
        return
    text = decode(str(path), 1, data)
    yield text if isinstance(text, Reject) else Document(str(path), 1, text)
