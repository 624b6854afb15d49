"""Counts the words that BPE is trained on, in worker processes and bounded memory.

BPE needs no text, only how often each word occurs. A word lies within one morpheme and has at most
one whitespace character, at its beginning. There are so few different ones (111,000 in 35 MB of
Korean prose, and growing with its square root) that counting them here keeps the corpus out of
memory.
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator

from polyglot_jax import pool
from tokenizer import segment, selection

# Different words kept, for each id wanted and at least; beyond, a sample of the rare ones. The
# trainer takes nearly 1 kB for each: they decide its memory. With 3 an id, 8,000 ids of Korean made
# 0.2 % more tokens of other text than with all words; with 4, 4,000 ids 0.4 %, hence the least.
# Words that no segmenter cuts are many more: with 4 an id, 30,000 ids made 1.7 % more tokens.
CUT_WORDS_AN_ID = 4
WHOLE_WORDS_AN_ID = 16
LEAST_WORDS = 100_000
_BATCH_BYTES = 1 << 19  # a task: large enough to hide the cost of passing it between processes

# The published tokenizer has one token with a newline and none of several blanks.
_WORDS = re.compile(rf" ?[^\s{segment.MARKER}]+|\s")
_BLANKS = re.compile(" {2,}")


def words(text: str, segmenter: str, *, blanks: bool = True) -> list[str]:
    """Returns the words of a text. Joined they are the text, less the markers that it may hold.

    Args:
      blanks: False leaves out runs of two blanks and more, where they are tokens of their own.
    """
    marked = segment.MARKER.join(segment.morphemes(text, segmenter))
    if not blanks:
        marked = _BLANKS.sub(segment.MARKER, marked)
    return _WORDS.findall(marked)


def count(
    texts: Iterable[tuple[str, str]],
    processes: int,
    *,
    most: int,
    blanks: bool = True,
) -> Counter[str]:
    """Returns how often each word occurs in pairs of segmenter and text.

    The number of processes changes nothing, not even where more than `most` are found.
    """
    tasks = ((batch, blanks) for batch in _batches(texts))
    alone = processes == 1
    counts: Counter[str] = Counter()
    for found in map(_count, tasks) if alone else pool.ordered(_count, tasks, processes):
        counts.update(found)
        while len(counts) > most:
            counts = _forget(counts, most * 3 // 4)
    return counts


def repeated(counts: Counter[str], longest: int = 1 << 13) -> Iterator[str]:
    """Yields texts of about `longest` characters in which each word occurs as often as counted.

    Words are apart by the marker. Short texts, because the trainer needs dozens of bytes for each.
    """
    waiting, size = [], 0
    for word, times in counts.items():
        unit = word + segment.MARKER
        while times:
            now = min(times, 1 + (longest - size) // len(unit))
            waiting.append(unit * now)
            size += len(unit) * now
            times -= now
            if size >= longest:
                yield "".join(waiting)
                waiting, size = [], 0
    if waiting:
        yield "".join(waiting)


def _count(task: tuple[list[tuple[str, str]], bool]) -> Counter[str]:
    batch, blanks = task
    counts: Counter[str] = Counter()
    for segmenter, text in batch:
        counts.update(words(text, segmenter, blanks=blanks))
    return counts


def _batches(texts: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    """Yields lists of documents of about equal size: a count of them may be any number of bytes."""
    batch: list[tuple[str, str]] = []
    size = 0
    for segmenter, text in texts:
        batch.append((segmenter, text))
        size += 3 * len(text)
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _forget(counts: Counter[str], most: int) -> Counter[str]:
    """Returns about `most` of the words, with counts that are right on average.

    A word rarer than some number is kept with a chance that goes with its count, and then counts as
    that number. Without its rare words a language whose words are runs of a script would vanish:
    most of them occur once.
    """
    by_count = Counter(counts.values())
    least = next(
        n
        for n in itertools.count(2)
        if sum(words * min(times, n) for times, words in by_count.items()) <= most * n
    )
    salt = f"forget {counts.total()}"  # another one each time
    return Counter(
        {
            word: max(times, least)
            for word, times in counts.items()
            if times >= least or selection.chance(word, salt) < times / least
        }
    )
