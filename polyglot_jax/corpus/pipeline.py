"""Raw files to a directory of clean, distinct documents: `part-*.parquet` and `report.json`.

The steps, each a list of tasks that a runner works off and that leave their results in files:

    scan        inputs -> hashes, and chunks of 8 to 64 MB
    clean       chunk -> units of clean documents, with the keys of documents and of lines
    first       bucket of keys -> duplicates, all but the first
    repeated    bucket of lines -> those in many documents of a source
    strip       unit -> documents without such lines, and their keys
    again       bucket of keys -> documents that are equal now
    near        unit -> MinHash bands; bucket of bands -> pairs; all pairs -> clusters (if asked)
    write       unit -> one part of the output

A run works in a directory beside the output. Killed, it goes on from there; complete, that
directory's `output` takes the name of the output, so an output is whole or absent, and the same
inputs give the same bytes whatever runs the tasks.
"""

import dataclasses
import json
from typing import Any

from etils import epath

from polyglot_jax import files, pool
from polyglot_jax.corpus import (
    boilerplate,
    contamination,
    dedup,
    kinds,
    near_dup,
    outcome,
    parts,
    plan,
    records,
    runner,
    stats,
    tasks,
)
from polyglot_jax.corpus.plan import Job
from polyglot_jax.corpus.sources import Input
from polyglot_jax.corpus.survivors import Rounds

_SCANS = 64  # scan tasks of a run, at most
_FOLDERS = (
    "scan clean keys lines rejects first dropped tally repeated strip keys_again again signed "
    "signatures bands pairs near held_out written output"
)


def run(
    inputs: list[Input],
    output: str,
    job: Job,
    *,
    name: str = "local",
    processes: int = 1,
    ray_address: str | None = None,
    max_rejects: int | None = None,
) -> dict[str, Any]:
    """Cleans the inputs into `output` and returns the report.

    Args:
      inputs: their order decides which of two equal documents stays.
      output: directory to make. One that holds the result of the same inputs is left as it is; what
        an interrupted run left beside it is taken up again.
      job: options; its `work` is set here.
      name: of the runner. Neither it nor `processes` changes the output.
      processes: tasks at a time on this machine.
      ray_address: of a Ray cluster, None for one of this machine.
      max_rejects: lines, rows and files that may be no documents; None for any number.

    Raises:
      ValueError: nothing is left, there are more rejects, or `output` or the directory beside it
        holds something else.
      OSError: a file cannot be written, or a worker process was killed.
    """
    if job.classifier:
        kinds.resolve(job.classifier)  # raises before there is anything to remove
    out = epath.Path(output)
    work = out.parent / f".{out.name}.work"
    job = dataclasses.replace(job, work=str(work))
    _begin(work)
    with runner.runner(name, processes=processes, ray_address=ray_address) as do:
        scans = _scan(do, job, inputs)
        fingerprint = plan.fingerprint(job, inputs, scans)
        report = _done(work, out, fingerprint)
        if report is None:
            report = _prepare(do, job, inputs, scans, max_rejects, fingerprint)
    if not (work / "output/report.json").exists():
        outcome.discard(work)
        return report
    outcome.publish(work, out)
    return report


def _begin(work: epath.Path) -> None:
    """Makes the work directory, or takes up one that this program made."""
    if (work / outcome.DISCARDED).exists():
        outcome.discard(work)
    if work.exists() and not (work / "begun").exists() and any(work.iterdir()):
        raise ValueError(f"{work} is in the way: it is none of this program's; remove or rename it")
    work.mkdir(parents=True, exist_ok=True)
    (work / "begun").write_text("by polyglot_jax.corpus\n")
    for folder in _FOLDERS.split():
        (work / folder).mkdir(exist_ok=True)


def _done(work: epath.Path, out: epath.Path, fingerprint: str) -> dict[str, Any] | None:
    """Returns the report of a run that is complete, with its name or but for its name; else None.

    Raises:
      ValueError: the work directory was begun by a run that would end in other bytes, or the output
        holds something else.
    """
    path, report = work / "fingerprint", work / "output/report.json"
    if not path.exists():
        try:
            done = outcome.finished(out, fingerprint)
        except ValueError:
            outcome.discard(work)
            raise
        with files.writing(path) as file:
            file.write(fingerprint.encode())
        return done
    if path.read_text() != fingerprint:
        raise ValueError(
            f"{work} was begun with other inputs, options or code; remove it to begin anew"
        )
    if report.exists():
        return json.loads(report.read_text(encoding="utf-8"))
    return outcome.finished(out, fingerprint)


