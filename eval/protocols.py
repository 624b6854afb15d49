"""The two ways of asking KOBEST, by name: how shots are drawn and text becomes ids.

`polyglot-2023` is the branch of lm-evaluation-harness that the published tables of Polyglot-Ko come
from: rows shuffled with seed 42, shots drawn by the generator that shuffled them, context and
continuation encoded separately. `lm-eval` is today's lm-evaluation-harness (0.4.13): rows in order,
shots drawn with seed 1234, context and continuation encoded jointly after spaces that end the
context have moved to the continuation. Both draw fresh shots for each row.
"""

import functools
import itertools
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from etils import epath

from eval import data
from eval.request import Answer, Request, Tokenizer
from eval.task import Prompt, Question, Row, Task

SHOT_SEPARATOR = "\n\n"
Encode = Callable[[Tokenizer, str, Sequence[str]], tuple[list[int], list[list[int]]]]


@dataclass(frozen=True)
class Protocol:
    """A named way to make requests of a task's rows."""

    name: str
    version: int  # part of every result
    seed: int  # of Python's `random.Random`
    shuffled: bool  # the rows are shuffled first, and a limit takes the first of the shuffled ones
    encode: Encode  # (tokenizer, context, continuations) -> ids of each


def _encode_separately(
    tokenizer: Tokenizer, context: str, continuations: Sequence[str]
) -> tuple[list[int], list[list[int]]]:
    return tokenizer.encode(context), [tokenizer.encode(text) for text in continuations]


def _encode_jointly(
    tokenizer: Tokenizer, context: str, continuations: Sequence[str]
) -> tuple[list[int], list[list[int]]]:
    # The whole's ids may begin with others than the context's: lm-eval takes it as it comes.
    context_ids = tokenizer.encode(context.rstrip())
    whole_ids = [tokenizer.encode(context + text) for text in continuations]
    return context_ids, [ids[len(context_ids) :] for ids in whole_ids]


PROTOCOLS = {
    p.name: p
    for p in (
        Protocol("polyglot-2023", 1, seed=42, shuffled=True, encode=_encode_separately),
        Protocol("lm-eval", 1, seed=1234, shuffled=False, encode=_encode_jointly),
    )
}


def questions(
    task: Task,
    protocol: Protocol,
    directory: str | None,
    *,
    split: str = "test",
    shots: int = 0,
    prompt: str = "original",
    limit: int | None = None,
) -> list[Question]:
    """Returns the questions of a split, in the order in which the protocol asks them.

    Args:
      directory: where the task's files are; None takes them from the Hugging Face hub.
      shots: solved rows before each question.
      limit: the first so many questions only; their shots are those of the full run.
    Raises:
      ValueError: see `eval.data.read`; the task has no such prompt, or too few rows for the shots,
        or shots of a train split are wanted where the directory is one file.
    """
    template = task.prompt(prompt, protocol.name)
    found = data.read(task, directory, split)
    _report_repeats(found.files, found.duplicates)
    rows = found.rows
    rnd = random.Random(protocol.seed)
    order = list(range(len(rows)))
    if protocol.shuffled:
        rnd.shuffle(order)
    pool: Sequence[Row] = ()
    same = task.shots_from == "same" or split == "train"
    if shots:
        if not same and directory is not None and epath.Path(directory).is_file():
            raise ValueError(
                f"{directory} is one file, and shots of {task.name} come from the train split: "
                "name the folder of both"
            )
        pool = rows if same else data.read(task, directory, "train").rows
        if len(pool) < shots + same:
            raise ValueError(
                f"{task.name} has {len(pool)} rows to draw {shots} shots from; ask for fewer"
            )
    asked = []
    for number in order[:limit]:
        row = rows[number]
        drawn = _draw(rnd, pool, shots, row if same else None)
        asked.append(_render(task, template, number, row, [(i, pool[i]) for i in drawn]))
    return asked


@functools.cache  # said once, for however many numbers of shots the rows are read
def _report_repeats(files: tuple[str, ...], repeats: tuple[tuple[int, int], ...]) -> None:
    if repeats:
        shown = ", ".join(f"{later} is {earlier}" for later, earlier in repeats[:3])
        more = ", ..." if len(repeats) > 3 else ""
        print(
            f"{', '.join(files)}: {len(repeats)} rows repeat an earlier one, all are asked "
            f"(counted from 0: {shown}{more})",
            file=sys.stderr,
        )


def _draw(rnd: random.Random, pool: Sequence[Row], shots: int, asked: Row | None) -> list[int]:
    """Returns the numbers of the shots in the pool; rows equal to `asked` are no shots."""
    if not shots:
        return []
    if asked is None:
        return rnd.sample(range(len(pool)), shots)
    drawn = [i for i in rnd.sample(range(len(pool)), shots + 1) if pool[i] != asked][:shots]
    if len(drawn) < shots:  # the pool has several copies of the row
        drawn = rnd.sample([i for i, row in enumerate(pool) if row != asked], shots)
    return drawn


def _render(
    task: Task, prompt: Prompt, number: int, row: Row, shots: Sequence[tuple[int, Row]]
) -> Question:
    starts, context = [], ""
    for _, shot in shots:
        starts.append(len(context))
        context += prompt.context(shot) + prompt.shot_delimiter + _target(task, prompt, shot)
        context += SHOT_SEPARATOR
    answers = prompt.choices(row)
    choices = () if task.kind == "generate" else answers
    return Question(
        task=task.name,
        row=number,
        context=context + prompt.context(row),
        choices=tuple(prompt.delimiter + choice for choice in choices),
        lengths=tuple(map(len, choices)),
        gold=task.gold(row),
        options=answers if task.kind == "generate" else (),
        shots=tuple(i for i, _ in shots),
        shot_starts=tuple(starts),
        extra=task.extra(row),
        stop=task.stop,
        max_new_tokens=task.max_new_tokens,
    )


def _target(task: Task, prompt: Prompt, row: Row) -> str:
    if prompt.target is not None:
        return prompt.target(row)
    gold = task.gold(row)
    assert gold is not None, f"{task.name}: no right choice to show"
    return prompt.choices(row)[gold]


def request(
    protocol: Protocol, question: Question, tokenizer: Tokenizer, end_of_text: int
) -> Request:
    """Returns the ids of a question of kind "choice".

    A question whose context has no token, as one of spaces alone under `lm-eval`, is asked after
    `end_of_text`.
    Raises ValueError if a choice adds no token to its context.
    """
    context, choices = protocol.encode(tokenizer, question.context, question.choices)
    for text, ids in zip(question.choices, choices, strict=True):
        if not ids:
            raise ValueError(
                f"{question.task}, row {question.row}: {text!r} adds no token to its context"
            )
    return Request(tuple(context) or (end_of_text,), tuple(map(tuple, choices)))


def prompt_ids(question: Question, tokenizer: Tokenizer, end_of_text: int) -> tuple[int, ...]:
    """Returns the ids of the context of a generation task."""
    return tuple(tokenizer.encode(question.context)) or (end_of_text,)


def shots_kept(question: Question, asked: Request, answer: Answer, tokenizer: Tokenizer) -> int:
    """Returns how many whole shots left truncation spared, for the choice with the fewest."""
    lost = len(asked.context) - min(answer.context_kept)
    bounds = (*question.shot_starts, len(question.context))
    for gone, (start, end) in enumerate(itertools.pairwise(bounds)):
        if lost <= 0:
            return len(question.shots) - gone
        lost -= len(tokenizer.encode(question.context[start:end]))
    return 0
