"""Tokenizer training on this machine: speed of segmentation by processes, memory by corpus size.

    python -m benchmarks.tokenizer --input='documents/*.parquet' --megabytes=50

One and two processes take turns on the same text. Memory is that of fresh processes that train on
a tenth of the text and on all of it: what each holds when the words are counted and at its peak
says whether the counts or the merges take it. Appends to benchmarks/RESULTS.md.
"""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import flags

from benchmarks import child, record
from benchmarks.child import Row
from polyglot_jax import cli
from polyglot_jax.corpus import readers

ROUNDS = 3
_SEGMENTED_MB = 12  # a round: the start of workers, which is part of it, should be little of it


def segmentation_rounds(file: str, processes: int, megabytes: float) -> Iterator[Row]:
    """Yields a row for each round over the first `megabytes` of a file, for ever."""
    from tokenizer import segment

    texts: list[tuple[str, str]] = []
    size = 0
    for document in readers.documents(file):
        texts.append(("mecab-ko", document.text))
        size += len(document.text.encode())
        if size > megabytes * 1e6:
            break
    segment.morphemes("미리 읽어 둔다")  # the dictionary into memory
    while True:
        start = time.perf_counter()
        for _ in segment.marked_all(texts, processes):
            pass
        yield {"seconds": time.perf_counter() - start, "bytes": size}


def training(file: str, vocab_size: int, processes: int) -> Iterator[Row]:
    """Yields one row: times and resident memory (MiB) of training on a file, by stage."""
    import dataclasses

    from tokenizer import bpe, recipes, selection

    recipe = dataclasses.replace(recipes.RECIPES["ko"], vocab_size=vocab_size)
    inputs = [selection.Input("ko", file)]
    bpe.check(recipe)
    sizes = selection.sizes(inputs, processes)
    rates = selection.rates(sizes, {}, 1.0, 10**12)
    row: Row = {
        "bytes": sum(size.bytes for size in sizes.values()),
        "start_mib": _resident("VmRSS"),
    }
    start = time.perf_counter()

    def until_counted() -> Iterator[tuple[str, str]]:
        yield from selection.take(inputs, rates, 0)
        row.update(counted_s=time.perf_counter() - start, counted_mib=_resident("VmRSS"))

    bpe.train(until_counted(), recipe, processes=processes)
    row.update(seconds=time.perf_counter() - start, peak_mib=_resident("VmHWM"))
    yield row


def _resident(field: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field + ":"))


def write_corpora(patterns: Sequence[str], folder: Path, megabytes: float) -> tuple[Path, Path]:
    """Writes every tenth document and all of them, up to `megabytes`, taken from all over.

    Raises:
      ValueError: as `readers.documents`; the documents are fewer than `megabytes`.
    """
    size = sum(len(d.text.encode()) for p in patterns for d in readers.documents(p))
    if size < megabytes * 1e6:
        raise ValueError(f"--input has {size / 1e6:.1f} MB, not --megabytes={megabytes:g}")
    tenth, whole = folder / "tenth.jsonl", folder / "whole.jsonl"
    share, taken = megabytes * 1e6 / size, 0.0
    with tenth.open("w", encoding="utf-8") as few, whole.open("w", encoding="utf-8") as all_:
        written = 0
        for pattern in patterns:
            for document in readers.documents(pattern):
                taken += share
                if taken < 1:
                    continue
                taken -= 1
                line = json.dumps({"text": document.text}) + "\n"
                all_.write(line)
                if written % 10 == 0:
                    few.write(line)
                written += 1
    return tenth, whole


