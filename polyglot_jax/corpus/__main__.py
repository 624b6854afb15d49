"""Cleans raw text files into Parquet documents.

    python -m polyglot_jax.corpus --input='raw/*.jsonl.gz' --input=wiki.parquet --output=documents

Reads JSONL and Parquet with a `text` field and plain text files (one document each). Documents
whose id or file name ends in .md or .mdx are cleaned as Markdown.
"""

from absl import flags

from polyglot_jax import cli
from polyglot_jax.corpus import pipeline

_INPUT = flags.DEFINE_multi_string(
    "input", None, "Glob, file or directory; may be repeated.", required=True
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "Directory of Parquet documents to make.", required=True
)
_SOURCE = flags.DEFINE_string(
    "source", None, "Source of documents that name none (default: the name of their file)."
)
_MIN_CHARS = flags.DEFINE_integer("min_chars", 50, "Drop shorter documents.", lower_bound=1)


def main() -> None:
    report = pipeline.run(
        _INPUT.value, _OUTPUT.value, source=_SOURCE.value, min_chars=_MIN_CHARS.value
    )
    counts = ", ".join(f"{name} {n}" for name, n in report["counts"].items())
    print(f"{_OUTPUT.value}: {counts}")
    if report["counts"]["rejected"]:
        print(f"rejected lines are listed in {_OUTPUT.value}/rejects.jsonl")


if __name__ == "__main__":
    cli.run(main)
