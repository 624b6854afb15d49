"""Readers: every document with its place, and nothing skipped in silence."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from etils import epath

from polyglot_jax.corpus import readers
from polyglot_jax.corpus.readers import Document, Reject


def read(path: Path) -> list[Document | Reject]:
    return list(readers.read(epath.Path(path)))


def test_jsonl_keeps_documents_and_names_every_reject(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = [
        b'\xef\xbb\xbf{"text": "\xea\xb0\x80\\n\xeb\x82\x98", "source": "s", "id": 7}\r',
        b"",
        b'{"text": "\xff"}',
        b'{"text": ',
        b'{"txt": "a"}',
        b'{"text": null}',
        b'{"text": 3}',
        b'["text"]',
        b'{"text": "\\ud800"}',
        b"[" * 100_000,
        '{"text": "가\u2028나"}'.encode(),
    ]
    path.write_bytes(b"\n".join(lines))
    first, *rejects, last = read(path)
    assert first == Document(str(path), 1, "가\n나", "s", "7")
    assert last == Document(str(path), 11, "가\u2028나")
    assert [(r.row, r.reason.split(":")[0]) for r in rejects if isinstance(r, Reject)] == [
        (3, "invalid UTF-8 at byte 11"),
        (4, "invalid JSON"),
        (5, "no field text"),
        (6, "text is null"),
        (7, "text is a int, not a string"),
        (8, "not an object but a list"),
        (9, "text holds a lone surrogate at character 1"),
        (10, "invalid JSON"),
    ]


def test_damaged_gzip_keeps_what_stands_before_the_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    whole = gzip.compress(b"".join(b'{"text": "%d"}\n' % i for i in range(20_000)))
    path.write_bytes(whole[: len(whole) // 2])
    *documents, reject = read(path)
    assert len(documents) > 1000
    assert isinstance(reject, Reject)
    assert (reject.row, reject.reason[:12]) == (len(documents) + 1, "damaged gzip")
    path.write_bytes(b"no gzip")
    assert [item.row for item in read(path)] == [1]


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    bad = pa.Array.from_buffers(
        pa.string(), 3, pa.array([b"\xea\xb0\x80", b"\xff", b"b"], pa.binary()).buffers()
    )
    pq.write_table(pa.table({"text": bad, "id": [1, 2, 3]}), path)
    first, reject, last = read(path)
    assert first == Document(str(path), 1, "가", None, "1")
    assert isinstance(reject, Reject)
    assert (reject.row, reject.reason[:13]) == (2, "invalid UTF-8")
    assert last == Document(str(path), 3, "b", None, "3")

    pq.write_table(pa.table({"text": ["a", None], "source": ["s", "s"]}), path)
    assert read(path) == [Document(str(path), 1, "a", "s"), Reject(str(path), 2, "text is null")]
    for table, message in [
        (pa.table({"body": ["a"]}), "no column text among body"),
        (pa.table({"text": [1]}), "column text holds int64"),
    ]:
        pq.write_table(table, path)
        with pytest.raises(ValueError, match=message):
            read(path)
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(ValueError, match=r"a\.parquet: "):
        read(path)


def test_text_files_are_one_document_each(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeff가\r\n나".encode())
    (tmp_path / "b.md.gz").write_bytes(gzip.compress("# 다".encode()))
    (tmp_path / "c.txt").write_bytes(b"a\xff")
    (tmp_path / "d.txt.gz").write_bytes(b"x")
    assert read(tmp_path / "a.txt") == [
        Document(str(tmp_path / "a.txt"), 1, "가\r\n나", None, "a.txt")
    ]
    assert read(tmp_path / "b.md.gz")[0].text == "# 다"  # type: ignore[union-attr]
    assert read(tmp_path / "c.txt")[0].reason.startswith("invalid UTF-8 at byte 2")  # type: ignore[union-attr]
    assert read(tmp_path / "d.txt.gz")[0].reason.startswith("damaged gzip")  # type: ignore[union-attr]


def test_find_files(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "sub/c.jsonl", ".d.jsonl", "x.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")

    def names(pattern: str) -> list[str]:
        return [str(f.relative_to(tmp_path)) for f in readers.find_files(pattern)]

    assert names(str(tmp_path)) == names(f"{tmp_path}/*.jsonl") == ["a.jsonl", "b.jsonl"]
    assert names(f"{tmp_path}/**/*.jsonl") == ["a.jsonl", "b.jsonl", "sub/c.jsonl"]
    assert names(f"{tmp_path}/b.jsonl") == ["b.jsonl"]
    (tmp_path / "part-0.parquet").touch()
    assert names(str(tmp_path)) == ["part-0.parquet"]
    with pytest.raises(ValueError, match="no file matches"):
        readers.find_files(f"{tmp_path}/*.txt")
    with pytest.raises(ValueError, match=r"x\.csv: not one of \.jsonl"):
        readers.find_files(f"{tmp_path}/x*")


def test_documents_refuses_the_first_reject_by_place(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "가"}) + "\n{}\n")
    with pytest.raises(ValueError, match=r"a\.jsonl:2: no field text"):
        list(readers.documents(str(path)))
