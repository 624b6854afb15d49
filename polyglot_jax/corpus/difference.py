"""What differs between a text and what a rule made of it, for people to see."""

import difflib
import re
from collections.abc import Iterator
from typing import Literal

Kind = Literal["same", "gone", "new"]
_TOKEN = re.compile(r"[^\W\d_]+|\d+|.", re.DOTALL)
_MOST_TOKENS = 4000  # of what differs; aligning takes time in its square
_SHAPELESS = re.compile(r"[^\w \t\n!-~]")
_SEEN = {ord("\t"): "⇥", ord("\n"): "↵\n", ord(" "): "␣"}


def pieces(before: str, after: str) -> Iterator[tuple[Kind, str]]:
    """Yields the parts of both texts in order: what is in both, only before, or only after.

    Words and numbers are whole. Of texts that differ in more than some thousand words all from the
    first to the last difference is given as replaced.
    """
    start = _common(before, after)
    end = _common(before[start:][::-1], after[start:][::-1])
    tail = len(before) - end
    if start:
        yield "same", before[:start]
    old, new = before[start:tail], after[start : len(after) - end]
    a, b = _TOKEN.findall(old), _TOKEN.findall(new)
    if len(a) * len(b) > _MOST_TOKENS**2:
        yield "gone", old
        yield "new", new
    else:
        matcher = difflib.SequenceMatcher(None, a, b, autojunk=False)
        for op, i, j, k, m in matcher.get_opcodes():
            if op == "equal":
                yield "same", "".join(a[i:j])
                continue
            if i < j:
                yield "gone", "".join(a[i:j])
            if k < m:
                yield "new", "".join(b[k:m])
    if end:
        yield "same", before[tail:]


def _common(a: str, b: str) -> int:
    """Returns how many characters two texts begin with alike."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[:middle] == b[:middle] else (low, middle - 1)
    return low


def visible(text: str) -> str:
    """Shows blanks, line ends and characters without a shape by signs."""
    if text.isprintable() and text.strip(" ") == text and "  " not in text:
        return text
    return _SHAPELESS.sub(_sign, text.translate(_SEEN))


def printable(text: str) -> str:
    """Shows control and other shapeless characters by signs, so that a terminal obeys none."""
    return _SHAPELESS.sub(_sign, text)


def _sign(match: re.Match[str]) -> str:
    character = match[0]
    return character if character.isprintable() else f"⟨U+{ord(character):04X}⟩"
