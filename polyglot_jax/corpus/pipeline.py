"""Raw files to a directory of clean, distinct documents: `part-*.parquet` and `report.json`.

Two passes. The first reads and cleans, and counts in how many documents of a source each line
stands; the second drops the lines that stand in many (all but their first occurrence). Each drops
short documents and exact duplicates. Everything is written into a directory beside the output that
takes its name when complete, so an output is whole or absent; the same inputs give the same bytes.
"""

import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath
from tqdm import tqdm

from polyglot_jax.corpus import readers
from polyglot_jax.corpus.rules import RULES, boilerplate_key, clean, collapse_empty_lines

PART_BYTES = 64 << 20  # of UTF-8 text in one Parquet file
BOILERPLATE = "boilerplate"  # its name among those of the rules
BOILERPLATE_DOCUMENTS = 10  # a line in more distinct documents of a source than this ...
BOILERPLATE_SHARE = 1e-3  # ... and than this share of them is boilerplate
# Lines are counted by hash in a fixed 256 MB, of which a small corpus touches little. Two lines in
# one slot are counted as one, which matters only near 10^7 distinct lines in sources so small that
# BOILERPLATE_DOCUMENTS decides: the share of a large source outgrows the slots' mean load.
LINE_SLOTS = 1 << 27
MOST_COUNTED = np.iinfo(np.uint16).max
SCHEMA = pa.schema(
    [
        ("text", pa.string()),
        ("source", pa.string()),
        ("id", pa.string()),
        ("num_chars", pa.int64()),
        ("rules", pa.list_(pa.string())),  # names of those that changed the text
    ]
)


def run(
    inputs: Iterable[str], output: str, *, source: str | None = None, min_chars: int = 50
) -> dict[str, Any]:
    """Cleans the files of the input globs into `output` and returns the report.

    Args:
      inputs: globs, files or directories; their order decides which of two equal documents stays.
      output: directory to make. One that holds the result of the same inputs is left as it is.
      source: source of the documents that name none themselves; None takes the name of their file
        or, of text files, of the folder that they are in.
      min_chars: shorter documents are dropped.

    Raises:
      ValueError: nothing matches or can be read, nothing is left, or `output` holds something else.
      OSError: a file cannot be read or written.
    """
    files = list(dict.fromkeys(f for pattern in inputs for f in readers.find_files(pattern)))
    out = epath.Path(output)
    names = {
        file: (name, source or _source_of(file))
        for file, name in zip(map(str, files), _short_names(files), strict=True)
    }
    report: dict[str, Any] = {"format": 2, "min_chars": min_chars}
    report["inputs"] = [
        dict(zip(("file", "source", "sha256"), (*names[str(f)], _sha256(f)), strict=True))
        for f in files
    ]
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
    line_counts = np.zeros(LINE_SLOTS, np.uint16)
    per_source: Counter[str] = Counter()
    with (
        (work / "cleaned.jsonl").open("w", encoding="utf-8") as spool,
        (work / "rejects.jsonl").open("w", encoding="utf-8") as rejects,
    ):
        cleaned = _clean(_read(files, rejects, counts), names, changed)
        for row in _distinct(_long_enough(cleaned, min_chars, counts), counts):
            per_source[row["source"]] += 1
            slots = [slot for _, slot in _lines(row) if slot is not None]
            line_counts[slots] = np.minimum(line_counts[slots], MOST_COUNTED - 1) + 1
            spool.write(json.dumps(row, ensure_ascii=False) + "\n")
    if not counts["read"]:
        first = (work / "rejects.jsonl").read_text(encoding="utf-8").split("\n")[0]
        reason = f"; the first reject: {first}" if first else ""
        work.rmtree()
        raise ValueError(f"no document in {', '.join(str(f) for f in files[:3])}{reason}")
    limits = {
        name: min(MOST_COUNTED - 1, max(BOILERPLATE_DOCUMENTS, BOILERPLATE_SHARE * n))
        for name, n in per_source.items()
    }
    with (work / "cleaned.jsonl").open("r", encoding="utf-8") as spool:
        rows = _without_boilerplate(map(json.loads, spool), line_counts, limits, counts, changed)
        rows = _distinct(_long_enough(rows, min_chars, counts), counts)
        report["parts"] = _write_parts(work, rows, counts)
    (work / "cleaned.jsonl").unlink()
    if not counts["written"]:
        work.rmtree()
        raise ValueError(
            f"no document is left of {counts['read']}: {counts['short']} are shorter than "
            f"{min_chars} characters (--min_chars)"
        )
    counted = "read rejected duplicates boilerplate_lines short written chars_read chars_written"
    report["counts"] = {name: counts[name] for name in counted.split()}
    rules = [*(name for name, _ in RULES), BOILERPLATE]
    report["documents_changed_by"] = {name: changed[name] for name in rules}
    text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    (work / "report.json").write_text(text, encoding="utf-8")
    work.rename(out)
    return report


