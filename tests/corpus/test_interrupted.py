"""Interrupted, resumed, spread over processes: the bytes of the output are the same."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from etils import epath

from polyglot_jax.corpus import plan, sources, tasks
from polyglot_jax.corpus.plan import Job
from polyglot_jax.corpus.rules import Options
from tests.corpus.corpora import LONG, REPOSITORY, digests, rows, run, write

EVERYTHING: dict[str, Any] = {"near_duplicates": 0.8, "unit_bytes": 20_000}
# The program, with chunks small enough for a corpus of a test.
SMALL_CHUNKS = (
    "import sys; from polyglot_jax.corpus import plan, pipeline, report_page, sources, rules;"
    "report_page.write = lambda *_: None;"
    "pipeline.run(sources.find([sys.argv[1]]), sys.argv[2], plan.Job(work='', options="
    "rules.Options(min_chars=10), near_duplicates=0.8, unit_bytes=20_000),"
    "processes=int(sys.argv[3]))"
)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Returns a folder of four files with exact and near duplicates, boilerplate and rejects."""
    common = "문의 사항은 고객지원팀으로 연락해 주시면 친절하게 답변해 드리겠습니다."
    for f in range(4):
        own = [f"{LONG} {f}-{i % 60} " + f"{i % 60 * 7919 % 1000} 번 문서 " * 6 for i in range(80)]
        lines: list[Any] = [{"text": f"{text}\n{common}", "source": "s"} for text in own]
        lines += [{"text": own[0] + " 끝", "source": "s"}, {"text": None}]
        write(tmp_path / f"raw/{f}.jsonl", lines)
    return tmp_path / "raw"


def start(raw: Path, out: Path, processes: int = 2) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SMALL_CHUNKS, str(raw), str(out), str(processes)]
    return subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)


def test_any_number_of_processes_gives_the_same_bytes(raw: Path, tmp_path: Path) -> None:
    report = run([str(raw)], tmp_path / "one", **EVERYTHING)
    run([str(raw)], tmp_path / "two", processes=2, **EVERYTHING)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    counts = report["counts"]
    assert counts["boilerplate_lines"] > 200
    assert counts["near_duplicate"] > 0
    assert counts["duplicate"] == 80
    assert counts["rejected"] == 4
    assert len(report["parts"]) > 4
    assert len(rows(tmp_path / "one")) == counts["written"]


@pytest.mark.parametrize(
    "moment",
    [
        *("clean/*.json", "written/*.json"),
        *(
            pytest.param(f"{step}/*", marks=pytest.mark.slow)
            for step in ("scan", "keys", "first", "tally", "repeated", "strip", "again")
        ),
        *(
            pytest.param(f"{step}/*", marks=pytest.mark.slow)
            for step in ("signed", "pairs", "near", "written", "output")
        ),
    ],
)
def test_killed_and_run_again_ends_in_the_same_bytes(
    raw: Path, tmp_path: Path, moment: str
) -> None:
    run([str(raw)], tmp_path / "whole", **EVERYTHING)
    out = tmp_path / "killed"
    process = start(raw, out)
    while not list((tmp_path / ".killed.work").glob(moment)):
        assert process.poll() is None
        time.sleep(0.001)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    assert not out.exists()
    before = {f: f.stat().st_mtime_ns for f in (tmp_path / ".killed.work").glob("clean/*.json")}
    assert process.stderr is not None
    process.stderr.close()
    again = start(raw, out)
    while before and again.poll() is None and not out.exists():
        assert all(not f.exists() or f.stat().st_mtime_ns == t for f, t in before.items())
        time.sleep(0.01)
    _, stderr = again.communicate()
    assert again.returncode == 0, stderr
    assert digests(out) == digests(tmp_path / "whole")
    assert not (tmp_path / ".killed.work").exists()


