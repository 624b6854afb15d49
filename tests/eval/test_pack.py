"""Pieces, rows and batches: nothing lost, nothing too long, few shapes, little padding."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval import pack
from eval.request import Request


def request(context: int, *choices: int, first: int = 1) -> Request:
    """A request of these lengths whose ids all differ, counted from `first`."""
    ids = iter(range(first, first + context + sum(choices)))
    take = lambda n: tuple(next(ids) for _ in range(n))  # noqa: E731
    return Request(take(context), tuple(take(n) for n in choices))


def pieces_of(batches: list[pack.Batch]) -> list[pack.Piece]:
    return sorted(piece for batch in batches for row in batch.rows for piece in row)


def test_choices_share_their_context() -> None:
    assert list(pack.split(3, request(10, 1, 4, 2), 64)) == [pack.Piece(3, (0, 1, 2), 10, 14)]


def test_choices_with_unequal_contexts_are_split() -> None:
    pieces = list(pack.split(0, request(60, 1, 4, 5, 5, 9), 64))
    assert [(piece.choices, piece.kept) for piece in pieces] == [
        ((0, 1), 60),
        ((2,), 60),
        ((3,), 60),
        ((4,), 56),
    ]
    assert max(piece.size for piece in pieces) <= 64


def test_the_longest_choice_keeps_one_token_of_context() -> None:
    assert list(pack.split(0, request(60, 64), 64)) == [pack.Piece(0, (0,), 1, 64)]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (Request((), ((1,),)), "request 1: empty context"),
        (Request((1,), ((2,), ())), "request 1: choice 1 is empty"),
        (request(3, 1, 65), "request 1: choice 1 has 65 tokens, more than the 64"),
    ],
)
def test_what_cannot_be_scored_is_named(bad: Request, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pack.plan([request(5, 2), bad], 64, batch_tokens=256)


lengths = st.lists(
    st.tuples(st.integers(1, 100), st.lists(st.integers(1, 64), max_size=5)), max_size=30
)


@given(lengths, st.integers(1, 3))
def test_every_choice_is_packed_once_and_fits(sizes: list, multiple: int) -> None:
    requests = [request(context, *choices) for context, choices in sizes]
    batches = pack.plan(requests, 64, batch_tokens=200, row_multiple=multiple)
    found = [(piece.request, i) for piece in pieces_of(batches) for i in piece.choices]
    assert sorted(found) == [(n, i) for n, r in enumerate(requests) for i in range(len(r.choices))]
    for batch in batches:
        assert len(batch.rows) % multiple == 0
        assert all(sum(piece.size for piece in row) <= batch.columns for row in batch.rows)


def test_few_shapes_and_little_padding() -> None:
    rng = np.random.default_rng(0)
    mixed = [*rng.normal(700, 120, 300), *rng.normal(110, 10, 300), *rng.normal(460, 40, 300)]
    requests = [request(max(8, int(n)), 2, 2) for n in mixed]
    batches = pack.plan(requests, 2048, batch_tokens=2048)
    columns = sum(batch.columns * len(batch.rows) for batch in batches)
    assert len({(batch.columns, len(batch.rows)) for batch in batches}) <= 8
    assert sum(piece.size for piece in pieces_of(batches)) > 0.93 * columns


def test_row_lengths() -> None:
    lengths = pack.row_lengths(2048)
    assert (lengths[0], lengths[-1], len(lengths)) == (64, 2048, 41)
    assert lengths == sorted(set(lengths))
    assert pack.row_lengths(64) == [64]
    assert pack.row_lengths(20) == [20]


def test_arrays_of_a_batch() -> None:
    one, two = request(3, 1, 3, first=10), request(2, 2, first=50)
    batch = pack.Batch(10, ((pack.Piece(0, (0, 1), 3, 5), pack.Piece(1, (0,), 1, 2)), ()))
    packed = pack.build(batch, [one, two])
    assert packed.tokens_BT.tolist() == [[10, 11, 12, 14, 15, 51, 52, 0, 0, 0], [0] * 10]
    assert packed.positions_BT[0].tolist() == [0, 1, 2, 3, 4, 0, 1, 0, 0, 0]
    assert packed.piece_BT[0].tolist() == [1, 1, 1, 1, 1, 2, 2, 0, 0, 0]
    assert packed.choice_BT[0].tolist() == [0, 0, 0, 2, 2, 0, 1, 0, 0, 0]
    assert packed.scored_U.tolist() == [2, 3, 4, 5, 6]
    assert packed.target_P.tolist() == [13, 14, 15, 16, 52, 53]
    assert packed.column_P.tolist() == [0, 0, 1, 2, 3, 4]
    assert packed.owner_P == ((0, 0), (0, 1), (0, 1), (0, 1), (1, 0), (1, 0))


def test_the_head_gets_all_targets_in_parts() -> None:
    from eval.score import head_parts

    requests = [Request((1,), tuple((i,) for i in range(40))), request(20, 9, 9, 1)]
    (batch,) = pack.plan(requests, 64, batch_tokens=64)
    packed = pack.build(batch, requests)
    parts = list(head_parts(packed, 8))
    assert all(len(scored) <= 8 and len(targets) <= 16 for scored, targets, _ in parts)
    columns = np.concatenate([scored[of] for scored, _, of in parts])
    np.testing.assert_array_equal(columns, packed.scored_U[packed.column_P])
    np.testing.assert_array_equal(np.concatenate([t for _, t, _ in parts]), packed.target_P)
