"""The documents of a unit after the rounds of deduplication: what stays, and what goes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow.parquet as pq

from polyglot_jax.corpus import boilerplate, dedup
from polyglot_jax.corpus.plan import Job

Rounds = tuple[tuple[str, int], ...]  # of deduplication so far: folder of its drops, and buckets
RULES = {"first": "duplicate", "again": "duplicate", "near": "near_duplicate"}  # in the report
_ROWS = 1024  # read at a time


@dataclass(frozen=True)
class Survivor:
    """A document that a unit holds; `drop` and `instead` say why it goes, and what stays."""

    doc: int
    text: str
    source: str
    id: str
    rules: list[str]
    kind: str
    drop: str | None = None
    instead: tuple[int, int] | None = None  # unit and document


def documents(job: Job, units: Sequence[str], unit: int, rounds: Rounds) -> Iterator[Survivor]:
    """Yields the documents of a unit in order, but those that boilerplate left too short."""
    drops = {
        int(row["doc"]): (RULES[folder], (int(row["first_unit"]), int(row["first_doc"])))
        for folder, buckets in rounds
        for row in dedup.drops_of(job, folder, buckets, unit)
    }
    stripped = boilerplate.stripped_of(job, units[unit])
    doc = -1
    with job.path("clean", f"{units[unit]}.parquet").open("rb") as file:
        for batch in pq.ParquetFile(file).iter_batches(batch_size=_ROWS):
            columns = [batch.column(i).to_pylist() for i in range(5)]
            for text, source, id_, rules, kind in zip(*columns, strict=True):
                doc += 1
                if doc in stripped:
                    new = stripped[doc]
                    if new is None:
                        continue
                    text, rules = new, [*rules, boilerplate.NAME]
                yield Survivor(doc, text, source, id_, rules, kind, *drops.get(doc, ()))
