"""Cleans raw text files into Parquet documents (docs/corpus.md).

    python -m polyglot_jax.corpus --input='raw/*.jsonl.gz' --input=wiki.parquet --output=documents
    python -m polyglot_jax.corpus --sources=sources.toml --output=gs://bucket/documents \
        --runner=ray --ray_address=auto --near_duplicates=0.8 --held_out='kobest/*/*.tsv'
    python -m polyglot_jax.corpus --explain=raw/web.jsonl.gz:17

Reads JSONL, Parquet, Arrow and Hugging Face data sets with a text field, plain text (.txt: a
document per block of lines between blank lines), Markdown and HTML (a document per file); .gz and
.zst of all but tables. Killed, the same command goes on and ends in the same bytes.
"""

import dataclasses
import os

from absl import flags

from polyglot_jax import cli
from polyglot_jax.corpus import (
    explain,
    kinds,
    options,
    pipeline,
    plan,
    readers,
    rules,
    runner,
    sources,
)
from polyglot_jax.corpus.plan import Job


def main() -> None:
    values = flags.FLAGS
    fields = readers.Fields(text=values.text_field, id=values.id_field, source=values.source_field)
    base = rules.ORIGINAL if values.filters == "original" else rules.Options()
    base = dataclasses.replace(base, min_chars=values.min_chars)
    cleaning = options.parse(values.set, base)
    if values.explain:
        print(explain.explain(values.explain, cleaning, fields))
        return
    if not values.input and not values.sources:
        raise ValueError("nothing to read: pass --input or --sources")
    if not values.output:
        raise ValueError("nowhere to write: pass --output")
    inputs = sources.find(values.input, values.sources, source=values.source, fields=fields)
    held_out = [str(f) for pattern in values.held_out for f in readers.find_any(pattern)]
    job = Job(
        work="",
        options=cleaning,
        whole=values.text_documents == "file",
        boilerplate=values.boilerplate,
        classifier=values.classifier,
        drop_kinds=tuple(values.drop_kind),
        route_kinds=tuple(values.route_kind),
        near_duplicates=values.near_duplicates,
        shingles=values.shingles,
        held_out=tuple(held_out),
        remove_contaminated=values.remove_contaminated,
        unit_bytes=plan.unit_bytes(inputs),
    )
    report = pipeline.run(
        inputs,
        values.output,
        job,
        name=values.runner,
        processes=values.processes,
        ray_address=values.ray_address,
        max_rejects=values.max_rejects,
    )
    counts = ", ".join(f"{name} {n:,}" for name, n in report["counts"].items())
    print(f"{values.output}: {counts}")
    if report["counts"]["rejected"]:
        print(f"rejected lines are listed in {values.output}/rejects")


if __name__ == "__main__":
    flags.DEFINE_multi_string(
        "input",
        [],
        "Glob, file, directory or hf:NAME[:SPLIT[:CONFIG]]; may be repeated. JSONL, Parquet or "
        "Arrow with a text field; .txt, a document per block between blank lines; .md and .html, a "
        "document per file.",
    )
    flags.DEFINE_string(
        "sources", None, "TOML or JSON file of sources: name, input, weight, licence, category."
    )
    flags.DEFINE_string("output", None, "Directory of Parquet documents to make.")
    flags.DEFINE_string(
        "source",
        None,
        "Source of documents that name none (default: the name of their file; of text files, of "
        "their folder).",
    )
    flags.DEFINE_string(
        "explain",
        None,
        "FILE:LINE of a document: print what each rule does to it, and nothing else.",
    )
    flags.DEFINE_string("text_field", "text", "Field or column of the text.")
    flags.DEFINE_string("id_field", "id", "Field or column of the id.")
    flags.DEFINE_string("source_field", "source", "Field or column of the source.")
    flags.DEFINE_enum(
        "text_documents", "block", ["block", "file"], "What is a document of a .txt file."
    )
    flags.DEFINE_integer("min_chars", 50, "Drop shorter documents.", lower_bound=1)
    flags.DEFINE_enum(
        "filters", "default", ["default", "original"], "Limits of documents: docs/rules.md."
    )
    flags.DEFINE_multi_string(
        "set", [], "A cleaning option, as min_hangul_share=0.25 or without=html."
    )
    flags.DEFINE_bool("boilerplate", True, "Drop lines that many documents of a source have.")
    flags.DEFINE_float(
        "near_duplicates",
        None,
        "Drop documents whose shingles have this Jaccard similarity with an earlier one's, as 0.8.",
        lower_bound=0.3,
        upper_bound=1.0,
    )
    flags.DEFINE_enum(
        "shingles", "characters", ["characters", "words"], "Near duplicates: 5 characters, 3 words."
    )
    flags.DEFINE_multi_string(
        "held_out", [], "Evaluation file or glob: documents that share 13 words are flagged."
    )
    flags.DEFINE_bool("remove_contaminated", False, "Drop the documents that --held_out flags.")
    flags.DEFINE_multi_enum("drop_kind", [], kinds.KINDS, "Drop documents of this kind.")
    flags.DEFINE_multi_enum(
        "route_kind", [], kinds.KINDS, "Write documents of this kind to OUTPUT/kind-NAME."
    )
    flags.DEFINE_string("classifier", None, "module:function that labels kinds of texts instead.")
    flags.DEFINE_integer(
        "max_rejects", None, "Stop if more lines are no documents (default: never).", lower_bound=0
    )
    flags.DEFINE_enum("runner", "local", runner.RUNNERS, "What runs the tasks.")
    flags.DEFINE_integer(
        "processes", os.cpu_count(), "Worker processes of the local runner.", lower_bound=1
    )
    flags.DEFINE_string("ray_address", None, "Of a Ray cluster; default: one of this machine.")
    cli.run(main)
