"""The benchmarks, one a file, and how to find them by name."""

import difflib
from collections.abc import Sequence

from eval.task import Task
from eval.tasks import (
    gsm8k,
    haerae,
    klue,
    kobbq,
    kobest_boolq,
    kobest_copa,
    kobest_hellaswag,
    kobest_sentineg,
    kobest_wic,
    minimal_pairs,
    nsmc,
    text,
)

GROUPS = {
    "kobest": (
        kobest_boolq.TASK,
        kobest_copa.TASK,
        kobest_hellaswag.TASK,
        kobest_sentineg.TASK,
        kobest_wic.TASK,
    ),
    "klue": (klue.YNAT, klue.NLI, klue.STS, klue.RE),
    "haerae": haerae.TASKS,
}
_SINGLE = (
    nsmc.CHOICE,
    nsmc.GENERATE,
    kobbq.GENERATE,
    kobbq.CHOICE,
    gsm8k.TASK,
    minimal_pairs.TASK,
    text.TASK,
)
TASKS = {task.name: task for task in (*sum(GROUPS.values(), ()), *_SINGLE)}


def find(names: Sequence[str]) -> list[Task]:
    """Returns the tasks of these names, those of groups included, each once, in order.

    Raises ValueError if a name is unknown; it gives the closest ones.
    """
    found: dict[str, Task] = {}
    for name in names:
        if name not in GROUPS and name not in TASKS:
            known = [*GROUPS, *TASKS]
            close = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known
            raise ValueError(f"no task {name!r}; did you mean {', '.join(close)}?")
        found.update((task.name, task) for task in GROUPS.get(name) or (TASKS[name],))
    return list(found.values())
