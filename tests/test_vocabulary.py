"""Tokens to text: bytes, half syllables, and stop strings that come in parts."""

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from polyglot_jax.vocabulary import TextStream, load_vocabulary, make_vocabulary
from tests.tiny_tokenizer import SPECIAL_TOKENS, TEXT, train_tokenizer

VOCABULARY = make_vocabulary(train_tokenizer().to_str().encode(), "tiny")
BYTE_IDS = {VOCABULARY.token_bytes[i]: i for i in range(4, 4 + 256)}


def pieces(ids, stop=()):
    stream = TextStream(VOCABULARY, stop)
    out = [stream.push(i, last=n == len(ids)) for n, i in enumerate(ids, 1)]
    return out, stream.done


def as_bytes(text):
    return [BYTE_IDS[bytes([byte])] for byte in text.encode()]


def test_each_byte_has_a_token() -> None:
    assert set(BYTE_IDS) == {bytes([byte]) for byte in range(256)}


@given(st.text(st.characters(exclude_categories=["Cs"])))
@example(TEXT)
@example("가각\u1100\u1161 漢字 👩‍👩‍👧")
@example("<|endoftext|><|sep|>")
def test_text_comes_back_whole_and_never_broken(text: str) -> None:
    for ids in (VOCABULARY.encode(text), as_bytes(text)):
        out, _ = pieces(ids)
        assert "".join(out) == text
        if "\ufffd" not in text:
            assert not any("\ufffd" in piece for piece in out)


def test_a_syllable_appears_with_its_last_byte() -> None:
    assert pieces(as_bytes("한글"))[0] == ["", "", "한", "", "", "글"]


def test_an_unfinished_syllable_at_the_end_is_dropped() -> None:
    assert pieces(as_bytes("한글")[:-1])[0] == ["", "", "한", "", ""]
    assert pieces([*as_bytes("한글")[:-1], VOCABULARY.end_of_text])[0][-1] == ""


def test_bytes_that_are_no_text_are_shown_as_such() -> None:
    out, _ = pieces([BYTE_IDS[b"\xed"], *as_bytes("a"), BYTE_IDS[b"\xff"]])
    assert "".join(out) == "\ufffda\ufffd"


def test_special_tokens_of_a_prompt_are_text() -> None:
    ids = VOCABULARY.encode("a<|endoftext|>b<|sep|>")
    assert not set(ids) & set(range(len(SPECIAL_TOKENS)))
    assert "".join(pieces(ids)[0]) == "a<|endoftext|>b<|sep|>"


def test_the_empty_prompt_begins_a_document() -> None:
    assert VOCABULARY.encode("") == [SPECIAL_TOKENS.index("<|endoftext|>")]


def test_special_tokens_drawn_show_as_their_names_except_the_end() -> None:
    ids = [*as_bytes("a"), 3, *as_bytes("b"), 2, *as_bytes("c")]
    out, done = pieces(ids)
    assert "".join(out) == "a<|sep|>b"
    assert done


@pytest.mark.parametrize("tokens", ["encoded", "bytes"])
def test_stop_strings_split_across_tokens(tokens: str) -> None:
    text = "호랑이는 떡을 좋아했습니다."
    ids = VOCABULARY.encode(text) if tokens == "encoded" else as_bytes(text)
    out, done = pieces(ids, ["떡을 좋"])
    assert "".join(out) == "호랑이는 "
    assert done


def test_what_only_began_like_a_stop_string_is_not_lost() -> None:
    assert "".join(pieces(as_bytes("가나가나다"), ["가나다"])[0]) == "가나"
    assert "".join(pieces(as_bytes("가나"), ["가나다"])[0]) == "가나"
    assert "".join(pieces([*as_bytes("가나"), VOCABULARY.end_of_text], ["가나다"])[0]) == "가나"


@given(
    text=st.text("가나다\n", max_size=12),
    stop=st.lists(st.text("가나다\n", min_size=1, max_size=4), max_size=3),
    cuts=st.lists(st.integers(0, 36), max_size=5),
)
def test_the_cut_does_not_depend_on_the_tokens(text: str, stop: list[str], cuts: list[int]) -> None:
    """Any tokens that spell a text give what its characters, one by one, give."""
    characters = TextStream(chunks := spell(text, range(0, 99, 3)), stop)
    expected = "".join(characters.push(i) for i in range(len(chunks.token_bytes)))
    stream = TextStream(chunks := spell(text, cuts), stop)
    assert "".join(stream.push(i) for i in range(len(chunks.token_bytes))) == expected
    ends = [text.index(s) for s in stop if s in text]
    assert expected == (text[: len(expected)] if ends else text)
    assert stream.done
    assert not any(s in expected for s in stop)


