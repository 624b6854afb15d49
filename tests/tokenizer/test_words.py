"""Counted words: what they are made of, and that neither workers nor memory change them."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenizer import segment, words

pytest.importorskip("MeCab", reason="MeCab is not installed (extra: tokenizer)")

STEADY = settings(deadline=None, derandomize=True, database=None, max_examples=200)
M = segment.MARKER
TRICKY = "가힣각는 \t\n\r\x00\x1c\x85\u00a0\u2028\u3000\u0cf1\ufdd0大👩ㄱ\u1112a1."


@STEADY
@given(text=st.text(TRICKY, max_size=20))
@pytest.mark.parametrize("segmenter", ["none", "mecab-ko"])
def test_words_join_to_the_text_and_lie_in_a_morpheme(segmenter: str, text: str) -> None:
    found = words.words(text, segmenter)
    assert "".join(found) == text.replace(M, "")
    assert not [word for word in found if any(char.isspace() for char in word[1:])]
    ends = {0}
    for piece in segment.morphemes(text, segmenter):
        ends.add(max(ends) + len(piece.replace(M, "")))
    starts = {0}
    for word in found:
        starts.add(max(starts) + len(word))
    assert ends <= starts


def test_a_marker_in_the_text_is_a_boundary_and_hides_nothing() -> None:
    assert segment.morphemes(f"학교{M}에") == ["학교", M, "에"]
    assert words.words(f"학{M}교에 {M}{M} 갔다", "mecab-ko") == [
        *["학", "교", "에", " ", " 갔", "다"]
    ]
    assert words.words(M, "none") == []


def test_runs_of_whitespace_are_cut_as_in_the_published_tokenizer() -> None:
    assert words.words("가   나\n\n  다\r\n", "none") == [
        *["가", " ", " ", " 나", "\n", "\n", " ", " 다", "\r", "\n"]
    ]
    # Where runs of blanks are tokens of their own, what stands beside them has no blank.
    assert words.words("가   나 다", "none", blanks=False) == ["가", "나", " 다"]


def test_workers_count_the_same_in_the_same_order_however_much_is_forgotten() -> None:
    texts = [("mecab-ko", f"학교에 {i} 갔다. " * 200) for i in range(600)]
    assert len(list(words._batches(texts))) > 4
    for most in (1 << 20, 50):
        one, two = (words.count(texts, processes, most=most) for processes in (1, 2))
        assert list(one.items()) == list(two.items())
    assert one[" 갔"] == 600 * 200
    assert len(one) <= 50


def test_frequent_words_are_kept_as_counted() -> None:
    texts = [
        ("none", "많다 " * 1000 + " ".join(map(str, range(i * 500, i * 500 + 500))))
        for i in range(400)
    ]
    found = words.count(texts, 1, most=1000)
    assert found["많다"] + found[" 많다"] == 400 * 1000
    assert len(found) <= 1000


def test_words_that_occur_once_are_not_forgotten_all_at_once() -> None:
    # As the runs of Chinese are: half the text of a language may be such words.
    rare = [("none", " ".join(f"{a}{b}" for b in range(500))) for a in range(100, 500)]
    found = words.count(rare, 1, most=20_000)
    assert 10_000 < len(found) <= 20_000
    assert found.total() == pytest.approx(400 * 500, rel=0.05)


def test_a_batch_is_bounded_in_bytes_not_documents() -> None:
    texts = [("none", "가" * 200_000)] * 3 + [("none", "가")] * 3
    assert [len(batch) for batch in words._batches(texts)] == [1, 1, 1, 3]


@given(
    st.dictionaries(st.text("ab가 ", min_size=1, max_size=9), st.integers(1, 99)),
    st.integers(1, 40),
)
@STEADY
def test_repeated_words_are_as_often_as_counted(counts: dict[str, int], longest: int) -> None:
    texts = list(words.repeated(Counter(counts), longest))
    assert Counter(word for text in texts for word in text.split(M)[:-1]) == counts
    assert max(map(len, texts), default=0) <= longest + 10
