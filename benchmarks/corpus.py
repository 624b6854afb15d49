"""The corpus engine beside datatrove's, with the same rules on the same files: speed and memory.

    python -m benchmarks.corpus --data=../shared/data

Both sides read the same JSONL files, clean with `polyglot_jax.corpus.rules.clean`, drop exact
duplicates by the same key and write zstd Parquet, on the same number of processes, in turns, so
that other load on the machine hits both. CPU seconds of the whole process tree are what counts;
peak memory is that of the tree, sampled. The rules are timed alone as well: what a side takes
beyond them is its engine. Then ours alone: all that datatrove does not do, on one process and on
two, and on a quarter and all of the data. Appends to benchmarks/RESULTS.md.
"""

import gzip
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
from absl import flags

from benchmarks import record
from benchmarks.child import Row
from polyglot_jax import cli

DATA = flags.DEFINE_string("data", None, "folder of folders of *.jsonl.gz", required=True)
ROUNDS = flags.DEFINE_integer("rounds", 3, "pairs of runs", lower_bound=1)
PROCESSES = flags.DEFINE_integer("processes", 2, "worker processes of both sides", lower_bound=1)
LIMIT_MB = flags.DEFINE_integer("limit_mb", 0, "raw text to use, 0 for all of it", lower_bound=0)

FILE_BYTES = 8 << 20  # of raw text in one file, the unit of work of datatrove
MODULE = "benchmarks.corpus_sides"


def spread(folder: Path, out: Path, limit: int) -> int:
    """Writes the rows of a folder's JSONL files as files of equal size; returns bytes of text.

    datatrove gives each process whole files: of files of unequal size it would wait for the last.
    """
    out.mkdir(parents=True)
    total = size = number = 0
    batch: list[bytes] = []

    def flush() -> None:
        nonlocal size, number, batch
        if batch:
            (out / f"{number:03d}.jsonl.gz").write_bytes(gzip.compress(b"".join(batch), 6))
        size, number, batch = 0, number + 1, []

    for path in sorted(folder.glob("*/*.jsonl.gz")):
        with gzip.open(path) as lines:
            for line in lines:
                row = json.loads(line)
                if not isinstance(row.get("text"), str) or (limit and total > limit):
                    continue
                name = f"{path.stem}/{row.get('id')}"  # which may say that it is Markdown
                row = {"text": row["text"], "source": path.parent.name, "id": name}
                batch.append(json.dumps(row, ensure_ascii=False).encode() + b"\n")
                size += len(row["text"].encode())
                total += len(row["text"].encode())
                if size > FILE_BYTES:
                    flush()
    flush()
    if not total:
        raise ValueError(f"{folder} has no */*.jsonl.gz with text")
    return total


def measure(side: str, raw: Path, out: Path, processes: int) -> Row:
    """Runs a side in a process of its own; returns its seconds, CPU seconds, memory and rows."""
    shutil.rmtree(out, ignore_errors=True)
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", MODULE, side, str(raw), str(out), str(processes)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    peak, cpu = [0], dict[int, float]()
    sampler = threading.Thread(target=_sample, args=(process.pid, peak, cpu), daemon=True)
    sampler.start()
    stdout, stderr = process.communicate()
    seconds = time.perf_counter() - start
    used = {"seconds": seconds, "peak_bytes": peak[0], "cpu_seconds": sum(cpu.values())}
    if process.returncode:
        raise ValueError(f"{side}: {(stderr.strip().splitlines() or ['failed'])[-1][:300]}")
    return {**used, **json.loads(stdout.splitlines()[-1])}


def _sample(pid: int, peak: list[int], cpu: dict[int, float]) -> None:
    """Notes ten times a second the largest memory of a process tree (PSS: shared pages once), and
    what each process has used of a core: `getrusage` misses the workers of a fork server."""
    try:
        root = psutil.Process(pid)
        while root.is_running() and root.status() != psutil.STATUS_ZOMBIE:
            total = 0
            for process in (root, *root.children(recursive=True)):
                try:
                    total += process.memory_full_info().pss
                    times = process.cpu_times()
                    cpu[process.pid] = times.user + times.system
                except (psutil.Error, OSError):
                    continue
            peak[0] = max(peak[0], total)
            time.sleep(0.1)
    except (psutil.Error, OSError):
        return


