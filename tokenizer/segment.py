"""Cuts a text into words or morphemes, with every character of the text kept.

A segmenter is a function from a line to pieces that join to the line; which one a language takes is
data (`recipes.LANGUAGES`). MeCab drops blanks between morphemes, swallows newlines and stops at
NUL. So control characters stay outside of it, and a blank goes to the piece that follows it, which
is where the tokens of the published tokenizer have theirs.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any

from tokenizer import dictionary

# Stands between words in the training text. A noncharacter is in no text that is meant to be
# exchanged, unlike U+0CF1 of the published tokenizer, which is a Kannada sign. Training splits at
# it and the inference file does not know it, so one in a text is a boundary in training (its bytes
# add to no merge) and three ordinary byte tokens ever after.
MARKER = "\ufdd0"
MAX_LINE = 2048  # characters given to a segmenter at once: MeCab's lattice grows with the line

_OUTSIDE = re.compile(rf"([\x00-\x1f\x7f-\x9f\u2028\u2029{MARKER}]+)")


def tagger() -> Any:
    """Returns this process's MeCab for Korean. Raises ValueError if it is not installed."""
    return dictionary.tagger(dictionary.KOREAN, MARKER)


def morphemes(text: str, segmenter: str = "mecab-ko") -> list[str]:
    """Returns the pieces of a text: morphemes with the blanks before them, and control characters.

    `"".join(morphemes(text)) == text` for any text. Raises ValueError as `load`.
    """
    cut, pieces = load(segmenter), []
    for run in _OUTSIDE.split(text):
        if run and _OUTSIDE.match(run):
            pieces.append(run)
        elif run:
            for line in _short_lines(run):
                pieces += cut(line)
    return pieces


def _short_lines(line: str) -> Iterator[str]:
    start = 0
    while len(line) - start > MAX_LINE:
        # Before a blank if there is one, so that no morpheme is cut.
        end = line.rfind(" ", start + 1, start + MAX_LINE + 1)
        end = end if end > start else start + MAX_LINE
        yield line[start:end]
        start = end
    yield line[start:]


# ---- segmenters: each returns what cuts a line

Cut = Callable[[str], list[str]]


@cache
def load(segmenter: str) -> Cut:
    """Returns a segmenter of SEGMENTERS, made once in a process.

    Raises:
      ValueError: its package is not installed, or another one than is meant.
    """
    return SEGMENTERS[segmenter]()


def _mecab(which: dictionary.Dictionary) -> Callable[[], Cut]:
    def make() -> Cut:
        parse = dictionary.tagger(which, MARKER).parse

        def cut(line: str) -> list[str]:
            *pieces, _ = parse(line).split(MARKER)
            rest = line[sum(map(len, pieces)) :]  # the blanks at its end
            return [*pieces, rest] if rest else pieces

        return cut

    return make


_SCRIPTS = (
    "\u2e80-\u2fdf\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff",  # Han
    "\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f",  # kana
    "\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff",  # Hangul
    "\u0e00-\u0e7f",  # Thai
)
_SCRIPT_RUNS = re.compile(
    "|".join(f" ?[{script}]+" for script in _SCRIPTS)
    + f"|(?: (?![{''.join(_SCRIPTS)}])|[^ {''.join(_SCRIPTS)}])+"
)


def _make_scripts() -> Cut:
    """Where the script changes: BPE finds the words in a run, and mixes no Latin into them."""
    return _SCRIPT_RUNS.findall


def _make_none() -> Cut:
    return lambda line: [line]


def _make_jieba() -> Cut:
    try:
        import jieba
    except ImportError:
        raise ValueError("the segmenter jieba is not installed: pip install jieba") from None
    jieba.setLogLevel("WARNING")  # it tells of its cache on stderr
    return lambda line: _blanks_forward(jieba.cut(line))


def _make_pythainlp() -> Cut:
    try:
        from pythainlp.tokenize import word_tokenize
    except ImportError:
        raise ValueError(
            "the segmenter pythainlp is not installed: pip install pythainlp"
        ) from None
    return lambda line: _blanks_forward(word_tokenize(line, engine="newmm", keep_whitespace=True))


def _blanks_forward(words: Iterable[str]) -> list[str]:
    """Returns the words, each with the blanks that stand before it."""
    pieces, blanks = [], ""
    for word in words:
        bare = word.lstrip(" ")
        blanks += word[: len(word) - len(bare)]
        if bare:
            pieces.append(blanks + bare)
            blanks = ""
    return [*pieces, blanks] if blanks else pieces


SEGMENTERS: dict[str, Callable[[], Cut]] = {
    "none": _make_none,
    "mecab-ko": _mecab(dictionary.KOREAN),
    "mecab-unidic": _mecab(dictionary.JAPANESE),
    "scripts": _make_scripts,
    "jieba": _make_jieba,
    "pythainlp": _make_pythainlp,
}
DICTIONARIES = {"mecab-ko": dictionary.KOREAN, "mecab-unidic": dictionary.JAPANESE}
PACKAGES = {  # whose versions change what a segmenter does
    "mecab-ko": ("mecab-python3",),
    "mecab-unidic": ("mecab-python3",),
    "jieba": ("jieba",),
    "pythainlp": ("pythainlp",),
}


def check(segmenters: Iterable[str]) -> None:
    """Checks that segmenters can run here and with the dictionaries that are meant.

    Raises:
      ValueError: a package is missing, or a dictionary is another one.
    """
    for segmenter in segmenters:
        load(segmenter)
        if segmenter in DICTIONARIES:
            dictionary.check(DICTIONARIES[segmenter])
