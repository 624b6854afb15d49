"""Is run B better than run A? A paired bootstrap over the questions that both were asked.

    python -m eval.run --compare=OUT/results/A,OUT/results/B

Each folder holds the results of one model. Only measurements of the very same questions, shots
included, are paired: the two models then err on the same items, and the error of the difference is
much smaller than the errors of the scores would suggest.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from etils import epath

from eval import tasks
from eval.metrics import RESAMPLES, Difference, Outcome, compare
from eval.results import Key, Result, read_all, to_markdown

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Pair:
    """The same questions, asked of both models."""

    a: Result
    b: Result
    measure: str
    difference: Difference  # B minus A
    adjusted_p: float  # Holm's correction for all pairs of one comparison


def program(folders: Sequence[str]) -> None:
    """Prints the comparison of two folders. Raises ValueError if they cannot be compared."""
    if len(folders) != 2:
        raise ValueError(f"--compare={','.join(folders)}: name two folders of results, A,B")
    a, b = (of_one_model(epath.Path(folder)) for folder in folders)
    pairs = compare_runs(a, b)
    print(f"A: {_name(a[0])}\nB: {_name(b[0])}\n")
    print(to_markdown(*table(pairs)))
    left_out = len(a) + len(b) - 2 * len(pairs)
    if left_out:
        print(f"{left_out} results have no partner: other tasks, shots, prompts or questions")


def of_one_model(folder: epath.Path) -> list[Result]:
    """Returns a folder's results. Raises ValueError unless they are of one model."""
    if not folder.is_dir():
        raise ValueError(f"no folder {folder}; results are in OUTPUT/results/MODEL")
    results = read_all(folder)
    if not results:
        raise ValueError(f"no results in {folder}; they are in OUTPUT/results/MODEL")
    models = {r.key.model: r for r in results}
    if len(models) > 1:
        names = ", ".join(sorted(_name(r) for r in models.values()))
        raise ValueError(f"{folder} holds results of {len(models)} models ({names}): name one's")
    return results


def compare_runs(a: Iterable[Result], b: Iterable[Result]) -> list[Pair]:
    """Returns the comparisons of all measurements that two models share.

    Raises:
      ValueError: they share none, or a run has two results of the same questions.
    """
    of_a, of_b = _by_questions(a), _by_questions(b)
    shared = [(of_a[questions], one) for questions, one in of_b.items() if questions in of_a]
    if not shared:
        raise ValueError("the two runs share no measurement of the same questions and shots")
    found = []
    for one, other in shared:
        (task,) = tasks.find([one.key.task])
        differences = compare(task, _outcomes(one), _outcomes(other))
        found.append((one, other, one.headline, differences[one.headline]))
    adjusted = holm([difference.p_value for *_, difference in found])
    return [Pair(*pair, p) for pair, p in zip(found, adjusted, strict=True)]


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values that hold for all of several tests at once.

    Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def table(pairs: Iterable[Pair]) -> tuple[list[str], list[list[Any]]]:
    """Returns header and rows, a row per measurement."""
    rows = [
        [
            *(p.a.key.task, p.a.key.prompt, p.a.key.shots, len(p.a.items), p.measure),
            *(f"{p.a.measures[p.measure]['value']:.4f}", f"{p.b.measures[p.measure]['value']:.4f}"),
            f"{p.difference.value:+.4f} ± {p.difference.stderr:.4f}",
            *(_p(p.difference.p_value), _p(p.adjusted_p)),
            "yes" if p.adjusted_p < SIGNIFICANT else "no",
        ]
        for p in pairs
    ]
    header = [
        *("task", "prompt", "shots", "questions", "measure", "A", "B", "B − A"),
        *("p", "p, all tests", "significant"),
    ]
    return header, rows


def _p(value: float) -> str:
    smallest = 2 / RESAMPLES  # what a bootstrap can tell from none
    return f"{value:.4f}" if value >= smallest else f"< {smallest:.4f}"


def _by_questions(results: Iterable[Result]) -> dict[Key, Result]:
    """Returns the results by what was asked, whoever was asked."""
    found: dict[Key, Result] = {}
    for one in results:
        questions = dataclasses.replace(one.key, model="", engine="")
        if questions in found:
            engines = sorted((found[questions].key.engine, one.key.engine))
            raise ValueError(
                f"{_name(one)}: {one.key.task}, {one.key.shots} shots, was measured by two engines "
                f"({', '.join(engines)}); move the results of one away"
            )
        found[questions] = one
    return found


def _outcomes(result: Result) -> list[Outcome]:
    names = [field.name for field in dataclasses.fields(Outcome)]
    return [Outcome(**{name: _frozen(item[name]) for name in names}) for item in result.items]


def _frozen(value: Any) -> Any:
    """JSON has lists where an outcome has tuples."""
    return tuple(value) if isinstance(value, list) else value


def _name(result: Result) -> str:
    step = "" if result.model.step is None else f" @ step {result.model.step:,}"
    return f"{result.model.name}{step} ({result.key.model}, {result.key.engine})"
