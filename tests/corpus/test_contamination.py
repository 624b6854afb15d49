"""Held-out text in documents: found across line ends and spelling, and nothing else."""

import gzip
import json
from pathlib import Path

import pytest

from polyglot_jax.corpus import contamination
from tests.corpus.corpora import LONG, rows, run, write

LONG_ITEM = "하나 둘 셋 넷 다섯 여섯 일곱 여덟 아홉 열 열하나 열둘 열셋 열넷 열다섯 열여섯 열일곱"
SHORT_ITEM = "그 남자는 어제 집에 갔다."
TINY_ITEM = "그는 집에 갔다"


def test_documents_that_share_words_are_flagged_or_removed(tmp_path: Path) -> None:
    held_out = tmp_path / "kobest/dev.tsv"
    held_out.parent.mkdir()
    held_out.write_text(f"문장\t답\r\n{LONG_ITEM}\t1\r\n{SHORT_ITEM}\t0\r\n{TINY_ITEM}\t1\r\n")
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"data": [{"q": "아무 데도 없는 다섯 낱말"}]}))
    inside = " ".join(LONG_ITEM.split()[2:15])
    texts = [
        f"{LONG} {inside} {LONG}",
        f"{LONG} {' '.join(LONG_ITEM.split()[2:14])} {LONG}",  # twelve words of a longer field
        f"{LONG}\n그 남자는, 어제\n집에 “갔다” {LONG}",
        f"{LONG} {TINY_ITEM} {LONG}.",
        f"{LONG} 그 남자는 어제",  # goes on in the next document
        f"집에 갔다. {LONG}",
    ]
    path = write(tmp_path / "a.jsonl", [{"text": text} for text in texts])
    settings = {"held_out": (str(held_out), str(other))}
    report = run([str(path)], tmp_path / "out", **settings)
    assert [row["contaminated"] for row in rows(tmp_path / "out")] == [
        *(True, False, True, False, False, False)
    ]
    found = report["contamination"]
    assert (found["documents"], found["by_file"]) == (2, {"kobest/dev.tsv": 2})
    assert {e["ngram"] for e in found["examples"]} == {inside, "그 남자는 어제 집에 갔다"}
    report = run([str(path)], tmp_path / "removed", remove_contaminated=True, **settings)
    assert [row["id"] for row in rows(tmp_path / "removed")] == [
        f"a.jsonl:{i}" for i in (2, 4, 5, 6)
    ]
    assert report["counts"]["contaminated"] == 2


def test_fields_of_every_kind_of_file(tmp_path: Path) -> None:
    def fields(name: str, data: bytes) -> list[str]:
        (tmp_path / name).write_bytes(data)
        return list(contamination.fields_of(str(tmp_path / name)))

    assert fields("a.tsv", b"\xef\xbb\xbfa b\tc\r\nd\n") == ["a b", "c", "d"]
    assert fields("a.csv", b'"a, b",c\n') == ["a, b", "c"]
    assert fields("a.txt", b"a\tb\n") == ["a\tb"]
    assert fields("a.jsonl.gz", gzip.compress(b'{"x": ["a", 1, {"y": "b"}]}\n\n')) == ["a", "b"]
    assert fields("a.json", b'["a"]') == ["a"]
    for name, data in [("b.json", b"["), ("b.txt", b"\xff"), ("b.tsv.gz", b"x")]:
        with pytest.raises(ValueError, match=rf"{name}: "):
            fields(name, data)


def test_a_file_without_a_field_to_compare_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("짧다\n")
    path = write(tmp_path / "a.jsonl", [{"text": LONG}])
    with pytest.raises(ValueError, match="no field of 5 words"):
        run([str(path)], tmp_path / "out", held_out=(str(tmp_path / "a.txt"),))


def test_kobest_against_itself(shared_data: Path, tmp_path: Path) -> None:
    held_out = shared_data / "kobest_v1/BoolQ/dev.tsv"
    lines = held_out.read_text(encoding="utf-8").splitlines()[1:21]
    path = write(tmp_path / "a.jsonl", [{"text": max(line.split("\t"), key=len)} for line in lines])
    report = run([str(path)], tmp_path / "out", held_out=(str(held_out),))
    assert report["contamination"]["documents"] == report["counts"]["written"] > 10
