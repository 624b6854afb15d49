"""Raw files to a directory of clean, distinct documents: `part-*.parquet` and `report.json`.

Two passes. The first reads, cleans and drops exact duplicates, and counts in how many documents of
a source each line stands; the second drops the lines that stand in many (all but their first
occurrence) and the documents that are then too short. Everything is written into a directory
beside the output that takes its name when complete, so an output is whole or absent; the same
inputs give the same bytes.
"""

import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath
from tqdm import tqdm

from polyglot_jax.corpus import readers
from polyglot_jax.corpus.rules import RULES, boilerplate_key, clean, collapse_empty_lines

PART_BYTES = 64 << 20  # of UTF-8 text in one Parquet file
BOILERPLATE_DOCUMENTS = 10  # a line in more distinct documents of a source than this ...
BOILERPLATE_SHARE = 1e-3  # ... and than this share of them is boilerplate
SCHEMA = pa.schema(
    [("text", pa.string()), ("source", pa.string()), ("id", pa.string()), ("num_chars", pa.int64())]
)


def run(
    inputs: Iterable[str], output: str, *, source: str | None = None, min_chars: int = 50
) -> dict[str, Any]:
    """Cleans the files of the input globs into `output` and returns the report.

    Args:
      inputs: globs, files or directories; their order decides which of two equal documents stays.
      output: directory to make. One that holds the result of the same inputs is left as it is.
      source: source of the documents that name none themselves; None takes their file's name.
      min_chars: shorter documents are dropped.

    Raises:
      ValueError: nothing matches or can be read, nothing is left, or `output` holds something else.
      OSError: a file cannot be read or written.
    """
    files = list(dict.fromkeys(f for pattern in inputs for f in readers.find_files(pattern)))
    out = epath.Path(output)
    ids = _short_names(files)
    report: dict[str, Any] = {"format": 1, "source": source, "min_chars": min_chars}
    report["inputs"] = [{"file": ids[str(f)], "sha256": _sha256(f)} for f in files]
    code = [Path(__file__).parent / f"{name}.py" for name in ("readers", "rules", "markdown")]
    code_hash = hashlib.sha256(b"".join(f.read_bytes() for f in [*code, Path(__file__)]))
    fingerprint = hashlib.sha256((json.dumps(report) + code_hash.hexdigest()).encode()).hexdigest()
    report["fingerprint"] = fingerprint
    if (done := _finished(out, fingerprint)) is not None:
        return done

    work = out.parent / f".{out.name}.tmp"
    work.rmtree(missing_ok=True)
    work.mkdir(parents=True)
    counts: Counter[str] = Counter()
    changed: Counter[str] = Counter()
    lines: Counter[tuple[str, bytes]] = Counter()
    per_source: Counter[str] = Counter()
    with (
        (work / "cleaned.jsonl").open("w", encoding="utf-8") as spool,
        (work / "rejects.jsonl").open("w", encoding="utf-8") as rejects,
    ):
        for row in _distinct(_read(files, rejects, counts), source, ids, counts, changed):
            per_source[row["source"]] += 1
            keys = {_line_hash(line) for line in row["text"].split("\n")}
            lines.update((row["source"], key) for key in keys if key)
            spool.write(json.dumps(row, ensure_ascii=False) + "\n")
    if not counts["read"]:
        first = (work / "rejects.jsonl").read_text(encoding="utf-8").split("\n")[0]
        reason = f"; the first reject: {first}" if first else ""
        work.rmtree()
        raise ValueError(f"no document in {', '.join(str(f) for f in files[:3])}{reason}")
    many = {
        name: max(BOILERPLATE_DOCUMENTS, BOILERPLATE_SHARE * n) for name, n in per_source.items()
    }
    boilerplate = {key for key, n in lines.items() if n > many[key[0]]}
    with (work / "cleaned.jsonl").open("r", encoding="utf-8") as spool:
        rows = _without(boilerplate, (json.loads(line) for line in spool), counts)
        report["parts"] = _write_parts(work, _long_enough(rows, min_chars, counts), counts)
    (work / "cleaned.jsonl").unlink()
    if not counts["written"]:
        work.rmtree()
        raise ValueError(
            f"no document is left of {counts['read']}: {counts['short']} are shorter than "
            f"{min_chars} characters (--min_chars)"
        )
    names = "read rejected duplicates boilerplate_lines short written chars_read chars_written"
    report["counts"] = {name: counts[name] for name in names.split()}
    report["documents_changed_by"] = {name: changed[name] for name, _ in RULES}
    text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    (work / "report.json").write_text(text, encoding="utf-8")
    work.rename(out)
    return report