def _scan(do: pool.Run, job: Job, inputs: list[Input]) -> list[dict[str, Any]]:
    size = -(-len(inputs) // _SCANS)
    groups = [tuple(inputs[i : i + size]) for i in range(0, len(inputs), size)]
    do("reading", plan.scan, [(job, i, group) for i, group in enumerate(groups)])
    return [
        record
        for i in range(len(groups))
        for record in json.loads(job.path("scan", f"{i:05d}.json").read_text())["files"]
    ]


def _prepare(
    do: pool.Run,
    job: Job,
    inputs: list[Input],
    scans: list[dict[str, Any]],
    max_rejects: int | None,
    fingerprint: str,
) -> dict[str, Any]:
    chunks = plan.chunks(job, inputs, scans)
    do("cleaning", tasks.clean_chunk, [(job, chunk, max_rejects) for chunk in chunks])
    cleaned = [json.loads(job.path("clean", f"{c.index:05d}.json").read_text()) for c in chunks]
    units = [unit for chunk in cleaned for unit in chunk["units"]]
    names = [unit["name"] for unit in units]
    _check(job, inputs, cleaned, max_rejects)

    buckets = records.buckets_for(sum(unit["documents"] for unit in units))

    def each_bucket(buckets: int, *args: Any) -> list[tuple[Any, ...]]:
        return [(job, names, *args, bucket, buckets) for bucket in range(buckets)]

    def each_unit(*args: Any) -> list[tuple[Any, ...]]:
        return [(job, names, unit, *args) for unit in range(len(names))]

    do("finding duplicates", dedup.first_of_bucket, each_bucket(buckets, "keys", "first"))
    rounds: Rounds = (("first", buckets),)
    if job.boilerplate:
        do("counting documents", boilerplate.tally_unit, each_unit(buckets))
        limits = boilerplate.read_limits(job, names)
        sources = [unit["sources"] for unit in units]
        line_buckets = records.buckets_for(sum(unit["lines"] for unit in units))
        do(
            "finding repeated lines",
            boilerplate.lines_of_bucket,
            each_bucket(line_buckets, sources, limits),
        )
        do("dropping repeated lines", boilerplate.strip_unit, each_unit(line_buckets))
        do("finding duplicates", dedup.first_of_bucket, each_bucket(buckets, "keys_again", "again"))
        rounds += (("again", buckets),)
    if job.near_duplicates is not None:
        do("signing", near_dup.sign_unit, each_unit(rounds))
        signed = [json.loads(job.path("signed", f"{name}.json").read_text()) for name in names]
        band_buckets = records.buckets_for(sum(one["bands"] for one in signed))
        do("finding near duplicates", near_dup.pairs_of_bucket, each_bucket(band_buckets))
        do("joining clusters", near_dup.cluster, [(job, names, band_buckets)])
        rounds += (("near", 1),)
    if job.held_out:
        do("reading held-out files", contamination.index, [(job,)])
    do("writing", parts.write_unit, each_unit(rounds))
    about = plan.inputs_report(inputs, scans)
    return outcome.write_report(job, about, names, len(chunks), fingerprint)


def _check(
    job: Job,
    inputs: list[Input],
    cleaned: list[dict[str, Any]],
    max_rejects: int | None,
) -> None:
    """Raises ValueError if nothing was read or left, or too much was rejected."""
    total = stats.merge(stats.from_json(one["stats"]) for one in cleaned)
    rejected = sum(total.rejected.values())
    if max_rejects is not None and rejected > max_rejects:
        raise ValueError(f"{rejected:,} rejects, more than --max_rejects={max_rejects}")
    if any(one["units"] for one in cleaned):
        return
    if total.sources:
        line = outcome.nothing_left(job, total)
    else:
        names = ", ".join(one.file for one in inputs[:3])
        line = f"no document in {names}"
        for file in sorted(job.path("rejects").glob("*.jsonl")):
            if files.stat(file).length:
                with file.open("r", encoding="utf-8") as lines:
                    line += f"; the first reject: {next(iter(lines)).strip()}"
                break
    outcome.discard(job.path())
    raise ValueError(line)
