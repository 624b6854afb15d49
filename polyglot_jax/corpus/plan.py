"""The plan of a run: what is to be done (`Job`), and the inputs cut into chunks of like size.

Plain files are cut at line ends, Parquet between row groups; a packed file is in one chunk, whose
task cuts what it writes. Small files share a chunk. Chunks, and so all outputs, depend on the
inputs alone: not on the machine, nor on the number of workers.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from etils import epath

from polyglot_jax import files
from polyglot_jax.corpus import readers, records, rules, tables
from polyglot_jax.corpus.sources import Input

# Of text in one part, and of input in one chunk, about: a 32nd of the corpus within these bounds,
# so that a small one keeps many processes busy and a large one leaves few files.
UNIT_BYTES = (8 << 20, 64 << 20)
_UNITS = 32
_BLOCK = 1 << 20
_PACKED = 4  # times that a packed text is smaller, about
_LINE_END = re.compile(rb"\n")
_BLOCK_END = re.compile(rb"\n\r?\n")
_CODE = ("__main__.py", "sample.py", "runner.py", "explain.py", "options.py")  # not of outputs


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every task of a run must know."""

    work: str  # directory of the run's own files
    options: rules.Options
    whole: bool = False  # a .txt file is one document
    boilerplate: bool = True  # lines that stand in many documents of a source are dropped
    classifier: str | None = None  # module:function that labels kinds
    drop_kinds: tuple[str, ...] = ()
    route_kinds: tuple[str, ...] = ()  # to folders of their own
    near_duplicates: float | None = None  # Jaccard similarity from which two are the same
    shingles: str = "characters"
    held_out: tuple[str, ...] = ()  # evaluation files
    remove_contaminated: bool = False
    unit_bytes: int = UNIT_BYTES[1]

    def path(self, *parts: str) -> epath.Path:
        return epath.Path(self.work).joinpath(*parts)


@dataclass(frozen=True)
class Piece:
    """A part of an input: bytes of a plain file, row groups of Parquet, or all of another."""

    input: Input
    begin: int
    end: int | None
    row: int  # of its first line or row, from 1


@dataclass(frozen=True)
class Chunk:
    """The pieces that one task reads."""

    index: int
    pieces: tuple[Piece, ...]


