"""Which checkpoints of a run are kept, and which of them a name means.

Nothing is stored for it beside the run's own record: the held-out bits per byte of a step are in
metrics.jsonl, so runs of any age have their @best. Only what a run cannot compute again, a tag such
as `before_plunge`, has a file of its own, WORKDIR/tags.json: {tag: step}.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from etils import epath

from polyglot_jax import files
from polyglot_jax.metrics import read_metrics

BEST, NEWEST = "best", "newest"  # names that are no tags
SINCE = "held_out/sources_since"  # of a record, see `data.held_out.sources_since`; 0 is left out


@dataclass(frozen=True)
class Keep:
    """Orbax's preservation policy of a run; what any of its parts keeps is kept."""

    newest: int = 1  # so many of the newest
    best: int | None = None  # so many of the lowest held-out bits per byte
    every: int | None = None  # steps that it divides, for good
    held_out: Callable[[], Mapping[int, float]] = dict  # bits per byte by step, see `scores`
    last_good: Callable[[], int] = int  # a step: the newest up to it, to go back to from a plunge
    tags: Callable[[], Mapping[str, int]] = dict

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        steps = [info.step for info in checkpoints]
        kept = set(steps[-self.newest :]) | set(self.tags().values())
        good = self.last_good()
        kept.update([step for step in steps if step <= good][-1:])
        kept.update(_ranked(steps, self.held_out())[: self.best or 0])
        kept.update(step for step in steps if self.every and step % self.every == 0)
        return [step in kept for step in steps]


def choose(workdir: epath.PathLike, steps: Sequence[int], name: str) -> int:
    """Returns the step that `name` means: a number, "newest", "best" or a tag.

    Args:
      steps: of the complete checkpoints, not empty.
    Raises:
      ValueError: there is none such; the line names those that there are.
    """
    if name.isdecimal():
        if int(name) in steps:
            return int(name)
        listed = ", ".join(map(str, sorted(steps)))
        raise ValueError(f"no checkpoint of step {name} in {workdir}; there are {listed}")
    if name == NEWEST:
        return max(steps)
    if name == BEST:
        if ranked := _ranked(steps, held_out(workdir)):
            return ranked[0]
        raise ValueError(
            f"{workdir}@best: no checkpoint of this run has a held-out loss in metrics.jsonl; "
            "name a step"
        )
    tags = read_tags(workdir)
    if name not in tags:
        known = ", ".join(["best", "newest", *sorted(tags)])
        raise ValueError(f"{workdir}@{name}: no such tag; after @ stands a step or one of: {known}")
    if tags[name] not in steps:
        raise ValueError(f"{workdir}@{name} is step {tags[name]}, which is no longer there")
    return tags[name]


def _ranked(steps: Sequence[int], scores: Mapping[int, float]) -> list[int]:
    """Returns the evaluated steps, the best first; of equals the later one, which saw more."""
    return sorted((s for s in steps if s in scores), key=lambda step: (scores[step], -step))


def held_out(workdir: epath.PathLike) -> dict[int, float]:
    """Returns the `scores` of a run. Converted weights have no record and so no value."""
    return scores(read_metrics(workdir)) if _has_record(workdir) else {}


def scores(records: Sequence[Mapping[str, float]]) -> dict[int, float]:
    """Returns the held-out bits per byte of the steps that were evaluated on the newest sources.

    What was evaluated on the held-out text of others, in earlier phases of the data plan, cannot be
    compared with it.
    """
    evaluations = [r for r in records if "held_out/bits_per_byte" in r]
    newest = max((r.get(SINCE, 0) for r in evaluations), default=0)
    of_newest = (r for r in evaluations if r.get(SINCE, 0) == newest)
    return {int(r["step"]): r["held_out/bits_per_byte"] for r in of_newest}


