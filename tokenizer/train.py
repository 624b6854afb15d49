"""Trains the morpheme-aware byte-level BPE of Polyglot-Ko ("MBBPE") on clean documents.

    python -m tokenizer.train --input=documents --vocab_size=30000 --output=tokenizer.json

The one idea: MeCab is used in training only. Morphemes are joined with a marker at which the
training pre-tokenizer splits, so no merge ever crosses a morpheme; the written file has no marker
and needs no MeCab. Ids are those of the published tokenizer: four specials, 256 bytes, merges up to
vocab_size, then three PII tokens. What a builder adds comes after them: runs of whitespace, then
special tokens.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from absl import flags
from etils import epath
from tokenizers import Tokenizer
from tqdm import tqdm

from polyglot_jax import cli
from tokenizer import bpe, recipes, segment, selection
from tokenizer.recipes import Recipe

_LOG_SECONDS = 30.0


def write(
    inputs: Sequence[selection.Input],
    output: epath.PathLike,
    recipe: Recipe,
    *,
    weights: Mapping[str, float] | None = None,
    sample_bytes: int = 10**9,
    seed: int = 0,
    processes: int = 1,
) -> None:
    """Trains on documents; writes `output` and a `.meta.json` beside it.

    Raises:
      ValueError: as `bpe.check`, `selection.sizes` and `selection.rates`; `output` is a directory.
      OSError: `output` cannot be written.
    """
    output = epath.Path(output)
    if output.is_dir():
        raise ValueError(f"--output={output} is a directory; name the tokenizer.json to write")
    # What a language needs that is not there need not be installed.
    present = {i.language: recipe.segmenters[i.language] for i in inputs}
    recipe = dataclasses.replace(recipe, segmenters=present)
    output.parent.mkdir(parents=True, exist_ok=True)
    meta = output.with_suffix(".meta.json")
    temporaries = [path.with_name(f".{path.name}.tmp") for path in (meta, output)]
    try:
        # First: a place that cannot be written to is found before the work, not after it.
        for temporary in temporaries:
            temporary.touch()
        bpe.check(recipe)
        sizes = selection.sizes(inputs, processes)
        rates = selection.rates(sizes, weights or {}, recipe.alpha, sample_bytes)
        taken = round(sum(size.bytes * rates[key] for key, size in sizes.items()))
        corpus = Corpus(selection.take(inputs, rates, seed), taken)
        tokenizer = bpe.train(corpus, recipe, processes=processes)
        made_of = {"sample_bytes": sample_bytes, "seed": seed} | metadata(recipe, tokenizer, corpus)
        made_of["sources"] = [
            {"language": language, "source": source, **dataclasses.asdict(size), "rate": rate}
            for ((language, source), size), rate in zip(sizes.items(), rates.values(), strict=True)
        ]
        texts = (json.dumps(made_of, indent=2, ensure_ascii=False), tokenizer.to_str(pretty=True))
        for temporary, text in zip(temporaries, texts, strict=True):
            temporary.write_text(text + "\n" * (text is texts[0]), encoding="utf-8")
        for temporary, path in zip(temporaries, (meta, output), strict=True):
            temporary.replace(path)  # the tokenizer last: it makes the pair whole
    finally:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)
    if made_of["vocab_size"] < recipe.vocab_size:
        print(
            f"the text yields only {made_of['vocab_size']} ids of --vocab_size={recipe.vocab_size}:"
            " the tokenizer is smaller"
        )
    print(
        f"{output}: {tokenizer.get_vocab_size()} ids from {corpus.documents:,} documents, "
        f"{corpus.bytes / 1e6:,.1f} MB"
    )


class Corpus:
    """Iterates over documents once and knows afterwards what they were.

    Args:
      source: pairs of language and text.
      expected: about how many bytes they are.
    """

    def __init__(self, source: Iterable[tuple[str, str]], expected: int):
        self._source = source
        self._expected = expected
        self._hash = hashlib.sha256()
        self.documents = 0
        self.bytes = 0

    def __iter__(self) -> Iterator[tuple[str, str]]:
        logged = time.monotonic()
        with tqdm(
            total=self._expected, desc="segment", unit="B", unit_scale=True, disable=None
        ) as bar:
            for language, text in self._source:
                data = text.encode()
                self._hash.update(len(data).to_bytes(8, "little") + data)
                self.documents += 1
                self.bytes += len(data)
                bar.update(len(data))
                if bar.disable and time.monotonic() - logged > _LOG_SECONDS:
                    logged = time.monotonic()
                    print(
                        f"segment: {self.bytes / 1e6:,.0f} of {self._expected / 1e6:,.0f} MB",
                        file=sys.stderr,
                    )
                yield language, text
        print(f"{self.documents:,} documents read; merging", file=sys.stderr)

    def fingerprint(self) -> str:
        """Returns the sha256 of all texts so far, each after its length."""
        return self._hash.hexdigest()


def metadata(recipe: Recipe, tokenizer: Tokenizer, corpus: Corpus) -> dict[str, Any]:
    """Returns what it takes to make the same tokenizer again."""
    used = sorted(set(recipe.segmenters.values()))
    packages = ["tokenizers", *(name for s in used for name in segment.PACKAGES.get(s, ()))]
    return {
        "format": 2,
        # Smaller than the recipe's where the text yielded fewer merges.
        "vocab_size": tokenizer.token_to_id(bpe.PII_SPECIALS[0]),
        "marker": f"U+{ord(segment.MARKER):04X}",
        "documents": corpus.documents,
        "bytes": corpus.bytes,
        "sha256_of_texts": corpus.fingerprint(),
        "recipe": dataclasses.asdict(recipe),
        "packages": {name: importlib.metadata.version(name) for name in dict.fromkeys(packages)},
        "dictionaries": {
            name: {field: getattr(found, field) for field in ("package", "version", "sha256")}
            for name, found in segment.DICTIONARIES.items()
            if name in used
        },
    }


def recipe_of(values: Any) -> Recipe:
    """Returns the recipe that the flags name, with what other flags change of it.

    Raises:
      ValueError: an unknown recipe, language or segmenter.
    """
    recipes.check_name(values.recipe, recipes.RECIPES, "--recipe")
    recipe = recipes.RECIPES[values.recipe]
    segmenters = dict(recipe.segmenters)
    for value in values.segmenter:
        language, _, name = value.rpartition("=")
        if language:
            recipes.check_name(language, segmenters, f"language in --segmenter={value}:")
        recipes.check_name(name, segment.SEGMENTERS, "--segmenter")
        segmenters.update(dict.fromkeys([language] if language else segmenters, name))
    fields = ("vocab_size", "alpha", "digits", "whitespace_runs", "nfc")
    changed = {name: values[name].value for name in fields if values[name].value is not None}
    return dataclasses.replace(
        recipe,
        segmenters=segmenters,
        unmarked=values.unmarked,
        special_tokens=tuple(values.special_token),
        **changed,
    )


def main() -> None:
    values = flags.FLAGS
    recipe = recipe_of(values)
    inputs = [selection.parse_input(value, list(recipe.segmenters)) for value in values.input]
    write(
        inputs,
        values.output,
        recipe,
        weights=selection.parse_weights(values.source),
        sample_bytes=values.sample_bytes,
        seed=values.seed,
        processes=values.processes,
    )


if __name__ == "__main__":
    flags.DEFINE_multi_string(
        "input",
        None,
        "Directory, file or glob of clean documents (Parquet, JSONL, text); LANGUAGE=PATTERN where "
        "the recipe has several languages. May be repeated.",
    )
    flags.DEFINE_string("output", None, "The tokenizer.json to write.")
    flags.DEFINE_string("recipe", "ko", f"One of {', '.join(recipes.RECIPES)}.")
    flags.DEFINE_integer(
        "vocab_size",
        None,
        "Most ids of specials, bytes and merges; three PII tokens, --whitespace_runs and "
        "--special_token come on top. Default: the recipe's (ko: 30000).",
    )
    flags.DEFINE_multi_string(
        "segmenter",
        [],
        f"One of {', '.join(segment.SEGMENTERS)}, or LANGUAGE=NAME; none is plain BPE. May be "
        "repeated. Default: the language's.",
    )
    flags.DEFINE_float(
        "unmarked",
        0.0,
        "Share of documents in which no morpheme is marked: 0 lets no merge cross a morpheme, 0.15 "
        "gives most of the shorter sequences of plain BPE.",
        lower_bound=0.0,
        upper_bound=1.0,
    )
    flags.DEFINE_multi_string(
        "source",
        [],
        "NAME=WEIGHT: take documents of this source so often (0.5: half of them, 2: each twice). "
        "The source is the document's field, or the name of its file. May be repeated.",
    )
    flags.DEFINE_integer(
        "sample_bytes",
        10**9,
        "Train on about this much of the weighted corpus; all of it where it is smaller.",
        lower_bound=1,
    )
    flags.DEFINE_integer("seed", 0, "Of the sample.")
    flags.DEFINE_float(
        "alpha",
        None,
        "A language's share of the sample is its share of the corpus to this power, made to sum to "
        "1. Default: the recipe's (ko: 1, the others 0.3).",
        lower_bound=0.0,
        upper_bound=1.0,
    )
    flags.DEFINE_bool("digits", None, "Each digit is a token. Default: the recipe's (ko: no).")
    flags.DEFINE_integer(
        "whitespace_runs",
        None,
        "Runs of 2 to so many blanks and newlines are tokens; 0 for none. Default: the recipe's "
        "(ko: 0, as published).",
        lower_bound=0,
        upper_bound=64,
    )
    flags.DEFINE_bool(
        "nfc",
        None,
        "Normalize the training text to NFC; the tokenizer itself changes no text. Default: the "
        "recipe's (ko: no).",
    )
    flags.DEFINE_multi_string(
        "special_token", [], "A special token of yours, such as <|user|>. May be repeated."
    )
    flags.DEFINE_integer(
        "processes", os.cpu_count(), "Processes that find morphemes.", lower_bound=1
    )
    flags.mark_flags_as_required(["input", "output"])
    cli.run(main)
