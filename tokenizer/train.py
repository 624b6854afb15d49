"""Trains the morpheme-aware byte-level BPE of Polyglot-Ko ("MBBPE") on clean documents.

    python -m tokenizer.train --input=documents --vocab_size=30000 --output=tokenizer.json

The one idea: MeCab is used in training only. Morphemes are joined with a marker at which the
training pre-tokenizer splits, so no merge ever crosses a morpheme; the written file has no marker
and needs no MeCab. Ids are those of the published tokenizer: four specials, 256 bytes, merges up to
vocab_size, then three PII tokens.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from absl import flags
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer
from tqdm import tqdm

from polyglot_jax import cli
from polyglot_jax.corpus import readers
from polyglot_jax.tokens import END_OF_TEXT, PLACEHOLDERS
from tokenizer import segment

SPECIALS = ("<pad>", "<eos>", END_OF_TEXT, "<|sep|>")  # ids 0..3
PII_SPECIALS = tuple(PLACEHOLDERS)  # ids vocab_size..vocab_size+2
SMALLEST_VOCABULARY = len(SPECIALS) + 256


def write(documents: str, output: Path, vocab_size: int, *, processes: int = 1) -> None:
    """Trains on a directory or file of documents; writes `output` and a `.meta.json` beside it.

    Raises:
      ValueError: as `train` and `polyglot_jax.corpus.readers.documents`; `output` is a directory.
      OSError: `output` cannot be written.
    """
    if output.is_dir():
        raise ValueError(f"--output={output} is a directory; name the tokenizer.json to write")
    output.parent.mkdir(parents=True, exist_ok=True)
    corpus = Corpus(readers.documents(documents), name=documents)
    meta = output.with_suffix(".meta.json")
    temporaries = [path.with_name(f".{path.name}.tmp") for path in (meta, output)]
    try:
        # First: a place that cannot be written to is found before the work, not after it.
        for temporary in temporaries:
            temporary.touch()
        tokenizer = train(corpus, vocab_size, processes=processes)
        described = json.dumps(metadata(corpus, tokenizer), indent=2) + "\n"
        for temporary, text in zip(
            temporaries, (described, tokenizer.to_str(pretty=True)), strict=True
        ):
            temporary.write_text(text, encoding="utf-8")
        for temporary, path in zip(temporaries, (meta, output), strict=True):
            os.replace(temporary, path)  # the tokenizer last: it makes the pair whole
    finally:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)
    reached = tokenizer.get_vocab_size()
    if reached < vocab_size + len(PII_SPECIALS):
        print(
            f"the text yields only {reached} ids, not --vocab_size={vocab_size} and "
            f"{len(PII_SPECIALS)} more: the tokenizer is smaller"
        )
    print(f"{output}: {reached} ids from {corpus.documents} documents")


class Corpus:
    """Iterates over the texts of documents once and knows afterwards what they were."""

    def __init__(self, documents: Iterable[readers.Document], name: str):
        self._source = documents
        self._name = name
        self._hash = hashlib.sha256()
        self.documents = 0
        self.bytes = 0

    def __iter__(self) -> Iterator[str]:
        for document in tqdm(self._source, desc="segment", unit="doc", disable=None):
            data = document.text.encode()
            self._hash.update(len(data).to_bytes(8, "little") + data)
            self.documents += 1
            self.bytes += len(data)
            yield document.text
        if not self.bytes:
            raise ValueError(f"{self._name} holds no text")

    def fingerprint(self) -> str:
        """Returns the sha256 of all texts so far, each after its length."""
        return self._hash.hexdigest()


def train(texts: Iterable[str], vocab_size: int, *, processes: int = 1) -> Tokenizer:
    """Returns the inference tokenizer: `vocab_size` ids and the three PII tokens.

    Fewer ids where the texts yield no more merges: a model may have more rows than its tokenizer.
    The same texts give the same tokenizer for any number of processes.

    Raises:
      ValueError: vocab_size has no room for the bytes; MeCab is not installed.
    """
    if vocab_size < SMALLEST_VOCABULARY:
        raise ValueError(
            f"--vocab_size={vocab_size}: must be at least {SMALLEST_VOCABULARY}, which is "
            f"{len(SPECIALS)} specials and 256 bytes"
        )
    segment.tagger()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(segment.MARKER, "removed"), _byte_level()]
    )
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,  # a pair that occurs once says nothing about the language
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    with contextlib.closing(segment.marked_all(texts, processes)) as marked:
        _interruptibly(tokenizer.train_from_iterator, marked, trainer)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in PII_SPECIALS])
    tokenizer.pre_tokenizer = _byte_level()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _interruptibly(
    function: Callable[[Iterator[str], BpeTrainer], None], texts: Iterable[str], trainer: BpeTrainer
) -> None:
    """Runs the training in a thread: it would hold the main one, which alone sees an interrupt."""
    interrupted = threading.Event()

    def until_interrupted() -> Iterator[str]:
        for text in texts:
            if interrupted.is_set():
                raise ValueError("interrupted")
            yield text

    with ThreadPoolExecutor(1) as thread:
        try:
            thread.submit(function, until_interrupted(), trainer).result()
        except KeyboardInterrupt:
            interrupted.set()
            raise


def _byte_level() -> pre_tokenizers.ByteLevel:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def metadata(corpus: Corpus, tokenizer: Tokenizer) -> dict[str, Any]:
    """Returns what it takes to make the same tokenizer again."""
    packages = ("tokenizers", "mecab-python3", "python-mecab-ko-dic")
    return {
        "format": 1,
        "vocab_size": tokenizer.get_vocab_size() - len(PII_SPECIALS),
        "marker": f"U+{ord(segment.MARKER):04X}",
        "documents": corpus.documents,
        "bytes": corpus.bytes,
        "sha256_of_texts": corpus.fingerprint(),
        "packages": {name: importlib.metadata.version(name) for name in packages},
    }


def main() -> None:
    values = flags.FLAGS
    write(values.input, Path(values.output), values.vocab_size, processes=values.processes)


if __name__ == "__main__":
    flags.DEFINE_string(
        "input", None, "Directory, file or glob of clean documents (Parquet, JSONL, text)."
    )
    flags.DEFINE_string("output", None, "The tokenizer.json to write.")
    flags.DEFINE_integer(
        "vocab_size",
        30_000,
        "Most ids of specials, bytes and merges; three PII tokens come on top.",
    )
    flags.DEFINE_integer(
        "processes", os.cpu_count(), "Processes that find morphemes.", lower_bound=1
    )
    flags.mark_flags_as_required(["input", "output"])
    cli.run(main)
