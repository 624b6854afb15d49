"""The benchmarks, one a file, and how to find them by name."""

from collections.abc import Sequence

from eval.task import Task


def find(names: Sequence[str]) -> list[Task]:
    """Returns the tasks of these names, those of groups included, each once, in order.

    Raises ValueError if a name is unknown; it gives the closest ones.
    """
    raise NotImplementedError
