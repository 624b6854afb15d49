"""Rows of a benchmark's split: from its release, from an export of its hub copy, or from the hub."""

from dataclasses import dataclass

from eval.task import Row, Task


@dataclass(frozen=True)
class Split:
    """The rows of a split."""

    rows: tuple[Row, ...]
    files: tuple[str, ...]  # what they were read from
    sha256: str  # of the rows
    duplicates: tuple[tuple[int, int], ...]  # (a row, the earlier row that it repeats)


def read(task: Task, directory: str | None, split: str) -> Split:
    """Returns a split ("train", "dev", "test") of a task."""
    raise NotImplementedError
