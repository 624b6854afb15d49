"""Languages and recipes as data: which segmenter a language takes, and what a tokenizer is made of.

A recipe is a starting point: every field but its languages can be changed by a flag.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# The segmenter (of segment.SEGMENTERS) that marks the words of a language in training. Chinese and
# Thai take none that would need a package: byte-level BPE finds frequent words in a run by itself.
LANGUAGES = {
    "ko": "mecab-ko",
    "ja": "mecab-unidic",
    "zh": "scripts",
    "th": "scripts",
    "id": "none",
    "ms": "none",
    "vi": "none",
    "en": "none",
    "es": "none",
    "pt": "none",
    "fr": "none",
    "ro": "none",
    "it": "none",
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to train a tokenizer on, and its structure."""

    segmenters: Mapping[str, str]  # by language; a lone one is that of inputs that name none
    vocab_size: int  # ids of specials, bytes and merges
    # A language has a share of the sample that goes with its share of the corpus to this power: 1
    # leaves the corpus as it is, 0 takes as much of each.
    alpha: float = 1.0
    # Share of the documents in which no boundary is marked. 0: no merge crosses a morpheme. A
    # frequent sequence of morphemes in a word becomes a token where its count times this share is
    # among the highest: fewer tokens for some agreement with morphemes.
    unmarked: float = 0.0
    digits: bool = False  # each digit a token
    whitespace_runs: int = 0  # runs of 2 to so many blanks and newlines are tokens
    nfc: bool = False  # of the training text; the tokenizer itself changes nothing
    # GPT-2's pattern cuts a word at combining marks, which in Thai are most vowels.
    marks_in_words: bool = False
    special_tokens: tuple[str, ...] = ()  # of the user, after all other ids


def _segmenters(*languages: str) -> dict[str, str]:
    return {language: LANGUAGES[language] for language in languages}


# Polyglot-Ko's: ids and structure of the published tokenizer. The other two are ours. Their 0.3 is
# that of XLM-R (Conneau et al. 2020, arXiv:1911.02116) and mT5 (Xue et al. 2021, arXiv:2010.11934);
# single digits, runs of up to 24 blanks, NFC and the 102,400 ids are those of the tokenizer that
# Polyglot's team planned next (EleutherAI/gpt-neox, branch polyglot, train_tokenizer).
RECIPES = {
    "ko": Recipe(segmenters=_segmenters("ko"), vocab_size=30_000),
    "east_asian": Recipe(
        segmenters=_segmenters("ko", "zh", "ja", "id", "ms", "vi", "th", "en"),
        vocab_size=102_400,
        alpha=0.3,
        digits=True,
        whitespace_runs=24,
        nfc=True,
        marks_in_words=True,
    ),
    "romance": Recipe(
        segmenters=_segmenters("es", "pt", "fr", "ro", "it"),
        vocab_size=50_000,
        alpha=0.3,
        digits=True,
        whitespace_runs=24,
        nfc=True,
    ),
}


def check_name(name: str, known: Iterable[str], what: str) -> None:
    """Raises ValueError, with the closest names, unless `name` is known."""
    known = list(known)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known)}"
        raise ValueError(f"unknown {what} {name!r}; {hint}")
