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
        b'{"text": "a", "id": ' + b"9" * 5000 + b"}",
        '{"text": "가\u2028나"}'.encode(),
    ]
    path.write_bytes(b"\n".join(lines))
    first, *rejects, last = read(path)
    assert first == Document(str(path), 1, "가\n나", "s", "7")
    assert last == Document(str(path), 12, "가\u2028나")
    assert [(r.row, r.reason.split(":")[0]) for r in rejects if isinstance(r, Reject)] == [
        (3, "invalid UTF-8 at byte 11"),
        (4, "invalid JSON"),
        (5, "no field text"),
        (6, "text is null"),
        (7, "text is a int, not a string"),
        (8, "not an object but a list"),
        (9, "text holds a lone surrogate at character 1"),
        (10, "invalid JSON"),
        (11, "invalid JSON"),
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
        (pa.table({"text": [1]}), "column text holds int64, not strings"),
    ]:
        pq.write_table(table, path)
        assert read(path) == [Reject(str(path), 0, f"cannot be read: {message}")]
    path.write_bytes(b"PAR1 not really")
    (reject,) = read(path)
    assert isinstance(reject, Reject)
    assert (reject.row, reject.reason[:14]) == (0, "cannot be read")


def test_plain_text_is_a_document_per_block(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeff가\r\n나\r\n\r\n \n\n다\n\n".encode() + b"a\xff\n\n  b")
    first, second, reject, last = read(path)
    assert first == Document(str(path), 1, "가\r\n나")
    assert second == Document(str(path), 6, "다")
    assert reject == Reject(str(path), 8, "invalid UTF-8 at byte 2: invalid start byte")
    assert last == Document(str(path), 10, "  b")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert [item.row for item in read(tmp_path / "b.txt.gz")] == [1, 6, 8, 10]
    (tmp_path / "c.txt.gz").write_bytes(b"x")
    assert read(tmp_path / "c.txt.gz")[0].reason.startswith("damaged gzip")  # type: ignore[union-attr]


def test_a_markdown_file_is_one_document(tmp_path: Path) -> None:
    path = tmp_path / "a.md.gz"
    path.write_bytes(gzip.compress("\ufeff# 다\n\n라".encode()))
    assert read(path) == [Document(str(path), 1, "# 다\n\n라")]
    path.write_bytes(b"x")
    assert read(path)[0].reason.startswith("damaged gzip")  # type: ignore[union-attr]


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()


def test_find_files(tmp_path: Path) -> None:
    touch(tmp_path, "b.jsonl", "a.jsonl", ".d.jsonl", ".x.csv")

    def names(pattern: str) -> list[str]:
        return [str(f.relative_to(tmp_path)) for f in readers.find_files(pattern)]

    assert names(str(tmp_path)) == names(f"{tmp_path}/*.jsonl") == ["a.jsonl", "b.jsonl"]
    touch(tmp_path, "sub/c.jsonl", "x.csv")
    assert names(f"{tmp_path}/**/*.jsonl") == ["a.jsonl", "b.jsonl", "sub/c.jsonl"]
    assert names(f"{tmp_path}/b.jsonl") == ["b.jsonl"]
    with pytest.raises(ValueError, match="no file matches"):
        readers.find_files(f"{tmp_path}/*.txt")
    with pytest.raises(ValueError, match=r"x\.csv: only \.jsonl, .* are read"):
        readers.find_files(f"{tmp_path}/x*")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("a.jsonl", "b.parquet"), r"mixes JSONL \(a.jsonl\), Parquet \(b.parquet\); name"),
        (("a.jsonl", "b.txt"), "mixes JSONL"),
        (("a.jsonl", "b.jsonl.xz"), r"b\.jsonl\.xz: only \.jsonl, "),
        (("a.jsonl", "b.json"), r"b\.json: only \.jsonl, "),
        (("a.jsonl", "sub/b.jsonl"), "holds a folder, sub;"),
        (("report.json", "rejects.jsonl"), "no file matches"),
        ((".a.jsonl",), "no file matches"),
    ],
)
def test_nothing_in_a_directory_is_skipped_in_silence(
    tmp_path: Path, files: tuple[str, ...], message: str
) -> None:
    touch(tmp_path, *files)
    with pytest.raises(ValueError, match=message):
        readers.find_files(str(tmp_path))


def test_an_output_of_the_corpus_program_is_its_parquet(tmp_path: Path) -> None:
    touch(tmp_path, "part-00000.parquet", "rejects.jsonl", "report.json")
    assert [f.name for f in readers.find_files(str(tmp_path))] == ["part-00000.parquet"]


def test_documents_refuses_the_first_reject_by_place(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "가"}) + "\n{}\n")
    with pytest.raises(ValueError, match=r"a\.jsonl:2: no field text"):
        list(readers.documents(str(path)))
