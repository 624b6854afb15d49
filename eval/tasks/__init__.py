"""The benchmarks, one a file, and how to find them by name."""

import difflib
from collections.abc import Sequence

from eval.task import Task
from eval.tasks import (
    kobest_boolq,
    kobest_copa,
    kobest_hellaswag,
    kobest_sentineg,
    kobest_wic,
)

GROUPS: dict[str, tuple[Task, ...]] = {
    "kobest": (
        kobest_boolq.TASK,
        kobest_copa.TASK,
        kobest_hellaswag.TASK,
        kobest_sentineg.TASK,
        kobest_wic.TASK,
    ),
}
TASKS = {task.name: task for tasks in GROUPS.values() for task in tasks}


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
