"""Measures of a document by which it is dropped: those of the original, and what counts as noise.

The original took them from MassiveText (Rae et al., arXiv 2112.11446, A1.1) and its Korean job
(EleutherAI/dps, `korean_job.yaml`) set the numbers. docs/rules.md says which are on and why.
"""

import re

_HANGUL = re.compile("[ㄱ-ㅎㅏ-ㅣ가-힣]+")
_BULLETS = ("*", "·", "•", "‧", "ㆍ")
_ELLIPSES = ("…", "...")


def mean_word_length(text: str) -> float:
    """Returns the characters per word between blanks; 0 without words."""
    words = text.split()
    return sum(map(len, words)) / len(words) if words else 0.0


def symbol_share(text: str) -> float:
    """Returns the share of words that hold an ellipsis or a hash sign."""
    words = text.split()
    marked = sum("…" in word or "..." in word or "#" in word for word in words)
    return marked / len(words) if words else 0.0


def bullet_share(text: str) -> float:
    """Returns the share of lines that begin with a bullet."""
    lines = _lines(text)
    return sum(line.startswith(_BULLETS) for line in lines) / len(lines) if lines else 0.0


def ellipsis_share(text: str) -> float:
    """Returns the share of lines that end in an ellipsis."""
    lines = _lines(text)
    return sum(line.endswith(_ELLIPSES) for line in lines) / len(lines) if lines else 0.0


def hangul_share(text: str) -> float:
    """Returns the share of Hangul among the characters that are not blank."""
    characters = sum(map(len, text.split()))
    return sum(map(len, _HANGUL.findall(text))) / characters if characters else 0.0


def _lines(text: str) -> list[str]:
    return [line for line in map(str.strip, text.split("\n")) if line]
