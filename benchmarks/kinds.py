"""How well the rules for kinds of documents tell hate speech, and what they say of other data.

    python -m benchmarks.kinds --labelled=train.tsv,dev.tsv [--documents='law/*.jsonl.gz,...']

`labelled` are files of Korean HateSpeech (BEEP!, Moon et al. 2020; columns comments,
contain_gender_bias, bias, hate). `documents` are JSON lines with a `text`; of each file the share
of every kind is printed. The terms were chosen with the train file in sight: dev is the honest one.
"""

import collections
import glob
import gzip
import json
from collections.abc import Iterator
from pathlib import Path

from absl import flags

from polyglot_jax import cli
from polyglot_jax.corpus import kinds


def rows(path: Path) -> Iterator[str]:
    """Yields the lines of a text file, packed or not."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as file:
        yield from (line.rstrip("\n") for line in file)


def hate_scores(path: Path) -> dict[str, float]:
    """Returns precision and recall of "hate" against the label, and against offensive as well."""
    labelled = [row.split("\t") for row in rows(path)][1:]
    found = {i for i, row in enumerate(labelled) if kinds.label(row[0])[0] == "hate"}
    scores = {"comments": float(len(labelled)), "found": float(len(found))}
    for name, wanted in (("hate", {"hate"}), ("hate_or_offensive", {"hate", "offensive"})):
        true = {i for i, row in enumerate(labelled) if row[3] in wanted}
        scores[f"precision_{name}"] = len(found & true) / max(1, len(found))
        scores[f"recall_{name}"] = len(found & true) / max(1, len(true))
    return scores


def shares(path: Path) -> collections.Counter[str]:
    """Returns how many documents of a file are of each kind."""
    return collections.Counter(kinds.label(json.loads(row)["text"])[0] for row in rows(path))


def main() -> None:
    """Prints the scores of each labelled file and the kinds of each file of documents."""
    for name in flags.FLAGS.labelled:
        scores = ", ".join(f"{key} {value:.3g}" for key, value in hate_scores(Path(name)).items())
        print(f"{Path(name).name}: {scores}")
    for path in (path for pattern in flags.FLAGS.documents for path in sorted(glob.glob(pattern))):
        counts = shares(Path(path))
        told = ", ".join(f"{kind} {counts[kind] / counts.total():.1%}" for kind in kinds.KINDS)
        print(f"{Path(path).name}: {counts.total()} documents, {told}")


if __name__ == "__main__":
    flags.DEFINE_list("labelled", [], "TSV files of Korean HateSpeech, packed or not.")
    flags.DEFINE_list("documents", [], "Globs of JSON lines files with a text field.")
    cli.run(main)
