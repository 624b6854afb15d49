"""Rows of a benchmark's split: from its release, from an export of its hub copy, or from the hub.

Every row comes out with the fields of the hub copy, whatever the columns of the file are called, so
nothing behind this module knows where rows came from. A table is split at tabs and line feeds and
nowhere else: the releases use no quoting, and their texts hold quotation marks.
"""

import gzip
import hashlib
import io
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from etils import epath

from eval.task import Row, Source, Task

_TABLES = (".tsv", ".txt")
_SUFFIXES = (*_TABLES, ".jsonl", ".json", ".parquet")
_SHARD = re.compile(r"-(\d+)-of-(\d+)$")
_MOST_BYTES = 2**29  # of an unpacked .gz: kilobytes can be made to unpack to more than the memory
_DEPTHS = ("*", "*/*", "*/*/*")

Cells = tuple[str, dict[str, Any]]  # where a row is, for messages, and its cells


@dataclass(frozen=True)
class Split:
    """The rows of a split."""

    rows: tuple[Row, ...]
    files: tuple[str, ...]  # what they were read from
    sha256: str  # of the rows
    duplicates: tuple[tuple[int, int], ...]  # (a row, the earlier row that it repeats)


def read(task: Task, directory: epath.PathLike | None, split: str) -> Split:
    """Returns a split of a task.

    Args:
      directory: with the benchmark's release or exports of its hub copy (TSV, JSON lines, JSON,
        Parquet; .gz of each) at most three folders deep, or one such file; None is the hub.
      split: "train", "dev" or "test".
    Raises:
      ValueError: there is no such split, more than one candidate for it, or a malformed row; file,
        line and column are named. Or the hub does not give it.
      OSError: a file cannot be read.
    """
    if split not in task.source.splits:
        raise ValueError(f"{task.name} has no {split} split, only: {', '.join(task.source.splits)}")
    if directory is None:
        files, found = _from_hub(task, split)
    else:
        paths = _find(task, epath.Path(directory), split)
        files = tuple(str(path) for path in paths)
        found = (row for path in paths for row in _read_file(path, task.source))
    rows = tuple(_parse(task.source, where, cells) for where, cells in found)
    if task.source.expand:
        rows = tuple(each for row in rows for each in task.source.expand(row))
    if not rows:
        raise ValueError(f"{', '.join(files)}: no row")
    texts = [json.dumps(row, ensure_ascii=False, sort_keys=True) for row in rows]
    first: dict[str, int] = {}
    repeats = ((i, first.setdefault(text, i)) for i, text in enumerate(texts))
    duplicates = tuple((i, j) for i, j in repeats if i != j)
    return Split(rows, files, hashlib.sha256("\n".join(texts).encode()).hexdigest(), duplicates)


def _parse(source: Source, where: str, cells: dict[str, Any]) -> Row:
    row = {}
    for field in source.fields:
        released = field.column in cells
        name = field.column if field.column is not None and released else field.name
        parse = field.parse_column if released and field.parse_column else field.parse
        if name not in cells:
            wanted = name if field.column is None else f"{field.column} or {name}"
            raise ValueError(f"{where}: no column {wanted}; there is: {', '.join(cells)}")
        try:
            row[field.name] = parse(cells[name])
        except ValueError as error:
            cell = str(cells[name])
            shown = cell if len(cell) <= 60 else cell[:60] + "..."
            raise ValueError(f"{where}, column {name}: {shown!r}: {error}") from None
    return row


def _find(task: Task, directory: epath.Path, split: str) -> list[epath.Path]:
    """Returns the file of a split, or its shards in order."""
    if directory.is_file():
        return [directory]
    if not directory.is_dir():
        raise ValueError(f"{directory}: no such directory of evaluation data")
    by_split = _candidates(task.source, directory)
    paths = by_split.get(split, [])
    if not paths:
        there = [f"{s} ({p[0].relative_to(directory)})" for s, p in by_split.items() if p]
        example = f"{task.source.words[0]}/{task.source.splits[split][0]}.tsv"
        raise ValueError(
            f"{directory} has no {split} split of {task.name} (such as {example}); "
            f"there is: {', '.join(there) or 'nothing of it'}"
        )
    if len(paths) == 1 or task.source.splits[split] == ("*",):
        return paths
    shards = {_shard(path) for path in paths}
    if shards != {(i, len(paths)) for i in range(len(paths))}:
        names = ", ".join(str(path.relative_to(directory)) for path in paths)
        raise ValueError(f"{directory}: which is the {split} split of {task.name}? {names}")
    return paths


def _candidates(source: Source, directory: epath.Path) -> dict[str, list[epath.Path]]:
    """Returns the files that may be each split of a source, by their names."""
    files = sorted(p for depth in _DEPTHS for p in directory.glob(depth) if _kind(p))
    own = [p for p in files if _about(source, str(p.relative_to(directory)))]
    if not own and _about(source, directory.name):
        own = files
    return {
        split: [path for path in own if any(_is_named(path, name) for name in names)]
        for split, names in source.splits.items()
    }


