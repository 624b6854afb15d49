"""The trained tokenizer: ids as published, merges inside morphemes, any text back as it was."""

import dataclasses
import gzip
import itertools
import json
import unicodedata
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tokenizer import bpe, segment
from tokenizer.recipes import RECIPES, Recipe

pytest.importorskip("MeCab", reason="MeCab is not installed (extra: tokenizer)")

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
NEWS = DATA / "boddari" / "wikinews.jsonl.gz"
PUBLISHED = DATA / "polyglot_tokenizer" / "tokenizer.json"
STEADY = settings(deadline=None, derandomize=True, database=None, max_examples=300)

KOREAN = [
    "한국어 형태소 분석기를 사용하지 않고 추론합니다.\n학습할 때만 형태소를 사용합니다.",
    "아버지가 방에 들어가셨다.  어머니는 부엌에서 저녁을 준비하셨다.",
    "나는 학교에 갔다.\n\n그리고 밥을 먹었다.\n\n친구는 집에 갔다.",
    "정부는 오늘 국무회의를 열고 새로운 정책을 발표했다. 회의에는 장관들이 참석했다.",
    "이 제품은 배송이 빠르고 품질이 좋습니다.\t다시 구매하고 싶습니다. 감사합니다!",
    "서울에서 부산까지 기차로 두 시간 30분이 걸립니다. 요금은 59,800원입니다.",
    "결제를 취소하려면    관리자 화면에서    결제 내역을 선택하고 취소 버튼을 누르세요.",
    "봄에는 꽃이 피고 여름에는 비가 오고 가을에는 단풍이 들고 겨울에는 눈이 옵니다.",
]
VOCAB_SIZE = 330
KO = dataclasses.replace(RECIPES["ko"], vocab_size=VOCAB_SIZE)
PLAIN = dataclasses.replace(KO, segmenters={"ko": "none"})


@cache
def trained(**changed: Any) -> Tokenizer:
    return bpe.train(korean(KOREAN), dataclasses.replace(KO, **changed))


def korean(texts: Iterable[str]) -> Iterable[tuple[str, str]]:
    return [("ko", text) for text in texts]


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
    assert [tokenizer.id_to_token(i) for i in range(4)] == list(bpe.SPECIALS)
    assert [tokenizer.id_to_token(VOCAB_SIZE + i) for i in range(3)] == list(bpe.PII_SPECIALS)
    assert tokenizer.get_vocab_size() == VOCAB_SIZE + 3
    assert tokenizer.encode("\n\t ").ids == [202, 201, 224]
    alphabet = sorted(token_bytes())
    assert [tokenizer.id_to_token(4 + i) for i in range(256)] == alphabet
    if PUBLISHED.exists():
        published = Tokenizer.from_file(str(PUBLISHED))
        assert [published.id_to_token(i) for i in range(260)] == [*bpe.SPECIALS, *alphabet]


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
        **{t: i for i, t in enumerate(bpe.SPECIALS)},
        **{t: VOCAB_SIZE + i for i, t in enumerate(bpe.PII_SPECIALS)},
    }
    assert all(t["special"] and not t["normalized"] for t in spec["added_tokens"])


def test_merges_never_cross_a_morpheme() -> None:
    assert across_morphemes(merged(trained(), VOCAB_SIZE), KOREAN) == []
    # Plain BPE of the same text does cross: the check can fail.
    plain = bpe.train(korean(KOREAN), PLAIN)
    assert across_morphemes(merged(plain, VOCAB_SIZE), KOREAN) != []


def test_merges_never_cross_a_morpheme_of_real_text() -> None:
    texts = news(60)
    tokenizer = bpe.train(korean(texts), dataclasses.replace(KO, vocab_size=2000))
    assert across_morphemes(merged(tokenizer, 2000), texts) == []
    # A frequent sequence of two morphemes is not one token; each of the two is.
    assert [tokenizer.decode([i]) for i in tokenizer.encode(" 것이다").ids] == [" 것", "이", "다"]
    # Where some documents are unmarked, the most frequent sequences are tokens.
    looser = dataclasses.replace(KO, vocab_size=2000, unmarked=0.3)
    across = across_morphemes(merged(bpe.train(korean(texts), looser), 2000), texts)
    assert "습니다".encode() not in across
    assert "으로".encode() not in across
    assert 20 < len(across) < 1000


@pytest.mark.parametrize("recipe", [KO, PLAIN], ids=["morphemes", "plain"])
def test_no_token_has_two_whitespace_characters(recipe: Recipe) -> None:
    runs = ["\n\n\n가\n\n" * 50, "가    나        다" * 50, "\t\t가\r\n" * 50]
    tokens = merged(bpe.train(korean([*KOREAN, *runs]), recipe), VOCAB_SIZE)
    assert [t for t in tokens if len(t.strip()) < len(t) - 1 or t.strip() == b""] == []


def test_runs_of_whitespace_as_tokens() -> None:
    tokenizer = trained(whitespace_runs=4)
    first = VOCAB_SIZE + 3
    expected = ["    ", "   ", "  ", "\n\n\n\n", "\n\n\n", "\n\n"]
    assert [tokenizer.id_to_token(first + i) for i in range(6)] == expected
    ids = tokenizer.encode("\n\n      가").ids
    assert ids[:3] == [first + 5, first, first + 2]
    assert tokenizer.encode(" \n").ids == [224, 202]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "\n\n      가"


