"""Boundaries of tokens and morphemes: counted in bytes, by region, and against a treebank."""

import gzip
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenizer import boundaries


def sizes(pieces: list[str]) -> np.ndarray:
    return np.array([len(piece.encode()) for piece in pieces])


def counted(morphemes: list[str], tokens: list[str]) -> dict:
    text = "".join(morphemes)
    assert "".join(tokens) == text
    both = boundaries.morphemes_of(text.encode(), morphemes)
    return boundaries.scores(boundaries.count(both, sizes(tokens)))


def test_counts_by_region() -> None:
    found = counted(
        ["나", "는", " 학교", "에", " 갔", "다", "."], ["나는", " 학교", "에", " 갔다", "."]
    )
    assert [found[r]["morpheme_boundaries"] for r in boundaries.REGIONS] == [6, 4, 3]
    assert [found[r]["token_boundaries"] for r in boundaries.REGIONS] == [4, 2, 1]
    assert [found[r]["recall"] for r in boundaries.REGIONS] == [4 / 6, 2 / 4, 1 / 3]
    assert [found[r]["precision"] for r in boundaries.REGIONS] == [1, 1, 1]
    assert found["hangul"]["f1"] == 2 * 1 / (3 + 1)


def test_bytes_as_tokens_win_by_recall_alone() -> None:
    text = boundaries.morphemes_of("학교에 갔다".encode(), ["학교", "에", " 갔", "다"])
    found = boundaries.scores(boundaries.count(text, np.ones(len(text.data), int)))
    assert all(found[region]["recall"] == 1 for region in boundaries.REGIONS)
    assert found["hangul"]["precision"] == 2 / (8 + 5)  # inside 학교에 and inside 갔다


def test_nothing_to_count_is_not_perfect() -> None:
    assert counted(["가"], ["가"])["all"]["f1"] is None


@given(st.text(st.sampled_from("가힣 aㄱᄀ\u0fff漢😀\n\u3000.")))
def test_regions_are_those_of_characters(text: str) -> None:
    regions = boundaries.regions_of(text.encode())
    for i in range(1, len(text)):
        at = len(text[:i].encode())
        pair = text[i - 1 : i + 1]
        assert regions[0, at]
        assert regions[1, at] == (not set(pair) & set(" \n"))
        assert regions[2, at] == all("가" <= c <= "힣" for c in pair)
    assert not regions[:, [0, -1]].any()


CONLLU = """\
# text = 내가 나왔네요(어제).
1\t내가\t내+가\tN\tN\t_\t0\troot\t_\t_
2\t나왔네요\t나오+았+네요\tV\tV\t_\t1\tdep\t_\tSpaceAfter=No
3\t(\t(\tP\tP\t_\t1\tdep\t_\tSpaceAfter=No|X=y
4\t어제\t어제\tA\tA\t_\t1\tdep\t_\tSpaceAfter=No
5\t)\t)\tP\tP\t_\t1\tdep\t_\tSpaceAfter=No
6\t.\t.\tP\tP\t_\t1\tdep\t_\t_

1\tC++\tC++\tX\tX\t_\t0\troot\t_\t_
2\t집에\t집+에\tN\tN\t_\t0\troot\t_\t_
"""


def test_gold_leaves_out_the_inside_of_contracted_words(tmp_path: Path) -> None:
    path = tmp_path / "x.conllu"
    path.write_text(CONLLU, encoding="utf-8")
    first, second = boundaries.read_conllu(path)
    assert first.morphemes.data.decode() == "내가 나왔네요(어제)."
    assert second.morphemes.data.decode() == "C++ 집에"
    assert (first.words, first.contracted, second.words, second.contracted) == (6, 1, 2, 0)
    cut = ["내", "가", " ", "나", "왔", "네요", "(", "어제", ")", "."]
    found = boundaries.scores(boundaries.count(first.morphemes, sizes(cut)))
    assert found["hangul"]["morpheme_boundaries"] == found["hangul"]["token_boundaries"] == 1
    assert found["eojeol"]["recall"] == found["eojeol"]["precision"] == 1
    found = boundaries.scores(boundaries.count(second.morphemes, sizes(["C", "++", " 집", "에"])))
    assert (found["eojeol"]["recall"], found["eojeol"]["precision"]) == (1, 1 / 2)
    packed = tmp_path / "x.conllu.gz"
    packed.write_bytes(gzip.compress(CONLLU.encode()))
    assert len(list(boundaries.read_conllu(packed))) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"1\tx\n", ":1: expected a word with 10"), (b"\n1-2" + b"\tx" * 9, ":2: expected a word")],
)
def test_what_is_no_treebank(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.conllu").write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / "x.conllu") + message)):
        list(boundaries.read_conllu(tmp_path / "x.conllu"))
    (tmp_path / "y.conllu.gz").write_bytes(b"1\tx")
    with pytest.raises(ValueError, match=r"y\.conllu\.gz"):
        list(boundaries.read_conllu(tmp_path / "y.conllu.gz"))


def test_the_treebank_of_real_korean(shared_data: Path) -> None:
    path = shared_data / "ud_korean_gsd" / "ko_gsd-ud-dev.conllu.gz"
    sentences = list(boundaries.read_conllu(path))
    assert (len(sentences), sum(s.words for s in sentences)) == (950, 11_958)
    assert sum(s.contracted for s in sentences) == 1553
    assert sentences[0].morphemes.data.decode() == "제일 가까운 스타벅스가 어디 있지"
