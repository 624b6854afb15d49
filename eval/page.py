"""The report: all results of an output folder as results.csv, results.md and index.html.

The published rows stand beside ours. Only what was measured as they were (test split, protocol
polyglot-2023, all questions) is subtracted from them.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from etils import epath
from markupsafe import Markup

from eval import figures, published, tables
from eval.results import Result, read_all, to_csv
from polyglot_jax import files, report


def write(output: epath.Path) -> epath.Path:
    """Writes the three files from all results in an output folder; returns the page's path.

    Raises:
      ValueError: there are no results, or one cannot be read.
    """
    results = read_all(output)
    if not results:
        raise ValueError(f"no results in {output}: measure first, with --model and --tasks")
    files.write(output / "results.csv", to_csv(results))
    files.write(output / "results.md", tables.markdown(results))
    return files.write(output / "index.html", html(results))


def html(results: Sequence[Result]) -> str:
    """Returns the whole page."""
    results = tables.distinct(results)
    shown = tables.newest(results)
    kobest = [r for r in shown if r.key.task in published.PAPER_NAMES]
    parts: list[Markup] = [_models(shown)]
    scores = [_score_table(group, own) for group, own in tables.groups(shown).items()]
    parts.append(report.section("Scores", *_warnings(shown), *scores, tables.MARKS))
    for conditions, own in _conditions(kobest).items():
        parts.append(_paper_figures(conditions, own))
    if any(tables.difference(r) for r in shown):
        parts.append(_delta_section(shown))
    parts += [_learning(name, own) for name, own in _runs(results).items()]
    parts += [_all_measures(shown), _examples(shown), _provenance(shown)]
    return report.page("Evaluation of Korean language models", *parts)


def _score_table(group: tables.Group, results: Sequence[Result]) -> Markup:
    """Returns a table of scores, our models in bold, no cell in two lines."""
    header, rows = tables.task_table(group, results)
    ours = {tables.label(r) for r in results}
    for row in rows:
        if row[0] in ours:
            row[0] = Markup("<b>{}</b>").format(row[0])
    table = report.table(header, rows, caption=tables.title(group))
    return Markup('<div style="white-space: nowrap">{}</div>').format(table)


def _conditions(results: Iterable[Result]) -> dict[tuple[Any, ...], list[Result]]:
    found: dict[tuple[Any, ...], list[Result]] = {}
    for r in results:
        found.setdefault(tables.group_of(r)[2:], []).append(r)
    return found


def _warnings(results: Sequence[Result]) -> list[str]:
    if all(tables.comparable(r) for r in results if r.key.task in published.PAPER_NAMES):
        return []
    return [
        "Some of our rows were not measured as the published ones were, which always are of the "
        "test split, by protocol polyglot-2023, of all questions: look at each table's title "
        "before you compare."
    ]


def _models(results: Sequence[Result]) -> Markup:
    rows = [
        [
            *(tables.label(r), _count(r.model.parameters), _count(r.model.tokens)),
            *("" if r.model.flops is None else f"{r.model.flops:.2e}", r.key.engine, r.key.model),
        ]
        for r, *_ in tables.by_model(results).values()
    ]
    header = ["model", "parameters", "trained tokens", "6ND", "computed by", "hash"]
    return report.section("Models measured", report.table(header, rows))


def _count(number: int | None) -> str:
    return "not known" if number is None else f"{number:,}"


def _paper_figures(conditions: tuple[Any, ...], own: Sequence[Result]) -> Markup:
    without = [tables.label(r) for r in own if r.model.flops is None]
    parts: list[str] = [
        report.image(
            figures.few_shot(own, figures.ORIGINAL, 3), "Few-shot curves, original prompts"
        ),
        report.image(figures.compute(own), "Score against training compute"),
    ]
    if without:
        names = ", ".join(dict.fromkeys(without))
        parts.append(f"Not in the figure above, since its training tokens are not known: {names}.")
    parts.append(
        report.image(
            figures.few_shot(own, figures.APPENDIX, 3),
            "SentiNeg with the modified prompt, and WiC's accuracy",
        )
    )
    return report.section(f"The paper's figures, ours: {tables.words(conditions)}", *parts)


def _delta_section(shown: Sequence[Result]) -> Markup:
    note = (
        "A copy of a published model should lie within the band: the same questions leave only "
        "numerical differences. Other models stand beside the Polyglot-Ko of the nearest size, and "
        "the published value has an error of its own that was not published."
    )
    drawn = report.image(figures.deltas(shown), "Ours minus published")
    return report.section("Differences to the published numbers", note, drawn)


def _runs(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Returns {run: results of its checkpoints} for the runs with more than one checkpoint."""
    runs: dict[str, list[Result]] = {}
    for r in results:
        if r.model.run is not None:
            runs.setdefault(r.model.run, []).append(r)
    return {name: own for name, own in runs.items() if len({r.model.step for r in own}) > 1}


def _learning(name: str, results: Sequence[Result]) -> Markup:
    columns: dict[str, list[Result]] = {}
    for r in results:
        task = tables.title(tables.group_of(r)).split(" (")[0]
        columns.setdefault(f"{task}, {r.key.shots} shots", []).append(r)
    cells = {
        (r.model.step, title): f"{r.value:.4f}{' *' if r in tables.best(own) else ''}"
        for title, own in columns.items()
        for r in own
    }
    steps = sorted({r.model.step for r in results if r.model.step is not None})
    rows = [[f"{step:,}", *(cells.get((step, title), "") for title in columns)] for step in steps]
    by_task = {tables.title(group): own for group, own in tables.groups(results).items()}
    return report.section(
        f"Learning curve of {name}",
        report.image(figures.learning(by_task), f"Scores of the checkpoints of {name}"),
        report.table(["step", *columns], rows),
        "*: within one standard error of the column's best. Among these the choice is free.",
    )


def _all_measures(results: Sequence[Result]) -> Markup:
    rows = [
        [
            *(tables.label(r), tables.title(tables.group_of(r)), f"{r.key.shots}", name),
            *(_number(measure["value"]), _number(measure["stderr"]), f"{len(r.items):,}"),
        ]
        for r in results
        for name, measure in r.measures.items()
    ]
    header = ["model", "task", "shots", "measure", "value", "standard error", "questions"]
    return report.section("All measures", _folded("show", report.table(header, rows)))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _examples(results: Sequence[Result]) -> Markup:
    parts = []
    for group, own in tables.groups(results).items():
        r = max(own, key=lambda r: -r.key.shots)
        lines = [f"{name}: {value}" for name, value in r.example.items()]
        parts.append(
            _folded(tables.title(group), Markup("<pre>{}</pre>").format("\n\n".join(lines)))
        )
    return report.section("The first question of each task, as the model saw it", *parts)


def _folded(summary: str, content: Markup) -> Markup:
    return Markup("<details><summary>{}</summary>{}</details>").format(summary, content)


def _provenance(results: Sequence[Result]) -> Markup:
    found = {
        (
            r.provenance["git_commit"],
            ", ".join(f"{name} {version}" for name, version in r.provenance["versions"].items()),
        )
        for r in results
    }
    rows = [
        [Markup("<code>{}</code>").format(commit), packages] for commit, packages in sorted(found)
    ]
    return report.section(
        "How to repeat this",
        report.table(["code (git commit)", "packages"], rows),
        "results/ holds one JSON file per model, task and number of shots, with the seeds, a "
        "digest of every prompt, and the prediction and log-probabilities of every question; "
        "docs/evaluation.md describes it. Published numbers and sources: "
        "eval/published/README.md.",
    )
