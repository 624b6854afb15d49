"""Cleans raw text files into Parquet documents.

    python -m polyglot_jax.corpus --input='raw/*.jsonl.gz' --input=wiki.parquet --output=documents

Reads JSONL and Parquet with a `text` field, plain text (.txt: a document per block of lines between
blank lines) and Markdown (.md, .mdx: a document per file); .gz of all but Parquet. Documents whose
id, or else file name, ends in .md or .mdx are cleaned as Markdown.
"""

from absl import flags

from polyglot_jax import cli
from polyglot_jax.corpus import pipeline


def main() -> None:
    values = flags.FLAGS
    report = pipeline.run(
        values.input, values.output, source=values.source, min_chars=values.min_chars
    )
    counts = ", ".join(f"{name} {n}" for name, n in report["counts"].items())
    print(f"{values.output}: {counts}")
    if report["counts"]["rejected"]:
        print(f"rejected lines are listed in {values.output}/rejects.jsonl")


if __name__ == "__main__":
    flags.DEFINE_multi_string(
        "input",
        None,
        "Glob, file or directory; may be repeated. JSONL or Parquet with a text field; .txt, a "
        "document per block between blank lines; .md, a document per file.",
    )
    flags.DEFINE_string("output", None, "Directory of Parquet documents to make.")
    flags.DEFINE_string(
        "source",
        None,
        "Source of documents that name none (default: the name of their file; of text files, of "
        "their folder).",
    )
    flags.DEFINE_integer("min_chars", 50, "Drop shorter documents.", lower_bound=1)
    flags.mark_flags_as_required(["input", "output"])
    cli.run(main)