def _finished(out: epath.Path, fingerprint: str) -> dict[str, Any] | None:
    """Returns the report of a complete equal run; refuses a directory that holds anything else."""
    if (out / "report.json").exists():
        report = _read_report(out / "report.json")
        if report.get("fingerprint") != fingerprint:
            raise ValueError(
                f"{out} holds documents of other inputs, options or rules; remove it or choose "
                "another --output"
            )
        for part in report["parts"]:
            path = out / part["file"]
            if not path.exists() or path.stat().length != part["file_bytes"]:
                raise ValueError(f"{path} is not as it was written; remove {out} and run again")
        return report
    if out.exists():
        if not out.is_dir() or any(out.iterdir()):
            raise ValueError(
                f"{out} exists and is no output of this program; choose another --output"
            )
        out.rmdir()
    return None


def _read_report(path: epath.Path) -> dict[str, Any]:
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        report = None
    if not isinstance(report, dict):
        raise ValueError(f"{path} is no report of this program; choose another --output")
    return report


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


def _clean(
    documents: Iterable[readers.Document],
    names: dict[str, tuple[str, str]],
    changed: Counter[str],
) -> Iterator[dict[str, Any]]:
    for document in documents:
        file, source = names[document.file]
        name = document.id or file
        text, rules = clean(document.text, markdown=name.endswith(readers.MARKDOWN))
        changed.update(rules)
        yield {
            "text": text,
            "source": document.source or source,
            "id": document.id or f"{file}:{document.row}",
            "rules": rules,
        }


def _long_enough(
    rows: Iterable[dict[str, Any]], min_chars: int, counts: Counter[str]
) -> Iterator[dict[str, Any]]:
    for row in rows:
        if len(row["text"]) >= min_chars:
            yield row
        else:
            counts["short"] += 1


def _distinct(rows: Iterable[dict[str, Any]], counts: Counter[str]) -> Iterator[dict[str, Any]]:
    """Yields the first of each set of equal documents."""
    seen: set[bytes] = set()
    for row in rows:
        key = text_hash(row["text"])
        if key in seen:
            counts["duplicates"] += 1
        else:
            seen.add(key)
            yield row


def text_hash(text: str) -> bytes:
    """Returns what equal documents share: 128 bits of the text without case, width and blanks."""
    normal = "".join(unicodedata.normalize("NFKC", text).casefold().split())
    return hashlib.blake2b(normal.encode(), digest_size=16).digest()


def _lines(row: dict[str, Any]) -> Iterator[tuple[str, int | None]]:
    """Yields the lines of a document with the slots they are counted in, None if in none."""
    for line in row["text"].split("\n"):
        key = boilerplate_key(line)
        if key is None:
            yield line, None
        else:
            data = f"{row['source']}\n{key}".encode()
            digest = hashlib.blake2b(data, digest_size=8).digest()
            yield line, int.from_bytes(digest, "little") % LINE_SLOTS


def _without_boilerplate(
    rows: Iterable[dict[str, Any]],
    line_counts: np.ndarray,
    limits: dict[str, float],
    counts: Counter[str],
    changed: Counter[str],
) -> Iterator[dict[str, Any]]:
    seen: set[int] = set()
    for row in rows:
        kept, dropped = [], 0
        for line, slot in _lines(row):
            if slot is not None and line_counts[slot] > limits[row["source"]]:
                if slot in seen:
                    dropped += 1
                    continue
                seen.add(slot)
            kept.append(line)
        if dropped:
            counts["boilerplate_lines"] += dropped
            changed[BOILERPLATE] += 1
            row["text"] = collapse_empty_lines("\n".join(kept))
            row["rules"].append(BOILERPLATE)
        yield row


def _write_parts(
    work: epath.Path, rows: Iterable[dict[str, Any]], counts: Counter[str]
) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    batch: list[dict[str, Any]] = []
    size = 0

    def flush() -> None:
        name = f"part-{len(parts):05d}.parquet"
        with (work / name).open("wb") as file:
            pq.write_table(pa.Table.from_pylist(batch, SCHEMA), file, compression="zstd")
            written = file.tell()
        parts.append(
            {"file": name, "documents": len(batch), "text_bytes": size, "file_bytes": written}
        )

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


def _short_names(files: list[epath.Path]) -> list[str]:
    """Returns of each path the part below the folder that all share: ids must name no machine."""
    parents = [file.parent.parts for file in files]
    depth = 0
    while all(len(p) > depth and p[depth] == parents[0][depth] for p in parents):
        depth += 1
    return ["/".join(file.parts[depth:]) for file in files]


def _source_of(file: str) -> str:
    path = epath.Path(file)
    if path.name.endswith(readers.KINDS["text"]):
        # One text file is one document or a few: only a folder of them can have boilerplate.
        return path.resolve().parent.name
    return path.name.split(".")[0]


def _sha256(path: epath.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