def _finished(out: epath.Path, fingerprint: str) -> dict[str, Any] | None:
    """Returns the report of a complete equal run; refuses a directory that holds anything else."""
    if (out / "report.json").exists():
        report = json.loads((out / "report.json").read_text(encoding="utf-8"))
        if report.get("fingerprint") == fingerprint:
            return report
        raise ValueError(
            f"{out} holds documents of other inputs, options or rules; remove it or choose another "
            "--output"
        )
    if out.exists():
        if not out.is_dir() or any(out.iterdir()):
            raise ValueError(
                f"{out} exists and is no output of this program; choose another --output"
            )
        out.rmdir()
    return None


def _read(
    files: list[epath.Path], rejects: IO[str], counts: Counter[str]
) -> Iterator[readers.Document]:
    for file in tqdm(files, desc="read and clean", unit="file", disable=None):
        for item in readers.read(file):
            if isinstance(item, readers.Reject):
                counts["rejected"] += 1
                rejects.write(json.dumps(asdict(item), ensure_ascii=False) + "\n")
            else:
                counts["read"] += 1
                counts["chars_read"] += len(item.text)
                yield item


def _distinct(
    documents: Iterable[readers.Document],
    source: str | None,
    ids: dict[str, str],
    counts: Counter[str],
    changed: Counter[str],
) -> Iterator[dict[str, str]]:
    """Cleans the documents and yields the first of each set of equal ones."""
    seen: set[bytes] = set()
    for document in documents:
        file = ids[document.file]
        row_id = document.id or f"{file}:{document.row}"
        is_markdown = row_id.endswith((".md", ".mdx", ".md.gz"))
        text, rules = clean(document.text, markdown=is_markdown)
        changed.update(rules)
        key = text_hash(text)
        if key in seen:
            counts["duplicates"] += 1
            continue
        seen.add(key)
        name = document.source or source or file.rsplit("/", 1)[-1].split(".")[0]
        yield {"text": text, "source": name, "id": row_id}


def text_hash(text: str) -> bytes:
    """Returns what equal documents share: 128 bits of the text without case, width and blanks."""
    normal = "".join(unicodedata.normalize("NFKC", text).casefold().split())
    return hashlib.blake2b(normal.encode(), digest_size=16).digest()


def _line_hash(line: str) -> bytes | None:
    key = boilerplate_key(line)
    return None if key is None else hashlib.blake2b(key.encode(), digest_size=8).digest()


def _without(
    boilerplate: set[tuple[str, bytes]], rows: Iterable[dict[str, str]], counts: Counter[str]
) -> Iterator[dict[str, str]]:
    seen: set[tuple[str, bytes]] = set()
    for row in rows:
        kept = []
        for line in row["text"].split("\n"):
            key = _line_hash(line)
            if key is not None and (row["source"], key) in boilerplate:
                if (row["source"], key) in seen:
                    counts["boilerplate_lines"] += 1
                    continue
                seen.add((row["source"], key))
            kept.append(line)
        yield {**row, "text": collapse_empty_lines("\n".join(kept))}


def _long_enough(
    rows: Iterable[dict[str, str]], min_chars: int, counts: Counter[str]
) -> Iterator[dict[str, str]]:
    for row in rows:
        if len(row["text"]) >= min_chars:
            yield row
        else:
            counts["short"] += 1


def _write_parts(
    work: epath.Path, rows: Iterable[dict[str, str]], counts: Counter[str]
) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    batch: list[dict[str, Any]] = []
    size = 0

    def flush() -> None:
        name = f"part-{len(parts):05d}.parquet"
        with (work / name).open("wb") as file:
            pq.write_table(pa.Table.from_pylist(batch, SCHEMA), file, compression="zstd")
        parts.append({"file": name, "documents": len(batch), "bytes": size})

    for row in rows:
        batch.append({**row, "num_chars": len(row["text"])})
        size += len(row["text"].encode())
        counts["written"] += 1
        counts["chars_written"] += len(row["text"])
        if size >= PART_BYTES:
            flush()
            batch, size = [], 0
    if batch:
        flush()
    return parts


def _short_names(files: list[epath.Path]) -> dict[str, str]:
    """Maps each path to its part below the folder that all share, so that ids name no machine."""
    parents = [file.parent.parts for file in files]
    depth = 0
    while all(len(p) > depth and p[depth] == parents[0][depth] for p in parents):
        depth += 1
    return {str(file): "/".join(file.parts[depth:]) for file in files}


def _sha256(path: epath.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
