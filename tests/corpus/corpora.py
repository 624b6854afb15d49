"""A corpus of a test, the run of the pipeline over it, and what that wrote."""

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow.parquet as pq

from polyglot_jax.corpus import pipeline, report_page, sources
from polyglot_jax.corpus.plan import Job
from polyglot_jax.corpus.rules import Options

REPOSITORY = Path(__file__).resolve().parents[2]
LONG = "이 문서는 결제 연동을 준비하는 개발자를 위한 안내 문서이며 누구나 읽을 수 있습니다."


def write(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def run(
    inputs: list[str], output: Path, min_chars: int = 10, page: bool = False, **settings: Any
) -> dict[str, Any]:
    """Runs the pipeline; settings are those of `sources.find`, `pipeline.run` and `Job`.

    Without `page` no report.html is drawn, which takes longer than all the rest.
    """
    found = {key: settings.pop(key) for key in ("source", "sources_file") if key in settings}
    runner = ("name", "processes", "max_rejects", "ray_address")
    how = {key: settings.pop(key) for key in runner if key in settings}
    job = Job(work="", options=Options(min_chars=min_chars), **settings)
    with contextlib.nullcontext() if page else mock.patch.object(report_page, "write"):
        return pipeline.run(sources.find(inputs, **found), str(output), job, **how)


def rows(output: Path) -> list[dict[str, Any]]:
    return [row for f in sorted(output.glob("part-*")) for row in pq.read_table(f).to_pylist()]


def digests(output: Path) -> dict[str, str]:
    files = (f for f in output.rglob("*") if f.is_file())
    return {str(f.relative_to(output)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}
