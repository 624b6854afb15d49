"""Frozen dataclasses out of JSON types and out of "a.b=c" text, checked against annotations.

Whatever does not fit an annotation is refused with the place, the value and the likely names, so
that a misspelt key can never be ignored. Knows nothing of experiments and imports no jax.
"""

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any


def build(kind: Any, value: Any, where: str) -> Any:
    """Makes a value of the annotated type `kind` out of JSON types.

    Dataclasses are made of mappings, tuples of lists; an int stands for a float and a whole float
    (1e5) for an int; `X | None` takes null.

    Raises:
      ValueError: naming `where`, on an unknown or missing key and on a value of another type.
    """
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise ValueError(f"{where}: expected the fields of {_name(kind)}, got {value!r}")
        hints = _field_types(kind)
        for key in value:
            if key not in hints:
                raise ValueError(f"{where}: unknown key {key!r}{closest(str(key), list(hints))}")
        for field in dataclasses.fields(kind):
            if field.name not in value and field.default is dataclasses.MISSING:
                raise ValueError(f"{where}: missing key {field.name!r}")
        made = {key: build(hints[key], v, f"{where}.{key}") for key, v in value.items()}
        return kind(**made)  # type: ignore[operator]
    if isinstance(kind, types.UnionType):
        return None if value is None else build(_without_none(kind), value, where)
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise ValueError(f"{where}: expected a list, got {value!r}")
        kinds = _element_types(kind, len(value))
        if len(kinds) != len(value):
            raise ValueError(f"{where}: expected {len(kinds)} values, got {value!r}")
        pairs = zip(kinds, value, strict=True)
        return tuple(build(k, v, f"{where}.{i}") for i, (k, v) in enumerate(pairs))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError:
            raise ValueError(f"{where}: {str(value)[:20]}... is too large") from None
    if kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not kind:
        raise ValueError(f"{where}: expected {_name(kind)}, got {value!r}")
    return value


def parse(kind: Any, text: str, where: str) -> Any:
    """Reads a value of type `kind` from text: a string as it is, all else as JSON.

    `1_000` is a number, and `none` and `True` are taken in any case. Raises ValueError as `build`.
    """
    if kind is str or (kind == str | None and text.lower() not in ("none", "null")):
        return text
    lower = text.lower()
    text = {"none": "null", "true": "true", "false": "false"}.get(lower, text)
    try:
        value = json.loads(text.replace("_", "") if text[:1].isdecimal() else text)
    except (ValueError, RecursionError):
        raise ValueError(f"{where}: expected {_name(kind)}, got {text!r}") from None
    return build(kind, value, where)


def replace_at(kind: Any, node: Any, path: Sequence[str], text: str, where: str) -> Any:
    """Returns `node`, a value of type `kind`, with what lies at `path` parsed from `text`.

    Raises:
      ValueError: naming `where`, on a key or an index that is not there and as `parse`.
    """
    if not path:
        return parse(kind, text, where)
    head, rest = path[0], path[1:]
    if isinstance(node, tuple):
        if not head.isdecimal() or int(head) >= len(node):
            raise ValueError(f"{where}: {head!r} is not an index below {len(node)}")
        i = int(head)
        element = _element_types(kind, len(node))[i]
        return (*node[:i], replace_at(element, node[i], rest, text, where), *node[i + 1 :])
    if not dataclasses.is_dataclass(node):
        raise ValueError(f"{where}: {node!r} has nothing named {head!r}")
    hints = _field_types(type(node))
    if head not in hints:
        raise ValueError(f"{where}: unknown key {head!r}{closest(head, list(hints))}")
    value = replace_at(hints[head], getattr(node, head), rest, text, where)
    return dataclasses.replace(node, **{head: value})  # type: ignore[type-var]


def closest(name: str, known: Sequence[str]) -> str:
    """Returns the tail of an error line: the likely names first, then what there is."""
    matches = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"; did you mean {', '.join(matches)}?" if matches else ""
    return f"{hint} (known: {', '.join(known)})"


def _field_types(cls: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def _element_types(kind: Any, length: int) -> list[Any]:
    args = typing.get_args(kind)
    return [args[0]] * length if args[-1] is Ellipsis else list(args)


def _without_none(kind: Any) -> Any:
    (only,) = (k for k in typing.get_args(kind) if k is not types.NoneType)
    return only


def _name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind)
