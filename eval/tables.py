"""Rows of published and own results side by side, and the difference where there is one.

Only what was measured as the published numbers were (test split, protocol polyglot-2023, all
questions) is subtracted from them.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from eval import published
from eval.results import Result, to_markdown

Group = tuple[str, str, str, str, int | None]  # task, prompt, protocol, split, limit
Row = list[Any]

METRIC_NAMES = {
    "macro_f1": "macro-F1",
    "macro_f1_norm": "macro-F1, length-normalised",
    "acc": "accuracy",
    "acc_norm": "accuracy, length-normalised",
    "bits_per_byte": "bits per byte",
}
LOWER_IS_BETTER = ("bits_per_byte", "byte_perplexity", "word_perplexity", "invalid_rate")
MARKS = (
    "(= answer): the score of giving that one answer to every question; the published cells so "
    "marked equal it to the last digit. (?): probably a copy error in the source. whole shots "
    "left: how many, on average, survived where contexts longer than the model lost their left "
    "end. ± is one bootstrap standard error."
)


def markdown(results: Sequence[Result]) -> str:
    """Returns the tables of tasks in Markdown."""
    parts = [
        f"## {title(group)}\n\n{to_markdown(*task_table(group, of_group))}"
        for group, of_group in groups(newest(distinct(results))).items()
    ]
    return "# Results\n\n" + "\n".join(parts) + f"\n{MARKS}\n"


def newest(results: Iterable[Result]) -> list[Result]:
    """Leaves out all but the newest checkpoint of each run, per task and number of shots."""
    kept: dict[Any, Result] = {}
    for r in results:
        who = (r.model.run or r.key.model, r.key.engine)
        place = (who, group_of(r), r.key.shots)
        if place not in kept or (r.model.step or 0) >= (kept[place].model.step or 0):
            kept[place] = r
    return list(kept.values())


def best(results: Sequence[Result]) -> list[Result]:
    """Returns the best of several results and those within its standard error of it."""
    sign = -1 if results[0].headline in LOWER_IS_BETTER else 1
    top = max(results, key=lambda r: sign * r.value)
    return [r for r in results if sign * (top.value - r.value) <= top.stderr]


def task_table(group: Group, results: Sequence[Result]) -> tuple[list[str], list[Row]]:
    """Returns header and rows: published models, then ours with the difference below."""
    task, prompt = group[:2]
    metric = results[0].headline
    cells = [
        c for c in published.kobest() if (c.task, c.prompt, c.metric) == (task, prompt, metric)
    ]
    shots = sorted({c.shots for c in cells} | {r.key.shots for r in results})
    rows: list[Row] = []
    for model in dict.fromkeys(c.model for c in cells):
        by_shots = {c.shots: _published_cell(c) for c in cells if c.model == model}
        rows.append([model, *(by_shots.get(s, "") for s in shots)])
    for own in by_model(results).values():
        ours = {r.key.shots: r for r in own}
        rows.append([label(own[0]), *(score_of(ours[s]) if s in ours else "" for s in shots)])
        kept = [_kept_cell(ours[s]) if s in ours else "" for s in shots]
        if any(kept):
            rows.append(["— whole shots left", *kept])
        found = {s: delta for s, r in ours.items() if (delta := difference(r))}
        if found:
            name = next(iter(found.values())).published.model
            rows.append([f"— minus {name}", *(_signed(found.get(s)) for s in shots)])
    return [METRIC_NAMES.get(metric, metric), *(f"{s} shots" for s in shots)], rows


@dataclass(frozen=True)
class Delta:
    """A result minus the published cell that stands beside it."""

    published: published.Published
    value: float
    stderr: float  # of ours; the published ones have none


def difference(result: Result) -> Delta | None:
    """Returns how far a result is from the published one.

    That is of the model of the same name, else of the Polyglot-Ko of the nearest size. None where
    nothing was published, or was not measured so, or the cell is suspicious.
    """
    if not comparable(result):
        return None
    model = published.counterpart(result.model.name)
    if model is None and result.model.parameters:
        model = published.nearest_polyglot(result.model.parameters)
    k = result.key
    for c in published.kobest():
        same = (c.model, c.task, c.prompt, c.shots) == (model, k.task, k.prompt, k.shots)
        if same and c.metric == result.headline and not c.suspicious:
            return Delta(c, result.value - c.value, result.stderr)
    return None


def comparable(result: Result) -> bool:
    """Says whether a result was measured as the published ones were."""
    k = result.key
    return (k.protocol, k.split, k.limit) == (published.PROTOCOL, published.SPLIT, None)


def label(result: Result) -> str:
    step = "" if result.model.step is None else f" @ step {result.model.step:,}"
    return f"{result.model.name}{step}"


def _published_cell(cell: published.Published) -> str:
    digits = 3 if cell.prompt == "modified" or cell.metric == "acc" else 4
    answer = published.constant_answer(cell)
    mark = f" (= {answer})" if answer else " (?)" if cell.suspicious else ""
    return f"{cell.value:.{digits}f}{mark}"


def score_of(r: Result) -> str:
    """Returns the headline measure with its error; a constant answer is named."""
    text = f"{r.value:.4f} ± {r.stderr:.3f}"
    if r.constant is not None:
        text += f" (= {r.classes[r.constant] if r.classes else f'choice {r.constant + 1}'})"
    return text


def _kept_cell(r: Result) -> str:
    if r.shots_kept.get("min", r.key.shots) >= r.key.shots:
        return ""
    return f"{r.shots_kept['mean']:.1f} (least {r.shots_kept['min']:.0f})"


def _signed(found: Delta | None) -> str:
    return f"{found.value:+.4f} ± {found.stderr:.3f}" if found else ""


def group_of(r: Result) -> Group:
    return (r.key.task, r.key.prompt, r.key.protocol, r.key.split, r.key.limit)


def groups(results: Iterable[Result]) -> dict[Group, list[Result]]:
    """Returns the results that may stand in one table, by what they have in common."""
    found: dict[Group, list[Result]] = {}
    for r in results:
        found.setdefault(group_of(r), []).append(r)
    return found


def by_model(results: Iterable[Result]) -> dict[tuple[str, str], list[Result]]:
    """Returns the results of each model; computed otherwise, it counts as another one."""
    found: dict[tuple[str, str], list[Result]] = {}
    for r in sorted(results, key=lambda r: r.key.shots):
        found.setdefault((r.key.model, r.key.engine), []).append(r)
    return found


def distinct(results: Sequence[Result]) -> list[Result]:
    """Adds what tells models apart to the names of those that would look the same."""
    same = defaultdict(set)
    for r in results:
        same[label(r)].add((r.key.model, r.key.engine))

    def named(r: Result) -> Result:
        alike = same[label(r)]
        if len(alike) == 1:
            return r
        mark = r.key.model[:6] if len({model for model, _ in alike}) > 1 else r.key.engine
        return replace(r, model=replace(r.model, name=f"{r.model.name} ({mark})"))

    return [named(r) for r in results]


def title(group: Group) -> str:
    task, prompt, *conditions = group
    name = published.PAPER_NAMES.get(task, task)
    kind = "" if prompt == "original" else f", {prompt} prompt"
    return f"{name}{kind} ({words(conditions)})"


def words(conditions: Sequence[Any]) -> str:
    protocol, split, limit = conditions
    return f"{protocol}, {split} split" + ("" if limit is None else f", first {limit} questions")
