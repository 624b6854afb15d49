"""The report: all results of an output folder as results.csv, results.md and index.html.

The published rows stand beside ours. Only what was measured as they were (test split, protocol
polyglot-2023, all questions) is subtracted from them.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from etils import epath
from markupsafe import Markup

from eval import figures, published
from eval.results import Result, read_all, to_csv, to_markdown
from polyglot_jax import report

Group = tuple[str, str, str, str, int | None]  # task, prompt, protocol, split, limit
Row = list[Any]

MARKS = (
    "(= answer): the score of giving that one answer to every question; the published cells so "
    "marked equal it to the last digit. (?): probably a copy error in the source. [n shots]: whole "
    "shots left, on average, after contexts longer than the model were cut from the left. ± is one "
    "bootstrap standard error."
)


def write(output: epath.Path) -> epath.Path:
    """Writes the three files from all results in an output folder; returns the page's path.

    Raises:
      ValueError: there are no results, or one cannot be read.
    """
    results = read_all(output)
    if not results:
        raise ValueError(f"no results in {output}: measure first, with --model and --tasks")
    report.write(output / "results.csv", to_csv(results))
    report.write(output / "results.md", markdown(results))
    return report.write(output / "index.html", html(results))


def markdown(results: Sequence[Result]) -> str:
    """Returns the tables of tasks in Markdown."""
    parts = [
        f"## {_title(group)}\n\n{to_markdown(*task_table(group, of_group))}"
        for group, of_group in _groups(newest(results)).items()
    ]
    return "# Results\n\n" + "\n".join(parts) + f"\n{MARKS}\n"


def html(results: Sequence[Result]) -> str:
    """Returns the whole page."""
    shown = newest(results)
    kobest = [r for r in shown if r.key.task in published.PAPER_NAMES]
    parts: list[Markup] = [_models(shown)]
    tables = [
        report.table(*task_table(group, of_group), caption=_title(group))
        for group, of_group in _groups(shown).items()
    ]
    parts.append(report.section("Scores", *_warnings(shown), *tables, MARKS))
    for conditions, own in _conditions(kobest).items():
        parts.append(_paper_figures(conditions, own))
    if differences := _differences(shown):
        parts.append(_delta_section(differences, shown))
    parts += [_learning(name, own) for name, own in _runs(results).items()]
    parts += [_all_measures(shown), _examples(shown), _provenance(shown)]
    return report.page("Evaluation of Korean language models", *parts)


def newest(results: Iterable[Result]) -> list[Result]:
    """Leaves out all but the newest checkpoint of each run, per task and number of shots."""
    kept: dict[Any, Result] = {}
    for r in results:
        same = r.model.run or r.key.model
        place = (same, _group(r), r.key.shots)
        if place not in kept or (r.model.step or 0) >= (kept[place].model.step or 0):
            kept[place] = r
    return list(kept.values())


def task_table(group: Group, results: Sequence[Result]) -> tuple[list[str], list[Row]]:
    """Returns header and rows: published models, then ours with the difference below."""
    task, prompt = group[:2]
    metric = results[0].headline
    cells = [c for c in published.kobest() if (c.task, c.prompt, c.metric) == (task, prompt, metric)]
    shots = sorted({c.shots for c in cells} | {r.key.shots for r in results})
    rows: list[Row] = []
    for model in dict.fromkeys(c.model for c in cells):
        by_shots = {c.shots: _published_cell(c) for c in cells if c.model == model}
        rows.append([model, *(by_shots.get(s, "") for s in shots)])
    for model in dict.fromkeys(r.key.model for r in results):
        own = {r.key.shots: r for r in results if r.key.model == model}
        first = next(iter(own.values()))
        rows.append([label(first), *(_own_cell(own[s]) if s in own else "" for s in shots)])
        pairs = {s: difference(r) for s, r in own.items()}
        if found := [pair for pair in pairs.values() if pair]:
            rows.append(
                [
                    f"  minus {found[0][0].model}",
                    *(_signed(pairs[s]) if pairs.get(s) else "" for s in shots),
                ]
            )
    return [figures.METRIC_NAMES.get(metric, metric), *(f"{s} shots" for s in shots)], rows


def difference(result: Result) -> tuple[published.Published, float, float | None] | None:
    """Returns the published cell beside a result, ours minus it, and the standard error of ours.

    None where nothing was published, or not so measured, or the cell is suspicious. The model is
    the one of the same name, else the Polyglot-Ko of the nearest size.
    """
    if not comparable(result):
        return None
    model = published.counterpart(result.model.name)
    if model is None and result.model.parameters:
        model = published.nearest_polyglot(result.model.parameters)
    for c in published.kobest():
        key = result.key
        same = (c.model, c.task, c.prompt, c.shots, c.metric) == (
            *(model, key.task, key.prompt, key.shots, result.headline),
        )
        if same and not c.suspicious:
            return c, result.value - c.value, result.stderr
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


def _own_cell(r: Result) -> str:
    text = f"{r.value:.4f}" + ("" if r.stderr is None else f" ± {r.stderr:.4f}")
    if r.constant is not None and r.classes:
        text += f" (= {r.classes[r.constant].strip()})"
    kept = r.shots_kept.get("mean", r.key.shots)
    return text if kept >= r.key.shots else f"{text} [{kept:.1f} shots]"


def _signed(pair: tuple[Any, float, float | None] | None) -> str:
    assert pair is not None
    return f"{pair[1]:+.4f}" + ("" if pair[2] is None else f" ± {pair[2]:.4f}")


def _group(r: Result) -> Group:
    return (r.key.task, r.key.prompt, r.key.protocol, r.key.split, r.key.limit)


def _groups(results: Iterable[Result]) -> dict[Group, list[Result]]:
    groups: dict[Group, list[Result]] = {}
    for r in results:
        groups.setdefault(_group(r), []).append(r)
    return groups


def _conditions(results: Iterable[Result]) -> dict[tuple[Any, ...], list[Result]]:
    found: dict[tuple[Any, ...], list[Result]] = {}
    for r in results:
        found.setdefault(_group(r)[2:], []).append(r)
    return found


def _title(group: Group) -> str:
    task, prompt, *conditions = group
    name = published.PAPER_NAMES.get(task, task)
    kind = "" if prompt == "original" else f", {prompt} prompt"
    return f"{name}{kind} ({_words(conditions)})"


def _words(conditions: Sequence[Any]) -> str:
    protocol, split, limit = conditions
    return f"{protocol}, {split} split" + ("" if limit is None else f", first {limit} questions")


def _warnings(results: Sequence[Result]) -> list[str]:
    if all(comparable(r) for r in results if r.key.task in published.PAPER_NAMES):
        return []
    return [
        "Some of our rows were not measured as the published ones were (test split, protocol "
        "polyglot-2023, all questions): look at each table's title before you compare."
    ]


def _models(results: Sequence[Result]) -> Markup:
    by_hash = {r.key.model: r for r in results}
    rows = [
        [
            *(label(r), _count(r.model.parameters), _count(r.model.tokens)),
            *("" if r.model.flops is None else f"{r.model.flops:.2e}", r.key.engine, name[:12]),
        ]
        for name, r in by_hash.items()
    ]
    header = ["model", "parameters", "trained tokens", "6ND", "computed by", "hash"]
    return report.section("Models measured", report.table(header, rows))


def _count(number: int | None) -> str:
    return "not known" if number is None else f"{number:,}"


def _paper_figures(conditions: tuple[Any, ...], own: Sequence[Result]) -> Markup:
    without = [label(r) for r in own if r.model.flops is None]
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
    return report.section(f"The paper's figures, ours: {_words(conditions)}", *parts)


def _differences(results: Sequence[Result]) -> list[tuple[str, float, float | None, str]]:
    colour = figures.colours(results)
    found = []
    for r in results:
        if pair := difference(r):
            name = _title(_group(r)).split(" (")[0]
            text = f"{name}, {r.key.shots} shots: {label(r)} − {pair[0].model.split('/')[1]}"
            found.append((text, pair[1], pair[2], colour[r.key.model]))
    return found


def _delta_section(
    differences: Sequence[tuple[str, float, float | None, str]], shown: Sequence[Result]
) -> Markup:
    note = (
        "A copy of a published model should lie within the band: the same questions leave only "
        "numerical differences. Other models stand beside the Polyglot-Ko of the nearest size, and "
        "the published value has an error of its own that was not published."
    )
    drawn = figures.deltas([d[:3] for d in differences], [d[3] for d in differences])
    return report.section(
        "Differences to the published numbers", note, report.image(drawn, "Ours minus published")
    )


def _runs(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Returns {run: results of its checkpoints} for the runs with more than one checkpoint."""
    runs: dict[str, list[Result]] = {}
    for r in results:
        if r.model.run is not None:
            runs.setdefault(r.model.run, []).append(r)
    return {name: own for name, own in runs.items() if len({r.model.step for r in own}) > 1}


