"""tokenizer.measure: figures that can be checked by hand, losses shown, one line for an error."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from polyglot_jax.corpus.readers import Document
from tests.tiny_tokenizer import SPECIAL_TOKENS, train_tokenizer
from tokenizer import measure, measure_page, segment

pytest.importorskip("MeCab", reason="MeCab is not installed (extra: tokenizer)")

ROOT = Path(__file__).resolve().parents[2]
TEXT = "아버지가 방에 들어가셨다.\n나는 학교에 갔다."


def save(tokenizer: Tokenizer, path: Path) -> str:
    path.parent.mkdir(exist_ok=True)
    tokenizer.save(str(path))
    return str(path)


def documents(*texts: str) -> list[Document]:
    return [Document("f", row, text) for row, text in enumerate(texts, 1)]


def bytes_only() -> Tokenizer:
    return train_tokenizer(len(SPECIAL_TOKENS) + 256)


def test_figures(tmp_path: Path) -> None:
    subjects = measure.load([save(bytes_only(), tmp_path / "bytes.json")])
    measured, (used,) = measure.measure(subjects, documents(TEXT, "", "가"))
    size = len(TEXT.encode()) + 3
    assert measured["text"] == {
        **{"documents": 2, "bytes": size, "characters": len(TEXT) + 1, "eojeols": 7}
    }
    (result,) = measured["tokenizers"]
    assert (result["tokens"], result["bytes_per_token"]) == (size, 1)
    assert result["tokens_per_eojeol"] == size / 7
    assert result["morphemes"]["all"]["recall"] == 1
    assert 0 < result["morphemes"]["hangul"]["precision"] < 0.5
    assert measured["dictionary"] == segment.DICTIONARIES["mecab-ko"].sha256
    assert result["gold"] is None
    assert result["not_lossless_documents"] == 0
    assert result["use"]["byte_fallback_bytes"] > 0.8
    assert used.sum() == size


def test_another_segmenter(tmp_path: Path) -> None:
    subjects = measure.load([save(bytes_only(), tmp_path / "bytes.json")])
    counts = {}
    for segmenter in ("none", "scripts"):
        measured, _ = measure.measure(subjects, documents("漢字と仮名abc"), segmenter=segmenter)
        assert measured["segmenter"] == segmenter
        assert measured["dictionary"] is None
        counts[segmenter] = measured["tokenizers"][0]["morphemes"]["all"]["morpheme_boundaries"]
    assert counts["none"] == 0 < counts["scripts"]


def test_names(tmp_path: Path) -> None:
    a = save(bytes_only(), tmp_path / "a" / "tokenizer.json")
    b = save(bytes_only(), tmp_path / "b" / "tokenizer.json")
    c = save(bytes_only(), tmp_path / "b" / "a.json")
    assert [s.name for s in measure.load([str(tmp_path / "a"), b])] == ["a", "b"]
    assert [s.name for s in measure.load([a, c])] == [a, c]
    with pytest.raises(ValueError, match="names one file twice"):
        measure.load([a, str(tmp_path / "a")])


def test_what_is_lost_is_shown(tmp_path: Path) -> None:
    composing, deleting = bytes_only(), bytes_only()
    composing.normalizer = normalizers.NFC()
    deleting.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex("ೱ"), "removed"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    paths = [save(composing, tmp_path / "nfc.json"), save(deleting, tmp_path / "split.json")]
    measured, _ = measure.measure(
        measure.load(paths), documents("가나", "\u1100\u1161!", "abcೱ문자")
    )
    nfc, split = measured["tokenizers"]
    assert (nfc["not_lossless_documents"], split["not_lossless_documents"]) == (1, 1)
    assert nfc["failures"] == ["f:2: character 1: 'ᄀ\u1161!' comes back as '가!'"]
    assert split["failures"] == ["f:3: character 4: 'abcೱ문자' comes back as 'abc문자'"]


def test_special_tokens_of_the_text_are_text_but_masks_are_not(tmp_path: Path) -> None:
    tokenizer = bytes_only()
    tokenizer.add_special_tokens(["<|tel|>"])
    subjects = measure.load([save(tokenizer, tmp_path / "t.json")])
    text = "<|endoftext|><|tel|>"
    measured, _ = measure.measure(subjects, documents(text))
    assert measured["tokenizers"][0]["tokens"] == len("<|endoftext|>") + 1
    assert measured["tokenizers"][0]["not_lossless_documents"] == 0


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tokenizer.measure", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_program(tmp_path: Path) -> None:
    (tmp_path / "text.jsonl").write_text(json.dumps({"text": TEXT}) + "\n")
    (tmp_path / "gold.conllu").write_text("1\t학교에\t학교+에" + "\t_" * 7 + "\n")
    paths = [
        save(bytes_only(), tmp_path / "bytes.json"),
        save(train_tokenizer(320), tmp_path / "<small>.json"),
    ]
    done = run(
        f"--tokenizer={','.join(paths)}",
        f"--input={tmp_path}/text.jsonl",
        f"--gold={tmp_path}/gold.conllu",
        f"--output={tmp_path}/new/out",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^ +bytes +<small>\n", done.stdout)
    lines = done.stdout.splitlines()
    assert len({len(line) for line in lines[: len(measure_page.ROWS) + 1]}) == 1
    measured = json.loads((tmp_path / "new/out/measure.json").read_text())
    assert [result["name"] for result in measured["tokenizers"]] == ["bytes", "<small>"]
    assert measured["gold"] == {"sentences": 1, "words": 1, "contracted_words": 0}
    assert measured["tokenizers"][0]["gold"]["hangul"]["recall"] == 1
    page = (tmp_path / "new/out/measure.html").read_text()
    assert "&lt;small&gt;" in page
    assert "http" not in page
    assert "<small>" not in page
    assert "Every document comes back whole." in page


def test_coloured_tokens() -> None:
    html = measure_page.coloured([b"<b>", "가".encode()[:1], "가".encode()[1:], b" \n", b"\xff"])
    assert html.count("<span") == 4
    assert "&lt;b&gt;" in html
    assert "가<sub" in html
    assert "\u00a0↵" in html
    assert "\\xff" in html


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "not a tokenizer.json"),
        (Tokenizer(models.WordPiece({"a": 0}, unk_token="a")).to_str(), "its model is WordPiece"),
        (Tokenizer(models.BPE({"▁가": 0}, [])).to_str(), "token '▁가' is not of a byte-level"),
        (None, "no tokenizer at"),
    ],
)
def test_what_cannot_be_measured(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        measure.load([str(tmp_path)])


def test_empty_text_is_one_line(tmp_path: Path) -> None:
    path = save(bytes_only(), tmp_path / "bytes.json")
    (tmp_path / "text.jsonl").write_text('{"text": ""}\n')
    done = run(f"--tokenizer={path}", f"--input={tmp_path}/text.jsonl", f"--output={tmp_path}/x")
    assert (done.returncode, done.stderr) == (1, "error: --input holds no text\n")
    done = run(f"--tokenizer={path}", f"--input={tmp_path}/text.jsonl", f"--output={path}/x")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


def test_the_published_tokenizer_finds_morphemes(shared_data: Path) -> None:
    """Trained with MeCab, it cuts where MeCab cuts: some 97 % of boundaries in news."""
    import gzip

    with gzip.open(shared_data / "boddari" / "wikinews.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = [json.loads(next(lines))["text"] for _ in range(40)]
    subjects = measure.load([str(shared_data / "polyglot_tokenizer")])
    measured, _ = measure.measure(subjects, documents(*texts))
    (result,) = measured["tokenizers"]
    assert 0.95 < result["morphemes"]["all"]["recall"] < 0.99
    assert result["morphemes"]["hangul"]["f1"] > 0.85
    assert 4.3 < result["bytes_per_token"] < 5.0


def test_what_is_wrong_with_the_treebank_is_found_before_the_text_is_read(tmp_path: Path) -> None:
    (tmp_path / "text.jsonl").write_text(json.dumps({"text": TEXT}) + "\n")
    path = save(bytes_only(), tmp_path / "bytes.json")
    done = run(
        *(f"--tokenizer={path}", f"--input={tmp_path}/text.jsonl"),
        *(f"--gold={tmp_path}/none.conllu", f"--output={tmp_path}/out"),
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "none.conllu" in done.stderr
    assert not (tmp_path / "out").exists()


def test_another_dictionary_is_not_measured_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = dataclasses.replace(segment.DICTIONARIES["mecab-ko"], sha256="0" * 64)
    monkeypatch.setitem(segment.DICTIONARIES, "mecab-ko", other)
    subjects = measure.load([save(bytes_only(), tmp_path / "bytes.json")])
    with pytest.raises(ValueError, match="not the dictionary of python-mecab-ko-dic"):
        measure.measure(subjects, documents(TEXT))
