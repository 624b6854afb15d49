"""How far the ends of tokens are the ends of morphemes.

Positions are offsets into the UTF-8 of a text, so that a token that ends in the middle of a
syllable counts as what it is: a boundary where no morpheme can end. Agreement is counted in three
regions, since each is easier than the next: everywhere (most boundaries are at blanks and at
punctuation, which any pre-tokenizer cuts at), inside eojeols (the units between blanks), and
between Hangul syllables, where only the vocabulary decides.
"""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from etils import epath

REGIONS = ("all", "eojeol", "hangul")
_FIRST_SYLLABLE, _LAST_SYLLABLE = 0xAC00, 0xD7A3


@dataclass(frozen=True)
class Morphemes:
    """A text and where its morphemes end. Arrays are over the len(data) + 1 positions."""

    data: bytes  # UTF-8
    ends: np.ndarray  # bool
    regions: np.ndarray  # bool[3, positions]: where boundaries are counted, by REGIONS


def morphemes_of(data: bytes, pieces: Sequence[str]) -> Morphemes:
    """Returns the boundaries between pieces that join to the text `data` (UTF-8)."""
    sizes = np.array([len(piece.encode()) for piece in pieces], np.int64)
    return Morphemes(data, _marks(len(data), sizes), regions_of(data))


def regions_of(data: bytes) -> np.ndarray:
    """Returns bool[3, len(data) + 1]: the positions of each of REGIONS in a UTF-8 text.

    Blanks are ASCII blanks and control characters. A position is between Hangul syllables if the
    bytes on both its sides are of a precomposed syllable, the same or two.
    """
    x = np.frombuffer(data, np.uint8)
    found = np.zeros((len(REGIONS), x.size + 1), bool)
    found[0, 1:-1] = True
    word = x > 0x20
    found[1, 1:-1] = word[1:] & word[:-1]
    hangul = np.zeros(x.size, bool)
    leads = np.flatnonzero((x & 0xF0) == 0xE0)  # of three bytes
    wide = x.astype(np.int32) & 0x3F
    code = ((wide[leads] & 0x0F) << 12) | (wide[leads + 1] << 6) | wide[leads + 2]
    leads = leads[(code >= _FIRST_SYLLABLE) & (code <= _LAST_SYLLABLE)]
    for i in range(3):
        hangul[leads + i] = True
    found[2, 1:-1] = hangul[1:] & hangul[:-1]
    return found


def count(morphemes: Morphemes, sizes: np.ndarray) -> np.ndarray:
    """Returns int64[3, 3]: by region, the ends of morphemes, the ends of tokens, and of both.

    Args:
      sizes: int[tokens], the bytes of each token; they add up to the text.
    """
    tokens = _marks(len(morphemes.data), sizes)
    found = (morphemes.ends, tokens, morphemes.ends & tokens)
    return np.array(
        [[np.count_nonzero(region & ends) for ends in found] for region in morphemes.regions]
    )


def scores(counts: np.ndarray) -> dict[str, dict[str, Any]]:
    """Returns {region: counts, precision, recall and F1} of what `count` gave, summed.

    Recall is the share of morpheme boundaries that are token boundaries. Single bytes as tokens
    have a recall of 1, so it says nothing without the precision. None: there was nothing to count.
    """
    result = {}
    for region, (morphemes, tokens, both) in zip(REGIONS, counts.tolist(), strict=True):
        result[region] = {
            "morpheme_boundaries": morphemes,
            "token_boundaries": tokens,
            "precision": both / tokens if tokens else None,
            "recall": both / morphemes if morphemes else None,
            "f1": 2 * both / (morphemes + tokens) if morphemes + tokens else None,
        }
    return result


def _marks(length: int, sizes: np.ndarray) -> np.ndarray:
    marks = np.zeros(length + 1, bool)
    marks[np.cumsum(sizes)] = True
    return marks


# ---- gold morphemes of a treebank


@dataclass(frozen=True)
class GoldSentence:
    """A sentence of a treebank, and how many of its words could not be aligned."""

    morphemes: Morphemes
    words: int
    contracted: int


def read_conllu(path: epath.PathLike) -> Iterator[GoldSentence]:
    """Yields the sentences of a Korean treebank in CoNLL-U (.gz too), whose lemmas are `a+b+c`.

    A word whose morphemes do not join to its form, as 나오+았+네요 of 나왔네요, is contracted:
    where it is cut in writing is not recorded, so no boundary inside it is counted.

    Raises:
      ValueError: a line is not CoNLL-U, or a multiword token, which Korean treebanks do not have.
      OSError: the file cannot be read.
    """
    path = epath.Path(path)
    raw = path.read_bytes()
    try:
        lines = (gzip.decompress(raw) if path.name.endswith(".gz") else raw).decode().splitlines()
    except (EOFError, UnicodeDecodeError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: {error}") from None
    words: list[tuple[str, list[str], bool]] = []
    for row, line in enumerate([*lines, ""], 1):
        if not line and words:
            yield _sentence(words)
            words = []
        elif line and not line.startswith("#"):
            columns = line.split("\t")
            if len(columns) != 10 or not columns[0].isdecimal():
                raise ValueError(
                    f"{path}:{row}: expected a word with 10 columns between tabs, as in CoNLL-U"
                )
            form, lemma = columns[1], columns[2]
            pieces = [form] if form == lemma else lemma.split("+")
            words.append((form, pieces, "SpaceAfter=No" not in columns[9].split("|")))


def _sentence(words: Sequence[tuple[str, list[str], bool]]) -> GoldSentence:
    text, sizes, unknown, position, contracted = "", [], [], 0, 0
    blank = ""
    for form, pieces, space_after in words:
        text += blank + form
        if "".join(pieces) != form:
            contracted += 1
            start = position + len(blank)
            unknown.append(slice(start + 1, start + len(form.encode())))
            pieces = [form]
        parts = [len(piece.encode()) for piece in pieces]
        parts[0] += len(blank)
        sizes += parts
        position += sum(parts)
        blank = " " if space_after else ""
    data = text.encode()
    regions = regions_of(data)
    for inside in unknown:
        regions[:, inside] = False
    ends = _marks(len(data), np.array(sizes, np.int64))
    return GoldSentence(Morphemes(data, ends, regions), len(words), contracted)
