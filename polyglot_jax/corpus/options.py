"""Cleaning options from the command line: `--set min_hangul_share=0.25 --set pii=rrn,tel,email`."""

import dataclasses
import types
import typing
from collections.abc import Iterable
from typing import Any

from polyglot_jax.corpus.rules import Options


def parse(settings: Iterable[str], base: Options) -> Options:
    """Returns the options with `name=value` settings applied; an empty value or none is None.

    Raises:
      ValueError: an unknown name, or a value of the wrong type.
    """
    kinds = typing.get_type_hints(Options)
    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if name not in kinds or not equals:
            names = ", ".join(kinds)
            raise ValueError(f"--set {setting}: not name=value; the names are {names}")
        values[name] = _value(setting, kinds[name], text)
    return dataclasses.replace(base, **values)


def _value(setting: str, kind: Any, text: str) -> Any:
    choices = typing.get_args(kind)
    if typing.get_origin(kind) is tuple:
        return tuple(part for part in text.split(",") if part)
    if isinstance(kind, types.UnionType):
        if text in ("", "none"):
            return None
        kind = choices[0]
    elif choices:
        if text not in choices:
            raise ValueError(f"--set {setting}: one of {', '.join(choices)}")
        return text
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"--set {setting}: not of type {kind.__name__}") from None
