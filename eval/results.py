"""What a finished measurement leaves behind: one JSON file with everything needed to repeat it.

OUTPUT/results/MODEL/TASK-...-KEY.json appears under its name only when it is whole. KEY is a digest
of all that decides the numbers (`Key`), so another option, another text of a prompt or another
model never overwrites a result and is never taken for one; docs/evaluation.md lists the fields.
"""

import csv
import dataclasses
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from etils import epath

from polyglot_jax import files

FORMAT_VERSION = 1
PLACES = ("results/*/*.json", "*/*.json", "*.json")


@dataclass(frozen=True)
class Key:
    """All that decides a result."""

    model: str  # content hash
    engine: str  # what computed it, and how precisely
    task: str
    task_version: int
    protocol: str
    protocol_version: int
    prompt: str  # "original" or "modified"
    split: str
    shots: int
    limit: int | None  # questions, None for all
    questions: str  # digest of every rendered question with its choices, gold and shots

    def digest(self) -> str:
        """Returns 12 hexadecimal digits."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class ModelInfo:
    """Which model, as a reader needs to know it."""

    name: str
    path: str
    run: str | None = None  # name of the training run it is a checkpoint of
    step: int | None = None  # of that run
    parameters: int | None = None
    tokens: int | None = None  # trained on

    @property
    def flops(self) -> float | None:
        """6 N D, if both are known."""
        if self.parameters is None or not self.tokens:
            return None
        return 6.0 * self.parameters * self.tokens


@dataclass(frozen=True)
class Result:
    """One model on one task with one number of shots."""

    key: Key
    model: ModelInfo
    measures: dict[str, dict[str, float]]  # name: {"value", "stderr"}
    headline: str  # the measure that tables and figures show
    classes: list[str]  # the answers to choose from; [] where every question has its own
    shots_kept: dict[str, float]  # {"mean", "min"}: whole shots left after truncation
    seeds: dict[str, int]
    example: dict[str, Any]  # the first question as it was rendered
    items: list[dict[str, Any]]  # per question: row, gold, prediction, log_probs, shots, ...
    provenance: dict[str, Any]  # git_commit, versions
    format_version: int = FORMAT_VERSION

    @property
    def value(self) -> float:
        """The headline measure."""
        return self.measures[self.headline]["value"]

    @property
    def stderr(self) -> float:
        return self.measures[self.headline]["stderr"]

    @property
    def constant(self) -> int | None:
        """The index of the answer that was given to every question; None if they differ, or
        answers are no choices."""
        given = {item["prediction"] for item in self.items}
        return given.pop() if len(given) == 1 and len(self.items) > 1 and -1 not in given else None

    def right(self) -> dict[int, int]:
        """Returns {answer: how many questions it is right for}."""
        return dict(sorted(Counter(item["gold"] for item in self.items).items()))


def path_of(output: epath.Path, key: Key, model: ModelInfo) -> epath.Path:
    """Returns where a result belongs."""
    kind = "" if key.prompt == "original" else f"-{key.prompt}"
    limit = "" if key.limit is None else f"-first{key.limit}"
    stem = f"{key.task}{kind}-{key.protocol}-{key.split}-{key.shots}shot{limit}"
    folder = f"{_plain(model.name)}-{key.model[:8]}"
    return output / "results" / folder / f"{_plain(stem)}-{key.digest()}.json"


def save(path: epath.Path, result: Result) -> None:
    """Writes a result; it is whole or absent. Raises OSError if it cannot."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, json.dumps(dataclasses.asdict(result), ensure_ascii=False, indent=1) + "\n")


def read(path: epath.Path) -> Result:
    """Reads a result. Raises ValueError, naming the file, if it is none that this code reads."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content["format_version"]
        if version == FORMAT_VERSION:
            content["key"] = Key(**content["key"])
            content["model"] = ModelInfo(**content["model"])
            return Result(**content)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a result of eval.run: {error!r}") from None
    raise ValueError(
        f"{path} has format version {version}; this code reads version {FORMAT_VERSION}: use the "
        "code that wrote it, or measure again into another --output"
    )


def read_all(folder: epath.Path) -> list[Result]:
    """Returns the results of OUTPUT, OUTPUT/results or OUTPUT/results/MODEL.

    They are ordered by task, prompt, protocol, split, limit, run, step, model and shots.
    """
    paths = {path for pattern in PLACES for path in folder.glob(pattern) if _is_result(path)}
    return sorted(map(read, sorted(paths)), key=_order)


def _is_result(path: epath.Path) -> bool:
    return bool(re.search(r"-[0-9a-f]{12}\.json$", path.name)) and not path.name.startswith(".")


def _order(result: Result) -> tuple[Any, ...]:
    key, model = result.key, result.model
    return (
        *(key.task, key.prompt != "original", key.prompt, key.protocol, key.split),
        *(key.limit or 0, model.run or "", model.step or 0, model.name, key.model, key.shots),
    )


COLUMNS = (
    *("model", "step", "parameters", "tokens", "task", "prompt", "protocol", "split", "limit"),
    *("shots", "shots_kept_mean", "shots_kept_min", "items", "measure", "value", "stderr"),
    *("model_hash", "engine", "key"),
)


def to_csv(results: Iterable[Result]) -> str:
    """Returns one line per measure of each result."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for r in results:
        for name, measure in r.measures.items():
            writer.writerow(
                (
                    *(r.model.name, r.model.step, r.model.parameters, r.model.tokens),
                    *(r.key.task, r.key.prompt, r.key.protocol, r.key.split, r.key.limit),
                    *(r.key.shots, r.shots_kept.get("mean"), r.shots_kept.get("min")),
                    *(len(r.items), name, measure["value"], measure["stderr"]),
                    *(r.key.model, r.key.engine, r.key.digest()),
                )
            )
    return buffer.getvalue()


def to_markdown(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Returns a table for a README; a bar inside a cell is escaped."""
    lines = [list(header), ["---"] * len(header), *map(list, rows)]
    cells = ([str("" if c is None else c).replace("|", "\\|") for c in line] for line in lines)
    return "".join("| " + " | ".join(line) + " |\n" for line in cells)


def _plain(name: str) -> str:
    return re.sub(r"[^\w.+-]+", "_", name).strip("._") or "model"
