"""The numbers that others published, and what a constant answer would have scored.

The files and their sources are described in eval/published/README.md. Tasks have the names of the
KOBEST paper here; `PAPER_NAMES` gives those of ours.
"""

import csv
import functools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "published"
PAPER_NAMES = {
    "kobest_boolq": "BoolQ",
    "kobest_copa": "COPA",
    "kobest_hellaswag": "HellaSwag",
    "kobest_sentineg": "SentiNeg",
    "kobest_wic": "WiC",
}
# What the paper's comparison is made with: its test split, its protocol.
PROTOCOL, SPLIT = "polyglot-2023", "test"


@dataclass(frozen=True)
class Published:
    """One published cell."""

    model: str
    task: str  # of ours
    prompt: str
    shots: int
    metric: str
    value: float
    suspicious: bool  # probably a copy error, see the README of the files


@functools.cache
def kobest() -> tuple[Published, ...]:
    """Returns the cells of the model cards and the report, in their order of models."""
    ours = {paper: name for name, paper in PAPER_NAMES.items()}
    return tuple(
        Published(
            model=row["model"],
            task=ours[row["task"]],
            prompt=row["prompt"],
            shots=int(row["shots"]),
            metric=row["metric"],
            value=float(row["value"]),
            suspicious=row["note"] == "suspicious",
        )
        for row in _rows("kobest.csv")
    )


@functools.cache
def right_answers() -> dict[str, dict[str, int]]:
    """Returns {task: {answer: how many questions of the test split it is right for}}."""
    counts: dict[str, dict[str, int]] = {}
    for name, paper in PAPER_NAMES.items():
        rows = [row for row in _rows("labels.csv") if row["task"] == paper]
        counts[name] = {row["answer"]: int(row["count"]) for row in rows}
    return counts


def constant_f1(count: int, total: int, classes: int) -> float:
    """Returns the macro-F1 of always giving one answer, right `count` times of `total`.

    Its own class has precision count / total and recall 1; the F1 of all others is 0.
    """
    return 2 * count / (count + total) / classes


def constant_answer(cell: Published) -> str | None:
    """Returns the answer that, given always, scores this very macro-F1; None if there is none."""
    if not cell.metric.startswith("macro_f1"):
        return None
    counts = right_answers()[cell.task]
    total = sum(counts.values())
    for answer, count in counts.items():
        # published with four digits, or three
        if abs(constant_f1(count, total, len(counts)) - cell.value) < 0.00006:
            return answer
    return None


@functools.cache
def training_tokens() -> dict[str, int]:
    """Returns {model: tokens it was trained on} for the models of which it is known."""
    return {row["model"]: int(row["tokens"]) for row in _rows("models.csv")}


@functools.cache
def training_flops() -> dict[str, float]:
    """Returns {model: 6 N D} for the same models."""
    return {
        row["model"]: 6.0 * int(row["parameters"]) * int(row["tokens"])
        for row in _rows("models.csv")
    }


def counterpart(name: str) -> str | None:
    """Returns the published model that a directory's name says it is a copy of.

    >>> counterpart("models--EleutherAI--polyglot-ko-1.3b")
    'EleutherAI/polyglot-ko-1.3b'
    """
    plain = _plain(name)
    for model in dict.fromkeys(cell.model for cell in kobest()):
        short = _plain(model.split("/")[1])
        if plain == short or plain.endswith(_plain(model)):
            return model
    return None


def nearest_polyglot(parameters: int) -> str:
    """Returns the Polyglot-Ko model whose size is nearest, by ratio."""
    sizes = {row["model"]: int(row["parameters"]) for row in _rows("models.csv")}
    return min(sizes, key=lambda model: abs(math.log(parameters / sizes[model])))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _rows(name: str) -> Iterator[dict[str, str]]:
    with (FOLDER / name).open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)
