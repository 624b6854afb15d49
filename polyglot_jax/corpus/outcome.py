"""What a run leaves: its report, and the directory that takes the output's name when whole."""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from etils import epath

from polyglot_jax import files
from polyglot_jax.corpus import boilerplate, stats
from polyglot_jax.corpus.plan import Job

DISCARDED = "discarded"  # a file in a work directory that is being removed
_SNIPPET = 240  # characters of a document shown
_REJECTS = 10  # shown in the report


def finished(out: epath.Path, fingerprint: str) -> dict[str, Any] | None:
    """Returns the report of an output that is the result of the same run, None if there is none.

    Raises:
      ValueError: the output is of another run, not as it was written, or none of ours.
    """
    path = out / "report.json"
    if not path.exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ValueError(
                f"{out} exists and is no output of this program; choose another --output"
            )
        return None
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        report = None
    if not isinstance(report, dict):
        raise ValueError(f"{path} is no report of this program; choose another --output")
    if report.get("fingerprint") != fingerprint:
        raise ValueError(
            f"{out} holds documents of other inputs, options or rules; remove it or choose "
            "another --output"
        )
    for part in report["parts"]:
        file = out / part["file"]
        if not file.exists() or files.stat(file).length != part["file_bytes"]:
            raise ValueError(f"{file} is not as it was written; remove {out} and run again")
    return report


def publish(work: epath.Path, out: epath.Path) -> None:
    """Gives the work directory's `output` its name, and removes the rest.

    On a file system that is one step. Object stores have no folders to rename: there the objects
    are moved one by one, the report last, and a run that was killed meanwhile moves the others.
    """
    whole = work / "output"
    if "://" not in str(out):
        if out.exists():
            out.rmdir()  # empty, or the rename would have been refused before
        whole.rename(out)
    else:
        for file in sorted(_files_under(whole), key=lambda f: (f.name == "report.json", str(f))):
            file.rename(out.joinpath(*file.parts[len(whole.parts) :]))
    discard(work)


def discard(work: epath.Path) -> None:
    """Removes a work directory. Killed meanwhile, the next run must do that first: half of the
    files would be taken for those of a run to go on with."""
    mark = work / DISCARDED
    mark.write_text("by polyglot_jax.corpus\n")
    for path in work.iterdir():
        if path.name != mark.name:
            path.rmtree() if path.is_dir() else path.unlink()
    work.rmtree()


def write_report(
    job: Job, inputs: list[dict[str, Any]], units: Sequence[str], chunks: int, fingerprint: str
) -> dict[str, Any]:
    """Writes `report.json` and `report.html` into the work directory's output, and returns it.

    Raises:
      ValueError: no document is left.
    """
    cleaned = [_json(job, "clean", f"{index:05d}") for index in range(chunks)]
    stripped = [_json(job, "strip", unit) for unit in units] if job.boilerplate else []
    written = [_json(job, "written", unit) for unit in units]
    total = stats.merge(
        stats.from_json(one["stats"]) for many in (cleaned, stripped, written) for one in many
    )
    found = [part for one in written for part in one["parts"]]
    if not found:
        discard(job.path())
        raise ValueError(nothing_left(job, total))
    _name_survivors(job, units, total)
    report: dict[str, Any] = {"format": 3, "fingerprint": fingerprint, "options": _options(job)}
    report["inputs"] = inputs
    report["counts"] = counts(total) | {"boilerplate_lines": sum(s["lines"] for s in stripped)}
    report["rejects"] = _rejects(job)
    if job.near_duplicates is not None:
        report["near_duplicates"] = _clusters(job, units)
    if job.held_out:
        report["contamination"] = _contamination(job, written)
    report["stats"] = stats.to_json(total)
    report["parts"] = found
    # Here, as matplotlib takes seconds to import, which workers and errors must not wait for.
    from polyglot_jax.corpus import report_page

    output = job.path("output")
    for file in _files_under(output):
        if file.name.startswith("."):
            file.unlink()  # of a task that was killed
    report_page.write(report, output)
    text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    with files.writing(output / "report.json") as file:
        file.write(text.encode())
    return json.loads(text)


def _files_under(folder: epath.Path) -> list[epath.Path]:
    found = []
    for path in folder.iterdir():
        found += _files_under(path) if path.is_dir() else [path]
    return found


