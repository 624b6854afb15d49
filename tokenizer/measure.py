"""Measures byte-level BPE tokenizers on a text, side by side.

    python -m tokenizer.measure --tokenizer=ours.json,plain.json,HF_DIR --input=documents \\
        --gold=ko_gsd-ud-dev.conllu.gz --output=measured

The one idea: a byte-level token is a number of bytes, so the cuts of any tokenizer and those of
the morphemes are positions in one string and can be compared as sets. Documents are read one at a
time and only counts are kept. Text that spells a special token is text here, as in the encoder.
"""

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from absl import flags
from etils import epath
from tokenizers import Tokenizer
from tqdm import tqdm

from polyglot_jax import cli, files
from polyglot_jax.corpus import readers
from polyglot_jax.data.documents import token_table
from polyglot_jax.tokens import PLACEHOLDERS
from tokenizer import boundaries, measure_page, segment, vocabulary_use

FORMAT = 1
_SHOWN_FAILURES = 20


@dataclass(frozen=True)
class Subject:
    """A tokenizer that is measured."""

    name: str
    path: str
    sha256: str
    tokenizer: Tokenizer
    table: tuple[bytes, ...]  # by id
    sizes: np.ndarray  # int64[ids], the bytes of each token


@dataclass
class Tally:
    """What has been counted of one tokenizer so far."""

    used: np.ndarray  # int64[ids]
    seconds: float = 0.0  # of this thread's processor, in encoding
    boundaries: Any = 0  # see boundaries.count
    gold: Any = 0
    failed: int = 0  # documents that do not come back as they were
    failures: list[str] = field(default_factory=list)


def load(paths: Sequence[str]) -> list[Subject]:
    """Reads tokenizers: files, or directories that hold a tokenizer.json.

    Each is named after its file, or after the folder of a `tokenizer.json`.

    Raises:
      ValueError: one cannot be read, or is no byte-level BPE.
    """
    found = [_file(path) for path in paths]
    names = [file.parent.name if file.name == "tokenizer.json" else file.stem for file in found]
    if len(set(names)) < len(names):
        names = list(map(str, found))
    if len(set(names)) < len(names):
        raise ValueError(f"--tokenizer names one file twice: {', '.join(names)}")
    return [_load_one(name, file) for name, file in zip(names, found, strict=True)]


def _file(path: str) -> epath.Path:
    file = epath.Path(path)
    file = file / "tokenizer.json" if file.is_dir() else file
    if not file.is_file():
        raise ValueError(f"no tokenizer at {file}: name a tokenizer.json or a folder that holds it")
    return file


def _load_one(name: str, file: epath.Path) -> Subject:
    data = file.read_bytes()
    try:
        values = json.loads(data)
        kind = values["model"].get("type", "unknown")
        for token in values["added_tokens"]:  # masks are found in documents, other specials not
            token["special"] = token["special"] and token["content"] not in PLACEHOLDERS
        tokenizer = Tokenizer.from_str(json.dumps(values))
    except Exception as error:  # tokenizers raises bare Exception
        raise ValueError(f"{file}: not a tokenizer.json ({cli.one_line(error)})") from None
    if kind != "BPE":
        raise ValueError(f"{file}: its model is {kind}; only byte-level BPE is measured")
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    table = token_table(tokenizer, str(file))
    sizes = np.array([len(token) for token in table], np.int64)
    return Subject(name, str(file), hashlib.sha256(data).hexdigest(), tokenizer, table, sizes)


