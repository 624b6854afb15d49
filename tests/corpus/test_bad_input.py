"""Bad input: counted, listed with file, line and reason, never fatal and never in the way."""

import gzip
import json
import resource
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from etils import epath

from polyglot_jax.corpus import document, plan, readers, sources, tables
from polyglot_jax.corpus.plan import Job
from polyglot_jax.corpus.rules import Options
from tests.corpus.corpora import LONG, rows, run


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def line(text: Any) -> bytes:
    return json.dumps({"text": text}, ensure_ascii=False).encode() + b"\n"


def many(count: int) -> bytes:
    # Of little redundancy, so that much of a packed file lies before its damage.
    return b"".join(line(f"{LONG} {i * 7919 % 10007} {i}") for i in range(count))


GOOD = line(LONG)
BAD: dict[str, tuple[str, bytes, list[tuple[int, str]], int]] = {
    "utf8": ("a.jsonl", b'{"text": "\xff"}\n' + GOOD, [(1, "invalid UTF-8 at byte 11")], 1),
    "json": ("a.jsonl", b'{"text": \n' + GOOD, [(1, "invalid JSON")], 1),
    "missing": ("a.jsonl", b"{}\n" + GOOD, [(1, "no field text")], 1),
    "null": ("a.jsonl", line(None) + GOOD, [(1, "text is null")], 1),
    "number": ("a.jsonl", line(3) + GOOD, [(1, "text is a int")], 1),
    "surrogate": ("a.jsonl", b'{"text": "\\ud800"}\n' + GOOD, [(1, "text holds a lone")], 1),
    "surrogate_id": ("a.jsonl", b'{"text": "a", "id": "\\ud800"}\n' + GOOD, [(1, "id holds")], 1),
    "bom_crlf": ("a.jsonl", b"\xef\xbb\xbf" + GOOD.replace(b"\n", b"\r\n"), [], 1),
    "u2028": ("a.jsonl", line(f"{LONG}\u2028{LONG}"), [], 1),
    "empty": ("a.jsonl", b"", [(0, "empty file")], 0),
    "empty_gzip": ("a.jsonl.gz", b"", [(0, "empty file")], 0),
    "empty_text": ("a.txt", b"", [(0, "empty file")], 0),
    "empty_page": ("a.html", b"", [(0, "empty file")], 0),
    "only_blanks": ("a.txt", b" \n\n", [], 0),
    "no_newline": ("a.jsonl", GOOD.rstrip(), [], 1),
    "gzip": ("a.jsonl.gz", gzip.compress(many(4000))[:-9000], [(0, "damaged gzip")], 0),
    "no_gzip": ("a.jsonl.gz", b"x", [(1, "damaged gzip")], 0),
    "zstd": ("a.jsonl.zst", zstd(many(20000))[:-9000], [(0, "damaged zstd")], 0),
    "no_zstd": ("a.jsonl.zst", b"x" * 99, [(1, "damaged zstd")], 0),
    "good_zstd": ("a.jsonl.zst", zstd(GOOD), [], 1),
    "no_parquet": ("a.parquet", b"PAR1 no", [(0, "cannot be read")], 0),
    "no_arrow": ("a.arrow", b"ARROW1", [(0, "cannot be read")], 0),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_listed_and_the_rest_is_kept(tmp_path: Path, case: str) -> None:
    name, data, rejects, documents = BAD[case]
    (tmp_path / "in").mkdir()
    bad = tmp_path / "in" / name
    bad.write_bytes(data)
    other = tmp_path / "in/z.jsonl"
    other.write_bytes(line(f"{LONG} 다른 문서"))
    report = run([f"{tmp_path}/in/*"], tmp_path / "out")
    listed = [
        json.loads(text)
        for file in sorted((tmp_path / "out").glob("rejects/*"))
        for text in file.read_text().splitlines()
    ]
    assert report["counts"]["rejected"] == len(rejects) == len(listed)
    assert report["rejects"] == [{**one, "file": name} for one in listed]
    for found, (row, reason) in zip(listed, rejects, strict=True):
        assert (found["file"], found["reason"][: len(reason)]) == (str(bad), reason)
        assert found["row"] == row or row == 0
    written = len(rows(tmp_path / "out")) - 1
    if case in ("gzip", "zstd"):  # what stands before the damage is kept
        assert written > 1000
        assert listed[0]["row"] == written + 1
    else:
        assert written == documents


def test_a_file_that_cannot_be_opened_is_a_reject(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(GOOD)
    (tmp_path / "b.jsonl").symlink_to(tmp_path / "b.jsonl")  # too many levels of links
    inputs = sources.find([str(tmp_path / "a.jsonl")])
    lost = sources.Input(
        file=str(tmp_path / "b.jsonl"), name="b.jsonl", source="b", fields=readers.Fields()
    )
    from polyglot_jax.corpus import pipeline

    job = Job(work="", options=Options(min_chars=10))
    report = pipeline.run([*inputs, lost], str(tmp_path / "out"), job)
    assert report["counts"]["rejected"] == report["counts"]["written"] == 1
    assert report["inputs"][1]["error"] == "cannot be read"


def test_a_line_over_the_limit_is_passed_over_without_being_held(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.write(GOOD + b'{"text": "')
        for _ in range(200):
            file.write(b"x" * (1 << 20))
        file.write(b'"}\n' + line(f"{LONG}!"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report = run([str(path)], tmp_path / "out")
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    if sys.platform == "linux":
        assert grown_kib < 120 << 10
    assert [row["id"] for row in rows(tmp_path / "out")] == ["a.jsonl:1", "a.jsonl:3"]
    (reject,) = report["rejects"]
    assert (reject["row"], reject["reason"]) == (2, "longer than 33,554,432 bytes: 209,715,213")


def test_long_blocks_files_and_cells_are_rejects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (document, readers, tables):
        monkeypatch.setattr(module, "MAX_BYTES", 50)
    monkeypatch.setattr("polyglot_jax.corpus.lines.MAX_BYTES", 50)
    (tmp_path / "a.txt").write_text("가나\n\n" + "다라 마바\n" * 5 + "\n" + "a" * 60 + "\n\n끝")
    (tmp_path / "a.md").write_text("x" * 51)
    pq.write_table(pa.table({"text": ["x" * 51, "y"]}), tmp_path / "a.parquet")

    def read(name: str) -> list[tuple[int, bool]]:
        items = list(readers.read(epath.Path(tmp_path / name)))
        return [(item.row, isinstance(item, readers.Document)) for item in items]

    assert read("a.txt") == [(1, True), (3, False), (9, False), (11, True)]
    assert read("a.md") == [(1, False)]
    assert read("a.parquet") == [(1, False), (2, True)]


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.parquet"])
def test_cut_into_chunks_a_file_has_the_same_documents(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    texts = [f"{i} {'가' * (i * 37 % 50)}" for i in range(200)]
    if name == "a.parquet":
        pq.write_table(pa.table({"text": texts}), path, row_group_size=9)
    elif name == "a.txt":
        path.write_bytes(b"\xef\xbb\xbf" + "\r\n\r\n".join(f"{t}\r\n{t}" for t in texts).encode())
    else:
        path.write_bytes(b"\xef\xbb\xbf" + b"".join(map(line, texts)))
    job = Job(work=str(tmp_path), options=Options(), unit_bytes=600)
    (tmp_path / "scan").mkdir()
    inputs = sources.find([str(path)])
    plan.scan(job, 0, tuple(inputs))
    scans = json.loads((tmp_path / "scan/00000.json").read_text())["files"]
    chunks = plan.chunks(job, inputs, scans)
    assert len(chunks) > 10
    items = [item for chunk in chunks for _, item in plan.read(chunk, whole=False)]
    assert items == list(readers.read(epath.Path(path)))
    assert len(items) == 200


def test_data_sets_of_hugging_face(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    made = datasets.Dataset.from_dict({"text": [f"{LONG} {i}" for i in range(5)]})
    made.save_to_disk(tmp_path / "one", num_shards=2)
    datasets.DatasetDict(train=made, test=made.select([1])).save_to_disk(tmp_path / "both")
    assert [d.text[-1] for d in readers.documents(str(tmp_path / "one"))] == list("01234")
    assert [d.text[-1] for d in readers.documents(str(tmp_path / "both"))] == list("101234")
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub/train.jsonl").write_bytes(GOOD)
    with pytest.raises(ValueError, match="hf:nobody/nothing"):
        readers.find_files("hf:nobody/nothing here")
    (tmp_path / "one/state.json").write_text("{}")
    with pytest.raises(ValueError, match="not what datasets' save_to_disk writes"):
        readers.find_files(str(tmp_path / "one"))
