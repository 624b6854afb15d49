"""Requests to rows of tokens: several texts a row, and one context for all its choices.

A piece is a context with as many of a request's choices as keep the same part of it:

    context  c c c c c    choice 1  a a    choice 2  b b b
    position 0 1 2 3 4              5 6              5 6 7

A token sees the context of its piece and the tokens of its own choice before it, nothing else. The
last token of a choice is only predicted, so it takes no column, and a choice of one token takes
none at all. Pieces are packed into rows, and rows into batches of few shapes, so that a model is
compiled a few times only. Everything is planned on lengths; arrays are built batch by batch.
"""

import bisect
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from eval.request import Request

SHORTEST_ROW = 64  # columns
STEPS = 8  # row lengths in an octave: a ninth of a row is lost to rounding at most
NEW_SHAPE = 0.1  # a shape that is not compiled yet must be better by this part


class Piece(NamedTuple):
    """A part of a request that shares one context; `choices` are the numbers of its choices."""

    request: int
    choices: tuple[int, ...]
    kept: int  # tokens of the context, its last ones
    size: int  # columns


class Batch(NamedTuple):
    """Which pieces stand in which row, and the shape they are built in."""

    columns: int
    rows: tuple[tuple[Piece, ...], ...]


@dataclass(frozen=True)
class Packed:
    """Arrays of a batch, B rows of T columns, and what is scored.

    Token ids that follow a scored column are targets: U columns are scored, P targets follow.
    """

    tokens_BT: np.ndarray
    positions_BT: np.ndarray
    piece_BT: np.ndarray  # number of the piece in its row, from 1; 0 is padding
    choice_BT: np.ndarray  # number of the choice, from 1; 0 is context
    scored_U: np.ndarray  # indices into B * T
    target_P: np.ndarray  # token ids
    column_P: np.ndarray  # which of U each target follows; rising
    owner_P: tuple[tuple[int, int], ...]  # (request, choice)


def check(requests: Sequence[Request], max_length: int) -> None:
    """Raises ValueError as `eval.request.Model.score` says.

    At least one token of context has to be left to predict the first of a choice.
    """
    for number, request in enumerate(requests):
        if not request.context:
            raise ValueError(
                f"request {number}: empty context; begin it with the end-of-text token"
            )
        for i, choice in enumerate(request.choices):
            if not choice:
                raise ValueError(f"request {number}: choice {i} is empty")
            if len(choice) > max_length:
                raise ValueError(
                    f"request {number}: choice {i} has {len(choice)} tokens, more than the "
                    f"{max_length} that the model can see"
                )


def split(number: int, request: Request, max_length: int) -> Iterator[Piece]:
    """Yields the pieces of a request, none of more than max_length columns."""
    by_kept: dict[int, list[int]] = defaultdict(list)
    for i in range(len(request.choices)):
        by_kept[request.kept(i, max_length)].append(i)
    for kept, choices in by_kept.items():
        taken: list[int] = []
        size = kept
        for i in choices:
            more = len(request.choices[i]) - 1
            if taken and size + more > max_length:
                yield Piece(number, tuple(taken), kept, size)
                taken, size = [], kept
            taken.append(i)
            size += more
        yield Piece(number, tuple(taken), kept, size)