def measure(
    subjects: Sequence[Subject],
    documents: Iterable[readers.Document],
    gold: Iterable[boundaries.GoldSentence] = (),
    *,
    segmenter: str = "mecab-ko",
) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Returns the content of measure.json, and how often each tokenizer used each id.

    Args:
      segmenter: of `segment.SEGMENTERS`, what finds the morphemes.
    Raises:
      ValueError: the documents hold no text; as `segment.check`.
    """
    segment.check([segmenter])
    tallies = [Tally(np.zeros(len(subject.table), np.int64)) for subject in subjects]
    totals = {"documents": 0, "bytes": 0, "characters": 0, "eojeols": 0}
    with tqdm(desc="measure", unit="B", unit_scale=True, disable=None) as bar:
        for document in documents:
            text, data = document.text, document.text.encode()
            if not data:
                continue
            morphemes = boundaries.morphemes_of(data, segment.morphemes(text, segmenter))
            for subject, tally in zip(subjects, tallies, strict=True):
                _add(subject, tally, document, morphemes)
            totals["documents"] += 1
            totals["bytes"] += len(data)
            totals["characters"] += len(text)
            totals["eojeols"] += len(text.split())
            bar.update(len(data))
    if not totals["bytes"]:
        raise ValueError("--input holds no text")
    treebank = _compare_gold(subjects, tallies, gold)
    dictionary = segment.DICTIONARIES.get(segmenter)
    return {
        "format": FORMAT,
        "segmenter": segmenter,
        "dictionary": dictionary.sha256 if dictionary else None,
        "text": totals,
        "gold": treebank,
        "tokenizers": [
            _result(subject, tally, totals, treebank is not None)
            for subject, tally in zip(subjects, tallies, strict=True)
        ],
    }, [tally.used for tally in tallies]


def _add(
    subject: Subject,
    tally: Tally,
    document: readers.Document,
    morphemes: boundaries.Morphemes,
) -> None:
    start = time.thread_time()
    ids = subject.tokenizer.encode(document.text, add_special_tokens=False).ids
    tally.seconds += time.thread_time() - start
    tally.used += np.bincount(ids, minlength=tally.used.size)
    back = b"".join([subject.table[i] for i in ids])
    decoded = subject.tokenizer.decode(ids, skip_special_tokens=False)
    if back == morphemes.data:  # otherwise positions in the two mean different places
        tally.boundaries += boundaries.count(morphemes, subject.sizes[ids])
    if back != morphemes.data or decoded != document.text:
        tally.failed += 1
        if len(tally.failures) < _SHOWN_FAILURES:
            lost = decoded if back == morphemes.data else back.decode(errors="replace")
            place = f"{document.file}:{document.row}"
            tally.failures.append(f"{place}: {_first_difference(document.text, lost)}")


def _first_difference(text: str, back: str) -> str:
    i = next((i for i, (a, b) in enumerate(zip(text, back, strict=False)) if a != b), None)
    i = min(len(text), len(back)) if i is None else i
    return (
        f"character {i + 1}: {text[max(0, i - 8) : i + 8]!r} comes back as "
        f"{back[max(0, i - 8) : i + 8]!r}"
    )


def _compare_gold(
    subjects: Sequence[Subject],
    tallies: Sequence[Tally],
    gold: Iterable[boundaries.GoldSentence],
) -> dict[str, int] | None:
    totals = {"sentences": 0, "words": 0, "contracted_words": 0}
    for sentence in gold:
        totals["sentences"] += 1
        totals["words"] += sentence.words
        totals["contracted_words"] += sentence.contracted
        text = sentence.morphemes.data.decode()
        for subject, tally in zip(subjects, tallies, strict=True):
            ids = subject.tokenizer.encode(text, add_special_tokens=False).ids
            if subject.sizes[ids].sum() == len(sentence.morphemes.data):
                tally.gold += boundaries.count(sentence.morphemes, subject.sizes[ids])
    return totals if totals["sentences"] else None


def _result(
    subject: Subject, tally: Tally, totals: Mapping[str, int], has_gold: bool
) -> dict[str, Any]:
    tokens = max(1, int(tally.used.sum()))
    empty = np.zeros((len(boundaries.REGIONS), 3), np.int64)
    return {
        "name": subject.name,
        "path": subject.path,
        "sha256": subject.sha256,
        "tokens": tokens,
        "bytes_per_token": totals["bytes"] / tokens,
        "tokens_per_eojeol": tokens / max(1, totals["eojeols"]),
        "characters_per_token": totals["characters"] / tokens,
        "mb_per_second": totals["bytes"] / 1e6 / max(1e-9, tally.seconds),
        "morphemes": boundaries.scores(tally.boundaries + empty),
        "gold": boundaries.scores(tally.gold + empty) if has_gold else None,
        "vocabulary": vocabulary_use.describe(subject.tokenizer, subject.table),
        "use": vocabulary_use.usage(subject.tokenizer, subject.table, tally.used),
        "not_lossless_documents": tally.failed,
        "failures": tally.failures,
    }


def cuts(subject: Subject, text: str) -> list[bytes]:
    """Returns the tokens of a text, each as its bytes."""
    ids = subject.tokenizer.encode(text, add_special_tokens=False).ids
    return [subject.table[i] for i in ids]


def _documents(patterns: Sequence[str]) -> Iterator[readers.Document]:
    for pattern in patterns:
        yield from readers.documents(pattern)


def main() -> None:
    values = flags.FLAGS
    output = epath.Path(values.output)
    subjects = load(values.tokenizer)
    gold = list(boundaries.read_conllu(values.gold)) if values.gold else ()  # read before all else
    output.mkdir(parents=True, exist_ok=True)  # a place that cannot be written to is found first
    segmenter = values.segmenter
    measured, used = measure(subjects, _documents(values.input), gold, segmenter=segmenter)
    files.write(output / "measure.json", json.dumps(measured, indent=2, ensure_ascii=False) + "\n")
    examples = [
        (
            text,
            [piece.encode() for piece in segment.morphemes(text, segmenter)],
            [cuts(s, text) for s in subjects],
        )
        for text in measure_page.EXAMPLES
    ]
    page = files.write(output / "measure.html", measure_page.page(measured, used, examples))
    print(measure_page.terminal_table(measured))
    for result in measured["tokenizers"]:
        for failure in result["failures"]:
            print(f"{result['name']} is not lossless: {failure}")
    print(f"wrote {page} and measure.json")


if __name__ == "__main__":
    flags.DEFINE_list(
        "tokenizer", None, "tokenizer.json files, or directories that hold one, between commas."
    )
    flags.DEFINE_multi_string(
        "input",
        None,
        "Directory, file or glob of clean documents that no tokenizer was trained on; may be "
        "repeated.",
    )
    flags.DEFINE_string(
        "gold", None, "Korean treebank in CoNLL-U whose lemmas are morphemes (UD Korean-GSD)."
    )
    flags.DEFINE_enum(
        "segmenter", "mecab-ko", list(segment.SEGMENTERS), "What finds the morphemes of --input."
    )
    flags.DEFINE_string("output", None, "Directory for measure.json and measure.html.")
    flags.mark_flags_as_required(["tokenizer", "input", "output"])
    cli.run(main)
