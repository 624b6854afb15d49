"""The trained tokenizer: ids as published, merges inside morphemes, any text back as it was."""

import builtins
import gzip
import itertools
import json
import os
import signal
import subprocess
import sys
import time
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from tokenizer import segment
from tokenizer import train as training

pytest.importorskip("MeCab", reason="MeCab is not installed (extra: tokenizer)")

REPOSITORY = Path(__file__).resolve().parents[1]
DATA = REPOSITORY.parent / "shared" / "data"
NEWS = DATA / "boddari" / "wikinews.jsonl.gz"
PUBLISHED = DATA / "polyglot_tokenizer" / "tokenizer.json"
STEADY = settings(deadline=None, derandomize=True, database=None, max_examples=300)

KOREAN = [
    "한국어 형태소 분석기를 사용하지 않고 추론합니다.\n학습할 때만 형태소를 사용합니다.",
    "아버지가 방에 들어가셨다.  어머니는 부엌에서 저녁을 준비하셨다.",
    "나는 학교에 갔다.\n그리고 밥을 먹었다.\n친구는 집에 갔다.",
    "정부는 오늘 국무회의를 열고 새로운 정책을 발표했다. 회의에는 장관들이 참석했다.",
    "이 제품은 배송이 빠르고 품질이 좋습니다.\t다시 구매하고 싶습니다. 감사합니다!",
    "서울에서 부산까지 기차로 두 시간 30분이 걸립니다. 요금은 59,800원입니다.",
    "결제를 취소하려면 관리자 화면에서 결제 내역을 선택하고 취소 버튼을 누르세요.",
    "봄에는 꽃이 피고 여름에는 비가 오고 가을에는 단풍이 들고 겨울에는 눈이 옵니다.",
]
VOCAB_SIZE = 330


@cache
def trained() -> Tokenizer:
    return training.train(KOREAN, VOCAB_SIZE)


