"""Text to values: whatever a value prints as is read back, and no text breaks the reader."""

import json
from dataclasses import dataclass

import hypothesis
import pytest
from hypothesis import strategies as st

from polyglot_jax import typed


@dataclass(frozen=True, kw_only=True)
class Leaf:
    number: int
    share: float = 1.0
    label: str | None = None


@dataclass(frozen=True, kw_only=True)
class Tree:
    leaves: tuple[Leaf, ...] = ()
    span: tuple[int, float] = (1, 2.0)


@hypothesis.given(st.integers())
def test_integers_read_back(value: int) -> None:
    assert typed.parse(int, str(value), "x") == value
    assert typed.parse(int | None, f"{value}", "x") == value


@hypothesis.given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_read_back(value: float) -> None:
    assert typed.parse(float, repr(value), "x") == value


@hypothesis.given(st.text())
def test_strings_are_taken_as_they_are(text: str) -> None:
    assert typed.parse(str, text, "x") == text


@hypothesis.given(st.text(max_size=30), st.sampled_from([int, float, bool, int | None, Tree]))
def test_any_text_is_a_value_or_a_value_error(text: str, kind: type) -> None:
    try:
        value = typed.parse(kind, text, "x")
    except ValueError:
        return
    assert isinstance(value, kind)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (bool, "True", True),
        (bool, "false", False),
        (int, "10_000", 10_000),
        (str, "none", "none"),
        (str | None, "None", None),
        (str | None, "null", None),
        (tuple[int, ...], "[1, 2, 3]", (1, 2, 3)),
        (tuple[int, float], "[1, 2]", (1, 2.0)),
        (Leaf, '{"number": 2}', Leaf(number=2)),
    ],
)
def test_parse(kind: object, text: str, value: object) -> None:
    read = typed.parse(kind, text, "x")
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"leaves": [{}]}, r"tree\.leaves\.0: missing key 'number'"),
        ({"leaves": [{"number": "3"}]}, r"tree\.leaves\.0\.number: expected int, got '3'"),
        ({"leaves": {"number": 3}}, r"tree\.leaves: expected a list"),
        ({"leaves": "abc"}, r"tree\.leaves: expected a list"),
        ({"leave": []}, r"tree: unknown key 'leave'; did you mean leaves\?"),
        ({"span": [1]}, r"tree\.span: expected 2 values"),
        ({"span": [1, True]}, r"tree\.span\.1: expected float, got True"),
        ({"leaves": [{"number": 1, "label": 3}]}, r"label: expected str, got 3"),
    ],
)
def test_build_names_the_place(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        typed.build(Tree, value, "tree")


def test_replace_at_reaches_into_tuples() -> None:
    tree = typed.build(Tree, json.loads('{"leaves": [{"number": 1}, {"number": 2}]}'), "tree")
    changed = typed.replace_at(Tree, tree, ["leaves", "1", "label"], "가", "x")
    assert changed.leaves == (Leaf(number=1), Leaf(number=2, label="가"))
    assert typed.replace_at(Tree, tree, ["span", "1"], "3", "x").span == (1, 3.0)
    assert tree.leaves[1].label is None