def unit_bytes(inputs: list[Input]) -> int:
    """Returns the size of a unit of a corpus: a function of the inputs alone."""
    total = 0
    for one in inputs:
        with contextlib.suppress(OSError):  # the reader will say so among the rejects
            packed = _PACKED if one.file.endswith((".gz", ".zst")) else 1
            total += files.stat(one.file).length * packed
    least, most = UNIT_BYTES
    return min(max(total // _UNITS, least), most)


def scan(job: Job, index: int, inputs: tuple[Input, ...]) -> None:
    """Task: reads files once for their hash and for where to cut them, whatever they hold.

    Writes `scan/<index>.json`, with a record {file, version, sha256, bytes, cuts, error} a file.
    Files that are as they were in a former scan are not read again.
    """
    path = job.path("scan", f"{index:05d}.json")
    known = {}
    if path.exists():
        known = {record["file"]: record for record in json.loads(path.read_text())["files"]}
    found = []
    for one in inputs:
        version = _version(one.file)
        record = known.get(one.file)
        if record is None or version is None or record["version"] != version:
            record = {"file": one.file, "version": version, **_scan_file(job, one)}
        found.append(record)
    if found != list(known.values()):
        records.write_json(path, {"files": found})


def _version(file: str) -> list[float] | None:
    try:
        stat = files.stat(file)
    except OSError:
        return None
    return [stat.length, stat.mtime]


def _scan_file(job: Job, one: Input) -> dict[str, Any]:
    path = epath.Path(one.file)
    digest, size, line = hashlib.sha256(), 0, 1
    cuts: list[tuple[int, int]] = []  # offset and number of the first line of each piece but one
    is_lines = path.name.endswith(".jsonl") or (path.name.endswith(".txt") and not job.whole)
    line_end = _LINE_END if path.name.endswith(".jsonl") else _BLOCK_END
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
                if is_lines:
                    target = (cuts[-1][0] if cuts else 0) + job.unit_bytes
                    while match := line_end.search(block, max(0, target - size)):
                        lines = block.count(b"\n", 0, match.end())
                        cuts.append((size + match.end(), line + lines))
                        target = cuts[-1][0] + job.unit_bytes
                    line += block.count(b"\n")
                size += len(block)
        if path.name.endswith(".parquet"):
            cuts, size = _row_group_cuts(job, path)
    except (OSError, ValueError, pa.ArrowException) as error:
        # The reader will meet the same and say so among the rejects.
        return {"sha256": None, "bytes": size, "cuts": [], "error": " ".join(str(error).split())}
    if path.name.endswith((".gz", ".zst")):
        size *= _PACKED
    return {"sha256": digest.hexdigest(), "bytes": size, "cuts": cuts, "error": None}


def _row_group_cuts(job: Job, path: epath.Path) -> tuple[list[tuple[int, int]], int]:
    cuts, rows, size, since = [], 1, 0, 0
    for i, (count, nbytes) in enumerate(tables.row_groups(path)):
        if since >= job.unit_bytes:
            cuts.append((i, rows))
            since = 0
        rows, size, since = rows + count, size + nbytes, since + nbytes
    return cuts, size


def chunks(job: Job, inputs: list[Input], scans: list[dict[str, Any]]) -> list[Chunk]:
    """Cuts the inputs, in their order, into chunks of about `job.unit_bytes`."""
    groups: list[list[Piece]] = [[]]
    held = 0
    for one, scan in zip(inputs, scans, strict=True):
        for piece, size in _pieces(one, scan):
            if groups[-1] and held + size > job.unit_bytes:
                groups.append([])
                held = 0
            groups[-1].append(piece)
            held += size
    return [Chunk(i, tuple(pieces)) for i, pieces in enumerate(groups)]


def _pieces(one: Input, scan: dict[str, Any]) -> Iterator[tuple[Piece, int]]:
    starts = [(0, 1), *scan["cuts"]]
    for i, (begin, row) in enumerate(starts):
        end = starts[i + 1][0] if i + 1 < len(starts) else None
        yield Piece(one, begin, end, row), scan["bytes"] // len(starts)


def read(chunk: Chunk, *, whole: bool) -> Iterator[tuple[Input, readers.Document | readers.Reject]]:
    """Yields the documents and rejects of a chunk, with the input that each is of."""
    for piece in chunk.pieces:
        for item in readers.read(
            epath.Path(piece.input.file),
            piece.input.fields,
            begin=piece.begin,
            end=piece.end,
            row=piece.row,
            whole=whole,
        ):
            yield piece.input, item


def inputs_report(inputs: list[Input], scans: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns what the report says of each input: the same wherever the files lie."""
    return [
        {
            "file": one.name,
            "source": one.source,
            "sha256": scan["sha256"],
            **{
                key: value
                for key in ("weight", "licence", "category")
                if (value := getattr(one, key)) is not None
            },
            **({"error": "cannot be read"} if scan["error"] else {}),
        }
        for one, scan in zip(inputs, scans, strict=True)
    ]


def fingerprint(job: Job, inputs: list[Input], scans: list[dict[str, Any]]) -> str:
    """Returns a hash of all that the outputs depend on: inputs, options, code, libraries."""
    folder = Path(__file__).parent
    code = [f.read_bytes() for f in sorted(folder.glob("*.py")) if f.name not in _CODE]
    settings = {key: value for key, value in asdict(job).items() if key != "work"}
    libraries = (
        "pyarrow",
        "numpy",
        "selectolax",
        *(("datasketch",) if job.near_duplicates else ()),
    )
    held_out = [hashlib.sha256(epath.Path(f).read_bytes()).hexdigest() for f in job.held_out]
    facts = [
        [{**asdict(one), "file": None} for one in inputs],
        [[scan["sha256"], scan["cuts"]] for scan in scans],
        settings | {"held_out": held_out},
        [importlib.metadata.version(name) for name in libraries],
        unicodedata.unidata_version,
        hashlib.sha256(b"\0".join(code)).hexdigest(),
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