def _kind(path: epath.Path) -> str | None:
    """Returns which of the suffixes a file has, .gz aside."""
    name = path.name.lower().removesuffix(".gz")
    return next((s for s in _SUFFIXES if name.endswith(s)), None)


def _stem(path: epath.Path) -> str:
    return path.name.lower().removesuffix(".gz").removesuffix(_kind(path) or "")


def _words(text: str) -> str:
    """Returns the words of a name, joined by hyphens, lower case."""
    return re.sub(r"[^0-9a-z]+", "-", text.lower()).strip("-")


def _about(source: Source, name: str) -> bool:
    return any(f"-{_words(word)}-" in f"-{_words(name)}-" for word in source.words)


def _is_named(path: epath.Path, split: str) -> bool:
    stem = _words(_SHARD.sub("", _stem(path)))
    return split == "*" or f"-{stem}".endswith(f"-{_words(split)}")


def _shard(path: epath.Path) -> tuple[int, int]:
    match = _SHARD.search(_stem(path))
    return (int(match[1]), int(match[2])) if match else (-1, -1)


def _read_file(path: epath.Path, source: Source) -> Iterator[Cells]:
    kind = _kind(path)
    if kind is None:
        raise ValueError(f"{path}: not one of {', '.join(_SUFFIXES)}")
    content = path.read_bytes()
    if path.name.lower().endswith(".gz"):
        try:
            with gzip.open(io.BytesIO(content)) as file:
                content = file.read(_MOST_BYTES + 1)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path}: a broken gzip file: {error}") from None
        if len(content) > _MOST_BYTES:
            raise ValueError(
                f"{path} unpacks to more than {_MOST_BYTES:,} bytes, which no benchmark has; if it "
                "is one, unpack it yourself"
            )
    if kind == ".parquet":
        yield from _read_parquet(path, content)
        return
    try:
        decoded = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}, line {line}: not UTF-8") from None
    if kind == ".txt" and source.documents:
        yield str(path), {"text": decoded}
    elif kind in _TABLES:
        yield from _read_table(path, decoded)
    elif kind == ".jsonl":
        yield from _read_json_lines(path, decoded)
    else:
        yield from _read_json(path, decoded)


def _read_table(path: epath.Path, content: str) -> Iterator[Cells]:
    lines = [line.removesuffix("\r") for line in content.removesuffix("\n").split("\n")]
    header = lines[0].split("\t")
    for number, line in enumerate(lines[1:], 2):
        cells = line.split("\t")
        if len(cells) != len(header):
            raise ValueError(
                f"{path}, line {number}: {len(cells)} columns where the header has {len(header)} "
                f"({', '.join(header)})"
            )
        yield f"{path}, line {number}", dict(zip(header, cells, strict=True))


def _read_json_lines(path: epath.Path, content: str) -> Iterator[Cells]:
    for number, line in enumerate(content.removesuffix("\n").split("\n"), 1):
        where = f"{path}, line {number}"
        try:
            yield where, _as_object(json.loads(line), where)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: not JSON: {error}") from None


def _read_json(path: epath.Path, content: str) -> Iterator[Cells]:
    try:
        items = json.loads(content)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: not JSON: {error.msg}") from None
    if not isinstance(items, list):
        raise ValueError(f"{path}: a list of objects is wanted")
    for number, item in enumerate(items, 1):
        where = f"{path}, item {number}"
        yield where, _as_object(item, where)


def _read_parquet(path: epath.Path, content: bytes) -> Iterator[Cells]:
    import pyarrow
    from pyarrow import parquet

    try:
        items = parquet.read_table(io.BytesIO(content)).to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path}: not a Parquet file: {str(error).splitlines()[0]}") from None
    for number, item in enumerate(items, 1):
        yield f"{path}, row {number}", item


def _as_object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: an object is wanted")
    return value


def _from_hub(task: Task, split: str) -> tuple[tuple[str, ...], Iterator[Cells]]:
    source = task.source
    if source.hub is None:
        raise ValueError(f"{task.name} is not on the hub: name the directory of its files (--data)")
    try:
        import datasets
    except ImportError:
        raise ValueError(
            f"{task.name} from the hub needs `pip install datasets`; or name a directory (--data)"
        ) from None
    name = f"{source.hub} ({source.config})" if source.config else source.hub
    try:
        splits = datasets.load_dataset(source.hub, source.config)
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"the hub does not give {name}: {reason}; name the directory of a copy (--data)"
        ) from None
    key = _first_of(source.splits[split], list(splits))
    if key is None:
        raise ValueError(f"{name} has no {split} split; there is: {', '.join(splits)}")
    items = splits[key]
    found = ((f"{name}, {key} row {i}", dict(item)) for i, item in enumerate(items, 1))
    return (f"{name}, {key}",), found


def _first_of(wanted: Sequence[str], there: Sequence[str]) -> str | None:
    return next((name for name in wanted if name in there), None)
