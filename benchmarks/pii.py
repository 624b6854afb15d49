"""Precision and recall of the masking of personal data on labelled lines.

    python -m benchmarks.pii [--held_out]

`pii_lines.jsonl` holds invented lines, `[[tel|010-1234-5678]]` around what must be found; `variant`
names the format. A fourth of them, chosen by hash, is held out: the rules were written without
looking at its failures, and only --held_out reads it. A span counts if start, end and type are
right. Exits with 1 where a type misses the targets.
"""

import collections
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from absl import flags

from polyglot_jax import cli
from polyglot_jax.corpus import pii

LINES = Path(__file__).with_name("pii_lines.jsonl")
MIN_PRECISION, MIN_RECALL = 0.99, 0.98
_LABEL = re.compile(r"\[\[(\w+)\|(.*?)\]\]")


@dataclass(frozen=True)
class Line:
    """A labelled line: what it shows, its text, and the spans of personal data in it."""

    variant: str
    text: str
    spans: frozenset[pii.Span]
    held_out: bool


def parse(variant: str, labelled: str) -> Line:
    """Reads a text with `[[type|value]]` labels."""
    text, spans, done = "", set(), 0
    for match in _LABEL.finditer(labelled):
        text += labelled[done : match.start()]
        spans.add((len(text), len(text) + len(match[2]), match[1]))
        text += match[2]
        done = match.end()
    text += labelled[done:]
    digest = hashlib.sha256(text.encode()).digest()
    return Line(variant, text, frozenset(spans), digest[0] % 4 == 0)


def lines(path: Path = LINES) -> list[Line]:
    """Reads the labelled lines."""
    rows = (json.loads(row) for row in path.read_text(encoding="utf-8").splitlines())
    return [parse(row["variant"], row["text"]) for row in rows]


@dataclass
class Score:
    """How many spans of a type were right, wrongly found, and missed."""

    right: int = 0
    wrong: int = 0
    missed: int = 0

    @property
    def precision(self) -> float:
        return self.right / max(1, self.right + self.wrong)

    @property
    def recall(self) -> float:
        return self.right / max(1, self.right + self.missed)


def score(chosen: list[Line]) -> tuple[dict[str, Score], list[str]]:
    """Returns the score of each type and the lines that are not as labelled."""
    scores: dict[str, Score] = collections.defaultdict(Score)
    failures = []
    for line in chosen:
        found = set(pii.find(line.text, pii.TYPES))
        for _, _, type in found & line.spans:
            scores[type].right += 1
        for _, _, type in found - line.spans:
            scores[type].wrong += 1
        for _, _, type in line.spans - found:
            scores[type].missed += 1
        if found != line.spans:
            masked, _ = pii.mask(line.text, pii.TYPES)
            failures.append(f"{line.variant}: {line.text!r} -> {masked!r}")
    return scores, failures


def main() -> None:
    """Prints the scores of the lines and those that fail."""
    held_out = flags.FLAGS.held_out
    chosen = [line for line in lines() if line.held_out == held_out]
    scores, failures = score(chosen)
    print(f"{len(chosen)} lines, {'held out' if held_out else 'tuned on'}")
    print(f"{'type':10}{'spans':>6}{'wrong':>6}{'missed':>7}{'precision':>10}{'recall':>8}")
    for type in pii.TYPES:
        row = scores[type]
        spans = row.right + row.missed
        print(
            f"{type:10}{spans:6}{row.wrong:6}{row.missed:7}{row.precision:10.3f}{row.recall:8.3f}"
        )
    print(*failures, sep="\n")
    if low := [
        t for t in pii.TYPES if scores[t].precision < MIN_PRECISION or scores[t].recall < MIN_RECALL
    ]:
        raise ValueError(
            f"below precision {MIN_PRECISION} or recall {MIN_RECALL}: {', '.join(low)}"
        )


if __name__ == "__main__":
    flags.DEFINE_boolean("held_out", False, "Score the held-out quarter instead of the rest.")
    cli.run(main)