def counts(total: stats.Stats) -> dict[str, int]:
    """Returns the documents and bytes of all sources together."""
    sources = total.sources.values()
    dropped = sum((source.dropped for source in sources), Counter())
    return {
        "read": sum(source.documents_in for source in sources),
        "rejected": sum(total.rejected.values()),
        **{rule: dropped[rule] for rule in sorted(dropped)},
        "written": sum(source.documents_out for source in sources),
        "bytes_read": sum(source.bytes_in for source in sources),
        "bytes_written": sum(source.bytes_out for source in sources),
    }


def nothing_left(job: Job, total: stats.Stats) -> str:
    """Returns the error line for a run that leaves no document."""
    found = counts(total)
    why = [f"{n:,} {rule}" for rule, n in found.items() if n and rule in _dropping(total)]
    line = f"no document is left of {found['read']:,}: {', '.join(why)}"
    short = f" (--min_chars={job.options.min_chars})" if "short" in found else ""
    return line + short


def _dropping(total: stats.Stats) -> set[str]:
    return {rule for source in total.sources.values() for rule in source.dropped}


def _json(job: Job, folder: str, name: str) -> dict[str, Any]:
    return json.loads(job.path(folder, f"{name}.json").read_text(encoding="utf-8"))


def _options(job: Job) -> dict[str, Any]:
    values = dataclasses.asdict(job)
    del values["work"]
    return (
        values.pop("options")
        | values
        | {"held_out": [epath.Path(file).name for file in job.held_out]}
    )


def _rejects(job: Job) -> list[dict[str, Any]]:
    """Moves the rejects into the output, and returns the first."""
    folder = job.path("output", "rejects")
    for file in sorted(job.path("rejects").glob("rejects-*.jsonl")):
        if files.stat(file).length:
            folder.mkdir(parents=True, exist_ok=True)
            file.rename(folder / file.name)
    first: list[dict[str, Any]] = []
    for file in sorted(folder.glob("rejects-*.jsonl")) if folder.exists() else ():
        if len(first) < _REJECTS:
            with file.open("rb") as lines:
                first += [json.loads(line) for _, line in zip(range(_REJECTS), lines)]  # noqa: B905
    return [{**one, "file": epath.Path(one["file"]).name} for one in first[:_REJECTS]]


def _documents_at(
    job: Job, units: Sequence[str], places: Iterable[tuple[int, int]]
) -> dict[tuple[int, int], dict[str, Any]]:
    """Returns id, source and beginning of the documents at these places (unit, number)."""
    by_unit: dict[int, list[int]] = {}
    for unit, doc in sorted(set(places)):
        by_unit.setdefault(unit, []).append(doc)
    found = {}
    for unit, docs in by_unit.items():
        rows = boilerplate.rows_of(job, units[unit], docs)
        for doc, text, source, id_ in rows:
            found[unit, doc] = {"id": id_, "source": source, "text": text[:_SNIPPET]}
    return found


def _name_survivors(job: Job, units: Sequence[str], total: stats.Stats) -> None:
    """Puts the id of the document that stays where the tasks knew only its place."""
    lists = [
        examples
        for source in total.sources.values()
        for rule, examples in source.drop_examples.items()
        if rule in ("duplicate", "near_duplicate")
    ]

    def place(after: str) -> tuple[int, int]:
        unit, _, doc = after.removeprefix("@").partition(":")
        return int(unit), int(doc)

    at = _documents_at(job, units, (place(e.after) for examples in lists for e in examples))
    for examples in lists:
        examples[:] = [dataclasses.replace(e, after=at[place(e.after)]["id"]) for e in examples]


def _clusters(job: Job, units: Sequence[str]) -> dict[str, Any]:
    found = _json(job, "near", "clusters")
    places = [[(unit, doc) for unit, doc in cluster] for cluster in found["examples"]]
    at = _documents_at(job, units, (place for cluster in places for place in cluster))
    return found | {"examples": [[at[place] for place in cluster] for cluster in places]}


def _contamination(job: Job, written: list[dict[str, Any]]) -> dict[str, Any]:
    names = [epath.Path(file).parts[-2:] for file in job.held_out]
    by_file = sum((Counter(one["contaminated"]) for one in written), Counter())
    examples = [example for one in written for example in one["contaminated_examples"]]
    examples.sort(key=lambda example: stats.document_key(example["id"]))
    return {
        "documents": sum(by_file.values()),
        "by_file": {"/".join(names[int(i)]): n for i, n in sorted(by_file.items())},
        "examples": [
            example | {"file": "/".join(names[example["file"]])}
            for example in examples[: stats.EXAMPLES]
        ],
    }