def row_lengths(longest: int) -> list[int]:
    """Returns the lengths a row may have, rising to `longest`.

    >>> row_lengths(200)
    [64, 72, 80, 88, 96, 104, 112, 120, 128, 144, 160, 176, 192, 200]
    """
    lengths, octave = [], SHORTEST_ROW
    while octave < longest:
        lengths += [octave + octave * i // STEPS for i in range(STEPS)]
        octave *= 2
    return [length for length in lengths if length < longest] + [longest]


def plan(
    requests: Sequence[Request],
    max_length: int,
    *,
    batch_tokens: int,
    row_multiple: int = 1,
    attention_weight: float = 1 / 4096,
) -> list[Batch]:
    """Returns the batches of all requests, the longest pieces first.

    Args:
      max_length: of the model, in tokens.
      batch_tokens: columns in a batch, about; at least one row is taken.
      row_multiple: of the number of rows.
      attention_weight: cost of one more column for each column of a row, of what a column costs.
    Raises:
      ValueError: see `check`.
    """
    check(requests, max_length)
    waiting: dict[int, list[Piece]] = defaultdict(list)
    for number, request in enumerate(requests):
        for piece in split(number, request, max_length):
            waiting[piece.size].append(piece)
    counts = {size: len(waiting[size]) for size in sorted(waiting)}
    lengths, used = row_lengths(max_length), set()
    batches = []
    while counts:
        longest = next(reversed(counts))
        best: tuple[float, int, list[list[int]]] | None = None
        for columns in lengths[bisect.bisect_left(lengths, longest) :]:
            if best is not None and columns > max(2 * longest, 8 * SHORTEST_ROW):
                break
            num_rows = max(1, batch_tokens // columns // row_multiple) * row_multiple
            filled = _fill(counts, columns, num_rows)
            cost = num_rows * columns * (1 + attention_weight * columns)
            cost /= sum(map(sum, filled))
            if columns not in used:
                cost *= 1 + NEW_SHAPE
            if best is None or cost < best[0]:
                best = (cost, columns, filled)
        assert best is not None
        _, columns, filled = best
        used.add(columns)
        for size in (size for row in filled for size in row):
            _take(counts, size)
        rows = tuple(tuple(waiting[size].pop() for size in row) for row in filled)
        batches.append(Batch(columns, rows))
    return batches


def _fill(counts: dict[int, int], columns: int, rows: int) -> list[list[int]]:
    """Returns the sizes of the pieces in each row: always the longest that still fits."""
    left = dict(counts)
    sizes = list(left)
    filled: list[list[int]] = [[] for _ in range(rows)]
    for row in filled:
        room = columns
        while (i := bisect.bisect_right(sizes, room)) > 0:
            size = sizes[i - 1]
            row.append(size)
            room -= size
            left[size] -= 1
            if left[size] == 0:
                del sizes[i - 1]
    return filled


def _take(counts: dict[int, int], size: int) -> None:
    counts[size] -= 1
    if counts[size] == 0:
        del counts[size]


def build(batch: Batch, requests: Sequence[Request]) -> Packed:
    """Returns the arrays of a batch."""
    B, T = len(batch.rows), batch.columns
    tokens, positions, piece_of, choice_of = np.zeros((4, B, T), np.int32)
    scored: list[int] = []
    targets: list[int] = []
    columns: list[int] = []
    owners: list[tuple[int, int]] = []

    def score(column: int, target: int, owner: tuple[int, int]) -> None:
        if not scored or scored[-1] != column:
            scored.append(column)
        targets.append(target)
        columns.append(len(scored) - 1)
        owners.append(owner)

    for b, row in enumerate(batch.rows):
        start = 0
        for number, piece in enumerate(row, 1):
            request = requests[piece.request]
            end = start + piece.kept
            tokens[b, start:end] = request.context[-piece.kept :]
            positions[b, start:end] = range(piece.kept)
            for i in piece.choices:
                score(b * T + end - 1, request.choices[i][0], (piece.request, i))
            for i in piece.choices:
                ids = request.choices[i]
                after = end + len(ids) - 1
                tokens[b, end:after] = ids[:-1]
                positions[b, end:after] = range(piece.kept, piece.kept + len(ids) - 1)
                choice_of[b, end:after] = i + 1
                for column, target in enumerate(ids[1:], b * T + end):
                    score(column, target, (piece.request, i))
                end = after
            piece_of[b, start:end] = number
            start = end
    return Packed(
        tokens, positions, piece_of, choice_of,
        np.array(scored, np.int32), np.array(targets, np.int32), np.array(columns, np.int32),
        tuple(owners),
    )  # fmt: skip