def test_single_digits() -> None:
    texts = [*KOREAN, "2023년 2023원 " * 50]
    together, single = (
        bpe.train(korean(texts), dataclasses.replace(KO, digits=digits)) for digits in (False, True)
    )
    assert len(together.encode("2023").ids) < 4
    assert [single.decode([i]) for i in single.encode(" 2023년").ids][:5] == list(" 2023")


def test_nfc_is_of_the_training_text_only() -> None:
    decomposed = [unicodedata.normalize("NFD", text) for text in KOREAN]
    tokenizer = bpe.train(korean(decomposed), dataclasses.replace(KO, nfc=True))
    assert tokenizer.to_str() == trained().to_str()
    ids = tokenizer.encode(decomposed[0]).ids
    assert tokenizer.decode(ids) == decomposed[0] != KOREAN[0]


def test_combining_marks_stay_in_words_where_asked() -> None:
    thai = [("th", "ที่นี่ ที่นั่น มีน้ำ " * 50)]
    recipe = dataclasses.replace(KO, segmenters={"th": "scripts"}, vocab_size=300)
    cut = bpe.train(thai, recipe)
    whole = bpe.train(thai, dataclasses.replace(recipe, marks_in_words=True))
    assert len(whole.encode(" ที่นั่น").ids) == 1
    assert len(cut.encode(" ที่นั่น").ids) >= 4
    assert whole.decode(whole.encode("ที่ don't 'e\u0301'  x").ids) == "ที่ don't 'e\u0301'  x"


def test_one_vocabulary_over_several_segmenters() -> None:
    texts = [
        ("ko", KOREAN[0] * 5),
        ("zh", "我们使用Python编程语言。我们使用Python。" * 5),
        ("th", "ภาษาไทยและภาษาอังกฤษ " * 5),
        ("en", "the language of the model, the tokenizer " * 5),
    ]
    recipe = dataclasses.replace(RECIPES["east_asian"], vocab_size=400)
    recipe = dataclasses.replace(recipe, segmenters={**recipe.segmenters, "ja": "scripts"})
    tokenizer = bpe.train(texts, recipe)
    assert tokenizer.get_vocab_size() > 300
    tokens = [token.decode(errors="replace") for token in merged(tokenizer, 340)]
    assert any("使用" in token for token in tokens)
    assert not any("使" in token and "P" in token for token in tokens)
    for _, text in texts:
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


USER = ("<|user|>", "[INST]")
SPECIAL_TEXT = st.sampled_from([*bpe.SPECIALS, *bpe.PII_SPECIALS, *USER, segment.MARKER])
TRICKY = "가힣각 \t\n\r\x00\x0b\x85\u00a0\u2028\u3000\u0cf1\ufdd0\ufeff"
TRICKY += "大韓👩\u200d👧ㄱㅏ\u1112\u1161\u11ab"
ANY_TEXT = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    | st.text(TRICKY, max_size=8)
    | st.text(" \n1", max_size=8)
    | SPECIAL_TEXT,
    max_size=8,
).map("".join)


@STEADY
@given(text=ANY_TEXT)
@pytest.mark.parametrize(
    "options",
    [{}, {"whitespace_runs": 4, "digits": True, "marks_in_words": True, "special_tokens": USER}],
    ids=["default", "all options"],
)
def test_lossless_on_any_text(options: dict[str, Any], text: str) -> None:
    tokenizer = trained(**options)
    for form in (text, unicodedata.normalize("NFD", text)):
        ids = tokenizer.encode(form).ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == form
        assert tokenizer.encode(form, add_special_tokens=False).ids == ids


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises((TypeError, ValueError)):
        trained().encode("가\ud800")


@STEADY
@given(text=ANY_TEXT)
def test_special_tokens_are_not_parsed_where_that_is_off(text: str) -> None:
    tokenizer = Tokenizer.from_str(trained(special_tokens=USER).to_str())
    tokenizer.encode_special_tokens = True
    ids = tokenizer.encode(text).ids
    assert not {*range(4), *range(VOCAB_SIZE, VOCAB_SIZE + 5)} & {*ids}
    assert tokenizer.decode(ids) == text


def test_specials_are_one_token_and_cannot_be_merged_into() -> None:
    tokenizer = trained(special_tokens=USER)
    for i, token in [
        *enumerate(bpe.SPECIALS),
        *enumerate([*bpe.PII_SPECIALS, *USER], start=VOCAB_SIZE),
    ]:
        encoded = tokenizer.encode(f"가 {token}나")
        assert encoded.ids.count(i) == 1
        assert encoded.tokens[encoded.ids.index(i) - 1] == "Ġ"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"vocab_size": 259}, "--vocab_size=259: must be at least 260"),
        ({"special_tokens": ("user",)}, r"--special_token=user: must look like <\|user\|>"),
        ({"special_tokens": ("<a b>",)}, "--special_token=<a b>: must look like"),
        ({"special_tokens": ("<|acc|>",)}, r"--special_token=<\|acc\|>: is there already"),
        ({"special_tokens": ("<|u|>", "<|u|>")}, "is there already"),
    ],
)
def test_bad_recipes(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bpe.check(dataclasses.replace(KO, **changed))


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
