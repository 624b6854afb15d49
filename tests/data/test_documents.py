"""What the encoder reads: bad lines are named, and only three tokens are special in text."""

import json
from pathlib import Path

import pytest
from etils import epath
from tokenizers import Tokenizer, models

from polyglot_jax.data import documents
from polyglot_jax.tokens import PLACEHOLDERS
from tests.data.made import SPECIAL, run, write_parquet, write_tokenizer


def test_bad_documents_are_named(tmp_path: Path) -> None:
    lines = tmp_path / "docs.jsonl"
    lines.write_bytes(b'{"text": "a"}\n\n{"text": "\\ud800"}\n')
    with pytest.raises(ValueError, match=r"docs\.jsonl, line 3: [^\n]*surrogate[^\n]*$"):
        list(documents.read_texts(epath.Path(lines)))
    write_parquet(tmp_path / "null.parquet", ["a", "b", None])
    with pytest.raises(ValueError, match=r"null\.parquet, line 3: text is null"):
        list(documents.read_texts(epath.Path(tmp_path / "null.parquet")))
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "null.parquet").read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"cut\.parquet: "):
        list(documents.read_texts(epath.Path(tmp_path / "cut.parquet")))


def test_bad_line_reaches_the_caller_from_its_worker(tokenizer: Path, tmp_path: Path) -> None:
    (tmp_path / "docs.jsonl").write_bytes(b'{"text": "a"}\n{"text": "\xff"}\n')
    with pytest.raises(ValueError, match=r"docs\.jsonl, line 2: invalid UTF-8"):
        run(tmp_path / "docs.jsonl", tokenizer, tmp_path / "out")
    assert not (tmp_path / "out" / "train").exists()


def test_only_the_placeholders_are_special_in_text(tokenizer: Path) -> None:
    loaded = documents.tokenizer_for_documents(tokenizer.read_bytes(), "x")
    ids = {token: loaded.token_to_id(token) for token in SPECIAL}
    for token in SPECIAL:
        found = loaded.encode(f"가 {token}나", add_special_tokens=False).ids
        assert (ids[token] in found) == (token in PLACEHOLDERS)
        assert loaded.decode(found, skip_special_tokens=False) == f"가 {token}나"


def test_token_bytes(tokenizer: Path) -> None:
    text = "문서 hello <|tel|>\n😀"
    sizes = documents.token_bytes(tokenizer.read_bytes(), "x")
    loaded = documents.tokenizer_for_documents(tokenizer.read_bytes(), "x")
    assert sizes.shape == (258 + len(SPECIAL),)
    assert sizes[-len(SPECIAL) :].sum() == 0
    ids = loaded.encode(text, add_special_tokens=False).ids
    assert sizes[ids].sum() == len(text.replace("<|tel|>", "").encode())
    table = documents.token_table(loaded, "x")
    assert b"".join(table[i] for i in ids) == text.encode()


def test_placeholders_count_no_bytes_however_they_are_marked(tokenizer: Path) -> None:
    values = json.loads(tokenizer.read_bytes())
    for token in values["added_tokens"]:
        token["special"] = token["content"] == "<|endoftext|>"
    sizes = documents.token_bytes(json.dumps(values).encode(), "x")
    expected = [len("<pad>"), 0, 0, 0, 0]
    assert sizes[-len(SPECIAL) :].tolist() == expected


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"normalizer": {"type": "Lowercase"}}, "has a normalizer"),
        ({"pre_tokenizer.add_prefix_space": True}, "add_prefix_space"),
        ({"pre_tokenizer.type": "Whitespace"}, "comes back as"),
        ({"model.vocab": 255}, "no token for 1 of the 256 bytes"),
    ],
)
def test_lossy_tokenizers_are_refused(tokenizer: Path, change: dict, message: str) -> None:
    values = json.loads(tokenizer.read_bytes())
    documents.check_lossless(json.dumps(values).encode(), "x")
    for key, value in change.items():
        outer, _, inner = key.partition(".")
        if key == "model.vocab":
            values["model"]["vocab"].pop("z")
        elif inner:
            values[outer][inner] = value
        else:
            values[outer] = value
    with pytest.raises(ValueError, match=f"^x: would change [^\\n]*{message}[^\\n]*$"):
        documents.check_lossless(json.dumps(values).encode(), "x")