def _learning(name: str, results: Sequence[Result]) -> Markup:
    by_task = {_title(group): own for group, own in _groups(results).items()}
    steps = sorted({r.model.step for r in results if r.model.step is not None})
    columns = list(dict.fromkeys((_title(_group(r)).split(" (")[0], r.key.shots) for r in results))
    cells = {
        (r.model.step, _title(_group(r)).split(" (")[0], r.key.shots): f"{r.value:.4f}"
        for r in results
    }
    rows = [[f"{step:,}", *(cells.get((step, *c), "") for c in columns)] for step in steps]
    header = ["step", *(f"{task}, {shots} shots" for task, shots in columns)]
    return report.section(
        f"Learning curve of {name}",
        report.image(figures.learning(by_task), f"Scores of the checkpoints of {name}"),
        report.table(header, rows),
    )


def _all_measures(results: Sequence[Result]) -> Markup:
    rows = [
        [
            *(label(r), _title(_group(r)), f"{r.key.shots}", name),
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
    for group, own in _groups(results).items():
        r = max(own, key=lambda r: -r.key.shots)
        lines = [f"{name}: {value}" for name, value in r.example.items()]
        parts.append(_folded(_title(group), Markup("<pre>{}</pre>").format("\n\n".join(lines))))
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
    rows = [list(pair) for pair in sorted(found)]
    return report.section(
        "How to repeat this",
        report.table(["code (git commit)", "packages"], rows),
        "results/ holds one JSON file per model, task and number of shots, with the seeds, a "
        "digest of every prompt, and the prediction and log-probabilities of every question; "
        "docs/evaluation.md describes it. Published numbers and sources: "
        "eval/published/README.md.",
    )
