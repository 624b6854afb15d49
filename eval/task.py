"""What a benchmark is: where its rows are, how one becomes a question, and how answers are judged.

A task knows no tokens and no model. Its rows have the fields of the benchmark's copy on the Hugging
Face hub, whatever file they were read from (`eval.data`); a `Prompt` makes text of a row; a
protocol (`eval.protocols`) adds the shots and makes ids of the text.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Row = Mapping[str, Any]  # a row of a benchmark, by the field names of its hub copy
Parse = Callable[[Any], Any]  # a cell to a field's value; raises ValueError saying what is wanted


@dataclass(frozen=True)
class Field:
    """A field of a row, and its name and meaning in the benchmark's own release."""

    name: str
    parse: Parse
    column: str | None = None  # its name in the release, if another
    parse_column: Parse | None = None  # its meaning in the release, if another


@dataclass(frozen=True)
class Source:
    """Where a task's rows are and what is in them."""

    fields: tuple[Field, ...]
    words: tuple[str, ...]  # a file is of this source if its path below --data has one of these
    hub: str | None = None  # name on the Hugging Face hub
    config: str | None = None
    # The names that "test", "dev" and "train" have in files and on the hub; "*" is any name.
    splits: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: {
            "train": ("train",),
            "dev": ("dev", "validation", "valid"),
            "test": ("test",),
        }
    )
    documents: bool = False  # a .txt file is one document, not a table
    expand: Callable[[Row], Sequence[Row]] | None = None  # several questions of one row


@dataclass(frozen=True)
class Prompt:
    """How a row becomes a context and what may follow it.

    What is scored is `delimiter + choice`; a shot is `context + shot_delimiter + target`. Where
    text is generated, the choices are the answers that it may give.
    """

    context: Callable[[Row], str]
    choices: Callable[[Row], tuple[str, ...]]
    target: Callable[[Row], str] | None = None  # of a shot; None is the right choice
    delimiter: str = " "
    shot_delimiter: str = " "


@dataclass(frozen=True)
class Question:
    """A row, rendered: what a model is asked."""

    task: str
    row: int  # its number in the split, from 0
    context: str  # the shots and the row's own text
    choices: tuple[str, ...]  # each with the delimiter before it; () where text is generated
    lengths: tuple[int, ...] = ()  # characters of each choice without the delimiter
    gold: int | None = None  # the right one
    options: tuple[str, ...] = ()  # where text is generated: the answers that a judge looks for
    shots: tuple[int, ...] = ()  # numbers of the rows of the shot split, as they stand in the text
    shot_starts: tuple[int, ...] = ()  # characters of the context before each of them
    extra: Mapping[str, str] = field(default_factory=dict)  # to group by
    stop: tuple[str, ...] = ()
    max_new_tokens: int = 0


def _no_extra(row: Row) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True)
class Task:
    """A benchmark, or a part of one that has a number of its own."""

    name: str
    title: str
    version: int  # part of every result; a change of prompt, data or metric raises it
    source: Source
    # By name, "original" first. "NAME/PROTOCOL" is NAME as it is under that protocol alone.
    prompts: Mapping[str, Prompt]
    metrics: tuple[str, ...]  # names in `eval.metrics.METRICS`, the main one first
    kind: Literal["choice", "generate", "text"] = "choice"
    gold: Callable[[Row], int | None] = lambda row: None
    labels: tuple[str, ...] = ()  # what the choices stand for, where all rows have the same
    shots_from: Literal["train", "same"] = "train"  # "same": the split itself, but for the row
    extra: Callable[[Row], Mapping[str, str]] = _no_extra
    # Of generation tasks: the class that the completion names, None where it names none.
    judge: Callable[[Question, str], int | None] | None = None
    stop: tuple[str, ...] = ()
    max_new_tokens: int = 0

    def prompt(self, name: str, protocol: str) -> Prompt:
        """Returns a prompt by name. Raises ValueError naming those that there are."""
        found = self.prompts.get(f"{name}/{protocol}") or self.prompts.get(name)
        if found is None:
            names = ", ".join(n for n in self.prompts if "/" not in n)
            raise ValueError(f"{self.name} has no prompt {name!r}, only: {names}")
        return found
