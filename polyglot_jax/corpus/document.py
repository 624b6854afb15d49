"""What a reader hands over: a document with its place, or why something is none."""

from dataclasses import dataclass
from typing import Any

# A document is held whole, several times over while rules edit it: what is longer is rejected.
MAX_BYTES = 32 << 20


@dataclass(frozen=True)
class Document:
    """One text and where it stands: `row` is the number of its row or first line, from 1."""

    file: str
    row: int
    text: str
    source: str | None = None
    id: str | None = None


@dataclass(frozen=True)
class Reject:
    """A line, row or file that is no document; row 0 is the file itself."""

    file: str
    row: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Fields:
    """The names of the fields or columns of a record."""

    text: str = "text"
    source: str = "source"
    id: str = "id"


def decode(file: str, row: int, data: bytes) -> str | Reject:
    """Returns the text of bytes that are UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        return Reject(file, row, f"invalid UTF-8 at byte {error.start + 1}: {error.reason}")


def too_long(file: str, row: int, size: int) -> Reject:
    """Returns the reject of something that was passed over without being held."""
    return Reject(file, row, f"longer than {MAX_BYTES:,} bytes: {size:,}")


def make(file: str, row: int, text: Any, source: Any, id_: Any) -> Document | Reject:
    """Returns the document of a record's values, if its text is one."""
    if text is None:
        return Reject(file, row, "text is null")
    if not isinstance(text, str):
        return Reject(file, row, f"text is a {type(text).__name__}, not a string")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return Reject(file, row, f"text holds a lone surrogate at character {error.start + 1}")
    source, id_ = (None if value is None else str(value) for value in (source, id_))
    for name, value in (("source", source), ("id", id_)):
        if value is not None and not value.isascii() and not _is_text(value):
            return Reject(file, row, f"{name} holds a lone surrogate")
    return Document(file, row, text, source, id_)


def _is_text(value: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in value)
