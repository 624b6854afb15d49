"""The corpus program on tiny inputs: what is kept, what is dropped, and all of it or nothing."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from polyglot_jax.corpus import boilerplate, plan, readers, sources
from tests.corpus.corpora import LONG, REPOSITORY, digests, rows, run, write


def test_kept_in_order_with_structure_source_and_id(tmp_path: Path) -> None:
    text = f"{LONG}\r\n\r\n\r\n\r\n  - 둘째   문단 \n{LONG}!"
    write(tmp_path / "in/b/docs.jsonl", [{"text": text, "id": "x.md", "source": "s"}])
    write(tmp_path / "in/a/docs.jsonl", [{"text": f"[{LONG}](x)"}, {"text": LONG + text}])
    out = tmp_path / "out"
    report = run([f"{tmp_path}/in/b/*", f"{tmp_path}/in/*/*.jsonl"], out)
    assert [(row["id"], row["source"]) for row in rows(out)] == [
        ("x.md", "s"),
        ("a/docs.jsonl:1", "docs"),
        ("a/docs.jsonl:2", "docs"),
    ]
    cleaned = f"{LONG}\n\n  - 둘째 문단\n{LONG}!"
    # Only what is named Markdown is read as Markdown.
    assert [row["text"] for row in rows(out)] == [cleaned, f"[{LONG}](x)", LONG + cleaned]
    assert [row["rules"] for row in rows(out)] == [
        ["line_ends", "blanks", "line_tails", "empty_lines"],
        [],
        ["line_ends", "blanks", "line_tails", "empty_lines"],
    ]
    assert [row["num_chars"] for row in rows(out)] == [len(row["text"]) for row in rows(out)]
    assert report["counts"]["written"] == report["counts"]["read"] == 3
    assert str(tmp_path) not in (out / "report.json").read_text()
    assert not [f for f in tmp_path.iterdir() if f.name not in ("in", "out")]


def test_duplicates_short_texts_and_rejects_are_counted(tmp_path: Path) -> None:
    lines = [
        {"text": LONG},
        {"text": f" {LONG.replace(' ', '  ')}\n"},
        {"text": "짧다"},
        {"text": ""},
        {"text": " "},
        {"text": None},
    ]
    path = write(tmp_path / "a.jsonl", lines)
    report = run([str(path)], tmp_path / "out", source="mine", min_chars=40)
    assert [row["source"] for row in rows(tmp_path / "out")] == ["mine"]
    counts = report["counts"]
    names = ("read", "rejected", "duplicate", "short", "empty", "written")
    assert [counts[name] for name in names] == [5, 1, 1, 1, 2, 1]
    rejects = (tmp_path / "out/rejects/rejects-00000.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in rejects] == [
        {"file": str(path), "row": 6, "reason": "text is null"}
    ]


def test_boilerplate_is_kept_once_a_source(tmp_path: Path) -> None:
    common = "문의 사항은 고객지원팀으로 연락해 주시면 친절하게 답변해 드리겠습니다."
    own = [f"{LONG} 문서 번호는 {i}입니다." for i in range(11)]
    lines = [{"text": f"# 안내\n\n{line}\n\n{common}", "source": "a"} for line in own]
    # The same line in few documents of another source, and in copies of one document, is text.
    lines += [{"text": f"{LONG} 끝 {i}.\n{common}", "source": "b"} for i in range(5)]
    lines += [{"text": f"{LONG}\n{common}", "source": "c"}] * 20
    path = write(tmp_path / "a.jsonl", lines)
    report = run([str(path)], tmp_path / "out")
    texts = [row["text"] for row in rows(tmp_path / "out")]
    assert texts[0] == f"# 안내\n\n{own[0]}\n\n{common}"
    assert texts[1:11] == [f"# 안내\n\n{line}" for line in own[1:]]
    assert all(common in text for text in texts[11:])
    assert report["counts"]["boilerplate_lines"] == 10
    assert report["counts"]["duplicate"] == 19
    changed = [row["rules"] for row in rows(tmp_path / "out")]
    assert changed == [[]] + [["boilerplate"]] * 10 + [[]] * 6
    assert report["stats"]["sources"]["a"]["changed"] == {"boilerplate": 10}


def test_a_line_of_a_large_source_may_stand_in_its_share_of_documents() -> None:
    assert boilerplate.limits({"a": 20, "b": 50_000}) == {"a": 10, "b": 50}


def test_documents_equal_without_their_boilerplate_are_written_once(tmp_path: Path) -> None:
    common = "문의 사항은 고객지원팀으로 연락해 주시면 친절하게 답변해 드리겠습니다."
    lines = [{"text": f"{LONG} {i}\n{common}"} for i in range(11)]
    lines += [{"text": f"{LONG} {i}"} for i in range(5, 15)]
    path = write(tmp_path / "a.jsonl", lines)
    report = run([str(path)], tmp_path / "out")
    texts = [row["text"].removesuffix(f"\n{common}") for row in rows(tmp_path / "out")]
    assert texts == [f"{LONG} {i}" for i in range(15)]
    assert report["counts"]["duplicate"] == 6


def test_same_bytes_again_and_parts_of_bounded_size(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"text": f"{LONG} {i}"} for i in range(40)])
    run([str(path)], tmp_path / "one", unit_bytes=1000)
    run([str(path)], tmp_path / "two", unit_bytes=1000)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert len(list((tmp_path / "one").glob("part-*"))) > 3
    assert [row["id"] for row in rows(tmp_path / "one")] == [f"a.jsonl:{i}" for i in range(1, 41)]


def test_complete_output_is_reused_and_another_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"text": LONG}])
    out = tmp_path / "out"
    first = run([str(path)], out, min_chars=10)
    os.utime(out / "part-00000.parquet", (1, 1))
    assert run([str(path)], out, min_chars=10) == first
    assert (out / "part-00000.parquet").stat().st_mtime == 1
    with pytest.raises(ValueError, match="other inputs, options or rules"):
        run([str(path)], out, min_chars=11)
    write(path, [{"text": LONG + "!"}])
    with pytest.raises(ValueError, match="other inputs, options or rules"):
        run([str(path)], out, min_chars=10)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes").write_text("keep")
    with pytest.raises(ValueError, match="no output of this program"):
        run([str(path)], tmp_path / "mine")


def test_a_damaged_output_is_not_taken_for_complete(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"text": LONG}])
    out = tmp_path / "out"
    run([str(path)], out, min_chars=10)
    part = out / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"part-00000\.parquet is not as it was written; remove"):
        run([str(path)], out, min_chars=10)
    part.unlink()
    with pytest.raises(ValueError, match="is not as it was written"):
        run([str(path)], out, min_chars=10)
    for content in ("[]", "{", ""):
        (out / "report.json").write_text(content)
        with pytest.raises(ValueError, match=r"report\.json is no report of this program"):
            run([str(path)], out, min_chars=10)


def test_text_files_have_their_place_as_id_and_their_folder_as_source(tmp_path: Path) -> None:
    for name in ("a/index.md", "b/index.md", "b/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"**{name}**\n{LONG}\n\n{LONG} {name}")
    report = run([f"{tmp_path}/*/*"], tmp_path / "out", min_chars=10)
    assert [(row["id"], row["source"]) for row in rows(tmp_path / "out")] == [
        ("a/index.md:1", "a"),
        ("b/index.md:1", "b"),
        ("b/notes.txt:1", "b"),
        ("b/notes.txt:4", "b"),
    ]
    starts = [row["text"].split("\n")[0] for row in rows(tmp_path / "out")][:3]
    assert starts == ["a/index.md", "b/index.md", "**b/notes.txt**"]
    assert [entry["source"] for entry in report["inputs"]] == ["a", "b", "b"]


def program(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "polyglot_jax.corpus", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)


def by_length(texts: Sequence[str]) -> list[str]:
    """A classifier, as a user may name one."""
    return [("usable", "hate", "task")[len(text) % 3] for text in texts]


def test_kinds_are_kept_dropped_or_routed(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl", [{"text": LONG + "." * (i % 3) + f"\n{i}"} for i in range(9)]
    )
    settings: dict[str, Any] = {"classifier": "tests.corpus.test_pipeline:by_length"}
    report = run(
        [str(path)], tmp_path / "out", drop_kinds=("hate",), route_kinds=("task",), **settings
    )
    assert {row["kind"] for row in rows(tmp_path / "out")} == {"usable"}
    assert {row["kind"] for row in rows(tmp_path / "out/kind-task")} == {"task"}
    assert (report["counts"]["kind_hate"], report["counts"]["written"]) == (3, 6)
    # Whoever reads the output reads what was not routed.
    assert len(list(readers.documents(str(tmp_path / "out")))) == 3


def test_as_a_program(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"text": LONG}, {}])
    result = program(f"--input={path}", f"--output={tmp_path}/out", "--min_chars=10")
    assert result.returncode == 0, result.stderr
    assert "written 1" in result.stdout
    assert f"{tmp_path}/out/rejects" in result.stdout
    (tmp_path / "file").write_text("")
    write(tmp_path / "bad.jsonl", [{}, 3])
    for arguments, message in [
        (["--input=nowhere/*.jsonl", f"--output={tmp_path}/x"], "no file matches"),
        ([f"--input={tmp_path}/bad.jsonl", f"--output={tmp_path}/x"], "no field text"),
        ([f"--input={path}", f"--output={tmp_path}/x"], "no document is left"),
        ([f"--input={path}", f"--output={tmp_path}/file/x", "--min_chars=1"], "Not a directory"),
    ]:
        result = program(*arguments)
        assert result.returncode == 1
        assert message in result.stderr
        assert result.stderr.count("\n") == 1
        assert not (tmp_path / "x").exists()
        assert not (tmp_path / ".x.work").exists()


def test_the_size_of_a_unit_follows_from_the_inputs(tmp_path: Path) -> None:
    """A laptop's corpus is cut into pieces for all its cores, a large one into few files."""

    def units(size: int, name: str = "a.jsonl") -> int:
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)
        return plan.unit_bytes(sources.find([str(tmp_path / name)]))

    assert units(1 << 20) == 8 << 20
    assert units(1 << 30) == 32 << 20
    assert units(1 << 40) == 64 << 20
    assert units(256 << 20, "a.jsonl.gz") == units(1 << 30)
