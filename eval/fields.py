"""What the cells of a benchmark's rows may hold, whether they come as text or as numbers.

Each function takes a cell and returns its value, or raises ValueError saying what is wanted.
"""

import ast
from collections.abc import Mapping, Sequence
from typing import Any

from eval.task import Parse


def any_text(cell: Any) -> str:
    """Text, which may be empty."""
    if not isinstance(cell, str):
        raise ValueError("text is wanted")
    return cell


def text(cell: Any) -> str:
    """Text with something in it."""
    if not any_text(cell).strip():
        raise ValueError("it is empty")
    return cell


def integer(low: int, high: int, minus: int = 0) -> Parse:
    """A whole number from low to high, less `minus`."""

    def parse(cell: Any) -> int:
        value = str(cell).strip()
        if not value.isdecimal() or not low <= int(value) <= high:
            raise ValueError(f"a number from {low} to {high} is wanted")
        return int(value) - minus

    return parse


def boolean(cell: Any) -> int:
    """1 of True and 0 of False, however written."""
    value = str(cell).strip().lower()
    if value not in ("true", "false"):
        raise ValueError("True or False is wanted")
    return int(value == "true")


def one_of(names: Sequence[str]) -> Parse:
    """One of some names, less the spaces around it."""

    def parse(cell: Any) -> str:
        if str(cell).strip() not in names:
            raise ValueError(f"one of {', '.join(names)} is wanted")
        return str(cell).strip()

    return parse


def label(names: Sequence[str]) -> Parse:
    """The number of a class, from 0, that comes as its name or as its number."""

    def parse(cell: Any) -> int:
        value = str(cell).strip()
        if value in names:
            return names.index(value)
        if value.isdecimal() and int(value) < len(names):
            return int(value)
        wanted = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        raise ValueError(f"one of {wanted}, or its number, is wanted")

    return parse


def texts(count: int) -> Parse:
    """That many texts: a list, or a list written out as Python does."""

    def parse(cell: Any) -> tuple[str, ...]:
        try:
            value = ast.literal_eval(cell) if isinstance(cell, str) else cell
        except (ValueError, SyntaxError):
            value = None
        if not isinstance(value, list) or len(value) != count:
            raise ValueError(f"a list of {count} texts is wanted")
        return tuple(map(text, value))

    return parse


def member(name: str, parse: Parse) -> Parse:
    """The value of one key of an object."""

    def parse_member(cell: Any) -> Any:
        if not isinstance(cell, Mapping) or name not in cell:
            raise ValueError(f"an object with {name!r} is wanted")
        return parse(cell[name])

    return parse_member