def measure(tenth: Path, whole: Path, megabytes: float) -> tuple[dict[int, list[Row]], list[Row]]:
    """Returns the rounds of segmentation by number of processes, and the rows of training.

    Raises:
      ValueError: a measurement failed; the message is its last line.
    """

    def ask(rows: Iterator[Row]) -> Row:
        row = next(rows)
        if row.get("status") == "error":
            raise ValueError(row["error"])
        return row

    sides = {
        n: child.rows(
            "benchmarks.tokenizer:segmentation_rounds",
            {"file": str(whole), "processes": n, "megabytes": megabytes},
        )
        for n in (1, 2)
    }
    timed: dict[int, list[Row]] = {1: [], 2: []}
    try:
        for i in range(ROUNDS):
            for n in (1, 2)[:: 1 if i % 2 == 0 else -1]:
                timed[n].append(ask(sides[n]))
    finally:
        for rows in sides.values():
            rows.close()
    trained = []
    for processes in (1, 2):
        for file in (tenth, whole):
            arguments = {"file": str(file), "vocab_size": 30_000, "processes": processes}
            rows = child.rows("benchmarks.tokenizer:training", arguments)
            trained.append({"processes": processes, **ask(rows)})
            rows.close()
    return timed, trained


def report(timed: dict[int, list[Row]], trained: list[Row]) -> str:
    """Returns the Markdown of one run."""
    speeds = {n: [r["bytes"] / 1e6 / r["seconds"] for r in rows] for n, rows in timed.items()}
    ratios = [two / one for one, two in zip(speeds[1], speeds[2], strict=True)]
    segmented = [
        [
            n,
            f"{statistics.median(values):.2f}",
            f"{statistics.median(values) / n:.2f}",
            f"{min(values):.2f} to {max(values):.2f}",
        ]
        for n, values in speeds.items()
    ]
    lines = [
        [
            row["processes"],
            f"{row['bytes'] / 1e6:.1f}",
            f"{row['bytes'] / 1e6 / row['seconds']:.2f}",
            f"{row['counted_s']:.1f}",
            f"{row['seconds'] - row['counted_s']:.1f}",
            f"{row['start_mib']:.0f}",
            f"{row['counted_mib']:.0f}",
            f"{row['peak_mib']:.0f}",
        ]
        for row in trained
    ]
    growth = [
        f"{whole['peak_mib'] / tenth['peak_mib']:.2f} times with {tenth['processes']}"
        for tenth, whole in zip(trained[::2], trained[1::2], strict=True)
    ]
    columns = ["processes", "MB", "MB/s", "segment and count s", "merge s"]
    return "\n".join(
        [
            record.table(["processes", "segmented MB/s", "a process", "spread"], segmented),
            "",
            f"Two processes are {statistics.median(ratios):.2f} times as fast as one (median of "
            f"{len(ratios)} pairs, {min(ratios):.2f} to {max(ratios):.2f}; the start of workers "
            "counts).",
            "",
            record.table([*columns, "MiB at start", "counted", "peak"], lines),
            "",
            f"Ten times the text takes {', '.join(growth)} process(es) the memory; workers, of "
            "constant size, not counted.",
        ]
    )


def main() -> None:
    values = flags.FLAGS
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        tenth, whole = write_corpora(values.input, Path(folder), values.megabytes)
        timed, trained = measure(tenth, whole, min(_SEGMENTED_MB, values.megabytes))
    body = report(timed, trained)
    print(body)
    if values.smoke:
        return
    names = ("tokenizers", "mecab-python3", "python-mecab-ko-dic")
    section = record.section(
        f"Tokenizer training, {record.now()}",
        {
            "command": f"`{record.command('benchmarks.tokenizer')}`",
            "commit": record.commit(),
            "versions": ", ".join(f"{k} {v}" for k, v in record.versions(*names).items()),
            "machine": f"{record.cpu()}; load average {load_before:.1f} before the run, "
            f"{os.getloadavg()[0]:.1f} after",
            "work": f"{values.megabytes:g} MB of documents spread over the input; 30,000 ids",
        },
        body,
    )
    record.append_section(section)


if __name__ == "__main__":
    flags.DEFINE_multi_string("input", None, "Korean documents: directory, file or glob.")
    flags.DEFINE_float("megabytes", 50.0, "Text to train on.", lower_bound=0.1)
    flags.DEFINE_bool("smoke", False, "Write nothing to RESULTS.md.")
    flags.mark_flag_as_required("input")
    cli.run(main)