@cache
def token_bytes() -> dict[str, bytes]:
    """Maps the 256 characters of byte-level BPE to their bytes, in GPT-2's order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    characters = [chr(b) for b in printable] + [chr(256 + i) for i in range(len(others))]
    return {c: bytes([b]) for c, b in zip(characters, printable + others, strict=True)}


def merged(tokenizer: Tokenizer, vocab_size: int) -> list[bytes]:
    tokens = (tokenizer.id_to_token(i) for i in range(260, vocab_size))
    return [b"".join(token_bytes()[c] for c in token) for token in tokens]


def across_morphemes(tokens: list[bytes], texts: list[str]) -> list[bytes]:
    """Returns the tokens that lie in no single morpheme of the texts."""
    # 0xff is in no UTF-8, so nothing matches across it.
    morphemes = b"\xff".join(m.encode() for text in texts for m in segment.morphemes(text))
    return [token for token in tokens if token not in morphemes]


def news(count: int) -> list[str]:
    if not NEWS.exists():
        pytest.skip(f"no real text at {NEWS}")
    with gzip.open(NEWS, "rt", encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in itertools.islice(lines, count)]


def test_ids_are_as_published() -> None:
    tokenizer = trained()
    assert [tokenizer.id_to_token(i) for i in range(4)] == list(training.SPECIALS)
    assert [tokenizer.id_to_token(VOCAB_SIZE + i) for i in range(3)] == list(training.PII_SPECIALS)
    assert tokenizer.get_vocab_size() == VOCAB_SIZE + 3
    assert tokenizer.encode("\n\t ").ids == [202, 201, 224]
    alphabet = sorted(token_bytes())
    assert [tokenizer.id_to_token(4 + i) for i in range(256)] == alphabet
    if PUBLISHED.exists():
        published = Tokenizer.from_file(str(PUBLISHED))
        assert [published.id_to_token(i) for i in range(260)] == [*training.SPECIALS, *alphabet]


def test_the_file_needs_no_mecab_and_has_no_marker() -> None:
    spec = json.loads(trained().to_str())
    assert spec["normalizer"] is None
    assert spec["pre_tokenizer"]["type"] == "ByteLevel"
    assert (spec["pre_tokenizer"]["add_prefix_space"], spec["pre_tokenizer"]["use_regex"]) == (
        False,
        True,
    )
    assert spec["post_processor"]["type"] == spec["decoder"]["type"] == "ByteLevel"
    assert segment.MARKER not in trained().to_str()
    assert {t["content"]: t["id"] for t in spec["added_tokens"]} == {
        **{t: i for i, t in enumerate(training.SPECIALS)},
        **{t: VOCAB_SIZE + i for i, t in enumerate(training.PII_SPECIALS)},
    }
    assert all(t["special"] and not t["normalized"] for t in spec["added_tokens"])


def test_merges_never_cross_a_morpheme() -> None:
    assert across_morphemes(merged(trained(), VOCAB_SIZE), KOREAN) == []
    # The same training without morphemes does cross: the check can fail.
    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    specials = list(training.SPECIALS)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=specials,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    plain.train_from_iterator(KOREAN, trainer)
    assert across_morphemes(merged(plain, VOCAB_SIZE), KOREAN) != []


def test_merges_never_cross_a_morpheme_of_real_text() -> None:
    texts = news(60)
    tokenizer = training.train(texts, 2000)
    assert across_morphemes(merged(tokenizer, 2000), texts) == []
    # A frequent sequence of two morphemes is not one token; each of the two is.
    assert [tokenizer.decode([i]) for i in tokenizer.encode(" 것이다").ids] == [" 것", "이", "다"]


SPECIAL_TEXT = st.sampled_from([*training.SPECIALS, *training.PII_SPECIALS, segment.MARKER])
TRICKY = "가힣각 \t\n\r\x00\x0b\x85\u00a0\u2028\u3000\u0cf1\ufdd0\ufeff"
TRICKY += "大韓👩\u200d👧ㄱㅏ\u1112\u1161\u11ab"
ANY_TEXT = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    | st.text(TRICKY, max_size=8)
    | SPECIAL_TEXT,
    max_size=8,
).map("".join)


@STEADY
@given(text=ANY_TEXT)
def test_lossless_on_any_text(text: str) -> None:
    for form in (text, unicodedata.normalize("NFD", text)):
        ids = trained().encode(form).ids
        assert trained().decode(ids, skip_special_tokens=False) == form
        assert trained().encode(form, add_special_tokens=False).ids == ids


@STEADY
@given(text=ANY_TEXT)
def test_segmentation_keeps_every_character(text: str) -> None:
    assert "".join(segment.morphemes(text)) == text
    unmarked = text.replace(segment.MARKER, "")
    assert segment.marked(text).split(segment.MARKER) == (segment.morphemes(unmarked) or [""])


def test_segmentation() -> None:
    pieces = ["나", "는", "  학교", "에", "\n", "갔", "다", ".", "\x00", " ", "\t", "밥", "을", " "]
    assert segment.morphemes("나는  학교에\n갔다.\x00 \t밥을 ") == pieces


@pytest.mark.parametrize("line", ["나는 학교에 간다 " * 2000, "가" * 10_000])
def test_long_lines_are_cut_before_a_blank_and_lose_nothing(line: str) -> None:
    short = list(segment._short_lines(line))
    assert max(map(len, short)) <= segment.MAX_LINE
    assert "".join(short) == line == "".join(segment.morphemes(line))
    assert " " not in line or all(part.startswith((" ", "나는")) for part in short)


def test_specials_are_one_token_and_cannot_be_merged_into() -> None:
    for i, token in [
        *enumerate(training.SPECIALS),
        (VOCAB_SIZE, "<|acc|>"),
        (VOCAB_SIZE + 2, "<|rrn|>"),
    ]:
        encoded = trained().encode(f"가 {token}나")
        assert encoded.ids.count(i) == 1
        assert encoded.tokens[encoded.ids.index(i) - 1] == "Ġ"


def program(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tokenizer.train", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)


def test_same_bytes_for_any_number_of_processes_and_loads_in_transformers(tmp_path: Path) -> None:
    corpus = tmp_path / "documents.jsonl"
    # More batches than one, so that their order can go wrong.
    texts = [f"{KOREAN[i % 8]} {i}번째 문서입니다." for i in range(3 * segment._BATCH)]
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    for processes in (1, 2):
        result = program(
            f"--input={corpus}",
            f"--output={tmp_path}/{processes}/tokenizer.json",
            "--vocab_size=400",
            f"--processes={processes}",
        )
        assert result.returncode == 0, result.stderr
    for name in ("tokenizer.json", "tokenizer.meta.json"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
    assert sorted(f.name for f in (tmp_path / "1").iterdir()) == [
        "tokenizer.json",
        "tokenizer.meta.json",
    ]
    meta = json.loads((tmp_path / "1/tokenizer.meta.json").read_text())
    assert (meta["documents"], meta["vocab_size"], meta["marker"]) == (len(texts), 400, "U+FDD0")
    assert meta["packages"]["python-mecab-ko-dic"]

    transformers = pytest.importorskip("transformers")
    path = str(tmp_path / "1/tokenizer.json")
    fast = transformers.PreTrainedTokenizerFast(tokenizer_file=path)
    ours = Tokenizer.from_file(path)
    for text in [*KOREAN, "A\u0cf1\ufdd0 don't <|endoftext|> 한"]:
        assert fast(text)["input_ids"] == ours.encode(text).ids
        decoded = fast.decode(ours.encode(text).ids, clean_up_tokenization_spaces=False)
        assert decoded == text


def test_errors_are_one_line_and_leave_nothing(tmp_path: Path) -> None:
    corpus = tmp_path / "documents.jsonl"
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in KOREAN))
    (tmp_path / "empty.jsonl").write_text('{"text": ""}\n')
    (tmp_path / "bad.jsonl").write_bytes(b'{"text": "a"}\n{"text": "\xff"}\n')
    output = tmp_path / "new" / "tokenizer.json"
    for source, target, size, message in [
        (corpus, output, 259, "--vocab_size=259: must be at least 260"),
        (tmp_path / "empty.jsonl", output, 300, "empty.jsonl holds no text"),
        (tmp_path / "bad.jsonl", output, 300, "bad.jsonl:2: invalid UTF-8"),
        (tmp_path / "none.jsonl", output, 300, "no file matches"),
        (corpus, corpus / "tokenizer.json", 300, "documents.jsonl"),
        (corpus, tmp_path, 300, "is a directory"),
    ]:
        with pytest.raises((ValueError, OSError), match=message):
            training.write(str(source), target, size)
        assert not output.parent.exists() or not list(output.parent.iterdir())
    result = program(f"--input={tmp_path}/none.jsonl", f"--output={output}")
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


def test_a_small_corpus_yields_a_smaller_tokenizer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = tmp_path / "documents.jsonl"
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in KOREAN))
    training.write(str(corpus), tmp_path / "tokenizer.json", 30_000)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    reached = tokenizer.get_vocab_size()
    assert f"the text yields only {reached} ids" in capsys.readouterr().out
    assert [tokenizer.token_to_id(t) for t in training.PII_SPECIALS] == [*range(reached)][-3:]
    meta = json.loads((tmp_path / "tokenizer.meta.json").read_text())
    assert meta["vocab_size"] == reached - 3


@pytest.mark.parametrize("processes", [1, 2])
def test_an_interrupt_ends_it_and_leaves_nothing(tmp_path: Path, processes: int) -> None:
    corpus = tmp_path / "documents.jsonl"
    corpus.write_text((json.dumps({"text": KOREAN[0] * 100}) + "\n") * 20_000)
    command = [sys.executable, "-m", "tokenizer.train", f"--processes={processes}"]
    command += [f"--input={corpus}", f"--output={tmp_path}/new/tokenizer.json"]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as program:
        deadline = time.monotonic() + 30
        while not list(tmp_path.glob("new/.*.tmp")) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(1)
        os.killpg(program.pid, signal.SIGINT)  # as a terminal does
        errors = program.communicate(timeout=30)[1]
    assert program.returncode == 130
    assert errors.endswith("interrupted\n")
    assert "Traceback" not in errors
    assert not list((tmp_path / "new").iterdir())


def test_a_pair_that_failed_half_way_is_no_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = tmp_path / "in" / "documents.jsonl"
    corpus.parent.mkdir()
    corpus.write_text(json.dumps({"text": KOREAN[0]}) + "\n")
    replace = os.replace

    def full(source: Path, target: Path) -> None:
        if target.name == "tokenizer.json":
            raise OSError("disk full")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        training.write(str(corpus), tmp_path / "tokenizer.json", 300)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["in", "tokenizer.meta.json"]


def test_without_mecab_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def absent(name: str, *args: Any) -> Any:
        if name == "mecab_ko_dic":
            raise ModuleNotFoundError("No module named 'mecab_ko_dic'", name=name)
        return real_import(name, *args)

    segment.tagger.cache_clear()
    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ValueError, match=r"mecab_ko_dic is not installed.*\[tokenizer\]"):
        segment.tagger()


@pytest.mark.skipif(not PUBLISHED.exists(), reason=f"no published tokenizer at {PUBLISHED}")
@pytest.mark.parametrize(
    ("text", "ids"),
    [
        (
            "한국어 형태소 분석기를 사용하지 않고 추론합니다.",
            [1972, 348, 2831, 483, 1496, 316, 301, 1203, 284, 295, 536, 283, 23868, 2136, 17],
        ),
        ("아버지가 방에 들어가셨다.", [4107, 293, 612, 274, 2251, 1769, 267, 17]),
        (
            "나는 학교에 갔다.\n그리고 밥을 먹었다.",
            [392, 272, 1464, 274, 2779, 267, 17, 202, 14826, 3450, 276, 1330, 450, 267, 17],
        ),
        (" 예", [566]),
        (" 아니오", [769, 638]),
        ("<|endoftext|><|acc|><|tel|><|rrn|>", [2, 30_000, 30_001, 30_002]),
    ],
)
def test_published_tokenizer_encodes_as_recorded(text: str, ids: list[int]) -> None:
    published = Tokenizer.from_file(str(PUBLISHED))
    assert published.encode(text).ids == ids
    assert published.decode(ids, skip_special_tokens=False) == text