def row_of(name: str, found: Sequence[Row], megabytes: float, processes: int) -> list[object]:
    """Returns a row of the table: medians over the rounds."""
    seconds = statistics.median(r["seconds"] for r in found)
    cpu = statistics.median(r["cpu_seconds"] for r in found)
    return [
        *(name, processes, f"{megabytes:.0f}", f"{seconds:.1f}", f"{cpu:.1f}"),
        *(f"{megabytes / cpu:.2f}", f"{max(r['peak_bytes'] for r in found) / 2**20:,.0f}"),
        f"{found[0]['documents']:,}" if "documents" in found[0] else None,
    ]


def run_all(work: Path) -> str:
    """Measures everything; returns the Markdown of the table and the ratios."""
    raw, processes = work / "raw", PROCESSES.value
    load = os.getloadavg()[0]
    megabytes = spread(Path(DATA.value), raw, LIMIT_MB.value << 20) / 1e6
    sides: dict[str, list[Row]] = {"ours": [], "datatrove": []}
    for i in range(ROUNDS.value):
        # Whoever goes first in one round goes second in the next.
        for side in list(sides)[:: 1 if i % 2 == 0 else -1]:
            sides[side].append(measure(side, raw, work / side, processes))
            print(side, sides[side][-1], file=sys.stderr, flush=True)
    rules = measure("rules", raw, work / "rules", 1)
    whole = {n: measure("whole", raw, work / "whole", n) for n in (1, processes)}
    quarter = work / "quarter"
    quarter.mkdir()
    files = sorted(raw.iterdir())
    for file in files[: max(1, len(files) // 4)]:
        (quarter / file.name).symlink_to(file)
    part = measure("whole", quarter, work / "part", 1)
    share = megabytes * len(list(quarter.iterdir())) / len(files)
    columns = ["side", "processes", "MB of text", "s", "CPU s", "MB/s per core", "peak MiB"]
    rows = [
        row_of("polyglot-jax", sides["ours"], megabytes, processes),
        row_of("datatrove", sides["datatrove"], megabytes, processes),
        row_of("the rules alone", [rules], megabytes, 1),
        row_of("polyglot-jax, all steps", [whole[1]], megabytes, 1),
        row_of("polyglot-jax, all steps", [whole[processes]], megabytes, processes),
        row_of("polyglot-jax, all steps, a quarter", [part], share, 1),
    ]
    pairs = [
        theirs["cpu_seconds"] / ours["cpu_seconds"]
        for ours, theirs in zip(sides["ours"], sides["datatrove"], strict=True)
    ]
    alone = rules["cpu_seconds"]
    engine = {
        side: statistics.median(r["cpu_seconds"] for r in found) - alone
        for side, found in sides.items()
    }
    lines = [
        f"Throughput per core, ours / datatrove: {statistics.median(pairs):.2f} (median of "
        f"{len(pairs)} pairs, {min(pairs):.2f} to {max(pairs):.2f}). Beyond the rules "
        f"({alone:.1f} CPU s), ours takes {engine['ours']:.1f} CPU s and datatrove "
        f"{engine['datatrove']:.1f}: {engine['datatrove'] / engine['ours']:.2f} times as much.",
        f"From 1 to {processes} processes: {whole[1]['seconds'] / whole[processes]['seconds']:.2f} "
        f"times as fast. From {share:.0f} to {megabytes:.0f} MB the peak of one process goes from "
        f"{part['peak_bytes'] / 2**20:,.0f} to {whole[1]['peak_bytes'] / 2**20:,.0f} MiB. The "
        "dedup index is 20 bytes a document on disk, of which a bucket is in memory.",
        f"Load average before the run: {load:.1f} (0 is an idle machine).",
    ]
    return record.table([*columns, "documents"], rows) + "\n\n" + "\n\n".join(lines)


def main() -> None:
    facts = {
        "command": record.command("benchmarks.corpus"),
        "commit": record.commit(),
        "versions": ", ".join(
            f"{name} {version}"
            for name, version in record.versions("datatrove", "pyarrow", "numpy").items()
        ),
        "machine": record.cpu(),
        "work": "read JSONL.gz, clean, drop exact duplicates, write zstd Parquet; all steps: also "
        "repeated lines, statistics of every rule with examples, and the report",
    }
    with tempfile.TemporaryDirectory() as folder:
        body = run_all(Path(folder))
    record.append_section(record.section(f"Corpus engine, {record.now()}", facts, body))
    print(body)


if __name__ == "__main__":
    cli.run(main)