def spell(text, cuts):
    """A vocabulary whose tokens 0, 1, ... spell the text, cut at these bytes, and then end it."""
    edges = sorted({0, *cuts, len(text.encode())})
    edges = [edge for edge in edges if edge <= len(text.encode())]
    tokens = [text.encode()[a:b] for a, b in itertools.pairwise(edges)]
    return type(VOCABULARY)(VOCABULARY.tokenizer, (*tokens, b""), len(tokens))


words = Tokenizer(models.WordLevel({"한글": 0}))
words.add_special_tokens(["<|endoftext|>"])


@pytest.mark.parametrize(
    ("tokenizer_json", "message"),
    [
        ("{}", "not a tokenizer.json"),
        (Tokenizer(models.BPE({"a": 0}, [])).to_str(), "has no <[|]endoftext[|]>"),
        (words.to_str(), "token '한글' is not of a byte-level tokenizer"),
    ],
)
def test_unfit_tokenizers_are_refused(tokenizer_json: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^x\.json: [^\n]*{message}[^\n]*$"):
        make_vocabulary(tokenizer_json.encode(), "x.json")


def test_the_alphabet_is_that_of_tokenizers() -> None:
    assert len(BYTE_IDS) == len(pre_tokenizers.ByteLevel.alphabet()) == 256


def test_the_published_tokenizer(shared_data) -> None:
    path = shared_data / "polyglot_tokenizer" / "tokenizer.json"
    vocabulary = load_vocabulary(path)
    assert vocabulary.end_of_text == 2
    assert len(vocabulary.token_bytes) == 30_003
    assert vocabulary.token_bytes[30_001] == b"<|tel|>"
    stream = TextStream(vocabulary)
    text = f"{TEXT}뷁쀍 漢字 👍🏽 <|tel|> <|endoftext|>"
    ids = vocabulary.encode(text)
    assert "".join(stream.push(i) for i in ids) == text
    assert [i for i in ids if i < 4 or i >= 30_000] == [30_001]  # as the documents of training


PUBLISHED_IDS = {
    "한국어 형태소 분석기를 사용하지 않고 추론합니다.": [
        *(1972, 348, 2831, 483, 1496, 316, 301, 1203, 284, 295, 536, 283, 23868, 2136, 17)
    ],
    "아버지가 방에 들어가셨다.": [4107, 293, 612, 274, 2251, 1769, 267, 17],
    "나는 학교에 갔다.\n그리고 밥을 먹었다.": [
        *(392, 272, 1464, 274, 2779, 267, 17, 202, 14826, 3450, 276, 1330, 450, 267, 17)
    ],
    **{" 예": [566], " 아니오": [769, 638], " 아니": [769], " 부정": [2907], " 긍정": [3562]},
    **{"\n": [202], "\t": [201], " ": [224], "": [2]},  # the empty prompt begins a document
    "<|acc|><|tel|><|rrn|>": [30_000, 30_001, 30_002],
}


@pytest.mark.parametrize("text", PUBLISHED_IDS)
def test_the_published_ids(shared_data, text: str) -> None:
    """Recorded from the file that EleutherAI published, without MeCab."""
    vocabulary = load_vocabulary(shared_data / "polyglot_tokenizer" / "tokenizer.json")
    ids = vocabulary.encode(text)
    assert ids == PUBLISHED_IDS[text]
    stream = TextStream(vocabulary)
    assert "".join(stream.push(i) for i in ids) == text


@pytest.mark.parametrize("name", ["<pad>", "<eos>", "<|endoftext|>", "<|sep|>"])
def test_the_published_specials_in_a_prompt_are_text(shared_data, name: str) -> None:
    vocabulary = load_vocabulary(shared_data / "polyglot_tokenizer" / "tokenizer.json")
    ids = vocabulary.encode(name)
    assert len(ids) > 1
    assert not set(ids) & {0, 1, 2, 3}
