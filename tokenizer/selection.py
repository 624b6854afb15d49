"""Which documents a tokenizer is trained on: all of them, or a seeded sample by weight.

The corpus is read twice and never held: once to learn how many bytes each source of each language
has, then to take each document at the rate of its source. Whether a document is taken follows from
a hash of its text and the seed alone, so that neither the number of processes nor the names and
order of the files change the sample.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from polyglot_jax import pool
from polyglot_jax.corpus import readers
from tokenizer import recipes

MAX_REPEATS = 4.0  # times that the temperature may repeat a small language; ours

Key = tuple[str, str]  # language, source


@dataclass(frozen=True)
class Input:
    """Documents of one language."""

    language: str
    pattern: str  # directory, file or glob


@dataclass(frozen=True)
class Size:
    """How much of a source there is."""

    documents: int
    bytes: int


def parse_input(value: str, languages: Sequence[str]) -> Input:
    """Reads `ko=DIR`, or `DIR` where there is one language only.

    Raises:
      ValueError: the language is not among `languages`, or is left out and there are several.
    """
    named = re.fullmatch(r"([a-z]{2,3})=(.+)", value)
    if named:
        recipes.check_name(named[1], languages, f"language in --input={value}:")
        return Input(named[1], named[2])
    if len(languages) > 1:
        raise ValueError(
            f"--input={value}: say its language, one of {', '.join(languages)}, "
            f"as in --input={languages[0]}={value}"
        )
    return Input(languages[0], value)


def parse_weights(values: Sequence[str]) -> dict[str, float]:
    """Reads `name=weight` flags. Raises ValueError unless each weight is a number from 0 to 100."""
    weights = {}
    for value in values:
        name, _, number = value.rpartition("=")
        try:
            weights[name] = float(number)
        except ValueError:
            weights[name] = -1.0
        if not name or not 0 <= weights[name] <= 100:
            raise ValueError(f"--source={value}: must be NAME=WEIGHT with a weight from 0 to 100")
    return weights


def sizes(inputs: Sequence[Input], processes: int) -> dict[Key, Size]:
    """Returns how much there is of each source, which is a document's field or its file's name.

    Raises:
      ValueError: as `polyglot_jax.corpus.readers.documents`; the inputs hold no text.
    """
    files = [(i.language, str(file)) for i in inputs for file in readers.find_files(i.pattern)]
    total: dict[Key, Size] = {}
    few = processes == 1 or len(files) == 1  # not worth the start of workers
    counted = map(_file_sizes, files) if few else pool.ordered(_file_sizes, files, processes)
    for found in counted:
        for key, size in found.items():
            before = total.get(key, Size(0, 0))
            total[key] = Size(before.documents + size.documents, before.bytes + size.bytes)
    if not any(size.bytes for size in total.values()):
        raise ValueError(f"{', '.join(i.pattern for i in inputs)} holds no text")
    return total


def rates(
    found: Mapping[Key, Size], weights: Mapping[str, float], alpha: float, sample_bytes: int
) -> dict[Key, float]:
    """Returns how often a document of each source is taken, on average.

    A source's bytes count `weights` times (1 where it has none). Languages then share what fits
    into `sample_bytes` by the power `alpha`, none repeated more than MAX_REPEATS times.

    Raises:
      ValueError: a weight is for no source there is, or the weights leave nothing.
    """
    names = sorted({source for _, source in found})
    for name in weights:
        recipes.check_name(name, names, "--source")
    weighted = {key: size.bytes * weights.get(key[1], 1.0) for key, size in found.items()}
    languages: dict[str, float] = {}
    for (language, _), count in weighted.items():
        languages[language] = languages.get(language, 0.0) + count
    total = sum(languages.values())
    if not total:
        raise ValueError("the weights of --source leave no text")
    budget = min(total, float(sample_bytes))
    shares = {name: (size / total) ** alpha for name, size in languages.items() if size}
    factors = {
        name: min(MAX_REPEATS, budget * share / sum(shares.values()) / languages[name])
        for name, share in shares.items()
    }
    if budget == total and alpha == 1.0:
        factors = dict.fromkeys(factors, 1.0)  # exactly: the whole corpus is no sample of itself
    return {key: weights.get(key[1], 1.0) * factors.get(key[0], 0.0) for key in found}


def take(
    inputs: Sequence[Input], rate: Mapping[Key, float], seed: int
) -> Iterator[tuple[str, str]]:
    """Yields (language, text) of the documents taken, one that is taken twice at once.

    Raises:
      ValueError: as `polyglot_jax.corpus.readers.documents`.
    """
    for i in inputs:
        for document in readers.documents(i.pattern):
            wanted = rate[i.language, _source(document)]
            for _ in range(int(wanted) + (chance(document.text, f"take {seed}") < wanted % 1)):
                yield i.language, document.text


def chance(text: str, salt: str) -> float:
    """Returns a number in [0, 1) that is random in the text but always the same for it."""
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=salt.encode()).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def _file_sizes(file: tuple[str, str]) -> dict[Key, Size]:
    language, path = file
    found: dict[Key, Size] = {}
    for document in readers.documents(path):
        key = (language, _source(document))
        before = found.get(key, Size(0, 0))
        found[key] = Size(before.documents + 1, before.bytes + len(document.text.encode()))
    return found


def _source(document: readers.Document) -> str:
    return document.source or document.file.rsplit("/", 1)[-1].split(".", 1)[0]
