"""Which files are read, of which source each is, and what a person should know of that source.

Inputs are globs on the command line or, with weight, licence and category, a sources file:

    [[source]]                      # TOML; in JSON: {"source": [{"name": ..., ...}]}
    name = "petitions"
    input = ["raw/petitions/*.jsonl.gz"]
    weight = 2.0                    # in the mixture: recorded, not applied
    licence = "KOGL Type 1"
    category = "petition"
    text_field = "body"             # default: the flags'; also id_field, source_field
"""

import dataclasses
import json
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from etils import epath

from polyglot_jax.corpus import readers
from polyglot_jax.corpus.document import Fields

_FIELDS = {"text_field": "text", "id_field": "id", "source_field": "source"}
_TYPES: dict[str, Any] = {
    **dict.fromkeys(("name", "licence", "category"), str),
    **{"weight": (int, float), "input": list},
}


@dataclass(frozen=True, kw_only=True)
class Input:
    """A file and what is known of its documents."""

    file: str
    name: str  # without the folders that all inputs share: ids must name no machine
    source: str  # of its documents
    fields: Fields
    fixed: bool = False  # whether it holds of documents that name another, too
    weight: float | None = None
    licence: str | None = None
    category: str | None = None


def find(
    patterns: Iterable[str],
    sources_file: str | None = None,
    *,
    source: str | None = None,
    fields: Fields = Fields(),  # noqa: B008 (frozen)
) -> list[Input]:
    """Returns the inputs of patterns, then those of a sources file; a file counts once.

    Args:
      patterns: files, directories, globs or `hf:` names.
      sources_file: TOML or JSON.
      source: source of documents that name none, of files without one of their own; None takes the
        name of their file or, of text files, of the folder that they are in.
      fields: names of fields where the sources file gives no others.

    Raises:
      ValueError: nothing matches, or the sources file is none.
    """
    found: dict[str, dict[str, Any]] = {}
    for pattern in patterns:
        for file in readers.find_files(pattern):
            found.setdefault(str(file), {"source": source or _source_of(file), "fields": fields})
    for entry in _entries(sources_file) if sources_file else ():
        names = {_FIELDS[key]: value for key, value in entry.items() if key in _FIELDS}
        about = {key: entry.get(key) for key in ("weight", "licence", "category")}
        about |= {"source": entry["name"], "fixed": True}
        about["fields"] = dataclasses.replace(fields, **names)
        for pattern in entry["input"]:
            for file in readers.find_files(pattern):
                if found.setdefault(str(file), about) is not about:
                    raise ValueError(
                        f"{sources_file}: {file} of source {entry['name']} is an input already"
                    )
    files = [epath.Path(file) for file in found]
    names_of = _short_names(files)
    return [
        Input(file=file, name=name, **about)
        for (file, about), name in zip(found.items(), names_of, strict=True)
    ]


def _entries(path: str) -> list[dict[str, Any]]:
    data = epath.Path(path).read_bytes()
    try:
        text = data.decode()
        values = json.loads(text) if path.endswith(".json") else tomllib.loads(text)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    entries = values.get("source") if isinstance(values, dict) else None
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        raise ValueError(f"{path}: no list of sources named source")
    for i, entry in enumerate(entries, 1):
        for key, value in entry.items():
            expected = _TYPES.get(key, str if key in _FIELDS else None)
            if expected is None:
                known = ", ".join((*_TYPES, *_FIELDS))
                raise ValueError(f"{path}: source {i} has the unknown key {key}; known: {known}")
            if not isinstance(value, expected):
                raise ValueError(f"{path}: source {i}: {key} = {value!r} is of the wrong type")
        if not entry.get("name") or not entry.get("input"):
            raise ValueError(f"{path}: source {i} needs a name and an input (a list of globs)")
    return entries


def _short_names(files: list[epath.Path]) -> list[str]:
    """Returns of each path the part below the folder that all share."""
    parents = [file.parent.parts for file in files]
    depth = 0
    while all(len(p) > depth and p[depth] == parents[0][depth] for p in parents):
        depth += 1
    return ["/".join(file.parts[depth:]) for file in files]


def _source_of(path: epath.Path) -> str:
    if path.name.endswith((*readers.KINDS["text"], ".arrow")):
        # One text file is one document or a few: only a folder of them can have boilerplate.
        return path.resolve().parent.name
    return path.name.split(".")[0]
