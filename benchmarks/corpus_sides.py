"""One side of the corpus benchmark, in a process of its own: ours, datatrove's, or the rules alone.

    python -m benchmarks.corpus_sides SIDE RAW OUT PROCESSES

Prints a JSON line with the CPU seconds of the process and its children, and the documents written.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow.parquet as pq

from polyglot_jax.corpus import dedup, pipeline, plan, readers, report_page, rules, sources
from polyglot_jax.corpus.plan import Job

OPTIONS = rules.Options()


def ours(raw: Path, out: Path, processes: int) -> None:
    """What datatrove does too, and statistics: no repeated lines, no page of plots."""
    inputs = sources.find([str(raw)])
    size = plan.unit_bytes(inputs)
    job = Job(work="", options=OPTIONS, boilerplate=False, unit_bytes=size)
    with mock.patch.object(report_page, "write"):
        pipeline.run(inputs, str(out), job, processes=processes)


def whole(raw: Path, out: Path, processes: int) -> None:
    """All that our program does by default."""
    inputs = sources.find([str(raw)])
    job = Job(work="", options=OPTIONS, unit_bytes=plan.unit_bytes(inputs))
    pipeline.run(inputs, str(out), job, processes=processes)


def clean(data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
    """A datatrove step: the same rules."""
    for document in data:
        form = readers.format_of(document.id)
        source = document.metadata["source"]
        cleaned = rules.clean(document.text, OPTIONS, format=form, source=source)
        if cleaned.dropped is None:
            document.text = cleaned.text
            document.metadata = {
                "source": source,
                "num_chars": len(cleaned.text),
                "rules": ",".join(cleaned.changed),
                "kind": cleaned.kind,
            }
            yield document


def key(document: Any) -> bytes:
    """The same key."""
    return dedup.text_hash(document.text)


def datatrove(raw: Path, out: Path, processes: int) -> None:
    """datatrove 0.10: read, clean, sign and write; find duplicates; filter and write."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup.exact_dedup import (
        ExactDedupConfig,
        ExactDedupFilter,
        ExactDedupSignature,
        ExactFindDedups,
    )
    from datatrove.pipeline.readers import JsonlReader, ParquetReader
    from datatrove.pipeline.writers.parquet import ParquetWriter

    tasks = len(list(raw.glob("*.jsonl.gz")))
    config = ExactDedupConfig(content_getter=key)
    name = "${rank}.parquet"
    steps: list[tuple[list[Any], int]] = [
        (
            [
                JsonlReader(str(raw), glob_pattern="*.jsonl.gz"),
                clean,
                ParquetWriter(str(out / "clean"), name, compression="lz4"),
                ExactDedupSignature(str(out / "signatures"), config),
            ],
            tasks,
        ),
        ([ExactFindDedups(str(out / "signatures"), str(out / "duplicates"), config)], 1),
        (
            [
                ParquetReader(str(out / "clean"), glob_pattern="*.parquet"),
                ExactDedupFilter(str(out / "duplicates"), config),
                ParquetWriter(str(out / "done"), name, compression="zstd"),
            ],
            tasks,
        ),
    ]
    for i, (pipeline_steps, count) in enumerate(steps):
        LocalPipelineExecutor(
            pipeline_steps,
            tasks=count,
            workers=min(processes, count),
            logging_dir=str(out / f"logs{i}"),
        ).run()


def rules_alone(raw: Path) -> float:
    """Returns the CPU seconds that the rules take for all documents."""
    spent = 0.0
    for path in readers.find_files(str(raw)):
        documents = [item for item in readers.read(path) if isinstance(item, readers.Document)]
        start = time.process_time()
        for item in documents:
            form = readers.format_of(item.id or "")
            rules.clean(item.text, OPTIONS, format=form, source=item.source or "")
        spent += time.process_time() - start
    return spent


def main() -> None:
    side, raw, out, processes = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    if side == "rules":
        print(json.dumps({"cpu_seconds": rules_alone(raw)}))
        return
    {"ours": ours, "whole": whole, "datatrove": datatrove}[side](raw, out, processes)
    parts = (out / "done" if side == "datatrove" else out).glob("*.parquet")
    documents = sum(pq.ParquetFile(part).metadata.num_rows for part in parts)
    print(json.dumps({"documents": documents}))


if __name__ == "__main__":
    main()
