"""What the encoder reads: bad lines are named, and only three tokens are special in text."""

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, models

from polyglot_jax.data import documents
from tests.data.made import SPECIAL, run, write_parquet, write_tokenizer


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (b'{"text": "a"}\n{"text": "\xff"}\n', "line 2: not UTF-8"),
        (b'{"text": "a"}\n\n{"text": "\\ud800"}\n', "line 3: not Unicode text"),
        (b'{"text": "a"\n', "line 1: not JSON"),
        (b"[" * 100_000, "line 1: not JSON"),
        (b'{"text": null}\n', 'line 1: expected an object with a string "text"'),
        (b'{"text": 3}\n', "line 1: expected an object"),
        (b'{"txt": "a"}\n', "line 1: expected an object"),
        (b'"text"\n', "line 1: expected an object"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, lines: bytes, message: str) -> None:
    (tmp_path / "docs.jsonl").write_bytes(lines)
    (file,) = documents.list_files(tmp_path / "docs.jsonl")
    with pytest.raises(ValueError, match=f"docs.jsonl, {message}") as error:
        list(documents.read_texts(file))
    assert "\n" not in str(error.value)


def test_bad_line_reaches_the_caller_from_its_worker(tokenizer: Path, tmp_path: Path) -> None:
    (tmp_path / "docs.jsonl").write_bytes(b'{"text": "a"}\n{"text": "\xff"}\n')
    with pytest.raises(ValueError, match=r"docs\.jsonl, line 2: not UTF-8"):
        run(tmp_path / "docs.jsonl", tokenizer, tmp_path / "out")
    assert not (tmp_path / "out" / "train").exists()


def test_bad_rows_and_files_are_named(tmp_path: Path) -> None:
    def read(name: str) -> None:
        list(documents.read_texts(documents.list_files(tmp_path / name)[0]))

    write_parquet(tmp_path / "null.parquet", ["a", "b", None])
    with pytest.raises(ValueError, match=r"null\.parquet, row 3: the text is null"):
        read("null.parquet")
    invalid = pa.array([b"a", b"\xff"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": invalid}), tmp_path / "bytes.parquet")
    with pytest.raises(ValueError, match=r"bytes\.parquet, row 2: not UTF-8"):
        read("bytes.parquet")
    pq.write_table(pa.table({"body": ["a"]}), tmp_path / "body.parquet")
    with pytest.raises(ValueError, match='string column "text", found body'):
        read("body.parquet")
    pq.write_table(pa.table({"text": [1]}), tmp_path / "int.parquet")
    with pytest.raises(ValueError, match='string column "text"'):
        read("int.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "null.parquet").read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"cut\.parquet: damaged or cut off"):
        read("cut.parquet")
    whole = gzip.compress(b'{"text": "a"}\n' * 999)
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[:-20])
    with pytest.raises(ValueError, match=r"cut\.jsonl\.gz: damaged or cut off"):
        read("cut.jsonl.gz")
    (tmp_path / "cut.jsonl.gz").write_bytes(b"text")
    with pytest.raises(ValueError, match=r"cut\.jsonl\.gz: damaged or cut off"):
        read("cut.jsonl.gz")


def test_inputs_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file or directory"):
        documents.list_files(tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"no \*\.parquet"):
        documents.list_files(tmp_path)
    (tmp_path / "docs.txt").write_text("")
    with pytest.raises(ValueError, match="ends in one of"):
        documents.list_files(tmp_path / "docs.txt")


def test_only_the_placeholders_are_special_in_text(tokenizer: Path) -> None:
    loaded = documents.tokenizer_for_documents(tokenizer.read_bytes(), "x")
    ids = {token: loaded.token_to_id(token) for token in SPECIAL}
    for token in SPECIAL:
        found = loaded.encode(f"가 {token}나", add_special_tokens=False).ids
        assert (ids[token] in found) == (token in documents.PLACEHOLDERS)
        assert loaded.decode(found, skip_special_tokens=False) == f"가 {token}나"


def test_token_bytes(tokenizer: Path) -> None:
    text = "문서 hello <|tel|>\n😀"
    sizes = documents.token_bytes(tokenizer.read_bytes(), "x")
    loaded = documents.tokenizer_for_documents(tokenizer.read_bytes(), "x")
    assert sizes.shape == (258 + len(SPECIAL),)
    assert sizes[-len(SPECIAL) :].sum() == 0
    ids = loaded.encode(text, add_special_tokens=False).ids
    assert sizes[ids].sum() == len(text.replace("<|tel|>", "").encode())


def test_unfit_tokenizers_are_refused(tmp_path: Path) -> None:
    without = write_tokenizer(tmp_path / "without.json", ["<pad>"])
    with pytest.raises(ValueError, match=r"^x: has no <\|endoftext\|>"):
        documents.tokenizer_for_documents(without.read_bytes(), "x")
    for damaged in (b"", b"{}", b"[]", without.read_bytes()[:100], b"\xff"):
        with pytest.raises(ValueError, match=r"^x: not a tokenizer\.json"):
            documents.tokenizer_for_documents(damaged, "x")
    words = Tokenizer(models.BPE({"한": 0}, []))
    words.add_special_tokens(["<|endoftext|>"])
    with pytest.raises(ValueError, match="'한' is not of a byte-level tokenizer"):
        documents.token_bytes(words.to_str().encode(), "x")
