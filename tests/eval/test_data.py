"""Reading benchmark files: their traps, and messages that say where a row is wrong."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from eval import data, tasks
from eval.task import Task

COPA_HEADER = "ID\tsentence\tquestion\t1\t2\tAnswer\r\n"
COPA_ROW = "1\t비가 왔다.\t결과\t길이 젖었다.\t길이 말랐다.\t1"
COPA = {
    "premise": "비가 왔다.",
    "question": "결과",
    "alternative_1": "길이 젖었다.",
    "alternative_2": "길이 말랐다.",
    "label": 0,
}


def task(name: str) -> Task:
    (found,) = tasks.find([name])
    return found


def write(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode())
    return path


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    return write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("name", "split", "count", "label"),
    [
        ("kobest_boolq", "train", 3665, 1831),
        ("kobest_boolq", "dev", 700, 326),
        ("kobest_copa", "train", 3076, 1405),
        ("kobest_hellaswag", "dev", 500, 125 + 2 * 145 + 3 * 119),
        ("kobest_sentineg", "train", 3649, 1838),
        ("kobest_wic", "dev", 610, 257 + 4),
    ],
)
def test_release(shared_data: Path, name: str, split: str, count: int, label: int) -> None:
    found = data.read(task(name), shared_data / "kobest_v1", split)
    assert len(found.rows) == count
    assert sum(row["label"] for row in found.rows) == label


def test_klue(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "klue_v1.1"
    nli = data.read(task("klue_nli"), folder, "test").rows
    assert len(nli) == 3000
    assert nli[0]["premise"].startswith("흡연자분들은")
    assert nli[0]["label"] == 2
    sts = data.read(task("klue_sts"), folder, "dev").rows
    assert (len(sts), sts[0]["labels"]) == (519, 1)


def test_quotes_stay_and_nothing_but_line_feeds_ends_a_row(tmp_path: Path) -> None:
    line = COPA_ROW.replace("비가 왔다.", '"비가"\u2028왔다 \x85"')
    write(tmp_path / "COPA" / "test.tsv", COPA_HEADER + line)
    (row,) = data.read(task("kobest_copa"), tmp_path, "test").rows
    assert row["premise"] == '"비가"\u2028왔다 \x85"'


@pytest.mark.parametrize(
    "name", ["COPA/copa_test.tsv", "v1.0/COPA/test.tsv", "kobest-copa_test.tsv"]
)
def test_names(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, COPA_HEADER + COPA_ROW + "\r\n")
    assert data.read(task("kobest_copa"), tmp_path, "test").rows == (COPA,)


def test_a_folder_or_file_of_one_task(tmp_path: Path) -> None:
    path = write(tmp_path / "copa" / "test.tsv", COPA_HEADER + COPA_ROW)
    for place in (tmp_path / "copa", path):
        assert data.read(task("kobest_copa"), place, "test").rows == (COPA,)


def test_exports_of_the_hub_copy(tmp_path: Path) -> None:
    copa = task("kobest_copa")
    write_lines(tmp_path / "a" / "copa" / "validation.jsonl", [COPA])
    write(tmp_path / "b" / "copa" / "validation.json", json.dumps([COPA]))
    line = json.dumps(COPA).encode() + b"\n"
    (tmp_path / "c" / "copa").mkdir(parents=True)
    (tmp_path / "c" / "copa" / "dev.jsonl.gz").write_bytes(gzip.compress(line))
    for number in range(2):
        path = tmp_path / "d" / "copa" / f"validation-0000{number}-of-00002.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        row = {**COPA, "premise": f"{number}번"}
        parquet.write_table(pa.Table.from_pylist([row]), path)
    splits = [data.read(copa, tmp_path / folder, "dev") for folder in "abcd"]
    assert [split.rows for split in splits[:3]] == [(COPA,)] * 3
    assert len({split.sha256 for split in splits[:3]}) == 1
    assert [row["premise"] for row in splits[3].rows] == ["0번", "1번"]


def test_sentineg_test_takes_the_negated_text(tmp_path: Path) -> None:
    header = "ID\tLabel_origin\tText_origin\tLabel\tText\tCategory_neg\n"
    write(tmp_path / "SentiNeg" / "test.tsv", header + "1\t1\t좋아요\t0\t안 좋아요\t부정")
    write(tmp_path / "SentiNeg" / "test_originated.tsv", "ID\tText\tLabel\n1\t좋아요\t1")
    (row,) = data.read(task("kobest_sentineg"), tmp_path, "test").rows
    assert row == {"sentence": "안 좋아요", "label": 0}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (COPA_ROW.replace("길이 젖었다.\t", ""), "line 3: 5 columns where the header has 6"),
        (COPA_ROW[:-1] + "3", "line 3, column Answer: '3': a number from 1 to 2 is wanted"),
        (COPA_ROW.replace("길이 말랐다.", " "), "line 3, column 2: ' ': it is empty"),
        (COPA_ROW.replace("결과", "왜"), "line 3, column question: '왜': one of 원인, 결과"),
        ("", "line 3: 1 columns"),
    ],
)
def test_malformed_rows(tmp_path: Path, rows: str, message: str) -> None:
    path = write(tmp_path / "COPA" / "test.tsv", f"{COPA_HEADER}{COPA_ROW}\r\n{rows}\r\n{COPA_ROW}")
    with pytest.raises(ValueError, match=r"COPA.test\.tsv") as error:
        data.read(task("kobest_copa"), tmp_path, "test")
    assert f"{path}, {message}" in str(error.value)


@pytest.mark.parametrize(
    ("suffix", "content", "message"),
    [
        ("tsv", b"ID\tsentence\n1\t\xff", "line 2: not UTF-8"),
        ("tsv", b"ID\tsentence\n1\tx", "line 2: no column question; there is: ID, sentence"),
        ("jsonl", b'{"premise": "x"}\n{"premise"', "line 1: no column question"),
        ("jsonl", b"{", "line 1: not JSON"),
        ("jsonl", b"[1]\n", "line 1: an object is wanted"),
        ("json", b"{}", "a list of objects is wanted"),
        ("json", b"[1]", "item 1: an object is wanted"),
        ("json", b"[\n1,,]", "line 2: not JSON"),
        ("parquet", b"PAR", "not a Parquet file"),
        ("tsv.gz", b"\x1f\x8b", "a broken gzip file"),
        ("tsv.gz", gzip.compress(b"ID", mtime=0)[:10] + b"\xff" * 20, "a broken gzip file"),
        ("tsv", b"ID\tsentence\n", "no row"),
    ],
)
def test_broken_files(tmp_path: Path, suffix: str, content: bytes, message: str) -> None:
    path = tmp_path / "COPA" / f"test.{suffix}"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        data.read(task("kobest_copa"), tmp_path, "test")


def test_a_file_that_unpacks_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = gzip.compress((COPA_HEADER + COPA_ROW).encode())
    (tmp_path / "COPA").mkdir()
    (tmp_path / "COPA" / "test.tsv.gz").write_bytes(packed)
    assert data.read(task("kobest_copa"), tmp_path, "test").rows == (COPA,)
    monkeypatch.setattr(data, "_MOST_BYTES", 9)
    with pytest.raises(ValueError, match=r"test\.tsv\.gz unpacks to more than 9 bytes"):
        data.read(task("kobest_copa"), tmp_path, "test")


def test_a_missing_split_says_what_is_there(tmp_path: Path) -> None:
    write(tmp_path / "COPA" / "train.tsv", COPA_HEADER + COPA_ROW)
    with pytest.raises(ValueError, match=r"no test split of kobest_copa .*train \(COPA/train.tsv"):
        data.read(task("kobest_copa"), tmp_path, "test")
    with pytest.raises(ValueError, match="nothing of it"):
        data.read(task("kobest_wic"), tmp_path, "test")
    with pytest.raises(ValueError, match="no such directory"):
        data.read(task("kobest_wic"), tmp_path / "none", "test")
    with pytest.raises(ValueError, match="haerae_history has no train split, only: test"):
        data.read(task("haerae_history"), tmp_path, "train")


def test_two_candidates_are_refused(tmp_path: Path) -> None:
    for name in ("COPA/test.tsv", "copa_test.tsv"):
        write(tmp_path / name, COPA_HEADER + COPA_ROW)
    with pytest.raises(ValueError, match="which is the test split of kobest_copa"):
        data.read(task("kobest_copa"), tmp_path, "test")


def test_duplicates_are_found(tmp_path: Path) -> None:
    other = COPA_ROW.replace("비가", "눈이")
    write(tmp_path / "COPA" / "test.tsv", COPA_HEADER + "\n".join([COPA_ROW, other, COPA_ROW]))
    assert data.read(task("kobest_copa"), tmp_path, "test").duplicates == ((2, 0),)


def test_offline_hub_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")

    def fail(*args: Any) -> None:
        raise ConnectionError("Couldn't reach 'skt/kobest_v1' on the Hub\nmore")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(ValueError, match=r"the hub does not give skt/kobest_v1 \(copa\)") as error:
        data.read(task("kobest_copa"), None, "test")
    assert "\n" not in str(error.value)
    assert "--data" in str(error.value)


def test_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets, "load_dataset", lambda *args: {"train": [], "validation": [COPA]})
    assert data.read(task("kobest_copa"), None, "dev").rows == (COPA,)
    with pytest.raises(ValueError, match="has no test split; there is: train, validation"):
        data.read(task("kobest_copa"), None, "test")
    with pytest.raises(ValueError, match="minimal_pairs is not on the hub"):
        data.read(task("minimal_pairs"), None, "test")