def test_a_killed_worker_ends_the_run_with_one_line(raw: Path, tmp_path: Path) -> None:
    process = start(raw, tmp_path / "out")
    while not list((tmp_path / ".out.work").glob("clean/*.json")):
        assert process.poll() is None
        time.sleep(0.001)
    workers = [
        child
        for child in psutil.Process(process.pid).children()
        if "spawn_main" in " ".join(child.cmdline())
    ]
    workers[0].send_signal(signal.SIGKILL)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "OSError: a worker process was killed" in stderr.splitlines()[-1]
    run([str(raw)], tmp_path / "out", **EVERYTHING)


def limit_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))


@pytest.mark.parametrize("processes", [1, 2])
def test_a_full_disk_is_one_line_and_a_run_that_goes_on(
    raw: Path, tmp_path: Path, processes: int
) -> None:
    # Files of at most 60,000 bytes fail in the middle, with the error that a full disk gives.
    write(raw / "9.jsonl", [{"text": os.urandom(30_000).hex()} for _ in range(4)])
    command = [sys.executable, "-m", "polyglot_jax.corpus", f"--input={raw}"]
    command += [f"--output={tmp_path}/out", f"--processes={processes}", "--min_chars=10"]
    failed = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, preexec_fn=limit_files, check=False
    )
    assert failed.returncode == 1
    assert failed.stderr.count("\n") == 1
    assert "File too large" in failed.stderr
    assert not (tmp_path / "out").exists()
    work = tmp_path / ".out.work"
    assert not [f for f in work.rglob(".*") if f.is_file()]
    assert subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=False).returncode == 0
    run([str(raw)], tmp_path / "whole", page=True, unit_bytes=8 << 20)
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


def test_what_a_run_was_begun_with_must_stay(raw: Path, tmp_path: Path) -> None:
    out, work = tmp_path / "out", tmp_path / ".out.work"
    with pytest.raises(ValueError, match=r"4 rejects, more than --max_rejects=3"):
        run([str(raw)], out, max_rejects=3, unit_bytes=20_000)
    with pytest.raises(ValueError, match=r"more than 0 rejects \(--max_rejects\), the last: .*:82"):
        run([str(raw)], tmp_path / "other", max_rejects=0)
    assert work.exists()
    with pytest.raises(ValueError, match="begun with other inputs, options or code; remove it"):
        run([str(raw)], out, boilerplate=False)
    run([str(raw)], out, max_rejects=4, unit_bytes=20_000)
    work.mkdir()
    (work / "notes").touch()
    with pytest.raises(ValueError, match="in the way"):
        run([str(raw)], out)


def test_a_work_directory_that_was_half_removed_is_not_taken_up(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(folder: epath.Path) -> None:
        if folder.name == "keys":
            raise KeyboardInterrupt
        remove(folder)

    out = tmp_path / "out"
    remove = type(epath.Path(tmp_path)).rmtree
    monkeypatch.setattr(type(epath.Path(tmp_path)), "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        run([str(raw)], out, min_chars=100_000)
    monkeypatch.undo()
    (tmp_path / ".out.work/fingerprint").unlink(missing_ok=True)
    run([str(raw)], out)
    run([str(raw)], tmp_path / "whole")
    assert digests(out) == digests(tmp_path / "whole")


def test_flags_that_cannot_be_leave_nothing_behind(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="classifier 'nowhere:f'"):
        run([str(raw)], tmp_path / "out", classifier="nowhere:f")
    with pytest.raises(ValueError, match="'phone' is unknown"):
        Options(pii=("phone",))
    assert not (tmp_path / ".out.work").exists()


def test_a_finished_task_does_nothing(raw: Path, tmp_path: Path) -> None:
    job = Job(work=str(tmp_path / "work"), options=Options())
    for folder in ("scan", "clean", "rejects", "keys", "lines"):
        (tmp_path / "work" / folder).mkdir(parents=True)
    inputs = sources.find([str(raw)])
    plan.scan(job, 0, tuple(inputs))
    scans = json.loads((tmp_path / "work/scan/00000.json").read_text())["files"]
    (chunk,) = plan.chunks(job, inputs, scans)
    tasks.clean_chunk(job, chunk)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "work").rglob("*")}
    tasks.clean_chunk(job, chunk)
    plan.scan(job, 0, tuple(inputs))
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "work").rglob("*")} == before
