"""The paper's three figures redrawn with any number of our models, and two it lacked.

Published series are blue (Polyglot-Ko, darker with size) and grey (others); ours are red, green...
with bars of one standard error. A dotted line marks the best score that a constant answer reaches.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, NullFormatter

from eval import published, tables
from eval.results import Result
from polyglot_jax import report

STYLES: dict[str, dict[str, Any]] = {
    "skt/ko-gpt-trinity-1.2B-v0.5": {"color": "#b0b0b0", "linestyle": ":"},
    "kakaobrain/kogpt": {"color": "#999999", "linestyle": "-."},
    "facebook/xglm-7.5B": {"color": "#808080", "linestyle": "--"},
    "EleutherAI/polyglot-ko-1.3b": {"color": "#9ecae1"},
    "EleutherAI/polyglot-ko-3.8b": {"color": "#6baed6"},
    "EleutherAI/polyglot-ko-5.8b": {"color": "#3182bd"},
    "EleutherAI/polyglot-ko-12.8b": {"color": "#08519c"},
}
COLOURS = ("#d62728", "#2ca02c", "#ff7f0e", "#9467bd", "#8c564b", "#e377c2", "#bcbd22")
PAPER_SHOTS = (0, 5, 10, 50)
# Task, prompt and metric of each panel, as the paper has them.
ORIGINAL = tuple(
    (task, "original", "macro_f1_norm" if task == "kobest_hellaswag" else "macro_f1")
    for task in published.PAPER_NAMES
)
APPENDIX = (("kobest_sentineg", "modified", "macro_f1"), ("kobest_wic", "original", "acc"))

Panel = tuple[str, str, str]
Who = tuple[str, str]  # model and engine


def colours(results: Iterable[Result]) -> dict[Who, str]:
    """Returns the colour of each of our models, the same in every figure of a page."""
    return {
        who: COLOURS[i % len(COLOURS)] for i, who in enumerate(dict.fromkeys(map(_who, results)))
    }


def of_panel(results: Iterable[Result], panel: Panel) -> dict[Who, list[Result]]:
    """Returns each model's results, in the order of shots, on a task that have the metric."""
    task, prompt, metric = panel
    return tables.by_model(
        r for r in results if (r.key.task, r.key.prompt) == (task, prompt) and metric in r.measures
    )


def _who(result: Result) -> Who:
    return result.key.model, result.key.engine


def few_shot(results: Sequence[Result], panels: Sequence[Panel], columns: int) -> Figure:
    """Draws score against shots, one panel per task, with the legend in the last place."""
    rows = -(-(len(panels) + 1) // columns)
    drawn, axes = _grid(rows, columns, width=4.2 * columns, height=3.6 * rows)
    shots = sorted({*PAPER_SHOTS, *(r.key.shots for r in results)})
    places = {count: place for place, count in enumerate(shots)}
    colour = colours(results)
    handles: dict[str, Any] = {}
    for axis, panel in zip(axes.flat, panels, strict=False):
        task, prompt, metric = panel
        for model, style in STYLES.items():
            cells = _cells(panel, model)
            if cells:
                xs = [places[cell.shots] for cell in cells]
                (line,) = axis.plot(xs, [c.value for c in cells], marker=".", zorder=2, **style)
                handles.setdefault(model, line)
                doubtful = [c for c in cells if c.suspicious]
                dots = axis.scatter(
                    [places[c.shots] for c in doubtful],
                    [c.value for c in doubtful],
                    **{"marker": "x", "color": "black", "zorder": 4, "s": 28},
                )
                if doubtful:
                    handles.setdefault("~suspicious (probably a copy error)", dots)
        for i, (who, own) in enumerate(of_panel(results, panel).items()):
            aside = 0.05 * i  # so that none hides another of equal scores
            shifted = [places[r.key.shots] + aside for r in own]
            line = _bars(axis, shifted, own, metric, color=colour[who])
            handles.setdefault(tables.label(own[0]), line)
        floor = _constant(results, panel)
        if floor is not None:
            line = axis.axhline(floor, color="black", linestyle=(0, (1, 2)), linewidth=1)
            handles["~best constant answer"] = line
        title = published.PAPER_NAMES.get(task, task)
        axis.set_title(title if prompt == "original" else f"{title}, {prompt} prompt")
        axis.set_ylabel(tables.METRIC_NAMES.get(metric, metric))
        axis.set_xlabel("shots")
        axis.set_xticks(list(places.values()), [str(count) for count in shots])
        axis.grid(alpha=0.25)
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    ordered = sorted(handles, key=lambda name: name.startswith("~"))
    axes.flat[len(panels)].legend(
        [handles[name] for name in ordered],
        [name.lstrip("~") for name in ordered],
        loc="center left",
        frameon=False,
        fontsize=9,
    )
    return drawn


def compute(results: Sequence[Result]) -> Figure:
    """Draws score against training compute 6ND, one panel per task, a mark per number of shots."""
    drawn, axes = _grid(2, 3, width=12.6, height=7.2)
    flops = published.training_flops()
    shots = sorted({*PAPER_SHOTS, *(r.key.shots for r in results)})
    mark = dict(zip(shots, itertools.cycle("os^Dvp*"), strict=False))
    shades = {0: "#9ecae1", 5: "#6baed6", 10: "#2171b5", 50: "#08306b"}
    colour = colours(results)
    handles: dict[str, Any] = {}
    for axis, panel in zip(axes.flat, ORIGINAL, strict=False):
        for count, shade in shades.items():
            cells = [
                cell for model in flops for cell in _cells(panel, model) if cell.shots == count
            ]
            xs, ys = [flops[c.model] for c in cells], [c.value for c in cells]
            (line,) = axis.plot(xs, ys, marker=mark[count], markersize=5, color=shade)
            handles[f"Polyglot-Ko, {count} shots"] = line
        for who, own in of_panel(results, panel).items():
            for r in own:
                if r.model.flops:
                    style = {"color": colour[who], "marker": mark[r.key.shots]}
                    line = _bars(axis, [r.model.flops], [r], panel[2], **style)
                    name = f"{tables.label(r)}, {r.key.shots} shots"
                    handles.setdefault(name, line)
        axis.set_xscale("log")
        axis.xaxis.set_minor_formatter(NullFormatter())
        low, high = axis.get_xlim()
        if high < 100 * low:  # else hardly a power of ten is in sight
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.xaxis.set_major_formatter("{x:.0e}")
        axis.set_title(published.PAPER_NAMES[panel[0]])
        axis.set_xlabel("training compute 6ND (FLOPs)")
        axis.set_ylabel(tables.METRIC_NAMES[panel[2]])
        axis.grid(alpha=0.25)
    axes.flat[-1].axis("off")
    axes.flat[-1].legend(
        list(handles.values()), list(handles), loc="center left", frameon=False, fontsize=9
    )
    return drawn


def deltas(results: Sequence[Result]) -> Figure:
    """Draws ours minus published with its standard error, one line per result that has one."""
    found = [(r, delta) for r in results if (delta := tables.difference(r))]
    drawn, axis = report.figure(width=9, height=1.2 + 0.22 * len(found))
    colour = colours(results)
    labels = []
    for y, (r, delta) in enumerate(found):
        style = {"fmt": "o", "color": colour[_who(r)], "markersize": 4, "capsize": 2}
        axis.errorbar(delta.value, y, xerr=delta.stderr, **style)
        task = tables.title(tables.group_of(r)).split(" (")[0]
        other = delta.published.model.split("/")[1]
        labels.append(f"{task}, {r.key.shots} shots: {tables.label(r)} − {other}")
        if y and found[y - 1][0].key.task != r.key.task:
            axis.axhline(y - 0.5, color="#bbbbbb", linewidth=0.8)
    axis.axvspan(-0.01, 0.01, color="#08519c", alpha=0.12, linewidth=0)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(found)), labels, fontsize=8)
    axis.set_ylim(len(found) - 0.5, -0.5)
    axis.set_xlabel("ours minus published; bars: one bootstrap standard error of ours; band: ±0.01")
    axis.grid(axis="x", alpha=0.25)
    return drawn


