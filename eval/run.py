"""Measures models on tasks and shows them beside the published ones.

    python -m eval.run --model=DIR --tasks=kobest --shots=0,5,10,50 --output=OUT
    python -m eval.run --model=WORKDIR --follow --tasks=kobest_copa --output=OUT
    python -m eval.run --compare=OUT/results/A,OUT/results/B
    python -m eval.run --output=OUT

--model is an HF directory or WORKDIR[@STEP] of a training run, and may be given several times. What
is finished stays: run the same command again and it goes on. Without --model the report is written
anew from the results that are there. docs/evaluation.md says more.
"""

import time
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from etils import epath

from eval import compare, follow, page, tables, tasks
from eval.cache import Cache
from eval.describe import describe
from eval.measure import Conditions, key_of, measure
from eval.models import load
from eval.protocols import PROTOCOLS
from eval.request import Model
from eval.results import ModelInfo, Result, path_of, read, save
from eval.task import Task
from polyglot_jax import cli
from polyglot_jax.config import MeshConfig

Plan = Sequence[tuple[Task, Conditions]]


def main() -> None:
    values = flags.FLAGS
    if values.compare:
        compare.program(values.compare)
        return
    if not values.output:
        raise ValueError("give --output=DIR: where the results are, or are to be")
    output = epath.Path(values.output)
    if values.model:
        _measure(output)
    print(f"wrote {page.write(output)}")


def _measure(output: epath.Path) -> None:
    values = flags.FLAGS
    if not values.tasks:
        raise ValueError("give --tasks=NAME,..., such as --tasks=kobest")
    if values.follow and len(values.model) > 1:
        raise ValueError("--follow takes one --model=WORKDIR")
    if not values.follow:
        paths = [describe(path).path for path in values.model]  # before minutes of work
    plan = measurements(
        tasks.find(values.tasks),
        protocol=values.protocol,
        prompts=values.prompts,
        split=values.split,
        shots=shot_counts(values.shots),
        limit=values.limit,
        data=values.data,
    )
    for task, how in plan:
        how.questions(task)  # malformed data is told now, not after hours
    mesh = MeshConfig(fsdp=values.fsdp, tensor=values.tensor)
    cache = Cache(Path(output) / "requests.jsonl")

    def open_model(path: str) -> tuple[ModelInfo, Model]:
        info = describe(path)
        return info, load(info.path, backend=values.backend, dtype=values.dtype, mesh=mesh)

    if values.follow:
        for info, model in follow.checkpoints(epath.Path(values.model[0]), open_model):
            measure_all(model, info, plan, cache, output)
            page.write(output)
        return
    for path in paths:
        info, model = open_model(path)
        measure_all(model, info, plan, cache, output)


def shot_counts(words: Sequence[str]) -> list[int]:
    """Returns the numbers in --shots. Raises ValueError for a word that is none."""
    for word in words:
        if not word.isdecimal():
            raise ValueError(f"--shots={','.join(words)}: {word!r} is not a number of shots")
    return sorted({int(word) for word in words})


def measurements(
    chosen: Sequence[Task],
    *,
    protocol: str,
    prompts: Sequence[str],
    split: str,
    shots: Sequence[int],
    limit: int | None,
    data: str | None,
) -> list[tuple[Task, Conditions]]:
    """Returns all combinations, in the order in which they are measured.

    A task is asked with those of the prompts that it has, equal ones once; running text has no
    shots.

    Raises:
      ValueError: a task has none of the prompts, or a prompt is of no task; the protocol is
        unknown.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"no protocol {protocol!r}; there are {', '.join(PROTOCOLS)}")
    there = {name.partition("/")[0] for task in chosen for name in task.prompts}
    for prompt in prompts:
        if prompt not in there:
            raise ValueError(
                f"these tasks have no prompt {prompt!r}, only: {', '.join(sorted(there))}"
            )
    plan = []
    for task in chosen:
        plan += [
            (task, Conditions(PROTOCOLS[protocol], prompt, split, count, limit, data))
            for prompt in _prompts_of(task, prompts, protocol)
            for count in ([0] if task.kind == "text" else shots)
        ]
    return plan


def _prompts_of(task: Task, prompts: Sequence[str], protocol: str) -> list[str]:
    """Returns those that the task has, and of two names for one prompt the first."""
    there = {name.partition("/")[0] for name in task.prompts}
    known = [prompt for prompt in prompts if prompt in there] or prompts[:1]
    first = {id(task.prompt(name, protocol)): name for name in reversed(known)}
    return [name for name in known if name in first.values()]


def measure_all(
    model: Model, info: ModelInfo, plan: Plan, cache: Cache, output: epath.Path
) -> list[Result]:
    """Measures what is not measured yet, writes each result when it is finished, returns all.

    Raises:
      ValueError: see `measure`; what was finished before stays.
    """
    found = []
    for task, how in plan:
        asked = how.questions(task)
        path = path_of(output, key_of(model, task, how, asked), info)
        if path.exists():
            result, note = read(path), "measured before"
        else:
            start = time.monotonic()
            result = measure(model, info, task, how, asked, cache)
            save(path, result)
            note = f"{time.monotonic() - start:.0f} s"
        kind = "" if how.prompt == "original" else f", {how.prompt} prompt"
        print(
            f"{tables.label(result)}: {task.name}{kind}, {how.shots} shots: {result.headline} "
            f"{tables.score_of(result)} ({len(asked):,} questions, {note})",
            flush=True,
        )
        found.append(result)
    return found


if __name__ == "__main__":
    flags.DEFINE_multi_string(
        "model", [], "HF directory, or WORKDIR[@STEP] of a training run; repeatable."
    )
    flags.DEFINE_list("tasks", [], "Names of tasks or groups, such as kobest,klue,nsmc.")
    flags.DEFINE_list("shots", ["0"], "Numbers of solved examples before each question.")
    flags.DEFINE_string("protocol", "polyglot-2023", "How to ask: polyglot-2023 or lm-eval.")
    flags.DEFINE_list("prompts", ["original"], "Prompts of tasks that have several: modified.")
    flags.DEFINE_string("split", "test", "The split to measure: test or dev.")
    flags.DEFINE_string("data", None, "Folder of the tasks' files; the Hugging Face hub if absent.")
    flags.DEFINE_integer("limit", None, "The first so many questions only.", lower_bound=1)
    flags.DEFINE_string("output", None, "Where the results and the report are, or are to be.")
    flags.DEFINE_enum("backend", "auto", ["auto", "jax", "torch"], "What runs the model.")
    flags.DEFINE_enum("dtype", None, ["float32", "bfloat16"], "To compute in.")
    flags.DEFINE_integer("fsdp", 1, "Devices that share the weights of a model.", lower_bound=1)
    flags.DEFINE_integer("tensor", 1, "Devices that share each layer's work.", lower_bound=1)
    flags.DEFINE_bool("follow", False, "Measure each checkpoint of WORKDIR until the run ends.")
    flags.DEFINE_list("compare", [], "Two folders of results, each of one model: B against A.")
    cli.run(main)