def read_tags(workdir: epath.PathLike) -> dict[str, int]:
    """Returns step by tag. Raises ValueError if the file is not what `tag` writes."""
    path = epath.Path(workdir) / "tags.json"
    if not path.exists():
        return {}
    try:
        tags = json.loads(path.read_text())
        if not all(type(step) is int for step in tags.values()):
            raise ValueError("a step is a number")
        if wrong := [name for name in tags if not _is_tag(name)]:
            raise ValueError(f"{wrong[0]!r} cannot be a tag")
    except (ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is not an object of tags and steps: {error}") from error
    return tags


def tag(workdir: epath.PathLike, name: str, step: int) -> None:
    """Gives a step a name, by which its checkpoint is kept; the name moves if it is taken.

    Raises:
      ValueError: the name is one of a step's or of this module's.
    """
    if not _is_tag(name):
        raise ValueError(f"{name!r} cannot be a tag: letters, digits and _, and not best or newest")
    tags = read_tags(workdir) | {name: step}
    files.write(epath.Path(workdir) / "tags.json", json.dumps(tags, indent=2), "\n")


def _is_tag(name: str) -> bool:
    return name.isidentifier() and name not in (BEST, NEWEST)


def names_of(
    workdir: epath.PathLike, steps: Sequence[int], damaged: Mapping[int, str]
) -> dict[int, list[str]]:
    """Returns for each step the names that mean it, and what is wrong with it.

    Args:
      damaged: what is wrong with those steps. They are neither best nor newest.
    """
    names: dict[int, list[str]] = {step: [] for step in steps}
    good = [step for step in steps if step not in damaged]
    if ranked := _ranked(good, held_out(workdir)):
        names[ranked[0]].append(f"@{BEST}")
    if good:
        names[max(good)].append(f"@{NEWEST}")
    for name, step in read_tags(workdir).items():
        if step in names:
            names[step].append(f"@{name}")
    for step, what in damaged.items():
        names[step].append(f"damaged: {what}")
    return names


COLUMNS = {  # of `overview`, by what metrics.jsonl calls them
    "train loss": "train/loss",
    "train bpb": "train/bits_per_byte",
    "held-out loss": "held_out/loss",
    "held-out bpb": "held_out/bits_per_byte",
    "repetition": "probe/repetition",
    "looping": "probe/looping",
}


def overview(workdir: epath.PathLike, names: Mapping[int, Sequence[str]]) -> str:
    """Returns a table of the checkpoints, with `names_of` them; what is not recorded is "-"."""
    records: dict[int, dict[str, float]] = {}
    for record in read_metrics(workdir) if _has_record(workdir) else []:
        records.setdefault(int(record["step"]), {}).update(record)
    lines = ["".join(f"{title:>15}" for title in ("step", "epoch", *COLUMNS))]
    for step in sorted(names):
        record = records.get(step, {})
        epochs = [value for name, value in record.items() if name.startswith("train/epoch/")]
        values = (max(epochs, default=None), *map(record.get, COLUMNS.values()))
        cells = [f"{step:,}", *("-" if v is None else f"{v:.4f}" for v in values)]
        lines.append("".join(f"{c:>15}" for c in cells) + "  " + " ".join(names[step]))
    return "\n".join(lines)


def draw(workdir: epath.PathLike, names: Mapping[int, Sequence[str]]) -> epath.Path:
    """Draws the checkpoints, with `names_of` them, on the held-out curve; returns where.

    Raises:
      ValueError: nothing of the run was evaluated.
      OSError: the workdir cannot be written.
    """
    from polyglot_jax import report

    scores = held_out(workdir)
    if not scores:
        raise ValueError("no held-out loss is recorded")
    drawn, axis = report.figure()
    axis.plot(*zip(*sorted(scores.items()), strict=True), label="held-out bits per byte")
    kept = [step for step in sorted(names) if step in scores]
    axis.plot(kept, [scores[step] for step in kept], "o", label="kept checkpoint")
    for step in kept:
        axis.annotate(
            "\n".join(names[step]), (step, scores[step]), (0, 8), textcoords="offset points"
        )
    axis.set_xlabel("step")
    axis.grid(alpha=0.3)
    axis.legend()
    return files.write(epath.Path(workdir) / "checkpoints.png", report.png(drawn))


def _has_record(workdir: epath.PathLike) -> bool:
    return (epath.Path(workdir) / "metrics.jsonl").exists()