def learning(run: Mapping[str, Sequence[Result]]) -> Figure:
    """Draws the headline measure of each task against the steps of one run, a line per shots.

    Args:
      run: {task: results of the run's checkpoints}.
    """
    columns = min(3, len(run))
    rows = -(-len(run) // columns)
    drawn, axes = _grid(rows, columns, width=max(4.4 * columns, 6), height=3.4 * rows)
    for axis, (title, results) in zip(axes.flat, run.items(), strict=False):
        shots = sorted({r.key.shots for r in results})
        for i, count in enumerate(shots):
            own = sorted((r for r in results if r.key.shots == count), key=lambda r: _step(r))
            line = _bars(axis, [_step(r) for r in own], own, own[0].headline, color=COLOURS[i])
            line.set_label(f"{count} shots")
        if results[0].headline.startswith("macro_f1"):
            axis.axhline(_floor(results[0]), color="black", linestyle=(0, (1, 2)), linewidth=1)
        axis.set_title(title)
        axis.set_ylabel(tables.METRIC_NAMES.get(results[0].headline, results[0].headline))
        axis.set_xlabel("step")
        axis.grid(alpha=0.25)
        axis.legend(fontsize=8)
    for axis in axes.flat[len(run) :]:
        axis.axis("off")
    return drawn


def _grid(rows: int, columns: int, **size: float) -> tuple[Figure, Any]:
    """Returns an empty figure with room between its rows, and its axes [rows, columns]."""
    drawn, axes = report.figure(rows, columns, squeeze=False, **size)
    engine = drawn.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    engine.set(hspace=0.06)
    return drawn, axes


def _step(result: Result) -> int:
    assert result.model.step is not None
    return result.model.step


def _cells(panel: Panel, model: str) -> list[published.Published]:
    return [
        c for c in published.kobest() if (c.task, c.prompt, c.metric, c.model) == (*panel, model)
    ]


def _bars(axis: Any, xs: Sequence[float], own: Sequence[Result], metric: str, **style: Any) -> Any:
    values = [r.measures[metric]["value"] for r in own]
    errors = [r.measures[metric]["stderr"] for r in own]
    style = {"marker": "o", "markersize": 5, "linewidth": 2, "capsize": 3, "zorder": 3} | style
    return axis.errorbar(xs, values, yerr=errors, **style)


def _constant(results: Sequence[Result], panel: Panel) -> float | None:
    """Returns the best score of a constant answer, on our questions or else on the paper's."""
    own = [r for group in of_panel(results, panel).values() for r in group]
    if own:
        counts = list(own[0].right().values())
    else:
        counts = list(published.right_answers()[panel[0]].values())
    if panel[2] == "acc":
        return max(counts) / sum(counts)
    classes = len(published.right_answers()[panel[0]])
    return published.constant_f1(max(counts), sum(counts), classes)


def _floor(result: Result) -> float:
    """Returns the macro-F1 of the best constant answer."""
    counts = result.right().values()
    choices = len(result.classes) or len(result.items[0]["log_probs"])
    return published.constant_f1(max(counts), sum(counts), choices)
