"""What cleaning does to one document, rule by rule: `--explain FILE:LINE`."""

import sys

from etils import epath

from polyglot_jax.corpus import difference, readers, rules
from polyglot_jax.corpus.document import Document, Fields, Reject

_CONTEXT = 40  # characters of what stays the same, at each side of a change
_COLORS = {"gone": "\x1b[9;31m", "new": "\x1b[32m"}
_BRACKETS = {"gone": "[-{}-]", "new": "{{+{}+}}"}


def explain(
    file_line: str,
    options: rules.Options,
    fields: Fields = Fields(),  # noqa: B008 (frozen)
    *,
    color: bool | None = None,
) -> str:
    """Returns the effect of each rule on one document as a diff, and why it is dropped.

    Args:
      file_line: a file and the number of the line or row that the document begins in, as
        `raw/web.jsonl.gz:17`; a file alone is its first document.
      options: of cleaning.
      fields: names of fields or columns.
      color: whether changes are coloured; None for on a terminal. Without, what goes stands in
        `[-...-]` and what comes in `{+...+}`.

    Raises:
      ValueError: there is no such document, or it is rejected.
      OSError: the file cannot be read.
    """
    color = sys.stdout.isatty() if color is None else color
    document = _find(file_line, fields)
    form = readers.format_of(document.id or document.file)
    cleaned = rules.clean(document.text, options, format=form, source=document.source or "")
    found = [f"{document.file}:{document.row}", f"{len(document.text):,} characters, as {form}"]
    lines = [", ".join(found if document.id is None else [*found, f"id {document.id}"])]
    for name, before, after in cleaned.steps:
        sizes = f"{len(before):,} -> {len(after):,} characters"
        lines += ["", f"== {name}: {sizes}", _difference(before, after, color)]
    if not cleaned.steps:
        lines += ["", "no rule changes it"]
    why = rules.why_dropped(cleaned.text, options)
    if why:
        name, value, limit = why
        lines += ["", f"dropped: {name} ({value:.4g}, the limit is {limit:g})"]
    else:
        reasons = f" ({'; '.join(cleaned.reasons)})" if cleaned.reasons else ""
        lines += ["", f"kept: {len(cleaned.text):,} characters, kind {cleaned.kind}{reasons}"]
        lines += ["(duplicates and boilerplate are found by comparing documents, not here)"]
    return "\n".join(lines)


def _find(file_line: str, fields: Fields) -> Document:
    name, colon, number = file_line.rpartition(":")
    if not colon or not number.isdigit():
        name, number = file_line, ""
    path = epath.Path(name)
    if not path.exists():
        raise ValueError(f"--explain={file_line}: no file {path}; it is FILE:LINE")
    if not path.name.endswith(readers.SUFFIXES):
        raise ValueError(f"{path}: only {', '.join(readers.SUFFIXES)} are read")
    for item in readers.read(path, fields):
        if not number or item.row == int(number):
            if isinstance(item, Reject):
                raise ValueError(f"{item.file}:{item.row}: {item.reason}")
            return item
        if item.row > int(number):
            break
    raise ValueError(f"--explain={file_line}: no document begins there")


def _difference(before: str, after: str, color: bool) -> str:
    parts = list(difference.pieces(before, after))
    return "".join(
        _excerpt(text, first=not i, last=i == len(parts) - 1) if kind == "same"
        else f"{_COLORS[kind]}{difference.visible(text)}\x1b[0m" if color
        else _BRACKETS[kind].format(difference.visible(text))
        for i, (kind, text) in enumerate(parts)
    )  # fmt: skip


def _excerpt(text: str, *, first: bool, last: bool) -> str:
    """Shortens what stays the same to what stands next to changes."""
    begin = text[: 0 if first else _CONTEXT]
    end = text[max(len(begin), len(text) - (0 if last else _CONTEXT)) :]
    left_out = len(begin) + len(end) < len(text)
    return difference.printable(f"{begin}{' … ' if left_out else ''}{end}")
